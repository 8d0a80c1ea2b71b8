import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.engine.session import (
    Accept,
    Add,
    Axes,
    Edit,
    PackedMask,
    Painted,
    Redo,
    Release,
    Remove,
    Reset,
    Session,
    Undo,
    decode_record,
    encode_record,
)
from slicecast.engine.session_prompts import Grid, prompt_set
from slicecast.errors import ConfigError, Conflict, NotFound
from slicecast.prompts import Absent, Box, Line, Point, standing_points
from slicecast.volume import Geometry, Reorientation, SliceAxis

DOT = PackedMask.of(np.eye(4, dtype=bool))

items = st.one_of(
    st.builds(Point, st.tuples(*[st.integers(0, 9)] * 3), st.booleans()),
    st.builds(Absent, st.integers(0, 9)),
    st.builds(lambda n: Painted(((n, DOT),)), st.integers(0, 9)),
    st.just(Box((0, 0, 0), (3, 3, 0))),
    st.builds(lambda k: Line(((0, 0, 0), (3, 3, k))), st.integers(0, 9)),
)
said = st.lists(st.tuples(st.sampled_from(["liver", "spleen"]), items), max_size=3)


@st.composite
def sessions(draw):
    """A session after a few random records, each one possible where it stands."""
    session = Session()
    for _ in range(draw(st.integers(0, 12))):
        session = session.then(draw(records(session)))
    return session


@st.composite
def records(draw, session):
    """A record that the session can take."""
    content = session.content
    kinds = ["add", "reset", "accept", "replace"]
    kinds += ["remove"] * bool(content.prompts) + ["release"] * bool(content.accepted)
    kinds += ["undo"] * (2 * bool(session.applied)) + ["redo"] * (2 * bool(session.undone))
    match draw(st.sampled_from(kinds)):
        case "add":
            return session.adding(draw(said))
        case "replace":
            return session.replacing(draw(said))
        case "remove":
            return session.removing(draw(st.sampled_from(sorted(content.prompts))))
        case "accept":
            return Edit((Accept("liver", draw(st.integers(0, 9)), DOT),))
        case "release":
            return session.releasing(
                *(lambda place: (place[0], [place[1]]))(draw(st.sampled_from(sorted(content.accepted))))
            )
        case "reset":
            return Edit((Reset(),))
        case "undo":
            return Undo()
        case _:
            return Redo()


def times(session, record, count):
    for _ in range(count):
        session = session.then(record)
    return session


@given(sessions())
def test_replay_leads_to_the_same_session(session):
    assert Session.replay(session.log) == session
    assert session.revision == len(session.log)


@given(sessions(), st.data())
def test_an_edit_taken_back_leaves_no_trace(session, data):
    edit = session.adding(data.draw(said))
    assert session.then(edit).then(Undo()).content == session.content


@given(sessions(), st.data())
def test_undo_and_redo_of_any_depth_are_inverse(session, data):
    depth = data.draw(st.integers(0, len(session.applied)))
    back = times(session, Undo(), depth)
    assert back.content == Session.replay(session.applied[: len(session.applied) - depth]).content
    forth = times(back, Redo(), depth)
    assert (forth.content, forth.applied, forth.undone) == (session.content, session.applied, session.undone)


@given(sessions(), st.data())
def test_an_edit_after_an_undo_ends_what_could_be_redone(session, data):
    changed = session.then(session.adding(data.draw(said)))
    assert changed.undone == ()
    with pytest.raises(Conflict, match="nothing to redo"):
        changed.then(Redo())


@given(sessions().filter(lambda s: s.content.prompts), st.data())
def test_removing_a_prompt_removes_it_and_nothing_else(session, data):
    gone = data.draw(st.sampled_from(sorted(session.content.prompts)))
    after = session.then(session.removing(gone)).content
    assert dict(after.prompts) == {k: p for k, p in session.content.prompts.items() if k != gone}
    assert after.accepted == session.content.accepted


@given(sessions(), st.data())
def test_ids_are_never_used_again(session, data):
    new = [change.id for change in session.adding(data.draw(said)).changes]
    used = [change.id for r in session.log if isinstance(r, Edit) for change in r.changes if hasattr(change, "item")]
    assert len(set(new)) == len(new) and not set(new) & set(used)


@given(sessions(), st.data())
def test_a_whole_set_is_reached_with_the_fewest_changes(session, data):
    wanted = data.draw(said)
    before = session.content.prompts
    edit = session.replacing(wanted)
    after = session.then(edit).content.prompts
    assert sorted(map(repr, wanted)) == sorted(repr((p.object, p.item)) for p in after.values())
    kept = [k for k in before if k in after]
    assert len(edit.changes) == len(before) + len(wanted) - 2 * len(kept)
    assert session.then(edit).replacing(wanted).changes == ()


def test_a_reset_is_an_edit_like_any_other():
    session = Session().then(Session().adding([("liver", Point((1, 2, 3)))])).then(Edit((Accept("liver", 3, DOT),)))
    assert session.content.objects == ("liver",)
    empty = session.then(Edit((Reset(),)))
    assert empty.content.objects == () and empty.then(Undo()).content == session.content


@pytest.mark.parametrize("record", [Undo(), Redo()])
def test_an_empty_session_has_nothing_to_take_back(record):
    with pytest.raises(Conflict, match="There is nothing to"):
        Session().then(record)


