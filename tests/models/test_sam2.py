"""SAM 2 behind the engine's port: parity with sam2's own video predictor, and batches that do not mix."""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tracking import PLAIN, boxed, clicked, disk, frames_of, painted, same_answers

from slicecast.engine.anchors import anchors_alone, find_anchors
from slicecast.engine.caches import EmbeddingCache
from slicecast.engine.crop_window import CropWindow, paste
from slicecast.engine.options import EngineOptions
from slicecast.engine.ports import Bank, ModelPrompt, PromptJob, TrackJob
from slicecast.engine.propagation import segment
from slicecast.engine.tracks import Track, Tracker, propagate
from slicecast.errors import DeviceUnavailable, OutOfMemory, WeightsCorrupt, WeightsMissing
from slicecast.models import sam2_forward as steps
from slicecast.models.devices import choose_device
from slicecast.models.registry import ModelSpec, bundled_spec
from slicecast.models.sam2 import BATCHES, Sam2Predictor, load_predictor
from slicecast.models.sam2_build import VIDEO_PREDICTOR, build_sam2

SIZE, COUNT = 128, 6
WHOLE = CropWindow(0, 0, SIZE, SIZE)
OBJECT = disk((SIZE, SIZE), centre_xy=(56, 64), radius=24)
HIERA_T = "configs/sam2.1/sam2.1_hiera_t.yaml"
TOLERANCE = 1e-4
"""Of the logits, against sam2's own predictor."""

PROMPTS = {
    "mask": lambda n: painted(n, OBJECT),
    "box": lambda n: boxed(n, 30, 38, 82, 90),
    "clicks": lambda n: clicked(n, (56, 64), (60, 70), negative=[(15, 20)]),
}


@dataclass
class Clip:
    """Frames on disk, as sam2 reads them, and the same frames as the engine reads them."""

    folder: str
    grey: np.ndarray
    cache: EmbeddingCache = field(default_factory=lambda: EmbeddingCache(1 << 28))
    features: dict = field(default_factory=dict)
    """What sam2's predictor keeps of encoded frames; it keeps one by itself, here all, so that tests stay quick."""

    def tracker(self, model, **options):
        return Tracker(
            Sam2Predictor(model), frames_of(self.grey), self.cache, replace(PLAIN, bounded_clicks=False, **options)
        )

    @torch.inference_mode()
    def open(self, model):
        state = model.init_state(self.folder)
        for number in range(COUNT) if not self.features else ():
            model._get_image_feature(state, number, 1)
            self.features |= state["cached_features"]
        state["cached_features"] = dict(self.features)
        return state


