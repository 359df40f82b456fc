"""Converts rows to values and back: messages as JSON, checks of text that can be stored, and the contents of page tokens.

No SQL here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from antiphon.database import clock, paging, text
from antiphon.database.ids import is_id
from antiphon.domain.content import NOTHING, Message, Opaque, Role
from antiphon.domain.events import FinishReason, Usage
from antiphon.history import stored_form
from antiphon.history.base import (
    MAX_REQUEST_ID,
    MAX_SOURCE,
    MAX_TITLE,
    Conversation,
    MessageState,
    ProviderReplyInfo,
    StoredMessage,
    TurnEnd,
)
from antiphon.history.body import provider_info, read

_usage: Final = msgspec.json.Decoder(Usage)

# An escaped NUL in JSON: "u0000" after an odd number of backslashes; after an even number it is text.
_NUL: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")

Token = TypeVar("Token", bound=msgspec.Struct)


class ListToken(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """The position where a page of conversations ended: fields of its last one, and a digest of the query's filters."""

    filters: str
    pinned: bool
    updated: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    id: str


class PathToken(msgspec.Struct, frozen=True, array_like=True, tag="m"):
    """The position where a page of messages ended: the next message is the one at `depth` on the path that ends at `last`."""

    conversation: str
    last: str
    depth: Annotated[int, msgspec.Meta(ge=0, le=2**30)]


