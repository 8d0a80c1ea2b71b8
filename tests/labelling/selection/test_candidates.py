"""A strategy sees the candidates only."""

from slicecast.labelling.selection.candidates import Candidates


def test_only_the_candidates(store):
    view = Candidates(store, ["second"])
    assert view.get_unlabeled_images() == ["second"]
    assert view.get_image_uri("first") == store.get_image_uri("first")


def test_what_is_known_is_what_the_store_knows(store, tmp_path):
    store.update_image_info("first", {"last_result": {"confidence": 0.5}})
    (tmp_path / "l.nii.gz").write_bytes(b"x")
    store.save_label("first", str(tmp_path / "l.nii.gz"), "original", {"params": {"mean_confidence": 0.7}})
    view = Candidates(store, ["first"])
    assert view.get_image_info("first")["last_result"] == store.get_image_info("first")["last_result"]
    assert view.get_label_info("first", "original") == store.get_label_info("first", "original")
    assert view.get_label_info("second", "original") == {}
