"""Access control for every method of every service that the server's reflection lists."""

import contextlib
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from antiphon.v1 import admin_pb2, admin_pb2_grpc, chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY, Gateway
from tests.waiting import until

ADMIN = (("authorization", f"Bearer {KEY}"),)

OPEN = {
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/antiphon.rest.v1.EngineService/GetHealth",
}
"""The methods that need no key."""

# The scope of each service, and of methods that differ. A new service that is missing here fails the test.
SCOPES = {
    "antiphon.v1.ChatService": "chat",
    "antiphon.v1.ModelService": "chat",
    "antiphon.v1.HistoryService": "history",
    "antiphon.v1.AdminService": "admin",
    "antiphon.rest.v1.OpenAIService": "chat",
    "antiphon.rest.v1.AnalyticsService": "admin",
    "antiphon.rest.v1.EngineService": "engine",
    "antiphon.rest.v1.ProxyService": "proxy",
    "antiphon.rest.v1.AssistantService": "history",
    "antiphon.rest.v1.AssistantService/Generate": "chat",
    "antiphon.rest.v1.AssistantService/GenerateStream": "chat",
    "antiphon.rest.v1.AssistantService/Chat": "chat",
}


async def methods(channel: grpc.aio.Channel) -> dict[str, bool]:
    """Return every method, and whether it streams its answers."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def ask(request: Any) -> Any:
        return await anext(aiter(stub.ServerReflectionInfo(iter([request]))))

    found = {}
    for service in (await ask(reflection_pb2.ServerReflectionRequest(list_services=""))).list_services_response.service:
        answer = await ask(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.name))
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            for declared in file.service:
                if f"{file.package}.{declared.name}" == service.name:
                    found |= {f"/{service.name}/{method.name}": method.server_streaming for method in declared.method}
    return found


def scope_of(method: str) -> str:
    full = method.removeprefix("/")
    return SCOPES.get(full) or SCOPES[full.rpartition("/")[0]]


async def code_of(channel: grpc.aio.Channel, method: str, streams: bool, key: str | None) -> tuple[grpc.StatusCode, str]:
    """Return the status code and message with which a call with an empty request ends."""
    metadata = () if key is None else (("authorization", f"Bearer {key}"),)
    if streams:
        call: Any = channel.unary_stream(method)(b"", metadata=metadata, timeout=20)
        try:
            async for _ in call:  # a REST method first sends the error in its dialect
                pass
        except grpc.aio.AioRpcError:
            pass
    else:
        call = channel.unary_unary(method)(b"", metadata=metadata, timeout=20)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call
    return await call.code(), str(await call.details())


async def make(channel: grpc.aio.Channel, *scopes: str) -> Any:
    stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
    wanted = admin_pb2.Key(name="access", owner="access", scopes=[f"SCOPE_{scope.upper()}" for scope in scopes])  # type: ignore[misc, unused-ignore]
    return await stub.CreateKey(admin_pb2.CreateKeyRequest(key=wanted), metadata=ADMIN)


@pytest.mark.parametrize("who", ["nobody", "a stranger", "a revoked key"])
async def test_no_method_is_open_to(admin_gateway: Gateway, who: str) -> None:
    """Callers without a valid key get UNAUTHENTICATED from every method, except for the few that need no key."""
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        key: str | None = {"nobody": None, "a stranger": "sk-none"}.get(who)
        if who == "a revoked key":
            made = await make(channel, "chat", "history", "proxy", "engine", "admin")
            stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
            await stub.RevokeKey(admin_pb2.RevokeKeyRequest(id=made.key.id), metadata=ADMIN)
            key = made.secret

            async def revoked() -> bool:
                return (await code_of(channel, "/antiphon.v1.ModelService/ListModels", False, key))[0] is not grpc.StatusCode.OK

            await until(revoked)
        found = {
            method: await code_of(channel, method, streams, key)
            for method, streams in (await methods(channel)).items()
            if method not in OPEN
        }
    assert len(found) > 30
    assert {code for code, _ in found.values()} == {grpc.StatusCode.UNAUTHENTICATED}, found


@pytest.mark.parametrize("scope", ["chat", "history", "proxy", "engine", "admin"])
async def test_a_scope_permits_only_its_methods(admin_gateway: Gateway, scope: str) -> None:
    """A key gets PERMISSION_DENIED from all methods of other scopes, even if the request is also invalid."""
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        made = await make(channel, scope)
        for method, streams in (await methods(channel)).items():
            if method in OPEN:
                continue
            code, words = await code_of(channel, method, streams, made.secret)
            # A target that is not allowed is PERMISSION_DENIED too, but an empty request has none.
            assert (code is grpc.StatusCode.PERMISSION_DENIED) is (scope_of(method) != scope), (method, code, words)


OTHERS: list[tuple[str, str, Any]] = [
    ("GET", "/chat/fetch/{}", None),
    ("POST", "/chat/fork", {"chatId": "{}", "messageIndex": 0}),
    ("PUT", "/chat/{}/pin", {"pinned": True}),
    ("PATCH", "/chat/{}", {"title": "mine"}),
    ("DELETE", "/chat/{}", None),
    ("POST", "/chat/generate?chatId={}", {"chat_history": [{"role": "user", "content": "Hello"}]}),
    ("POST", "/chat/completions", {"model": "echo", "session_id": "{}", "messages": [{"role": "user", "content": "Hello"}]}),
]
"""Every REST call that names a conversation."""


async def test_anothers_conversation_looks_like_a_missing_one(admin_gateway: Gateway) -> None:
    """Another owner's conversation looks exactly like a missing one, and such calls do not change it."""
    words = "nobody else's"
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel, admin_gateway.client() as owner:
        new = {"title": words, "messages": [{"role": "user", "content": words}]}
        theirs = (await owner.post("/chat/new", json=new)).json()["chatId"]
        before = (await owner.get(f"/chat/fetch/{theirs}")).json()
        made = await make(channel, "chat", "history")
        async with admin_gateway.client(headers={"authorization": f"Bearer {made.secret}"}) as other:
            for method, path, body in OTHERS:
                answers = []
                for chat in (theirs, theirs[:-4] + "0000"):
                    filled = {name: chat if value == "{}" else value for name, value in (body or {}).items()}
                    answer = await other.request(method, path.format(chat), json=filled if body else None)
                    assert words not in answer.text
                    headers = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date"}}
                    answers.append((answer.status_code, headers, answer.text.replace(chat, "")))
                assert answers[0] == answers[1], (method, path)
                assert answers[0][0] == 404, (method, path, answers)
            assert words not in (await other.get("/chat/history")).text
        assert (await owner.get(f"/chat/fetch/{theirs}")).json() == before


