"""Writes the messages of a request as the input items of the Responses API. No I/O.

What is sent of an earlier reply:

| block | to the provider that made it | to another |
|---|---|---|
| text, refusal | in its item, unchanged | the text |
| thinking | in its item, if that is encrypted and the item after it is sent too | nothing |
| function call, call of a tool that takes plain text | in its item | without an item's id |
| call of a type that only this API has | in its item | nothing, nor its result |
| server tools, compaction, a block of an unknown kind | in its item | nothing |
| image | in its item | in the next user message |
| recording | its transcript | the same |

An item is sent whole or not at all: if a block of it was changed, which its missing state shows, its texts are sent without it.
The provider keeps no replies (`store`), so that reasoning without its encrypted content cannot be sent. It refuses the id of a
reasoning item if the next item has none, so that it is left out there.

A message written by the caller has no origin. Fields of messages and blocks that the API does not document are not sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import (
    CUSTOM,
    FUNCTION,
    FUNCTION_CALL,
    Audio,
    Block,
    Compaction,
    Document,
    Image,
    JsonObject,
    Message,
    Opaque,
    Origin,
    RedactedThinking,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.domain.errors import Unsupported
from antiphon.providers.codec.pictures import of_the_user
from antiphon.providers.responses.item_json import (
    decoded_json,
    file_json,
    item_of,
    media_json,
    native_result,
    short_call_id,
)
from antiphon.providers.responses.items import (
    COMPACTION,
    CUSTOM_ITEM,
    ENCRYPTED,
    FUNCTION_ITEM,
    ITEM,
    MESSAGE,
    NAMES,
    PART_TYPES,
    PROTOCOL,
    REASONING,
    action_json,
)

_PART_FIELDS: Final = ("prompt_cache_breakpoint",)
"""The fields of a part of the content that callers may set and the domain has no place for."""

_REPLY_FIELDS: Final = ("phase",)
"""The same for an assistant message."""

_CALLER: Final = "caller"
"""The field that says which program made a function call. The result must repeat it."""


class _Unit(Struct):
    """Blocks of a reply that are sent together. `is_item`: they are a whole item of this provider's."""

    blocks: list[Block]
    is_item: bool
    is_broken: bool = False
    """It was an item, of which a block was changed, so that the others are sent as those of another provider are."""


