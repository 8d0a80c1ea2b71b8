"""What was found out about volumes survives a restart, and belongs to its model."""

import numpy as np

from slicecast.labelling.scoring.score_store import Known, ScoreStore


def test_it_is_found_again_by_file_and_content_for_the_same_model_only(tmp_path):
    known = Known("abc", "", np.array([0.5, -2.0], np.float32), {"disagree": 0.25}, {"a": {"disagree": 0.25}}, "s", 3)
    store = ScoreStore(tmp_path, "model 1")
    store.keep(("file", 1, 2), known)
    store.close()
    again = ScoreStore(tmp_path, "model 1")
    found = again.load("abc")
    assert again.content_of(("file", 1, 2)) == "abc" and again.content_of(("file", 1, 3)) is None
    assert found.to_bytes() == known.to_bytes() and found.embedding.dtype == np.float32
    assert ScoreStore(tmp_path, "model 2").load("abc") is None
