"""Engines by name."""

import numpy as np
import pytest
from builders import dice, scan

from slicecast.errors import ConfigError, UnknownModel
from slicecast.inference.segment import SegmentRequest
from slicecast.prompts import ObjectPrompts, Point, PromptSet
from slicecast.volume import write_volume
from slicecast_lab.evaluation.engines import open_engine
from slicecast_lab.evaluation.settings import named_specs, require_sam2


def test_names_stand_for_models():
    assert [s.name for s in named_specs("sam2_nano+ct_sam3d_nano")] == ["sam2_nano", "ct_sam3d_nano"]
    assert [s.name for s in named_specs("sam2_nano+axes")] == ["sam2_nano"]
    require_sam2("sam2_nano", "this")


@pytest.mark.parametrize("name", ["ct_sam3d_nano+axes", "sam2_nano+sam2_nano", "sam2_nano+ct_sam3d_nano+axes"])
def test_what_does_not_go_together_is_refused(name):
    with pytest.raises(ConfigError, match="no engine"):
        named_specs(name)
    with pytest.raises(ConfigError, match="no SAM 2"):
        require_sam2(name, "this")


def test_an_unknown_model_is_refused():
    with pytest.raises(UnknownModel):
        named_specs("sam2_nano+nothing")


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


def clicks(image):
    points = (Point((22, 24, 12)), Point((40, 40, 12), positive=False))
    return SegmentRequest(image, PromptSet((ObjectPrompts("object", points=points),)))


def test_an_engine_of_all_axes_hears_all_axes(image, truth):
    one, all_axes = (open_engine(name).service.segment(clicks(image)) for name in ("sam2_nano", "sam2_nano+axes"))
    assert all_axes.slices_walked > one.slices_walked
    assert dice(all_axes.mask == 1, truth) > 0.8