def store(frames, folder):
    folder.mkdir()
    for n, frame in enumerate(frames):
        Image.fromarray(frame).convert("RGB").save(folder / f"{n:05d}.jpg", quality=95)
    read = [np.asarray(Image.open(path).convert("RGB"))[:, :, 0] for path in sorted(folder.glob("*.jpg"))]
    return Clip(str(folder), np.stack(read).astype(np.float32) / 255)


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(1, 8, 8)) + 0.3 * rng.normal(size=(COUNT, 8, 8))
    fine = np.kron(coarse, np.ones((SIZE // 8, SIZE // 8)))
    fine[:, OBJECT] += 2.0
    return ((fine - fine.min()) / np.ptp(fine) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clip(pixels, tmp_path_factory):
    return store(pixels, tmp_path_factory.mktemp("clip") / "forward")


@pytest.fixture
def absent_minded(hiera):
    """The network, but sure that the object is nowhere."""
    bias = hiera.sam_mask_decoder.pred_obj_score_head.layers[-1].bias
    with torch.no_grad():
        bias -= 5.0
    yield hiera
    with torch.no_grad():
        bias += 5.0


def tell(model, state, prompt):
    """Give a slice's prompts to sam2's predictor."""
    if prompt.mask is not None:
        return model.add_new_mask(state, prompt.slice, 1, prompt.mask)
    if prompt.box_xyxy is not None:
        return model.add_new_points_or_box(state, prompt.slice, 1, box=prompt.box_xyxy)
    labels = prompt.labels.astype(np.int32)
    return model.add_new_points_or_box(state, prompt.slice, 1, points=prompt.points_xy, labels=labels)


def logits_of(state):
    """Return every answered frame's logits (m, m) and object score."""
    kept = state["output_dict_per_obj"][0]
    outputs = {**kept["non_cond_frame_outputs"], **kept["cond_frame_outputs"]}
    return {n: (out["pred_masks"][0, 0].numpy(), float(out["object_score_logits"])) for n, out in outputs.items()}


def reference(model, clip, prompts, *, reverse=False):
    """Return what sam2's own predictor answers."""
    state = clip.open(model)
    for prompt in prompts:
        tell(model, state, prompt)
    for _ in model.propagate_in_video(state, start_frame_idx=COUNT - 1 if reverse else None, reverse=reverse):
        pass
    return logits_of(state)


def one_lane(tracker, prompt, *, stop):
    anchor = anchors_alone(tracker, [prompt], WHOLE)[0]
    track = Track(WHOLE, anchor, stop)
    propagate(tracker, [track])
    return {prompt.slice: anchor.answer, **track.answers}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for number, (logits, score) in theirs.items():
        assert np.abs(ours[number].logits - logits).max() <= TOLERANCE, number
        assert abs(ours[number].object_score - score) <= TOLERANCE, number


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_forward_track_equals_sam2s_own_predictor(hiera, clip, kind):
    prompt = PROMPTS[kind](0)
    theirs = reference(hiera, clip, [prompt])
    assert_same(one_lane(clip.tracker(hiera), prompt, stop=COUNT), theirs)
    assert np.std(theirs[3][0]) > 1e-2  # there is something to compare


@pytest.mark.parametrize("kind", PROMPTS)
def test_with_one_option_the_whole_product_equals_sam2s_own_predictor(hiera, clip, kind):
    prompt = PROMPTS[kind](0)
    tracker = Tracker(Sam2Predictor(hiera), frames_of(clip.grey), clip.cache, EngineOptions(stock=True))
    theirs = reference(hiera, clip, [prompt])
    found = segment(tracker, {"a": (prompt,)})
    assert_same(found.objects["a"].answers, theirs)
    wrong = [
        np.count_nonzero((paste(logits, WHOLE, (SIZE, SIZE)) > 0) != (found.labels.get(number, 0) == 1))
        for number, (logits, _) in theirs.items()
        if number != prompt.slice  # there what was painted, or clicked on, is as it was said
    ]
    assert max(wrong) <= 1, wrong  # a pixel of a logit within the tolerance


def test_without_pointers_too_a_track_equals_sam2s_own_predictor(hiera, clip):
    spatial = build_sam2(HIERA_T, image_size=SIZE, target=VIDEO_PREDICTOR, pointers=False)
    spatial.load_state_dict(hiera.state_dict())
    spatial.fill_hole_area = 0
    prompt = PROMPTS["mask"](0)
    theirs = reference(spatial, clip, [prompt])
    assert_same(one_lane(clip.tracker(spatial), prompt, stop=COUNT), theirs)
    assert np.abs(theirs[3][0] - reference(hiera, clip, [prompt])[3][0]).max() > TOLERANCE


@pytest.mark.parametrize("kind", ["mask", "clicks"])
def test_a_lost_object_is_lost_in_the_same_way(absent_minded, clip, kind):
    prompt = PROMPTS[kind](0)
    ours = one_lane(clip.tracker(absent_minded), prompt, stop=COUNT)
    assert_same(ours, reference(absent_minded, clip, [prompt]))
    assert all((ours[n].logits == -1024).all() and not ours[n].present for n in range(1, COUNT))


def test_a_track_downwards_equals_sam2s_reverse_and_our_own_on_the_flipped_clip(hiera, clip, pixels, tmp_path):
    down = one_lane(clip.tracker(hiera), PROMPTS["mask"](COUNT - 1), stop=-1)
    assert_same(down, reference(hiera, clip, [PROMPTS["mask"](COUNT - 1)], reverse=True))
    flipped = one_lane(store(pixels[::-1], tmp_path / "flipped").tracker(hiera), PROMPTS["mask"](0), stop=COUNT)
    mirrored = {COUNT - 1 - n: seen for n, seen in flipped.items()}
    assert same_answers(dict(sorted(down.items())), dict(sorted(mirrored.items())))


def test_between_two_painted_slices_a_track_knows_the_one_ahead_as_sam2_does(hiera, clip):
    prompts = [PROMPTS["mask"](0), PROMPTS["mask"](COUNT - 1)]
    tracker = clip.tracker(hiera)
    low, high = anchors_alone(tracker, prompts, WHOLE)
    track = Track(WHOLE, low, COUNT - 1, ahead=high)
    propagate(tracker, [track])
    theirs = reference(hiera, clip, prompts)
    assert_same(track.answers, {n: theirs[n] for n in range(1, COUNT - 1)})


def test_sam2s_own_predictor_forgets_a_click_on_a_tracked_frame_and_we_do_not(hiera, clip):
    start, correction = PROMPTS["mask"](0), clicked(4, (100, 100))
    state = clip.open(hiera)
    tell(hiera, state, start)
    list(hiera.propagate_in_video(state))
    tracked = logits_of(state)[4][0]
    tell(hiera, state, correction)
    corrected = state["temp_output_dict_per_obj"][0]["non_cond_frame_outputs"][4]["pred_masks"][0, 0].numpy().copy()
    list(hiera.propagate_in_video(state))
    assert np.abs(corrected - tracked).max() > 1e-3  # the click said something
    assert np.array_equal(logits_of(state)[4][0], tracked)  # and it is gone

    ours = find_anchors(clip.tracker(hiera, leap=0), [start, correction], WHOLE)  # random weights swell
    assert [anchor.slice for anchor in ours] == [0, 4]
    assert np.abs(ours[1].answer.logits - corrected).max() <= TOLERANCE
    kept = segment(clip.tracker(hiera, leap=0), {"a": (start, correction)}).objects["a"].answers[4]
    assert kept.prompted and np.array_equal(kept.logits, ours[1].answer.logits)


@pytest.mark.parametrize("switches", [{}, {"previous_mask": True, "dense_prompts": True}], ids=["stock", "carry"])
def test_a_batch_of_tracks_equals_each_track_alone(nano, switches):
    rng = np.random.default_rng(4)
    clip = rng.random((5, 64, 64), dtype=np.float32)
    view, mask = CropWindow(0, 0, 64, 64), disk(radius=14)
    given = [painted(2, mask), clicked(1, (30, 30)), clicked(3, (20, 40)), boxed(2, 20, 20, 44, 44)]

    def tracker():
        return Tracker(Sam2Predictor(nano, **switches), frames_of(clip), EmbeddingCache(1 << 28), PLAIN)

    def tracks(anchors):
        return [Track(view, anchor, stop) for anchor in anchors for stop in (5, -1)]

    shared = tracker()
    together = tracks(anchors_alone(shared, given, view))
    propagate(shared, together)
    alone = [track for prompt in given for track in tracks(anchors_alone(tracker(), [prompt], view))]
    for batched, single in zip(together, alone, strict=True):
        propagate(tracker(), [single])
        assert same_answers(batched.answers, single.answers, atol=1e-5)


def encoded(predictor, seed=0):
    rng = np.random.default_rng(seed)
    return predictor.encode(rng.random((1, 64, 64), dtype=np.float32))[0]


def click_at(*xy):
    return ModelPrompt(np.array([xy], np.float32), np.array([1], np.int32))


def test_the_carry_is_the_slice_before(nano):
    predictor, plain = Sam2Predictor(nano, previous_mask=True), Sam2Predictor(nano)
    first, second = encoded(predictor), encoded(predictor, 1)
    memory = predictor.prompt([PromptJob(first, click_at(30, 30))], num_slices=3)[0].memory
    bank = Bank(((0, memory),))
    seen = predictor.track([TrackJob(second, bank)], num_slices=3)[0]
    with torch.inference_mode():
        stacked = steps.BankBatch({0: memory.memory}, {})
        wanted = steps.track(nano, second.features, stacked, time=1, num_slices=3, previous_mask=memory.logits)
    assert np.array_equal(seen.logits, wanted.logits[0, 0].numpy())
    assert not np.array_equal(seen.logits, plain.track([TrackJob(second, bank)], num_slices=3)[0].logits)


def test_drawn_prompts_are_another_model(nano):
    drawn, plain = Sam2Predictor(nano, dense_prompts=True), Sam2Predictor(nano)
    job = PromptJob(encoded(plain), click_at(30, 30))
    assert not np.array_equal(*(p.prompt([job], num_slices=1)[0].memory.memory.pointer for p in (drawn, plain)))
    assert len({p.fingerprint for p in (drawn, plain, Sam2Predictor(nano, previous_mask=True))}) == 3


def test_the_earlier_answer_matters_to_a_correction(nano):
    predictor = Sam2Predictor(nano)
    picture = encoded(predictor)
    jobs = [
        PromptJob(picture, click_at(30, 30), previous=previous)
        for previous in (None, np.full((16, 16), -9.0, np.float32), np.full((16, 16), 9.0, np.float32))
    ]
    pointers = [seen.memory.memory.pointer for seen in predictor.prompt(jobs, num_slices=1)]
    assert not torch.allclose(pointers[0], pointers[1]) and not torch.allclose(pointers[1], pointers[2])


def test_memory_is_kept_in_bf16_as_sam2s_own_predictor_keeps_it(nano):
    seen = Sam2Predictor(nano).prompt([PromptJob(encoded(Sam2Predictor(nano)), click_at(30, 30))], num_slices=1)[0]
    assert seen.memory.memory.features.dtype == torch.bfloat16 and seen.memory.logits.dtype == torch.float32


def test_encoding_goes_in_batches_and_counts_its_bytes(nano):
    predictor = Sam2Predictor(nano)
    frames = np.random.default_rng(0).random((max(BATCHES) + 1, 64, 64), dtype=np.float32)
    many = predictor.encode(frames)
    assert len(many) == max(BATCHES) + 1
    alone = predictor.encode(frames[-1:])[0]
    assert all(torch.equal(a, b) for a, b in zip(many[-1].features.maps, alone.features.maps, strict=True))
    assert alone.nbytes == 4 * sum(m.numel() for m in alone.features.maps)


def test_no_call_leaves_gradients_or_autocast_behind(nano):
    predictor = Sam2Predictor(nano, bf16=True)
    seen = predictor.prompt([PromptJob(encoded(predictor), click_at(30, 30))], num_slices=1)[0]
    assert seen.logits.dtype == np.float32 and np.isfinite(seen.logits).all()
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")


def spec_of(path, **given):
    fields = {"name": "tiny", "title": "Tiny", "licence": "any", "url": "https://example.org/tiny", "image_size": 64}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "0" * 64
    fields |= {"architecture": bundled_spec().architecture, "file": path.name, "sha256": sha256}
    return ModelSpec(**{**fields, **given})


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SLICECAST_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_a_registered_model_is_loaded_with_its_switches(nano, weights_folder):
    save_file(nano.state_dict(), weights_folder / "tiny.safetensors")
    spec = spec_of(weights_folder / "tiny.safetensors", carry=True, dense_prompts=True, zoom=True)
    predictor = load_predictor(spec, device="cpu")
    assert predictor.zoom and predictor.image_size == 64 and predictor.device.type == "cpu"
    assert spec.sha256 in predictor.fingerprint
    job = PromptJob(encoded(predictor), click_at(30, 30))
    same = Sam2Predictor(nano, previous_mask=True, dense_prompts=True)
    assert np.array_equal(*(p.prompt([job], num_slices=1)[0].logits for p in (predictor, same)))


def test_weights_of_another_network_are_refused(weights_folder):
    save_file({"w": torch.zeros(1)}, weights_folder / "tiny.safetensors")
    with pytest.raises(WeightsCorrupt, match=r"do not fit its architecture: .* are missing, 1 are unknown"):
        load_predictor(spec_of(weights_folder / "tiny.safetensors"), device="cpu")


def test_missing_weights_are_said_to_be_missing(weights_folder):
    with pytest.raises(WeightsMissing):
        load_predictor(spec_of(weights_folder / "tiny.safetensors"), device="cpu")


@pytest.mark.parametrize(("name", "kind"), [("cpu", "cpu"), ("auto", "cuda" if torch.cuda.is_available() else "cpu")])
def test_a_device_is_chosen_by_name(name, kind):
    assert choose_device(name).type == kind


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", ""])
def test_a_device_that_cannot_be_used_is_named(name):
    with pytest.raises(DeviceUnavailable, match=f"'{name}'"):
        choose_device(name)


@pytest.mark.gpu
def test_cuda_answers_as_the_cpu_does(nano):
    """bf16 on the GPU moves logits a little, the outline hardly."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    frames = np.random.default_rng(0).random((4, nano.image_size, nano.image_size), dtype=np.float32)
    mask = np.zeros((nano.image_size, nano.image_size), dtype=bool)
    mask[16:40, 20:44] = True
    none = np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int32)
    answers = []
    for device, bf16 in (("cpu", False), ("cuda", True)):
        predictor = Sam2Predictor(nano.to(device), previous_mask=True, dense_prompts=True, bf16=bf16)
        encoded = predictor.encode(frames)
        (first,) = predictor.prompt([PromptJob(encoded[0], ModelPrompt(*none, mask=mask))], num_slices=4)
        bank = Bank(((0, first.memory),))
        answers.append(predictor.track([TrackJob(encoded[1], bank)], num_slices=4)[0].logits)
    nano.to("cpu")
    assert np.abs(answers[0] - answers[1]).max() < 0.5


def test_evidence_is_added_to_tracked_masks_before_they_are_remembered(nano):
    size, disc = 64, disk((64, 64), centre_xy=(28, 32), radius=12)
    none, label = np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int32)
    hint = np.where(disc, 3.0, -3.0).astype(np.float32)
    predictor = Sam2Predictor(nano, previous_mask=True)
    embedding = predictor.encode(np.zeros((1, size, size), dtype=np.float32))[0]
    start = predictor.prompt([PromptJob(embedding, ModelPrompt(none, label, mask=disc))], num_slices=COUNT)[0]
    jobs = [TrackJob(embedding, Bank(((0, start.memory),)), given) for given in (None, hint)]
    plain, told = predictor.track(jobs, num_slices=COUNT)
    if plain.object_score > 0:
        coarse = hint.reshape(16, 4, 16, 4).mean(axis=(1, 3))
        heard = np.where(plain.logits > 0, coarse, np.minimum(coarse, 0))  # nothing is added to the network's mask
        assert np.allclose(told.logits, plain.logits + heard, atol=TOLERANCE)
        assert not torch.equal(told.memory.memory.features, plain.memory.memory.features)
    else:
        assert np.array_equal(told.logits, plain.logits)
    assert torch.equal(told.memory.logits[0, 0], torch.from_numpy(told.logits))


@pytest.mark.parametrize("flat", [True, False])
def test_a_bias_is_added_to_tracked_masks_but_lets_none_grow_by_more_than_a_quarter(flat):
    predictor = load_predictor(bundled_spec(), device="cpu")
    predictor._flat = predictor._flat if flat else None
    size, none = 128, np.zeros((0, 2), dtype=np.float32)
    disc = disk((size, size), centre_xy=(60, 64), radius=30)
    embedding = predictor.encode((0.2 + 0.5 * disc[None]).astype(np.float32))[0]
    words = ModelPrompt(none, np.zeros(0, dtype=np.int32), mask=disc)
    bank = Bank(((0, predictor.prompt([PromptJob(embedding, words)], num_slices=COUNT)[0].memory),))
    plain, little, much = predictor.track(
        [TrackJob(embedding, bank, bias=b) for b in (0.0, 0.1, 90.0)], num_slices=COUNT
    )
    area = np.count_nonzero(plain.logits > 0)
    assert plain.object_score > 0 and area > 50
    assert np.allclose(little.logits, plain.logits + 0.1, atol=TOLERANCE)
    assert 1.2 * area < np.count_nonzero(much.logits > 0) <= 1.25 * area + 1
    assert not torch.equal(much.memory.memory.features, plain.memory.memory.features)  # it is remembered so


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_running_out_of_memory_is_said_as_such(nano, monkeypatch, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(steps, "encode", fail)
    predictor = Sam2Predictor(nano)
    with pytest.raises(OutOfMemory, match="memory of cpu ran out"):
        predictor.encode(np.zeros((1, 64, 64), dtype=np.float32))


def test_other_errors_stay_what_they_are(nano):
    with pytest.raises(RuntimeError, match=r"channels|size|shape"):
        Sam2Predictor(nano).encode(np.zeros((1, 1, 64, 64, 3), dtype=np.float32))
