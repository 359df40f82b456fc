"""The history over gRPC, and that it is the same as over REST."""

import asyncio
from typing import Any

import grpc
import httpx2
import pytest

from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.e2e.conftest import Gateway
from tests.e2e.test_grpc import METADATA
from tests.odd_upstream import OddUpstream, chunk, delta, head, sse
from tests.waiting import until


def recorded_request(text: str, **recording: Any) -> chat_pb2.GenerateRequest:
    message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=text))])
    return chat_pb2.GenerateRequest(model="echo", messages=[message], recording=chat_pb2.Recording(**recording))


async def test_a_recorded_turn_is_in_the_history_of_both(channel: grpc.aio.Channel, http: httpx2.AsyncClient) -> None:
    """A turn recorded over gRPC is read over gRPC and REST, and the conversation goes on over REST."""
    chat, history = chat_pb2_grpc.ChatServiceStub(channel), history_pb2_grpc.HistoryServiceStub(channel)
    reply = await chat.Generate(recorded_request("one", title="Typed", source="grpc"), metadata=METADATA)
    again = await chat.Generate(recorded_request("two", conversation_id=reply.conversation_id, request_id="r"), metadata=METADATA)
    same = await chat.Generate(recorded_request("two", conversation_id=reply.conversation_id, request_id="r"), metadata=METADATA)
    assert same.message_id == again.message_id
    request = history_pb2.ListMessagesRequest(conversation_id=reply.conversation_id)
    stored = (await history.ListMessages(request, metadata=METADATA)).messages
    assert [entry.message.blocks[0].text.text for entry in stored] == ["one", "You said: one", "two", "You said: two"]
    assert (stored[1].id, stored[1].provider, stored[1].usage.total_tokens) == (reply.message_id, "echo", 4)
    body = {"model": "echo", "messages": [{"role": "user", "content": "three"}], "session_id": reply.conversation_id}
    assert (await http.post("/chat/completions", json=body)).headers["x-session-id"] == reply.conversation_id
    chat_json = (await http.get(f"/chat/fetch/{reply.conversation_id}")).json()
    assert (chat_json["title"], chat_json["source"], chat_json["messageCount"]) == ("Typed", "grpc", 6)
    assert [message["content"] for message in chat_json["messages"]][3:] == ["You said: two", "three", "You said: three"]


async def deleted_meanwhile(upstream: OddUpstream, http: httpx2.AsyncClient, call: Any) -> Any:
    """Return the result of `call(chat_id)`; the chat is deleted after the provider has begun its answer."""
    go = asyncio.Event()
    upstream.script("odd-persona", [head(), chunk(sse(delta("Hel"))), go, chunk(sse(delta("lo", "stop"), "[DONE]")), chunk(b"")])
    chat = (await http.post("/chat/new", json={"messages": [{"role": "user", "content": "Hi"}]})).json()["chatId"]
    before = len(upstream.requests)
    task = asyncio.create_task(call(chat))
    await until(lambda: len(upstream.requests) > before)
    assert (await http.delete(f"/chat/{chat}")).is_success
    go.set()
    return await task


@pytest.mark.parametrize("path", ["/chat/completions", "/chat/generate"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_that_is_deleted_while_it_is_answered(
    persona_gateway: Gateway, upstream: OddUpstream, path: str, stream: bool
) -> None:
    """A chat deleted during a call gives 404, or an error event without [DONE] if the stream has begun. Nothing is stored."""
    messages = [{"role": "user", "content": "More"}]

    async def call(chat: str) -> httpx2.Response:
        if path == "/chat/generate":
            return await http.post(f"{path}?chatId={chat}", json={"chat_history": messages, "persona": "odd", "stream": stream})
        return await http.post(path, json={"model": "odd-persona", "messages": messages, "session_id": chat, "stream": stream})

    async with persona_gateway.client() as http:
        response = await deleted_meanwhile(upstream, http, call)
    assert response.status_code == (200 if stream else 404)
    assert "does not exist" in response.text
    assert "[DONE]" not in response.text


async def test_a_conversation_that_is_deleted_while_it_is_answered(persona_gateway: Gateway, upstream: OddUpstream) -> None:
    """Over gRPC a conversation deleted during a call gives NOT_FOUND, and no event says that it finished."""
    async with persona_gateway.client() as http, grpc.aio.insecure_channel(persona_gateway.grpc) as channel:
        chat = chat_pb2_grpc.ChatServiceStub(channel)

        async def generate(conversation: str) -> Any:
            request = recorded_request("More", conversation_id=conversation)
            request.model = "odd-persona"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await chat.Generate(request, metadata=METADATA)
            return caught.value.code()

        async def stream(conversation: str) -> Any:
            request = recorded_request("More", conversation_id=conversation)
            request.model = "odd-persona"
            events: list[str] = []
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for answer in chat.StreamGenerate(request, metadata=METADATA):
                    events += [event.WhichOneof("event") for event in answer.events]
            assert (events[-1], "finished" in events) == ("error", False)
            return caught.value.code()

        assert await deleted_meanwhile(upstream, http, generate) is grpc.StatusCode.NOT_FOUND
        assert await deleted_meanwhile(upstream, http, stream) is grpc.StatusCode.NOT_FOUND
