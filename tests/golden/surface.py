"""The product's surface as it is now, by the ways in that users have: files, commands, HTTP, `import slicecast`."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml
from labelserver import ROOT, TestClient, copy_app, monailabel_settings, read_mask
from typer.testing import CliRunner

import slicecast
from slicecast.cli.main import app
from slicecast.server.app import create_app

STUDIES = ROOT / "sample-data" / "studies"
GROUPS = ("campaign", "models", "train", "users")
WIDE = "300"
"""Columns of the terminal: default paths, as long as the checkout's own, must not wrap."""
COMMANDS = ("doctor", "evaluate", "export", "replay", "segment", "serve", "simulate")


def command(*words: str | Path) -> str:
    """Run a command in this process; return what it printed."""
    plain = {"COLUMNS": WIDE, "TERM": "dumb", "NO_COLOR": "1"}
    done = CliRunner().invoke(app, [str(word) for word in words], env=plain, prog_name="slicecast")
    assert done.exit_code == 0, done.output
    return done.output


def listed(text: str) -> list[str]:
    """Return the names that a help page lists as commands."""
    return re.findall(r"^│ ([a-z][a-z-]+) ", text.partition("Commands")[2], flags=re.M)


def helps() -> dict[str, list[str]]:
    """Return the lines of every command's help, without frames and runs of spaces."""
    found = {name: command(name, "--help") for name in COMMANDS}
    for group in GROUPS:
        found |= {f"{group} {name}": command(group, name, "--help") for name in listed(command(group, "--help"))}
    return {name: _words(text.replace(str(ROOT), "ROOT")) for name, text in found.items()}


