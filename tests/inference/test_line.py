import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.inference.line import Line, Priority

CLICK, WALK, BACK = Priority

priorities = st.sampled_from(list(Priority))
users = st.sampled_from("abcd")


def order_of(entries, *, patience=8):
    line = Line(patience=patience)
    for n, (user, priority) in enumerate(entries):
        line.push((n, user), user=user, priority=priority)
    return [line.pop() for _ in range(len(line))]


def test_urgent_first_then_first_come():
    assert [n for n, _ in order_of([("a", BACK), ("b", WALK), ("c", CLICK), ("d", CLICK)])] == [2, 3, 1, 0]


def test_users_take_turns():
    assert [user for _, user in order_of([("a", WALK)] * 3 + [("b", WALK), ("c", WALK)])] == list("abcaa")


def test_a_user_who_comes_again_goes_behind_the_others():
    line = Line(patience=8)
    for user in "ab":
        line.push(user, user=user, priority=WALK)
    assert line.pop() == "a"
    line.push("a", user="a", priority=WALK)
    assert [line.pop(), line.pop()] == ["b", "a"]


def test_patience_has_an_end():
    names = [user for _, user in order_of([*[("a", CLICK)] * 5, ("w", WALK), ("z", BACK)], patience=2)]
    assert names == ["a", "a", "w", "z", "a", "a", "a"]


def test_an_entry_can_leave():
    line = Line(patience=8)
    for n in range(3):
        line.push(n, user="a", priority=WALK)
    assert line.remove(1) and not line.remove(1) and line.counts()[WALK] == 2
    assert [line.pop(), line.pop(), len(line)] == [0, 2, 0]
    with pytest.raises(IndexError):
        line.pop()


@given(st.lists(st.tuples(users, priorities), max_size=30), st.integers(1, 9))
def test_everything_comes_out_once_and_each_users_work_in_order(entries, patience):
    popped = order_of(entries, patience=patience)
    assert sorted(n for n, _ in popped) == list(range(len(entries)))
    for user in "abcd":
        for priority in Priority:
            own = [n for n, _ in popped if entries[n] == (user, priority)]
            assert own == sorted(own)


@given(st.lists(st.tuples(users, priorities), min_size=1, max_size=20), st.data(), st.integers(1, 5))
def test_nothing_starves(before, data, patience):
    """Whatever arrives while it waits, the first entry of a user goes within (users) x (patience + 2) turns."""
    line = Line(patience=patience)
    for user, priority in before:
        line.push("other", user=user, priority=priority)
    mine = data.draw(priorities)
    line.push("mine", user="me", priority=mine)
    limit = 5 * (patience + 2)
    for _ in range(limit + 1):
        if line.pop() == "mine":
            break
        for user, priority in data.draw(st.lists(st.tuples(users, priorities), min_size=1, max_size=3)):
            line.push("other", user=user, priority=priority)
    else:
        pytest.fail(f"still waiting after {limit + 1} turns")


@given(st.dictionaries(users, st.integers(1, 12), min_size=1), st.integers(1, 40))
def test_users_of_one_class_get_equal_shares(counts, turns):
    line = Line(patience=8)
    for user, count in counts.items():
        for _ in range(count):
            line.push(user, user=user, priority=WALK)
    served = [line.pop() for _ in range(min(turns, len(line)))]
    got = {user: served.count(user) for user in counts}
    for user, count in counts.items():
        assert all(got[user] >= min(count, got[other] - 1) for other in counts)
