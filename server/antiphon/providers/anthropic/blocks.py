"""Reads the blocks of a reply of Anthropic's Messages API. No I/O.

https://platform.claude.com/docs/en/build-with-claude/streaming. A whole reply is read as a stream of its blocks. The rules:

- `input` at the start of a call is `{}` if the input is streamed. Another one counts unless some is streamed.
- A call without input is finished late: if the limit of the output cut it, its input is not completed.
- A signature may come in pieces. It is the block's state, and known at its end.
- A compaction is not streamed, and begins with its only delta.
- Results of the provider's tools, and blocks of unknown kinds, are kept as they are.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from msgspec import Struct

from antiphon.domain.content import (
    NOTHING,
    Block,
    Compaction,
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
from antiphon.providers.anthropic.citations import read_citation
from antiphon.providers.codec.blocks import BlockNumbers, state_of
from antiphon.providers.codec.names import ToolNames
from antiphon.providers.codec.values import as_object, check_depth, index_of, is_shallow, text

_SERVER_CALLS: Final = frozenset({"server_tool_use", "mcp_tool_use"})
_RESULT: Final = "_tool_result"
_ERROR: Final = "_error"

_OWN: Final = {
    "text": ("type", "text"),
    "thinking": ("type", "thinking", "signature"),
    "redacted_thinking": ("type", "data"),
    "tool_use": ("type", "id", "name", "input"),
    "compaction": ("type", "content", "encrypted_content"),
}
"""By kind: the fields that the domain's block holds. All others are in its state."""
_OWN_OF_SERVER_CALLS: Final = ("type", "id", "name", "input")
_OWN_OF_RESULTS: Final = ("type", "tool_use_id")


_TAKES: Final[dict[object, type[Block]]] = {
    "text_delta": Text,
    "citations_delta": Text,
    "thinking_delta": Thinking,
    "signature_delta": Thinking,
    "input_json_delta": ToolCall,
    "compaction_delta": Compaction,
}
"""By type of delta: the block that takes it. Calls of the provider's tools take the same as those of the client's."""


class _Open(Struct):
    """An open block. `number` is None for a compaction that has not begun."""

    number: int | None
    fields: JsonObject
    takes: type[Block] | None = None
    """None for a block that takes no delta of a known type."""
    signature: list[str] = []
    input: str | None = None
    """The input at the start of a call, until some is streamed; None for other blocks, and afterwards."""


