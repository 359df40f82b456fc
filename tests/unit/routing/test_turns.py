"""Tests of the bounded queue with fair turns."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from antiphon.routing.turns import FairQueue


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["push", "pop", "remove"])), max_size=200), st.integers(0, 9))
def test_nothing_is_lost_and_owners_keep_their_order(steps: list[tuple[str, str]], size: int) -> None:
    """The queue never exceeds its size, and each owner's entries come out in their order."""
    queue: FairQueue[int] = FairQueue(size)
    waiting: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for number, (owner, what) in enumerate(steps):
        if what == "push":
            if queue.push(owner, number):
                waiting[owner].append(number)
        elif what == "remove" and waiting[owner]:
            assert queue.remove(owner, waiting[owner].pop())
        elif what == "pop":
            popped = queue.pop()
            assert (popped is None) == (not any(waiting.values()))
            if popped is not None:
                first = [entries for entries in waiting.values() if entries[:1] == [popped]]
                assert len(first) == 1
                first[0].pop(0)
        assert len(queue) == sum(map(len, waiting.values())) <= size
    assert not queue.remove("a", -1)


def test_an_owner_with_one_entry_does_not_wait_for_one_with_many() -> None:
    """Owners take turns, however many entries each has."""
    queue: FairQueue[str] = FairQueue(100)
    for number in range(50):
        queue.push("busy", f"busy-{number}")
    queue.push("modest", "modest-0")
    assert "modest-0" in [queue.pop(), queue.pop()]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60))
def test_turns_are_fair(owners: list[str]) -> None:
    """After any number of turns, owners that still wait had at most one turn more than each other."""
    queue: FairQueue[str] = FairQueue(100)
    for owner in owners:
        queue.push(owner, owner)
    left, served = Counter(owners), Counter[str]()
    while (owner := queue.pop()) is not None:
        served[owner] += 1
        left[owner] -= 1
        waiting = [served[each] for each in left if left[each]]
        assert not waiting or max(waiting) - min(waiting) <= 1
