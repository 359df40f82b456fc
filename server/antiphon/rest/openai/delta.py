"""What the events of a reply are in a delta of the OpenAI dialect. No I/O.

Opaque values go out wrapped (`antiphon.domain.opaque`).
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
from antiphon.providers.openai.details import DETAILS
from antiphon.rest.openai.reply import opaque_of, signature_fields, state_fields, text_part, thought_names


class OpenBlock:
    """A block that is being written."""

    __slots__ = ("choice", "index", "said", "value")

    def __init__(self, choice: int, value: domain.Block, index: int) -> None:
        self.choice = choice
        self.value = value
        self.index = index
        """The number among the calls, or the thoughts, of its choice."""
        self.said = ""
        """What the tool is given, of a call of a kind that is not known: it is written at its end."""


class DeltaFields:
    """Makes the fields of deltas. It has to see the events of a reply in order, each of them once."""

    def __init__(self) -> None:
        self.of_2023: set[int] = set()
        """The choices that have the one function call of 2023."""
        self.blocks: dict[int, OpenBlock] = {}
        """The blocks that are open."""
        self._origin = domain.Origin()
        self._counts: dict[tuple[int, str], int] = {}

    def begin(self, origin: domain.Origin) -> None:
        """Note where the reply is from."""
        self._origin = origin

    def of(self, event: domain.Event) -> domain.JsonObject | None:
        """Return the fields of an event in a delta; None: it has no chunk."""
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
                return event.fields
            case domain.ExtraFields():
                return domain.NOTHING
            case _:
                return None

    def _start(self, event: domain.BlockStarted) -> domain.JsonObject | None:
        value = event.value
        kind = "call" if isinstance(value, domain.ToolCall) else "thought"
        index = self._counts.get((event.choice, kind), 0)
        self.blocks[event.block] = OpenBlock(event.choice, value, index)
        match value:
            case domain.ToolCall(type="function_call"):
                self.of_2023.add(event.choice)
                return {"function_call": function_call_json(value, state_fields(value))}
            case domain.ToolCall():
                self._counts[event.choice, kind] = index + 1
                if not value.name:
                    return None
                return {"tool_calls": [_entry(value, index, opaque_of(value, self._origin))]}
            case domain.RedactedThinking():
                self._counts[event.choice, kind] = index + 1
                return {DETAILS: [detail_json(value, index, opaque_of(value, self._origin))]}
            case domain.Thinking() if value.state is not None:
                self._counts[event.choice, kind] = index + 1
                return None
            case domain.Image():
                return {"images": [image_json(value)]}
            case domain.Opaque():
                return {"content": [value.form]}
            case _:
                return None

    def _text(self, open_: OpenBlock, text: str) -> domain.JsonObject | None:
        """More of a text in whichever kind of block."""
        match open_.value:
            case domain.Text():
                return {"content": text}
            case domain.Refusal():
                return {"refusal": text}
            case domain.Thinking() as thought:
                if not text:
                    return None
                fields: dict[str, Any] = dict.fromkeys(thought_names(thought), text)
                if thought.state is not None:
                    fields[DETAILS] = [detail_json(thought, open_.index, None, text)]
                return fields
            case domain.ToolCall(type="function_call"):
                return {"function_call": {"arguments": text}}
            case domain.ToolCall(type="custom"):
                return {"tool_calls": [{"index": open_.index, "custom": {"input": text}}]}
            case domain.ToolCall(name=""):
                open_.said += text
                return None
            case domain.ToolCall():
                return {"tool_calls": [{"index": open_.index, "function": {"arguments": text}}]}
            case _:
                return None

    def _end(self, event: domain.BlockFinished) -> domain.JsonObject | None:
        """What is known only at the end of a block."""
        open_ = self.blocks.pop(event.block)
        before = open_.value.state
        value = open_.value if event.state is None else replace(open_.value, state=event.state)
        opaque = opaque_of(value, self._origin)
        match value:
            case domain.ToolCall(name="", type=kind) if kind != FUNCTION_CALL:
                call = replace(value, arguments=open_.said)
                return {"tool_calls": [{"index": open_.index, **call_json(call, state_fields(call), opaque)}]}
            case domain.ToolCall() if event.state is not None:
                fields = {
                    name: value for name, value in event.state.fields.items() if not before or before.fields.get(name) != value
                }
                told = before is not None and before.opaque == event.state.opaque
                entry: dict[str, Any] = {"index": open_.index}
                if value.type != CUSTOM:
                    entry["function"] = {"arguments": ""}
                return {"tool_calls": [with_signature(domain.with_extra(entry, fields), None if told else opaque)]}
            case domain.Thinking() if opaque is not None:
                if before is None:
                    open_.index = self._counts.get((open_.choice, "thought"), 0)
                    self._counts[open_.choice, "thought"] = open_.index + 1
                return {DETAILS: [detail_json(value, open_.index, opaque, "")]}
            case domain.Text():
                return signature_fields(value, self._origin) or None
            case _:
                return None


def _entry(call: domain.ToolCall, index: int, opaque: str | None) -> dict[str, Any]:
    """The beginning of a call in a chunk. Unless its tool takes plain text it has a `function`: clients read it without asking."""
    return {"index": index, **call_json(call, state_fields(call), opaque)}


def merged(old: domain.JsonObject, new: domain.JsonObject) -> domain.JsonObject:
    """Return the fields of both; where both have one, what the two make of it."""
    if not old or not new:
        return old or new
    return {**old, **{name: _joined(name, old[name], value) if name in old else value for name, value in new.items()}}


def _joined(name: str, old: Any, new: Any) -> Any:
    """Return what two events of one delta make of a field that both have."""
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
