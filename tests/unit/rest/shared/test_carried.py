"""Tests of the state of a block in a single text."""

import pytest

from antiphon.domain.content import Block, JsonObject, Origin, RedactedThinking, State, Text, Thinking, ToolCall
from antiphon.domain.opaque import unwrap, wrap
from antiphon.rest.shared.carried import Carried, carried, item_entry, read_carried
from antiphon.rest.shared.places import BlockPlace

RESPONSES = Origin("responses", "o", "gpt-5.2", "o")
CHAT = Origin("openai-chat", "up", "m", "up")
ITEM = {"item": {"id": "rs_1", "type": "reasoning", "status": None}, "n": 2**60}
PLACE = BlockPlace(1, 2, 3, 5)


@pytest.mark.parametrize(
    ("block", "place", "call", "back"),
    [
        (
            Thinking("", "summary_text", state=State("e", ITEM, 0)),
            None,
            "",
            Carried(State("e", ITEM, 0, RESPONSES), "summary_text"),
        ),
        (RedactedThinking(state=State("e", ITEM, 3)), None, "", Carried(State("e", ITEM, 3, RESPONSES))),
        (Text("x", state=State(None, ITEM, 1)), PLACE, "", Carried(State(None, ITEM, 1, RESPONSES), text=PLACE)),
        (Text("x", state=State("s")), PLACE, "", Carried(State("s", origin=RESPONSES), text=PLACE)),
        (ToolCall("c", "f", "", state=State(None, ITEM, 2)), None, "c", Carried(State(None, ITEM, 2, RESPONSES), call="c")),
        (Text("x", state=State("")), None, "", Carried(State("", origin=RESPONSES))),
    ],
)
def test_the_state_comes_back(block: Block, place: BlockPlace | None, call: str, back: Carried) -> None:
    """The signature, the fields, the item and what they belong to, with the origin."""
    value = carried(block, RESPONSES, text=place, call=call)
    assert value is not None
    assert read_carried(value, {"reasoning_details": {"id": "after-1-0"}}) == back


def test_state_of_a_chat_provider_has_its_fields_beside_it() -> None:
    """They are in the fields of the message, so that they are not written twice. So it is for values that name no protocol."""
    assert carried(Text("x", state=State("s", {"f": 1})), CHAT) == wrap("s", CHAT)
    assert read_carried(wrap("s", CHAT), {"f": 1}) == Carried(State("s", {"f": 1}, origin=CHAT))
    assert read_carried("ap1.up.s", {"f": 1}).state == State("s", {"f": 1}, origin=Origin(provider="up", deployment="up"))
    assert read_carried("mine", {"f": 1}) == Carried(State("mine", {"f": 1}))


def test_a_block_of_another_provider() -> None:
    """Its own origin counts, not that of the reply."""
    value = carried(Text("x", state=State("s", origin=CHAT)), RESPONSES)
    assert value is not None
    assert unwrap(value).origin == CHAT


@pytest.mark.parametrize("state", [None, State(), State(fields={"caller": 1})])
def test_a_state_of_fields_alone_is_not_carried(state: State | None) -> None:
    """The API has no place for the fields of other protocols, unless a provider wants the item back that they belong to."""
    assert carried(ToolCall("c", "f", "{}", state=state), RESPONSES) is None


@pytest.mark.parametrize(
    "more",
    [
        {"fields": [1], "item": -1, "field": 5, "text": [1, 2, 3], "call": 7},
        {"fields": "x", "item": True, "field": None, "text": [0, 0, 5, 3], "call": []},
        {"text": [0, 0, "a", 3], "item": 2**31},
        {"fields": {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}},
    ],
)
def test_what_a_client_made_up(more: JsonObject) -> None:
    """Wrong values are left out: a client can write what it likes."""
    assert read_carried(wrap("s", RESPONSES, more)) == Carried(State("s", origin=RESPONSES))


def test_an_item_is_needed_after_reasoning() -> None:
    """And before the first one only if it says what kind of answer it is."""
    text = Text("x", state=State(None, {"item": {"id": "msg_1"}}, 1))
    phased = Text("x", state=State(None, {"item": {"id": "msg_1", "phase": "commentary"}}, 1))
    assert item_entry(text, RESPONSES, 0, PLACE) is None
    for block, index in ((text, 1), (phased, 0)):
        entry = item_entry(block, RESPONSES, index, PLACE)
        assert entry == {"type": "reasoning.encrypted", "index": index, "data": carried(block, RESPONSES, text=PLACE)}
    assert item_entry(phased, CHAT, 1, PLACE) is None
    native = ToolCall("c", "", "{}", "shell_call", state=State(fields={"item": {"type": "shell_call", "id": "s"}}, item=0))
    assert item_entry(native, RESPONSES, 0) is not None
    assert item_entry(Text("x", state=State("s", {}, 1)), RESPONSES, 1, PLACE) is None
