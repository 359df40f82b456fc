"""The second stage: filters what a caller sends besides the messages, before it is stored or sent."""

from __future__ import annotations

from msgspec.structs import replace

from antiphon.guards.service import Guards
from antiphon.history.base import MAX_SOURCE, MAX_TITLE
from antiphon.history.recorder import Record


async def guarded_record(record: Record, guards: Guards) -> Record:
    """Return the record with title, source and preamble filtered. Raises `ContentBlocked`.

    A mask may be longer than the text it replaces, so title and source are cut to their limits again.
    """
    title, source = await guards.text(record.title), await guards.text(record.source)
    preamble = await guards.messages(record.preamble)
    return replace(record, title=title[:MAX_TITLE], source=source[:MAX_SOURCE], preamble=preamble)
