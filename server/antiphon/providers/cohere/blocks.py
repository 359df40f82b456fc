"""Reads the blocks of an answer of Cohere's chat API. No I/O.

Content, calls and the plan are counted separately by the API. The rules:

- A plan (`tool_plan`) is a `Thinking` block. It has no end of its own: content or a call ends it.
- A text stays open until the end of the reply, because its citations may follow its end.
- Arguments may be missing or `null`: they become `{}`, as for a call without arguments.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from msgspec import Struct

from antiphon.domain.content import Block, Citation, JsonObject, Opaque, State, Text, Thinking, ToolCall
from antiphon.domain.events import Batch, BlockFinished, CitationDelta, ExtraFields, InputDelta, TextDelta, ThinkingDelta
from antiphon.providers.codec.blocks import BlockNumbers, state_of
from antiphon.providers.codec.names import ToolNames
from antiphon.providers.codec.values import MAX_INDEX, as_object, check_depth, index_of, text

PROTOCOL: Final = "cohere"
"""The protocol's name in the origin of a reply."""

PLAN: Final = "tool_plan"

_CITATION: Final = frozenset({"start", "end", "text", "content_index"})


class _Call(Struct):
    """An open tool call. `held` are arguments that may still become `null`; None once arguments were sent."""

    block: int
    held: str | None = ""


class CohereBlockReader:
    """Reads the blocks of one reply. All methods append events, and raise built-in errors for JSON of another shape."""

    def __init__(self, names: ToolNames) -> None:
        self.has_calls = False
        """Whether the reply has tool calls."""
        self._names = names
        self._numbers = BlockNumbers()
        self._plan: int | None = None
        self._texts: dict[int, int] = {}  # block numbers by index of the content
        self._thoughts: dict[int, int] = {}  # the same, of open blocks
        self._unknown: set[int] = set()  # indexes of content of unknown kinds
        self._calls: dict[int, _Call] = {}  # the open ones, by index

    def add_plan(self, piece: str, events: Batch) -> None:
        """Read a piece of the plan."""
        if not piece:
            return
        if self._plan is None:
            self._plan = self._begin(Thinking("", field=PLAN), events)
        events.append(ThinkingDelta(self._plan, piece))

    def start_content(self, index: object, part: JsonObject, events: Batch) -> None:
        """Read the start of a block of content, which may have text already."""
        key = index_of(index)
        self._end_plan(events)
        self.end_content(index, events)
        kind = part.get("type")
        state = state_of(None, {name: value for name, value in part.items() if name not in ("type", kind)})
        check_depth(part)
        if kind == "text":
            if key in self._texts:
                events.append(BlockFinished(self._texts[key]))
            self._texts[key] = self._begin(Text("", state=state), events)
        elif kind == "thinking":
            self._thoughts[key] = self._begin(Thinking("", state=state), events)
        else:
            self._unknown.add(key)
            self._numbers.add_complete(0, Opaque(state=State(fields=part)), events)
            return
        self.add_content(index, part, events)

    def add_content(self, index: object, part: JsonObject, events: Batch) -> None:
        """Read a piece of a block of content, which starts it if nothing else has. Pieces of unknown kinds are ignored."""
        if (block := self._texts.get(index)) is not None:  # type: ignore[call-overload]
            if piece := text(part.get("text")):
                events.append(TextDelta(block, piece))
        elif (block := self._thoughts.get(index)) is not None:  # type: ignore[call-overload]
            if piece := text(part.get("thinking")):
                events.append(ThinkingDelta(block, piece))
        elif index not in self._unknown:
            self.start_content(index, {"type": "thinking" if "thinking" in part else "text", **part}, events)

    def end_content(self, index: object, events: Batch) -> None:
        """Read the end of a block of content."""
        block = self._thoughts.pop(index_of(index), None)
        if block is not None:
            events.append(BlockFinished(block))

    def start_call(self, index: object, call: JsonObject, events: Batch) -> None:
        """Read the start of a tool call, which may have arguments already."""
        self._end_plan(events)
        self.end_call(index, events)
        fields = {name: value for name, value in call.items() if name not in ("id", "type", "function")}
        check_depth(fields)
        value = ToolCall(
            text(call.get("id")), self._names.original(text(call["function"]["name"])), "", state=state_of(None, fields)
        )
        self.has_calls = True
        self._calls[index_of(index)] = _Call(self._begin(value, events))
        self.add_arguments(index, call, events)

    def add_arguments(self, index: object, call: JsonObject, events: Batch) -> None:
        """Read a piece of the arguments of a call."""
        arguments = as_object(call.get("function")).get("arguments")
        piece = orjson.dumps(arguments).decode() if isinstance(arguments, dict) else text(arguments)
        if not piece:
            return
        known = self._calls[index_of(index)]
        if known.held is not None:
            piece = known.held + piece
            known.held = piece
            if "null".startswith(piece.strip()):
                return
            known.held = None
        events.append(InputDelta(known.block, piece))

    def end_call(self, index: object, events: Batch) -> None:
        """Read the end of a call."""
        call = self._calls.pop(index_of(index), None)
        if call is not None:
            if call.held is not None:
                events.append(InputDelta(call.block, "{}"))
            events.append(BlockFinished(call.block))

    def add_citation(self, citation: JsonObject, events: Batch) -> None:
        """Read a citation. One of a plan or a thought, which have no citations in the domain, is a field of the message."""
        check_depth(citation)
        index = citation.get("content_index")
        block = next(reversed(self._texts.values()), None) if index is None else self._texts.get(index)
        if block is None or citation.get("type", "TEXT_CONTENT") != "TEXT_CONTENT":
            events.append(ExtraFields(0, {"citations": [citation]}))
        else:
            events.append(CitationDelta(block, _citation(citation)))

    def end(self, events: Batch, *, is_cut: bool) -> None:
        """Finish all open blocks. `is_cut`: the reply ended early, so that the arguments of a call may be incomplete."""
        self._end_plan(events)
        for call in self._calls.values() if is_cut else ():
            call.held = None
        for index in list(self._calls):
            self.end_call(index, events)
        events.extend(map(BlockFinished, sorted((*self._thoughts.values(), *self._texts.values()))))
        self._thoughts.clear()
        self._texts.clear()

    def _begin(self, value: Block, events: Batch) -> int:
        return self._numbers.begin(0, value, events)

    def _end_plan(self, events: Batch) -> None:
        if self._plan is not None:
            events.append(BlockFinished(self._plan))
            self._plan = None


def _citation(raw: JsonObject) -> Citation:
    """Return a citation. The API has several sources for one: the first is that of the domain, and all are in `fields`."""
    sources = raw.get("sources") or [{}]
    source = sources[0]
    document = as_object(source.get("document"))
    return Citation(
        url=text(document.get("url")),
        title=text(document.get("title")),
        text=text(raw.get("text")),
        source_id=text(source.get("id")),
        start=_offset(raw.get("start")),
        end=_offset(raw.get("end")),
        fields={name: value for name, value in raw.items() if name not in _CITATION},
    )


def _offset(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_INDEX else None
