import gc
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import KINDS, ORIENTATIONS, Phantom, ball, dice, grid, phantom, scan, stored_as

import slicecast
from slicecast.active.calibration import Pair, SliceFeatures, calibrate
from slicecast.active.slices import STRATEGIES
from slicecast.engine.options import EngineOptions
from slicecast.errors import Cancelled, ConfigError, PromptError, UnknownModel, VolumeError, WeightsMissing
from slicecast.inference.segment import SegmentRequest, SegmentService, segment
from slicecast.inference.settings import EngineSettings
from slicecast.prompts import Absent, Box, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.prompts.mapping import MAX_OBJECTS
from slicecast.prompts.model import UNNAMED, collect_prompts
from slicecast.volume import Reorientation, Volume, write_volume
from slicecast_lab.simulation.fake import FakePredictor

SCAN = Path(__file__).parents[2] / "sample-data" / "studies" / "ct_abdomen_b.nii.gz"
CENTRE = (12, 10, 8)
"""Of the ball that `builders.ball` draws."""


def clicked(*ijk, name="ball"):
    return PromptSet((ObjectPrompts(name, points=tuple(Point(p) for p in ijk or (CENTRE,))),))


def painted(mask, *numbers, name="ball", **given):
    return PromptSet((ObjectPrompts(name, masks=(MaskPrompt(mask, slices=numbers or None),), **given),))


def inside(truth):
    """Return the voxel (i, j, k) nearest to a structure's middle."""
    places = np.argwhere(truth)
    nearest = np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()
    return tuple(places[nearest][::-1].tolist())


def service_of(**given):
    return SegmentService(predictor=FakePredictor(), **given)


@pytest.fixture
def service():
    return service_of()


@pytest.fixture
def store(tmp_path):
    def save(volume, name="scan.nii.gz"):
        write_volume(tmp_path / name, volume)
        return tmp_path / name

    return save


@pytest.fixture
def ball_file(store):
    return store(scan(ball()))


def learnt(model):
    """A calibration from slices that are the better, the nearer they are to a prompt."""
    plain = SliceFeatures(0.5, True, 0.8, 0.9, 1.0, 1.0, 0.8)
    pairs = [Pair(f"v{n % 5}", replace(plain, distance=1.0 + n % 9), 0.95 - 0.1 * (n % 9)) for n in range(90)]
    return calibrate(pairs, model=model)


def test_what_was_learnt_from_this_models_answers_sets_the_confidence(service, ball_file):
    raw = service.segment(SegmentRequest(ball_file, clicked()))
    service.calibration = learnt("another")
    assert not service.segment(SegmentRequest(ball_file, clicked())).calibrated
    service.calibration = learnt(service.predictor.fingerprint)
    result = service.segment(SegmentRequest(ball_file, clicked()))
    assert result.calibrated and not raw.calibrated and (result.mask == raw.mask).all()
    far = {c.slice: c.value for c in result.confidence if c.features is not None and c.features.seen}
    assert far[CENTRE[2] + 1] > far[CENTRE[2] + 3] > far[max(far)]


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_request_chooses_the_strategy_of_the_next_slice(name, service, ball_file):
    request = SegmentRequest(ball_file, painted(ball(), CENTRE[2]), slice_strategy=name)
    hint = service.segment(request).next_slice
    assert hint.strategy == {"disagree": "strided"}.get(name, name) and hint.slice != CENTRE[2]


def test_a_clicked_slice_that_is_doubtful_is_suggested_until_it_is_settled(service, ball_file):
    def suggested(prompts):
        return service.segment(SegmentRequest(ball_file, prompts)).next_slice.slice

    i, j, k = CENTRE
    assert suggested(clicked()) == suggested(clicked(CENTRE, (i + 1, j, k))) == k
    assert suggested(clicked(CENTRE, (i + 1, j, k), (i - 1, j, k), (i, j + 1, k))) != k
    assert suggested(painted(ball(), k)) != k
    assert suggested(PromptSet((ObjectPrompts("ball", boxes=(Box((i - 5, j - 5, k), (i + 5, j + 5, k)),)),))) != k


