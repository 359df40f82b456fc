"""Rows to values and back: how a message becomes JSON, what text can be stored, and what a page token holds.

No SQL here.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, Final, TypeVar

import msgspec

from antiphon.errors import InvalidRequest, Violation
from antiphon.history.base import MAX_SOURCE, MAX_TITLE, Conversation, MessageState, StoredMessage
from antiphon.history.ids import is_id
from antiphon.messages import FinishReason, Message, Usage

MAX_REQUEST_ID: Final = 200

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_message: Final = msgspec.json.Decoder(Message)
_usage: Final = msgspec.json.Decoder(Usage)

# In JSON text: an odd number of backslashes before "u0000", so that it is the escape and not the words.
_NUL: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")

Token = TypeVar("Token", bound=msgspec.Struct)


class ListToken(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """Where a page of conversations ended, and of which query: `filters` is a digest of it."""

    filters: str
    pinned: bool
    updated: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    id: str


class PathToken(msgspec.Struct, frozen=True, array_like=True, tag="m"):
    """Where a page of messages ended: the next is the one at `depth` on the path that ends at `last`."""

    conversation: str
    last: str
    depth: Annotated[int, msgspec.Meta(ge=0, le=2**30)]


def now() -> int:
    """Microseconds since 1970."""
    return (datetime.now(UTC) - _EPOCH) // _MICROSECOND


def time(microseconds: int) -> datetime:
    """The time that is stored as `microseconds`."""
    return _EPOCH + timedelta(microseconds=microseconds)


def conversation(row: Sequence[Any]) -> Conversation:
    """Of the columns `statements.CONVERSATION`; more may follow."""
    id_, owner, title, pinned, source, created, updated, count, head, forked_from, *_ = row
    return Conversation(id_, owner, title, pinned, source, time(created), time(updated), count, head, forked_from)


def stored(row: Sequence[Any]) -> StoredMessage:
    """Of the columns `statements.MESSAGE`."""
    id_, parent, body, state, created, request_id, model, provider, usage, finish_reason, error_reason = row
    return StoredMessage(
        id_,
        parent,
        _message.decode(body),
        MessageState(state),
        time(created),
        request_id or "",
        model,
        provider,
        None if usage is None else _usage.decode(usage),
        None if finish_reason is None else FinishReason(finish_reason),
        error_reason,
    )


def bodies(messages: Sequence[Message]) -> list[str]:
    """The messages as JSON. Raises `InvalidRequest` for text that a database cannot hold: NUL, half a surrogate pair."""
    return [_body(message, ("messages", index)) for index, message in enumerate(messages)]


def reply(message: Message) -> str:
    """A model's message as JSON. Never refused, as it is there already: what cannot be stored becomes a replacement character."""
    try:
        encoded = msgspec.json.encode(message)
    except UnicodeEncodeError:
        encoded = json.dumps(msgspec.to_builtins(message), ensure_ascii=False).encode("utf-8", "replace")
    if b"\\u0000" in encoded:
        encoded = _NUL.sub("\\1\N{REPLACEMENT CHARACTER}".encode(), encoded)
    return encoded.decode()


def clean(text: str) -> str:
    """What a provider calls something, without what cannot be stored."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _body(message: Message, path: tuple[str | int, ...]) -> str:
    try:
        encoded = msgspec.json.encode(message)
    except UnicodeEncodeError:
        raise _bad(path, "has half a surrogate pair, which is no character") from None
    if b"\\u0000" in encoded and _NUL.search(encoded):
        raise _bad(path, "has a NUL character, which cannot be stored")
    return encoded.decode()


def usage(value: Usage | None) -> str | None:
    """Token counts as JSON."""
    return None if value is None else msgspec.json.encode(value).decode()


def check_title(title: str) -> None:
    """Raises `InvalidRequest` for a title that cannot be stored."""
    check_text(title, "title", MAX_TITLE)


def check_source(source: str) -> None:
    """Raises `InvalidRequest` for a source that cannot be stored."""
    check_text(source, "source", MAX_SOURCE)


def check_request_id(request_id: str) -> None:
    """Raises `InvalidRequest` for a request id that cannot be stored."""
    check_text(request_id, "request_id", MAX_REQUEST_ID)


def check_text(text: str, field: str, longest: int) -> None:
    """Raises `InvalidRequest` for text of more than `longest` characters, and for what a database cannot hold."""
    if len(text) > longest:
        raise _bad((field,), f"has more than {longest} characters")
    if "\0" in text:
        raise _bad((field,), "has a NUL character, which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _bad((field,), "has half a surrogate pair, which is no character") from None


def _bad(path: tuple[str | int, ...], message: str) -> InvalidRequest:
    where = ".".join(map(str, path))
    return InvalidRequest(f"{where}: {message}", (Violation(path, message),))


def digest(*filters: str | bool | None) -> str:
    """A short name for a set of filters."""
    return blake2b(repr(filters).encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()


def token(value: ListToken | PathToken) -> str:
    """A page token: opaque to callers, and safe in a URL. Not signed: whatever it says, a query stays within its owner."""
    return urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def read_token(text: str, kind: type[Token]) -> Token:
    """The page token. Raises `InvalidRequest` for one that is not ours, or of another list."""
    try:
        value = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, msgspec.MsgspecError):
        raise bad_token() from None
    ids = (value.id,) if isinstance(value, ListToken) else (value.last,) if isinstance(value, PathToken) else ()
    if not all(map(is_id, ids)):
        raise bad_token()
    return value


def bad_token() -> InvalidRequest:
    """What is raised for a page token that is not of this list."""
    return _bad(("page_token",), "is not one that this list gave")
