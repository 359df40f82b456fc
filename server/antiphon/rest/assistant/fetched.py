"""A stored chat as JSON: alone, or with its messages and branches.

The size of a whole chat has no limit, so it is read and written in pieces.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, Final

from antiphon.history.base import Conversation, Conversations, StoredMessage
from antiphon.rest.shared.body import renaming
from antiphon.rest.shared.json import dumps
from antiphon.rest.shared.message_json import message_json

MAX_BRANCHES: Final = 100
"""The most branches in one response."""

_PAGE: Final = 1000
"""The most messages that are read at once."""

_PIECE: Final = 1024 * 1024
"""The size in bytes at which a piece is sent."""


async def fetch(store: Conversations, owner: str, chat_id: str, branch_token: str) -> AsyncGenerator[bytes, None]:
    """Yield the JSON of a whole chat, in pieces of about a megabyte; a piece with a larger message is larger.

    `branch_token` asks for a page of branches; if empty, for the first. Raises `ConversationNotFound`, `InvalidRequest` and
    `StoreUnavailable`; the last one possibly after the first piece.
    """
    piece = bytearray()
    async for part in _parts(store, owner, chat_id, branch_token):
        piece += part
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


async def _parts(store: Conversations, owner: str, chat_id: str, branch_token: str) -> AsyncGenerator[bytes, None]:
    """Yield the JSON of a whole chat: each message, and the text between the messages."""
    chat = await store.get(owner, chat_id)
    with renaming(lambda path: ("branch_token",) if path == ("page_token",) else path):
        page = await store.branches(owner, chat_id, size=MAX_BRANCHES, token=branch_token)
    fetched = _Messages(store, owner, chat_id)
    head = {name: value for name, value in chat_json(chat).items() if name != "messageCount"}
    yield dumps(head)[:-1] + b',"messages":['
    async for message in fetched.read(None, page.path_token):
        yield message
    yield b'],"messageCount":%d,"branches":[' % fetched.count
    for number, branch in enumerate(page.branches):
        parent = fetched.visible(branch.parent_id)
        yield b'%b{"messageId":%b,"messages":[' % (b"," if number else b"", dumps(parent))
        async for message in fetched.read(parent, branch.messages_token):
            yield message
        yield b"]}"
    yield b'],"nextBranchToken":%b}' % dumps(page.next_token or None)


class _Messages:
    """Reads the messages of a chat, without replies that have no output."""

    def __init__(self, store: Conversations, owner: str, chat_id: str) -> None:
        self._store = store
        self._owner = owner
        self._chat_id = chat_id
        self._hidden: dict[str, str | None] = {}
        """For each message that is left out, by id: the id of the last visible one before it."""
        self.count = 0
        """The number of messages that were read."""

    async def read(self, parent: str | None, token: str) -> AsyncGenerator[bytes, None]:
        """Yield the messages from the page `token` on, as the items of a JSON list.

        `parent` is the id of the visible message before them.
        """
        comma = b""
        while True:
            page = await self._store.messages(self._owner, self._chat_id, size=_PAGE, token=token)
            for message in page.messages:
                if message.is_retryable:
                    self._hidden[message.id] = parent
                else:
                    yield comma + dumps(stored_json(message))
                    comma = b","
                    parent = message.id
                    self.count += 1
            token = page.next_token
            if not token:
                return

    def visible(self, message_id: str | None) -> str | None:
        """Return the id itself, or, for a message that is left out, that of the last visible one before it."""
        return message_id if message_id is None else self._hidden.get(message_id, message_id)


def chat_json(chat: Conversation) -> dict[str, Any]:
    """Return a chat without its messages. Its count leaves out replies that have no output."""
    return {
        "chatId": chat.id,
        "title": chat.title,
        "pinned": chat.pinned,
        "source": chat.source,
        "createdAt": _time(chat.created),
        "updatedAt": _time(chat.updated),
        "messageCount": chat.message_count - chat.empty_replies,
        "forkedFrom": chat.forked_from,
    }


def stored_json(stored: StoredMessage) -> dict[str, Any]:
    """Return a message as it was sent, with its id, time, status and model."""
    body = message_json(stored.message)
    message = stored.message
    if body["content"] is None and not (message.blocks or message.extra or message.fields):
        body["content"] = ""  # a reply without output
    return {
        **body,
        # These replace fields of the same name that the message was sent with.
        "messageId": stored.id,
        "createdAt": _time(stored.created),
        "status": stored.state.value,
        "model": stored.model or None,
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