class BranchToken(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """The position where a page of branches ended: the last message of its last branch."""

    conversation: str
    last: str


def conversation(row: Sequence[Any]) -> Conversation:
    """Return the conversation of a row with the columns `statements.CONVERSATION`; further columns are ignored."""
    id_, owner, title, pinned, source, created, updated, count, head, forked_from, *_ = row
    return Conversation(id_, owner, title, pinned, source, clock.read(created), clock.read(updated), count, head, forked_from)


def stored(row: Sequence[Any]) -> StoredMessage:
    """Return the message of a row with the columns `statements.MESSAGE`."""
    id_, parent, body, state, created, request_id, model, provider, usage, finish_reason, error_reason = row
    return StoredMessage(
        id_,
        parent,
        read(body, id_, provider, model),
        MessageState(state),
        clock.read(created),
        request_id or "",
        model,
        provider,
        None if usage is None else _usage.decode(usage),
        None if finish_reason is None else _finish_reason(finish_reason, body),
        error_reason,
    )


_OLD_FINISH_REASONS: Final = {
    FinishReason.REFUSAL: FinishReason.CONTENT_FILTER,
    FinishReason.PAUSE: FinishReason.LENGTH,
    FinishReason.CONTEXT_WINDOW: FinishReason.LENGTH,
}
"""Finish reasons that the previous version does not know, and the ones stored in the column in their place."""


def finish_reason_column(reason: FinishReason | None) -> str | None:
    """Return the value of the finish reason's column, one that the previous version can read."""
    return None if reason is None else _OLD_FINISH_REASONS.get(reason, reason).value


def stored_provider_info(end: TurnEnd) -> ProviderReplyInfo:
    """Return the provider's information to store with a reply, with the exact finish reason if the column cannot have it."""
    reason, info = end.finish_reason, end.provider_info
    return info if reason is None or finish_reason_column(reason) == reason else replace(info, finish=reason.value)


def _finish_reason(word: str, body: str) -> FinishReason:
    """Return the finish reason of a row: the exact one in `body` if it has one, else the column's."""
    if word == "function_call":  # written by older versions
        return FinishReason.TOOL_CALLS
    if '"finish":"' in body and (exact := provider_info(body).finish) in list(FinishReason):
        return FinishReason(exact)
    return FinishReason(word)


def bodies(messages: Sequence[Message]) -> list[str]:
    """Return each message as JSON. Raises `InvalidRequest` for text that a database cannot store: NUL, half a surrogate pair."""
    return [_body(message, ("messages", index)) for index, message in enumerate(messages)]


def reply(message: Message, info: ProviderReplyInfo = ProviderReplyInfo()) -> str:  # noqa: B008  # immutable
    """Return a model's message as JSON, with `info` in the same object.

    Never raises, as the reply has been given already: characters and fields that cannot be stored are replaced, or left out.
    """
    try:
        encoded = stored_form.encode(message)
    except UnicodeEncodeError:
        encoded = json.dumps(stored_form.builtins(message), ensure_ascii=False).encode("utf-8", "replace")
    except RecursionError:
        encoded = stored_form.encode(_without_fields(message))  # a provider's fields, nested too deep
    if info != ProviderReplyInfo():
        encoded = encoded[:-1] + b',"told":' + _encoded_info(info) + b"}"
    return without_nul(encoded).decode()


def _encoded_info(info: ProviderReplyInfo) -> bytes:
    """Return what a provider sent with a reply as JSON; without its fields if they cannot be stored."""
    clean = replace(info, id=text.clean(info.id), reason=text.clean(info.reason))
    try:
        return msgspec.json.encode(clean)
    except (UnicodeEncodeError, RecursionError):
        return msgspec.json.encode(replace(clean, fields=NOTHING, choice=NOTHING, details=NOTHING))


def _without_fields(message: Message) -> Message:
    """Return the message without the fields and blocks that only its provider knows."""
    kept = (block for block in message.blocks if not isinstance(block, Opaque))
    blocks = tuple(
        block if block.state is None else replace(block, state=replace(block.state, fields=NOTHING), extra=NOTHING)
        for block in kept
    )
    return replace(message, blocks=blocks, extra=NOTHING, fields=NOTHING)


def without_nul(encoded: bytes) -> bytes:
    """Return JSON with a replacement character in place of each NUL; the same object if it has none."""
    if b"\\u0000" not in encoded or not _NUL.search(encoded):
        return encoded
    return _NUL.sub("\\1\N{REPLACEMENT CHARACTER}".encode(), encoded)


def _body(message: Message, path: tuple[str | int, ...]) -> str:
    """Return one message as JSON. Raises `InvalidRequest`, with `path` as the place of the fault."""
    try:
        encoded = stored_form.encode(message)
    except UnicodeEncodeError:
        raise text.bad(path, "has half a surrogate pair, which is no character") from None
    if b"\\u0000" in encoded and _NUL.search(encoded):
        raise text.bad(path, "has a NUL character, which cannot be stored")
    return encoded.decode()


def usage(value: Usage | None) -> str | None:
    """Return token counts as JSON."""
    return None if value is None else msgspec.json.encode(value).decode()


def check_title(title: str) -> None:
    """Raise `InvalidRequest` for a title that cannot be stored."""
    text.check(title, "title", MAX_TITLE)


def check_source(source: str) -> None:
    """Raise `InvalidRequest` for a source that cannot be stored."""
    text.check(source, "source", MAX_SOURCE)


def check_request_id(request_id: str) -> None:
    """Raise `InvalidRequest` for a request id that cannot be stored."""
    text.check(request_id, "request_id", MAX_REQUEST_ID)


def digest(*filters: str | bool | None) -> str:
    """Return a short hash of a set of filters, to compare those of a page token with those of the request."""
    return blake2b(repr(filters).encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()


def read_token(written: str, kind: type[Token]) -> Token:
    """Return the decoded page token. Raises `InvalidRequest` for an invalid one, or one of another list."""
    value = paging.read_token(written, kind)
    ids = (value.id,) if isinstance(value, ListToken) else (value.last,) if isinstance(value, PathToken | BranchToken) else ()
    if not all(map(is_id, ids)):
        raise paging.bad_token()
    return value


EMPTY: Final = Message(Role.ASSISTANT, ())
"""A reply without output."""

NO_REPLY: Final = reply(EMPTY)
"""The body of a reply without output."""
