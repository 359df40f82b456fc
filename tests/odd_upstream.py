"""An HTTP upstream that answers with exactly the bytes that a test scripts, including pauses, cuts and resets.

    async with OddUpstream() as upstream:
        upstream.script("cut", [head(), chunk(sse({"choices": []})), CUT])
        ...  # a POST to upstream.base_url + "/chat/completions" whose JSON body has "model": "cut" gets that

The `model` in the JSON body of a request selects the script. The connection stays open after the script.
"""

import asyncio
import enum
import json
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, cast


class End(enum.Enum):
    """Ways for a script to end early."""

    CUT = "close the connection"
    RESET = "reset the connection"
    HANG = "send nothing more, until the client leaves"
    STALE = "close the connection when the next request begins to arrive, without reading it"


CUT, RESET, HANG, STALE = End.CUT, End.RESET, End.HANG, End.STALE


class Pause(NamedTuple):
    """A step that waits for some seconds."""

    seconds: float


Step = bytes | Pause | asyncio.Event | End
"""Bytes are sent; an `asyncio.Event` is waited for."""


class Received(NamedTuple):
    """A request that arrived. Header names are in lower case; `connection` numbers the connections from 1."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def head(status: str = "200 OK", content_type: str = "text/event-stream", *more: str) -> bytes:
    """Return the head of an answer with a chunked body."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", "transfer-encoding: chunked", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    """Return a chunk of such a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST = b"0\r\n\r\n"
"""The end of such a body."""


def answer(body: bytes | dict[str, Any], status: str = "200 OK", content_type: str = "application/json", *more: str) -> bytes:
    """Return a whole answer, with its length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(data)}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


def sse(*events: dict[str, Any] | str, end: str = "\n\n") -> bytes:
    """Return server-sent events: JSON objects, or text such as "[DONE]"."""
    return "".join(f"data: {event if isinstance(event, str) else json.dumps(event)}{end}" for event in events).encode()


def delta(content: Any = None, finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a chunk of the OpenAI protocol with one choice."""
    fields = fields if content is None else {"content": content, **fields}
    return {
        "id": "chatcmpl-odd",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "odd-model",
        "choices": [{"index": index, "delta": fields, "finish_reason": finish}],
    }


class OddUpstream:
    """The server, on a free port of 127.0.0.1, in one event loop."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.requests: list[Received] = []
        self.connections = 0
        """The number of all connections so far."""
        self.left: asyncio.Queue[float] = asyncio.Queue()
        """The times (`time.monotonic()`) at which clients left while their script was running."""
        self.default: Sequence[Step] = [answer({"error": {"message": "no such script"}}, "404 Not Found")]
        """The script for a model without one."""
        self.paths: dict[str, Sequence[Step]] = {}
        """Scripts by path with its query, for requests without a body."""
        self._scripts: dict[str, Sequence[Step]] = {}
        self._open: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self.tls)
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            tasks = [connection.drop() for connection in list(self._open)]
            await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
            await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}/v1"

    @property
    def port(self) -> int:
        assert self._server is not None, "start() comes first"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def script(self, model: str, steps: Sequence[Step]) -> None:
        """Set the script for all requests for `model`."""
        self._scripts[model] = steps

    def steps(self, body: bytes) -> Sequence[Step]:
        """Return the script for a request."""
        try:
            return self._scripts.get(json.loads(body)["model"], self.default)
        except (ValueError, KeyError, TypeError):
            return self.default


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: OddUpstream) -> None:
        self._upstream = upstream
        self._buffer = bytearray()
        self._running: asyncio.Task[None] | None = None
        self._number = 0
        self._is_stale = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses
        self._upstream._open.add(self)
        self._upstream.connections += 1
        self._number = self._upstream.connections

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream._open.discard(self)
        if self._running is not None:
            self._upstream.left.put_nowait(time.monotonic())
            self._running.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_stale:
            self._transport.abort()
            return
        self._buffer += data
        self._next()

    def drop(self) -> asyncio.Task[None] | None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        self._transport.abort()
        return running

    def _next(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if self._running is not None or end < 0:
            return
        request_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        begin = end + 4
        after = begin + int(headers.get("content-length", 0))
        if len(self._buffer) < after:
            return
        body = bytes(self._buffer[begin:after])
        del self._buffer[:after]
        path = request_line.split(" ")[1]
        self._upstream.requests.append(Received(path, headers, body, self._number))
        steps = None if body else self._upstream.paths.get(path)
        self._running = asyncio.get_running_loop().create_task(self._run(steps or self._upstream.steps(body)))

    async def _run(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case bytes():
                    self._transport.write(step)
                case Pause():
                    await asyncio.sleep(step.seconds)
                case asyncio.Event():
                    await step.wait()
                case End.HANG:
                    await asyncio.Event().wait()
                case End.STALE:
                    self._is_stale = True
                case End.CUT | End.RESET:
                    if step is End.RESET:
                        # A linger time of 0 makes the close a reset.
                        connected = self._transport.get_extra_info("socket")
                        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self._running = None
                    self._transport.close()
                    return
        self._running = None
        self._next()
