"""Chats continue after turns that broke off, were refused, or started at the same time, and show all their messages."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc
import httpx2
import pytest

from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.e2e.conftest import Gateway
from tests.e2e.test_grpc import METADATA
from tests.odd_upstream import CUT, LAST, OddUpstream, Step, answer, chunk, delta, head, sse
from tests.waiting import until

HALF = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "hal'}}
WHOLE = {**HALF, "function": {"name": "f", "arguments": "{}"}}
REFUSAL = {"error": {"message": "no", "type": "invalid_request_error", "code": "context_length_exceeded"}}
NO_MODEL = {"error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}}


def ends(*deltas: dict[str, Any], finish: str | None = "stop") -> list[Step]:
    """Return the steps of a reply that ends, or is cut if `finish` is None."""
    if finish is None:
        return [head(), chunk(sse(*deltas)), CUT]
    return [head(), chunk(sse(*deltas, delta(finish=finish), "[DONE]")), LAST]


TURNS: dict[str, tuple[list[Step], list[str]]] = {
    "a call that broke off": (ends(delta(tool_calls=[HALF]), finish=None), ["ask"]),
    "a call in which the tokens ended": (ends(delta(tool_calls=[HALF]), finish="length"), ["ask"]),
    "text, and a call that broke off": (
        ends(delta("Let me look."), delta(tool_calls=[HALF]), finish=None),
        ["ask", "Let me look."],
    ),
    "a call that nobody answers": (ends(delta(tool_calls=[WHOLE]), finish="tool_calls"), ["ask"]),
    "text, and a call that nobody answers": (ends(delta("So."), delta(tool_calls=[WHOLE]), finish="tool_calls"), ["ask", "So."]),
    "thoughts until the tokens end": (ends(delta(reasoning_content="Hm"), finish="length"), ["ask"]),
    "thoughts and an empty text": (ends(delta(reasoning_content="Hm"), delta("")), ["ask"]),
    "thoughts that broke off": (ends(delta(reasoning_content="Hm"), finish=None), ["ask"]),
    "half a text": (ends(delta("Hel"), finish=None), ["ask", "Hel"]),
    "a refusal for good": ([answer(REFUSAL, "400 Bad Request")], []),
    "a model that is not there": ([answer(NO_MODEL, "404 Not Found")], ["ask"]),
    "a filter before a word": (ends(finish="content_filter"), []),
    "a failure for a moment": ([answer({"error": {"message": "busy"}}, "503 Service Unavailable")], ["ask"]),
}
"""The provider's answer to "ask", and the contents of that turn that are sent to it in the next one."""


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def sent(upstream: OddUpstream) -> list[Any]:
    """Return the contents of the messages last sent to the provider, without instructions."""
    messages = upstream.requests[-1].json["messages"]
    assert not any("tool_calls" in message or message["role"] == "tool" for message in messages)
    return [message["content"] for message in messages if message["role"] != "system"]


async def send_turn(http: httpx2.AsyncClient, dialect: str, chat: str, messages: Sequence[dict[str, Any]]) -> httpx2.Response:
    if dialect == "sessions":
        body = {"model": "odd-persona", "messages": messages, "session_id": chat, "stream": True}
        return await http.post("/chat/completions", json=body)
    return await http.post(f"/chat/generate/stream?chatId={chat}", json={"chat_history": messages, "persona": "odd"})


async def make(http: httpx2.AsyncClient, *texts: str) -> str:
    """Create a chat with these texts, by user and model in turns, and return its id."""
    messages = [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(texts)]
    chat: str = (await http.post("/chat/new", json={"messages": messages})).json()["chatId"]
    return chat


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("dialect", ["sessions", "chats"])
@pytest.mark.parametrize("resent", [False, True])
async def test_a_chat_goes_on(persona_gateway: Gateway, upstream: OddUpstream, turn: str, dialect: str, resent: bool) -> None:
    """After each kind of broken turn the chat and its fork go on, with the new message alone or with the history resent."""
    script, left = TURNS[turn]
    async with persona_gateway.client() as http:
        chat = await make(http, "hello", "Hi.")
        upstream.script("odd-persona", script)
        await send_turn(http, dialect, chat, [user("ask")])
        upstream.script("odd-persona", ends(delta("ok")))
        fork = (await http.post("/chat/fork", json={"chatId": chat})).json()["chatId"]
        for each in (chat, fork):
            before = (await http.get(f"/chat/fetch/{each}")).json()["messages"] if resent else []
            answered = await send_turn(http, dialect, each, [*before, user("and now?")])
            assert "ok" in answered.text
            assert sent(upstream) == ["hello", "Hi.", *left, "and now?"]
            stored = (await http.get(f"/chat/fetch/{each}")).json()["messages"]
            assert [message["content"] for message in stored][-2:] == ["and now?", "ok"]
            assert "ask" in [message["content"] for message in stored], "the user's message is kept"


