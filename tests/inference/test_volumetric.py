"""The volumetric engine with a network that grows from clicks by grey value: clicks in, labels on the scan out."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from slicecast.engine.volumetric import CubeAnswer
from slicecast.errors import Cancelled, ConfigError
from slicecast.inference.segment import SegmentRequest
from slicecast.inference.sessions import Sessions
from slicecast.inference.studies import open_study
from slicecast.inference.volumetric import VolumetricService
from slicecast.prompts import Absent, Box, Line, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.volume import Geometry, Volume, write_volume
from slicecast.volume.isotropic import Isotropic, world_grid

SIDE = 16


@dataclass(frozen=True)
class Seen:
    grey: np.ndarray

    @property
    def nbytes(self):
        return self.grey.nbytes


class Growing:
    """The bright region around the positive clicks, without the cube of 5 voxels around each negative one."""

    side, outside, scales, fingerprint = SIDE, 0.0, (1.0,), "growing"

    def __init__(self, heat=None):
        self.heat, self.encoded, self.steps = heat, [], []

    def grid(self, stored, scale=1.0):
        return world_grid(stored, scale)

    def encode(self, cube, window):
        self.encoded.append(cube.shape)
        return Seen(cube)

    def segment(self, embedding, points, positive, previous):
        parts, _ = ndimage.label(embedding.grey > 50)
        wanted = {int(parts[tuple(p)]) for p in points[positive]} - {0}
        mask = np.isin(parts, list(wanted))
        for z, y, x in points[~positive]:
            mask[max(0, z - 2) : z + 3, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = False
        self.steps.append((len(points), previous))
        return CubeAnswer(np.where(mask, 4.0, -4.0).astype(np.float32), 0.9, len(self.steps))

    def propose(self, own, mask, neighbour):
        return None if self.heat is None else self.heat(own, mask, neighbour)


GEOMETRY = Geometry((40, 30, 24), (1.0, 1.0, 1.0), (10.0, -5.0, 3.0))
"""Its voxels are those of the network's grid."""


@pytest.fixture
def scene():
    array = np.zeros(GEOMETRY.shape_kji, dtype=np.int16)
    array[8:16, 10:20, 4:36] = 100  # longer than two cubes
    array[2:5, 2:6, 2:6] = 100
    return array


@pytest.fixture
def image(scene, tmp_path):
    write_volume(tmp_path / "scan.nii.gz", Volume(scene, GEOMETRY))
    return tmp_path / "scan.nii.gz"


def ask(image, *objects, network=None, **more):
    service = VolumetricService("growing", predictor=network or Growing())
    return service.segment(SegmentRequest(image, PromptSet(objects), axis="axial", **more))


def test_one_click_gives_the_whole_object_through_all_its_cubes(image, scene):
    network = Growing()
    result = ask(image, ObjectPrompts("bar", (Point((8, 15, 12)),)), network=network)
    wanted = scene == 100
    wanted[2:5, 2:6, 2:6] = False
    assert (result.mask.astype(bool) == wanted).mean() > 0.99
    assert result.mask[12, 15, 35] == 1
    assert len(network.encoded) > 3
    assert result.slices_encoded == len(network.encoded)
    assert {c.slice for c in result.confidence} == set(np.flatnonzero(result.mask.any((1, 2))).tolist())


def test_clicks_go_in_one_after_the_other_with_the_answer_before(image):
    network = Growing()
    ask(image, ObjectPrompts("blob", (Point((3, 3, 3)), Point((4, 4, 3)), Point((5, 5, 4), False))), network=network)
    assert network.steps == [(1, None), (2, 1), (3, 2)]


def test_a_further_click_costs_one_step_in_each_cube_that_sees_it(image):
    network = Growing()
    service = VolumetricService("growing", predictor=network)
    points = (Point((3, 3, 3)), Point((4, 4, 3)), Point((5, 5, 4), False))
    for count in (1, 2, 3):
        request = SegmentRequest(image, PromptSet((ObjectPrompts("blob", points[:count]),)), axis="axial")
        result = service.segment(request)
    assert [clicks for clicks, _ in network.steps] == [1, 2, 3]
    assert result.slices_recomputed == 1
    fresh = ask(image, ObjectPrompts("blob", points))
    np.testing.assert_array_equal(result.mask, fresh.mask)


def test_a_lines_middle_and_its_vertices_are_clicks(image):
    network = Growing()
    result = ask(image, ObjectPrompts("blob", lines=[Line(((3, 3, 2), (4, 4, 4)))]), network=network)
    assert network.steps == [(1, None), (2, 1), (3, 2)]
    assert result.mask[3, 3, 3] == 1