def test_what_is_not_there_cannot_be_removed_or_released():
    with pytest.raises(NotFound, match="no prompt 'p1'"):
        Session().removing("p1")
    with pytest.raises(NotFound, match="Slice 4 of 'liver' is not accepted"):
        Session().releasing("liver", [4])
    accepted = Session().then(Edit((Accept("liver", 4, DOT),)))
    assert accepted.releasing("liver", [4, 4]).changes == (Release("liver", 4),)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_mask_comes_back_as_it_was(rows, columns, seed):
    mask = np.random.default_rng(seed).random((rows, columns)) > 0.5
    packed = PackedMask.of(mask)
    assert (packed.unpack() == mask).all() and packed.unpack().shape == mask.shape
    assert packed.empty == (not mask.any())
    assert packed == PackedMask.of(np.asfortranarray(mask))


def test_a_painted_slice_is_small():
    mask = np.zeros((512, 512), bool)
    mask[100:200, 100:220] = True
    assert len(PackedMask.of(mask).data) < 1000


DOT = PackedMask.of(np.eye(4, dtype=bool))
ITEMS = [Point((1, 2, 3)), Point((0, 0, 0), positive=False), Box((1, 2, 3), (4, 5, 3)), Absent(7), Painted(((2, DOT),))]
ADDED = tuple(Add(f"p{n}", "höhle", item) for n, item in enumerate(ITEMS))
EDIT = Edit((*ADDED, Remove("p1"), Accept("a", 3, DOT), Release("a", 3), Axes(multi_axis=True)))
STORED = [
    '{"add": "p0", "object": "h\\u00f6hle", "item": {"kind": "point", "ijk": [1, 2, 3], "positive": true}}',
    '{"add": "p1", "object": "h\\u00f6hle", "item": {"kind": "point", "ijk": [0, 0, 0], "positive": false}}',
    '{"add": "p2", "object": "h\\u00f6hle", "item": {"kind": "box", "low_ijk": [1, 2, 3], "high_ijk": [4, 5, 3]}}',
    '{"add": "p3", "object": "h\\u00f6hle", "item": {"kind": "absent", "slice": 7}}',
    '{"add": "p4", "object": "h\\u00f6hle", "item": {"kind": "painted", "slices": '
    '[{"slice": 2, "shape_hw": [4, 4], "bits": "eJxrUQQAASsApg=="}]}}',
    '{"remove": "p1"}',
    '{"accept": "a", "slice": 3, "shape_hw": [4, 4], "bits": "eJxrUQQAASsApg=="}',
    '{"release": "a", "slice": 3}',
    '{"axes": true}',
]
"""The changes of EDIT as the first version wrote them."""

RECORDS = {
    f'{{"edit": [{", ".join(STORED)}]}}': EDIT,
    '{"edit": [{"reset": true}]}': Edit((Reset(),)),
    '{"undo": true}': Undo(),
    '{"redo": true}': Redo(),
    '{"edit": [{"add": "p1", "object": "a", "item": {"kind": "line", "vertices": [[1, 2, 3], [4, 5, 6]]}}]}': Edit(
        (Add("p1", "a", Line(((1, 2, 3), (4, 5, 6)))),)
    ),
}


@pytest.mark.parametrize("text", RECORDS)
def test_records_are_written_byte_for_byte_as_ever_and_come_back(text):
    assert encode_record(RECORDS[text]) == text and decode_record(text) == RECORDS[text]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"leap": true}', '{"edit": [{"add": "p1"}]}', '{"edit": [{}]}'])
def test_what_this_version_does_not_know_is_refused(text):
    with pytest.raises(ConfigError, match="this version cannot read"):
        decode_record(text)


def test_only_a_click_after_the_painting_of_its_slice_counts_beside_it():
    """And none after its slice was accepted; clicks on other slices stay."""
    grid, before, after, aside = Grid((9, 4, 4), 0), Point((1, 1, 3), False), Point((2, 2, 3)), Point((1, 1, 5), False)
    session = Session()
    for item in (before, aside, Painted(((3, DOT),)), after):
        session = session.then(session.adding([("liver", item)]))
    (entry,) = prompt_set(session.content, grid).objects
    assert entry.points == (before, aside, after) and standing(entry) == (aside, after)
    assert [(mask.slices, mask.after) for mask in entry.masks] == [((3,), 2)]
    accepted = session.then(Edit((Accept("liver", 3, DOT),)))
    later = accepted.then(accepted.adding([("liver", Point((3, 3, 3)))]))
    for content in (accepted.content, later.content):
        (entry,) = prompt_set(content, grid).objects
        assert standing(entry) == (aside,) and entry.points == (before, aside, after)
        assert [(mask.slices, mask.after) for mask in entry.masks] == [((3,), 2), ((3,), 3)]


def standing(entry):
    geometry = Geometry((4, 4, 9), (1.0, 1.0, 1.0))
    return standing_points(entry, Reorientation.of(geometry), SliceAxis.AXIAL)


def test_a_slice_accepted_again_counts_from_then_on():
    grid, first, second = Grid((9, 4, 4), 0), Point((1, 1, 3)), Point((2, 2, 5))
    other = PackedMask.of(np.ones((4, 4), dtype=bool))

    def accepted(mask):
        session = Session().then(Session().adding([("liver", first)])).then(Edit((Accept("liver", 3, DOT),)))
        session = session.then(session.adding([("liver", second)])).then(Edit((Accept("liver", 3, mask),)))
        (entry,) = prompt_set(session.content, grid).objects
        return [mask.after for mask in entry.masks]

    assert accepted(DOT) == [1] and accepted(other) == [2]
