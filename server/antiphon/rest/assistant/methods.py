"""The methods of the assistant dialect: what each needs, and what it returns."""

from __future__ import annotations

from typing import Any, Final, Literal

from antiphon.domain.principal import Scope
from antiphon.rest.assistant.chats import ForkBody, NewBody, PinBody, UpdateBody
from antiphon.rest.assistant.servicer import ChatBody, GenerateBody
from antiphon.rest.shared.dialect import (
    KEY_STATUSES,
    MODEL_STATUSES,
    RECORD_STATUSES,
    STORE_STATUSES,
    AnswerSchema,
    Method,
    TokenCounts,
)
from antiphon.rest.shared.json import EVENT_STREAM


class Chat(AnswerSchema):
    """A chat without its messages. Times are RFC 3339."""

    chatId: str
    title: str
    pinned: bool
    source: str
    createdAt: str
    updatedAt: str
    messageCount: int
    forkedFrom: str | None


class Chats(AnswerSchema):
    """A page of chats."""

    chats: list[Chat]
    nextPageToken: str | None


class ChatMessage(AnswerSchema):
    """A message as it was sent, with its id, time, status and model."""

    messageId: str
    role: str
    content: str | list[dict[str, Any]] | None
    createdAt: str
    status: Literal["complete", "in_progress", "incomplete", "cancelled", "failed"]
    model: str | None


class ChatBranch(AnswerSchema):
    """Messages that are not on the chat's path, oldest first, and the id of the message that they follow."""

    messageId: str | None
    messages: list[ChatMessage]


class WholeChat(Chat):
    """A chat with its messages, oldest first, and its branches, newest first."""

    messages: list[ChatMessage]
    branches: list[ChatBranch]
    nextBranchToken: str | None


class DeletedChat(AnswerSchema):
    """The confirmation that a chat is deleted."""

    chatId: str
    deleted: Literal[True]


class Response(AnswerSchema):
    """The reply as a message."""

    role: Literal["assistant"]
    content: str
    tool_calls: list[dict[str, Any]] = []


class GeneratedResult(AnswerSchema):
    """A reply, as a message and as text."""

    response: Response
    message: str
    persona: str


class GeneratedMetadata(AnswerSchema):
    """How long a reply took, in milliseconds, its model, and its tokens."""

    timeTaken: int
    model: str
    usage: TokenCounts | None


class Generated(AnswerSchema):
    """A reply that is stored."""

    result: GeneratedResult
    chatId: str
    title: str
    researchMode: Literal[False]
    stream: Literal[False]
    messageId: str
    metadata: GeneratedMetadata


class UnsavedResult(AnswerSchema):
    """A reply as text."""

    message: str
    persona: str


class UnsavedMetadata(AnswerSchema):
    """How long a reply took, in milliseconds."""

    timeTaken: int


class UnsavedReply(AnswerSchema):
    """A reply that is not stored."""

    result: UnsavedResult
    metadata: UnsavedMetadata


METHODS: Final = {
    "Generate": Method(Scope.CHAT, RECORD_STATUSES, Generated, status=201, streams=(EVENT_STREAM,), body=GenerateBody),
    "GenerateStream": Method(Scope.CHAT, RECORD_STATUSES, streams=(EVENT_STREAM,), body=GenerateBody),
    "Chat": Method(Scope.CHAT, MODEL_STATUSES, UnsavedReply, body=ChatBody),
    "ListChats": Method(Scope.HISTORY, KEY_STATUSES, Chats),
    "FetchChat": Method(Scope.HISTORY, STORE_STATUSES, WholeChat),
    "ForkChat": Method(Scope.HISTORY, STORE_STATUSES, Chat, status=201, body=ForkBody),
    "PinChat": Method(Scope.HISTORY, STORE_STATUSES, Chat, body=PinBody, body_required=False),
    "UpdateChat": Method(Scope.HISTORY, STORE_STATUSES, Chat, body=UpdateBody),
    "DeleteChat": Method(Scope.HISTORY, STORE_STATUSES, DeletedChat),
    "CreateChat": Method(Scope.HISTORY, KEY_STATUSES, Chat, status=201, body=NewBody),
}
