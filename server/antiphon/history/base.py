"""What a history store is, and the values that it keeps.

Messages form trees: each but the first has a parent. A conversation is a name for one path of a tree, from the first message to its
head. A fork is another conversation on the same tree; nothing is copied. Every method takes the owner first: what is another's
does not exist.

A turn is durable before its provider is asked: `begin_turn` commits the new messages and an assistant message IN_PROGRESS; `keep`
writes down what has come of it so far, `end_turn` settles it. A store is told now and then which turns nobody will settle any more
(`settle`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import Enum, StrEnum
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

from antiphon.domain.content import Message
from antiphon.domain.events import FinishReason, Usage

MAX_TITLE: Final = 500
MAX_SOURCE: Final = 100
MAX_REQUEST_ID: Final = 200
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""The most bytes of a page of messages, if they are several, where nothing else is asked for."""


class Beginning(Enum):
    """The place behind no message: what is said there begins its conversation anew, on a branch of its own."""

    BEGINNING = "beginning"


BEGINNING: Final = Beginning.BEGINNING

Parent: TypeAlias = str | Beginning | None
"""What a turn goes behind: the message of this id; None: the head."""


class MessageState(StrEnum):
    """How far a message is. The values are stored: they never change their meaning."""

    IN_PROGRESS = "in_progress"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Conversation(Struct, frozen=True):
    """A conversation. Times are in UTC, with microseconds; `message_count` counts its path, `head_id` is the path's end.

    `empty_replies` of those are replies of which nothing came (`StoredMessage.is_unheard`); `Conversations.get`, `list`, `update`
    and `fork` count them, everywhere else it is 0.
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


class Told(Struct, frozen=True, omit_defaults=True):
    """What a provider told of a reply beside what it said: its id of it, when it made it (Unix seconds), and why it ended.

    `finish` is our own word for that in a row whose column has another one: one that the version before knows.
    """

    id: str = ""
    created: int = 0
    reason: str = ""
    finish: str = ""


class TurnEnd(Struct, frozen=True):
    """How a turn ended: what an assistant message has beyond its text."""

    state: MessageState
    message: Message
    model: str = ""
    provider: str = ""
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    error_reason: str = ""
    told: Told = Told()


class Said(Struct, frozen=True):
    """What the reply of a turn in progress has said so far, and whose it is."""

    reply_id: str
    message: Message
    model: str
    provider: str


class StoredMessage(Struct, frozen=True):
    """A message as it is stored. Those that are stored in one go, such as a turn's, have one and the same `created`."""

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
    def is_unheard(self) -> bool:
        """A reply that failed, or that its caller left, before anything of it was said: the same turn may be begun again."""
        said = self.message.blocks or self.message.extra or self.message.fields
        return self.state is MessageState.FAILED or (self.state is MessageState.CANCELLED and not said)


class Turn(Struct, frozen=True):
    """A turn that was begun, or that exists already.

    `path` are the messages up to the turn's assistant message, that one excluded, oldest first: what the model is to be told.
    `existing`: a turn of this request_id was begun before; `reply` is then as it is now, with what was `told` of it, and nothing
    was written. `made`: the turn made its conversation just now, so that nobody knows of it.
    """

    conversation: Conversation
    path: tuple[StoredMessage, ...]
    reply: StoredMessage
    existing: bool
    made: bool = False
    told: Told = Told()


class Page(Struct, frozen=True):
    """One page of conversations; `next_token` asks for the next one, and is empty at the end."""

    conversations: tuple[Conversation, ...]
    next_token: str


class MessagePage(Struct, frozen=True):
    """One page of messages, oldest first; `next_token` as for `Page`."""

    messages: tuple[StoredMessage, ...]
    next_token: str


class Branch(Struct, frozen=True):
    """Messages one behind the other that are a conversation's, but not on its path: of another turn, or from before an edit.

    They begin behind `parent_id`, a message of the path or of another branch; None: they are a beginning of the conversation.
    `messages_token` asks `Conversations.messages` for them.
    """

    parent_id: str | None
    messages_token: str


class BranchPage(Struct, frozen=True):
    """One page of branches; `next_token` as for `Page`.

    `path_token` asks `Conversations.messages` for the path that they are not on.
    """

    branches: tuple[Branch, ...]
    next_token: str
    path_token: str


