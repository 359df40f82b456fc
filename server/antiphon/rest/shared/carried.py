"""A provider's state of a block, in a single text that chat completions have a field for. No I/O.

Chat completions have fields for signatures, and none for the rest of what a provider of another protocol wants to have back: the
fields of its form, which item a block is part of, which piece of the text it is. All of it is in the wrapper of the signature
(`antiphon.domain.opaque`), so that it lives and dies with it. State of the same protocol has its fields beside it, as ever.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from antiphon.domain.content import CUSTOM, FUNCTION, NOTHING, Block, JsonObject, Origin, State, Text, Thinking, ToolCall
from antiphon.domain.opaque import unwrap, wrap
from antiphon.providers.codec.values import MAX_INDEX, as_object, is_shallow
from antiphon.providers.openai.blocks import is_chat
from antiphon.providers.openai.details import ENCRYPTED
from antiphon.rest.shared.places import BlockPlace

_FIELDS: Final = "fields"
_ITEM: Final = "item"
_KIND: Final = "field"
_TEXT: Final = "text"
_CALL: Final = "call"
"""The names in the wrapper. `Thinking.field` is `field`; `text` is the place of the text, and `call` the id of the call, that has
the state, if it does not stand beside them."""


class Carried(Struct, frozen=True):
    """What a client sends back of a block."""

    state: State
    field: str = ""
    """`Thinking.field`."""
    text: BlockPlace | None = None
    call: str = ""


def carried(block: Block, origin: Origin | None, *, text: BlockPlace | None = None, call: str = "") -> str | None:
    """Return the state of a block as a client gets it; None if it has none that goes beyond its fields.

    `origin` is that of the reply. `text` and `call` say what the state belongs to.
    """
    state = block.state
    if state is None:
        return None
    made_by = state.origin or origin
    if made_by is None or is_chat(made_by) or not (made_by.provider or made_by.deployment):
        return None if state.opaque is None else wrap(state.opaque, made_by)
    if state.opaque is None and state.item is None:
        return None
    more: dict[str, Any] = {_FIELDS: state.fields, _ITEM: state.item, _CALL: call}
    if isinstance(block, Thinking):
        more[_KIND] = block.field
    if text is not None:
        more[_TEXT] = [text.texts, text.calls, text.start, text.end]
    return wrap(state.opaque or "", made_by, {name: value for name, value in more.items() if value not in (None, "", NOTHING)})


def item_entry(block: Text | ToolCall, origin: Origin, index: int, place: BlockPlace | None = None) -> dict[str, Any] | None:
    """Return the entry of `reasoning_details` with the item of a text or a call; None if it is not part of one.

    `index` is the number of entries before it. The first one is not needed, as only reasoning has to go back with the items that
    follow it, unless the item says what kind of answer the text is (`phase`), or is of a call that only this provider has.
    """
    state = block.state
    if state is None or state.opaque is not None or state.item is None or is_chat(origin):
        return None
    is_native = isinstance(block, ToolCall) and block.type not in (FUNCTION, CUSTOM)
    if index == 0 and not is_native and not as_object(state.fields.get(_ITEM)).get("phase"):
        return None
    data = carried(block, origin, text=place, call=block.id if isinstance(block, ToolCall) else "")
    return None if data is None else {"type": ENCRYPTED, "index": index, "data": data}


def read_carried(value: str, fields: JsonObject = NOTHING) -> Carried:
    """Return the state in a value that a client sent. `fields` are those beside it, which are those of a chat provider."""
    found = unwrap(value)
    if found.origin is None or is_chat(found.origin):
        return Carried(State(found.original, fields, origin=found.origin))
    more = found.more if is_shallow(found.more) else NOTHING
    own, item, kind, call = (more.get(name) for name in (_FIELDS, _ITEM, _KIND, _CALL))
    state = State(
        found.original or (None if _is_index(item) else ""),
        own if isinstance(own, dict) else NOTHING,
        item if _is_index(item) else None,
        found.origin,
    )
    return Carried(state, kind if isinstance(kind, str) else "", _place(more.get(_TEXT)), call if isinstance(call, str) else "")


def _place(numbers: object) -> BlockPlace | None:
    if isinstance(numbers, list) and len(numbers) == 4 and all(map(_is_index, numbers)):
        texts, calls, start, end = numbers
        return BlockPlace(texts, calls, start, end) if start <= end else None
    return None


def _is_index(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_INDEX