def _words(text: str) -> list[str]:
    lines = (re.sub(r"[─│╭╮╰╯\s]+", " ", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def yaml_keys() -> dict[str, list[str]]:
    """Return the path of every setting of every file in configs/, with its type."""
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    return {
        file.relative_to(ROOT).as_posix(): sorted(set(_paths(yaml.safe_load(file.read_text(encoding="utf-8")))))
        for file in files
    }


def _paths(content: Any, at: str = "") -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _paths(value, f"{at}.{key}" if at else str(key))
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        for value in content:
            yield from _paths(value, f"{at}[]")
    else:
        yield f"{at}: {type(content).__name__}"


@contextmanager
def server(folder: Path) -> Iterator[TestClient]:
    """Run the whole application in this process on one small scan, with the bundled model."""
    (folder / "studies").mkdir(parents=True)
    shutil.copy(STUDIES / "mr_brain_b.nii.gz", folder / "studies")
    chosen = {
        "MONAI_LABEL_APP_DIR": str(copy_app(folder / "app")),
        "MONAI_LABEL_STUDIES": str(folder / "studies"),
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": False,
        "MONAI_LABEL_APP_CONF": {"labels": "cerebellum,brainstem", "model": "sam2_nano", "device": "cpu"},
    }
    with monailabel_settings(**chosen), TestClient(create_app()) as client:
        yield client


def metric_names(client: TestClient) -> list[str]:
    """Return the metrics with their labels, without their values."""
    lines = client.get("/metrics").text.splitlines()
    names = {re.sub(r'="[^"]*"', "", line.rpartition(" ")[0]) for line in lines if line and not line.startswith("#")}
    return sorted(name for name in names if name.startswith("slicecast"))


def described(mask: np.ndarray, labels: dict[str, int]) -> dict[str, Any]:
    """Return what makes a mask byte for byte the same."""
    assert mask.dtype == np.uint8
    digest = hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest()
    return {"shape": list(mask.shape), "voxels": int(np.count_nonzero(mask)), "labels": labels, "sha256": digest}


def requests() -> dict[str, dict[str, Any]]:
    """Return a request of each kind, on the sample scans."""
    brain, abdomen = STUDIES / "mr_brain_b.nii.gz", STUDIES / "ct_abdomen_b.nii.gz"
    painted = np.zeros(slicecast.read_volume(brain).array.shape, bool)
    painted[13, 68:82, 80:98] = True
    click = {"points": {"cerebellum": [(89, 75, 13)]}, "range": (9, 18)}
    kidney = {"points": {"kidney": [(47, 70, 18)]}, "range": (14, 23)}
    several = {"points": {"kidney": [(47, 70, 18)], "liver": [(30, 40, 18)]}, "range": (15, 22)}
    return {
        "click": {"image": brain, **click},
        "box": {"image": brain, "boxes": {"cerebellum": [((78, 64, 13), (100, 86, 13))]}, "range": (9, 18)},
        "mask": {"image": brain, "masks": {"cerebellum": [painted]}, "range": (10, 17)},
        "absent": {"image": brain, **click, "absent": {"cerebellum": [16]}},
        "negative": {"image": brain, **click, "negative": {"cerebellum": [(89, 55, 13)]}},
        "correction": {"image": brain, "points": {"cerebellum": [(89, 75, 13), (89, 75, 15)]}, "range": (9, 19)},
        "axis": {"image": brain, "points": {"cerebellum": [(89, 75, 13)]}, "axis": "axial", "range": (70, 80)},
        "abdomen": {"image": abdomen, **kidney},
        "several": {"image": abdomen, **several},
        "window": {"image": abdomen, **kidney, "window": "0:200"},
    }


def masks() -> dict[str, dict[str, Any]]:
    """Return the answers to all requests."""
    service = slicecast.SegmentService(model="sam2_nano", device="cpu")
    found = {}
    for name, request in requests().items():
        result = slicecast.segment(request.pop("image"), **request, service=service)
        found[name] = described(result.mask, dict(result.labels))
    return found


def infer_masks(client: TestClient, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the answers to two requests as MONAI Label's clients send them."""
    single = {"foreground": [[89, 75, 13]], "background": [[89, 55, 13]], "label": "cerebellum"}
    several = {"cerebellum": [[89, 75, 13]], "brainstem": [[68, 56, 13]]}
    found = {}
    for model, params in (("sam2_single", single), ("sam2", several)):
        words = {"params": json.dumps({**params, "result_extension": ".nrrd"})}
        answer = client.post(f"/infer/{model}", params={"image": "mr_brain_b", "output": "image"}, data=words)
        assert answer.status_code == 200, answer.text
        found[model] = described(sitk.GetArrayFromImage(read_mask(answer.content, folder)), {})
    return found


def record_session(client: TestClient) -> str:
    """Work through a session over HTTP; return its id."""
    root = client.post("/slicecast/sessions", json={"image": "mr_brain_b", "client_id": "golden"}).headers["location"]
    point = {"kind": "point", "object": "cerebellum", "ijk": [89, 75, 13]}
    box = {"kind": "box", "object": "brainstem", "low_ijk": [60, 48, 13], "high_ijk": [76, 66, 13]}

    def post(path: str, **body: Any) -> Any:
        answer = client.post(f"{root}/{path}", json=body or None)
        assert answer.status_code == 200, answer.text
        return answer

    post("prompts", prompts=[point])
    post("prompts", prompts=[box, {**point, "ijk": [89, 75, 15], "positive": True}])
    post("undo")
    post("redo")
    post("prompts", prompts=[{"kind": "absent", "object": "cerebellum", "slice": 25}])
    post("propagate")
    post("accept", object="cerebellum", slices=[13, 14])
    post("prompts", prompts=[{**point, "ijk": [89, 55, 13], "positive": False}])
    return root.rpartition("/")[2]


def record_campaign(client: TestClient) -> None:
    """Let a case be taken, clicked, submitted, rejected, done again and approved."""

    def press(action: str, who: str, **body: Any) -> None:
        headers = {"X-Requested-With": "slicecast", "X-Slicecast-User": who}
        answer = client.post(f"/campaign/case/mr_brain_b/{action}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text

    def click(who: str) -> None:
        words = {"params": json.dumps({"foreground": [[89, 75, 13]], "result_extension": ".nii.gz"})}
        query = {"image": "mr_brain_b", "output": "json"}
        answer = client.post("/infer/sam2_single", params=query, data=words, headers={"X-Slicecast-User": who})
        assert answer.status_code == 200, answer.text

    press("take", "ann")
    click("ann")
    press("slice", "ann", slice=13, axis="sagittal")
    press("submit", "ann")
    press("reject", "rita", why="a hole")
    press("take", "ann")
    click("ann")
    press("submit", "ann")
    press("approve", "rita")


def replayed(folder: Path, files: Path) -> dict[str, Any]:
    """Carry out the recorded session and check the recorded campaign, by the commands that there are for it."""
    shutil.copytree(files, folder, dirs_exist_ok=True)
    session = json.loads((files / "session_id.json").read_text(encoding="utf-8"))
    stored = ("replay", "--session", session, "--folder", folder, "--image", STUDIES / "mr_brain_b.nii.gz")
    found: dict[str, Any] = {}
    for revision in (1, 4, -1):
        out = folder / f"mask{revision}.nii.gz"
        command(*stored, "--revision", str(revision), "-o", out, "--device", "cpu")
        found[f"session at {revision}"] = described(slicecast.read_volume(out).array, {})
    command(*stored, "--log", folder / "log.jsonl")
    header, *records = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    header.pop("image")
    found["session log"] = [header, *records]
    found["campaign"] = json.loads(command("campaign", "status", "--json", "--studies", folder))
    found["chain"] = command("campaign", "verify", "--studies", folder).strip()
    return found
