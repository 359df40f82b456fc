"""The clients of each kind: how they connect, send calls, and check that a reply is complete. None retries by itself."""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import grpc
import httpx2
import openai

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.cluster import service
from tests.cluster.causes import ErrorEventError, HTTPFailureError, NotWholeError
from tests.cluster.journal import Call
from tests.cluster.network import NODE
from tests.cluster.template import GRPC_PORT
from tests.cluster.upstream import QUICK, TALK, reply_to

PATIENCE = 40.0
"""Seconds that a client waits for an answer, or for more of a stream. The machine may be busy."""

STREAM_PATIENCE = 120.0
"""Seconds that a gRPC client waits for the end of a stream."""

Ask = Callable[[Call], Awaitable[None]]

_EDGE = f"https://{service.ADDRESS}"

_HEADLESS = f"dns://{NODE}:53/{service.NAME}:{GRPC_PORT}"
"""The name that gRPC's own resolver looks up in the cluster's DNS."""

_KEEPALIVE = [("grpc.keepalive_time_ms", 15_000), ("grpc.keepalive_timeout_ms", 15_000)]

_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), *_KEEPALIVE]

# A replica that is about to stop reports it over gRPC health, and gets no calls from then on.
_BALANCED = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})


class Reply(NamedTuple):
    """A complete reply that was recorded."""

    conversation: str
    message: str
    text: str


class Clients:
    """Makes clients that trust one certificate authority."""

    def __init__(self, authority: Path) -> None:
        self._authority = authority
        self._tls = ssl.create_default_context(cafile=str(authority))

    @asynccontextmanager
    async def http(self, key: str) -> AsyncIterator[aiohttp.ClientSession]:
        """Yield a plain HTTP client with a pool of connections."""
        headers = {"authorization": f"Bearer {key}"}
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        connector = aiohttp.TCPConnector(ssl=self._tls)
        async with aiohttp.ClientSession(_EDGE, headers=headers, timeout=timeout, connector=connector) as session:
            yield session

    @asynccontextmanager
    async def sdk(self, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
        """Yield the OpenAI SDK with its retries off."""
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx2.AsyncClient(verify=self._tls, trust_env=False))
            options: dict[str, Any] = {"max_retries": 0, "timeout": PATIENCE, "http_client": http}
            yield await stack.enter_async_context(openai.AsyncOpenAI(base_url=f"{_EDGE}/v1", api_key=key, **options))

    def edge(self) -> grpc.aio.Channel:
        """Return a gRPC channel through the edge: one connection, to the replica that the Service selects."""
        credentials = grpc.ssl_channel_credentials(self._authority.read_bytes())
        return grpc.aio.secure_channel(f"{service.ADDRESS}:443", credentials, options=_OPTIONS)

    def headless(self) -> grpc.aio.Channel:
        """Return a gRPC channel directly to the replicas, balanced by the client."""
        return grpc.aio.insecure_channel(_HEADLESS, options=[*_OPTIONS, ("grpc.service_config", _BALANCED)])


async def ask_http(session: aiohttp.ClientSession, prompt: str, model: str = QUICK) -> None:
    """Make one call over plain HTTP, and check its reply. Raises `HTTPFailureError` or `NotWholeError`."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    async with session.post("/v1/chat/completions", json=body) as response:
        text = await response.text()
        if response.status != 200:
            raise HTTPFailureError(response.status, text)
        _check_reply(json.loads(text)["choices"][0]["message"]["content"], prompt, model)


async def ask_sdk(client: openai.AsyncOpenAI, prompt: str) -> None:
    """Make one call through the SDK without streaming, and check its reply."""
    reply = await client.chat.completions.create(model=QUICK, messages=[{"role": "user", "content": prompt}])
    _check_reply(reply.choices[0].message.content or "", prompt, QUICK)


async def stream_sdk(client: openai.AsyncOpenAI, call: Call, prompt: str) -> None:
    """Make one streamed call through the SDK, and check its reply."""
    stream = await client.chat.completions.create(model=TALK, messages=[{"role": "user", "content": prompt}], stream=True)
    text, finished = "", False
    async for chunk in stream:
        for choice in chunk.choices:
            call.pieces += bool(choice.delta.content)
            text += choice.delta.content or ""
            finished |= choice.finish_reason == "stop"
    if not finished:
        raise NotWholeError("no finish reason")
    _check_reply(text, prompt, TALK)


async def ask_grpc(channel: grpc.aio.Channel, key: str, prompt: str, recording: chat_pb2.Recording | None = None) -> Reply:
    """Make one gRPC call without streaming, check its reply and return it."""
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    answer = await stub.Generate(_request(prompt, QUICK, recording), metadata=_metadata(key), timeout=PATIENCE)
    text = answer.choices[0].message.blocks[0].text.text
    _check_reply(text, prompt, QUICK)
    return Reply(answer.conversation_id, answer.message_id, text)


async def stream_grpc(
    channel: grpc.aio.Channel, key: str, call: Call, prompt: str, recording: chat_pb2.Recording | None = None
) -> Reply:
    """Make one streamed gRPC call, check its reply and return it."""
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    started, text, finished = chat_pb2.Started(), "", False
    request = _request(prompt, TALK, recording)
    async for response in stub.StreamGenerate(request, metadata=_metadata(key), timeout=STREAM_PATIENCE):
        for event in response.events:
            match event.WhichOneof("event"):
                case "started":
                    started = event.started
                case "text":
                    call.pieces += 1
                    text += event.text.text
                case "finished":
                    finished = True
                case "error":
                    raise ErrorEventError(event.error)
    if not finished:
        raise NotWholeError("no finish reason")
    _check_reply(text, prompt, TALK)
    return Reply(started.conversation_id, started.message_id, text)


def _check_reply(text: str, prompt: str, model: str) -> None:
    if text != reply_to(prompt, model):
        raise NotWholeError(f"{len(text)} characters in place of {len(reply_to(prompt, model))}")


def _request(prompt: str, model: str, recording: chat_pb2.Recording | None) -> chat_pb2.GenerateRequest:
    message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=prompt))])
    return chat_pb2.GenerateRequest(model=model, messages=[message], recording=recording)


def _metadata(key: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {key}")]
