"""Reads the blocks of a reply of the Converse API. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html. A whole reply is read as a stream of its
blocks. The rules:

- Only calls, results and images have a start. Text and reasoning begin with their first delta; an empty start begins nothing.
- A delta of another kind than the open block of its index ends that block, and begins another.
- A signature may come in pieces. It is the block's state, and known at its end.
- A call without input is finished late: if the limit of the output cut it, its input is not completed.
- Redacted reasoning and images are kept until they are complete, because a dialect writes them at their start.
- Results of the provider's tools, and blocks of unknown kinds, are kept as they are.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from antiphon.domain.content import (
    NOTHING,
    Block,
    Image,
    JsonObject,
    Opaque,
    RedactedThinking,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
)
from antiphon.domain.events import Batch, BlockFinished, BlockProgress, CitationDelta, InputDelta, TextDelta, ThinkingDelta
from antiphon.providers.bedrock.citations import read_citation
from antiphon.providers.bedrock.media import joined_base64, media_block
from antiphon.providers.codec.blocks import BlockNumbers, state_of
from antiphon.providers.codec.names import ToolNames
from antiphon.providers.codec.values import as_object, check_depth, index_of, text

_Kind: TypeAlias = type[Block]

START: Final = "contentBlockStart"
DELTA: Final = "contentBlockDelta"
"""The events of which an unknown block of a stream is made. Such a block cannot be sent back, as a whole one can."""

RESULT: Final = "toolResult"


class _Open(Struct):
    """An open block. `number` is None for one that is kept until it is complete."""

    number: int | None
    kind: _Kind
    fields: JsonObject = NOTHING
    pieces: list[str] = []
    """Of a signature, of redacted reasoning, or of an image, in base64."""
    has_input: bool = False
    content: list[dict[str, Any]] = []
    """The parts of a result."""


class BedrockBlockReader:
    """Reads the blocks of one reply. All methods append events, and raise built-in errors for JSON of another shape."""

    def __init__(self, names: ToolNames) -> None:
        self._names = names
        self._numbers = BlockNumbers()
        self._open: dict[int, _Open] = {}
        self._unfinished: int | None = None
        """The number of a finished call that had no input, which may be one that was cut."""
        self._has_ended = False

    def start(self, index: object, start: JsonObject, events: Batch) -> None:
        """Read the start of a block. An empty one is that of a block that begins with its first delta."""
        key = index_of(index)
        self._stop(key, events)
        member = _member(start)
        if member is None:
            return
        name, value = member
        check_depth(value)
        match name:
            case "toolUse":
                self._begin_call(key, value, events)
            case "toolResult":
                rest = _without(value, ("toolUseId", "type", "content"))
                block = ServerToolResult(
                    text(value["toolUseId"]), text(value.get("type")) or RESULT, value.get("status") == "error"
                )
                self._begin(key, block, events, rest)
            case "image":
                self._hold(key, Image, events, value)
            case "text" | "reasoningContent":  # in no list of the API, but some hosts send it
                if value:
                    self.add(key, start, events)
            case _:
                self._begin(key, Opaque(state=State(fields={START: dict(start)})), events)

    def add(self, index: object, delta: JsonObject, events: Batch) -> None:
        """Read a delta of a block."""
        key = index_of(index)
        piece = delta.get("text")
        if piece is not None:  # nearly every event
            events.append(TextDelta(self._at(key, Text, events), text(piece)))
            return
        member = _member(delta)
        if member is None:
            return
        name, value = member
        match name:
            case "toolUse":
                self._add_input(key, text(value["input"]), events)
            case "reasoningContent":
                self._add_reasoning(key, value, events)
            case "citation":
                check_depth(value)
                events.append(CitationDelta(self._at(key, Text, events), read_citation(value)))
            case "toolResult":
                check_depth(value)
                self._add_result(self._open[key], value)
            case "image":
                self._add_image(key, value, events)
            case _:
                self._add_unknown(key, delta, events)

    def stop(self, index: object, events: Batch) -> None:
        """Read the end of a block."""
        self._stop(index_of(index), events)

    def add_whole(self, index: int, block: JsonObject, events: Batch) -> None:
        """Read a block of a whole reply."""
        member = _member(block)
        if member is None:
            return
        check_depth(block)
        name, value = member
        match name:
            case "text":
                self.add(index, block, events)
            case "reasoningContent":
                self._add_whole_reasoning(index, value, events)
            case "citationsContent":
                for part in value.get("content") or ():
                    self.add(index, {"text": part["text"]}, events)
                for citation in value.get("citations") or ():
                    self.add(index, {"citation": citation}, events)
            case "toolUse":
                self._begin_call(index, _without(value, ("input",)), events)
                self._add_input(index, _json(value.get("input")), events)
            case "toolResult":
                self.start(index, {name: _without(value, ("content",))}, events)
                self._open[index].content = list(value.get("content") or ())
            case "image" | "audio":
                self._add_complete(media_block(name, value), events)
            case _:
                self._add_complete(Opaque(state=State(fields=block)), events)
        self._stop(index, events)

    def end(self, events: Batch, *, is_cut: bool) -> None:
        """Finish all open blocks. `is_cut`: the reply ended early, so that the input of a call may be incomplete."""
        self._complete_call(events, is_cut=is_cut)
        for key in sorted(self._open):
            self._stop(key, events)
            self._complete_call(events, is_cut=is_cut)
        self._has_ended = True

    def _begin(self, key: int, block: Block, events: Batch, fields: JsonObject = NOTHING) -> _Open:
        """Begin a block, in the place of the one that is open there."""
        self._prepare(key, events)
        opened = _Open(self._numbers.begin(0, block, events), type(block), fields)
        self._open[key] = opened
        return opened

    def _hold(self, key: int, kind: _Kind, events: Batch, fields: JsonObject = NOTHING) -> _Open:
        """Begin a block that is kept until it is complete."""
        self._prepare(key, events)
        self._open[key] = opened = _Open(None, kind, fields)
        return opened

    def _prepare(self, key: int, events: Batch) -> None:
        """Complete what has to be complete before a block begins. Raises `ValueError` after the end of the reply."""
        if self._has_ended:
            raise ValueError("end")
        self._stop(key, events)
        self._complete_held(events)
        self._complete_call(events)

    def _complete_held(self, events: Batch) -> None:
        """Complete the block that is kept, because another one begins."""
        for key in [key for key, opened in self._open.items() if opened.number is None]:
            self._stop(key, events)

    def _at(self, key: int, kind: type[Text | Thinking], events: Batch) -> int:
        """Return the number of the open text or thought, which begins if there is none."""
        opened = self._open.get(key)
        if opened is None or opened.kind is not kind:
            opened = self._begin(key, kind(""), events)
        assert opened.number is not None
        return opened.number

    def _begin_call(self, key: int, call: JsonObject, events: Batch) -> None:
        call_id, name, kind = text(call["toolUseId"]), text(call["name"]), text(call.get("type"))
        state = state_of(None, _without(call, ("toolUseId", "name", "type")))
        if kind:
            self._begin(key, ServerToolCall(call_id, kind, name, state=state), events)
        else:
            self._begin(key, ToolCall(call_id, self._names.original(name), "", state=state), events)

    def _add_input(self, key: int, piece: str, events: Batch) -> None:
        opened = self._open[key]
        if opened.kind not in (ToolCall, ServerToolCall) or opened.number is None:
            raise ValueError("input")
        if piece:
            opened.has_input = True
            events.append(InputDelta(opened.number, piece))

    def _add_reasoning(self, key: int, value: JsonObject, events: Batch) -> None:
        name, piece = _member(value) or ("text", "")
        match name:
            case "text":
                if piece:
                    events.append(ThinkingDelta(self._at(key, Thinking, events), text(piece)))
            case "signature":
                self._at(key, Thinking, events)
                self._open[key].pieces.append(text(piece))
            case "redactedContent":
                opened = self._open.get(key)
                if opened is None or opened.kind is not RedactedThinking:
                    opened = self._hold(key, RedactedThinking, events)
                opened.pieces.append(text(piece))
            case _:
                self._add_unknown(key, {"reasoningContent": value}, events)

    def _add_whole_reasoning(self, index: int, value: JsonObject, events: Batch) -> None:
        match value:
            case {"reasoningText": {"text": _} as inner}:
                number = self._at(index, Thinking, events)
                if thought := text(inner["text"]):
                    events.append(ThinkingDelta(number, thought))
                opened = self._open[index]
                opened.pieces = [text(inner.get("signature"))]
                opened.fields = _without(inner, ("text", "signature"))
            case {"redactedContent": str(data)}:
                self._hold(index, RedactedThinking, events).pieces.append(data)
            case _:
                self._add_complete(Opaque(state=State(fields={"reasoningContent": value})), events)

    def _add_result(self, opened: _Open, parts: list[dict[str, Any]]) -> None:
        """Add the pieces of a result. Text continues text."""
        if opened.kind is not ServerToolResult:
            raise ValueError("result")
        for part in parts:
            match opened.content, part:
                case [*_, {"text": str(before), **others}], {"text": str(more), **same} if not others and not same:
                    opened.content[-1] = {"text": before + more}
                case _:
                    opened.content.append(dict(part))

    def _add_image(self, key: int, value: JsonObject, events: Batch) -> None:
        check_depth(value)
        opened = self._open.get(key)
        if opened is None or opened.kind is not Image:
            opened = self._hold(key, Image, events)
        match as_object(value.get("source")):
            case {"bytes": str(data)}:
                opened.pieces.append(data)
                opened.fields = {**opened.fields, **_without(value, ("source",))}
            case _:
                opened.fields = {**opened.fields, **value}

    def _add_unknown(self, key: int, delta: JsonObject, events: Batch) -> None:
        """Add a delta of an unknown kind: the first one is the block, the others are progress."""
        check_depth(delta)
        opened = self._open.get(key)
        if opened is None or opened.number is None:
            self._begin(key, Opaque(state=State(fields={DELTA: delta})), events)
        else:
            events.append(BlockProgress(opened.number, next(iter(delta)), delta))

    def _add_complete(self, block: Block, events: Batch) -> None:
        self._complete_held(events)
        self._complete_call(events)
        self._numbers.add_complete(0, block, events)

    def _stop(self, key: int, events: Batch) -> None:
        """Finish the open block of an index, if there is one."""
        opened = self._open.pop(key, None)
        if opened is None:
            return
        if opened.number is None:
            self._add_complete(_held(opened), events)
        elif opened.kind in (ToolCall, ServerToolCall) and not opened.has_input:
            self._complete_call(events)
            self._unfinished = opened.number
        else:
            events.append(BlockFinished(opened.number, _state_at_end(opened)))

    def _complete_call(self, events: Batch, *, is_cut: bool = False) -> None:
        """Finish a call that had no input."""
        number, self._unfinished = self._unfinished, None
        if number is not None:
            if not is_cut:
                events.append(InputDelta(number, "{}"))
            events.append(BlockFinished(number))


def _state_at_end(opened: _Open) -> State | None:
    """Return the state that is known at the end of a block; None if it is that of its start."""
    if opened.kind is ServerToolResult:
        return State(fields={**opened.fields, "content": opened.content})
    signature = "".join(opened.pieces)
    return state_of(signature or None, opened.fields)


def _held(opened: _Open) -> Block:
    """Return a block that was kept until it is complete."""
    data = opened.pieces[0] if len(opened.pieces) == 1 else joined_base64(opened.pieces)
    if opened.kind is RedactedThinking:
        return RedactedThinking(state=State(data))
    source = {"source": {"bytes": data}} if data else {}
    return media_block("image", {**opened.fields, **source})


def _member(union: JsonObject) -> tuple[str, Any] | None:
    """Return the name and the value of the one member of a union; None if there is none. Some hosts add a `type`."""
    return next(((name, value) for name, value in union.items() if value is not None and name != "type"), None)


def _without(raw: JsonObject, names: tuple[str, ...]) -> JsonObject:
    return {name: value for name, value in raw.items() if name not in names}


def _json(value: object) -> str:
    """Return the input of a call as JSON. None at all is an empty object."""
    return msgspec.json.encode({} if value is None else value).decode()
