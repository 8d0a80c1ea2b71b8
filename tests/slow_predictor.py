"""A predictor that takes its time; in a module of its own, so that worker processes can import it."""

import time

from slicecast_lab.simulation.fake import FakePredictor

STEP_S = 0.02


class SlowPredictor(FakePredictor):
    """Takes `STEP_S` for each tracked slice."""

    def track(self, jobs, *, num_slices):
        time.sleep(STEP_S)
        return super().track(jobs, num_slices=num_slices)
