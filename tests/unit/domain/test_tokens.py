"""Tests of the estimates of prompt tokens."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from antiphon.domain.content import (
    Audio,
    Block,
    Compaction,
    Document,
    Image,
    Media,
    Message,
    Opaque,
    RedactedThinking,
    Refusal,
    Role,
    ServerToolCall,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.domain.request import ChatRequest, JsonObjectFormat, JsonSchemaFormat, NativeFormat, NativeTool, Tool
from antiphon.domain.tokens import _long_base64, prompt_tokens

DATA = "A" * 100_000

REQUEST = ChatRequest("m", (Message(Role.USER, (Text("x" * 8),)),), stream=True)


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (Text("x" * 40), 10),
        (Text("x" * 40, extra={"cache_control": {}}), 15),
        (Thinking("x" * 40, state=State("s" * 400)), 10),
        (RedactedThinking(state=State("x" * 40)), 10),
        (ServerToolCall("w", "web_search", "look_up_", "x" * 40), 12),
        (Compaction("x" * 40), 10),
        (Audio(Media(), "a", "x" * 40), 960 + 10),
        (Refusal("x" * 40), 10),
        (ToolCall("call_1", "look_up_", "x" * 40), 12),
        (ToolCall("call_1", "f", "xxx", extra={"x": "1"}), 4),
        (ToolResult("call_1", (Text("x" * 40), Image(Media(file_id="f")))), 775),
        (Image(Media(url="https://x.test/a.png")), 765),
        (Image(Media(url=f"data:image/png;base64,{DATA}"), "high"), 765),
        (Image(Media(url=f"data:image/png;base64,{DATA}"), "low"), 85),
        (Audio(Media(url=f"data:audio/wav;base64,{DATA}")), 960),
        (Video(Media(url=f"data:video/mp4;base64,{DATA}")), 7890),
        (Document(Media(file_id="f")), 2000),
        (Document(Media(url="https://x.test/a.pdf"), "four"), 2001),
        (Document(Media(url="data:application/pdf;base64,AAAA")), 2000),
        (Document(Media(url=f"data:application/pdf;base64,{DATA}")), 4000),
        (Document(Media(url=f"data:text/plain;base64,{DATA}")), 18_750),
        (Document(Media(url="data:text/plain," + "x" * 40)), 10),
        (Opaque({"type": "x", "content": "x" * 12}), 10),
        (Opaque({"type": "image_url", "image_url": f"data:image/png;base64,{DATA}"}), 765 + 15),
        (Opaque({"type": "input_audio", "input_audio": DATA}), 960 + 10),
        (Opaque({"type": "document", "document": DATA}), 2000 + 9),
        (Opaque({"type": ["x"]}), 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_all_that_a_message_holds_counts(part: Block, tokens: int) -> None:
    """Every kind of block counts. Media have fixed figures, and never the length of their base64."""
    assert prompt_tokens(ChatRequest("m", (Message(Role.USER, (part,)),), stream=True)) == 4 + tokens


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"tools": (Tool("look_up_", "x" * 32),)}, 14),
        ({"tools": (Tool("f", None, {"type": "object"}),)}, 4 + 1 + 5),
        ({"tools": (Tool("f", extra={"function": {"x": 1}}),)}, 4 + 1 + 5),
        ({"tools": (NativeTool({"type": "web_search"}),)}, 4 + 6),
        ({"response_format": JsonObjectFormat()}, 0),
        ({"response_format": JsonSchemaFormat("name", {"type": "object"}, "x" * 40)}, 11 + 5),
        ({"response_format": NativeFormat({"type": "grammar"})}, 5),
        ({"extra": {"functions": [{"name": "f"}]}}, 7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_all_that_a_request_holds_counts(fields: dict[str, Any], tokens: int) -> None:
    """Tools, schemas and unknown fields count as JSON, with four more tokens for each tool."""
    assert prompt_tokens(replace(REQUEST, **fields)) == 6 + tokens


def test_names_and_function_calls_count() -> None:
    """The name of a message, the unknown field `function_call` and a provider's own fields count."""
    message = Message(Role.ASSISTANT, (), "anna", {"function_call": {"name": "f"}})
    assert prompt_tokens(ChatRequest("m", (message,), stream=True)) == 4 + 1 + 8
    message = replace(message, fields={"reasoning_details": "x" * 17})
    assert prompt_tokens(ChatRequest("m", (message,), stream=True)) == 4 + 1 + 8 + 11


@given(
    st.lists(
        st.tuples(
            st.sampled_from("aZ9/="), st.sampled_from([1, 3, 499, 500, 501, 999, 1000, 1001, 2500]), st.sampled_from(["", " ", '"'])
        ),
        max_size=6,
    )
)
def test_base64_is_found_wherever_it_begins(runs: list[tuple[str, int, str]]) -> None:
    """`_long_base64` finds the same as a regular expression, which would take too long."""
    text = "".join(letter * length + end for letter, length, end in runs)
    rest, found = re.subn("[A-Za-z0-9+/=]{1000,}", "", text)
    assert _long_base64(text.encode()) == (found, len(text) - len(rest))
