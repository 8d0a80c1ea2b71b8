"""Isotropic grids and patches against numbers of the published pre- and post-processing."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from oracle_fill import PREP, prep_volume

from slicecast.volume import Geometry, Volume, canonicalise, read_volume
from slicecast.volume.isotropic import Isotropic, part_of, ras_grid, resample, world_grid

ORACLES = Path(__file__).parents[1] / "models" / "oracles"
TIES = 0.002
"""Share of voxels that lie exactly between two, and may fall to either; interpolated integers may then differ by 1."""

GEOMETRY = Geometry((40, 36, 24), PREP["spacing"], PREP["origin"], np.reshape(PREP["direction"], (3, 3)))


def test_sam_med3d_sees_the_cube_that_its_published_script_makes(tmp_path):
    wanted = np.load(ORACLES / "sam_med3d.npz")
    image, label = (GEOMETRY.to_image(array) for array in prep_volume())
    sitk.WriteImage(image, tmp_path / "image.nii.gz")  # NIfTI rounds the spacing to float32, which decides a size
    volume = read_volume(tmp_path / "image.nii.gz")
    canonical, _ = canonicalise(volume)
    grid = ras_grid(volume.geometry, 1.5)
    assert grid.shape_kji == wanted["prep_canon_image"].T.shape
    affine = np.diag((-1.0, -1.0, 1.0)) @ grid.direction_matrix * 1.5  # NIfTI counts in RAS
    np.testing.assert_allclose(affine, wanted["prep_canon_affine"][:3, :3], atol=1e-4)
    np.testing.assert_allclose(
        np.array(grid.origin_mm) * (-1, -1, 1), wanted["prep_canon_affine"][:3, 3], rtol=0, atol=1e-4
    )
    found = resample(canonical.geometry.to_image(canonical.array), grid, outside=0).T
    assert np.abs(found.astype(int) - wanted["prep_canon_image"]).max() <= 1
    labels = resample(label, grid, outside=0, nearest=True).T
    assert np.count_nonzero(labels != wanted["prep_canon_label"]) <= TIES * labels.size


def test_sam_med3d_mask_returns_to_the_scan_as_published():
    wanted = np.load(ORACLES / "sam_med3d.npz")
    roi = wanted["prep_roi_affine"]
    i, j, k = np.meshgrid(*[np.arange(128)] * 3, indexing="ij")
    mask = ((i - 64) ** 2 + 2 * (j - 63) ** 2 + 3 * (k - 66) ** 2 < 200).astype(np.uint8)
    flip = np.diag((-1.0, -1.0, 1.0))
    grid = Geometry((128,) * 3, (1.5,) * 3, tuple(flip @ roi[:3, 3]), flip @ roi[:3, :3] / 1.5)
    found = resample(grid.to_image(np.ascontiguousarray(mask.T)), GEOMETRY, outside=0, nearest=True)
    assert np.count_nonzero(found != wanted["prep_post_mask_zyx"]) <= TIES * found.size


def test_ct_sam3d_sees_the_patch_that_its_published_tool_makes():
    wanted = np.load(ORACLES / "ct_sam3d.npz")
    volume = Volume(prep_volume()[0], GEOMETRY)
    grid = world_grid(GEOMETRY, 1.5)
    assert list(grid.size_ijk) == wanted["prep_rai_size_xyz"].tolist()
    np.testing.assert_allclose(grid.origin_mm, wanted["prep_rai_origin"], atol=1e-4)
    scan = Isotropic(volume, grid, outside=-1024)
    whole = resample(GEOMETRY.to_image(volume.array), grid, outside=-1024)
    assert np.abs(whole.astype(int) - wanted["prep_rai_image"]).max() <= 1
    start = tuple((wanted["prep_click_voxel_xyz"][::-1] - 32).tolist())
    patch = scan.patch(start, 64)
    assert np.abs(patch[8:52, 16:52, 18:50] - wanted["prep_patch_int16_block"]).max() <= 1
    assert np.count_nonzero(patch == -1024) == int(wanted["prep_patch_count_minus1024"])


def test_a_patch_beyond_the_scan_is_all_outside():
    scan = Isotropic(Volume(prep_volume()[0], GEOMETRY), world_grid(GEOMETRY, 1.5), outside=-7)
    assert (scan.patch((500, 0, 0), 8) == -7).all()


def test_a_part_of_a_grid_lies_where_the_grid_has_it():
    part = part_of(GEOMETRY, (2, 3, 4), (5, 6, 7))
    np.testing.assert_allclose(part.index_to_world((1, 1, 1)), GEOMETRY.index_to_world((5, 4, 3)))
    assert part.shape_kji == (5, 6, 7)