def test_a_line_through_painted_slices_alone_is_a_line_still(image, scene):
    """As where all slices of an object that was found from a line are locked."""
    painted = MaskPrompt(scene > 50, slices=(2, 3, 4))
    line = ObjectPrompts("blob", masks=(painted,), lines=[Line(((3, 3, 2), (4, 4, 4)))])
    np.testing.assert_array_equal(ask(image, line).mask[:5] == 1, scene[:5] > 50)


def test_several_objects_have_their_own_labels(image):
    result = ask(image, ObjectPrompts("bar", (Point((8, 15, 12)),)), ObjectPrompts("blob", (Point((3, 3, 3)),)))
    assert result.labels == {"bar": 1, "blob": 2}
    assert result.mask[12, 15, 30] == 1
    assert result.mask[3, 3, 3] == 2


def test_a_box_holds_its_part_beside_a_click_on_another(image, scene):
    part = ObjectPrompts("both", (Point((8, 15, 12)),), boxes=[Box((1, 1, 3), (6, 6, 3))])
    assert (ask(image, part).mask[2:5, 2:6, 2:6] == 1).all()
    wide = ObjectPrompts("both", (Point((8, 15, 12)), Point((3, 3, 3), False)), boxes=[Box((1, 1, 3), (6, 6, 3))])
    assert not ask(image, wide).mask[3, 3, 3]  # what a click takes away goes, boxed or not


def test_the_network_says_where_to_click_in_a_neighbouring_cube_or_that_nothing_is_there(image):
    nothing = Growing(lambda own, mask, neighbour: np.zeros((SIDE,) * 3, dtype=np.float32))
    alone = ask(image, ObjectPrompts("bar", (Point((8, 15, 12)),)), network=nothing)
    assert nothing.steps == [(1, None)] * 2  # the click itself lies in both
    hot = Growing(lambda own, mask, neighbour: (neighbour.grey > 50).astype(np.float32))
    whole = ask(image, ObjectPrompts("bar", (Point((8, 15, 12)),)), network=hot)
    assert whole.mask.sum() > 1.5 * alone.mask.sum()
    assert whole.mask[12, 15, 35] == 1


def test_what_the_network_was_asked_once_is_known(image):
    asked = []

    def heat(own, mask, neighbour):
        asked.append(neighbour)
        return (neighbour.grey > 50).astype(np.float32)

    service = VolumetricService("growing", predictor=Growing(heat))
    request = SegmentRequest(image, PromptSet((ObjectPrompts("bar", (Point((8, 15, 12)),)),)), axis="axial")
    first, proposals = service.segment(request), len(asked)
    again = service.segment(request)
    assert proposals and len(asked) == proposals
    assert again.slices_recomputed == again.slices_encoded == 0
    np.testing.assert_array_equal(again.mask, first.mask)


def test_the_same_voxels_that_lie_otherwise_are_another_scan(scene):
    """What is known of a scan's cubes does not answer for the same voxels, turned: the network's grid is another."""
    scene[8:16, 27:29, 4:13] = 100
    cosine, sine = np.cos(np.radians(25)), np.sin(np.radians(25))
    turned = replace(GEOMETRY, direction=((cosine, -sine, 0), (sine, cosine, 0), (0, 0, 1)))
    straight, oblique = (open_study(Volume(scene, grid)) for grid in (GEOMETRY, turned))
    shelf = PromptSet((ObjectPrompts("shelf", (Point((6, 28, 12)),)),))  # at the same voxel of both grids
    request = SegmentRequest(Path("scan.nii.gz"), shelf, axis="axial")
    service, fresh = (VolumetricService("growing", predictor=Growing()) for _ in range(2))
    service.segment(request, study=straight)
    found = service.segment(request, study=oblique)
    np.testing.assert_array_equal(found.mask, fresh.segment(request, study=oblique).mask)


class Surest(Growing):
    """A network that is sure only where the clicked object fills a certain share of its cube."""

    scales = (1.0, 2.0)

    def __init__(self, share):
        super().__init__()
        self.share = share

    def segment(self, embedding, points, positive, previous):
        answer = super().segment(embedding, points, positive, previous)
        share = float((answer.logits > 0).mean())
        return CubeAnswer(answer.logits if abs(share - self.share) < 0.02 else answer.logits / 4, 0.9, None)


def test_an_object_is_looked_at_at_the_scale_that_leaves_least_doubt(image, scene):
    blob = scene == 100
    blob[8:] = False  # 48 voxels
    for scale, share in ((1.0, 48 / SIDE**3), (2.0, 6 / SIDE**3)):
        network = Surest(share)
        mask = ask(image, ObjectPrompts("blob", (Point((3, 3, 3)),)), network=network).mask == 1
        assert (mask & blob).sum() > 0.7 * blob.sum(), scale
        assert mask[3, 3, 3]


