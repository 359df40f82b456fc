"""The servicer of HistoryService."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from antiphon.domain.call import current
from antiphon.domain.errors import Violation
from antiphon.history.base import MAX_SOURCE, MAX_TITLE, Conversation, Conversations, StoredMessage
from antiphon.rpc.context import Context
from antiphon.rpc.convert.history import conversation_to_proto, stored_to_proto
from antiphon.rpc.convert.request import messages_from_proto
from antiphon.rpc.page import MAX_ANSWER_BYTES, fit_page
from antiphon.rpc.request import page_size_violations, raise_if_invalid, required_violations
from antiphon.v1 import history_pb2, history_pb2_grpc

DEFAULT_CONVERSATIONS = 50
DEFAULT_MESSAGES = 100

CHANGEABLE = ("title", "pinned")


class HistoryServicer(history_pb2_grpc.HistoryServiceServicer):
    """Implements HistoryService: each caller reads and changes its owner's conversations only."""

    def __init__(self, store: Conversations) -> None:
        self._store = store

    async def ListConversations(
        self, request: history_pb2.ListConversationsRequest, context: Context
    ) -> history_pb2.ListConversationsResponse:
        """Return one page of conversations."""
        raise_if_invalid(page_size_violations(request.page_size))

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

        return await fit_page(request.page_size or DEFAULT_CONVERSATIONS, read)

    async def GetConversation(
        self, request: history_pb2.GetConversationRequest, context: Context
    ) -> history_pb2.GetConversationResponse:
        """Return one conversation."""
        raise_if_invalid(required_violations("id", request.id))
        conversation = await self._store.get(current().caller.owner, request.id)
        return history_pb2.GetConversationResponse(conversation=conversation_to_proto(conversation))

    async def CreateConversation(
        self, request: history_pb2.CreateConversationRequest, context: Context
    ) -> history_pb2.CreateConversationResponse:
        """Create a conversation and return it."""
        wanted = request.conversation
        raise_if_invalid(_text_violations("title", wanted.title, MAX_TITLE), _text_violations("source", wanted.source, MAX_SOURCE))
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
        """Change the fields that the update mask names; return the conversation afterwards."""
        wanted, paths = request.conversation, request.update_mask.paths
        titled = _text_violations("title", wanted.title, MAX_TITLE) if "title" in paths else []
        raise_if_invalid(required_violations("conversation.id", wanted.id), _mask_violations(paths), titled)
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
        """Delete a conversation."""
        raise_if_invalid(required_violations("id", request.id))
        await self._store.delete(current().caller.owner, request.id)
        return history_pb2.DeleteConversationResponse()

    async def ForkConversation(
        self, request: history_pb2.ForkConversationRequest, context: Context
    ) -> history_pb2.ForkConversationResponse:
        """Fork a conversation and return the fork."""
        raise_if_invalid(required_violations("id", request.id), _text_violations("title", request.title, MAX_TITLE, within=""))
        conversation = await self._store.fork(
            current().caller.owner, request.id, message_id=request.message_id or None, title=request.title or None
        )
        return history_pb2.ForkConversationResponse(conversation=conversation_to_proto(conversation))

    async def ListMessages(self, request: history_pb2.ListMessagesRequest, context: Context) -> history_pb2.ListMessagesResponse:
        """Return one page of messages; fewer than asked for if they would be larger than 4 MiB."""
        raise_if_invalid(required_violations("conversation_id", request.conversation_id), page_size_violations(request.page_size))

        async def read(size: int) -> tuple[Sequence[StoredMessage], history_pb2.ListMessagesResponse]:
            page = await self._store.messages(
                current().caller.owner, request.conversation_id, size=size, token=request.page_token, most_bytes=MAX_ANSWER_BYTES
            )
            return page.messages, history_pb2.ListMessagesResponse(
                messages=map(stored_to_proto, page.messages), next_page_token=page.next_token
            )

        return await fit_page(request.page_size or DEFAULT_MESSAGES, read)

    async def AppendMessages(
        self, request: history_pb2.AppendMessagesRequest, context: Context
    ) -> history_pb2.AppendMessagesResponse:
        """Append messages; return them as stored, and the conversation.

        If the response would be larger than 4 MiB, the stored messages are returned without their content.
        """
        raise_if_invalid(
            required_violations("conversation_id", request.conversation_id),
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


def _text_violations(field: str, value: str, most: int, within: str = "conversation") -> list[Violation]:
    """Return the violations of a text that is to be stored: too long, or with a NUL character.

    The field's path in the request is `within`.`field`; `most` is in characters.
    """
    path = (within, field) if within else (field,)
    if len(value) > most:
        return [Violation(path, f"must not be longer than {most} characters")]
    return [Violation(path, "must not hold the character NUL")] if "\0" in value else []


def _mask_violations(paths: Iterable[str]) -> list[Violation]:
    named = list(paths)
    if not named:
        return [Violation(("update_mask",), "must name at least one of title, pinned")]
    return [
        Violation(("update_mask", "paths", index), "must be title or pinned")
        for index, path in enumerate(named)
        if path not in CHANGEABLE
    ]