def test_an_unknown_strategy_is_refused_before_any_work(ball_file):
    with pytest.raises(ConfigError, match="no slice strategy 'best'"):
        SegmentRequest(ball_file, clicked(), slice_strategy="best")


def test_options_are_those_of_the_settings_unless_a_request_has_its_own(ball_file):
    every = service_of(settings=EngineSettings(propagation=EngineOptions(gone_slices=0, like_share=0.0)))
    everywhere = every.segment(SegmentRequest(ball_file, clicked())).slices_walked
    ended = every.segment(SegmentRequest(ball_file, clicked(), options=EngineOptions())).slices_walked
    assert ended < everywhere == scan(ball()).array.shape[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zoom", ["off", "on"])
def test_one_click_finds_each_phantom(kind, zoom, store, service):
    scene = phantom(kind)
    request = SegmentRequest(store(scene.volume), clicked(inside(scene.truth)), options=EngineOptions(zoom=zoom))
    result = service.segment(request)
    assert result.mask.dtype == np.uint8 and result.mask.shape == scene.truth.shape
    assert dice(result.mask == 1, scene.truth) > 0.7
    assert not result.geometry.differences(scene.volume.geometry)


def stored_scene(scene, orientation):
    """Store a phantom in one of the 48 orientations; its truth, and the way from one grid to the other."""
    volume = stored_as(scene.volume, *orientation)
    way = Reorientation(scene.volume.geometry, *orientation)
    return Phantom(volume, way.to_canonical_array(scene.truth)), way


def test_all_48_orientations_give_the_same_mask(store):
    """The same scan, the same prompts, the same patient: voxel for voxel, for a click, a box and a mask at once."""
    scene, service = phantom("anisotropic"), SegmentService(predictor=FakePredictor(image_size=64))

    def request(path, truth, place):
        (k, j, i), only = np.argwhere(scene.truth).mean(axis=0).round().astype(int), np.zeros(truth.shape, bool)
        for jj, ii in np.argwhere(scene.truth[2]):
            only[place((ii, jj, 2))[::-1]] = True
        objects = (
            ObjectPrompts("clicked", points=(Point(place((i, j, k))), Point(place((4, 4, k)), positive=False))),
            ObjectPrompts("boxed", boxes=(Box(place((9, 7, k + 1)), place((15, 13, k + 1))),)),
            ObjectPrompts("painted", masks=(MaskPrompt(only),)),
        )
        return SegmentRequest(path, PromptSet(objects))

    plain = service.segment(request(store(scene.volume), scene.truth, tuple))
    assert set(np.unique(plain.mask)) == {0, 1, 2, 3}
    for number, orientation in enumerate(ORIENTATIONS):
        turned, way = stored_scene(scene, orientation)

        def place(ijk, way=way):
            return tuple(way.to_canonical_ijk(ijk).tolist())

        result = service.segment(request(store(turned.volume, f"{number}.nii.gz"), turned.truth, place))
        assert (way.to_source_array(result.mask) == plain.mask).all(), orientation
        assert sorted(c.value for c in result.confidence) == sorted(c.value for c in plain.confidence)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_slice_numbers_are_counted_as_stored(orientation, store, service):
    scene = phantom("anisotropic")
    turned, way = stored_scene(scene, orientation)
    along = way.permutation.index(2)  # the stored axis that holds the thick slices
    number = [int(way.to_canonical_ijk((0, 0, k))[along]) for k in range(8)]
    only, limits = number[5], sorted((number[3], number[6]))
    prompts = clicked(tuple(way.to_canonical_ijk(inside(scene.truth)).tolist()))
    request = SegmentRequest(store(turned.volume), prompts, range=(limits[0], limits[1] + 1))
    result = service.segment(request)
    shown = np.flatnonzero(result.mask.any(axis=tuple(n for n in range(3) if n != 2 - along)))
    assert {limits[0], limits[1], only} >= {shown.min(), shown.max()} and len(shown) <= 4
    assert {c.slice for c in result.confidence} <= set(range(limits[0], limits[1] + 1))
    assert result.next_slice.slice in {c.slice for c in result.confidence}
    entry = replace(prompts.objects[0], absent=(Absent(only),))
    emptied = service.segment(replace(request, prompts=PromptSet((entry,)))).mask
    assert not np.take(emptied, only, axis=2 - along).any()


def test_painted_slices_come_back_exactly(ball_file, service):
    drawn = ball(radius=4.0)
    drawn[6, 2, 3] = True
    result = service.segment(SegmentRequest(ball_file, painted(drawn, 6, 9)))
    assert all((result.mask[k] == drawn[k]).all() for k in (6, 9))


def test_two_painted_objects_never_overwrite_each_other(store, service):
    left, right = (ball(centre_ijk=(i, 10, 8), radius=4.0) for i in (6, 17))
    objects = (painted(left, 7, 8, name="left").objects[0], painted(right, 8, 10, name="right").objects[0])
    result = service.segment(SegmentRequest(store(scan(left | right)), PromptSet(objects)))
    assert result.labels == {"left": 1, "right": 2}
    assert (result.mask[7] == 1).tolist() == left[7].tolist() and (result.mask[10] == 2).tolist() == right[10].tolist()
    assert (result.mask[8] == left[8] + 2 * right[8]).all()


def test_an_absent_slice_is_empty_and_so_is_what_lies_behind(ball_file, service):
    entry = replace(clicked().objects[0], absent=(Absent(10),))
    result = service.segment(SegmentRequest(ball_file, PromptSet((entry,))))
    assert result.mask[9].any() and not result.mask[10:].any()


def test_a_box_through_several_slices_confines_the_object(ball_file, service):
    box = Box((7, 5, 6), (17, 15, 10))
    result = service.segment(SegmentRequest(ball_file, PromptSet((ObjectPrompts("ball", boxes=(box,)),))))
    assert np.flatnonzero(result.mask.any(axis=(1, 2))).tolist() == [6, 7, 8, 9, 10]


def test_only_the_prompted_slice_when_asked(ball_file, service):
    result = service.segment(SegmentRequest(ball_file, clicked(), slices_only=True))
    assert np.flatnonzero(result.mask.any(axis=(1, 2))).tolist() == [8]
    assert result.next_slice is None and result.slices_walked == 1


def test_the_answer_says_how_it_came_about(ball_file, service):
    told = []
    result = service.segment(SegmentRequest(ball_file, clicked()), progress=lambda done, what: told.append(done))
    assert set(result.seconds) == {"read", "encode", "propagate", "post", "total"}
    assert result.seconds["total"] == pytest.approx(sum(v for k, v in result.seconds.items() if k != "total"))
    assert all(value >= 0 for value in result.seconds.values())
    assert result.axis == "axial" and result.window is not None and result.warnings == ()
    assert told[-1] == result.slices_walked
    numbers = [c.slice for c in result.confidence]
    assert numbers == sorted(numbers) and 8 in numbers and result.next_slice.axis == "axial"


def test_a_removed_click_leaves_no_trace(ball_file, service):
    more = clicked(CENTRE, (12, 10, 11), (3, 3, 5))
    before = service.segment(SegmentRequest(ball_file, clicked()))
    service.segment(SegmentRequest(ball_file, more))
    after = service.segment(SegmentRequest(ball_file, clicked()))
    fresh = service_of().segment(SegmentRequest(ball_file, clicked()))
    for other in (after, fresh):
        assert (other.mask == before.mask).all() and other.confidence == before.confidence
    assert after.slices_encoded == 0


def test_two_users_on_two_images_never_mix(store):
    volumes = [scan(ball(centre_ijk=(i, 10, 8)), seed=n) for n, i in enumerate((9, 15))]
    requests = [
        SegmentRequest(store(v, f"{n}.nii.gz"), clicked((i, 10, 8)))
        for n, (v, i) in enumerate(zip(volumes, (9, 15), strict=True))
    ]
    serial = [service_of().segment(r).mask for r in requests]
    shared, found = service_of(embedding_bytes=30_000), [[], []]
    threads = [
        threading.Thread(target=lambda n=n: [found[n].append(shared.segment(requests[n]).mask) for _ in range(4)])
        for n in (0, 1, 0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [len(masks) for masks in found] == [8, 8]
    assert all((mask == serial[n]).all() for n in (0, 1) for mask in found[n])
    assert shared.cache.stats().nbytes <= 30_000


def test_cancelling_keeps_the_service_and_its_cache(ball_file, service):
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(Cancelled):
        service.segment(SegmentRequest(ball_file, clicked()), cancelled=cancelled)
    held = service.cache.stats().entries
    result = service.segment(SegmentRequest(ball_file, clicked()))
    assert held > 0 and result.slices_encoded < 13
    assert (result.mask == service_of().segment(SegmentRequest(ball_file, clicked())).mask).all()


@pytest.mark.parametrize("point", [(24, 0, 0), (0, 20, 0), (0, 0, 16), (-1, 0, 0)])
def test_a_point_outside_the_volume_is_refused(point, ball_file, service):
    with pytest.raises(PromptError, match="lies outside the volume of 24 x 20 x 16"):
        service.segment(SegmentRequest(ball_file, clicked(point)))


@pytest.mark.parametrize("limits", [(5, 5), (9, 4), (-1, 5), (0, 17)])
def test_a_range_that_does_not_fit_is_refused(limits, ball_file, service):
    with pytest.raises(PromptError, match=f"range {limits[0]}:{limits[1]} does not fit the 16 axial slices"):
        service.segment(SegmentRequest(ball_file, clicked(), range=limits))


def test_a_prompt_outside_the_range_is_named_by_its_stored_slice(ball_file, service):
    with pytest.raises(PromptError, match="'ball' has a prompt on axial slice 8, outside the range"):
        service.segment(SegmentRequest(ball_file, clicked(), range=(0, 8)))


def test_a_prompt_outside_the_objects_own_box_is_refused(ball_file, service):
    entry = ObjectPrompts("ball", boxes=(Box((7, 5, 6), (17, 15, 10)),), points=(Point((12, 10, 12)),))
    with pytest.raises(PromptError, match="slice 12, outside the range or the 3D box"):
        service.segment(SegmentRequest(ball_file, PromptSet((entry,))))


def test_more_objects_than_labels_are_refused(ball_file, service):
    many = tuple(clicked(name=f"part {n}").objects[0] for n in range(MAX_OBJECTS + 1))
    with pytest.raises(PromptError, match="256 objects were given; one mask holds at most 255"):
        service.segment(SegmentRequest(ball_file, PromptSet(many)))


def test_a_mask_on_another_grid_is_refused(ball_file, service):
    with pytest.raises(PromptError, match="another grid"):
        service.segment(SegmentRequest(ball_file, painted(ball((24, 20, 15)))))


@pytest.mark.parametrize(
    ("given", "complaint"), [({"axis": "diagonal"}, "slice axis 'diagonal'"), ({"window": "sunny"}, "sunny")]
)
def test_an_unknown_axis_or_window_is_named(given, complaint, ball_file, service):
    with pytest.raises(ConfigError, match=complaint):
        service.segment(SegmentRequest(ball_file, clicked(), **given))


def test_an_unknown_model_is_named(ball_file):
    with pytest.raises(UnknownModel, match="sam99"):
        SegmentService(model="sam99").segment(SegmentRequest(ball_file, clicked()))


def test_what_is_no_volume_is_refused(tmp_path, service):
    (tmp_path / "text.nii.gz").write_text("hello")
    for name in ("missing.nii.gz", "text.nii.gz"):
        with pytest.raises(VolumeError, match=name):
            service.segment(SegmentRequest(tmp_path / name, clicked()))


def test_a_constant_volume_is_answered_with_a_warning(store, service):
    flat = Volume(np.full((16, 20, 24), 7, np.int16), grid())
    result = service.segment(SegmentRequest(store(flat), clicked()))
    assert any("same value" in warning for warning in result.warnings)


def test_an_object_that_is_not_found_is_said_so(store, service):
    """Two objects from the same click: every voxel goes to the first, and the second hears of it."""
    volume = scan(ball(), noise=0.0)
    objects = (clicked().objects[0], ObjectPrompts("ghost", points=(Point(CENTRE),)))
    result = service.segment(SegmentRequest(store(volume), PromptSet(objects)))
    assert any(warning.startswith("'ghost' was not found") for warning in result.warnings)


def test_clicks_that_agree_with_what_is_painted_change_nothing(ball_file, service):
    painted = MaskPrompt(ball(), slices=(CENTRE[2],))
    alone, agreed = (
        service.segment(SegmentRequest(ball_file, PromptSet((ObjectPrompts("ball", points=clicks, masks=(painted,)),))))
        for clicks in ((), (Point(CENTRE), Point((0, 0, CENTRE[2]), False)))
    )
    assert (alone.mask == agreed.mask).all() and not agreed.warnings


@pytest.mark.parametrize("positive", [True, False])
def test_clicks_that_dispute_what_is_painted_correct_it_there(ball_file, positive):
    """A bulge that was painted too much goes, a dent comes back; what lies away from them stays as it was painted."""
    slice_, truth = CENTRE[2], ball()
    x, y = CENTRE[0] + 5, CENTRE[1]
    painted = truth.copy()
    painted[slice_, y - 3 : y + 4, x - 3 : x + 7] = not positive
    clicks = tuple(Point((i, y, slice_), positive) for i in ((x - 1, x + 1) if positive else (x + 5,)))
    prompts = ObjectPrompts("ball", points=clicks, masks=(MaskPrompt(painted, slices=(slice_,)),))
    updates = []
    found = SegmentService(model="sam2_nano").segment(
        SegmentRequest(ball_file, PromptSet((prompts,))), on_slice=updates.append
    )
    here = found.mask[slice_] == 1
    assert all(here[y, p.ijk[0]] == positive for p in clicks)
    assert dice(here, truth[slice_]) > dice(painted[slice_], truth[slice_])
    assert (here[:, : CENTRE[0] - 3] == painted[slice_, :, : CENTRE[0] - 3]).all()
    shown = next(update for update in updates if update.slice == slice_)
    assert dice(shown.mask, here) > 0.9


def test_what_is_told_last_of_each_slice_is_the_result():
    """Whoever looks at the slices as they come, and submits, must have seen what is submitted."""
    clicks = {"liver": (47, 40, 18), "kidney": (47, 70, 18)}
    prompts = PromptSet(tuple(ObjectPrompts(name, points=(Point(ijk),)) for name, ijk in clicks.items()))
    told = []
    found = SegmentService(model="sam2_nano").segment(SegmentRequest(SCAN, prompts), on_slice=told.append)
    assert found.axis == "axial"
    for name, value in found.labels.items():
        shown = np.zeros(found.mask.shape, dtype=bool)
        for update in told:
            if update.object == name:
                shown[update.slice] = update.mask
        assert np.array_equal(shown, found.mask == value), name
    final = [(update.object, update.slice) for update in told if update.final]
    assert len(final) > len(set(final)), "some slices were tidied"


def test_a_painting_that_clicks_would_take_away_altogether_stays_and_is_said_to(ball_file, service):
    dot = np.zeros_like(ball())
    dot[CENTRE[::-1]] = True
    prompts = ObjectPrompts("ball", points=(Point(CENTRE, False),), masks=(MaskPrompt(dot, slices=(CENTRE[2],)),))
    found = service.segment(SegmentRequest(ball_file, PromptSet((prompts,))))
    assert found.mask[CENTRE[::-1]] == 1 and any("would leave nothing" in warning for warning in found.warnings)


def test_a_volume_of_one_slice_is_answered(store, service):
    truth = ball((24, 20, 1), centre_ijk=(12, 10, 0), radius=5.0)
    result = service.segment(SegmentRequest(store(scan(truth)), clicked((12, 10, 0))))
    assert result.axis == "axial" and dice(result.mask == 1, truth) > 0.7 and result.slices_walked == 1


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_each_axis_can_be_walked(axis, ball_file, service):
    result = service.segment(SegmentRequest(ball_file, clicked(), axis=axis))
    assert result.axis == axis and dice(result.mask == 1, ball()) > 0.7


TRUTH = ball()


def test_lists_belong_to_one_object_without_a_name():
    prompts = collect_prompts(points=[(1, 2, 3)], negative=[(4, 5, 6)], boxes=[((0, 0, 1), (5, 5, 1))], absent=[7])
    (only,) = prompts.objects
    assert only.name == UNNAMED
    assert only.points == (Point((1, 2, 3)), Point((4, 5, 6), positive=False))
    assert only.boxes == (Box((0, 0, 1), (5, 5, 1)),) and only.absent == (Absent(7),)


def test_mappings_name_objects_in_order():
    masks = {"kidney": [TRUTH], "liver": [MaskPrompt(TRUTH, slices=(8,))]}
    prompts = collect_prompts(points={"spleen": [(1, 2, 3)], "liver": []}, masks=masks)
    assert prompts.names == ("spleen", "liver", "kidney")
    assert prompts.objects[1].masks[0].slices == (8,) and prompts.objects[2].masks[0].slices is None


def test_nothing_to_start_from_is_refused():
    with pytest.raises(PromptError, match="no prompt"):
        collect_prompts()
    with pytest.raises(PromptError, match="nothing to start from"):
        collect_prompts(negative=[(1, 2, 3)])


@pytest.mark.parametrize("as_text", [True, False])
def test_one_call_segments_an_image(ball_file, service, as_text):
    result = segment(str(ball_file) if as_text else ball_file, points={"ball": [(12, 10, 8)]}, service=service)
    assert result.labels == {"ball": 1} and dice(result.mask == 1, TRUTH) > 0.8


def test_every_setting_is_passed_on(ball_file, service):
    options = slicecast.EngineOptions(gone_slices=0)
    result = segment(
        ball_file, points=[(12, 10, 8)], axis="coronal", range=(9, 12), window="0:150", options=options, service=service
    )
    assert result.axis == "coronal" and result.window.high == 150
    assert np.flatnonzero(result.mask.any(axis=(0, 2))).tolist() == [9, 10, 11]


def test_it_is_what_the_package_offers():
    assert slicecast.segment is segment


def test_a_closed_service_holds_no_model_and_loads_it_again_when_asked(ball_file):
    """Each server of a process would keep hundreds of megabytes, and thousands of memory maps of compiled graphs."""
    service = SegmentService()
    before = service.segment(SegmentRequest(ball_file, clicked())).mask
    model = weakref.ref(service.predictor)
    service.close()
    gc.collect()
    assert model() is None
    assert np.array_equal(service.segment(SegmentRequest(ball_file, clicked())).mask, before)


def test_giving_memory_back_loads_no_model(monkeypatch):
    """Where a device is full, the deployed weights may not be loaded: a session answers with an earlier version's."""
    monkeypatch.setattr("slicecast.inference.segment.load_predictor", lambda spec, **given: pytest.fail("loaded"))
    SegmentService(model="sam2_nano").release()


def prepare(monkeypatch, load):
    monkeypatch.setattr("slicecast.inference.segment.load_predictor", load)
    service = SegmentService(model="sam2_nano", settings=EngineSettings(idle_encode=False))
    service.prepare()
    return service


def test_a_server_prepares_its_model_and_says_so(monkeypatch, caplog):
    caplog.set_level("INFO")
    service = prepare(monkeypatch, lambda spec, **given: FakePredictor())
    assert service.work.prompted >= 2 and service.work.tracked > 0
    assert "The model is ready" in caplog.text


def test_a_model_without_weights_is_left_to_the_first_request(monkeypatch, caplog):
    def load(spec, **given):
        raise WeightsMissing("no file")

    caplog.set_level("INFO")
    assert prepare(monkeypatch, load).work.prompted == 0
    assert "not prepared: no file" in caplog.text
