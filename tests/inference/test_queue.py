import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.errors import Cancelled, ConfigError, QueueFull
from slicecast.inference.queue import DeviceQueue, Job, Priority, PriorityQueue, QueueSettings, Scheduler

WAIT_S = 20.0
"""Longer than any machine needs; a deadlock fails instead of hanging."""
CLICK, TRACK, BACK = Priority


def wait_until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def waiting(queue):
    return sum(queue.stats().waiting.values())


def queue_up(queue, work, arguments):
    """Start threads that ask for a slot one after the other, while it is held."""
    threads = []
    for n, argument in enumerate(arguments):
        thread = threading.Thread(target=work, args=(argument,), daemon=True)
        thread.start()
        threads.append(thread)
        wait_until(lambda n=n: waiting(queue) == n + 1)
    return threads


def finish(threads):
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


# The scheduler


def test_a_click_goes_before_a_propagation():
    queue, order = Scheduler(), []

    def work(job):
        with queue.slot(job):
            order.append(job.user)

    with queue.slot(Job()):
        threads = queue_up(queue, work, [Job("track", TRACK), Job("background", BACK), Job("click", CLICK)])
    finish(threads)
    assert order == ["click", "track", "background"]


def test_a_long_job_cannot_starve_another():
    """A thread that gives its slot back and takes it again comes after those who wait."""
    queue, order = Scheduler(), []

    def click(user):
        with queue.slot(Job(user)):
            order.append(user)

    with queue.slot(Job("long")):
        threads = queue_up(queue, click, ["click"])
        order.append("step 1")
    with queue.slot(Job("long")):
        order.append("step 2")
    finish(threads)
    assert order == ["step 1", "click", "step 2"]


@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_than_the_slots_are_taken(slots):
    queue, inside, most = Scheduler(slots), [], []

    def work():
        for _ in range(50):
            with queue.slot(Job()):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0001)
                inside.pop()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    finish(threads)
    assert max(most) == slots and len(most) == 250 and queue.stats().working == 0


def test_an_error_hands_the_slot_on():
    queue, order = Scheduler(), []

    def work(user):
        with queue.slot(Job(user)):
            order.append(user)

    with pytest.raises(RuntimeError), queue.slot(Job()):
        threads = queue_up(queue, work, ["a", "b"])
        raise RuntimeError
    finish(threads)
    assert order == ["a", "b"] and queue.stats().working == 0


def test_a_full_queue_refuses():
    queue = Scheduler(max_waiting=1)
    with queue.slot(Job("a")):
        threads = queue_up(queue, lambda user: queue.slot(Job(user)).__enter__(), ["b"])
        with pytest.raises(QueueFull, match="busy: 1 requests are waiting"), queue.slot(Job("c")):
            pass
        assert queue.stats().refused == 1
    finish(threads)


def test_one_user_cannot_fill_the_queue():
    queue = Scheduler(2, max_per_user=1)
    with queue.slot(Job("a")):
        with pytest.raises(QueueFull, match="1 of your requests"), queue.slot(Job("a")):
            pass
        with queue.slot(Job("b")):
            pass
    with queue.slot(Job("a")):
        pass


def test_a_cancelled_job_leaves_the_queue():
    queue, stop = Scheduler(), threading.Event()
    errors = []

    def work(job):
        try:
            with queue.slot(job):
                pass
        except Cancelled as error:
            errors.append(str(error))

    with queue.slot(Job("a")):
        threads = queue_up(queue, work, [Job("b", cancelled=stop.is_set)])
        stop.set()
        finish(threads)
        assert waiting(queue) == 0
    assert errors == ["Stopped, as asked."] and queue.stats().working == 0
    with queue.slot(Job("b")):
        pass


def test_a_job_cancelled_when_just_called_passes_its_slot_on():
    queue = Scheduler()
    mine = threading.Event()
    queue._take(Job("a"), CLICK)
    queue._users["b"] += 1
    queue._queue.push(mine, user="b", priority=CLICK)
    queue._give(Job("a"))
    assert mine.is_set() and queue.stats().working == 1
    queue._leave(mine, Job("b"))
    assert queue.stats().working == 0 and not queue._users


def test_the_counters():
    now = [0.0]
    queue = Scheduler(clock=lambda: now[0])

    def work(priority):
        with queue.slot(Job("b", priority)):
            pass

    with queue.slot(Job("a")):
        threads = queue_up(queue, work, [TRACK])
        assert queue.stats().waiting == {CLICK: 0, TRACK: 1, BACK: 0}
        now[0] = 2.5
    finish(threads)
    stats = queue.stats()
    assert stats.taken == {CLICK: 1, TRACK: 1, BACK: 0} and stats.waited_s == {CLICK: 0.0, TRACK: 2.5, BACK: 0.0}


