"""The journal of calls."""

import pytest

from tests.cluster.causes import NotWholeError
from tests.cluster.journal import Call, Journal, Outcome, most_in_window


def call(began: float, ended: float) -> Call:
    return Call("rate", "rate.1", began, ended, Outcome.DONE)


def test_the_most_of_any_window_is_found() -> None:
    """The busiest window is found wherever it begins, not only at whole minutes."""
    calls = [call(at, at + 1) for at in (0, 50, 55, 58, 62, 100)]
    assert most_in_window(calls, 20) == (4, 43)
    assert most_in_window([]) == (0, 0)


def test_a_call_that_is_partly_in_a_window_is_not_counted() -> None:
    """A call that lies only partly in a window is not counted, because a server may have counted it outside."""
    assert most_in_window([call(0, 30), call(5, 70)], 60)[0] == 1


@pytest.mark.parametrize(
    ("pieces", "raised", "outcome"),
    [
        (0, None, Outcome.DONE),
        (0, TimeoutError(), Outcome.FAILED),
        (3, TimeoutError(), Outcome.CUT),
        (3, NotWholeError("3 of 9"), Outcome.CUT_SILENTLY),
    ],
)
async def test_how_a_call_ended_is_noted(pieces: int, raised: Exception | None, outcome: Outcome) -> None:
    """The journal records a call as done, failed, cut with an error, or cut silently."""
    journal = Journal()

    async def ask(going: Call) -> None:
        assert journal.has_calls_from_before(going.began)
        going.pieces = pieces
        if raised is not None:
            raise raised

    name = journal.name("http")
    made = await journal.attempt("http", name, ask)
    assert made.outcome is outcome
    assert made.ended >= made.began == made.since
    assert journal.sent == {name: 1}
    assert not journal.has_calls_from_before(made.ended)
