"""A request becomes one complete question to the service."""

import tempfile

import numpy as np
import pytest
from builders import ORIENTATIONS, phantom, stored_as
from fastapi import HTTPException
from labelserver import upload_name
from monailabel.interfaces.tasks.infer_v2 import InferType

from slicecast.errors import RETRY_AFTER, Conflict, PromptError, QueueFull, UnknownImage
from slicecast.inference.segment import SegmentRequest
from slicecast.inference.settings import EngineSettings
from slicecast.inference.studies import Studies
from slicecast.labelling.tasks.infer import SegmentTask, segment_tasks, stored_k_axis, uploaded_mask, uploaded_masks
from slicecast.volume import Volume, read_volume, write_mask, write_volume


class Questions:
    """Keeps what is asked, and refuses to answer."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error or QueueFull("busy")
        self.asked: list[SegmentRequest] = []
        self.studies = Studies()
        self.settings = EngineSettings(slice_strategy="value")

    def segment(self, request, **_):
        self.asked.append(request)
        raise self.error


def answer_to(error, studies):
    """Return what a task raises where the service fails with an error."""
    service = Questions(error)
    task = segment_tasks(service, labels=("spleen",))["sam2_single"]
    with pytest.raises(HTTPException) as caught:
        task({"image": str(studies / "first.nii.gz"), "foreground": [[1, 2, 3]]})
    return caught.value


@pytest.mark.parametrize(("error", "status"), [(PromptError, 422), (UnknownImage, 404), (Conflict, 409)])
def test_an_error_leaves_with_its_status_and_text(studies, error, status):
    answer = answer_to(error("what was wrong, the value, the remedy"), studies)
    assert (answer.status_code, answer.detail) == (status, "what was wrong, the value, the remedy")
    assert not answer.headers


def test_a_busy_server_says_when_to_come_back(studies):
    answer = answer_to(QueueFull("full"), studies)
    assert (answer.status_code, answer.headers) == (503, RETRY_AFTER)


def test_a_bug_is_no_answer(studies):
    with pytest.raises(KeyError):
        answer_to(KeyError("a bug"), studies)


@pytest.fixture
def ask(studies):
    """Put a request to a task; return the question that the service got."""
    service = Questions()
    tasks = segment_tasks(service, labels=("spleen", "liver"))

    def put(model, **params):
        with pytest.raises(HTTPException) as caught:
            tasks[model]({"model": model, "image": str(studies / "first.nii.gz"), **params})
        if caught.value.status_code != 503:
            raise caught.value
        return service.asked[-1]

    return put


def test_a_volume(ask, studies):
    question = ask("sam2_single", foreground=[[12, 10, 8]], axis="coronal", range="2:12", window="lung", slice=3)
    assert question.image == studies / "first.nii.gz"
    assert (question.axis, question.range, question.window, question.slices_only) == ("coronal", (2, 12), "lung", False)
    assert question.prompts.names == ("object",)


def test_a_slice_is_the_files_k(ask):
    question = ask("sam2_slice", foreground=[[12, 10, 8], [12, 10, 9]], axis="coronal", range="2:12")
    assert (question.axis, question.range, question.slices_only) == ("axial", None, True)
    assert [point.ijk for point in question.prompts.objects[0].points] == [(12, 10, 9)]


@pytest.mark.parametrize(("permutation", "flips"), ORIENTATIONS[::5])
def test_the_axis_of_k_follows_the_storage(permutation, flips):
    stored = stored_as(phantom().volume, permutation, flips)
    letter = stored.geometry.axcodes[2]
    expected = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "I": "axial", "S": "axial"}
    assert stored_k_axis(stored.geometry) == expected[letter]


def test_two_questions_share_nothing(ask):
    first = ask("sam2", spleen=[[12, 10, 8]])
    second = ask("sam2", liver=[[1, 2, 3]])
    assert first.prompts.names == ("spleen",) and second.prompts.names == ("liver",)


@pytest.mark.parametrize("key", ["label", "label_file"])
def test_an_uploaded_mask(ask, studies, key):
    truth = read_volume(studies / "first.nii.gz")
    file = upload_name(".nrrd")
    write_mask(file, phantom().truth, truth.geometry)
    try:
        question = ask("sam2", **{key: str(file)})
        single = ask("sam2_single", **{"label": "spleen", key: str(file)})
    finally:
        file.unlink()
    assert question.prompts.names == ("spleen",) and len(question.prompts.objects[0].masks) == 1
    assert single.prompts.names == (("object",) if key == "label" else ("spleen",))


def test_a_question_that_makes_no_sense_does_not_reach_the_service(ask):
    for params in ({}, {"foreground": [[1, 2]]}, {"foreground": [[1, 2, 3]], "axis": 3}):
        with pytest.raises(HTTPException) as caught:
            ask("sam2_single", **params)
        assert caught.value.status_code == 422


def test_the_first_choice_of_a_client_is_the_servers_own():
    task = SegmentTask(Questions(), type=InferType.DEEPGROW, dimension=3, description="one")
    assert task.info()["config"]["slice_strategy"][:2] == ["value", "strided"]
    assert task.info()["config"]["multi_axis"] == ["false", "true"]


@pytest.mark.parametrize(
    ("sent", "heard"), [({}, False), ({"multi_axis": True}, True), ({"multi_axis": "false"}, False)]
)
def test_a_client_may_ask_for_all_slice_axes(ask, sent, heard):
    assert ask("sam2_single", foreground=[[1, 2, 3]], **sent).options.multi_axis is heard


def test_a_switch_that_says_neither_is_refused(ask):
    with pytest.raises(HTTPException, match="send true or false") as caught:
        ask("sam2_single", foreground=[[1, 2, 3]], multi_axis="maybe")
    assert caught.value.status_code == 422


def test_a_task_needs_no_weights_to_be_listed():
    task = SegmentTask(Questions(), type=InferType.DEEPGROW, dimension=2, description="one")
    assert task.is_valid() and task.info()["labels"] == [] and set(task.info()["config"]) == {"window"}


@pytest.fixture
def upload(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def write(values: dict[int, int]) -> str:
        """Paint slice k with value v, for each {k: v}."""
        volume = phantom().volume
        array = np.zeros(volume.array.shape, np.int16)
        for k, value in values.items():
            array[k, 5:9, 5:9] = value
        return str(write_volume(upload_name(".nii.gz"), Volume(array, volume.geometry)))

    return write


def test_values_are_the_apps_labels(upload):
    masks = uploaded_masks(upload({3: 1, 4: 3, 5: 9}), ("spleen", "liver", "kidney"))
    assert list(masks) == ["spleen", "kidney", "label 9"]
    assert [np.unique(np.nonzero(mask.array)[0]).tolist() for mask in masks.values()] == [[3], [4], [5]]


def test_one_object_whatever_the_values(upload):
    masks = uploaded_mask(upload({3: 1, 4: 2}), "spleen")
    assert list(masks) == ["spleen"] and masks["spleen"].array.sum() == 32


@pytest.mark.parametrize("label", [None, "spleen", "/etc/passwd", 7])
def test_a_name_is_no_file(label):
    assert uploaded_masks(label, ()) == uploaded_mask(label, "spleen") == {}


@pytest.mark.parametrize("values", [{}, {3: 300}, {3: -1}])
def test_masks_that_are_none(upload, values):
    with pytest.raises(PromptError, match="The mask holds the values"):
        uploaded_masks(upload(values), ())


def test_an_empty_mask(upload):
    with pytest.raises(PromptError, match="empty"):
        uploaded_mask(upload({}), "spleen")
