"""The methods of the assistant dialect: what each needs, and what it answers."""

from __future__ import annotations

from typing import Any, Final, Literal

from antiphon.domain.principal import Scope
from antiphon.rest.assistant.chats import ForkBody, NewBody, PinBody, UpdateBody
from antiphon.rest.assistant.servicer import ChatBody, GenerateBody
from antiphon.rest.shared.dialect import ASKING, KEYED, RECORDED, STORED, Answer, Method, TokenCounts
from antiphon.rest.shared.json import EVENT_STREAM


class Chat(Answer):
    """A chat without its messages. Times are RFC 3339."""

    chatId: str
    title: str
    pinned: bool
    source: str
    createdAt: str
    updatedAt: str
    messageCount: int
    forkedFrom: str | None


class Chats(Answer):
    """A page of chats."""

    chats: list[Chat]
    nextPageToken: str | None


class ChatMessage(Answer):
    """A message as it was sent, and where and when it is."""

    messageId: str
    role: str
    content: str | list[dict[str, Any]] | None
    createdAt: str
    status: Literal["complete", "in_progress", "incomplete", "cancelled", "failed"]
    model: str | None


class ChatBranch(Answer):
    """Messages that are not on the chat's path, oldest first, and the message after which they leave it, or another branch."""

    messageId: str | None
    messages: list[ChatMessage]


class WholeChat(Chat):
    """A chat with its messages, oldest first, and with its branches, the newest first."""

    messages: list[ChatMessage]
    branches: list[ChatBranch]
    nextBranchToken: str | None


class DeletedChat(Answer):
    """That a chat is gone."""

    chatId: str
    deleted: Literal[True]


class Response(Answer):
    """The reply as a message."""

    role: Literal["assistant"]
    content: str
    tool_calls: list[dict[str, Any]] = []


class GeneratedResult(Answer):
    """A reply, as a message and as text."""

    response: Response
    message: str
    persona: str


class GeneratedMetadata(Answer):
    """What a reply took, in milliseconds and tokens."""

    timeTaken: int
    model: str
    usage: TokenCounts | None


class Generated(Answer):
    """A reply that is kept."""

    result: GeneratedResult
    chatId: str
    title: str
    researchMode: Literal[False]
    stream: Literal[False]
    messageId: str
    metadata: GeneratedMetadata


class PassingResult(Answer):
    """A reply as text."""

    message: str
    persona: str


class Milliseconds(Answer):
    """What a reply took."""

    timeTaken: int


class PassingReply(Answer):
    """A reply that is not kept."""

    result: PassingResult
    metadata: Milliseconds


METHODS: Final = {
    "Generate": Method(Scope.CHAT, RECORDED, Generated, status=201, streams=(EVENT_STREAM,), body=GenerateBody),
    "GenerateStream": Method(Scope.CHAT, RECORDED, streams=(EVENT_STREAM,), body=GenerateBody),
    "Chat": Method(Scope.CHAT, ASKING, PassingReply, body=ChatBody),
    "ListChats": Method(Scope.HISTORY, KEYED, Chats),
    "FetchChat": Method(Scope.HISTORY, STORED, WholeChat),
    "ForkChat": Method(Scope.HISTORY, STORED, Chat, status=201, body=ForkBody),
    "PinChat": Method(Scope.HISTORY, STORED, Chat, body=PinBody, body_required=False),
    "UpdateChat": Method(Scope.HISTORY, STORED, Chat, body=UpdateBody),
    "DeleteChat": Method(Scope.HISTORY, STORED, DeletedChat),
    "CreateChat": Method(Scope.HISTORY, KEYED, Chat, status=201, body=NewBody),
}
