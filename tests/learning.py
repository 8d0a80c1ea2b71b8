"""What the tests of fine-tuning share: settings of few and small steps, and a folder of labelled balls."""

from pathlib import Path
from typing import Any

import numpy as np
from builders import ball, scan
from typer.testing import CliRunner

from slicecast.cli.main import app
from slicecast.engine.crop_window import Frames
from slicecast.training.finetune import LabelledObject
from slicecast.volume import write_mask, write_volume

FEW = {
    "parts": "all",
    "loop": {"steps": 4, "warmup_steps": 1, "checkpoint_every": 2, "learning_rate": 1e-4, "ema_momentum": 0.5},
    "clips": {"clips": 1, "tracks": 2, "slices": [3], "augment": {}},
    "prompts": {"corrections": 0},
    "loss": {},
    "automatic": {"channels": 4, "loop": {"steps": 60, "warmup_steps": 1, "learning_rate": 0.01, "ema_momentum": 0.5}},
    "round": {"least_labels": 2, "workers": 1, "least_gain": -1.0, "margin": 1.0, "automatic": False},
}
"""Trained in seconds, and let pass whatever comes of it."""


def few(**sections: dict[str, Any]) -> dict[str, Any]:
    """Return those settings with others in some sections."""
    return {key: {**value, **sections.get(key, {})} if isinstance(value, dict) else value for key, value in FEW.items()}


def ball_object(case: str = "ball", *, seed: int = 0) -> LabelledObject:
    """A ball as training sees it: 16 slices of 20 x 24 pixels, shown on eleven."""
    truth = ball()
    greys = np.clip(scan(truth, seed=seed).array / 140, 0, 1).astype(np.float32)
    frames = Frames(len(greys), greys.shape[1:], (1.0, 1.0), lambda number: greys[number], f"{case}/{seed}")
    return LabelledObject(case, frames, truth, np.ones(len(greys), dtype=bool))


def write_balls(folder: Path, count: int) -> tuple[Path, Path]:
    """Write scans of balls and their labels as two folders."""
    scans, labels = folder / "studies", folder / "truth"
    for place in (scans, labels):
        place.mkdir(parents=True)
    for number in range(count):
        truth = np.roll(ball(radius=4.5), number - 1, axis=0)
        volume = scan(truth, seed=number)
        write_volume(scans / f"ball_{number}.nii.gz", volume)
        write_mask(labels / f"ball_{number}.nii.gz", truth, volume.geometry)
    return scans, labels


def run(*words: object) -> Any:
    """Run the command line."""
    return CliRunner().invoke(app, [str(word) for word in words])
