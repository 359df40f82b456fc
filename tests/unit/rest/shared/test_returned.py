"""Tests of what clients of chat completions send back of a provider's state."""

from typing import Any

from antiphon.domain.content import Origin, RedactedThinking, State, Text, Thinking
from antiphon.domain.opaque import wrap
from antiphon.rest.shared.places import BlockPlace
from antiphon.rest.shared.returned import Returned, take_state, with_signatures

GEMINI = Origin("gemini", "g", "gemini-3-pro", "g")
ITEMS = Origin("responses", "o", "gpt-5.2", "o")


def google(signature: str) -> dict[str, Any]:
    return {"extra_content": {"google": {"thought_signature": signature}}}


def piece(signature: str, *place: int) -> str:
    return wrap(signature, GEMINI, {"text": place})


def test_entries_of_texts_and_calls_are_no_thoughts() -> None:
    """Of a reply of the Responses API, the items of texts and calls stand among the thoughts."""
    item, call = {"item": {"id": "msg_1"}}, {"item": {"id": "fc_1"}}
    entries = [
        {"type": "reasoning.encrypted", "index": 0, "data": wrap("e", ITEMS, {"fields": {"item": {"id": "rs_1"}}, "item": 0})},
        {"type": "reasoning.encrypted", "index": 1, "data": wrap("", ITEMS, {"fields": item, "item": 1, "text": [0, 0, 0, 2]})},
        {"type": "reasoning.encrypted", "index": 2, "data": wrap("", ITEMS, {"fields": call, "item": 2, "call": "c"})},
    ]
    extra: dict[str, Any] = {"reasoning_details": entries, "x": 1}
    assert take_state(extra) == Returned(
        [RedactedThinking(state=State("e", {"item": {"id": "rs_1"}}, 0, ITEMS))],
        [None],
        [(BlockPlace(0, 0, 0, 2), State(None, item, 1, ITEMS))],
        {"c": State(None, call, 2, ITEMS)},
    )
    assert extra == {"x": 1}
    only = {"reasoning_content": "hm", "reasoning_details": entries[1:]}
    assert take_state(only).thoughts == [Thinking("hm")]


def test_signatures_with_places() -> None:
    """A client keeps the last signature of a stream, or joins all of them; each stands for those before it, too."""
    first, second = piece("a", 0, 0, 0, 2), piece("b", 1, 0, 2, 2)
    expected = [(BlockPlace(0, 0, 0, 2), State("a", origin=GEMINI)), (BlockPlace(1, 0, 2, 2), State("b", origin=GEMINI))]
    for given in (first + second, first + first + second):
        found, extra = Returned(), google(given)
        assert with_signatures((Text("Hi"),), extra, found) == (Text("Hi"),)
        assert (found.texts, extra) == (expected, {})


def test_a_signature_without_a_place_is_that_of_the_last_text() -> None:
    """So it is in the API of Google; the last one of several counts. Without a text it stays, as nothing is known of it."""
    given = wrap("a", GEMINI) + wrap("b", GEMINI)
    found = Returned()
    assert with_signatures((Text("x"), Text("y")), google(given), found)[1] == Text("y", state=State("b", origin=GEMINI))
    extra = google(given)
    assert with_signatures((), extra, found) == ()
    assert (found, extra) == (Returned(), google(given))
