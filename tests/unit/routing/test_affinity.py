"""Tests of the affinity of conversations."""

from hypothesis import given
from hypothesis import strategies as st

from antiphon.routing.affinity import BOUND, prefer
from antiphon.routing.balance import Load

NAMES = [f"d{index}" for index in range(5)]


def idle(count: int, weight: float = 1.0) -> list[Load]:
    return [Load(weight, 0, None)] * count


@given(st.binary(max_size=40), st.integers(1, 4))
def test_a_target_that_leaves_moves_only_its_own_conversations(conversation: bytes, gone: int) -> None:
    """Without one target, conversations of the others stay where they are."""
    before = NAMES[prefer(conversation, NAMES, idle(5))]
    rest = [name for index, name in enumerate(NAMES) if index != gone]
    after = rest[prefer(conversation, rest, idle(4))]
    assert after == before or before == NAMES[gone]


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=200))
def test_no_target_gets_much_more_than_its_share(conversations: list[bytes]) -> None:
    """However the conversations hash, a target has at most 1.25 times its share of the calls, rounded up."""
    flights = [0, 0, 0]
    for number, conversation in enumerate(conversations, 1):
        flights[prefer(conversation, NAMES[:3], [Load(1, count, None) for count in flights])] += 1
        assert max(flights) <= BOUND * number / 3 + 1


def test_conversations_spread_by_weight() -> None:
    """A target with three times the weight gets about three quarters of the conversations."""
    loads = [Load(3, 0, None), Load(1, 0, None)]
    found = [prefer(f"c{number}".encode(), NAMES[:2], loads) for number in range(2000)]
    assert 0.7 < found.count(0) / 2000 < 0.8
