"""What an annotation costs."""

from hypothesis import given
from hypothesis import strategies as st

from slicecast_lab.simulation.robot import EFFORT, EFFORTS, Actions

counts = st.integers(0, 50)
actions = st.builds(Actions, counts, counts, counts, counts)


@given(actions, actions)
def test_effort_adds_up(first, second):
    for model in EFFORTS.values():
        assert model.seconds(first + second) == model.seconds(first) + model.seconds(second)


def test_seconds_are_the_published_ones():
    assert EFFORT.seconds(Actions(looks=1, clicks=1, boxes=1, masks=1)) == 1 + 2 + 7 + 80


def test_only_painting_varies():
    painted, clicked = Actions(masks=1), Actions(clicks=1)
    assert {model.seconds(painted) for model in EFFORTS.values()} == {40, 80, 160}
    assert {model.seconds(clicked) for model in EFFORTS.values()} == {2}