class ResponsesEncoder:
    """Writes the messages of one request."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._origin = Origin(PROTOCOL, provider)
        self._encoded: list[JsonObject] = []
        self._calls: dict[str, tuple[str, object]] = {}
        """The type of each call sent, and its caller, by id."""
        self._dropped_calls: set[str] = set()
        """Ids of calls that are not sent, so that their results are left out too."""
        self._pictures: list[Block] = []
        """Images of a reply of another provider, to be added to the next user message."""
        self._ids: set[object] = set()
        """The ids of the items that are sent."""
        self._functions = 0
        """The number of function calls of OpenAI's API of 2023, which have no ids."""

    def encode(self, messages: Iterable[Message]) -> list[JsonObject]:
        """Return the messages as JSON objects. Raises `Unsupported` for content that this API cannot express."""
        for message in messages:
            if message.role is Role.ASSISTANT:
                self._add_reply(message)
            else:
                self._add_message(message)
        return self._encoded

    def _add_message(self, message: Message) -> None:
        """Add a message that is not a reply. The results of tools, and other items that a caller sends, are items of their own."""
        content: list[Block] = []
        for block in message.blocks:
            if isinstance(block, ToolResult):
                if block.tool_call_id not in self._dropped_calls:
                    self._encoded.append(self._result(block))
            elif isinstance(block, Opaque) and _is_item(block.form):
                self._encoded.append(block.form)
            else:
                content.append(block)
        if not content and message.blocks:
            return
        if message.role is Role.USER:
            content, self._pictures = [*self._pictures, *content], []
        role = Role.USER if message.role is Role.TOOL else message.role
        self._encoded.append({"role": role.value, "content": self._content(content)})

    def _result(self, block: ToolResult) -> JsonObject:
        """Return the result of a call. Its type is that of the call, because other APIs only have results of functions."""
        call_id = self._function_id if block.type == FUNCTION_CALL else block.tool_call_id
        kind, caller = self._calls.get(call_id, (block.type, None))
        call_id = short_call_id(call_id)
        if kind in (FUNCTION, FUNCTION_CALL):
            made = {"type": "function_call_output", "call_id": call_id, "output": self._content(block.blocks)}
            return made if caller is None else {**made, _CALLER: caller}
        if kind == CUSTOM:
            return {"type": "custom_tool_call_output", "call_id": call_id, "output": self._content(block.blocks)}
        return native_result(kind, call_id, block)

    def _add_reply(self, message: Message) -> None:
        """Add an earlier reply: its own items as they came, all else as text and calls."""
        phase = {name: message.extra[name] for name in _REPLY_FIELDS if message.extra.get(name) is not None}
        sent: list[dict[str, Any]] = []
        for unit in self._units(message):
            item = item_of(unit.blocks) if unit.is_item else None
            if item is None:
                for block in unit.blocks:
                    self._add_block(
                        sent, block, phase, is_own=not unit.is_item and not unit.is_broken and self._is_own(block, message)
                    )
            elif not _is_empty_message(item):
                self._note_calls(unit.blocks, item)
                sent.append(self._with_new_id(item))
        self._encoded.extend(_with_reasoning(sent))

    def _units(self, message: Message) -> list[_Unit]:
        """Return the blocks of a reply, those of one item together. An item of which a block was changed is none any more.

        The items are in the provider's order: the first block of one may have begun after that of the next.
        """
        units: list[_Unit] = []
        items: dict[int, _Unit] = {}  # those of the latest reply, if a client has joined several
        for block in message.blocks:
            state = block.state
            number = None if state is None or not self._is_own(block, message) else state.item
            if number is not None and number in items:
                if state is None or ITEM not in state.fields:
                    items[number].blocks.append(block)
                    continue
                _sort(units, items)
                items = {}
            if number is None and state is None and units and units[-1].is_item and _may_be_part(block, units[-1].blocks[0]):
                units[-1].is_item = False
                units[-1].is_broken = True
            unit = _Unit([block], is_item=number is not None)
            units.append(unit)
            if number is not None:
                items[number] = unit
        _sort(units, items)
        return units

    def _add_block(self, sent: list[dict[str, Any]], block: Block, phase: JsonObject, *, is_own: bool) -> None:
        """Add a block that is not part of an item of this provider's."""
        match block:
            case Thinking() | RedactedThinking() if is_own and block.state is not None and block.state.opaque is not None:
                summary = (
                    [{"type": PART_TYPES["summary"], "text": block.text}] if isinstance(block, Thinking) and block.text else []
                )
                sent.append({"type": REASONING, "summary": summary, ENCRYPTED: block.state.opaque})
            case Text(text=text) | Refusal(text=text) | Audio(transcript=text) if text:
                if sent and "type" not in sent[-1]:
                    sent[-1]["content"] += text
                else:
                    sent.append({"role": "assistant", "content": text, **phase})
            case ToolCall():
                self._add_call(sent, block, is_own=is_own)
            case Image():
                self._pictures += of_the_user(block, self._part)
            case Compaction() if is_own and block.state is not None and block.state.opaque is not None:
                sent.append({"type": COMPACTION, ENCRYPTED: block.state.opaque})
            case Opaque() if is_own and block.form.get("type"):
                sent.append(dict(block.form))
            case _:
                pass

    def _add_call(self, sent: list[dict[str, Any]], block: ToolCall, *, is_own: bool) -> None:
        """Add a call without an item. One of a type that only another provider knows is dropped, and later its result."""
        if block.type == FUNCTION_CALL:
            self._functions += 1
            block = replace(block, id=self._function_id, type=FUNCTION)
        item: dict[str, Any] = {"type": FUNCTION_ITEM, "call_id": short_call_id(block.id)}
        if block.type == FUNCTION:
            item |= {"name": NAMES.sent(block.name), "arguments": block.arguments or "{}"}
        elif block.type == CUSTOM:
            item |= {"type": CUSTOM_ITEM, "name": block.name, "input": block.arguments}
        elif is_own and (action := action_json(block.type, decoded_json(block.arguments))):
            item |= {"type": block.type, **action}
        else:
            self._dropped_calls.add(block.id)
            return
        self._calls[block.id] = block.type, None
        sent.append(item)

    def _with_new_id(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the item, without its id if another has it: the API refuses a history that has one reply twice."""
        given = item.get("id")
        if given in self._ids:
            return {name: value for name, value in item.items() if name != "id"}
        if isinstance(given, str):
            self._ids.add(given)
        return item

    def _note_calls(self, blocks: list[Block], item: JsonObject) -> None:
        for block in blocks:
            if isinstance(block, ToolCall):
                self._calls[block.id] = block.type, item.get(_CALLER)

    @property
    def _function_id(self) -> str:
        """Return the id for the latest function call of OpenAI's API of 2023."""
        return f"call_{self._functions}"

    def _is_own(self, block: Block, message: Message) -> bool:
        """Return whether this deployment made a block, or the caller wrote it. The API encrypts by organisation and region."""
        origin = message.origin_of(block)
        return origin.is_at(self._origin) if origin is not None else block.state is None

    def _content(self, blocks: Sequence[Block]) -> str | list[JsonObject]:
        """Return the content: a string for a single text or none, otherwise a list."""
        match blocks:
            case ():
                return ""
            case (Text(text=text, extra=extra),) if not extra.keys() & {*_PART_FIELDS}:
                return text
            case _:
                return [self._part(block) for block in blocks]

    def _part(self, block: Block) -> JsonObject:
        """Return a block as a part of the content. Raises `Unsupported` for blocks that this API cannot express."""
        extra = {name: block.extra[name] for name in _PART_FIELDS if name in block.extra}
        match block:
            case Text(text=text) | Refusal(text=text):
                return {"type": "input_text", "text": text, **extra}
            case Image():
                return {"type": "input_image", **media_json(block, "image_url"), "detail": block.detail or "auto", **extra}
            case Document():
                return {"type": "input_file", **file_json(block), **extra}
            case Opaque():
                return block.form
            case _:
                kind = type(block).__name__
                raise Unsupported(f"The provider {self._provider} accepts no {kind} here.", provider=self._provider)


def _sort(units: list[_Unit], items: Mapping[int, _Unit]) -> None:
    """Put the items in order of number, in the places that they have among the other units."""
    numbers = list(items)
    if numbers != sorted(numbers):
        ids = {id(unit) for unit in items.values()}
        places = [place for place, unit in enumerate(units) if id(unit) in ids]
        for place, number in zip(places, sorted(numbers), strict=True):
            units[place] = items[number]


def _with_reasoning(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items without the reasoning that cannot be sent, or without its id (see above)."""
    kept: list[dict[str, Any]] = []
    for item in reversed(sent):
        if item.get("type") != REASONING:
            kept.append(item)
        elif kept and isinstance(item.get(ENCRYPTED), str):
            kept.append(item if "id" in kept[-1] else {name: value for name, value in item.items() if name != "id"})
    return kept[::-1]


def _may_be_part(block: Block, first: Block) -> bool:
    """Return whether a block without a state may have been a part of the item that begins with `first`."""
    texts, thoughts = (Text, Refusal), (Thinking, RedactedThinking)
    return any(isinstance(block, kinds) and isinstance(first, kinds) for kinds in (texts, thoughts))


def _is_empty_message(item: JsonObject) -> bool:
    """Return whether an item is a message without content, which the API refuses."""
    return item.get("type") == MESSAGE and not any(part.get("text") != "" for part in item.get("content") or ())


def _is_item(form: JsonObject) -> bool:
    """Return whether a caller's block is an item of its own, not a part of a message."""
    kind = form.get("type")
    return isinstance(kind, str) and (kind.endswith("_output") or kind in ("mcp_approval_response", "item_reference"))
