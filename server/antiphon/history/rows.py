"""Rows to values and back: how a message becomes JSON, what text can be stored, and what a page token holds.

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
from antiphon.history.base import MAX_REQUEST_ID, MAX_SOURCE, MAX_TITLE, Conversation, MessageState, StoredMessage, Told, TurnEnd
from antiphon.history.body import read, told

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


class BranchToken(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """Where a page of branches ended: the end of its last one."""

    conversation: str
    last: str


def conversation(row: Sequence[Any]) -> Conversation:
    """Of the columns `statements.CONVERSATION`; more may follow."""
    id_, owner, title, pinned, source, created, updated, count, head, forked_from, *_ = row
    return Conversation(id_, owner, title, pinned, source, clock.read(created), clock.read(updated), count, head, forked_from)


def stored(row: Sequence[Any]) -> StoredMessage:
    """Of the columns `statements.MESSAGE`."""
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


_FINISHED: Final = {
    FinishReason.REFUSAL: FinishReason.CONTENT_FILTER,
    FinishReason.PAUSE: FinishReason.LENGTH,
    FinishReason.CONTEXT_WINDOW: FinishReason.LENGTH,
}
"""Finish reasons that the version before does not know, and what it is told in their place."""


def finish_word(reason: FinishReason | None) -> str | None:
    """Return the word for a finish reason in its column."""
    return None if reason is None else _FINISHED.get(reason, reason).value


def beside(end: TurnEnd) -> Told:
    """Return what is stored beside a reply."""
    reason = end.finish_reason
    return end.told if reason is None or finish_word(reason) == reason else replace(end.told, finish=reason.value)


def _finish_reason(word: str, body: str) -> FinishReason:
    if word == "function_call":  # of versions before
        return FinishReason.TOOL_CALLS
    if '"finish":"' in body and (exact := told(body).finish) in list(FinishReason):
        return FinishReason(exact)
    return FinishReason(word)


def bodies(messages: Sequence[Message]) -> list[str]:
    """The messages as JSON. Raises `InvalidRequest` for text that a database cannot hold: NUL, half a surrogate pair."""
    return [_body(message, ("messages", index)) for index, message in enumerate(messages)]


def reply(message: Message, info: Told = Told()) -> str:  # noqa: B008  # it cannot be changed
    """A model's message as JSON. Never refused, as it is there already: what cannot be stored is replaced, or left out.

    What was told of it is in the same object.
    """
    try:
        encoded = stored_form.encode(message)
    except UnicodeEncodeError:
        encoded = json.dumps(stored_form.builtins(message), ensure_ascii=False).encode("utf-8", "replace")
    except RecursionError:
        encoded = stored_form.encode(_without_fields(message))  # a provider's own, nested without end
    if info != Told():
        clean = Told(text.clean(info.id), info.created, text.clean(info.reason), info.finish)
        encoded = encoded[:-1] + b',"told":' + msgspec.json.encode(clean) + b"}"
    return without_nul(encoded).decode()


def _without_fields(message: Message) -> Message:
    """Return the message without what only its provider knows."""
    kept = (block for block in message.blocks if not isinstance(block, Opaque))
    blocks = tuple(
        block if block.state is None else replace(block, state=replace(block.state, fields=NOTHING), extra=NOTHING)
        for block in kept
    )
    return replace(message, blocks=blocks, extra=NOTHING, fields=NOTHING)


def without_nul(encoded: bytes) -> bytes:
    """JSON with a replacement character for each NUL; the very same object if it has none."""
    if b"\\u0000" not in encoded or not _NUL.search(encoded):
        return encoded
    return _NUL.sub("\\1\N{REPLACEMENT CHARACTER}".encode(), encoded)


def _body(message: Message, path: tuple[str | int, ...]) -> str:
    try:
        encoded = stored_form.encode(message)
    except UnicodeEncodeError:
        raise text.bad(path, "has half a surrogate pair, which is no character") from None
    if b"\\u0000" in encoded and _NUL.search(encoded):
        raise text.bad(path, "has a NUL character, which cannot be stored")
    return encoded.decode()


def usage(value: Usage | None) -> str | None:
    """Token counts as JSON."""
    return None if value is None else msgspec.json.encode(value).decode()


def check_title(title: str) -> None:
    """Raises `InvalidRequest` for a title that cannot be stored."""
    text.check(title, "title", MAX_TITLE)


def check_source(source: str) -> None:
    """Raises `InvalidRequest` for a source that cannot be stored."""
    text.check(source, "source", MAX_SOURCE)


def check_request_id(request_id: str) -> None:
    """Raises `InvalidRequest` for a request id that cannot be stored."""
    text.check(request_id, "request_id", MAX_REQUEST_ID)


def digest(*filters: str | bool | None) -> str:
    """A short name for a set of filters."""
    return blake2b(repr(filters).encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()


def read_token(written: str, kind: type[Token]) -> Token:
    """The page token. Raises `InvalidRequest` for one that is not ours, or of another list."""
    value = paging.read_token(written, kind)
    ids = (value.id,) if isinstance(value, ListToken) else (value.last,) if isinstance(value, PathToken | BranchToken) else ()
    if not all(map(is_id, ids)):
        raise paging.bad_token()
    return value


NO_REPLY: Final = reply(Message(Role.ASSISTANT, ()))
"""The body of a reply of which nothing came."""