# The device


def test_a_job_is_a_click_until_it_tracks():
    queue = DeviceQueue()
    with queue.job("anna") as job:
        with queue.step():
            assert job.priority is CLICK
        with queue.step(tracking=True):
            assert job.priority is TRACK
        with queue.step():
            assert job.priority is TRACK
    assert queue.steps.stats().taken == {CLICK: 1, TRACK: 2, BACK: 0}
    assert queue.jobs.stats().taken[CLICK] == 1


def test_background_work_takes_no_slot_and_stays_in_the_background():
    queue = DeviceQueue(QueueSettings(jobs=1))
    with queue.job("anna"), queue.background(), queue.step(tracking=True):
        pass
    assert queue.steps.stats().taken == {CLICK: 0, TRACK: 0, BACK: 1}


def test_work_outside_of_any_job_may_use_the_device():
    queue = DeviceQueue()
    with queue.step(tracking=True), pytest.raises(RuntimeError):
        raise RuntimeError
    assert queue.steps.stats().working == 0


def test_a_cancelled_job_gets_no_further_step():
    queue, stop = DeviceQueue(), threading.Event()
    with queue.job("anna", cancelled=stop.is_set):
        with queue.step():
            stop.set()
        with pytest.raises(Cancelled), queue.step():
            pass


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True, None])
def test_settings_that_cannot_be(value):
    with pytest.raises(ConfigError, match="setting waiting in"):
        QueueSettings(waiting=value)


# The priority queue

priorities = st.sampled_from(list(Priority))
users = st.sampled_from("abcd")


def order_of(entries, *, patience=8):
    queue = PriorityQueue(patience=patience)
    for n, (user, priority) in enumerate(entries):
        queue.push((n, user), user=user, priority=priority)
    return [queue.pop() for _ in range(len(queue))]


def test_urgent_first_then_first_come():
    assert [n for n, _ in order_of([("a", BACK), ("b", TRACK), ("c", CLICK), ("d", CLICK)])] == [2, 3, 1, 0]


def test_users_are_served_round_robin():
    assert [user for _, user in order_of([("a", TRACK)] * 3 + [("b", TRACK), ("c", TRACK)])] == list("abcaa")


def test_a_user_who_comes_again_goes_behind_the_others():
    queue = PriorityQueue(patience=8)
    for user in "ab":
        queue.push(user, user=user, priority=TRACK)
    assert queue.pop() == "a"
    queue.push("a", user="a", priority=TRACK)
    assert [queue.pop(), queue.pop()] == ["b", "a"]


def test_patience_has_an_end():
    names = [user for _, user in order_of([*[("a", CLICK)] * 5, ("w", TRACK), ("z", BACK)], patience=2)]
    assert names == ["a", "a", "w", "z", "a", "a", "a"]


def test_an_entry_can_leave():
    queue = PriorityQueue(patience=8)
    for n in range(3):
        queue.push(n, user="a", priority=TRACK)
    assert queue.remove(1) and not queue.remove(1) and queue.counts()[TRACK] == 2
    assert [queue.pop(), queue.pop(), len(queue)] == [0, 2, 0]
    with pytest.raises(IndexError):
        queue.pop()


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
    """Whatever arrives while it waits, the first entry of a user goes within (users) x (patience + 2) pops."""
    queue = PriorityQueue(patience=patience)
    for user, priority in before:
        queue.push("other", user=user, priority=priority)
    mine = data.draw(priorities)
    queue.push("mine", user="me", priority=mine)
    limit = 5 * (patience + 2)
    for _ in range(limit + 1):
        if queue.pop() == "mine":
            break
        for user, priority in data.draw(st.lists(st.tuples(users, priorities), min_size=1, max_size=3)):
            queue.push("other", user=user, priority=priority)
    else:
        pytest.fail(f"still waiting after {limit + 1} pops")


@given(st.dictionaries(users, st.integers(1, 12), min_size=1), st.integers(1, 40))
def test_users_of_one_class_get_equal_shares(counts, turns):
    queue = PriorityQueue(patience=8)
    for user, count in counts.items():
        for _ in range(count):
            queue.push(user, user=user, priority=TRACK)
    served = [queue.pop() for _ in range(min(turns, len(queue)))]
    got = {user: served.count(user) for user in counts}
    for user, count in counts.items():
        assert all(got[user] >= min(count, got[other] - 1) for other in counts)
