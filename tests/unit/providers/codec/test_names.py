"""Names of tools that an API refuses."""

import re

from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import Message, Role, ToolCall
from antiphon.domain.request import ChatRequest, NativeTool, Tool
from antiphon.providers.anthropic.names import NAMES as ANTHROPIC
from antiphon.providers.codec.names import CallIds, NameRule, ToolNames, tool_names
from antiphon.providers.gemini.names import NAMES as GEMINI
from antiphon.providers.responses.items import NAMES as RESPONSES

RULES = {
    r"[a-zA-Z0-9_-]{1,128}": ANTHROPIC,
    r"[A-Za-z_][A-Za-z0-9_.:\-]{0,63}": GEMINI,
    r"[a-zA-Z0-9_-]{1,64}": RESPONSES,
}


@given(
    st.sampled_from([*RULES]),
    st.lists(st.text(max_size=200) | st.sampled_from(["a.b", "a_b", "a/b", "", "9f", "größe", "x" * 64, "x" * 200, "x" * 201])),
)
def test_names(pattern: str, names: list[str]) -> None:
    """Every name is accepted, the same one each time, and found again by it; accepted ones stay."""
    rule = RULES[pattern]
    tools = ToolNames(rule, names)
    for name in names:
        sent = tools.sent(name)
        assert re.fullmatch(pattern, sent)
        assert (sent == name) is (re.fullmatch(pattern, name) is not None)
        assert rule.sent(name) == rule.sent(sent) == sent
        assert tools.original(sent) == name
    assert tools.sent("fine") == tools.original("fine") == "fine"


def test_replaced_names_stay_readable() -> None:
    """What the API accepts of a name stays in it."""
    assert GEMINI.sent("a b") == "a_b_c8687a08"
    assert GEMINI.sent("9f").startswith("_9f_")
    short = NameRule(ANTHROPIC.accepted, ANTHROPIC.refused, 12)
    assert short.sent("server/search") == f"ser_{ANTHROPIC.sent('server/search')[-8:]}"


def test_the_names_of_a_request() -> None:
    """They are those of its functions, and of the calls so far."""
    call = Message(Role.ASSISTANT, (ToolCall("c", "old", "{}"),))
    request = ChatRequest("m", (call,), stream=True, tools=(Tool("f"), NativeTool({"type": "x", "name": "n"})))
    assert list(tool_names(request)) == ["old", "f"]


def test_ids_of_calls() -> None:
    """An id that was used before gets a number, within the length that the API accepts."""
    ids = CallIds(lambda text: text[:8], 8)
    assert [ids.called(one) for one in ("call_1", "call_1", "call_123456", "call_1234")] == [
        "call_1",
        "call_1_2",
        "call_123",
        "call_1_3",
    ]
    assert [ids.answered("call_1"), ids.answered("call_1"), ids.answered("call_1")] == ["call_1", "call_1_2", None]
    assert ids.called("call_1") == "call_1_4"
