"""The annotator clicks where the mask is wrong, and believes nothing of the server that was not looked at."""

import numpy as np
import pytest
from builders import ball, phantom
from labelserver import upload_name

from slicecast.demo.demo import Annotator, SampleCase, merge
from slicecast.errors import Conflict, UnknownImage
from slicecast.volume import read_volume, write_mask
from slicecast.volume.metrics import dice


class Server:
    """A client whose server answers with a ball around each positive click, less one around each negative."""

    def __init__(self, case: SampleCase, *, radius: float = 4.0, spoil: bool = False, shift: bool = False) -> None:
        self.case, self.radius, self.spoil, self.shift = case, radius, spoil, shift
        self.saved: dict[str, np.ndarray] = {}
        self.asked: list[tuple[str, dict]] = []

    def next_sample(self, strategy, params):
        return {} if self.case.id in self.saved else {"id": self.case.id}

    def infer(self, model, image, params):
        self.asked.append((model, params))
        named = {name: value for name, value in params.items() if name in self.case.names.values()}
        mask = np.zeros(self.case.truth.shape, np.uint8)
        for value, points in enumerate(named.values() or [params.get("foreground", [])], start=1):
            for point in points:
                mask[self._ball(point)] = value
        for point in params.get("background", []):
            mask[self._ball(point)] = 0
        objects = {name: {"value": value} for value, name in enumerate(named, start=1)}
        return self._file(mask), {"objects": objects}

    def save_label(self, image, file, tag, params):
        self.saved[image] = read_volume(file).array

    def download_label(self, image, tag):
        return self._file(self.saved[image] * (not self.spoil))

    def _ball(self, point):
        return ball(self.case.volume.geometry.size_ijk, centre_ijk=point, radius=self.radius)

    def _file(self, mask):
        geometry = phantom("oblique").volume.geometry if self.shift else self.case.volume.geometry
        return str(write_mask(upload_name(".nrrd"), mask, geometry))


@pytest.fixture
def case() -> SampleCase:
    truth = np.zeros((16, 20, 24), np.uint8)
    truth[ball(centre_ijk=(7, 9, 8), radius=4)] = 1
    truth[ball(centre_ijk=(17, 10, 8), radius=4)] = 3
    return SampleCase("first", phantom().volume, truth, {1: "left", 2: "absent", 3: "right"})


def test_it_clicks_submits_and_goes_on_until_all_is_done(case, tmp_path):
    server = Server(case)
    done = Annotator(server, tmp_path).work(lambda name: case)
    records = done[0][1]
    assert [record.name for record in records] == ["left", "right"]
    assert all(record.final_dice > 0.95 and len(record.clicks) == 1 for record in records)
    assert [model for model, _ in server.asked] == ["sam2"]
    assert dice(server.saved["first"] == 3, case.truth == 3) > 0.95


def test_it_corrects_until_patience_ends(case, tmp_path):
    server = Server(case, radius=1.5)
    records = Annotator(server, tmp_path, most_clicks=3).annotate(case)
    assert [len(record.clicks) for record in records] == [3, 3]
    assert all(list(record.dice) == sorted(record.dice) for record in records)
    assert {model for model, _ in server.asked[1:]} == {"sam2_single"}
    assert len(server.asked[-1][1]["foreground"]) == 3


def test_too_much_is_corrected_with_a_negative_click(case, tmp_path):
    server = Server(case, radius=9)
    Annotator(server, tmp_path, most_clicks=2).annotate(case)
    assert server.asked[1][1]["background"]


def test_a_label_stored_wrongly_is_noticed(case, tmp_path):
    with pytest.raises(Conflict, match="is not the one that was submitted"):
        Annotator(Server(case, spoil=True), tmp_path).work(lambda name: case)


def test_an_answer_on_another_grid_is_noticed(case, tmp_path):
    with pytest.raises(UnknownImage, match="on another grid: direction"):
        Annotator(Server(case, shift=True), tmp_path).work(lambda name: case)


def test_an_image_offered_again_is_noticed(case, tmp_path):
    server = Server(case)
    server.next_sample = lambda strategy, params: {"id": "first"}
    with pytest.raises(Conflict, match="offers 'first' again"):
        Annotator(server, tmp_path).work(lambda name: case)


def test_merge_gives_the_truths_values(case, tmp_path):
    records = Annotator(Server(case), tmp_path).annotate(case)
    assert set(np.unique(merge(case, records))) == {0, 1, 3}
