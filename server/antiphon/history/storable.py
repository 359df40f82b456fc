"""Events of a reply without what no database can hold: the character NUL. No I/O.

It runs for every token: what has nothing to replace is given back as it is.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from antiphon.database import text
from antiphon.history import rows
from antiphon.messages import AudioDelta, Event, ExtraDelta, RefusalDelta, TextDelta, ThinkingDelta, ToolCallDelta


def storable(event: Event) -> Event:
    """The event itself, or one with a replacement character for each NUL: as `rows.reply` stores them."""
    match event:
        case TextDelta() | RefusalDelta() | ThinkingDelta():
            return replace(event, text=text.clean(event.text)) if "\0" in event.text else event
        case ToolCallDelta():
            return replace(event, arguments=text.clean(event.arguments)) if "\0" in event.arguments else event
        case AudioDelta():
            return replace(event, transcript=text.clean(event.transcript)) if "\0" in event.transcript else event
        case ExtraDelta():
            return _storable_fields(event)
        case _:
            return event


def _storable_fields(event: ExtraDelta) -> ExtraDelta:
    try:
        encoded = msgspec.json.encode(event.fields)
    except RecursionError:
        return event  # nothing of it will be stored
    clean = rows.without_nul(encoded)
    return event if clean is encoded else replace(event, fields=msgspec.json.decode(clean))
