"""Tests of HistoryService over a real socket, with a store in memory."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import field_mask_pb2
from pydantic import SecretStr

from antiphon.auth.api_keys.static import KeyRing
from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.domain.principal import Principal, Scope
from antiphon.rpc.handlers import CallHandlers
from antiphon.rpc.history import HistoryServicer
from antiphon.rpc.page import MAX_ANSWER_BYTES
from antiphon.rpc.server import Server
from antiphon.v1 import history_pb2, history_pb2_grpc, message_pb2
from tests.unit.memory_store import MemoryStore
from tests.unit.rpc.test_server import details

KEY = (("authorization", "Bearer sk-me"),)
OTHER = (("authorization", "Bearer sk-other"),)


@asynccontextmanager
async def serving(port: int) -> AsyncGenerator[Any, None]:
    servicer = HistoryServicer(MemoryStore())

    def register(server: grpc.aio.Server) -> None:
        history_pb2_grpc.add_HistoryServiceServicer_to_server(servicer, server)

    keys = KeyRing([(Principal(name, owner=name), SecretStr(f"sk-{name}")) for name in ("me", "other")])
    server = Server(
        CallHandlers(keys, {"antiphon.v1.HistoryService": Scope.HISTORY}, {}), [("antiphon.v1.HistoryService", register)]
    )
    server.listen(f"127.0.0.1:{port}")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]) as channel:
        yield history_pb2_grpc.HistoryServiceStub(channel)
    await server.stop(0, lambda: None)


def user_messages(*texts: str) -> list[message_pb2.Message]:
    return [message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=text))]) for text in texts]


async def create(stub: Any, *texts: str, **fields: Any) -> history_pb2.Conversation:
    request = history_pb2.CreateConversationRequest(conversation=history_pb2.Conversation(**fields), messages=user_messages(*texts))
    made: history_pb2.Conversation = (await stub.CreateConversation(request, metadata=KEY)).conversation
    return made


async def texts(stub: Any, conversation: str) -> list[str]:
    answer = await stub.ListMessages(history_pb2.ListMessagesRequest(conversation_id=conversation), metadata=KEY)
    return [stored.message.blocks[0].text.text for stored in answer.messages]


async def test_a_conversation_from_its_creation_to_its_deletion(unused_tcp_port: int) -> None:
    """A conversation is created, read, updated by a mask and deleted. Deleting it again is NOT_FOUND."""
    async with serving(unused_tcp_port) as stub:
        made = await create(stub, "a", "b", title="T", source="app", pinned=True, id="not mine to choose")
        assert (made.title, made.source, made.pinned, made.message_count) == ("T", "app", True, 2)
        assert made.create_time.seconds > 0
        assert made.head_message_id
        got = await stub.GetConversation(history_pb2.GetConversationRequest(id=made.id), metadata=KEY)
        assert got.conversation == made
        change = history_pb2.UpdateConversationRequest(
            conversation=history_pb2.Conversation(id=made.id, title="", pinned=True, source="other"),
            update_mask=field_mask_pb2.FieldMask(paths=["title"]),
        )
        changed = (await stub.UpdateConversation(change, metadata=KEY)).conversation
        assert (changed.title, changed.pinned, changed.source) == ("", True, "app")
        change.update_mask.paths[:] = ["pinned"]
        change.conversation.pinned = False
        change.conversation.title = "x" * 501  # not in the mask, so not checked
        assert not (await stub.UpdateConversation(change, metadata=KEY)).conversation.pinned
        await stub.DeleteConversation(history_pb2.DeleteConversationRequest(id=made.id), metadata=KEY)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.DeleteConversation(history_pb2.DeleteConversationRequest(id=made.id), metadata=KEY)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert details(caught.value)["ErrorInfo"].reason == "CONVERSATION_NOT_FOUND"


async def test_lists_are_paged_and_filtered(unused_tcp_port: int) -> None:
    """Pinned conversations come first, then the newest. `pinned: false` is a filter and differs from unset."""
    async with serving(unused_tcp_port) as stub:
        for number in range(5):
            await create(stub, title=f"T{number}", pinned=number == 1)

        async def titles(**fields: Any) -> tuple[list[str], str]:
            answer = await stub.ListConversations(history_pb2.ListConversationsRequest(**fields), metadata=KEY)
            return [found.title for found in answer.conversations], answer.next_page_token

        first, token = await titles(page_size=3)
        second, end = await titles(page_size=3, page_token=token)
        assert (first + second, end) == (["T1", "T4", "T3", "T2", "T0"], "")
        assert (await titles(pinned=True))[0] == ["T1"]
        assert (await titles(pinned=False))[0] == ["T4", "T3", "T2", "T0"]
        assert (await titles(title_contains="t3"))[0] == ["T3"]


async def test_append_and_fork(unused_tcp_port: int) -> None:
    """Messages are appended after the head, unless it has changed since the caller read it.

    A fork shares the messages up to its point.
    """
    async with serving(unused_tcp_port) as stub:
        made = await create(stub, "a", "b", title="T")
        request = history_pb2.AppendMessagesRequest(
            conversation_id=made.id, messages=user_messages("c", "d"), expected_head_message_id=made.head_message_id
        )
        answer = await stub.AppendMessages(request, metadata=KEY)
        assert answer.messages[0].parent_message_id == made.head_message_id
        assert answer.conversation.head_message_id == answer.messages[1].id
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.AppendMessages(request, metadata=KEY)
        assert caught.value.code() is grpc.StatusCode.ABORTED
        fork_request = history_pb2.ForkConversationRequest(id=made.id, message_id=answer.messages[0].id)
        fork = (await stub.ForkConversation(fork_request, metadata=KEY)).conversation
        assert (fork.title, fork.forked_from, fork.message_count) == ("T", made.id, 3)
        assert await texts(stub, fork.id) == ["a", "b", "c"]
        page = await stub.ListMessages(history_pb2.ListMessagesRequest(conversation_id=made.id, page_size=3), metadata=KEY)
        assert (len(page.messages), page.messages[0].state) == (3, history_pb2.MESSAGE_STATE_COMPLETE)
        assert page.next_page_token


async def test_a_page_of_large_messages_ends_early(unused_tcp_port: int) -> None:
    """A page of large messages ends early, without gaps or repetitions. A message larger than a page comes alone."""
    async with serving(unused_tcp_port) as stub:
        made = await create(stub)
        lengths = [1, 2, 2, 2, 20, 2, 1, 1]
        for number, length in enumerate(lengths):
            append = history_pb2.AppendMessagesRequest(
                conversation_id=made.id, messages=user_messages(str(number) + "x" * (length * 1_000_000))
            )
            await stub.AppendMessages(append, metadata=KEY)
        pages, token = [], None
        while token != "":
            request = history_pb2.ListMessagesRequest(conversation_id=made.id, page_token=token or "")
            answer = await stub.ListMessages(request, metadata=KEY)
            pages.append([int(stored.message.blocks[0].text.text[0]) for stored in answer.messages])
            assert len(answer.messages) == 1 or answer.ByteSize() <= MAX_ANSWER_BYTES
            token = answer.next_page_token
        assert [number for page in pages for number in page] == list(range(len(lengths)))
        assert len(pages) < len(lengths)


async def test_what_a_large_append_answers_is_without_content(unused_tcp_port: int) -> None:
    """The answer to a large append has ids and the conversation, but no content, which the caller has."""
    async with serving(unused_tcp_port) as stub:
        made = await create(stub)
        small = history_pb2.AppendMessagesRequest(conversation_id=made.id, messages=user_messages("a", "b"))
        large = history_pb2.AppendMessagesRequest(conversation_id=made.id, messages=user_messages("x" * 2_500_000, "y" * 2_500_000))
        assert [stored.message.blocks[0].text.text for stored in (await stub.AppendMessages(small, metadata=KEY)).messages] == [
            "a",
            "b",
        ]
        answer = await stub.AppendMessages(large, metadata=KEY)
        assert answer.ByteSize() < 1000
        assert [stored.HasField("message") for stored in answer.messages] == [False, False]
        assert answer.conversation.head_message_id == answer.messages[-1].id
        assert (answer.messages[0].state, answer.conversation.message_count) == (history_pb2.MESSAGE_STATE_COMPLETE, 4)


async def test_another_owners_conversation_is_not_found(unused_tcp_port: int) -> None:
    """Every method is NOT_FOUND for another owner's conversation."""
    async with serving(unused_tcp_port) as stub:
        made = await create(stub, "a")
        mask = field_mask_pb2.FieldMask(paths=["title"])
        update = history_pb2.UpdateConversationRequest(conversation=history_pb2.Conversation(id=made.id), update_mask=mask)
        for call in (
            stub.GetConversation(history_pb2.GetConversationRequest(id=made.id), metadata=OTHER),
            stub.UpdateConversation(update, metadata=OTHER),
            stub.DeleteConversation(history_pb2.DeleteConversationRequest(id=made.id), metadata=OTHER),
            stub.ForkConversation(history_pb2.ForkConversationRequest(id=made.id), metadata=OTHER),
            stub.ListMessages(history_pb2.ListMessagesRequest(conversation_id=made.id), metadata=OTHER),
            stub.AppendMessages(
                history_pb2.AppendMessagesRequest(conversation_id=made.id, messages=user_messages("x")), metadata=OTHER
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert not (await stub.ListConversations(history_pb2.ListConversationsRequest(), metadata=OTHER)).conversations


@pytest.mark.parametrize(
    ("method", "request_", "fields"),
    [
        ("ListConversations", history_pb2.ListConversationsRequest(page_size=1001), ["page_size"]),
        ("ListMessages", history_pb2.ListMessagesRequest(page_size=-1), ["conversation_id", "page_size"]),
        ("GetConversation", history_pb2.GetConversationRequest(), ["id"]),
        ("DeleteConversation", history_pb2.DeleteConversationRequest(), ["id"]),
        ("ForkConversation", history_pb2.ForkConversationRequest(title="x" * 501), ["id", "title"]),
        ("ForkConversation", history_pb2.ForkConversationRequest(id="c", title="a\0"), ["title"]),
        (
            "CreateConversation",
            history_pb2.CreateConversationRequest(conversation=history_pb2.Conversation(title="a\0", source="\0")),
            ["conversation.title", "conversation.source"],
        ),
        (
            "CreateConversation",
            history_pb2.CreateConversationRequest(conversation=history_pb2.Conversation(title="x" * 501, source="x" * 101)),
            ["conversation.title", "conversation.source"],
        ),
        ("CreateConversation", history_pb2.CreateConversationRequest(messages=[message_pb2.Message()]), ["messages[0].role"]),
        ("UpdateConversation", history_pb2.UpdateConversationRequest(), ["conversation.id", "update_mask"]),
        (
            "UpdateConversation",
            history_pb2.UpdateConversationRequest(
                conversation=history_pb2.Conversation(id="c"), update_mask=field_mask_pb2.FieldMask(paths=["title", "owner"])
            ),
            ["update_mask.paths[1]"],
        ),
        ("AppendMessages", history_pb2.AppendMessagesRequest(conversation_id="c"), ["messages"]),
    ],
)
async def test_requests_at_fault_name_every_field(method: str, request_: Any, fields: list[str], unused_tcp_port: int) -> None:
    """A wrong request is INVALID_ARGUMENT with a BadRequest that lists every wrong field."""
    async with serving(unused_tcp_port) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(stub, method)(request_, metadata=KEY)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in details(caught.value)["BadRequest"].field_violations] == fields
