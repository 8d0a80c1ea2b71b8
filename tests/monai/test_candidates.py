"""A strategy sees the candidates only."""

from slicecast.monai.candidates import Candidates


def test_only_the_candidates(store):
    view = Candidates(store, ["second"])
    assert view.get_unlabeled_images() == ["second"]
    assert view.get_image_uri("first") == store.get_image_uri("first")
