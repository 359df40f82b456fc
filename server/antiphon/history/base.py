"""The interface of a history store, and the values that it stores.

Messages form trees: each message has a parent, except those that begin a conversation. A conversation names one path of a tree,
from a first message to its head. A fork is another conversation on the same tree; no message is copied. Every method takes the
owner first; conversations of other owners are reported as not found.

A turn is durable before its provider is called: `begin_turn` commits the new messages and an assistant message IN_PROGRESS.
`checkpoint` stores the partial reply, and `end_turn` the final one. `settle`, called periodically, ends turns that nobody will end
any more, such as those of a worker that was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum, StrEnum
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

from antiphon.domain.content import NOTHING, JsonObject, Message
from antiphon.domain.events import FinishReason, Usage

MAX_TITLE: Final = 500
MAX_SOURCE: Final = 100
MAX_REQUEST_ID: Final = 200
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""The default limit of one page of messages, in bytes. A page has at least one message, however large it is."""


class Beginning(Enum):
    """The type of `BEGINNING`: a turn stored there follows no message, and starts the conversation anew on a new branch."""

    BEGINNING = "beginning"


BEGINNING: Final = Beginning.BEGINNING

Parent: TypeAlias = str | Beginning | None
"""The message that a turn follows: the message with this id; None for the head; `BEGINNING` for no message."""


class MessageState(StrEnum):
    """The state of a message. The values are stored, so their meaning never changes."""

    IN_PROGRESS = "in_progress"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Conversation(Struct, frozen=True):
    """A conversation. Times are in UTC, in microseconds.

    `head_id` is the last message of its path, and `message_count` the length of the path. `empty_replies` counts the replies on the
    path without output (`StoredMessage.is_retryable`); it is set by `Conversations.get`, `list`, `update` and `fork`, and 0
    everywhere else.
    """

    id: str
    owner: str
    title: str
    pinned: bool
    source: str
    created: datetime
    updated: datetime
    message_count: int
    head_id: str | None
    forked_from: str | None
    empty_replies: int = 0


class ProviderReplyInfo(Struct, frozen=True, omit_defaults=True):
    """What the provider sent with a reply beside its message: response id, creation time (Unix seconds), raw finish reason, fields.

    `finish` is our exact finish reason, set if the column has another one that the previous version knows (see `rows`).
    """

    id: str = ""
    created: int = 0
    reason: str = ""
    finish: str = ""
    fields: JsonObject = NOTHING
    """Unknown fields of the reply."""
    choice: JsonObject = NOTHING
    """Those of the choice, without log probabilities."""
    details: JsonObject = NOTHING
    """`Finished.details`."""
    empty_texts: tuple[int, ...] = ()
    """The places of empty texts that the message was stored without (see `ReplyChoice.message`)."""


class TurnEnd(Struct, frozen=True):
    """The result of a turn: the final state and contents of its assistant message."""

    state: MessageState
    message: Message
    model: str = ""
    provider: str = ""
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    error_reason: str = ""
    provider_info: ProviderReplyInfo = ProviderReplyInfo()


class PartialReply(Struct, frozen=True):
    """The reply so far of a turn in progress."""

    reply_id: str
    message: Message
    model: str
    provider: str


class StoredMessage(Struct, frozen=True):
    """A message as it is stored. Messages stored in one transaction, such as those of a turn, have the same `created`."""

    id: str
    parent_id: str | None
    message: Message
    state: MessageState
    created: datetime
    request_id: str = ""
    model: str = ""
    provider: str = ""
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    error_reason: str = ""

    @property
    def is_retryable(self) -> bool:
        """Return True if the reply failed, or was cancelled without output: the same request id may then start the turn again."""
        output = self.message.blocks or self.message.extra or self.message.fields
        return self.state is MessageState.FAILED or (self.state is MessageState.CANCELLED and not output)


class Turn(Struct, frozen=True):
    """A turn that was started, or an existing one with the same request id.

    `path` has the messages before the turn's assistant message, oldest first: what the model is sent. `existing`: the request id
    was used before, and nothing was written; `reply` is then that turn's reply as it is now, and `provider_info` what its provider
    sent with it. `created_conversation`: this turn created its conversation, so no caller knows it yet.
    """

    conversation: Conversation
    path: tuple[StoredMessage, ...]
    reply: StoredMessage
    existing: bool
    created_conversation: bool = False
    provider_info: ProviderReplyInfo = ProviderReplyInfo()


Continue: TypeAlias = Callable[[Sequence[StoredMessage]], tuple[Sequence[Message], Parent]]
"""Returns the new messages of a turn and what they follow, from the path of the conversation."""


class Page(Struct, frozen=True):
    """One page of conversations. `next_token` requests the next page; it is empty on the last one."""

    conversations: tuple[Conversation, ...]
    next_token: str


class MessagePage(Struct, frozen=True):
    """One page of messages, oldest first. `next_token` as in `Page`."""

    messages: tuple[StoredMessage, ...]
    next_token: str


class Branch(Struct, frozen=True):
    """A chain of messages of a conversation that are not on its path: of an earlier turn, or from before an edit.

    The first one follows `parent_id`, a message of the path or of another branch; None: it begins the conversation.
    `messages_token` requests the messages from `Conversations.messages`.
    """

    parent_id: str | None
    messages_token: str


class BranchPage(Struct, frozen=True):
    """One page of branches; `next_token` as in `Page`.

    `path_token` requests from `Conversations.messages` the path that the branches are not on.
    """

    branches: tuple[Branch, ...]
    next_token: str
    path_token: str


