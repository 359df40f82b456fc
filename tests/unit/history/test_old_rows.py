"""Tests of rows that versions before the blocks have stored: each part is read as a block."""

import json
from typing import Any, Final

import pytest

from antiphon import domain
from antiphon.domain import Media, Message, Origin, Role, State
from antiphon.domain.content import CUSTOM, FUNCTION_CALL
from antiphon.history import stored_form

UP: Final = Origin("openai-chat", "up", "m", "up")
URL: Final = {"url": "https://x.test/a"}
MEDIA: Final = Media("https://x.test/a")
GOOGLE: Final = {"google": {"thought_signature": "sig"}}
FUNCTION: Final = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}", "x": 1}}


def caller_message(*parts: dict[str, Any], role: str = "user", **fields: Any) -> Message:
    """Return the message that such a row of a caller is read as."""
    return stored_form.decode(json.dumps({"role": role, "parts": parts, **fields}, separators=(",", ":")))


def model_message(*parts: dict[str, Any], **fields: Any) -> Message:
    """Return the message that such a row of a model is read as."""
    return stored_form.decode(json.dumps({"role": "assistant", "parts": parts, **fields}, separators=(",", ":")), "up", "m")


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "text", "text": "Hi", "extra": {"x": 1}}, domain.Text("Hi", extra={"x": 1})),
        ({"type": "image", "media": URL, "detail": "low"}, domain.Image(MEDIA, "low")),
        ({"type": "audio", "media": URL}, domain.Audio(MEDIA)),
        ({"type": "video", "media": URL}, domain.Video(MEDIA)),
        ({"type": "file", "media": {"file_id": "f"}, "filename": "a.pdf"}, domain.Document(Media(file_id="f"), "a.pdf")),
        ({"type": "other", "fields": {"type": "odd"}}, domain.Opaque({"type": "odd"})),
    ],
)
def test_what_a_caller_wrote(part: dict[str, Any], block: domain.Block) -> None:
    """A caller's message has no origin, and its unknown fields stay the caller's."""
    assert caller_message(part, name="n", extra={"y": 1}, listed=True) == Message(Role.USER, (block,), "n", {"y": 1}, listed=True)


@pytest.mark.parametrize(
    ("part", "blocks"),
    [
        ({"type": "text", "text": "Hi"}, (domain.Text("Hi"),)),
        ({"type": "refusal", "text": "No"}, (domain.Refusal("No"),)),
        ({"type": "thinking", "text": "Hm"}, (domain.Thinking("Hm"),)),
        ({"type": "thinking", "text": "", "signature": "sig"}, (domain.Thinking("", state=State("sig")),)),
        ({"type": "thinking", "text": "", "redacted": "zz"}, (domain.RedactedThinking(state=State("zz")),)),
        (
            {"type": "thinking", "text": "Hm", "signature": "sig", "redacted": "zz"},
            (domain.Thinking("Hm", state=State("sig")), domain.RedactedThinking(state=State("zz"))),
        ),
        ({"type": "tool_call", "id": "c", "name": "f", "arguments": "{}"}, (domain.ToolCall("c", "f", "{}"),)),
        (
            {"type": "tool_call", "id": "c", "name": "f", "arguments": "{}", "extra": {"x": 1, "extra_content": GOOGLE}},
            (domain.ToolCall("c", "f", "{}", state=State("sig", {"x": 1})),),
        ),
        ({"type": "other", "fields": {"type": "odd"}}, (domain.Opaque(state=State(fields={"type": "odd"})),)),
    ],
)
def test_what_a_model_wrote(part: dict[str, Any], blocks: tuple[domain.Block, ...]) -> None:
    """A model's message has the row's provider as its origin, and its unknown fields are that provider's."""
    assert model_message(part, extra={"y": 1}) == Message(Role.ASSISTANT, blocks, origin=UP, fields={"y": 1})


@pytest.mark.parametrize(
    ("fields", "call"),
    [
        ({"function_call": {"name": "f", "arguments": "{}"}}, domain.ToolCall("", "f", "{}", FUNCTION_CALL)),
        ({"tool_calls": [FUNCTION]}, domain.ToolCall("c", "f", "{}", state=State(fields={"function": {"x": 1}}))),
        (
            {"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
            domain.ToolCall("c", "f", "x", CUSTOM),
        ),
        (
            {"tool_calls": [{"id": "c", "type": "shell_call", "shell_call": {"a": 1}, "x": 1}]},
            domain.ToolCall("c", "", '{"a":1}', "shell_call", state=State(fields={"x": 1})),
        ),
    ],
)
def test_calls_that_stood_among_the_fields_of_a_reply(fields: dict[str, Any], call: domain.ToolCall) -> None:
    """Tool calls that were stored as unknown fields of a reply are read as calls."""
    assert model_message(extra=fields) == Message(Role.ASSISTANT, (call,), origin=UP)


def test_answers_of_tools() -> None:
    """Tool results are read, also those of the function calls of 2023, which were stored as a user's message."""
    result = {"type": "tool_result", "tool_call_id": "c", "parts": [{"type": "text", "text": "ok"}], "is_error": True}
    assert caller_message(result, role="tool") == Message(Role.TOOL, (domain.ToolResult("c", (domain.Text("ok"),), is_error=True),))
    old = caller_message({"type": "text", "text": "ok"}, name="f", extra={"role": "function"})
    assert old == Message(Role.TOOL, (domain.ToolResult("", (domain.Text("ok"),), type=FUNCTION_CALL),), "f")


def test_calls_that_a_caller_wrote() -> None:
    """Unknown fields of a tool call in a caller's message stay the caller's."""
    part = {"type": "tool_call", "id": "c", "name": "f", "arguments": "{}", "signature": "s", "extra": {"x": 1}}
    assert caller_message(part, role="assistant").blocks == (domain.ToolCall("c", "f", "{}", extra={"x": 1}, state=State("s")),)


@pytest.mark.parametrize(
    "extra", [{"tool_calls": "x"}, {"tool_calls": [5]}, {"function_call": {"name": 5}}, {"function_call": "auto"}]
)
def test_fields_of_another_form_stay_fields(extra: dict[str, Any]) -> None:
    """Fields named like calls, but of another form, stay unknown fields."""
    assert model_message(extra=extra).fields == extra
