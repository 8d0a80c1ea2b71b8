"""SAM 2 from the slices that a volumetric network is surest of."""

from dataclasses import replace

import numpy as np
import pytest
from builders import dice, scan

from slicecast.errors import Conflict
from slicecast.inference.first_guess import GuidedService
from slicecast.inference.opening import open_service, volumetric_services
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.sessions import Sessions
from slicecast.inference.settings import EngineSettings
from slicecast.models.registry import bundled_spec
from slicecast.models.sam2_build import load_sam2
from slicecast.models.versions import ModelVersions
from slicecast.prompts import Absent, Box, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.volume import write_volume

ON, OFF = Point((22, 24, 12)), Point((40, 40, 12), positive=False)


@pytest.fixture(scope="module")
def truth():
    array = np.zeros((24, 48, 48), dtype=bool)
    z, y, x = np.ogrid[:24, :48, :48]
    array[((z - 12) / 8) ** 2 + ((y - 24) / 11) ** 2 + ((x - 22) / 10) ** 2 < 1] = True
    return array


@pytest.fixture(scope="module")
def image(truth, tmp_path_factory):
    file = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    write_volume(file, scan(truth))
    return file


@pytest.fixture(scope="module")
def guided():
    return open_service("sam2_nano+ct_sam3d_nano", device="cpu")


@pytest.fixture(scope="module")
def sam2():
    return open_service("sam2_nano", device="cpu")


class Oracle:
    """A network that knows the truth; it is as sure of a slice as SAM 2 is."""

    model_name = "oracle"

    def __init__(self, sam2, truth):
        self.sam2, self.truth = sam2, truth

    def segment(self, request, **options):
        return replace(self.sam2.segment(request, **options), mask=self.truth.astype(np.uint8))


def asked(image, **given):
    return SegmentRequest(image, PromptSet((ObjectPrompts("object", **given),)))


def test_the_networks_surest_slices_become_painted_ones(sam2, image, truth):
    result = GuidedService(sam2, Oracle(sam2, truth)).segment(asked(image, points=(ON, OFF)))
    assert dice(result.mask == 1, truth) > 0.85
    painted = [k for k in range(24) if (result.mask[k] == truth[k]).all() and truth[k].any()]
    assert len(painted) >= 2
    values = {entry.slice: entry.value for entry in result.confidence}
    assert all(values[k] < 1 for k in painted)  # no person painted them


def test_what_was_said_holds(guided, image):
    result = guided.segment(asked(image, points=(ON, OFF), absent=(Absent(16),)))
    assert result.mask[12, 24, 22] == 1 and result.mask[12, 40, 40] == 0
    assert not result.mask[16:].any() and result.mask.any()


def test_a_slice_that_was_locked_empty_stays_so_and_leaves_the_guess(sam2, image, truth):
    service, there = GuidedService(sam2, Oracle(sam2, truth)), Point((22, 24, 16))
    empty = MaskPrompt(np.zeros_like(truth), slices=(16,), after=2)
    locked = service.segment(asked(image, points=(ON, there), masks=(empty,)))
    marked = service.segment(asked(image, points=(ON,), absent=(Absent(16),)))
    assert not locked.mask[16].any() and (locked.mask == marked.mask).all()
    assert (locked.mask != sam2.segment(asked(image, points=(ON, there), masks=(empty,))).mask).any()


@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_who_says_more_than_clicks_is_answered_by_sam2_alone(guided, sam2, image, truth, kind):
    given = {"masks": (MaskPrompt(truth, slices=(12,)),), "boxes": (Box((12, 13, 12), (32, 35, 12)),)}[kind]
    answers = [service.segment(asked(image, points=(ON,), **{kind: given})).mask for service in (guided, sam2)]
    np.testing.assert_array_equal(*answers)


def test_each_object_has_a_first_guess_of_its_own(guided, image):
    other = ObjectPrompts("other", points=(Point((40, 40, 12)),))
    both = PromptSet((ObjectPrompts("object", points=(ON,)), other))
    result = guided.segment(SegmentRequest(image, both))
    assert result.mask[12, 24, 22] == 1 and result.mask[12, 40, 40] == 2


def test_it_answers_to_both_names_only(guided):
    assert guided.model_for(None) == guided.model_for("sam2_nano+ct_sam3d_nano") == guided.model_name
    with pytest.raises(Conflict, match="runs 'sam2_nano\\+ct_sam3d_nano'"):
        guided.model_for("sam2_nano")


def test_a_session_finishes_on_the_version_that_it_was_opened_with(image, tmp_path):
    versions = ModelVersions(tmp_path / "models")
    plain = EngineSettings(openvino=False, idle_encode=False)  # nothing is compiled for each version
    service = SegmentService(device="cpu", versions=versions, settings=plain)
    sessions = Sessions(service, tmp_path / "sessions", others=volumetric_services(service, device="cpu"))
    both = "sam2_nano+ct_sam3d_nano"

    before = sessions.open(image, image_id="scan", model=both)
    base = bundled_spec()
    versions.add(load_sam2(base), base, labels={"first": "0" * 64}, verdict={"gain": 0.1})
    after = sessions.open(image, image_id="scan", model=both)
    assert (before.model, after.model) == (both, "sam2_nano@1+ct_sam3d_nano")

    weights = []
    for opened in (before, after):
        sessions.add(opened.id, asked(image, points=(ON,)).prompts)
        weights.append(sessions.propagate(opened.id).weights)
    assert weights[0] != weights[1] and weights[0] == sessions.propagate(before.id).weights
