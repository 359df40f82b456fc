"""A gateway whose providers do wrong, and what callers of each API then see: the answer, the breaker, and what is recorded."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import grpc

from antiphon.v1 import admin_pb2, admin_pb2_grpc, chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.certificates import Authority
from tests.e2e.conftest import READY, Gateway, configuration
from tests.e2e.test_grpc import METADATA, reason
from tests.faults import GOOD, Fault
from tests.odd_upstream import OddUpstream
from tests.ports import free_port

APIS: Final = ("JSON", "SSE", "gRPC unary", "gRPC stream")
STREAMED: Final = ("SSE", "gRPC stream")
QUESTION: Final = "Hello"

ALONE: Final = {"timeouts": {"stall": 1, "total": 2}}
PAIR: Final = {"timeouts": {"stall": 1, "total": 2, "first_token": 1}}
"""The clocks of a try, in seconds."""


class Answer(NamedTuple):
    """What the caller gets: an HTTP status or the name of a gRPC one, the reason or code of the error, the text, and headers."""

    status: int | str
    code: str
    text: str
    headers: dict[str, str]

    @property
    def whole(self) -> bool:
        """Whether the reply ended well."""
        return self.code == ""


class Health(NamedTuple):
    """What the gateway knows of a model at a deployment."""

    breaker: str
    wait: float
    failed: float


class Faulty:
    """The gateway. Of each address, the provider `alone<address>` has it alone, and `pair<address>` prefers it to a good one."""

    def __init__(self, gateway: Gateway, bad: OddUpstream, pooled: OddUpstream, channel: grpc.aio.Channel) -> None:
        self.gateway = gateway
        self.bad = bad
        self.pooled = pooled
        """Gets one call after the other, so that each call has the connection of the one before."""
        self._channel = channel

    @classmethod
    @asynccontextmanager
    async def running(cls, folder: Path, llm: Any) -> AsyncGenerator[Self, None]:
        """Run the gateway and its providers."""
        tls = Authority().issue("127.0.0.1").context(folder)
        async with AsyncExitStack() as stack:
            bad, pooled, good, untrusted = [
                await stack.enter_async_context(made) for made in (OddUpstream(), OddUpstream(), OddUpstream(), OddUpstream(tls))
            ]
            good.default = GOOD
            addresses = {
                "": bad.base_url,
                "pooled": pooled.base_url,
                "refused": f"http://127.0.0.1:{free_port()}/v1",
                "dns": "http://nowhere.invalid/v1",
                "tls": untrusted.base_url,
            }
            config = configuration(bad, llm)
            for name, address in addresses.items():
                common = {"models": [f"{name}*" if name else "odd-*"], "base_url": address}
                config["providers"][f"alone{name}"] = {**common, **ALONE}
                deployments = {"bad": {"weight": 1e9}, "good": {"base_url": good.base_url, "weight": 1e-9}}
                config["providers"][f"pair{name}"] = {**common, **PAIR, "deployments": deployments}
            config["routing"] = {"attempts": 2, "backoff": {"first": 0.01}, "budget": 1, "breaker": {"consecutive": 2}}
            config["auth"] = {"keys": [{"name": "test", "key_env": "TEST_KEY", "scopes": ["chat", "history", "admin"]}]}
            gateway = Gateway(folder, config)
            await asyncio.to_thread(gateway.wait_for, READY)
            async with grpc.aio.insecure_channel(gateway.rest) as channel:
                yield cls(gateway, bad, pooled, channel)
            assert await asyncio.to_thread(gateway.stop) == 0
            assert "call_failed" not in gateway.output_text

    def script(self, fault: Fault, model: str) -> OddUpstream:
        """Script a fault for a model, and return the provider that gets the calls."""
        upstream = self.pooled if fault.address == "pooled" else self.bad
        upstream.script(model, fault.steps)
        return upstream

    async def conversation(self) -> str:
        """Return a new conversation."""
        made = await self._history.CreateConversation(history_pb2.CreateConversationRequest(), metadata=METADATA)
        return str(made.conversation.id)

    async def recorded(self, conversation: str) -> list[tuple[str, str, str]]:
        """Return what a conversation holds: of each message its role, state and text."""
        request = history_pb2.ListMessagesRequest(conversation_id=conversation)
        found = (await self._history.ListMessages(request, metadata=METADATA)).messages
        return [
            (
                message_pb2.Role.Name(each.message.role).removeprefix("ROLE_").lower(),
                history_pb2.MessageState.Name(each.state).removeprefix("MESSAGE_STATE_").lower(),
                "".join(block.text.text for block in each.message.blocks),
            )
            for each in found
        ]

    async def health(self, deployment: str, model: str) -> Health:
        """Return what the gateway knows of a model at a deployment."""
        stub: Any = admin_pb2_grpc.AdminServiceStub(self._channel)
        listed = await stub.ListDeployments(admin_pb2.ListDeploymentsRequest(), metadata=METADATA)
        (found,) = [one for each in listed.deployments if each.name == deployment for one in each.models if one.model == model]
        return Health(found.breaker, found.wait_seconds, found.failed_share)

    async def ask(self, api: str, model: str, conversation: str = "") -> Answer:
        """Make a call, which is recorded in a conversation if one is named."""
        if api in ("JSON", "SSE"):
            return await self._ask_rest(model, conversation, stream=api == "SSE")
        text = message_pb2.Block(text=message_pb2.Text(text=QUESTION))
        request = chat_pb2.GenerateRequest(model=model, messages=[message_pb2.Message(role="ROLE_USER", blocks=[text])])
        if conversation:
            request.recording.conversation_id = conversation
        found: list[str] = []
        try:
            if api == "gRPC unary":
                reply = await self._chat.Generate(request, metadata=METADATA)
                assert [attempt.outcome for attempt in reply.metrics.attempts][-1] == "ok"
                found += [block.text.text for block in reply.choices[0].message.blocks]
            else:
                async for message in self._chat.StreamGenerate(request, metadata=METADATA):
                    found += [event.text.text for event in message.events]
        except grpc.aio.AioRpcError as error:
            headers = {name: str(value) for name, value in error.trailing_metadata() or ()}
            return Answer(error.code().name, reason(error).lower(), "".join(found), headers)
        return Answer("OK", "", "".join(found), {})

    async def _ask_rest(self, model: str, conversation: str, *, stream: bool) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "stream": stream}
        if conversation:
            body["session_id"] = conversation
        async with self.gateway.client() as http:
            response = await http.post("/chat/completions", json=body)
        headers = dict(response.headers)
        if response.status_code != 200:
            return Answer(response.status_code, _code(response.json()), "", headers)
        if not stream:
            return Answer(200, "", response.json()["choices"][0]["message"]["content"], headers)
        events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: ")]
        chunks = [json.loads(event) for event in events if event != "[DONE]"]
        text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one.get("choices"))
        codes = [_code(one) for one in chunks if "error" in one]
        assert bool(codes) is (events[-1] != "[DONE]"), "a stream ends with an error or with its mark"
        return Answer(200, "".join(codes), text, headers)

    @property
    def _chat(self) -> Any:
        return chat_pb2_grpc.ChatServiceStub(self._channel)

    @property
    def _history(self) -> Any:
        return history_pb2_grpc.HistoryServiceStub(self._channel)


def _code(body: Any) -> str:
    """Return the code of an error of chat completions."""
    error = body["error"]
    assert error["message"], "an error says in words what failed"
    return str(error["code"])
