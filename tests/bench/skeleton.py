"""A gateway without the gateway: a grpc.aio server behind Antiphon's Envoy that forwards bodies to one provider.

It has no keys, checks, limits, records or errors of its own. What it costs is the price of the architecture, and the least that
Antiphon can cost: `python -m tests.bench.skeleton --folder F --port P --upstream URL`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import orjson
import uvloop
from google.api import httpbody_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from antiphon.config import RestConfig
from antiphon.edge import files as edge
from antiphon.rest.v1 import openai_pb2, openai_pb2_grpc

SOCKET: Final = "worker-0.sock"


class Forwarding(openai_pb2_grpc.OpenAIServiceServicer):
    """Chat completions: the request is read as JSON once, and so is each event, as a gateway that counts tokens has to."""

    def __init__(self, session: aiohttp.ClientSession, upstream: str) -> None:
        self._session = session
        self._url = f"{upstream}/chat/completions"

    async def CreateChatCompletion(  # type: ignore[override]  # the generated type is that of synchronous servicers
        self, request: openai_pb2.CreateChatCompletionRequest, context: Any
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        asked = orjson.loads(request.body.data)
        headers = {"authorization": "Bearer sk-mock", "content-type": "application/json"}
        async with self._session.post(self._url, data=orjson.dumps(asked), headers=headers) as answer:
            if not asked.get("stream"):
                yield httpbody_pb2.HttpBody(content_type="application/json", data=await answer.read())
                return
            rest, kind = b"", "text/event-stream"
            async for data in answer.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event != b"data: [DONE]":
                        orjson.loads(event.removeprefix(b"data: "))
                yield httpbody_pb2.HttpBody(content_type=kind, data=data)
                kind = ""


async def run(folder: Path, port: int, upstream: str) -> None:
    """Serve until a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout()) as session:
        server = grpc.aio.server()
        openai_pb2_grpc.add_OpenAIServiceServicer_to_server(Forwarding(session, upstream), server)
        healthy = health.aio.HealthServicer()
        await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        server.add_insecure_port(f"unix:{folder / SOCKET}")
        await server.start()
        edge.prepare(folder, RestConfig(listen=f"127.0.0.1:{port}"), [SOCKET])
        envoy = await asyncio.create_subprocess_exec(*edge.command(1), cwd=folder, stderr=asyncio.subprocess.DEVNULL)
        await stop.wait()
        envoy.terminate()
        await envoy.wait()
        await server.stop(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    options = parser.parse_args()
    uvloop.run(run(options.folder, options.port, options.upstream))
