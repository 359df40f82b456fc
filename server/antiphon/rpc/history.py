"""HistoryService."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from antiphon.domain.call import current
from antiphon.domain.errors import Violation
from antiphon.history.base import MAX_SOURCE, MAX_TITLE, Conversation, Conversations, StoredMessage
from antiphon.rpc.context import Context
from antiphon.rpc.convert.history import conversation_to_proto, stored_to_proto
from antiphon.rpc.convert.request import messages_from_proto
from antiphon.rpc.page import MAX_ANSWER_BYTES, fitting
from antiphon.rpc.request import page_size, refuse, required
from antiphon.v1 import history_pb2, history_pb2_grpc

CONVERSATIONS_A_PAGE = 50
MESSAGES_A_PAGE = 100

CHANGEABLE = ("title", "pinned")


class HistoryServicer(history_pb2_grpc.HistoryServiceServicer):
    """The caller's own conversations."""

    def __init__(self, store: Conversations) -> None:
        self._store = store

    async def ListConversations(
        self, request: history_pb2.ListConversationsRequest, context: Context
    ) -> history_pb2.ListConversationsResponse:
        """One page."""
        refuse(page_size(request.page_size))

        async def read(size: int) -> tuple[Sequence[Conversation], history_pb2.ListConversationsResponse]:
            page = await self._store.list(
                current().caller.owner,
                size=size,
                token=request.page_token,
                pinned=request.pinned if request.HasField("pinned") else None,
                source=request.source,
                title_contains=request.title_contains,
            )
            return page.conversations, history_pb2.ListConversationsResponse(
                conversations=map(conversation_to_proto, page.conversations), next_page_token=page.next_token
            )

        return await fitting(request.page_size or CONVERSATIONS_A_PAGE, read)

    async def GetConversation(
        self, request: history_pb2.GetConversationRequest, context: Context
    ) -> history_pb2.GetConversationResponse:
        """One conversation."""
        refuse(required("id", request.id))
        conversation = await self._store.get(current().caller.owner, request.id)
        return history_pb2.GetConversationResponse(conversation=conversation_to_proto(conversation))

    async def CreateConversation(
        self, request: history_pb2.CreateConversationRequest, context: Context
    ) -> history_pb2.CreateConversationResponse:
        """The new conversation."""
        wanted = request.conversation
        refuse(_text("title", wanted.title, MAX_TITLE), _text("source", wanted.source, MAX_SOURCE))
        conversation = await self._store.create(
            current().caller.owner,
            title=wanted.title,
            source=wanted.source,
            pinned=wanted.pinned,
            messages=messages_from_proto(request.messages),
        )
        return history_pb2.CreateConversationResponse(conversation=conversation_to_proto(conversation))

    async def UpdateConversation(
        self, request: history_pb2.UpdateConversationRequest, context: Context
    ) -> history_pb2.UpdateConversationResponse:
        """The conversation after the change: only what the mask names."""
        wanted, paths = request.conversation, request.update_mask.paths
        titled = _text("title", wanted.title, MAX_TITLE) if "title" in paths else []
        refuse(required("conversation.id", wanted.id), _mask(paths), titled)
        conversation = await self._store.update(
            current().caller.owner,
            wanted.id,
            title=wanted.title if "title" in paths else None,
            pinned=wanted.pinned if "pinned" in paths else None,
        )
        return history_pb2.UpdateConversationResponse(conversation=conversation_to_proto(conversation))

    async def DeleteConversation(
        self, request: history_pb2.DeleteConversationRequest, context: Context
    ) -> history_pb2.DeleteConversationResponse:
        """Nothing."""
        refuse(required("id", request.id))
        await self._store.delete(current().caller.owner, request.id)
        return history_pb2.DeleteConversationResponse()

    async def ForkConversation(
        self, request: history_pb2.ForkConversationRequest, context: Context
    ) -> history_pb2.ForkConversationResponse:
        """The fork."""
        refuse(required("id", request.id), _text("title", request.title, MAX_TITLE, within=""))
        conversation = await self._store.fork(
            current().caller.owner, request.id, message_id=request.message_id or None, title=request.title or None
        )
        return history_pb2.ForkConversationResponse(conversation=conversation_to_proto(conversation))

    async def ListMessages(self, request: history_pb2.ListMessagesRequest, context: Context) -> history_pb2.ListMessagesResponse:
        """One page, which ends early where the messages are large."""
        refuse(required("conversation_id", request.conversation_id), page_size(request.page_size))

        async def read(size: int) -> tuple[Sequence[StoredMessage], history_pb2.ListMessagesResponse]:
            page = await self._store.messages(
                current().caller.owner, request.conversation_id, size=size, token=request.page_token, most_bytes=MAX_ANSWER_BYTES
            )
            return page.messages, history_pb2.ListMessagesResponse(
                messages=map(stored_to_proto, page.messages), next_page_token=page.next_token
            )

        return await fitting(request.page_size or MESSAGES_A_PAGE, read)

    async def AppendMessages(
        self, request: history_pb2.AppendMessagesRequest, context: Context
    ) -> history_pb2.AppendMessagesResponse:
        """What was appended, and the conversation after it; without what the messages hold, where that would be too large."""
        refuse(
            required("conversation_id", request.conversation_id),
            [] if request.messages else [Violation(("messages",), "must hold at least one message")],
        )
        conversation, appended = await self._store.append(
            current().caller.owner,
            request.conversation_id,
            messages_from_proto(request.messages),
            expected_head=request.expected_head_message_id or None,
        )
        answer = history_pb2.AppendMessagesResponse(
            messages=map(stored_to_proto, appended), conversation=conversation_to_proto(conversation)
        )
        if answer.ByteSize() > MAX_ANSWER_BYTES:
            for message in answer.messages:
                message.ClearField("message")
        return answer


def _text(field: str, value: str, most: int, within: str = "conversation") -> list[Violation]:
    """Of a text that is to be stored, by its place in the request."""
    path = (within, field) if within else (field,)
    if len(value) > most:
        return [Violation(path, f"must not be longer than {most} characters")]
    return [Violation(path, "must not hold the character NUL")] if "\0" in value else []


def _mask(paths: Iterable[str]) -> list[Violation]:
    named = list(paths)
    if not named:
        return [Violation(("update_mask",), "must name at least one of title, pinned")]
    return [
        Violation(("update_mask", "paths", index), "must be title or pinned")
        for index, path in enumerate(named)
        if path not in CHANGEABLE
    ]