@pytest.mark.parametrize("dialect", ["sessions", "chats"])
@pytest.mark.parametrize("resent", [False, True])
async def test_a_chat_goes_on_behind_a_refused_turn_that_was_tried_again(
    persona_gateway: Gateway, upstream: OddUpstream, dialect: str, resent: bool
) -> None:
    """A message that was refused twice is not sent with the next turn either."""
    async with persona_gateway.client() as http:
        chat = await make(http, "hello", "Hi.")
        before = (await http.get(f"/chat/fetch/{chat}")).json()["messages"] if resent else []
        upstream.script("odd-persona", [answer(REFUSAL, "400 Bad Request")])
        for _ in range(2):
            await send_turn(http, dialect, chat, [*before, user("ask")])
            assert sent(upstream) == ["hello", "Hi.", "ask"]
        upstream.script("odd-persona", ends(delta("ok")))
        before = (await http.get(f"/chat/fetch/{chat}")).json()["messages"] if resent else []
        await send_turn(http, dialect, chat, [*before, user("and now?")])
        assert sent(upstream) == ["hello", "Hi.", "and now?"]
        stored = (await http.get(f"/chat/fetch/{chat}")).json()["messages"]
        assert [message["content"] for message in stored] == ["hello", "Hi.", "ask", "and now?", "ok"]


async def test_a_session_over_grpc_goes_on(persona_gateway: Gateway, upstream: OddUpstream) -> None:
    """A session over gRPC goes on after every kind of broken turn, one after the other."""
    async with grpc.aio.insecure_channel(persona_gateway.rest) as channel, persona_gateway.client() as http:
        stub, chat = chat_pb2_grpc.ChatServiceStub(channel), await make(http, "hello", "Hi.")

        def recorded_request(text: str) -> chat_pb2.GenerateRequest:
            message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=text))])
            recording = chat_pb2.Recording(conversation_id=chat)
            return chat_pb2.GenerateRequest(model="odd-persona", messages=[message], recording=recording)

        expected = ["hello", "Hi."]
        for script, left in TURNS.values():
            upstream.script("odd-persona", script)
            with suppress(grpc.aio.AioRpcError):
                async for _ in stub.StreamGenerate(recorded_request("ask"), metadata=METADATA):
                    pass
            upstream.script("odd-persona", ends(delta("ok")))
            await stub.Generate(recorded_request("and now?"), metadata=METADATA)
            expected += [*left, "and now?"]
            assert sent(upstream) == expected
            expected.append("ok")


async def test_turns_that_were_begun_at_once_are_all_found(persona_gateway: Gateway, upstream: OddUpstream) -> None:
    """If several tabs send turns at once, one becomes the path and the others branches, which can be forked."""
    async with persona_gateway.client() as http:
        chat = await make(http, "hello", "Hi.")
        start = (await http.get(f"/chat/fetch/{chat}")).json()["messages"]
        go, before = asyncio.Event(), len(upstream.requests)
        upstream.script("odd-persona", [head(), go, *ends(delta("ok"))[1:]])
        tabs = [asyncio.create_task(send_turn(http, "chats", chat, [*start, user(f"tab {tab}")])) for tab in range(6)]
        await until(lambda: len(upstream.requests) >= before + len(tabs))
        go.set()
        await asyncio.gather(*tabs)
        found = (await http.get(f"/chat/fetch/{chat}")).json()
        assert found["messageCount"] == len(found["messages"])
        branches = [[message["content"] for message in branch["messages"]] for branch in found["branches"]]
        texts = [message["content"] for message in found["messages"]] + [text for branch in branches for text in branch]
        assert sorted(text for text in texts if text.startswith("tab")) == [f"tab {tab}" for tab in range(6)]
        assert texts.count("ok") == 6
        assert found["nextBranchToken"] is None
        known = {message["messageId"] for message in found["messages"]}
        for branch in found["branches"]:
            assert branch["messageId"] in known
            known |= {message["messageId"] for message in branch["messages"]}
        await send_turn(http, "chats", chat, [*start, user("an edit")])
        found = (await http.get(f"/chat/fetch/{chat}")).json()
        assert [message["content"] for message in found["messages"]] == ["hello", "Hi.", "an edit", "ok"]
        last = found["branches"][0]["messages"][-1]
        fork = await http.post("/chat/fork", json={"chatId": chat, "messageId": last["messageId"]})
        assert fork.status_code == 201
        forked = (await http.get(f"/chat/fetch/{fork.json()['chatId']}")).json()
        assert forked["messages"][-1] == last
        assert fork.json()["messageCount"] == len(forked["messages"])


