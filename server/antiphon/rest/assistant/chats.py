"""The stored chats of the assistant dialect: list, fetch, fork, pin, change, delete and create.

Its specification is the gateway's own document. A chat is a conversation of the caller. A chat of another owner is not found.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from google.api import httpbody_pb2
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from antiphon.domain.call import current
from antiphon.domain.errors import Violation
from antiphon.history.base import MAX_SOURCE, MAX_TITLE, Conversations
from antiphon.history.title import title_of
from antiphon.rest.assistant.fetched import chat_json, fetch
from antiphon.rest.shared.body import Fields, invalid, parse_in_turns, renaming
from antiphon.rest.shared.content import MessageBody, message_of
from antiphon.rest.shared.dialect import Context, Pieces
from antiphon.rest.shared.json import JSON, dumps
from antiphon.rest.v1 import assistant_pb2, assistant_pb2_grpc

STORED_FIELDS = frozenset({"messageId", "createdAt", "status", "model"})
"""Fields that FetchChat adds to a message. A client may send them back with the message; they are then ignored."""

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000


class ForkBody(Fields):
    """The chat to fork, and its last message in the copy: an id, or an index from 0. With neither, all of it is copied."""

    chat_id: str = Field(validation_alias=AliasChoices("chatId", "chat_id"))
    message_id: str | None = Field(default=None, validation_alias=AliasChoices("messageId", "message_id"))
    message_index: int | None = Field(default=None, ge=0, validation_alias=AliasChoices("messageIndex", "message_index"))
    title: str | None = Field(default=None, max_length=MAX_TITLE)


class PinBody(Fields):
    """Whether the chat is pinned from now on."""

    pinned: bool | None = None


class UpdateBody(BaseModel):
    """The fields to change; null is the same as not sent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str | None = Field(default=None, max_length=MAX_TITLE)
    pinned: bool | None = None


class NewBody(Fields):
    """A chat that was held elsewhere, to be stored."""

    title: str | None = Field(default=None, max_length=MAX_TITLE)
    messages: list[MessageBody] = Field(validation_alias=AliasChoices("messages", "chat_history"))
    source: str | None = Field(default=None, max_length=MAX_SOURCE)
    pinned: bool | None = None


class ChatsServicer(assistant_pb2_grpc.AssistantServiceServicer):
    """Serves the paths that call no model."""

    def __init__(self, store: Conversations) -> None:
        self._store = store

    async def ListChats(self, request: assistant_pb2.ListChatsRequest, context: Context) -> Pieces:
        """Yield one page of the caller's chats."""
        if not 0 <= request.page_size <= MAX_PAGE_SIZE:
            raise invalid(Violation(("page_size",), f"must be between 1 and {MAX_PAGE_SIZE}"))
        with renaming(lambda path: ("title",) if path == ("title_contains",) else path):
            page = await self._store.list(
                current().caller.owner,
                size=request.page_size or DEFAULT_PAGE_SIZE,
                token=request.page_token,
                pinned=request.pinned if request.HasField("pinned") else None,
                source=request.source,
                title_contains=request.title,
            )
        yield _json({"chats": [chat_json(chat) for chat in page.conversations], "nextPageToken": page.next_token or None})

    async def FetchChat(self, request: assistant_pb2.FetchChatRequest, context: Context) -> Pieces:
        """Yield one chat, with its messages and its branches."""
        async with aclosing(fetch(self._store, current().caller.owner, request.chat_id, request.branch_token)) as pieces:
            async for piece in pieces:
                yield httpbody_pb2.HttpBody(content_type=JSON, data=piece)

    async def ForkChat(self, request: assistant_pb2.ForkChatRequest, context: Context) -> Pieces:
        """Create a chat with the messages of another, up to the given one, and yield it."""
        body = await parse_in_turns(request.body.data, ForkBody)
        owner = current().caller.owner
        message_id = body.message_id
        if body.message_index is not None:
            if message_id is not None:
                raise invalid(Violation(("messageIndex",), "must not be given with messageId"))
            path = [each for each in (await self._store.messages(owner, body.chat_id)).messages if not each.is_retryable]
            if body.message_index >= len(path):
                raise invalid(Violation(("messageIndex",), f"must be less than {len(path)}, the number of messages"))
            message_id = path[body.message_index].id
        fork = await self._store.fork(owner, body.chat_id, message_id=message_id, title=_title_or_none(body.title))
        _set_created()
        yield _json(chat_json(fork))

    async def PinChat(self, request: assistant_pb2.PinChatRequest, context: Context) -> Pieces:
        """Pin or unpin a chat, and yield it."""
        body = await parse_in_turns(request.body.data, PinBody) if request.body.data.strip() else PinBody()
        chat = await self._store.update(current().caller.owner, request.chat_id, pinned=body.pinned is not False)
        yield _json(chat_json(chat))

    async def UpdateChat(self, request: assistant_pb2.UpdateChatRequest, context: Context) -> Pieces:
        """Change the title of a chat, or whether it is pinned, and yield it."""
        body = await parse_in_turns(request.body.data, UpdateBody)
        if body.title is None and body.pinned is None:
            raise invalid(Violation((), "The body must hold title or pinned."))
        if body.title is not None and _title_or_none(body.title) is None:
            raise invalid(Violation(("title",), "must not be blank"))
        chat = await self._store.update(current().caller.owner, request.chat_id, title=body.title, pinned=body.pinned)
        yield _json(chat_json(chat))

    async def DeleteChat(self, request: assistant_pb2.DeleteChatRequest, context: Context) -> Pieces:
        """Delete a chat, and yield a confirmation."""
        await self._store.delete(current().caller.owner, request.chat_id)
        yield _json({"chatId": request.chat_id, "deleted": True})

    async def CreateChat(self, request: assistant_pb2.CreateChatRequest, context: Context) -> Pieces:
        """Store a chat that was held elsewhere, and yield it without its messages."""
        body = await parse_in_turns(request.body.data, NewBody)
        messages = [message_of(message, ("messages", index), without=STORED_FIELDS) for index, message in enumerate(body.messages)]
        title = title_of(body.title, messages)
        chat = await self._store.create(
            current().caller.owner,
            title=title
            if _title_or_none(body.title)
            else title.replace("\0", ""),  # so that the error names the message, not the title
            source=body.source or "",
            pinned=bool(body.pinned),
            messages=messages,
        )
        _set_created()
        yield _json(chat_json(chat))


def _title_or_none(title: str | None) -> str | None:
    """Return the title, or None if it is blank."""
    return title if title and title.strip() else None


def _set_created() -> None:
    """Make the response's status 201. To be called before its first byte."""
    current().headers["x-http-status"] = "201"


def _json(value: dict[str, Any]) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=JSON, data=dumps(value))