class Conversations(Protocol):
    """What callers see of their conversations, and change themselves; turns are not among it.

    Every method is one transaction, and durable when it returns. It raises `StoreUnavailable` if the database is out of reach,
    full, or takes longer than it is given, and then has changed nothing, unless the database was lost in the moment of the commit
    (but see `Store.end_turn`). `owner` is who the caller's key belongs to.
    """

    async def create(self, owner: str, *, title: str, source: str, pinned: bool, messages: Sequence[Message]) -> Conversation:
        """A new conversation with these messages."""
        ...

    async def get(self, owner: str, conversation: str) -> Conversation:
        """Raises `ConversationNotFound`."""
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
        """Pinned ones first, then the one that changed last. Raises `InvalidRequest` for a token that is not ours."""
        ...

    async def update(self, owner: str, conversation: str, *, title: str | None = None, pinned: bool | None = None) -> Conversation:
        """Changes what is not None. Raises `ConversationNotFound`."""
        ...

    async def delete(self, owner: str, conversation: str) -> None:
        """Deletes it, and those of its messages that no other conversation needs: for its path, or for a branch that it left.

        Raises `ConversationNotFound`.
        """
        ...

    async def fork(self, owner: str, conversation: str, *, message_id: str | None = None, title: str | None = None) -> Conversation:
        """A new conversation whose path ends at `message_id` (None: the head), which is as `parent_id` of `begin_turn`.

        Raises `ConversationNotFound`, `MessageNotFound`.
        """
        ...

    async def messages(
        self, owner: str, conversation: str, *, size: int | None = None, token: str = "", most_bytes: int = MAX_PAGE_BYTES
    ) -> MessagePage:
        """The path, oldest first; `size` None gives all of it.

        With `size` a page ends before its messages, as they are stored, are larger than `most_bytes`, but has one at least; no more
        than those are read. Raises `ConversationNotFound`, `InvalidRequest` for a bad token.
        """
        ...

    async def branches(self, owner: str, conversation: str, *, size: int, token: str = "") -> BranchPage:
        """What was said in the conversation and is not on its path, the newest branch first; each message is in one of them.

        A branch that leaves another one comes behind that. A reply of which nothing came is no branch.
        Raises `ConversationNotFound`, `InvalidRequest` for a bad token.
        """
        ...

    async def append(
        self, owner: str, conversation: str, messages: Sequence[Message], *, expected_head: str | None = None
    ) -> tuple[Conversation, tuple[StoredMessage, ...]]:
        """Appends behind the head. Concurrent appends are put one after the other, each whole.

        Raises `ConversationNotFound`; `ConversationChanged` if `expected_head` is given and is not the head.
        """
        ...


class Store(Conversations, Protocol):
    """Keeps conversations, and the turns that are recorded in them. Shared by all calls of a process."""

    async def begin_turn(
        self,
        owner: str,
        conversation: str | None,
        messages: Sequence[Message],
        *,
        request_id: str = "",
        parent_id: Parent = None,
        title: str = "",
        source: str = "",
    ) -> Turn:
        """Stores new messages and an assistant message IN_PROGRESS behind them, before the provider is asked.

        `conversation` None makes a new one with `title` and `source`. `parent_id` is the message to go on from (None: the head):
        one of the path, or one that was made in the conversation, or one before that; or `BEGINNING`. Another than the head begins
        a branch, and the conversation's path follows it. A turn that is still in progress is on the path of the next one as it is,
        with what is kept of its text.

        `request_id`, if not empty, names the turn within its conversation: seen again, the turn that exists is the answer; one that
        ended before anything of it was said (`StoredMessage.is_unheard`) is begun again, and is IN_PROGRESS as before. With
        `conversation` None, a request_id that the owner has used for a turn that made its conversation finds that one.

        Raises `ConversationNotFound`, `MessageNotFound`; `RequestIdReused` if the turn of this request_id has other messages;
        `TurnInProgress` where it could be begun again, but an attempt of this worker's has not been told that it ended, or another
        caller is beginning it.
        """
        ...

    async def keep(self, said: Sequence[Said]) -> None:
        """Writes down what turns of this worker have said so far, in case that it is killed: all in one transaction.

        A turn that is settled, by its end or by another worker, stays as it is.
        """
        ...

    async def end_turn(self, owner: str, reply_id: str, end: TurnEnd) -> bool:
        """Settles the assistant message of a turn of this worker's. Settled once, it stays as it is: a later call changes nothing.

        Returns whether the turn's conversation has this end now: not if it is deleted, even where a fork keeps the reply, and not
        if the turn has ended otherwise or was begun again by another worker.

        May be called while the caller is gone. On `StoreUnavailable` the turn may be settled or not; calling again is safe, and
        until a call returns, this worker begins the turn no second time.
        """
        ...

    async def drop_turn(self, owner: str, turn: Turn, end: TurnEnd) -> None:
        """Takes back a turn of which nothing came, and the conversation that it made.

        If anybody has changed, forked or gone on with that conversation meanwhile it stays, and the turn ends as in `end_turn`. One
        that another worker has begun again stays as it is. May be called again, as that one.
        """
        ...

    async def settle(self) -> int:
        """Ends every turn that nobody will end any more, and returns how many; to be called now and then.

        INCOMPLETE with what was kept of it; FAILED if that is nothing, so that its request_id begins it again.

        These are the turns of workers without a heartbeat for a while, and those of this one that no caller was told of. A worker
        that was only asleep may still end its turn: what it has to say then takes the place of the guess, unless another
        one has begun the turn again.
        """
        ...

    async def heartbeat(self) -> None:
        """Says that this process lives, so that no other settles its turns. To be called every few seconds."""
        ...
