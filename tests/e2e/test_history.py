"""The typed history, and that it is the same as that of the REST paths."""

from typing import Any

import grpc
import httpx2

from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.e2e.test_grpc import METADATA


def asked(text: str, **recording: Any) -> chat_pb2.GenerateRequest:
    message = message_pb2.Message(role="ROLE_USER", parts=[message_pb2.Part(text=text)])
    return chat_pb2.GenerateRequest(model="echo", messages=[message], recording=chat_pb2.Recording(**recording))


async def test_a_recorded_turn_is_in_the_history_of_both(channel: grpc.aio.Channel, http: httpx2.AsyncClient) -> None:
    """Made over gRPC, read over gRPC and REST, gone on with over REST."""
    chat, history = chat_pb2_grpc.ChatServiceStub(channel), history_pb2_grpc.HistoryServiceStub(channel)
    reply = await chat.Generate(asked("one", title="Typed", source="grpc"), metadata=METADATA)
    again = await chat.Generate(asked("two", conversation_id=reply.conversation_id, request_id="r"), metadata=METADATA)
    same = await chat.Generate(asked("two", conversation_id=reply.conversation_id, request_id="r"), metadata=METADATA)
    assert same.message_id == again.message_id
    request = history_pb2.ListMessagesRequest(conversation_id=reply.conversation_id)
    stored = (await history.ListMessages(request, metadata=METADATA)).messages
    assert [entry.message.parts[0].text for entry in stored] == ["one", "You said: one", "two", "You said: two"]
    assert (stored[1].id, stored[1].provider, stored[1].usage.total_tokens) == (reply.message_id, "echo", 4)
    body = {"model": "echo", "messages": [{"role": "user", "content": "three"}], "session_id": reply.conversation_id}
    assert (await http.post("/chat/completions", json=body)).headers["x-session-id"] == reply.conversation_id
    shown = (await http.get(f"/chat/fetch/{reply.conversation_id}")).json()
    assert (shown["title"], shown["source"], shown["messageCount"]) == ("Typed", "grpc", 6)
    assert [message["content"] for message in shown["messages"]][3:] == ["You said: two", "three", "You said: three"]
