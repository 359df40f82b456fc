"""Replaces the character NUL, which no database can store, in the events of a reply. No I/O.

It runs for every token, so an event without NUL is returned as it is.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec.structs import replace

from antiphon.database import text
from antiphon.domain.content import JsonObject
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    Event,
    ExtraFields,
    InputDelta,
    MediaDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
)
from antiphon.history import rows

_MAY_HAVE_NUL: Final = frozenset(
    {TextDelta, InputDelta, ThinkingDelta, RefusalDelta, MediaDelta, BlockStarted, BlockFinished, ExtraFields}
)


def clean(batch: Batch) -> None:
    """Replace the events of a batch that cannot be stored, in the batch itself."""
    for at, event in enumerate(batch):
        if type(event) in _MAY_HAVE_NUL:
            batch[at] = storable(event)


def storable(event: Event) -> Event:
    """Return the event with a replacement character for each NUL, as `rows.reply` stores it; the same object if it has none."""
    match event:
        case TextDelta() | InputDelta() | ThinkingDelta() | RefusalDelta():
            return replace(event, text=text.clean(event.text)) if "\0" in event.text else event
        case MediaDelta():
            return replace(event, transcript=text.clean(event.transcript)) if "\0" in event.transcript else event
        case BlockStarted() if event.value.state is not None and event.value.state.fields:
            fields = _storable_fields(event.value.state.fields)
            if fields is event.value.state.fields:
                return event
            return replace(event, value=replace(event.value, state=replace(event.value.state, fields=fields)))
        case BlockFinished() if event.state is not None and event.state.fields:
            fields = _storable_fields(event.state.fields)
            return event if fields is event.state.fields else replace(event, state=replace(event.state, fields=fields))
        case ExtraFields():
            fields = _storable_fields(event.fields)
            return event if fields is event.fields else replace(event, fields=fields)
        case _:
            return event


def _storable_fields(fields: JsonObject) -> JsonObject:
    """Return the fields without NUL; the same object if they have none."""
    try:
        encoded = msgspec.json.encode(fields)
    except RecursionError:
        return fields  # `rows.reply` will leave them out
    clean = rows.without_nul(encoded)
    return fields if clean is encoded else msgspec.json.decode(clean, type=dict[str, Any])
