"""Tests that a stored message is read back unchanged by this version, and as far as possible by the version before."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec
import pytest
from hypothesis import example, given
from msgspec import Struct

from antiphon import domain
from antiphon.domain import Media, Message, Origin, Role, State
from antiphon.domain.content import CUSTOM, FUNCTION_CALL
from antiphon.history import stored_form
from tests.unit.blocks import EVERY, messages

# The types with which the version before read rows, from its `antiphon/domain/content.py`.

Before: TypeAlias = Mapping[str, Any]
NOTHING: Final[Before] = {}


class Text(Struct, frozen=True, tag="text"):
    text: str
    extra: Before = NOTHING


class OldMedia(Struct, frozen=True):
    url: str | None = None
    file_id: str | None = None


class Image(Struct, frozen=True, tag="image"):
    media: OldMedia
    detail: str | None = None
    extra: Before = NOTHING


class Audio(Struct, frozen=True, tag="audio"):
    media: OldMedia
    extra: Before = NOTHING


class Video(Struct, frozen=True, tag="video"):
    media: OldMedia
    extra: Before = NOTHING


class File(Struct, frozen=True, tag="file"):
    media: OldMedia
    filename: str | None = None
    extra: Before = NOTHING


class Thinking(Struct, frozen=True, tag="thinking"):
    text: str
    signature: str | None = None
    redacted: str | None = None


class ToolCall(Struct, frozen=True, tag="tool_call"):
    id: str
    name: str
    arguments: str
    signature: str | None = None
    extra: Before = NOTHING


class ToolResult(Struct, frozen=True, tag="tool_result"):
    tool_call_id: str
    parts: tuple["Part", ...]
    is_error: bool = False


class Refusal(Struct, frozen=True, tag="refusal"):
    text: str


class Other(Struct, frozen=True, tag="other"):
    fields: Before


Part: TypeAlias = Text | Image | Audio | Video | File | Thinking | ToolCall | ToolResult | Refusal | Other


class OldMessage(Struct, frozen=True):
    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    extra: Before = NOTHING
    listed: bool = False


BEFORE: Final = msgspec.json.Decoder(OldMessage)

EMPTY: Final = Thinking("")
"""An empty thought, which the version before neither sends nor shows."""


def old_part(block: domain.Block) -> Part:
    """Return what the version before should read of a block."""
    match block:
        case domain.Text():
            return Text(block.text, block.extra)
        case domain.Image():
            return Image(OldMedia(block.media.url, block.media.file_id), block.detail, block.extra)
        case domain.Audio() if block.media == Media():
            return Text(block.transcript, block.extra)
        case domain.Audio():
            return Audio(OldMedia(block.media.url, block.media.file_id), block.extra)
        case domain.Video():
            return Video(OldMedia(block.media.url, block.media.file_id), block.extra)
        case domain.Document():
            return File(OldMedia(block.media.url, block.media.file_id), block.filename, block.extra)
        case domain.Thinking():
            return Thinking(block.text)
        case domain.ToolCall() if block.name and block.type not in (CUSTOM, FUNCTION_CALL):
            return ToolCall(block.id, block.name, block.arguments, None, block.extra)
        case domain.ToolResult():
            return ToolResult(block.tool_call_id, tuple(map(old_part, block.blocks)), block.is_error)
        case domain.Refusal():
            return Refusal(block.text)
        case domain.Opaque() if block.fields:
            return Other(block.fields)
        case _:
            return EMPTY


@example(EVERY)
@given(messages)
def test_read_as_it_was_written(message: Message) -> None:
    """Any message is decoded as it was encoded."""
    body = stored_form.encode(message).decode()
    assert stored_form.decode(body, "p" if message.origin else "", "m") == message


@example(EVERY)
@given(messages)
def test_the_version_before_reads_it(message: Message) -> None:
    """The version before reads each block as a part; a block that it does not know is an empty thought."""
    found = BEFORE.decode(stored_form.encode(message))
    is_reply = message.role is Role.ASSISTANT and not message.listed
    parts = tuple(EMPTY if is_reply and isinstance(block, domain.Image) else old_part(block) for block in message.blocks)
    assert found == OldMessage(message.role, parts, message.name, message.extra, message.listed)


@pytest.mark.parametrize(
    ("message", "stored"),
    {
        "a text": (
            Message(Role.USER, (domain.Text("Hi"),)),
            '{"role":"user","v":2,"parts":[{"kind":"text","type":"text","text":"Hi"}]}',
        ),
        "a call of a function": (
            Message(Role.ASSISTANT, (domain.ToolCall("c", "f", "{}", "FUNCTION".lower()),)),
            '{"role":"assistant","v":2,"parts":[{"kind":"tool_call","type":"tool_call","id":"c","name":"f","arguments":"{}"}]}',
        ),
        "a picture that a model made": (
            Message(Role.ASSISTANT, (domain.Image(Media("data:,x")),)),
            (
                '{"role":"assistant","v":2,"parts":[{"kind":"image","type":"thinking","media":{"url":"data:,x","file_id":null},'
                '"text":""}]}'
            ),
        ),
        "a picture in a content that a caller wrote": (
            Message(Role.ASSISTANT, (domain.Image(Media("data:,x")),), listed=True),
            (
                '{"role":"assistant","v":2,"parts":[{"kind":"image","type":"image","media":{"url":"data:,x","file_id":null}}],'
                '"listed":true}'
            ),
        ),
        "a reply of which nothing came": (Message(Role.ASSISTANT, ()), '{"role":"assistant","parts":[]}'),
        "a thought and a call": (
            Message(
                Role.ASSISTANT,
                (domain.Thinking("Hm", state=State("s")), domain.ToolCall("c", "f", "{}", CUSTOM)),
                origin=Origin("openai-chat", "p"),
            ),
            (
                '{"role":"assistant","v":2,"parts":[{"kind":"thinking","type":"thinking","text":"Hm","state":{"opaque":"s"}},'
                '{"kind":"tool_call","type":"thinking","text":"","id":"c","name":"f","arguments":"{}","tool_type":"custom"}],'
                '"origin":{"protocol":"openai-chat","provider":"p"}}'
            ),
        ),
    }.values(),
)
def test_what_is_stored(message: Message, stored: str) -> None:
    """The stored JSON is fixed, because rows are never rewritten."""
    assert stored_form.encode(message).decode() == stored
    assert stored_form.decode(stored) == message


def test_an_unknown_kind_of_block_is_opaque() -> None:
    """A block of an unknown kind, within a tool result too, is read as `Opaque` with its fields."""
    future = '{"kind":"dream","type":"thinking","text":"","of":"sheep"}'
    result = f'{{"kind":"tool_result","type":"tool_result","tool_call_id":"c","parts":[{future}]}}'
    body = f'{{"role":"tool","v":2,"parts":[{future},{result}]}}'
    dream = domain.Opaque(state=State(fields={"type": "thinking", "text": "", "of": "sheep"}))
    assert stored_form.decode(body) == Message(Role.TOOL, (dream, domain.ToolResult("c", (dream,))))


@pytest.mark.parametrize("parts", ["5", "[5]", '[{"kind":5}]', '[{"kind":"text"}]', '[{"kind":"tool_result","parts":5}]'])
def test_what_is_no_message_is_refused(parts: str) -> None:
    """A malformed body raises `MsgspecError`."""
    with pytest.raises(msgspec.MsgspecError):
        stored_form.decode(f'{{"role":"user","v":2,"parts":{parts}}}')
