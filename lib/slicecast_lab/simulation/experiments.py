"""The three experiments as one call each: cases in, a report as JSON values out, the same bytes for the same seed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import slicecast
from slicecast.errors import ConfigError
from slicecast_lab.evaluation.cases import CaseFiles, Split
from slicecast_lab.simulation.learner import Labelling
from slicecast_lab.simulation.slices import PairTask, SliceTask, TaughtPairs, describe
from slicecast_lab.simulation.strategies import ORACLE
from slicecast_lab.simulation.summary import summarise_joint, summarise_slices, summarise_volumes
from slicecast_lab.simulation.volumes import VolumePlan, Work, learn, run_campaigns
from slicecast_lab.simulation.work import Setup

Experiment = Literal["volumes", "slices", "joint"]


def simulate_slices(
    cases: Sequence[CaseFiles], teachers: Sequence[CaseFiles], like: SliceTask, setup: Setup, work: Work
) -> dict[str, Any]:
    """Run E2 on cases.

    Args:
        teachers: cases whose labels teach how far confidence can be trusted; a case is never taught by its own group.
        like: a task with all settings; its case is not used.
    """
    lessons = work([PairTask(files, like.robot, like.strokes) for files in teachers])
    taught = {
        group: TaughtPairs.of((t.group, rows) for t, rows in zip(teachers, lessons, strict=True) if t.group != group)
        for group in {files.group for files in cases}
    }
    results = work([replace(like, files=files, taught=taught[files.group]) for files in cases])
    settings = {
        "strategies": list(like.strategies),
        "corrections": like.corrections,
        "robot": like.robot.kind,
        "seed": like.robot.seed,
        "strokes": like.strokes,
        "teachers": [files.id for files in teachers],
    }
    summary = summarise_slices(results, corrections=like.corrections)
    confidence = describe(
        TaughtPairs.of((t.group, rows) for t, rows in zip(teachers, lessons, strict=True)).calibration()
    )
    return {**_head("slices", setup, settings), "summary": {**summary, "confidence": confidence}, "cases": results}


def simulate_volumes(split: Split, plan: VolumePlan, setup: Setup, work: Work) -> dict[str, Any]:
    """Run E1; raises ConfigError if the pool is smaller than the largest budget."""
    plan.check(len(split.pool))
    pool = learn(split.pool, split.test, plan.labelling, work)
    campaigns = run_campaigns(pool, plan)
    summary = summarise_volumes(pool, plan, campaigns, [files.group for files in split.test])
    return {**_head("volumes", setup, _volume_settings(split, plan)), "summary": summary}


def simulate_joint(split: Split, plan: VolumePlan, slices: Sequence[str], setup: Setup, work: Work) -> dict[str, Any]:
    """Run E3: each slice strategy makes the labels, each volume strategy chooses among them.

    Args:
        plan: its labelling says robot and corrections.

    Raises:
        ConfigError: the pool is smaller than the largest budget, or the oracle was asked for, which knows no effort.
    """
    plan.check(len(split.pool))
    if ORACLE in plan.strategies:
        raise ConfigError(f"The joint experiment has no strategy '{ORACLE}'. Leave it out.")
    runs = {}
    for name in slices:
        own = replace(plan, labelling=replace(plan.labelling, strategy=name))
        pool = learn(split.pool, split.test, own.labelling, work)
        runs[name] = pool, run_campaigns(pool, own)
    settings = {**_volume_settings(split, plan), "slices": list(slices)}
    summary = summarise_joint(runs, plan, [files.group for files in split.test])
    return {**_head("joint", setup, settings), "summary": summary}


def _head(experiment: Experiment, setup: Setup, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "experiment": experiment,
        "version": slicecast.__version__,
        "model": {"name": setup.model, "sha256": setup.sha256},
        "settings": settings,
    }


def _volume_settings(split: Split, plan: VolumePlan) -> dict[str, Any]:
    labelling: Labelling = plan.labelling
    return {
        "strategies": list(plan.strategies),
        "budgets": list(plan.budgets),
        "seeds": plan.seeds,
        "robot": labelling.robot.kind,
        "corrections": labelling.corrections,
        "strokes": labelling.strokes,
        "pool": [files.id for files in split.pool],
        "test": [files.id for files in split.test],
    }
