"""A store behind the guards: what callers write into conversations directly is filtered as requests to a model are.

Turns are not filtered here but in the chat service, which must send the provider exactly the messages that are stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.domain.content import Message
from antiphon.guards.service import Guards
from antiphon.history.base import (
    MAX_PAGE_BYTES,
    MAX_SOURCE,
    MAX_TITLE,
    BranchPage,
    Conversation,
    Conversations,
    MessagePage,
    Page,
    StoredMessage,
)


class GuardedStore:
    """Implements `Conversations`. Its methods also raise `ContentBlocked`; masked text is stored masked."""

    def __init__(self, store: Conversations, guards: Guards) -> None:
        """Filter with `guards`, and store the result in `store`."""
        self._store = store
        self._guards = guards

    async def create(self, owner: str, *, title: str, source: str, pinned: bool, messages: Sequence[Message]) -> Conversation:
        title, source = await self._short(title, MAX_TITLE), await self._short(source, MAX_SOURCE)
        messages = await self._guards.messages(messages)
        return await self._store.create(owner, title=title, source=source, pinned=pinned, messages=messages)

    async def update(self, owner: str, conversation: str, *, title: str | None = None, pinned: bool | None = None) -> Conversation:
        title = None if title is None else await self._short(title, MAX_TITLE)
        return await self._store.update(owner, conversation, title=title, pinned=pinned)

    async def fork(self, owner: str, conversation: str, *, message_id: str | None = None, title: str | None = None) -> Conversation:
        title = None if title is None else await self._short(title, MAX_TITLE)
        return await self._store.fork(owner, conversation, message_id=message_id, title=title)

    async def append(
        self, owner: str, conversation: str, messages: Sequence[Message], *, expected_head: str | None = None
    ) -> tuple[Conversation, tuple[StoredMessage, ...]]:
        messages = await self._guards.messages(messages)
        return await self._store.append(owner, conversation, messages, expected_head=expected_head)

    async def _short(self, text: str, most: int) -> str:
        """Return the filtered text, truncated to `most` characters if only the masks made it longer than that."""
        return (await self._guards.text(text))[: max(len(text), most)]

    # The methods below write no text.

    async def get(self, owner: str, conversation: str) -> Conversation:
        return await self._store.get(owner, conversation)

    async def list(
        self,
        owner: str,
        *,
        size: int,
        token: str = "",
        pinned: bool | None = None,
        source: str = "",
        title_contains: str = "",
    ) -> Page:
        return await self._store.list(owner, size=size, token=token, pinned=pinned, source=source, title_contains=title_contains)

    async def delete(self, owner: str, conversation: str) -> None:
        await self._store.delete(owner, conversation)

    async def messages(
        self, owner: str, conversation: str, *, size: int | None = None, token: str = "", most_bytes: int = MAX_PAGE_BYTES
    ) -> MessagePage:
        return await self._store.messages(owner, conversation, size=size, token=token, most_bytes=most_bytes)

    async def branches(self, owner: str, conversation: str, *, size: int, token: str = "") -> BranchPage:
        return await self._store.branches(owner, conversation, size=size, token=token)
