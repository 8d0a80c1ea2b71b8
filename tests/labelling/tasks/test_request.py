"""Requests as the clients send them (`requests/*.json`), and those that no client should."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from labelserver import REQUESTS, recorded

from slicecast.errors import ConfigError, PromptError, TooLarge
from slicecast.labelling.tasks.request import (
    RESERVED,
    number_labels,
    parse_request,
    read_extension,
    read_flag,
    read_range,
    read_roi,
    read_slice,
    roi_box,
    short,
)
from slicecast.prompts import Line, MaskPrompt

SIZE = (24, 20, 16)
LABELS = ("spleen", "liver", "kidney")


def parse(record):
    style = "several" if record["model"] == "sam2" else "single"
    parsed = parse_request({"model": record["model"], "image": "first", **record["params"]}, style=style, labels=LABELS)
    return parsed.on_slice() if record["model"] == "sam2_slice" else parsed


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.stem)
def test_recorded_requests(path):
    record = recorded(path)
    expected = record["expect"]
    if "status" in expected:
        with pytest.raises(PromptError, match=expected["detail"]):
            parse(record).prompts(SIZE)
        return
    parsed = parse(record)
    found = {
        clicks.name: {
            "value": parsed.values[clicks.name],
            "foreground": [list(ijk) for ijk in clicks.foreground],
            "background": [list(ijk) for ijk in clicks.background],
        }
        for clicks in parsed.objects
    }
    assert found == expected["objects"]
    assert parsed.slice == expected.get("slice")
    assert parsed.window == expected.get("window", "auto")
    assert parsed.extension == expected.get("extension", ".nrrd" if "result_extension" in record["params"] else None)
    assert not parsed.compress
    boxes = [box for entry in parsed.prompts(SIZE).objects for box in entry.boxes]
    assert [[list(box.low_ijk), list(box.high_ijk)] for box in boxes] == (
        [expected["box"]] if "box" in expected else []
    )


def test_a_removed_click_is_not_in_the_next_request():
    both = parse_request({"foreground": [[1, 2, 3], [4, 5, 6]]}, style="single")
    one = parse_request({"foreground": [[1, 2, 3]]}, style="single")
    assert both.objects != one.objects and one == parse_request({"foreground": [[1, 2, 3]]}, style="single")


def test_options_are_never_taken_for_labels():
    typed = {"slice", "range", "window", "axis", "roi", "result_extension", "absent", "lines", "slice_strategy"}
    typed |= {"multi_axis"}
    wire = {key: [[1, 2, 3]] for key in RESERVED - typed}
    parsed = parse_request(wire, style="several", labels=LABELS)
    assert [clicks.name for clicks in parsed.objects] == ["object"]


def test_a_label_of_the_app_with_something_else_than_points_is_refused():
    with pytest.raises(PromptError, match=r"'spleen' is 'yes'; send a list of voxel indices"):
        parse_request({"spleen": "yes"}, style="several", labels=LABELS)


def test_an_unknown_option_is_ignored():
    parsed = parse_request({"colour": "red", "sizes": [], "foreground": [[1, 2, 3]]}, style="several", labels=LABELS)
    assert [clicks.name for clicks in parsed.objects] == ["object"]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[1, 2]], r"holds \[1, 2\]; a point is three numbers"),
        ([[1, 2, "3"]], "a point is three numbers"),
        ([[1, 2, True]], "a point is three numbers"),
        ([[1.5, 2, 3]], r"\(1.5, 2, 3\) is not a voxel index"),
        ([[float("nan"), 2, 3]], "not a voxel index"),
        ([[float("inf"), 2, 3]], "not a voxel index"),
        ({"i": 1}, "send a list of voxel indices"),
    ],
)
def test_points_that_are_none(points, message):
    with pytest.raises(PromptError, match=message):
        parse_request({"foreground": points}, style="single")


def test_too_many_labels_for_one_mask():
    with pytest.raises(PromptError, match="numbers at most 254 labels"):
        parse_request({f"label {n}": [[1, 2, n]] for n in range(300)}, style="several")


def test_numbers_of_labels_do_not_depend_on_the_order_of_clicks():
    assert number_labels(["kidney", "gland", "spleen", "node"], LABELS) == {
        "kidney": 3,
        "gland": 4,
        "spleen": 1,
        "node": 5,
    }


def test_too_many_labels_beside_those_of_the_server():
    labels = [f"label {n}" for n in range(250)]
    with pytest.raises(PromptError, match="numbers at most 254 labels"):
        parse_request({f"other {n}": [[1, 2, n]] for n in range(5)}, style="several", labels=labels)


def test_a_slice_on_which_nothing_was_clicked():
    with pytest.raises(PromptError, match="No click lies on slice 5, but on 8"):
        parse_request({"foreground": [[12, 10, 8]], "slice": 5}, style="single").on_slice()


def test_a_slice_outside_the_volume():
    parsed = parse_request({"roi": [1, 5, 1, 5, 0, 9], "slice": 99}, style="single").on_slice()
    with pytest.raises(PromptError, match="no slice 99; k runs from 0 to 15"):
        parsed.prompts(SIZE)


def test_a_roi_for_several_objects_is_refused():
    wire = {"spleen": [[1, 2, 3]], "liver": [[4, 5, 6]], "roi": [0, 5, 0, 5, 0, 5]}
    with pytest.raises(PromptError, match="A region of interest is one object's, but 2 were clicked"):
        parse_request(wire, style="several").prompts(SIZE)


def test_a_list_option_means_its_first_entry():
    parsed = parse_request({"foreground": [[1, 2, 3]], "axis": ["coronal", "axial"]}, style="single")
    assert parsed.axis == "coronal"
    with pytest.raises(ConfigError, match="'window' is 40"):
        parse_request({"foreground": [[1, 2, 3]], "window": 40}, style="single")


def test_masks_join_clicks_and_take_the_next_values(rng):
    mask = MaskPrompt(rng.random((16, 20, 24)) > 0.5)
    parsed = parse_request({"spleen": [[1, 2, 3]], "liver": []}, style="several", labels=LABELS)
    painted = parsed.with_masks({"spleen": mask, "kidney": mask})
    assert dict(painted.values) == {"spleen": 1, "kidney": 2}
    assert [len(entry.masks) for entry in painted.prompts(SIZE).objects] == [1, 1]


def test_a_mask_alone_is_enough(rng):
    mask = MaskPrompt(rng.random((16, 20, 24)) > 0.5)
    painted = parse_request({}, style="several", labels=LABELS).with_masks({"liver": mask})
    assert dict(painted.values) == {"liver": 1}
    assert painted.prompts(SIZE).names == ("liver",)


def test_absent_slices_are_said_of_all_objects_or_of_one():
    wire = {"spleen": [[1, 2, 3]], "liver": [[4, 5, 6]]}
    for absent, found in (([0, 9, 9], {"spleen": (0, 9), "liver": (0, 9)}), ({"liver": [7]}, {"liver": (7,)})):
        parsed = parse_request({**wire, "absent": absent}, style="several", labels=("spleen", "liver"))
        prompts = {entry.name: tuple(a.slice for a in entry.absent) for entry in parsed.prompts((20, 20, 20)).objects}
        assert prompts == {"spleen": (), "liver": (), **found}


def test_lines_are_of_the_one_object_or_by_name():
    line, other = [[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [9, 8, 7], [1, 1, 1]]
    single = parse_request({"label": "vein", "lines": [line, other]}, style="single")
    assert {c.name: len(c.foreground) for c in single.objects} == {"vein": 0}
    assert single.prompts((20, 20, 20)).objects[0].lines == (Line(line), Line(other))
    wire = {"spleen": [[1, 2, 3]], "liver": [], "lines": {"vein": [line], "spleen": [other]}}
    named = parse_request(wire, style="several", labels=LABELS)
    found = {entry.name: (len(entry.points), entry.lines) for entry in named.prompts((20, 20, 20)).objects}
    assert found == {"spleen": (1, (Line(other),)), "vein": (0, (Line(line),))}
    assert dict(named.with_masks({}, labels=LABELS).values) == dict(named.values)


def test_on_one_slice_a_line_is_a_click_where_it_passes():
    line = [[2, 8, 3], [6, 4, 7], [6, 4, 9]]

    def points(**wire):
        objects = parse_request({"lines": [line], **wire}, style="single").on_slice().prompts(SIZE).objects
        return [(point.ijk, point.positive) for entry in objects for point in entry.points]

    assert points(slice=5) == [((4, 6, 5), True)]
    assert points() == [((6, 4, 9), True)]  # its end, as the last click of other clients
    clicked = {"foreground": [[5, 6, 5]], "background": [[4, 6, 5], [1, 1, 8]]}
    assert points(slice=5, **clicked) == [((5, 6, 5), True), ((4, 6, 5), False)]
    with pytest.raises(PromptError, match="No click lies on slice 11, but on 3, 4, 5, 6, 7"):
        points(slice=11)


@pytest.mark.parametrize(
    "value",
    [5, "x", [[1, 2, 3]], [[[1, 2, 3]]], [[[1, 2, 3], [1, 2]]], {"spleen": [[1, 2, 3]]}, [[[1, 2, 3], [1, 2, -1e9]]]],
)
def test_odd_lines_are_refused(value):
    with pytest.raises(PromptError):
        parse_request({"spleen": [[1, 2, 3]], "lines": value}, style="several", labels=("spleen",))


def test_lines_may_be_so_long_and_no_longer():
    with pytest.raises(TooLarge, match="points were sent"):
        parse_request({"lines": [[[0, 0, 0], [0, 0, 6000]]] * 2}, style="single")


@pytest.mark.parametrize("value", ["3", 5, {"spleen": 3}, [1.5], [-1], [None]])
def test_odd_absent_slices_are_refused(value):
    with pytest.raises(PromptError):
        parse_request({"spleen": [[1, 2, 3]], "absent": value}, style="several", labels=("spleen",))


def test_a_request_names_the_strategy_of_the_next_slice():
    wire = {"foreground": [[1, 2, 3]], "slice_strategy": ["worst", "value"]}
    assert parse_request(wire, style="single").slice_strategy == "worst"
    assert parse_request({"foreground": [[1, 2, 3]]}, style="single").slice_strategy == ""


@pytest.mark.parametrize(
    ("value", "read"), [(None, None), ("", None), ([], None), ("20:60", (20, 60)), ([3, 4], (3, 4))]
)
def test_range(value, read):
    assert read_range(value) == read


@pytest.mark.parametrize("value", ["20", "a:b", "5:5", "-1:4", "1:2:3", 7, {"a": 1}, [1, None], float("inf")])
def test_range_that_is_none(value):
    with pytest.raises(ConfigError, match="write first:end"):
        read_range(value)


@pytest.mark.parametrize(("value", "read"), [(None, None), ("", None), (0, 0), (7.0, 7)])
def test_slice(value, read):
    assert read_slice(value) == read


@pytest.mark.parametrize("value", [-1, 1.5, "3", True, float("nan"), float("inf"), [1]])
def test_slice_that_is_none(value):
    with pytest.raises(PromptError, match="counted from 0"):
        read_slice(value)


@pytest.mark.parametrize("value", [[1, 2, 3], "1,2,3,4", [1, 2, 3, "4"], [1, 2, 3, 4.5], [1, 2, 3, float("nan")], {}])
def test_roi_that_is_none(value):
    with pytest.raises(PromptError, match="'roi' is"):
        read_roi(value)


@pytest.mark.parametrize("value", [True, "true", "True", "1", 1, "yes"])
def test_flag_on(value):
    assert read_flag(value)


@pytest.mark.parametrize("value", [False, "false", "", None, 0, "0"])
def test_flag_off(value):
    assert not read_flag(value)


def test_extension():
    assert read_extension(None) is None
    assert read_extension(".nii.gz") == ".nii.gz"
    with pytest.raises(ConfigError, match=r"'/../x.nii'; choose .nii.gz, .nrrd"):
        read_extension("/../x.nii")


def test_long_values_are_shortened_in_messages():
    assert len(short(list(range(1000)))) == 60


ROI_SIZE = (40, 30, 20)


@st.composite
def corners(draw):
    low = [draw(st.integers(0, size - 2)) for size in ROI_SIZE]
    high = [draw(st.integers(first + 1, size - 1)) for first, size in zip(low, ROI_SIZE, strict=True)]
    return tuple(low), tuple(high)


@given(corners(), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_slicer_order_with_reversed_pairs(box, reversed_pairs):
    low, high = box
    pairs = [(h, l) if flip else (l, h) for l, h, flip in zip(low, high, reversed_pairs, strict=True)]  # noqa: E741
    point = tuple((first + last) // 2 for first, last in zip(low, high, strict=True))
    found = roi_box([n for pair in pairs for n in pair], ROI_SIZE, points=[point, low, high])
    assert (found.low_ijk, found.high_ijk) == (low, high)


@given(corners())
def test_corner_order_is_told_by_the_points(box):
    low, high = box
    (i0, j0, k0), (i1, j1, k1) = low, high
    a_then_b = (min(i0, j0), max(i0, j0)), (min(i1, j1), max(i1, j1))
    assume(not (a_then_b[0][0] <= i0 and i1 <= a_then_b[0][1] and a_then_b[1][0] <= j0 and j1 <= a_then_b[1][1]))
    found = roi_box([i0, j0, i1, j1, k0, k1], ROI_SIZE, points=[low, high, (i0, j1, k0), (i1, j0, k1)])
    assert (found.low_ijk, found.high_ijk) == (low, high)


def test_the_order_that_fits_the_volume_is_meant():
    found = roi_box([35, 2, 38, 28, 0, 5], ROI_SIZE)  # as pairs, j would run from 28 to 38 and leave the 30 rows
    assert (found.low_ijk, found.high_ijk) == ((35, 2, 0), (38, 28, 5))


def test_slicer_is_believed_when_nothing_tells():
    found = roi_box([2, 10, 4, 12, 0, 5], ROI_SIZE)
    assert (found.low_ijk, found.high_ijk) == ((2, 4, 0), (10, 12, 5))


def test_it_is_cut_off_at_the_volume():
    found = roi_box([-5, 100, 2, 4, 3, -9], ROI_SIZE)
    assert (found.low_ijk, found.high_ijk) == ((0, 2, 0), (39, 4, 3))


def test_four_numbers_need_a_slice():
    assert roi_box([1, 5, 2, 6], ROI_SIZE, slice=7).high_ijk == (5, 6, 7)
    with pytest.raises(PromptError, match="a volume needs six numbers"):
        roi_box([1, 5, 2, 6], ROI_SIZE)


def test_beyond_the_volume():
    with pytest.raises(PromptError, match="lies outside the volume of 40 x 30 x 20 voxels"):
        roi_box([50, 60, 50, 60, 0, 5], ROI_SIZE)
