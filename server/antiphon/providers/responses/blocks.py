"""Reads the output items of a reply of the Responses API. No I/O.

Items are found by `output_index`, and parts by their own index within, never by `item_id`: some events have none, and one host
changes the ids from event to event. The rules:

- All blocks of an item are finished by the end of the item, which also has their final state. What it repeats makes no event, what
  it adds to the deltas is another delta, and what contradicts them is ignored.
- The input of a call that is an object is one delta at the end of the item. What was streamed of it is progress.
- Items of unknown types, images and compactions are blocks only when they are complete.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import (
    CUSTOM,
    FUNCTION,
    Block,
    JsonObject,
    Opaque,
    Refusal,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
)
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockProgress,
    CitationDelta,
    InputDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
)
from antiphon.providers.codec.blocks import BlockNumbers
from antiphon.providers.codec.names import ToolNames
from antiphon.providers.codec.values import StreamedText, index_of, read_logprobs, text
from antiphon.providers.responses.items import (
    APPROVAL,
    ENCRYPTED,
    FUNCTION_ITEM,
    ITEM,
    MESSAGE,
    PART_TYPES,
    PARTS,
    REASONING,
    ItemKind,
    action_of,
    check_depth,
    empty_block,
    input_field,
    kind_of,
    read_citation,
    whole_block,
    without,
)

_TEXT: Final = "output_text"
_REFUSAL: Final = "refusal"

_NOT_COUNTED: Final = frozenset({APPROVAL, "mcp_list_tools"})
"""Server items that use no tool."""


class _Part(Struct):
    """An open block of a part: a `Text`, a `Refusal` or a `Thinking`."""

    block: int
    streamed: StreamedText
    delta: type[TextDelta | RefusalDelta | ThinkingDelta]
    citations: int = 0


class _Item(Struct):
    """An item. `block` is that of an item that is one block."""

    type: str
    kind: ItemKind
    first: JsonObject
    """The item as it was at its start."""
    parts: dict[tuple[str, int], _Part]
    streamed: StreamedText
    """The input of a call."""
    block: int | None = None
    call_id: str = ""
    is_done: bool = False


class ResponsesBlockReader:
    """Reads the blocks of one reply. All methods append events, and raise built-in errors for JSON of another shape."""

    def __init__(self, names: ToolNames, tools: set[str]) -> None:
        """`tools` are the names of the client's tools that take plain text. A call of any other such tool is the provider's."""
        self._names = names
        self.tools = tools
        self.has_calls = False
        """Whether the reply has calls of the client's tools."""
        self.needs_approval = False
        """Whether the provider waits for an approval."""
        self.server_tools: Counter[str] = Counter()
        """How often each of the provider's tools was called."""
        self._numbers = BlockNumbers()
        self._items: dict[int, _Item] = {}
        self._texts: dict[tuple[int, int], _Part] = {}  # open texts by indexes of item and part

    def add_text(self, event: JsonObject, events: Batch) -> None:
        """Read a delta of a text: nearly every event is one."""
        part = self._texts.get((event["output_index"], event["content_index"]))
        if part is None:
            part = self._part(event, "content", {"type": _TEXT}, events)
        piece = event["delta"]
        if type(piece) is not str:
            raise TypeError("delta")
        logprobs = event.get("logprobs")
        if piece or logprobs:
            events.append(TextDelta(part.block, part.streamed.add(piece), read_logprobs(logprobs) if logprobs else ()))

    def start_item(self, event: JsonObject, events: Batch) -> None:
        """Read the start of an item. A repeated one is ignored."""
        self._item(event["output_index"], event["item"], events)

    def start_part(self, event: JsonObject, place: str, events: Batch) -> None:
        """Read the start of a part in the item's field `place`. One of an unknown kind is read at the end of the item."""
        part = event["part"]
        if _part_block(part) is not None:
            self._part(event, place, part, events)

    def add_part(self, event: JsonObject, place: str, part: JsonObject, events: Batch) -> None:
        """Read a delta of a refusal or of reasoning. `part` is the part that it starts if nothing else has."""
        self._extend(self._part(event, place, part, events), text(event["delta"]), events)

    def end_part(self, event: JsonObject, place: str, part: JsonObject, events: Batch) -> None:
        """Read the whole text of a part, which may be more than its deltas."""
        if _part_block(part) is not None and not self._is_done(event):
            found = self._part(event, place, part, events)
            self._extend(found, found.streamed.rest(_part_text(part)), events)

    def add_citation(self, event: JsonObject, events: Batch) -> None:
        """Read a citation. One whose index was read already is a repeated one."""
        part = self._part(event, "content", {"type": _TEXT}, events)
        index = event.get("annotation_index")
        if type(index) is not int or index >= part.citations:
            self._cite(part, event["annotation"], events)

    def add_input(self, event: JsonObject, events: Batch) -> None:
        """Read a delta of the input of a call. That of a call without a start is ignored: the end of the item has all of it."""
        item = self._items.get(index_of(event["output_index"]))
        if item is not None:
            self._extend_input(item, text(event["delta"]), events)

    def end_input(self, event: JsonObject, whole: object, events: Batch) -> None:
        """Read the whole input of a call, which may be more than its deltas."""
        item = self._items.get(index_of(event["output_index"]))
        if item is not None and not item.is_done:
            self._extend_input(item, item.streamed.rest(whole), events)

    def add_progress(self, event: JsonObject, status: str, fields: JsonObject, events: Batch) -> None:
        """Read intermediate output of a tool. That of an item which is not a block yet is ignored."""
        item = self._items.get(event.get("output_index"))  # type: ignore[arg-type]
        if item is not None and item.block is not None and not item.is_done:
            check_depth(fields)
            events.append(BlockProgress(item.block, status, fields))

    def end_item(self, event: JsonObject, events: Batch) -> None:
        """Read the end of an item, with all of it."""
        self._end_item(event["output_index"], event["item"], events)

    def read_output(self, output: Iterable[JsonObject], events: Batch) -> None:
        """Read the output of a whole reply: the items that were not streamed, and the ends of those whose end was not.

        The first item of a type is the first streamed one of it, and so on, because hosts number and name items differently here.
        """
        streamed: dict[str, deque[int]] = {}
        for index in sorted(self._items):
            streamed.setdefault(self._items[index].type, deque()).append(index)
        number = max(self._items, default=-1)
        for raw in output:
            known = streamed.get(raw["type"])
            if not known:
                number += 1
                self._end_item(number, raw, events)
            elif not self._items[index := known.popleft()].is_done:
                self._end_item(index, raw, events)

    def end(self, events: Batch) -> None:
        """Finish the items whose end is missing. They have no state, because it may be incomplete."""
        for index in sorted(self._items):
            item = self._items[index]
            if not item.is_done:
                item.is_done = True
                if item.block is not None:
                    events.append(BlockFinished(item.block))
                events.extend(BlockFinished(part.block) for part in item.parts.values())
                if item.kind in (ItemKind.UNKNOWN, ItemKind.IMAGE, ItemKind.COMPACTION):
                    self._numbers.add_complete(0, Opaque(state=State(fields=item.first, item=index)), events)
        self._texts.clear()

    def _is_done(self, event: JsonObject) -> bool:
        item = self._items.get(event["output_index"])
        return item is not None and item.is_done

    def _item(self, index: object, raw: JsonObject, events: Batch) -> _Item:
        """Return the item at an index, which starts if it is new. Raises `TypeError` or `ValueError` for wrong ones."""
        number = index_of(index)
        item = self._items.get(number)
        if item is not None:
            if item.type != raw["type"]:
                raise ValueError("another item")
            return item
        kind = kind_of(raw)
        item = self._items[number] = _Item(raw["type"], kind, raw, {}, StreamedText())
        item.call_id = text(raw.get("call_id")) or text(raw.get("id"))
        value = self._value(item, raw)
        if value is not None:
            item.block = self._numbers.begin(0, value, events)
        return item

    def _value(self, item: _Item, raw: JsonObject) -> Block | None:
        """Return the block that an item starts with; None if it has parts, or becomes a block at its end."""
        match item.kind:
            case ItemKind.CALL if item.type == FUNCTION_ITEM or text(raw.get("name")) in self.tools:
                self.has_calls = True
                name = text(raw["name"])
                if item.type == FUNCTION_ITEM:
                    return ToolCall(item.call_id, self._names.original(name), "", FUNCTION)
                return ToolCall(item.call_id, name, "", CUSTOM)
            case ItemKind.NATIVE_CALL:
                self.has_calls = True
                return ToolCall(item.call_id, text(raw.get("name")), "", item.type)
            case ItemKind.CALL | ItemKind.SERVER_CALL:
                item.kind = ItemKind.SERVER_CALL
                self.needs_approval = self.needs_approval or item.type == APPROVAL
                if item.type not in _NOT_COUNTED:
                    self.server_tools[item.type.removesuffix("_call")] += 1
                has_input = isinstance(raw.get(input_field(item.type)), str)
                return ServerToolCall(item.call_id, item.type, text(raw.get("name")), "" if has_input else None)
            case ItemKind.RESULT:
                is_error = raw.get("status") == "failed" or bool(raw.get("error"))
                return ServerToolResult(item.call_id, item.type, is_error)
            case _:
                return None

    def _part(self, event: JsonObject, place: str, part: JsonObject, events: Batch) -> _Part:
        """Return the part that an event names, which starts if it is new, as does its item."""
        index = event["output_index"]
        position = event.get("summary_index" if place == "summary" else "content_index", 0)
        item = self._items.get(index)
        if item is None:
            item = self._item(index, {"type": MESSAGE if part["type"] in (_TEXT, _REFUSAL) else REASONING}, events)
        return self._part_of(index, item, place, position, part, events)

    def _part_of(self, index: int, item: _Item, place: str, position: int, part: JsonObject, events: Batch) -> _Part:
        key = place, index_of(position)
        found = item.parts.get(key)
        if found is None:
            value = _part_block(part)
            if value is None or item.is_done or place not in PARTS.get(item.type, ()):
                raise ValueError("part")
            found = _Part(self._numbers.begin(0, value, events), StreamedText(), _DELTAS[type(value)])
            item.parts[key] = found
            if isinstance(value, Text):
                self._texts[index, position] = found
        elif item.is_done:
            raise ValueError("a part of an item that has ended")
        return found

    def _extend(self, part: _Part, piece: str, events: Batch) -> None:
        if piece:
            events.append(part.delta(part.block, part.streamed.add(piece)))

    def _extend_input(self, item: _Item, piece: str, events: Batch) -> None:
        if item.block is None or item.is_done or item.kind is ItemKind.NATIVE_CALL:
            raise ValueError("input")
        if piece:
            events.append(InputDelta(item.block, item.streamed.add(piece)))

    def _cite(self, part: _Part, annotation: JsonObject, events: Batch) -> None:
        part.citations += 1
        events.append(CitationDelta(part.block, read_citation(annotation)))

    def _end_item(self, index: object, raw: JsonObject, events: Batch) -> None:
        check_depth(raw)
        item = self._item(index, raw, events)
        if item.is_done:
            return
        number: int = index  # type: ignore[assignment]  # `_item` has checked it
        match item.kind:
            case ItemKind.PARTS:
                self._end_parts(number, item, raw, events)
            case ItemKind.CALL | ItemKind.NATIVE_CALL | ItemKind.SERVER_CALL | ItemKind.RESULT:
                self._end_block(number, item, raw, events)
            case _:
                self._numbers.add_complete(0, whole_block(item.kind, raw, number), events)
        item.is_done = True

    def _end_parts(self, index: int, item: _Item, raw: JsonObject, events: Batch) -> None:
        """Read the end of a message or of reasoning: the rest of its parts, and their state."""
        places = PARTS[item.type]
        encrypted = raw.get(ENCRYPTED)
        opaque = encrypted if isinstance(encrypted, str) else None
        own = without(raw, *places, *(() if opaque is None else (ENCRYPTED,)))
        states: list[tuple[int, JsonObject]] = []
        for place in places:
            for position, part in enumerate(raw.get(place) or ()):
                value = _part_block(part)
                if value is None:
                    unknown = Opaque(state=State(None, part, index))
                    states.append((self._numbers.begin(0, unknown, events), part))
                    continue
                found = self._part_of(index, item, place, position, part, events)
                if isinstance(value, Text):
                    self._end_text(found, part, events)
                else:
                    self._extend(found, found.streamed.rest(_part_text(part)), events)
                states.append((found.block, without(part, *_HELD[type(value)])))
        if not states:
            empty = replace(empty_block(item.type, opaque), state=State(opaque, {ITEM: own}, index))
            self._numbers.add_complete(0, empty, events)
        for block, fields in states:
            state = State(opaque, {ITEM: own, **fields}, index) if block == states[0][0] else State(None, fields, index)
            events.append(BlockFinished(block, state))
        finished = {block for block, _ in states}
        events.extend(BlockFinished(part.block) for part in item.parts.values() if part.block not in finished)
        for key in [key for key in self._texts if key[0] == index]:
            del self._texts[key]

    def _end_text(self, found: _Part, part: JsonObject, events: Batch) -> None:
        """Read what of a text was not streamed: the rest of it, its citations, and the log probabilities of all of it."""
        if found.streamed.length:
            self._extend(found, found.streamed.rest(part["text"]), events)
        elif piece := text(part["text"]):
            events.append(TextDelta(found.block, found.streamed.add(piece), read_logprobs(part.get("logprobs"))))
        for annotation in (part.get("annotations") or ())[found.citations :]:
            self._cite(found, annotation, events)

    def _end_block(self, index: int, item: _Item, raw: JsonObject, events: Batch) -> None:
        """Read the end of an item that is one block."""
        block: int = item.block  # type: ignore[assignment]  # these kinds start with one
        name = input_field(item.type)
        given = raw.get(name)
        call_id = None
        match item.kind:
            case ItemKind.CALL:
                own = without(raw, "call_id", "name", name)
                call_id = text(raw.get("call_id")) or None
            case ItemKind.NATIVE_CALL:
                name, action = action_of(raw)
                own = without(raw, name)
                call_id = text(raw.get("call_id")) or None
                events.append(InputDelta(block, msgspec.json.encode(action).decode()))
            case ItemKind.SERVER_CALL:
                own = without(raw, name) if isinstance(given, str) else dict(raw)
            case _:
                own = dict(raw)
        if item.kind in (ItemKind.CALL, ItemKind.SERVER_CALL):
            self._extend_input(item, item.streamed.rest(given), events)
        state = State(None, {ITEM: own}, index)
        events.append(BlockFinished(block, state, call_id if call_id != item.call_id else None))


_DELTAS: Final[dict[type[Block], type[TextDelta | RefusalDelta | ThinkingDelta]]] = {
    Text: TextDelta,
    Refusal: RefusalDelta,
    Thinking: ThinkingDelta,
}

_HELD: Final[dict[type[Block], tuple[str, ...]]] = {
    Text: ("type", "text", "annotations", "logprobs"),
    Refusal: ("type", "refusal"),
    Thinking: ("type", "text"),
}
"""The fields of a part that its block holds, by kind of block."""


def _part_block(part: JsonObject) -> Text | Refusal | Thinking | None:
    """Return the block that a part starts with; None if its type is unknown."""
    kind = part["type"]
    if kind == _TEXT:
        return Text("")
    if kind == _REFUSAL:
        return Refusal("")
    return Thinking("", field=kind) if kind in PART_TYPES.values() else None


def _part_text(part: JsonObject) -> object:
    return part.get("refusal" if part["type"] == _REFUSAL else "text")
