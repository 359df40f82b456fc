"""The history behind the guards: what callers write into it themselves is read as what they ask a model is.

Turns are not guarded here but in the chat service, which has to ask the provider with the very messages that are stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.database.base import Database
from antiphon.domain.content import Message
from antiphon.guards.service import Guards
from antiphon.history.base import MAX_SOURCE, MAX_TITLE, Conversation, StoredMessage
from antiphon.history.sql import SqlStore


class GuardedStore(SqlStore):
    """A store whose methods raise `ContentBlocked` too, and store what is left of a text that is masked."""

    def __init__(self, database: Database, guards: Guards) -> None:
        super().__init__(database)
        self._guards = guards

    async def create(self, owner: str, *, title: str, source: str, pinned: bool, messages: Sequence[Message]) -> Conversation:
        title, source = await self._short(title, MAX_TITLE), await self._short(source, MAX_SOURCE)
        messages = await self._guards.messages(messages)
        return await super().create(owner, title=title, source=source, pinned=pinned, messages=messages)

    async def update(self, owner: str, conversation: str, *, title: str | None = None, pinned: bool | None = None) -> Conversation:
        title = None if title is None else await self._short(title, MAX_TITLE)
        return await super().update(owner, conversation, title=title, pinned=pinned)

    async def fork(self, owner: str, conversation: str, *, message_id: str | None = None, title: str | None = None) -> Conversation:
        title = None if title is None else await self._short(title, MAX_TITLE)
        return await super().fork(owner, conversation, message_id=message_id, title=title)

    async def append(
        self, owner: str, conversation: str, messages: Sequence[Message], *, expected_head: str | None = None
    ) -> tuple[Conversation, tuple[StoredMessage, ...]]:
        messages = await self._guards.messages(messages)
        return await super().append(owner, conversation, messages, expected_head=expected_head)

    async def _short(self, text: str, most: int) -> str:
        """What of it is stored, cut if only what stands for a match makes it too long."""
        return (await self._guards.text(text))[: max(len(text), most)]
