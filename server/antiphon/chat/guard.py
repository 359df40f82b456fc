"""The second stage: what the guards make of what a caller says, before it is stored or sent."""

from __future__ import annotations

from msgspec.structs import replace

from antiphon.guards.service import Guards
from antiphon.history.base import MAX_SOURCE, MAX_TITLE
from antiphon.history.recorder import Record


async def guarded_record(record: Record, guards: Guards) -> Record:
    """Return what the caller says beside the messages, guarded. Raises `ContentBlocked`.

    What stands for a match may be longer than it, so the bounds are held once more.
    """
    title, source = await guards.text(record.title), await guards.text(record.source)
    preamble = await guards.messages(record.preamble)
    return replace(record, title=title[:MAX_TITLE], source=source[:MAX_SOURCE], preamble=preamble)
