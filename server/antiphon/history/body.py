"""Reads the message of a stored row, however damaged: one unreadable message must not hide the others. No I/O.

Requests are limited to fewer levels of JSON than are read here. But stored rows may be older than that limit, and too deep to be
written again.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
import structlog

from antiphon.domain.content import Message, Role, Text
from antiphon.history import stored_form
from antiphon.history.base import ProviderReplyInfo

LEVELS: Final = 128
"""The most levels of nested objects and lists that are read from a row; deeper values are read as null."""

UNREADABLE: Final = "[This message cannot be read.]"
"""The text shown in place of a message that cannot be read."""


class _OtherFields(msgspec.Struct, frozen=True):
    """The other fields in the JSON object of a stored message, which the decoder of messages ignores."""

    provider_info: ProviderReplyInfo = msgspec.field(name="told", default=ProviderReplyInfo())


_other_fields: Final = msgspec.json.Decoder(_OtherFields)
_TOKENS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]')
_ROLE: Final = re.compile(r'\{"role":"([a-z]+)"')

log = structlog.get_logger(__name__)


def read(body: str, message_id: str, provider: str = "", model: str = "") -> Message:
    """Return the message in `body`, the JSON of a row; a placeholder if it cannot be decoded, with an error in the log.

    `message_id`, `provider` and `model` are those of the row.
    """
    try:
        # Rare: most rows have fewer brackets in total, so that counting them suffices.
        pruned_body = pruned(body, LEVELS) if body.count("{") + body.count("[") > LEVELS else body
        return stored_form.decode(pruned_body, provider, model)
    except msgspec.MsgspecError as error:
        log.error("message_unreadable", message=message_id, error=type(error).__name__)  # noqa: TRY400  # the message has no place in the log
        found = _ROLE.match(body)
        role = Role(found[1]) if found and found[1] in list(Role) else Role.ASSISTANT
        return Message(role, (Text(UNREADABLE),))


def provider_info(body: str) -> ProviderReplyInfo:
    """Return what the provider sent with a reply, from the JSON of its row; empty if the row has none."""
    try:
        return _other_fields.decode(body).provider_info
    except (msgspec.MsgspecError, RecursionError):
        return ProviderReplyInfo()


def pruned(body: str, levels: int) -> str:
    """Return JSON text with null in place of values nested deeper than `levels`."""
    pieces: list[str] = []
    depth = begin = 0
    for token in _TOKENS.finditer(body):
        if token[0] in {"{", "["}:
            depth += 1
            if depth == levels + 1:
                pieces += (body[begin : token.start()], "null")
        elif token[0] in {"}", "]"}:
            if depth == levels + 1:
                begin = token.end()
            depth -= 1
    return "".join((*pieces, body[begin:]))
