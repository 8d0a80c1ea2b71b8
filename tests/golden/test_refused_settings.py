"""A key that nobody knows is refused in every file of `configs/`, by the commands that read it."""

from pathlib import Path

import pytest
import yaml
from golden.product import CONFIGS, SAMPLES, Call, Done, copy_app, free_port, run_all

SURPLUS = "surplus_key"
SCAN = SAMPLES / "studies" / "ct_abdomen_b.nii.gz"
POINT = ("--point", "kidney=98,73,11", "--range", "10:12", "--device", "cpu")
SEGMENT = ("segment", str(SCAN), *POINT, "-o", "{tmp}/mask.nrrd")
SERVE = ("serve", "--studies", "{tmp}/studies", "--app", "{tmp}/app", "--port", "{port}")
STATUS = ("campaign", "status", "--studies", "{tmp}/studies")
TRAIN = ("lab", "train", "nano", "--config", "{configs}/training/nano.yaml", "--folder", "{tmp}/run")
EXPORT = ("export", "{labelled}", "-o", "{tmp}/segs", "--format", "dicom-seg")

REFUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "active": ("active.yaml:", SERVE),
    "campaign": ("campaign.yaml:", STATUS),
    "engine": ("engine.yaml:", SEGMENT),
    "models": ("models.yaml:", ("models", "list")),
    "models-entry": ("models.yaml:models/sam2_nano", ("models", "list")),
    "server": ("server.yaml:", SERVE),
    "terminology": ("terminology.yaml:", EXPORT),
    "windows": ("windows.yaml:", SEGMENT),
    "nano": ("training/nano.yaml:", TRAIN),
    "nano-loop": ("training/nano.yaml:loop", TRAIN),
}
"""Where a surplus key is put, as `file:place in it`, and a command that reads the file."""


def with_surplus(folder: Path, where: str) -> Path:
    """Write a copy of `configs/` in which one file has a key that nobody knows."""
    name, _, place = where.partition(":")
    for file in CONFIGS.rglob("*.yaml"):
        copy = folder / file.relative_to(CONFIGS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    content = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
    inner = content
    for key in filter(None, place.split("/")):
        inner = inner[key]
    inner[SURPLUS] = 1
    (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def refusals(place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """What the commands said."""
    tmp = tmp_path_factory.mktemp("configs")
    (tmp / "studies").mkdir()
    copy_app(tmp / "app")
    calls, port = [], str(free_port())
    for name, (where, words) in REFUSED.items():
        configs = with_surplus(tmp / name, where)
        filled = [word.format(tmp=tmp, configs=configs, port=port, labelled=place.studies) for word in words]
        calls.append(Call(filled, {"SLICECAST_CONFIGS": str(configs)}))
    return dict(zip(REFUSED, run_all(calls, heavy=["torch", "monailabel.app"]), strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_a_key_that_nobody_knows_is_refused(name, refusals):
    done = refusals[name]
    assert done.code != 0 and f"Unknown setting '{SURPLUS}'" in done.output, done
