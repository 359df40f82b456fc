"""The history over gRPC compared with a model: any order of calls to a real server with SQLite gives the model's content."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from msgspec import Struct

from antiphon.v1 import history_pb2 as h
from antiphon.v1 import history_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY, Gateway

METADATA = (("authorization", f"Bearer {KEY}"),)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
TITLE = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=500)
TEXTS = st.lists(TEXT.filter(bool), max_size=4)


class Expected(Struct):
    """The expected state of a conversation."""

    title: str
    pinned: bool
    messages: list[tuple[str, str]]
    """Ids and texts."""


def messages(texts: list[str]) -> list[message_pb2.Message]:
    return [message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=text))]) for text in texts]


class History(RuleBasedStateMachine):
    """Random calls and their expected results. Each run has a source of its own, and sees only its conversations."""

    channel: grpc.Channel
    ids = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        self.source = uuid.uuid4().hex  # not from `random`, because Hypothesis seeds that
        self.stub: Any = history_pb2_grpc.HistoryServiceStub(self.channel)
        self.expected: dict[str, Expected] = {}
        self.gone: set[str] = set()

    @rule(target=ids, title=TITLE, pinned=st.booleans(), texts=TEXTS)
    def create(self, title: str, pinned: bool, texts: list[str]) -> str:
        wanted = h.Conversation(title=title, pinned=pinned, source=self.source)
        request = h.CreateConversationRequest(conversation=wanted, messages=messages(texts))
        made = self.stub.CreateConversation(request, metadata=METADATA).conversation
        assert made.id not in self.expected.keys() | self.gone
        stored = self.read(made.id, 0)
        assert [text for _, text in stored] == texts
        self.expected[made.id] = Expected(title, pinned, stored)
        return str(made.id)

    @rule(chat=ids, texts=TEXTS.filter(bool), head=st.sampled_from(["", "right", "wrong"]))
    def append(self, chat: str, texts: list[str], head: str) -> None:
        expected = self.expected[chat]
        expected_head = (
            expected.messages[-1][0] if head == "right" and expected.messages else "no-such-message" if head == "wrong" else ""
        )
        request = h.AppendMessagesRequest(conversation_id=chat, messages=messages(texts), expected_head_message_id=expected_head)
        if head == "wrong":
            self.refused(self.stub.AppendMessages, request, grpc.StatusCode.ABORTED)
            return
        answer = self.stub.AppendMessages(request, metadata=METADATA)
        before = expected.messages[-1][0] if expected.messages else ""
        for stored in answer.messages:
            assert stored.parent_message_id == before
            before = stored.id
        expected.messages += [(stored.id, stored.message.blocks[0].text.text) for stored in answer.messages]
        assert [text for _, text in expected.messages[-len(texts) :]] == texts

    @rule(target=ids, chat=ids, at=st.integers(0, 9), whole=st.booleans(), title=TITLE)
    def fork(self, chat: str, at: int, whole: bool, title: str) -> str:
        expected = self.expected[chat]
        up_to = len(expected.messages) if whole or not expected.messages else at % len(expected.messages) + 1
        message_id = "" if whole or not expected.messages else expected.messages[up_to - 1][0]
        request = h.ForkConversationRequest(id=chat, message_id=message_id, title=title)
        made = self.stub.ForkConversation(request, metadata=METADATA).conversation
        assert made.forked_from == chat
        self.expected[made.id] = Expected(title or expected.title, False, expected.messages[:up_to])
        return str(made.id)

    @rule(chat=ids, title=TITLE, pinned=st.booleans(), mask=st.sampled_from([["title"], ["pinned"], ["title", "pinned"]]))
    def update(self, chat: str, title: str, pinned: bool, mask: list[str]) -> None:
        wanted = h.Conversation(id=chat, title=title, pinned=pinned)
        self.stub.UpdateConversation(
            h.UpdateConversationRequest(conversation=wanted, update_mask=FieldMask(paths=mask)), metadata=METADATA
        )
        if "title" in mask:
            self.expected[chat].title = title
        if "pinned" in mask:
            self.expected[chat].pinned = pinned

    @rule(chat=consumes(ids))
    def delete(self, chat: str) -> None:
        self.stub.DeleteConversation(h.DeleteConversationRequest(id=chat), metadata=METADATA)
        del self.expected[chat]
        self.gone.add(chat)
        for call, request in (
            (self.stub.DeleteConversation, h.DeleteConversationRequest(id=chat)),
            (self.stub.GetConversation, h.GetConversationRequest(id=chat)),
            (self.stub.ListMessages, h.ListMessagesRequest(conversation_id=chat)),
            (self.stub.ForkConversation, h.ForkConversationRequest(id=chat)),
            (self.stub.AppendMessages, h.AppendMessagesRequest(conversation_id=chat, messages=messages(["x"]))),
        ):
            self.refused(call, request, grpc.StatusCode.NOT_FOUND)

    @rule(target=ids, chat=ids, text=TEXT)
    def nul_is_refused(self, chat: str, text: str) -> Any:
        request = h.AppendMessagesRequest(conversation_id=chat, messages=messages([f"{text}\0"]))
        self.refused(self.stub.AppendMessages, request, grpc.StatusCode.INVALID_ARGUMENT)
        return multiple()

    @rule(chat=ids, size=st.integers(1, 3))
    def read_in_pages(self, chat: str, size: int) -> None:
        assert self.read(chat, size) == self.expected[chat].messages

    @rule(size=st.integers(1, 3), pinned=st.sampled_from([None, True, False]))
    def list_in_pages(self, size: int, pinned: bool | None) -> None:
        found = self.list(size, pinned)
        order = [(entry.pinned, entry.update_time.ToNanoseconds(), entry.id) for entry in found]
        assert order == sorted(order, reverse=True)
        wanted = {chat for chat, expected in self.expected.items() if pinned in (None, expected.pinned)}
        assert len(found) == len(wanted)
        assert {entry.id for entry in found} == wanted

    @invariant()
    def conversations_are_as_expected(self) -> None:
        for entry in self.list(1000, None):
            expected = self.expected[entry.id]
            head = expected.messages[-1][0] if expected.messages else ""
            found = (entry.title, entry.pinned, entry.message_count, entry.head_message_id)
            assert found == (expected.title, expected.pinned, len(expected.messages), head)

    def teardown(self) -> None:
        for chat, expected in self.expected.items():
            assert self.read(chat, 0) == expected.messages, "the deletion of a fork removed shared messages"

    def list(self, size: int, pinned: bool | None) -> list[h.Conversation]:
        found: list[h.Conversation] = []
        token = ""
        while True:
            request = h.ListConversationsRequest(page_size=size, page_token=token, pinned=pinned, source=self.source)
            page = self.stub.ListConversations(request, metadata=METADATA)
            assert len(page.conversations) <= size
            found += page.conversations
            token = page.next_page_token
            if not token:
                return found

    def read(self, chat: str, size: int) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        token = ""
        while True:
            request = h.ListMessagesRequest(conversation_id=chat, page_size=size, page_token=token)
            page = self.stub.ListMessages(request, metadata=METADATA)
            found += [(stored.id, stored.message.blocks[0].text.text) for stored in page.messages]
            token = page.next_page_token
            if not token:
                return found

    def refused(self, call: Any, request: Any, code: grpc.StatusCode) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            call(request, metadata=METADATA)
        assert caught.value.code() is code


async def test_any_order_of_calls_leaves_what_the_model_has(gateway: Gateway) -> None:
    """After any order of calls the server has the model's content, and a deletion keeps messages that a fork shares."""
    with grpc.insecure_channel(gateway.grpc) as channel:
        machine = type("Machine", (History,), {"channel": channel})
        examples = max(5, settings.default.max_examples // 10)
        await asyncio.to_thread(
            run_state_machine_as_test, machine, settings=settings(max_examples=examples, stateful_step_count=20)
        )
