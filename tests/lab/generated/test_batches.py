import torch

from slicecast_lab.generated.batches import BatchSpec, GeneratedBatches, stream

SPEC = BatchSpec(frames=9, slices=(3, 4), size_px=64)


def test_lanes_point_at_their_own_clip():
    batch = GeneratedBatches(SPEC, seed=1)[0]
    tracks, length = batch.frames.shape
    clips = tracks // 2
    assert batch.images.shape == (clips * length, 64, 64)
    assert batch.masks.shape == (tracks, length, 64, 64)
    owners = batch.frames // length
    assert (owners == owners[:, :1]).all()
    assert owners[:, 0].tolist() == [*range(clips), *range(clips)]


def test_lengths_come_from_the_list():
    batches = GeneratedBatches(SPEC, seed=1)
    assert {batches[n].frames.shape[1] for n in range(8)} == {3, 4}


def test_a_batch_depends_on_its_number_and_nothing_else():
    through_stream = list(stream(GeneratedBatches(SPEC, seed=2), first=3, last=5, workers=0))
    assert [b.number for b in through_stream] == [3, 4]
    direct = GeneratedBatches(SPEC, seed=2)[4]
    assert torch.equal(through_stream[1].images, direct.images)
    assert torch.equal(through_stream[1].masks, direct.masks)
