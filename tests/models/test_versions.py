from dataclasses import replace

import pytest
import torch

from slicecast.errors import Conflict, NotFound, ResourceError, WeightsCorrupt
from slicecast.models.registry import bundled_spec
from slicecast.models.sam2_build import load_sam2
from slicecast.models.versions import INDEX, ModelVersions

BASE = bundled_spec()


def changed_network(by: float):
    model = load_sam2(BASE)
    with torch.no_grad():
        for parameter in model.sam_mask_decoder.parameters():
            parameter.add_(by)
    return model


def add(versions: ModelVersions, by: float = 0.01):
    return versions.add(changed_network(by), BASE, labels={"first": "0" * 64}, verdict={"gain": 0.1})


def test_without_versions_the_model_serves_itself(tmp_path):
    for versions in (ModelVersions(), ModelVersions(tmp_path / "none")):
        assert versions.serving(BASE) == BASE and versions.all() == ()


def test_a_version_is_deployed_and_loads(tmp_path):
    versions = ModelVersions(tmp_path)
    first = add(versions)
    serving = ModelVersions(tmp_path).serving(BASE)
    assert (serving.name, serving.sha256) == ("sam2_nano@1", first.sha256)
    assert not list(tmp_path.glob(".*.part"))
    expected = changed_network(0.01).state_dict()
    for name, tensor in load_sam2(serving).state_dict().items():
        assert torch.allclose(tensor, expected[name], atol=1e-2, rtol=1e-2), name


def test_rolling_back_goes_one_version_down_at_a_time(tmp_path):
    versions = ModelVersions(tmp_path)
    add(versions)
    add(versions, 0.02)
    assert versions.serving(BASE).name == "sam2_nano@2"
    assert versions.roll_back(BASE).number == 1
    assert versions.roll_back(BASE) is None
    with pytest.raises(Conflict, match="nothing to take back"):
        versions.roll_back(BASE)
    assert versions.roll_back(BASE, 2).number == 2
    with pytest.raises(NotFound, match="no version 7"):
        versions.roll_back(BASE, 7)
    assert versions.named("sam2_nano@1", BASE).name == "sam2_nano@1"


def test_another_process_sees_the_change(tmp_path):
    mine, theirs = ModelVersions(tmp_path), ModelVersions(tmp_path)
    assert mine.serving(BASE) == BASE
    add(theirs)
    assert mine.serving(BASE).name == "sam2_nano@1"


def test_weights_of_another_base_do_not_serve(tmp_path):
    versions = ModelVersions(tmp_path)
    add(versions)
    other = replace(BASE, sha256="f" * 64)
    assert versions.serving(other) == other
    with pytest.raises(NotFound):
        versions.named("sam2_nano@1", other)


def test_damage_is_named_with_its_remedy(tmp_path):
    versions = ModelVersions(tmp_path)
    version = add(versions)
    (tmp_path / version.file).write_bytes(b"\0" * version.bytes)
    with pytest.raises(WeightsCorrupt, match="models rollback"):
        load_sam2(versions.serving(BASE))
    (tmp_path / INDEX).write_text("{", encoding="utf-8")
    with pytest.raises(ResourceError, match=INDEX):
        ModelVersions(tmp_path).all()