async def test_a_failed_reply_without_text_is_not_shown(persona_gateway: Gateway, upstream: OddUpstream) -> None:
    """A failed reply without text is neither shown nor counted, on the path or on branches. The user's message is."""
    async with persona_gateway.client() as http:
        chat = await make(http, "hello", "Hi.")
        source = (await http.get(f"/chat/fetch/{chat}")).json()["messages"]
        upstream.script("odd-persona", [answer(REFUSAL, "400 Bad Request")])
        for text in ("a", "b"):
            await send_turn(http, "chats", chat, [user(text)])
        await send_turn(http, "chats", chat, [*source, user("an edit")])
        found = (await http.get(f"/chat/fetch/{chat}")).json()
        assert [message["content"] for message in found["messages"]] == ["hello", "Hi.", "an edit"]
        assert [branch["messageId"] for branch in found["branches"]] == [source[1]["messageId"]]
        assert [message["content"] for message in found["branches"][0]["messages"]] == ["a", "b"]
        listed = {each["chatId"]: each["messageCount"] for each in (await http.get("/chat/history?pageSize=1000")).json()["chats"]}
        assert listed[chat] == found["messageCount"] == 3
        by_index = await http.post("/chat/fork", json={"chatId": chat, "messageIndex": 2})
        assert by_index.json()["messageCount"] == 3


async def test_branches_come_in_pages(persona_gateway: Gateway) -> None:
    """Branches come in pages of a hundred, the newest first, each exactly once."""
    async with persona_gateway.client() as http:
        chat = await make(http, "hello", "Hi.")
        start = (await http.get(f"/chat/fetch/{chat}")).json()["messages"]
        for edit in range(132):
            body = {"chat_history": [*start, user(f"edit {edit}")]}
            assert (await http.post(f"/chat/generate?chatId={chat}", json=body)).status_code == 201
        pages, token = [], ""
        while token is not None and len(pages) < 3:
            found = (await http.get(f"/chat/fetch/{chat}" + (f"/branches/{token}" if token else ""))).json()
            assert [message["content"] for message in found["messages"]][2:] == ["edit 131", "You said: edit 131"]
            pages.append([branch["messages"][0]["content"] for branch in found["branches"]])
            token = found["nextBranchToken"]
        assert list(map(len, pages)) == [100, 31]
        assert [text for page in pages for text in page] == [f"edit {edit}" for edit in reversed(range(131))]
        bad = await http.get(f"/chat/fetch/{chat}/branches/x")
        assert (bad.status_code, bad.json()["message"].split(":")[0]) == (400, "branch_token")


async def test_a_large_chat_is_whole_over_rest_and_in_pages_over_grpc(gateway: Gateway) -> None:
    """A chat larger than any message is complete over REST, and comes in pages to a default gRPC client."""
    picture = message_pb2.Block(image=message_pb2.Image(media=message_pb2.Media(data=bytes(900_000), media_type="image/png")))
    messages = [message_pb2.Message(role="ROLE_USER", blocks=[picture])] * 15
    async with grpc.aio.insecure_channel(gateway.rest) as channel, gateway.client() as http:
        stub, chat = history_pb2_grpc.HistoryServiceStub(channel), await make(http)
        for _ in range(2):
            append = history_pb2.AppendMessagesRequest(conversation_id=chat, messages=messages)
            await stub.AppendMessages(append, metadata=METADATA)
        count, token = 0, ""
        while not count or (token and count < 30):
            request = history_pb2.ListMessagesRequest(conversation_id=chat, page_token=token)
            page = await stub.ListMessages(request, metadata=METADATA)
            count, token = count + len(page.messages), page.next_page_token
        assert count == 30
        response = await http.get(f"/chat/fetch/{chat}")
        assert len(response.content) > 32 * 1024 * 1024
        assert response.json()["messageCount"] == len(response.json()["messages"]) == 30
        await http.delete(f"/chat/{chat}")
