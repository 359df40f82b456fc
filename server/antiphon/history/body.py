"""The message in a stored row, whatever is in that row: one that cannot be read must not hide the others of its chat. No I/O.

What callers send is held to fewer levels of JSON than are read here; but what is stored may be older than that rule, and too deep
for what writes it again.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
import structlog

from antiphon.domain.content import Message, Role, Text
from antiphon.history import stored_form
from antiphon.history.base import Told

LEVELS: Final = 128
"""The most levels of objects and lists in a row; what is deeper is read as null."""

UNREADABLE: Final = "[This message cannot be read.]"
"""The text of a message that is no message."""


class _Beside(msgspec.Struct, frozen=True):
    """What a row has beside the message, in the same object: what reads the message passes over it."""

    told: Told = Told()


_beside: Final = msgspec.json.Decoder(_Beside)
_TOKENS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]')
_ROLE: Final = re.compile(r'\{"role":"([a-z]+)"')

log = structlog.get_logger(__name__)


def read(body: str, message_id: str, provider: str = "", model: str = "") -> Message:
    """Return the message of that id; `provider` and `model` are those of its row."""
    try:
        # Few have so many brackets, and most of those have them in their text.
        pruned_body = pruned(body, LEVELS) if body.count("{") + body.count("[") > LEVELS else body
        return stored_form.decode(pruned_body, provider, model)
    except msgspec.MsgspecError as error:
        log.error("message_unreadable", message=message_id, error=type(error).__name__)  # noqa: TRY400  # what it holds is not for the log
        found = _ROLE.match(body)
        role = Role(found[1]) if found and found[1] in list(Role) else Role.ASSISTANT
        return Message(role, (Text(UNREADABLE),))


def told(body: str) -> Told:
    """What was told of a reply beside the message; nothing, in a row that has none of it."""
    try:
        return _beside.decode(body).told
    except (msgspec.MsgspecError, RecursionError):
        return Told()


def pruned(body: str, levels: int) -> str:
    """JSON text with null for what is nested deeper than so many levels."""
    pieces: list[str] = []
    depth = kept = 0
    for token in _TOKENS.finditer(body):
        if token[0] in {"{", "["}:
            depth += 1
            if depth == levels + 1:
                pieces += (body[kept : token.start()], "null")
        elif token[0] in {"}", "]"}:
            if depth == levels + 1:
                kept = token.end()
            depth -= 1
    return "".join((*pieces, body[kept:]))