def test_beyond_a_scan_is_its_mirror_image_or_a_value(scene):
    volume = Volume(scene, GEOMETRY)
    grid = world_grid(GEOMETRY, 1.0)
    plain = Isotropic(volume, grid, outside=None).patch((0, 0, 0), 8)
    mirrored = Isotropic(volume, grid, outside=None).patch((-8, 0, 0), 16)
    np.testing.assert_array_equal(mirrored[:8, :8, :8], plain[::-1])
    assert (Isotropic(volume, grid, outside=-5.0).patch((-8, 0, 0), 16)[:8] == -5).all()


def test_what_the_annotator_said_stands(image, scene):
    paint = np.zeros_like(scene, dtype=bool)
    paint[12, 12:18, 6:10] = True
    result = ask(
        image,
        ObjectPrompts("bar", (Point((8, 15, 10)), Point((9, 16, 10), False)), (), (MaskPrompt(paint),), (Absent(9),)),
    )
    np.testing.assert_array_equal(result.mask[12] == 1, paint[12])
    assert not result.mask[9].any()
    assert result.mask[10, 15, 8] == 1
    assert result.mask[10, 16, 9] == 0


def test_a_3d_box_starts_and_confines_an_object(image):
    result = ask(image, ObjectPrompts("bar", boxes=(Box((4, 10, 9), (35, 19, 12)),)))
    assert sorted(np.flatnonzero(result.mask.any((1, 2)))) == [9, 10, 11, 12]


class Surer(Growing):
    """The surer, the more clicks there are."""

    def segment(self, embedding, points, positive, previous):
        answer = super().segment(embedding, points, positive, previous)
        return replace(answer, logits=len(points) * answer.logits)


def test_an_object_takes_nothing_beyond_its_own_box(image, scene):
    """The network sees the bar in both; the second is surer of it, but may only have five slices of it."""
    bar = ObjectPrompts("bar", (Point((8, 15, 14)),))
    boxed = ObjectPrompts("boxed", (Point((8, 15, 9)), Point((9, 15, 9))), boxes=[Box((2, 8, 6), (37, 21, 11))])
    both, alone = ask(image, bar, boxed, network=Surer()).mask, ask(image, bar, network=Surer()).mask
    assert (both[8:11] == 2).any()
    np.testing.assert_array_equal(both[12:] == 1, alone[12:] == 1)


def test_a_range_confines_all(image):
    result = ask(image, ObjectPrompts("bar", (Point((8, 15, 12)),)), range=(11, 14))
    assert sorted(np.flatnonzero(result.mask.any((1, 2)))) == [11, 12, 13]


def test_a_stored_orientation_changes_nothing(scene, tmp_path):
    turned = Geometry((40, 30, 24), (1.0, 1.0, 1.0), (49.0, 24.0, 3.0), ((-1.0, 0, 0), (0, -1.0, 0), (0, 0, 1.0)))
    write_volume(tmp_path / "turned.nii.gz", Volume(scene[:, ::-1, ::-1].copy(), turned))
    write_volume(tmp_path / "plain.nii.gz", Volume(scene, GEOMETRY))
    plain = ask(tmp_path / "plain.nii.gz", ObjectPrompts("bar", (Point((8, 15, 12)),)))
    other = ask(tmp_path / "turned.nii.gz", ObjectPrompts("bar", (Point((31, 14, 12)),)))
    assert (plain.mask == other.mask[:, ::-1, ::-1]).mean() > 0.99


def test_single_slices_are_refused(image):
    with pytest.raises(ConfigError, match="segments volumes"):
        ask(image, ObjectPrompts("bar", (Point((8, 15, 12)),)), slices_only=True)


def test_work_can_be_cancelled(image):
    service = VolumetricService("growing", predictor=Growing())
    request = SegmentRequest(image, PromptSet((ObjectPrompts("bar", (Point((8, 15, 12)),)),)))
    with pytest.raises(Cancelled):
        service.segment(request, cancelled=lambda: True)


def test_a_session_of_another_model_undoes_without_a_trace(image, tmp_path):
    network = VolumetricService("growing", predictor=Growing())
    sessions = Sessions(VolumetricService("own", predictor=Growing()), tmp_path / "kept", others={"growing": network})
    state = sessions.open(image, image_id="scan", model="growing", axis="axial")
    assert state.model == "growing"
    sessions.add(state.id, PromptSet((ObjectPrompts("bar", (Point((8, 15, 12)),)),)))
    updates = []
    first = sessions.propagate(state.id, on_slice=updates.append).result
    assert {u.slice for u in updates} == set(np.flatnonzero(first.mask.any((1, 2))).tolist())
    sessions.add(state.id, [("bar", Point((20, 15, 12), False))])
    assert not (sessions.propagate(state.id).result.mask == first.mask).all()
    sessions.undo(state.id)
    np.testing.assert_array_equal(sessions.propagate(state.id).result.mask, first.mask)
