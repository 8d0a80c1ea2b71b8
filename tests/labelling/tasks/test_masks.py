"""A label file beside the params becomes mask prompts."""

import tempfile

import numpy as np
import pytest
from builders import phantom
from labelserver import upload_name

from slicecast.errors import PromptError
from slicecast.labelling.tasks.masks import uploaded_mask, uploaded_masks
from slicecast.volume import Volume, write_volume


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
