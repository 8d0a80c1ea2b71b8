import os
import pickle
import signal
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import ball, scan
from slow_predictor import SlowPredictor

from slicecast.errors import Cancelled, PromptError, WorkerDied
from slicecast.inference.processes import Worker, dumps
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.sessions import Sessions
from slicecast.inference.settings import EngineSettings
from slicecast.inference.workers import WorkersService
from slicecast.prompts import MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.volume import Volume, read_volume, write_volume

SHAPE = (40, 24, 24)


def pillar(shift=0):
    """A bright pillar through all slices, bool (40, 24, 24)."""
    truth = np.zeros(SHAPE, dtype=bool)
    truth[:, 6:14, 6 + shift : 16 + shift] = True
    return truth


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(4):
        write_volume(folder / f"{number}.nii.gz", scan(pillar(number)))
    return [folder / f"{number}.nii.gz" for number in range(4)]


@pytest.fixture(scope="module")
def service():
    quiet = EngineSettings(workers=2, idle_encode=False)
    service = WorkersService(predictor=SlowPredictor(), settings=quiet)
    with service.running():
        wait_until(lambda: all(worker.ready for worker in service.workers))
        yield service


def wait_until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def click(image, k=8, **more):
    return SegmentRequest(image, PromptSet((ObjectPrompts("ball", points=(Point((10, 10, k)),), **more),)))


def expected(request):
    return SegmentService(predictor=SlowPredictor(), settings=EngineSettings(idle_encode=False)).segment(request)


def same(found, other):
    assert np.array_equal(found.mask, other.mask) and found.mask.any() and found.mask.flags.writeable
    assert found.labels == other.labels and found.next_slice == other.next_slice and found.stopped == other.stopped
    assert found.confidence == other.confidence and found.geometry == other.geometry


def test_answers_are_those_of_one_process(service, images):
    told = []
    found = service.segment(click(images[0]), on_slice=told.append)
    alone = expected(click(images[0]))
    same(found, alone)
    assert told[0].slice == 8 and len(told) >= SHAPE[0]
    again = service.segment(click(images[0]))
    assert again.slices_recomputed == 0 and np.array_equal(again.mask, alone.mask)  # the worker kept its answers
    assert service.work.tracked > 0 and service.cache_stats().misses > 0
    assert service.fingerprint_of() == SlowPredictor().fingerprint


def test_painted_slices_arrive_as_they_are(service, images):
    drawn = np.zeros(SHAPE, dtype=bool)
    drawn[5, 7:12, 7:12] = True
    request = SegmentRequest(images[1], PromptSet((ObjectPrompts("ball", masks=(MaskPrompt(drawn),)),)))
    found = service.segment(request)
    same(found, expected(request))
    assert np.array_equal(found.mask[5] > 0, drawn[5])


def test_the_same_voxels_stored_otherwise_are_another_image(service, images, tmp_path):
    """What a worker holds of one file does not answer for another of the same voxels, turned or moved."""
    first = read_volume(images[0])
    grid, last = first.geometry, (SHAPE[2] - 1, 0, 0)
    turned = replace(grid, origin_mm=tuple(grid.index_to_world(last)), direction=grid.direction_matrix * (-1, 1, 1))
    write_volume(tmp_path / "turned.nii.gz", Volume(first.array[:, :, ::-1], turned))
    write_volume(tmp_path / "moved.nii.gz", Volume(first.array, replace(grid, origin_mm=(50.0, 60.0, 70.0))))
    for file in (images[0], tmp_path / "turned.nii.gz", tmp_path / "moved.nii.gz"):
        same(service.segment(click(file)), expected(click(file)))


def test_volumes_are_shared_out_and_stay_where_they_are(service, images):
    held = {image: service._worker_of(service.studies.open(image).digest) for image in images}
    for image in images:
        service.segment(click(image))
        assert service._worker_of(service.studies.open(image).digest) is held[image]
    assert {worker.number for worker in held.values()} == {0, 1}