def others(chat: str, message: str, own: str, own_message: str) -> dict[str, tuple[str, Any]]:
    """Return every gRPC call that names a conversation or a message: the method, and the request."""
    hello = [message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hello"))])]

    def turn(**recording: str) -> chat_pb2.GenerateRequest:
        return chat_pb2.GenerateRequest(model="echo", messages=hello, recording=chat_pb2.Recording(**recording))

    history, generate = "/antiphon.v1.HistoryService/", "/antiphon.v1.ChatService/"
    renamed = history_pb2.UpdateConversationRequest(conversation=history_pb2.Conversation(id=chat, title="mine"))
    renamed.update_mask.paths.append("title")
    pinned = history_pb2.UpdateConversationRequest(conversation=history_pb2.Conversation(id=chat, pinned=True))
    pinned.update_mask.paths.append("pinned")
    append = history_pb2.AppendMessagesRequest
    fork = history_pb2.ForkConversationRequest
    return {
        "get": (f"{history}GetConversation", history_pb2.GetConversationRequest(id=chat)),
        "rename": (f"{history}UpdateConversation", renamed),
        "pin": (f"{history}UpdateConversation", pinned),
        "fork": (f"{history}ForkConversation", fork(id=chat)),
        "fork at": (f"{history}ForkConversation", fork(id=chat, message_id=message)),
        "fork at my own": (f"{history}ForkConversation", fork(id=chat, message_id=own_message)),
        "fork mine at theirs": (f"{history}ForkConversation", fork(id=own, message_id=message)),
        "list": (f"{history}ListMessages", history_pb2.ListMessagesRequest(conversation_id=chat)),
        "append": (f"{history}AppendMessages", append(conversation_id=chat, messages=hello)),
        "append at": (f"{history}AppendMessages", append(conversation_id=chat, messages=hello, expected_head_message_id=message)),
        "append to mine at theirs": (
            f"{history}AppendMessages",
            append(conversation_id=own, messages=hello, expected_head_message_id=message),
        ),
        "delete": (f"{history}DeleteConversation", history_pb2.DeleteConversationRequest(id=chat)),
        "turn": (f"{generate}Generate", turn(conversation_id=chat)),
        "turn from": (f"{generate}Generate", turn(conversation_id=chat, parent_message_id=message)),
        "turn of mine from theirs": (f"{generate}Generate", turn(conversation_id=own, parent_message_id=message)),
        "turn again": (f"{generate}Generate", turn(conversation_id=chat, request_id="theirs-1")),
        "stream": (f"{generate}StreamGenerate", turn(conversation_id=chat)),
        "stream from": (f"{generate}StreamGenerate", turn(conversation_id=chat, parent_message_id=message)),
    }


async def test_every_method_of_the_history_is_among_them() -> None:
    """Every method of the history service that names a conversation or a message is in `others`."""
    tried = {method.rpartition("/")[2] for method, _ in others("", "", "", "").values()}
    declared = history_pb2.DESCRIPTOR.services_by_name["HistoryService"].methods_by_name
    assert set(declared) - tried == {"ListConversations", "CreateConversation"}


@pytest.mark.parametrize("through", ["grpc", "rest"])
async def test_anothers_conversation_looks_like_a_missing_one_over_grpc(admin_gateway: Gateway, through: str) -> None:
    """Over gRPC, another owner's conversation looks exactly like a missing one, directly and through Envoy, and does not change."""
    words = "nobody else's"
    message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=words))])
    async with grpc.aio.insecure_channel(getattr(admin_gateway, through)) as channel:
        history: Any = history_pb2_grpc.HistoryServiceStub(channel)
        chats: Any = chat_pb2_grpc.ChatServiceStub(channel)

        async def all_of(chat: str, metadata: Any) -> tuple[Any, Any]:
            return (
                (await history.GetConversation(history_pb2.GetConversationRequest(id=chat), metadata=metadata)).conversation,
                (await history.ListMessages(history_pb2.ListMessagesRequest(conversation_id=chat), metadata=metadata)).messages,
            )

        async def begin(metadata: Any) -> str:
            recording = chat_pb2.Recording(title=words, request_id="theirs-1")
            turn = chat_pb2.GenerateRequest(model="echo", messages=[message], recording=recording)
            return str((await chats.Generate(turn, metadata=metadata)).conversation_id)

        theirs = await begin(ADMIN)
        before, messages = await all_of(theirs, ADMIN)
        made = await make(channel, "chat", "history")
        key = (("authorization", f"Bearer {made.secret}"),)
        own = await begin(key)
        assert own != theirs, "request ids of different owners are independent"
        own_before, own_messages = await all_of(own, key)
        ends: dict[str, list[Any]] = {}
        nothing = (theirs[:-4] + "0000", messages[0].id[:-4] + "0000")
        for chat, message_id in ((theirs, messages[0].id), nothing):
            for what, (method, request) in others(chat, message_id, own, own_messages[0].id).items():
                code, details, trailers = await ended(channel, method, request, key)
                unnamed = [text.replace(chat.encode(), b"").replace(message_id.encode(), b"") for text in (details, trailers)]
                assert words.encode() not in details + trailers
                ends.setdefault(what, []).append((code, *unnamed))
        for what, (of_theirs, of_none) in ends.items():
            assert of_theirs == of_none, what
            wanted = grpc.StatusCode.ABORTED if what == "append to mine at theirs" else grpc.StatusCode.NOT_FOUND
            assert of_theirs[0] is wanted, (what, of_theirs)
        # Another owner's page token gets the same answer as an invalid one.
        await history.CreateConversation(history_pb2.CreateConversationRequest(), metadata=ADMIN)
        listed = await history.ListConversations(history_pb2.ListConversationsRequest(page_size=1), metadata=ADMIN)
        assert listed.next_page_token
        method = "/antiphon.v1.HistoryService/ListConversations"
        requests = [history_pb2.ListConversationsRequest(page_token=token) for token in (listed.next_page_token, "none")]
        of_theirs, of_none = [await ended(channel, method, request, key) for request in requests]
        assert of_theirs == of_none
        assert of_theirs[0] is grpc.StatusCode.INVALID_ARGUMENT
        mine = await history.ListConversations(history_pb2.ListConversationsRequest(page_size=1000), metadata=key)
        assert theirs not in {conversation.id for conversation in mine.conversations}
        assert await all_of(theirs, ADMIN) == (before, messages)
        assert await all_of(own, key) == (own_before, own_messages)


async def ended(channel: grpc.aio.Channel, method: str, request: Any, key: Any) -> tuple[grpc.StatusCode, bytes, bytes]:
    """Return how a call ends: its code, its details, and its metadata without ids and times of the call itself."""
    data = request.SerializeToString()
    if method.endswith("StreamGenerate"):
        call: Any = channel.unary_stream(method)(data, metadata=key, timeout=20)
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for _ in call:
                pass
    else:
        call = channel.unary_unary(method)(data, metadata=key, timeout=20)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call
    found = [*(await call.initial_metadata() or ()), *(await call.trailing_metadata() or ())]
    kept = [f"{name}={value!r}" for name, value in found if name not in {"x-request-id", "date"}]
    return await call.code(), str(await call.details()).encode(), " ".join(sorted(kept)).encode()
