"""The servicer of ChatService."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from antiphon.chat.service import ChatService
from antiphon.domain import tags
from antiphon.domain.call import Call, current
from antiphon.domain.errors import to_public_error
from antiphon.domain.reply import collect
from antiphon.history.recorder import Record
from antiphon.rpc.context import Context
from antiphon.rpc.convert.reply import batch_to_proto, reply_to_proto
from antiphon.rpc.convert.request import record_from_proto, request_from_proto
from antiphon.rpc.status import status_of
from antiphon.v1 import chat_pb2, chat_pb2_grpc


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    """Implements ChatService: converts requests, and hands them to `antiphon.chat`."""

    def __init__(self, chat: ChatService) -> None:
        self._chat = chat

    async def Generate(self, request: chat_pb2.GenerateRequest, context: Context) -> chat_pb2.GenerateResponse:
        """Return the whole reply."""
        call = current()
        _tag(call, request)
        chat_request = request_from_proto(request, stream=False)
        batches = self._chat.stream(call, chat_request, _record(call, request))
        try:
            return reply_to_proto(await collect(batches))
        finally:
            await batches.aclose()

    async def StreamGenerate(
        self, request: chat_pb2.GenerateRequest, context: Context
    ) -> AsyncGenerator[chat_pb2.StreamGenerateResponse, None]:
        """Stream the reply: one message for each batch of events.

        An error after the first message is sent as an `error` event, and then raised, so that the call ends with the same status.
        """
        call = current()
        _tag(call, request)
        chat_request = request_from_proto(request, stream=True)
        sequence = 1
        call.heartbeat()
        batches = self._chat.stream(call, chat_request, _record(call, request))
        try:
            async for batch in batches:
                answer = batch_to_proto(batch, sequence)
                if answer.events:
                    yield answer
                    sequence += len(answer.events)
        except Exception as error:
            if sequence > 1:
                event = chat_pb2.StreamEvent(error=status_of(to_public_error(error)))
                yield chat_pb2.StreamGenerateResponse(sequence=sequence, events=[event])
            raise
        finally:
            await batches.aclose()


def _tag(call: Call, request: chat_pb2.GenerateRequest) -> None:
    """Merge the request's tags into `call.tags`. Raises `InvalidRequest`."""
    if request.tags:
        request_tags = dict(request.tags)
        tags.check(request_tags, "tags")
        of_key = dict(call.caller.tags)
        own = {name: value for name, value in {**call.tags, **request_tags}.items() if name not in of_key}
        tags.check(own, "tags")
        call.tags = tags.merged(call.caller.tags, own)


def _record(call: Call, request: chat_pb2.GenerateRequest) -> Record | None:
    if not request.HasField("recording"):
        return None
    return record_from_proto(request.recording, call.caller.owner, choices=request.sampling.choices)