def test_two_people_do_not_wait_for_each_other(service, images):
    held = {service._worker_of(service.studies.open(image).digest).number: image for image in images}
    both = threading.Barrier(2, timeout=60)  # each waits in the middle of its propagation for the other

    def work(image, found):
        waited = []

        def meet(update):
            if not waited:
                waited.append(both.wait())

        found.append(service.segment(click(image, 20), on_slice=meet))

    answers = {image: [] for image in held.values()}
    threads = [threading.Thread(target=work, args=(image, found)) for image, found in answers.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for image, (found,) in answers.items():
        same(found, expected(click(image, 20)))


def test_a_killed_worker_loses_nothing(service, images):
    worker = service._worker_of(service.studies.open(images[0]).digest)
    pid, killed, before = worker.pid, [], worker.restarts

    def kill(update):
        if not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    found = service.segment(click(images[0], 30), on_slice=kill)
    same(found, expected(click(images[0], 30)))
    assert worker.restarts == before + 1
    wait_until(lambda: worker.ready)
    assert worker.pid != pid


def test_a_session_goes_on_when_all_workers_die(service, images, tmp_path):
    sessions = Sessions(service, tmp_path / "sessions")
    state = sessions.open(images[2], image_id="2")
    sessions.add(state.id, [("ball", Point((12, 10, 8)))])
    first = sessions.propagate(state.id)
    for worker in service.workers:
        os.kill(worker.pid, signal.SIGKILL)
    sessions.add(state.id, [("ball", Point((12, 10, 30)))])
    corrected = sessions.propagate(state.id)
    alone = Sessions(SegmentService(predictor=SlowPredictor()), tmp_path / "sessions")
    assert np.array_equal(corrected.result.mask, alone.propagate(state.id).result.mask)
    assert corrected.revision > first.revision and corrected.weights == first.weights
    wait_until(lambda: all(worker.ready for worker in service.workers))


def test_work_is_cancelled_at_a_step(service, images):
    told = []
    result = service.segment(
        click(images[3], 15), on_slice=told.append, cancelled=lambda: len(told) > 2, keep_partial=True
    )
    assert result.partial and result.slices_walked < SHAPE[0]
    with pytest.raises(Cancelled):
        service.segment(click(images[3], 16), cancelled=lambda: True)
    with service.queue.job("anna", cancelled=lambda: True), pytest.raises(Cancelled):
        service.segment(click(images[3], 17))
    wait_until(lambda: not any(worker.pending for worker in service.workers))


def test_errors_are_those_of_one_process(service, images):
    with pytest.raises(PromptError, match="outside"):
        service.segment(SegmentRequest(images[0], click(images[0]).prompts, range=(20, 30)))


def test_background_work_waits_its_turn(service, images):
    with service.queue.background():
        same(service.segment(click(images[1], 9)), expected(click(images[1], 9)))


def test_a_process_that_was_ended_takes_no_work_up():
    """A request that chose it just before the server ended waited for ever, and the server with it."""
    worker, told = Worker(9, nullcontext), []

    def ask():
        with suppress(WorkerDied):
            told.append(worker.carry_out(len, lambda kind, value: None, lambda: False))
        told.append("ended")

    worker.close()
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(10)
    assert told == ["ended"]


def test_nothing_is_left_behind(images):
    service = WorkersService(predictor=SlowPredictor(), settings=EngineSettings(workers=2))
    with service.running():
        service.segment(click(images[0]))
        pids = [worker.pid for worker in service.workers]
        (file,) = [shared.file for shared in service._volumes._known.values()]
        assert file.exists()
    assert not file.parent.exists() and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert np.array_equal(service.segment(click(images[0])).mask, expected(click(images[0])).mask)  # by itself


def test_without_a_worker_that_can_be_started_the_server_does_the_work(images):
    service = WorkersService(predictor=SlowPredictor(), settings=EngineSettings(workers=2, idle_encode=False))
    with service.running():
        wait_until(lambda: all(worker.ready for worker in service.workers))

        def lost(update):
            for worker in service.workers:
                worker._make = None  # what is started now ends at once
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

        found = service.segment(click(images[0]), on_slice=lost)
        assert all(worker.broken for worker in service.workers)
    same(found, expected(click(images[0])))


@pytest.mark.parametrize("labels", [np.zeros((3, 4, 5), np.uint8), ball(), ball().astype(np.uint8) * 7])
def test_labels_cross_as_the_box_that_holds_any(labels):
    data = dumps(labels)
    found = pickle.loads(data)
    assert np.array_equal(found, labels) and found.dtype == labels.dtype and len(data) < labels.nbytes + 500
