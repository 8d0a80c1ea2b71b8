"""The delivery queue: failures, restarts and a kill at any step lose nothing; what was refused is not delivered."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slicecast.labelling.store.delivery import DeliveryQueue


@pytest.fixture
def label(tmp_path) -> Path:
    file = tmp_path / "label.nii.gz"
    file.write_bytes(b"voxels")
    return file


class Receiver:
    """Takes deliveries, or fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.got = failures, []

    def __call__(self, delivery) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the PACS is down")
        self.got.append((delivery.facts["image_id"], delivery.label.read_bytes(), delivery.label.name))


def test_labels_arrive_in_order_and_once(tmp_path, label):
    receiver = Receiver()
    box = DeliveryQueue(tmp_path / "box", receiver)
    for name in ("a", "b", "c"):
        box.put(label, {"image_id": name})
    assert [delivery.facts["image_id"] for delivery in box.waiting()] == ["a", "b", "c"]
    assert box.deliver_all() == 0 and box.deliver_all() == 0
    assert receiver.got == [(name, b"voxels", "label.nii.gz") for name in "abc"]


def test_it_tries_until_they_have_arrived(tmp_path, label):
    receiver = Receiver(failures=3)
    box = DeliveryQueue(tmp_path / "box", receiver, wait_s=0.01)
    box.put(label, {"image_id": "a"})
    box.start()
    while box.waiting():
        assert receiver.failures >= 0
    box.close()
    assert len(receiver.got) == 1


def test_a_restart_goes_on(tmp_path, label):
    DeliveryQueue(tmp_path / "box", Receiver(failures=99)).put(label, {"image_id": "a"})
    label.unlink()
    receiver = Receiver()
    assert DeliveryQueue(tmp_path / "box", receiver).deliver_all() == 0
    assert receiver.got == [("a", b"voxels", "label.nii.gz")]


def test_one_that_cannot_be_delivered_does_not_hold_up_others(tmp_path, label):
    receiver = Receiver(failures=1)
    box = DeliveryQueue(tmp_path / "box", receiver)
    box.put(label, {"image_id": "a"})
    box.put(label, {"image_id": "b"})
    assert box.deliver_all() == 1
    assert [got[0] for got in receiver.got] == ["b"]


def test_a_damaged_job_stays_and_is_skipped(tmp_path, label):
    box = DeliveryQueue(tmp_path / "box", Receiver())
    job = box.put(label, {"image_id": "a"})
    (job / "job.json").write_text("{")
    assert box.waiting() == [] and job.is_dir()


def test_a_discarded_one_never_arrives(tmp_path, label):
    box = DeliveryQueue(tmp_path / "box", receiver := Receiver())
    box.discard(box.put(label, {"image_id": "a"}))
    assert box.deliver_all() == 0 and receiver.got == []


KILLED = """
import os, resource, signal, sys
from pathlib import Path
from slicecast.labelling.store.delivery import DeliveryQueue
folder, label, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
count = 0
def tick(event, args):
    # every file operation of the interpreter passes here; the process dies at number `step`, with nothing cleaned up
    global count
    if event in ("open", "os.rename", "os.mkdir", "os.chmod", "os.remove", "os.rmdir", "shutil.rmtree"):
        if str(folder) in str(args):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
box = DeliveryQueue(folder, lambda delivery: None)
sys.addaudithook(tick)
box.put(label, {"image_id": "a"})
print("safe", flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_killed_at_any_step_what_was_said_to_be_safe_is_there(tmp_path, label):
    said = []
    for step in range(1, 40):
        folder = tmp_path / f"box{step}"
        command = [sys.executable, "-c", KILLED, str(folder), str(label), str(step)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        receiver = Receiver()
        box = DeliveryQueue(folder, receiver)
        assert not list(folder.glob(".*")), "leftovers are removed"
        whole = box.waiting()
        assert all(json.loads((delivery.folder / "job.json").read_text()) == {"image_id": "a"} for delivery in whole)
        assert all(delivery.label.read_bytes() == b"voxels" for delivery in whole)
        said.append("safe" in done.stdout)
        assert whole or not said[-1]
        if done.returncode == 0:
            break
    assert said[-1] and said.count(False) >= 5
