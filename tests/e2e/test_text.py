"""Text is not changed in any dialect, from the caller to the provider and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from llmock.testing import LLMockServer

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY, READY, Gateway, configuration
from tests.odd_upstream import LAST, OddUpstream, answer, chunk, delta, head, sse

METADATA = (("authorization", f"Bearer {KEY}"),)
WHOLE, STREAMED = "odd-text-whole", "odd-text-streamed"
FORGED = (
    *("data: ", "\n\n", "data: [DONE]\n\n", "\r\n", "\r", "event: error\n", "\u2028", "\u2029", "\x85", "\x1e"),
    *('"', "\\u0000", "\\", "<END_TOKEN>", "\u202e", "\U0001f469\u200d\U0001f467", "\u0645\u0631\u062d\u0628\u0627", "e\u0301"),
)
"""Text that could be read as the end of something, or that is easily changed on the way."""
TEXT = st.lists(
    st.one_of(st.sampled_from(FORGED), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)),
    min_size=1,
    max_size=8,
).map("".join).filter(bool)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def texts(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway whose dialects can all call the scripted upstream."""
    more = {
        "auth": {"keys": [{"name": "boss", "key_env": "TEST_KEY", "admin": True}]},
        "personas": {name: {"model": model} for name, model in (("whole", WHOLE), ("streamed", STREAMED))},
        "proxy": {"allow": [upstream.base_url], "aliases": {"default": upstream.base_url}},
    }
    started = Gateway(tmp_path_factory.mktemp("texts"), {**configuration(upstream, llm), **more})
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.output_text, "the server had an unexpected exception"


class DialectClient:
    """Makes calls in every dialect, and yields the replies."""

    def __init__(self, gateway: Gateway, channel: grpc.Channel) -> None:
        self.url = f"http://{gateway.rest}"
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["authorization"] = f"Bearer {KEY}"
        self.stub: Any = chat_pb2_grpc.ChatServiceStub(channel)

    def replies(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield each dialect and its reply. Each calls the provider once."""
        messages = [{"role": "user", "content": text}]
        for path in ("/api/v1/chat/completions", "/api/v1/ai/chat", "/api/v1/proxy/default/sk-x/chat/completions"):
            whole = self.post(path, {"model": WHOLE, "messages": messages}).json()
            message = whole["data"]["message"] if "data" in whole else whole["choices"][0]["message"]
            yield path, message["content"]
            streamed = self.events(path, {"model": STREAMED, "messages": messages, "stream": True})
            yield f"{path}, streamed", "".join(e["choices"][0]["delta"].get("content", "") for e in streamed if e["choices"])
        body = {"chat_history": messages, "persona": "whole"}
        yield "/api/v1/chat", self.post("/api/v1/chat", body).json()["result"]["message"]
        kept = self.post("/api/v1/chat/generate", body).json()
        yield "/api/v1/chat/generate", kept["result"]["response"]["content"]
        fetched = self.session.get(f"{self.url}/api/v1/chat/fetch/{kept['chatId']}").json()["messages"]
        assert [message["content"] for message in fetched] == [text, kept["result"]["message"]], "it is not stored unchanged"
        events = self.events("/api/v1/chat/generate/stream", {**body, "persona": "streamed"})
        yield "/generate/stream", "".join(event["content"] for event in events if event["type"] == "final_response")
        engine = {"model": STREAMED, "chat_input": text}
        yield "/api/engine", self.post("/api/engine/chat/odd", engine).json()["chat_output"]
        yield "/api/engine, streamed", self.post("/api/engine/chat/odd", {**engine, "is_stream": True}).content.decode()
        message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=text))])
        reply = self.stub.Generate(chat_pb2.GenerateRequest(model=WHOLE, messages=[message]), metadata=METADATA)
        yield "Generate", reply.choices[0].message.blocks[0].text.text
        stream = self.stub.StreamGenerate(chat_pb2.GenerateRequest(model=STREAMED, messages=[message]), metadata=METADATA)
        yield "StreamGenerate", "".join(event.text.text for batch in stream for event in batch.events)

    def post(self, path: str, body: Any) -> requests.Response:
        data = json.dumps(body, ensure_ascii=False).encode()
        response = self.session.post(self.url + path, data, headers={"content-type": "application/json"}, timeout=20)
        assert response.ok, response.text
        return response

    def events(self, path: str, body: Any) -> list[Any]:
        """Return the events as a client reads them that splits at every kind of line end."""
        lines = [line for line in self.post(path, body).content.decode().splitlines() if line]
        assert lines.pop() == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_any_text_survives_both_ways(texts: Gateway, upstream: OddUpstream) -> None:
    """Any text is unchanged both ways, whole and streamed, and a model's text cannot end an event or begin another."""

    @settings(max_examples=max(8, settings.default.max_examples // 10))
    @given(TEXT, TEXT, st.integers(1, 9))
    def every(text: str, reply: str, size: int) -> None:
        message = {"role": "assistant", "content": reply}
        upstream.script(WHOLE, [answer({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})])
        pieces = [delta(reply[at : at + size]) for at in range(0, len(reply), size)]
        upstream.script(STREAMED, [head(), chunk(sse(*pieces, delta(finish="stop"), "[DONE]")), LAST])
        for dialect, received in client.replies(text):
            assert received == reply, dialect
            assert upstream.requests[-1].json["messages"][-1]["content"] == text, dialect

    with grpc.insecure_channel(texts.grpc) as channel:
        client = DialectClient(texts, channel)
        await asyncio.to_thread(every)
        client.session.close()