class Conversations(Protocol):
    """The operations that callers may do on their conversations themselves. Recording turns is not one of them; see `Store`.

    Each method is one transaction, durable when it returns. Each raises `StoreUnavailable` if the database is unreachable, full or
    too slow; nothing has changed then, unless the connection was lost during the commit (but see `Store.end_turn`). `owner` is the
    owner of the caller's key.
    """

    async def create(self, owner: str, *, title: str, source: str, pinned: bool, messages: Sequence[Message]) -> Conversation:
        """Create a conversation with these messages, and return it. Raises `InvalidRequest` for text that cannot be stored."""
        ...

    async def get(self, owner: str, conversation: str) -> Conversation:
        """Return a conversation. Raises `ConversationNotFound`."""
        ...

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
        """Return one page of at most `size` conversations: the pinned ones first, then those that changed last.

        `pinned`, `source` and `title_contains` filter, unless None or empty. Raises `InvalidRequest` for an invalid page token.
        """
        ...

    async def update(self, owner: str, conversation: str, *, title: str | None = None, pinned: bool | None = None) -> Conversation:
        """Change the title or the pin, where not None, and return the conversation. Raises `ConversationNotFound`."""
        ...

    async def delete(self, owner: str, conversation: str) -> None:
        """Delete a conversation, and its messages except those on the path, or on a branch, of another conversation.

        Raises `ConversationNotFound`.
        """
        ...

    async def fork(self, owner: str, conversation: str, *, message_id: str | None = None, title: str | None = None) -> Conversation:
        """Create a conversation whose path ends at `message_id` (None: the head), and return it. `title` None copies the title.

        `message_id` may be any message that `begin_turn` accepts as `parent_id`. Raises `ConversationNotFound`, `MessageNotFound`.
        """
        ...

    async def messages(
        self, owner: str, conversation: str, *, size: int | None = None, token: str = "", most_bytes: int = MAX_PAGE_BYTES
    ) -> MessagePage:
        """Return the path, oldest message first: all of it, or one page of at most `size` messages.

        A page ends before its stored messages exceed `most_bytes` together, but has at least one; only those are read. Raises
        `ConversationNotFound`; `InvalidRequest` for an invalid page token.
        """
        ...

    async def branches(self, owner: str, conversation: str, *, size: int, token: str = "") -> BranchPage:
        """Return one page of at most `size` branches, newest first: the messages that are not on the path, each in one branch.

        A branch that forks from another one comes after it. A reply without output is not a branch. Raises `ConversationNotFound`;
        `InvalidRequest` for an invalid page token.
        """
        ...

    async def append(
        self, owner: str, conversation: str, messages: Sequence[Message], *, expected_head: str | None = None
    ) -> tuple[Conversation, tuple[StoredMessage, ...]]:
        """Append messages after the head, and return the conversation and the stored messages.

        Concurrent appends are done one after the other, each as a whole. Raises `ConversationNotFound`; `ConversationChanged` if
        `expected_head` is given and is not the head.
        """
        ...


class Store(Conversations, Protocol):
    """Stores conversations, and records turns in them. One instance is shared by all calls of a process."""

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
        """Store the new messages and an assistant message IN_PROGRESS after them, before the provider is called.

        `conversation` None creates one, with `title` and `source`. `parent_id` is the message that the turn follows (None: the
        head): any message of the path, of a branch of this conversation, or before one; or `BEGINNING`. If it is not the head, the
        turn starts a branch, and becomes the conversation's path. If the head is a reply in progress, the new turn's path has what
        is stored of it so far.

        For a conversation that exists, `messages` may be a function: it gets the path as it is when the turn starts, and returns
        the messages and their parent. It may run more than once, and in another thread.

        `request_id`, if not empty, identifies the turn within its conversation, so that a retry is safe: used again, it returns the
        existing turn. If that one ended without output (`StoredMessage.is_retryable`), it is set IN_PROGRESS and started again.
        With `conversation` None, the request id finds the conversation that an earlier turn with it created, for this owner.

        Raises `ConversationNotFound`, `MessageNotFound`; `RequestIdReused` if the turn with this request id has other messages;
        `TurnInProgress` if it could be started again, but an attempt of this worker has not ended yet, or another caller is
        starting it.
        """
        ...

    async def checkpoint(self, replies: Sequence[PartialReply]) -> None:
        """Store partial replies of this worker's turns, in one transaction, so that they survive if the worker is killed.

        Turns that have ended, or were settled by another worker, are left unchanged.
        """
        ...

    async def end_turn(self, owner: str, reply_id: str, end: TurnEnd) -> bool:
        """Store the final state of the assistant message of one of this worker's turns. Later calls change nothing.

        Returns True if the conversation now has this end. False if the conversation is deleted (even if a fork keeps the reply), or
        if the turn ended in another way or was started again by another worker.

        May be called after the caller is gone. On `StoreUnavailable` it is unknown whether the end was stored; calling again is
        safe, and until a call returns, this worker will not start the turn again.
        """
        ...

    async def drop_turn(self, owner: str, turn: Turn, end: TurnEnd) -> None:
        """Remove a turn without output, together with the conversation that it created.

        If that conversation was changed, forked or continued meanwhile, it stays, and the turn ends as in `end_turn`. A turn that
        another worker started again is left unchanged. May be called again, like `end_turn`.
        """
        ...

    async def settle(self) -> int:
        """End all turns that nobody will end any more, and return their number. To be called periodically.

        They become INCOMPLETE if a checkpoint has output of them, else FAILED, so that their request id may start them again.

        These are the turns of workers without a recent heartbeat, and those of this worker that no caller got to know. A worker
        that was only suspended may still end its turn; its result then replaces this guess, unless another worker has started the
        turn again.
        """
        ...

    async def heartbeat(self) -> None:
        """Record that this process is alive, so that no other settles its turns. To be called every few seconds."""
        ...