class AnthropicBlockReader:
    """Reads the blocks of one reply. All methods append events, and raise built-in errors for JSON of another shape."""

    def __init__(self, names: ToolNames) -> None:
        self._names = names
        self._numbers = BlockNumbers()
        self._open: dict[int, _Open] = {}
        self._unfinished: _Open | None = None
        """A finished call that had no input, which may be one that was cut."""

    def start(self, index: object, raw: JsonObject, events: Batch) -> None:
        """Read the start of a block, which may be all of it."""
        key = index_of(index)
        self._complete(events)
        if key in self._open:
            self.stop(key, events)
        if not is_shallow(raw):
            raise ValueError("depth")
        kind = text(raw["type"])
        self._open[key] = opened = _Open(None, NOTHING)
        begin = self._numbers.begin
        match kind:
            case "text":
                opened.takes = Text
                opened.number = begin(0, Text("", state=state_of(None, _rest(raw, kind))), events)
                self._add_whole_text(opened.number, raw, events)
            case "thinking":
                opened.takes = Thinking
                opened.fields = _rest(raw, kind)
                opened.signature = [text(raw.get("signature"))]
                opened.number = begin(0, Thinking("", state=state_of(None, opened.fields)), events)
                if thought := text(raw.get("thinking")):
                    events.append(ThinkingDelta(opened.number, thought))
            case "redacted_thinking":
                state = State(text(raw["data"]), _rest(raw, kind))
                opened.number = begin(0, RedactedThinking(state=state), events)
            case "tool_use":
                name = self._names.original(text(raw["name"]))
                opened.takes = ToolCall
                opened.input = _input(raw)
                opened.number = begin(0, ToolCall(text(raw["id"]), name, "", state=state_of(None, _rest(raw, kind))), events)
            case "compaction":
                opened.takes = Compaction
                opened.fields = raw
                if raw.get("content") is not None:
                    self._begin_compaction(opened, raw, events)
            case _:
                value = _provider_block(kind, raw)
                opened.number = begin(0, value, events)
                if isinstance(value, ServerToolCall):
                    opened.takes = ToolCall
                    opened.input = _input(raw) if "input" in raw else None

    def add(self, index: object, delta: JsonObject, events: Batch) -> None:
        """Read a delta of a block. One of an unknown type, or of a block of an unknown kind, is progress."""
        opened = self._open[index]  # type: ignore[index]
        number, kind = opened.number, delta["type"]
        takes = _TAKES.get(kind)
        if takes is None or (opened.takes is None and number is not None):
            self._add_unknown(number, kind, delta, events)
        elif takes is not opened.takes:
            raise ValueError("delta")
        elif number is None or takes is Compaction:
            self._begin_compaction(opened, delta, events)
        elif takes is Text:  # nearly every event
            if kind == "text_delta":
                events.append(TextDelta(number, text(delta["text"])))
            else:
                check_depth(delta)
                events.append(CitationDelta(number, read_citation(delta["citation"])))
        elif kind == "signature_delta":
            opened.signature.append(text(delta["signature"]))
        elif takes is Thinking:
            if piece := text(delta["thinking"]):
                events.append(ThinkingDelta(number, piece))
        elif piece := text(delta["partial_json"]):
            opened.input = None
            events.append(InputDelta(number, piece))

    def _add_unknown(self, number: int | None, kind: object, delta: JsonObject, events: Batch) -> None:
        check_depth(delta)
        if number is None:
            raise ValueError("delta")
        events.append(BlockProgress(number, text(kind), {name: value for name, value in delta.items() if name != "type"}))

    def stop(self, index: object, events: Batch) -> None:
        """Read the end of a block."""
        opened = self._open.pop(index_of(index))
        if opened.number is None:
            self._begin_compaction(opened, {}, events)
        elif opened.input == "{}":
            self._complete(events)
            self._unfinished = opened
            return
        elif opened.input is not None:
            events.append(InputDelta(opened.number, opened.input))
        self._finish(opened, events)

    def end(self, events: Batch, *, is_cut: bool) -> None:
        """Finish all open blocks. `is_cut`: the reply ended early, so that the input of a call may be incomplete."""
        self._complete(events, is_cut=is_cut)
        for key in sorted(self._open):
            opened = self._open[key]
            if is_cut:
                opened.input = None
            self.stop(key, events)
            self._complete(events)

    def _complete(self, events: Batch, *, is_cut: bool = False) -> None:
        """Finish a call that had no input."""
        opened, self._unfinished = self._unfinished, None
        if opened is not None and opened.number is not None:
            if not is_cut:
                events.append(InputDelta(opened.number, "{}"))
            self._finish(opened, events)

    def _finish(self, opened: _Open, events: Batch) -> None:
        if opened.number is not None:
            signature = "".join(opened.signature)
            events.append(BlockFinished(opened.number, State(signature, opened.fields) if signature else None))

    def _begin_compaction(self, opened: _Open, raw: JsonObject, events: Batch) -> None:
        """Begin a compaction with its content, unless it has begun."""
        check_depth(raw)
        if opened.number is not None:
            return
        whole = {**opened.fields, **{name: value for name, value in raw.items() if name != "type"}}
        content, encrypted = whole.get("content"), whole.get("encrypted_content")
        fields = {name: value for name, value in whole.items() if name not in _OWN["compaction"]}
        if "encrypted_content" in whole and encrypted is None:
            fields["encrypted_content"] = None
        state = state_of(None if encrypted is None else text(encrypted), fields)
        opened.number = self._numbers.begin(0, Compaction(None if content is None else text(content), state=state), events)

    def _add_whole_text(self, number: int, raw: JsonObject, events: Batch) -> None:
        if content := text(raw.get("text")):
            events.append(TextDelta(number, content))
        events.extend(CitationDelta(number, read_citation(one)) for one in raw.get("citations") or ())


def _provider_block(kind: str, raw: JsonObject) -> Block:
    """Return a call or a result of the provider's own tools, or a block of an unknown kind."""
    if kind in _SERVER_CALLS and isinstance(raw.get("id"), str) and isinstance(raw.get("name"), str):
        return ServerToolCall(raw["id"], kind, raw["name"], state=state_of(None, _without(raw, _OWN_OF_SERVER_CALLS)))
    if kind.endswith(_RESULT) and kind != "tool_result" and isinstance(raw.get("tool_use_id"), str):
        content = as_object(raw.get("content")).get("type")
        is_error = raw.get("is_error") is True or (isinstance(content, str) and content.endswith(_ERROR))
        state = state_of(None, _without(raw, _OWN_OF_RESULTS))
        return ServerToolResult(raw["tool_use_id"], kind, is_error, state=state)
    return Opaque(state=State(fields=raw))


def _rest(raw: JsonObject, kind: str) -> JsonObject:
    """Return the fields that only the API has. Citations of a text are those of the block, unless it has none."""
    rest = _without(raw, _OWN[kind])
    return _without(rest, ("citations",)) if kind == "text" and rest.get("citations") else rest


def _without(raw: JsonObject, names: tuple[str, ...]) -> JsonObject:
    return {name: value for name, value in raw.items() if name not in names}


def _input(raw: JsonObject) -> str:
    """Return the input at the start of a call as JSON. Raises `TypeError` if it is not an object."""
    value: Any = raw.get("input")
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise TypeError("input")
    return orjson.dumps(value).decode()
