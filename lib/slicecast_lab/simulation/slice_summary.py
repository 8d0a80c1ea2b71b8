"""What the courses of all cases say about slice strategies, as JSON values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from slicecast.volume.metrics import Mean, bootstrap_mean
from slicecast_lab.simulation.curves import at_effort, aubc, steps_to
from slicecast_lab.simulation.effort import EFFORTS, Actions, EffortModel

GOAL_DICE = 0.85

GRID = 101
"""Places of the effort axis at which curves are read."""

DIGITS = 4

Course = Mapping[str, Any]


def summarise_slices(results: Sequence[Mapping[str, Any]], *, corrections: int) -> dict[str, Any]:
    """Summarise each strategy; the first one is compared with each other, case by case.

    Args:
        results: of `SliceTask.run`.
    """
    names = list(results[0]["courses"])
    groups = [case["group"] for case in results]
    courses = {name: [case["courses"][name] for case in results] for name in names}
    wanted = corrections + 1
    return {
        "cases": len(results),
        "groups": len(set(groups)),
        "goal": GOAL_DICE,
        "slices": list(range(1, wanted + 1)),
        "strategies": {name: _strategy(courses[name], groups, wanted) for name in names},
        "first_against": {
            name: _against(courses[names[0]], courses[name], groups, wanted) for name in names if name != names[0]
        },
    }


def dice_curve(course: Course, wanted: int) -> list[float]:
    """Return Dice after each annotated slice; who has no more to ask stays where it is."""
    values = [step["dice"] for step in course["steps"]]
    return [*values, *[values[-1]] * (wanted - len(values))]


def effort_curve(course: Course, model: EffortModel) -> tuple[list[float], list[float]]:
    """Return the seconds spent by each step, and its Dice."""
    done, seconds = Actions(), []
    for step in course["steps"]:
        done += Actions(*step["actions"])
        seconds.append(model.seconds(done))
    return seconds, [step["dice"] for step in course["steps"]]


def effort_aubc(course: Course, model: EffortModel, horizon_s: float) -> float:
    """Return the area under Dice against seconds, from 0 to the horizon, as a share of it."""
    grid = np.linspace(0.0, horizon_s, GRID)
    return aubc(grid.tolist(), at_effort(*effort_curve(course, model), grid.tolist()).tolist())


def seconds_to(course: Course, model: EffortModel, goal: float) -> float:
    """Return the seconds until the goal, or all that was spent."""
    seconds, values = effort_curve(course, model)
    return next((at for at, value in zip(seconds, values, strict=True) if value >= goal), seconds[-1])


def _strategy(courses: Sequence[Course], groups: Sequence[str], wanted: int) -> dict[str, Any]:
    counts = [steps_to(dice_curve(course, wanted), GOAL_DICE) for course in courses]
    return {
        "dice": [_mean([dice_curve(c, wanted)[n] for c in courses], groups) for n in range(wanted)],
        "aubc": _mean([_area(course, wanted) for course in courses], groups),
        "slices_to_goal": _mean([count.steps for count in counts], groups),
        "never": round(float(np.mean([not count.reached for count in counts])), DIGITS),
        "annotated": round(float(np.mean([len(course["steps"]) for course in courses])), DIGITS),
        "effort": {name: _effort(courses, groups, model, wanted) for name, model in EFFORTS.items()},
    }


def _effort(courses: Sequence[Course], groups: Sequence[str], model: EffortModel, wanted: int) -> dict[str, Any]:
    horizon = _horizon(model, wanted)
    return {
        "aubc": _mean([effort_aubc(course, model, horizon) for course in courses], groups),
        "seconds_to_goal": _mean([seconds_to(course, model, GOAL_DICE) for course in courses], groups),
    }


def _against(
    first: Sequence[Course], other: Sequence[Course], groups: Sequence[str], wanted: int
) -> dict[str, dict[str, Any]]:
    """Return the mean differences (first minus other) of paired cases."""

    def paired(measure: Callable[[Course], float]) -> dict[str, Any]:
        return _mean([measure(a) - measure(b) for a, b in zip(first, other, strict=True)], groups)

    efforts = {
        f"effort_aubc, {name}": paired(lambda c, m=model: effort_aubc(c, m, _horizon(m, wanted)))  # type: ignore[misc]
        for name, model in EFFORTS.items()
    }
    return {
        "aubc": paired(lambda course: _area(course, wanted)),
        "slices_to_goal": paired(lambda course: steps_to(dice_curve(course, wanted), GOAL_DICE).steps),
        "seconds_to_goal": paired(lambda course: seconds_to(course, EFFORTS["as given"], GOAL_DICE)),
        **efforts,
    }


def _area(course: Course, wanted: int) -> float:
    return aubc(range(1, wanted + 1), dice_curve(course, wanted))


def _horizon(model: EffortModel, wanted: int) -> float:
    """Return the seconds that painting every slice of the budget takes: one axis for all strategies."""
    return model.seconds(Actions(looks=wanted, masks=wanted))


def _mean(values: Sequence[float], groups: Sequence[str]) -> dict[str, Any]:
    return rounded(bootstrap_mean(values, groups))


def rounded(mean: Mean) -> dict[str, Any]:
    """Return a mean as JSON values."""
    return {name: round(value, DIGITS) for name, value in asdict(mean).items()}
