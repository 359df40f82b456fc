"""Who may call what: every method of every service that the server tells of by reflection, whoever calls it."""

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
"""What wants no key."""

# What opens each service, and the methods that differ. A new one that is not here fails the test.
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
    """Every method, and whether it streams its answers."""
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
    """How a call with an empty request ends, and in which words."""
    metadata = () if key is None else (("authorization", f"Bearer {key}"),)
    if streams:
        call: Any = channel.unary_stream(method)(b"", metadata=metadata, timeout=20)
        try:
            async for _ in call:  # a REST method says the error in its dialect first
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
    """UNAUTHENTICATED, in the same words for every method, but for the few that want no key."""
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
async def test_a_scope_opens_its_methods_alone(admin_gateway: Gateway, scope: str) -> None:
    """Every other one is PERMISSION_DENIED, though the request is at fault as well."""
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        made = await make(channel, scope)
        for method, streams in (await methods(channel)).items():
            if method in OPEN:
                continue
            code, words = await code_of(channel, method, streams, made.secret)
            # A target that is not listed is PERMISSION_DENIED too, but an empty request names none.
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


async def test_what_is_anothers_is_as_what_is_not_there(admin_gateway: Gateway) -> None:
    """The same status, headers and body, but for ids and times; and afterwards it is what it was."""
    words = "nobody else's"
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel, admin_gateway.client() as owner:
        new = {"title": words, "messages": [{"role": "user", "content": words}]}
        theirs = (await owner.post("/chat/new", json=new)).json()["chatId"]
        before = (await owner.get(f"/chat/fetch/{theirs}")).json()
        made = await make(channel, "chat", "history")
        async with admin_gateway.client(headers={"authorization": f"Bearer {made.secret}"}) as other:
            for method, path, body in OTHERS:
                told = []
                for chat in (theirs, theirs[:-4] + "0000"):
                    filled = {name: chat if value == "{}" else value for name, value in (body or {}).items()}
                    answer = await other.request(method, path.format(chat), json=filled if body else None)
                    assert words not in answer.text
                    headers = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date"}}
                    told.append((answer.status_code, headers, answer.text.replace(chat, "")))
                assert told[0] == told[1], (method, path)
                assert told[0][0] == 404, (method, path, told)
            assert words not in (await other.get("/chat/history")).text
        assert (await owner.get(f"/chat/fetch/{theirs}")).json() == before


def others(chat: str, message: str, own: str, own_message: str) -> dict[str, tuple[str, Any]]:
    """Every gRPC call that names a conversation or a message: the method, and the request."""
    said = [message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hello"))])]

    def turn(**recording: str) -> chat_pb2.GenerateRequest:
        return chat_pb2.GenerateRequest(model="echo", messages=said, recording=chat_pb2.Recording(**recording))

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
        "append": (f"{history}AppendMessages", append(conversation_id=chat, messages=said)),
        "append at": (f"{history}AppendMessages", append(conversation_id=chat, messages=said, expected_head_message_id=message)),
        "append to mine at theirs": (
            f"{history}AppendMessages",
            append(conversation_id=own, messages=said, expected_head_message_id=message),
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
    """A new one that names a conversation or a message has to be here."""
    tried = {method.rpartition("/")[2] for method, _ in others("", "", "", "").values()}
    declared = history_pb2.DESCRIPTOR.services_by_name["HistoryService"].methods_by_name
    assert set(declared) - tried == {"ListConversations", "CreateConversation"}


@pytest.mark.parametrize("through", ["grpc", "rest"])
async def test_what_is_anothers_is_as_what_is_not_there_over_grpc(admin_gateway: Gateway, through: str) -> None:
    """The same code, details and metadata, straight and through Envoy; and afterwards it is what it was."""
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
        assert own != theirs, "a request_id counts among the caller's own"
        own_before, own_messages = await all_of(own, key)
        told: dict[str, list[Any]] = {}
        nothing = (theirs[:-4] + "0000", messages[0].id[:-4] + "0000")
        for chat, said in ((theirs, messages[0].id), nothing):
            for what, (method, request) in others(chat, said, own, own_messages[0].id).items():
                code, words_of_it, trailers = await ended(channel, method, request, key)
                unnamed = [text.replace(chat.encode(), b"").replace(said.encode(), b"") for text in (words_of_it, trailers)]
                assert words.encode() not in words_of_it + trailers
                told.setdefault(what, []).append((code, *unnamed))
        for what, (of_theirs, of_none) in told.items():
            assert of_theirs == of_none, what
            wanted = grpc.StatusCode.ABORTED if what == "append to mine at theirs" else grpc.StatusCode.NOT_FOUND
            assert of_theirs[0] is wanted, (what, of_theirs)
        # A page token of another's is as one that nobody was given.
        await history.CreateConversation(history_pb2.CreateConversationRequest(), metadata=ADMIN)
        listed = await history.ListConversations(history_pb2.ListConversationsRequest(page_size=1), metadata=ADMIN)
        assert listed.next_page_token
        method = "/antiphon.v1.HistoryService/ListConversations"
        asked = [history_pb2.ListConversationsRequest(page_token=token) for token in (listed.next_page_token, "none")]
        of_theirs, of_none = [await ended(channel, method, request, key) for request in asked]
        assert of_theirs == of_none
        assert of_theirs[0] is grpc.StatusCode.INVALID_ARGUMENT
        mine = await history.ListConversations(history_pb2.ListConversationsRequest(page_size=1000), metadata=key)
        assert theirs not in {conversation.id for conversation in mine.conversations}
        assert await all_of(theirs, ADMIN) == (before, messages)
        assert await all_of(own, key) == (own_before, own_messages)


async def ended(channel: grpc.aio.Channel, method: str, request: Any, key: Any) -> tuple[grpc.StatusCode, bytes, bytes]:
    """How a call ends: its code, its details, and its metadata but for ids and times of the call itself."""
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
