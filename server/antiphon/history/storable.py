"""Events of a reply without what no database can hold: the character NUL. No I/O.

It runs for every token: what has nothing to replace is given back as it is.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from antiphon.database import text
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
            return event if b"u0000" not in msgspec.json.encode(event.fields) else replace(event, fields=_clean(event.fields))
        case _:
            return event


def _clean(value: Any) -> Any:
    match value:
        case str():
            return text.clean(value)
        case dict():
            return {_clean(name): _clean(inner) for name, inner in value.items()}
        case list():
            return [_clean(inner) for inner in value]
        case _:
            return value
