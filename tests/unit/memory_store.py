"""A store in memory: all of the `Store` interface on a few dictionaries, which shows that the interface needs no database.

Code above the store can be tested without a database. Left out is what only a real store must do: refuse text that cannot be
stored, keep pages stable while messages change, list branches, and delete unused messages.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, count

import msgspec
from msgspec.structs import replace

from antiphon.domain.content import Message, Role
from antiphon.domain.errors import ConversationChanged, ConversationNotFound, InvalidRequest, MessageNotFound, RequestIdReused
from antiphon.history.base import (
    BEGINNING,
    MAX_PAGE_BYTES,
    BranchPage,
    Continue,
    Conversation,
    MessagePage,
    MessageState,
    Page,
    Parent,
    PartialReply,
    ProviderReplyInfo,
    StoredMessage,
    Turn,
    TurnEnd,
)


class MemoryStore:
    """A `Store` in memory. `calls` counts the calls of its methods."""

    def __init__(self) -> None:
        self.calls = 0
        self._numbers = count(1)
        self._conversations: dict[str, Conversation] = {}
        self._messages: dict[str, StoredMessage] = {}
        self._owners: dict[str, str] = {}
        self._provider_info: dict[str, ProviderReplyInfo] = {}
        self._turns: dict[tuple[str, str, str], str] = {}
        """The reply id of each turn with a request id, by owner, conversation (empty if the turn made it) and request id."""

    async def create(self, owner: str, *, title: str, source: str, pinned: bool, messages: Sequence[Message]) -> Conversation:
        made = self._new(owner, title=title, source=source, pinned=pinned)
        return self._append(made, made.head_id, messages)[0]

    async def get(self, owner: str, conversation: str) -> Conversation:
        self.calls += 1
        found = self._conversations.get(conversation)
        if found is None or found.owner != owner:
            raise ConversationNotFound(conversation)
        return found

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
        self.calls += 1
        found = [
            entry
            for entry in self._conversations.values()
            if entry.owner == owner
            and pinned in (None, entry.pinned)
            and source in ("", entry.source)
            and title_contains.casefold() in entry.title.casefold()
        ]
        found.sort(key=lambda entry: (entry.pinned, entry.updated), reverse=True)
        first = _place(token)
        return Page(tuple(found[first : first + size]), str(first + size) if len(found) > first + size else "")

    async def update(self, owner: str, conversation: str, *, title: str | None = None, pinned: bool | None = None) -> Conversation:
        found = await self.get(owner, conversation)
        if pinned is not None:
            found = self._conversations[conversation] = replace(found, pinned=pinned)
        return found if title is None else self._keep(replace(found, title=title))

    async def delete(self, owner: str, conversation: str) -> None:
        await self.get(owner, conversation)
        del self._conversations[conversation]

    async def fork(self, owner: str, conversation: str, *, message_id: str | None = None, title: str | None = None) -> Conversation:
        found = await self.get(owner, conversation)
        head = self._parent(found, message_id)
        made = self._new(owner, title=found.title if title is None else title, source=found.source, pinned=False)
        return self._keep(replace(made, head_id=head, forked_from=found.id, message_count=len(self._path(head))))

    async def messages(
        self, owner: str, conversation: str, *, size: int | None = None, token: str = "", most_bytes: int = MAX_PAGE_BYTES
    ) -> MessagePage:
        path = self._path((await self.get(owner, conversation)).head_id)
        first = _place(token)
        if size is not None:
            total = accumulate(len(msgspec.json.encode(each.message)) for each in path[first : first + size])
            size = max(1, sum(length <= most_bytes for length in total))
        if size is None or len(path) <= first + size:
            return MessagePage(path[first:], "")
        return MessagePage(path[first : first + size], str(first + size))

    async def branches(self, owner: str, conversation: str, *, size: int, token: str = "") -> BranchPage:
        await self.get(owner, conversation)
        return BranchPage((), "", "")

    async def append(
        self, owner: str, conversation: str, messages: Sequence[Message], *, expected_head: str | None = None
    ) -> tuple[Conversation, tuple[StoredMessage, ...]]:
        found = await self.get(owner, conversation)
        if expected_head is not None and expected_head != found.head_id:
            raise ConversationChanged(conversation)
        return self._append(found, found.head_id, messages)

    async def begin_turn(
        self,
        owner: str,
        conversation: str | None,
        messages: Sequence[Message] | Continue,
        *,
        request_id: str = "",
        parent_id: Parent = None,
        title: str = "",
        source: str = "",
    ) -> Turn:
        if callable(messages):
            assert conversation is not None
            messages, parent_id = messages(self._path((await self.get(owner, conversation)).head_id))
        known = self._turns.get((owner, conversation or "", request_id)) if request_id else None
        if known is not None:
            reply = self._messages[known]
            own = [stored.message for stored in self._path(reply.parent_id)[-len(messages) :]]
            if own != list(messages):
                raise RequestIdReused(request_id)
            made = next(c for c in self._conversations.values() if reply in self._path(c.head_id))
            if reply.is_retryable:
                reply = self._messages[known] = replace(reply, state=MessageState.IN_PROGRESS, error_reason="")
                return Turn(made, self._path(reply.parent_id), reply, existing=False)
            return Turn(
                made,
                self._path(reply.parent_id),
                reply,
                existing=True,
                provider_info=self._provider_info.get(known, ProviderReplyInfo()),
            )
        fresh = conversation is None
        if conversation is None:
            made = self._new(owner, title=title, source=source, pinned=False)
            parent = None
        else:
            made = await self.get(owner, conversation)
            parent = None if parent_id is BEGINNING else self._parent(made, parent_id)
        made, stored = self._append(made, parent, [*messages, Message(Role.ASSISTANT, ())])
        reply = replace(stored[-1], state=MessageState.IN_PROGRESS, request_id=request_id)
        self._messages[reply.id] = reply
        if request_id:
            self._turns[owner, conversation or "", request_id] = reply.id
        return Turn(made, self._path(reply.parent_id), reply, existing=False, created_conversation=fresh)

    async def checkpoint(self, replies: Sequence[PartialReply]) -> None:
        self.calls += 1
        for each in replies:
            reply = self._messages[each.reply_id]
            if reply.state is MessageState.IN_PROGRESS:
                kept = replace(reply, message=each.message, model=each.model, provider=each.provider)
                self._messages[reply.id] = kept

    async def end_turn(self, owner: str, reply_id: str, end: TurnEnd) -> bool:
        self.calls += 1
        reply = self._messages.get(reply_id)
        if reply is None or self._owners[reply_id] != owner:
            return False
        if reply.state is MessageState.IN_PROGRESS:
            self._provider_info[reply_id] = end.provider_info
            reply = self._messages[reply_id] = replace(
                reply,
                state=end.state,
                message=end.message,
                model=end.model,
                provider=end.provider,
                usage=end.usage,
                finish_reason=end.finish_reason,
                error_reason=end.error_reason,
            )
        kept = any(reply in self._path(conversation.head_id) for conversation in self._conversations.values())
        return kept and (reply.state, reply.message) == (end.state, end.message)

    async def drop_turn(self, owner: str, turn: Turn, end: TurnEnd) -> None:
        self.calls += 1
        if self._conversations.get(turn.conversation.id) != turn.conversation:
            await self.end_turn(owner, turn.reply.id, end)
        else:
            del self._conversations[turn.conversation.id]
            self._turns = {key: reply_id for key, reply_id in self._turns.items() if reply_id != turn.reply.id}

    async def settle(self) -> int:
        return 0

    async def heartbeat(self) -> None:
        pass

    def _new(self, owner: str, *, title: str, source: str, pinned: bool) -> Conversation:
        self.calls += 1
        number, now = self._now()
        return self._keep(Conversation(f"c{number}", owner, title, pinned, source, now, now, 0, None, None))

    def _keep(self, conversation: Conversation) -> Conversation:
        kept = self._conversations[conversation.id] = replace(conversation, updated=self._now()[1])
        return kept

    def _now(self) -> tuple[int, datetime]:
        """Return a new number, and a time that grows with it."""
        number = next(self._numbers)
        return number, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=number)

    def _append(
        self, conversation: Conversation, parent: str | None, messages: Sequence[Message]
    ) -> tuple[Conversation, tuple[StoredMessage, ...]]:
        stored = []
        _, now = self._now()
        for message in messages:
            number = next(self._numbers)
            stored.append(StoredMessage(f"m{number}", parent, message, MessageState.COMPLETE, now))
            parent = f"m{number}"
            self._messages[parent], self._owners[parent] = stored[-1], conversation.owner
        changed = replace(conversation, head_id=parent, message_count=len(self._path(parent)))
        return self._keep(changed), tuple(stored)

    def _parent(self, conversation: Conversation, message_id: str | None) -> str | None:
        """Return the parent for a new message: `message_id`, or the head if it is None.

        Raises `MessageNotFound` if the message is not the owner's. The messages of all conversations are in one dictionary.
        """
        if message_id is None:
            return conversation.head_id
        if self._owners.get(message_id) != conversation.owner:
            raise MessageNotFound(message_id)
        return message_id

    def _path(self, last: str | None) -> tuple[StoredMessage, ...]:
        found: list[StoredMessage] = []
        while last is not None:
            found.insert(0, self._messages[last])
            last = found[0].parent_id
        return tuple(found)


def _place(token: str) -> int:
    if token and not token.isdigit():
        raise InvalidRequest("The page token is not one of ours.")
    return int(token or 0)
