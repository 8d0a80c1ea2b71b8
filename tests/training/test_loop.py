import json
from dataclasses import dataclass, replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from slicecast.errors import ConfigError, StateError
from slicecast.training.loop import HISTORY, LoopSettings, latest_checkpoint, train

SETTINGS = LoopSettings(steps=30, learning_rate=0.05, warmup_steps=3, checkpoint_every=10, validate_every=15)


@dataclass(frozen=True, slots=True)
class Squared:
    total: torch.Tensor

    def terms(self):
        return {"total": self.total}


def line(first, last):
    """Yield batches that depend on their number only."""
    for number in range(first, last):
        x = torch.randn(8, 1, generator=torch.Generator().manual_seed(number))
        yield x, 3 * x + 1


def run(folder, *, settings=SETTINGS, batches=line, dropout=0.0, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(dropout), nn.Linear(8, 1))

    def objective(batch):
        return Squared((model(batch[0]) - batch[1]).square().mean())

    average = train(model, objective, batches, settings=settings, folder=folder, seed=1, **options)
    return model, average


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_training_lowers_the_loss_and_writes_history(tmp_path):
    """For programs, and for TensorBoard."""
    run(tmp_path, settings=replace(SETTINGS, steps=100))
    lines = [json.loads(text) for text in (tmp_path / HISTORY).read_text().splitlines()]
    losses = [entry["total"] for entry in lines if entry["kind"] == "train"]
    assert losses[-1] < 0.3 * losses[0]
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("train/total")
    assert [event.value for event in shown] == pytest.approx(losses)


def test_a_run_resumed_after_a_kill_ends_bit_exactly_like_one_that_ran_through(tmp_path):
    class Killed(Exception):
        pass

    def dying(first, last):
        for number, batch in enumerate(line(first, last), start=first):
            if number == 17:
                raise Killed
            yield batch

    whole, whole_average = run(tmp_path / "whole", dropout=0.2)
    with pytest.raises(Killed):
        run(tmp_path / "parts", batches=dying, dropout=0.2)
    assert latest_checkpoint(tmp_path / "parts").stem == "checkpoint_10"
    parts, parts_average = run(tmp_path / "parts", dropout=0.2)
    assert torch.equal(weights(whole), weights(parts))
    assert torch.equal(weights(whole_average), weights(parts_average))


def test_a_finished_run_can_be_lengthened(tmp_path):
    run(tmp_path)
    run(tmp_path)
    assert latest_checkpoint(tmp_path).stem == "checkpoint_30"
    run(tmp_path, settings=replace(SETTINGS, steps=40))
    assert latest_checkpoint(tmp_path).stem == "checkpoint_40"


def test_the_average_is_validated(tmp_path):
    seen = []
    run(tmp_path, validate=lambda model: seen.append(model) or {"score": 0.5})
    assert len(seen) >= 2
    assert '"kind": "validation", "score": 0.5' in (tmp_path / HISTORY).read_text()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_sound_checkpoints(tmp_path):
    def poisoned(first, last):
        for number, (x, y) in enumerate(line(first, last), start=first):
            yield x, y * (float("nan") if number == 12 else 1)

    with pytest.raises(StateError, match="not finite at step 13"):
        run(tmp_path, batches=poisoned)
    state = torch.load(latest_checkpoint(tmp_path), weights_only=True)
    assert all(torch.isfinite(t).all() for t in state["model"].values())


def test_the_rate_rises_stays_and_falls():
    settings = LoopSettings(steps=100, learning_rate=1.0, warmup_steps=10, decay_steps=20)
    assert settings.rate(0) == pytest.approx(0.1)
    assert settings.rate(50) == 1.0
    assert settings.rate(90) == pytest.approx(0.5)
    assert settings.rate(99) == pytest.approx(0.05)


def test_the_decay_ends_where_it_is_told():
    settings = LoopSettings(steps=100, learning_rate=1.0, warmup_steps=0, decay_steps=20, final_rate=0.01)
    assert settings.rate(99) == pytest.approx(0.05)
    assert settings.rate(100) == pytest.approx(0.01)


def test_accumulated_batches_weigh_like_one_large_batch(tmp_path):
    def joined(first, last):
        for number in range(first, last):
            pairs = list(line(2 * number, 2 * number + 2))
            yield tuple(torch.cat(side) for side in zip(*pairs, strict=True))

    large, _ = run(tmp_path / "large", batches=joined)
    parts, _ = run(tmp_path / "parts", settings=replace(SETTINGS, accumulate=2))
    assert torch.allclose(weights(large), weights(parts), atol=1e-5)


def test_unknown_precisions_are_refused():
    with pytest.raises(ConfigError, match="float8"):
        LoopSettings(steps=1, precision="float8")
