"""The events of a reply, converted to fields of deltas of the OpenAI dialect. No I/O.

Opaque values are wrapped (`antiphon.domain.opaque`).
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from antiphon import domain
from antiphon.domain import unknown_fields
from antiphon.domain.content import CUSTOM, FUNCTION_CALL
from antiphon.providers.openai.block_json import (
    call_json,
    citation_json,
    detail_json,
    function_call_json,
    image_json,
    with_signature,
)
from antiphon.providers.openai.blocks import is_chat
from antiphon.providers.openai.details import DETAILS
from antiphon.rest.openai.reply import opaque_of, signature_fields, state_fields, text_part, thinking_fields
from antiphon.rest.shared.places import placed


class OpenBlock:
    """A block that has started and is not finished."""

    __slots__ = ("after", "arguments", "choice", "index", "is_kept", "value")

    def __init__(self, choice: int, value: domain.Block, index: int) -> None:
        self.choice = choice
        self.value = value
        self.index = index
        """Its number among the tool calls, or the thinking blocks, of its choice."""
        self.arguments = ""
        """The arguments of a tool call of an unknown kind, or a thought that is kept: both are written when it is finished."""
        self.is_kept = False
        """Whether it is a thought after another one. If it is signed, its text is written again, so that each has its own."""
        self.after = (0, 0)
        """The number of texts and calls of the choice before it."""


class DeltaFields:
    """Makes the fields of deltas. It must be given every event of a reply once, in order."""

    def __init__(self) -> None:
        self.function_call_choices: set[int] = set()
        """The choices that have the single function call of 2023."""
        self.blocks: dict[int, OpenBlock] = {}
        """The open blocks, by number."""
        self._origin = domain.Origin()
        self._counts: dict[tuple[int, str], int] = {}

    def set_origin(self, origin: domain.Origin) -> None:
        """Set the origin of the reply, which wrapped values name."""
        self._origin = origin

    def fields_of(self, event: domain.Event) -> domain.JsonObject | None:
        """Return the fields of an event in a delta; None if it has no chunk."""
        match event:
            case domain.BlockStarted():
                return self._start(event)
            case domain.BlockFinished():
                return self._end(event)
            case domain.TextDelta() | domain.ThinkingDelta() | domain.InputDelta() | domain.RefusalDelta():
                return self._text(self.blocks[event.block], event.text)
            case domain.MediaDelta():
                audio = {"id": event.id, "data": event.data, "transcript": event.transcript, "expires_at": event.expires}
                known = self.blocks[event.block].value
                if isinstance(known, domain.Audio) and known.id:
                    audio["id"] = event.id or known.id
                    self.blocks[event.block].value = replace(known, id="")
                return {"audio": {name: value for name, value in audio.items() if value}}
            case domain.CitationDelta():
                return {"annotations": [citation_json(event.citation)]}
            case domain.ExtraFields(place=domain.Place.MESSAGE):
                return event.fields if is_chat(self._origin) else None
            case domain.ExtraFields():
                return domain.NOTHING
            case _:
                return None

    def _start(self, event: domain.BlockStarted) -> domain.JsonObject | None:
        value = event.value
        kind = "call" if isinstance(value, domain.ToolCall) else "thought"
        index = self._counts.get((event.choice, kind), 0)
        opened = self.blocks[event.block] = OpenBlock(event.choice, value, index)
        texts = self._counts.get((event.choice, "text"), 0)
        if isinstance(value, domain.Thinking | domain.RedactedThinking) and not is_chat(self._origin):
            opened.after = texts, self._counts.get((event.choice, "call"), 0)
            thoughts = self._counts.get((event.choice, "any thought"), 0)
            self._counts[event.choice, "any thought"] = thoughts + 1
            opened.is_kept = thoughts > 0 and value.state is None
        elif isinstance(value, domain.Text):
            self._counts[event.choice, "text"] = texts + 1
        match value:
            case domain.ToolCall(type="function_call"):
                self.function_call_choices.add(event.choice)
                return {"function_call": function_call_json(value, state_fields(value, self._origin))}
            case domain.ToolCall():
                self._counts[event.choice, kind] = index + 1
                if not value.name:
                    return None
                return {"tool_calls": [_first_call_entry(value, index, self._origin)]}
            case domain.RedactedThinking():
                self._counts[event.choice, kind] = index + 1
                return {DETAILS: [placed(detail_json(value, index, opaque_of(value, self._origin)), *opened.after)]}
            case domain.Thinking() if value.state is not None:
                self._counts[event.choice, kind] = index + 1
                return None
            case domain.Image():
                return {"images": [image_json(value, self._origin)]}
            case domain.Opaque():
                return {"content": [value.form]}
            case _:
                return None

    def _text(self, open_: OpenBlock, text: str) -> domain.JsonObject | None:
        """Return the fields for more text of a block."""
        match open_.value:
            case domain.Text():
                return {"content": text}
            case domain.Refusal():
                return {"refusal": text}
            case domain.Thinking() as thought:
                if not text:
                    return None
                if open_.is_kept:
                    open_.arguments += text
                fields: dict[str, Any] = dict.fromkeys(thinking_fields(thought), text)
                if thought.state is not None:
                    fields[DETAILS] = [detail_json(thought, open_.index, None, text)]
                return fields
            case domain.ToolCall(type="function_call"):
                return {"function_call": {"arguments": text}}
            case domain.ToolCall(type="custom"):
                return {"tool_calls": [{"index": open_.index, "custom": {"input": text}}]}
            case domain.ToolCall(name=""):
                open_.arguments += text
                return None
            case domain.ToolCall():
                return {"tool_calls": [{"index": open_.index, "function": {"arguments": text}}]}
            case _:
                return None

    def _end(self, event: domain.BlockFinished) -> domain.JsonObject | None:
        """Return the fields that are known only when a block is finished; None if there are none."""
        open_ = self.blocks.pop(event.block)
        before = open_.value.state
        value = open_.value if event.state is None else replace(open_.value, state=event.state)
        opaque = opaque_of(value, self._origin)
        match value:
            case domain.ToolCall(name="", type=kind) if kind != FUNCTION_CALL:
                call = replace(value, arguments=open_.arguments)
                return {"tool_calls": [{"index": open_.index, **call_json(call, state_fields(call, self._origin), opaque)}]}
            case domain.ToolCall() if event.state is not None:
                known = domain.NOTHING if before is None else before.fields
                fields = {name: one for name, one in state_fields(value, self._origin).items() if known.get(name) != one}
                already_sent = before is not None and before.opaque == event.state.opaque
                entry: dict[str, Any] = {"index": open_.index}
                if value.type != CUSTOM:
                    entry["function"] = {"arguments": ""}
                return {"tool_calls": [with_signature(domain.with_extra(entry, fields), None if already_sent else opaque)]}
            case domain.Thinking() if opaque is not None:
                if before is None:
                    open_.index = self._counts.get((open_.choice, "thought"), 0)
                    self._counts[open_.choice, "thought"] = open_.index + 1
                return {DETAILS: [placed(detail_json(value, open_.index, opaque, open_.arguments), *open_.after)]}
            case domain.Text():
                return signature_fields(value, self._origin) or None
            case _:
                return None


def _first_call_entry(call: domain.ToolCall, index: int, origin: domain.Origin) -> dict[str, Any]:
    """Return the first entry of a tool call in a stream.

    It has a `function`, which clients read without checking for it, unless the tool takes plain text.
    """
    return {"index": index, **call_json(call, state_fields(call, origin), opaque_of(call, origin))}


def merged(old: domain.JsonObject, new: domain.JsonObject) -> domain.JsonObject:
    """Return the fields of both deltas. A field that both have is combined."""
    if not old or not new:
        return old or new
    return {**old, **{name: _joined(name, old[name], value) if name in old else value for name, value in new.items()}}


def _joined(name: str, old: Any, new: Any) -> Any:
    """Return the combined value of a field that two events of one delta have."""
    match old, new:
        case (dict(), dict()):
            return merged(old, new) if name == "function_call" else {**old, **new}
        case (list(), list()) if name == "tool_calls":
            calls: dict[str, Any] = {name: old}
            unknown_fields.add(calls, {name: new}, joins=True)
            return calls[name]
        case (str(), str()) | (list(), list()):
            return old + new
        case (str(), list()) if name == "content":
            return [text_part(old), *new]
        case (list(), str()) if name == "content":
            return [*old, text_part(new)]
        case _:
            return new
