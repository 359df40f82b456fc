"""HTTP by hand, as bytes and frames, because libraries refuse to send invalid requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

from antiphon.config import split_address

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 7, 8, 11
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

PATIENCE: Final = 20.0
"""Seconds after which a test gives up."""


class Answer(NamedTuple):
    """An HTTP/1.1 answer, with header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to "host:port"."""
    return await asyncio.open_connection(*split_address(address))


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read the next answer on a connection. Raises `IncompleteReadError` if the connection closes before its end."""
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(int(first.split()[1]), headers, body)


async def ask(address: str, request: bytes) -> list[Answer]:
    """Send bytes, and return all answers until the connection closes. So the last request must ask for that."""
    reader, writer = await connect(address)
    writer.write(request)
    answers = []
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                answers.append(await read_answer(reader))
    except (asyncio.IncompleteReadError, ConnectionError):
        return answers
    finally:
        await close(writer)


async def until_closed(reader: asyncio.StreamReader) -> None:
    """Read until the other side has closed the connection."""
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while await reader.read(65536):
                pass


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until it is closed."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


class Frame(NamedTuple):
    """One HTTP/2 frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """Return the error code of a RST_STREAM or GOAWAY frame."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload[:4], "big")


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def fields(headers: Mapping[str, str]) -> bytes:
    """Encode headers in HPACK's simplest form."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())


def _text(text: str) -> bytes:
    data = text.encode()
    length = len(data)
    if length < 127:
        return bytes([length]) + data
    length -= 127
    written = bytearray([127])
    while length >= 128:
        written.append(length % 128 + 128)
        length //= 128
    written.append(length)
    return bytes(written) + data


class Http2:
    """One HTTP/2 connection without TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        self._reader = reader
        self._writer = writer
        self._authority = authority

    def request(self, path: str, method: str = "GET", **headers: str) -> bytes:
        """Return the encoded headers of a request. Underscores in names stand for hyphens."""
        pseudo = {":method": method, ":path": path, ":scheme": "http", ":authority": self._authority}
        return fields({**pseudo, **{name.replace("_", "-"): value for name, value in headers.items()}})

    async def send(self, *frames: bytes) -> None:
        """Send frames. Raises `ConnectionError` once the other side has closed."""
        self._writer.write(b"".join(frames))
        await self._writer.drain()

    async def receive(self) -> Frame | None:
        """Return the next frame, or None when the other side has closed."""
        try:
            async with asyncio.timeout(PATIENCE):
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)

    async def until_closed(self) -> list[Frame]:
        """Return all frames until the other side closes."""
        found = []
        while (received := await self.receive()) is not None:
            found.append(received)
        return found

    async def answer(self, stream: int) -> bytes:
        """Return the body of a stream's answer. Fails if the stream is reset or the connection ends."""
        body = b""
        while True:
            received = await self.receive()
            assert received is not None, "closed"
            if received.stream == stream:
                assert received.kind in (DATA, HEADERS), received
                body += received.payload if received.kind == DATA else b""
                if received.flags & END_STREAM:
                    return body


# One path of each dialect, and the fields of its errors.
DIALECTS = {
    "/api/v1/chat/completions": {"detail", "error"},
    "/v1/chat/completions": {"detail", "error"},
    "/api/v1/chat/generate": {"message"},
    "/api/v1/ai/chat": {"error", "message", "code"},
    "/api/engine/chat/echo": {"detail"},
    "/api/v1/proxy/default/sk-x/chat/completions": {"error"},
    "/api/v1/proxy/default/v1beta/models/m:generateContent": {"error"},
}


@asynccontextmanager
async def http2(address: str, settings: bytes = b"") -> AsyncIterator[Http2]:
    """Open an HTTP/2 connection to "host:port", with preface and settings sent."""
    reader, writer = await connect(address)
    try:
        made = Http2(reader, writer, address)
        await made.send(PREFACE, frame(SETTINGS, payload=settings))
        yield made
    finally:
        await close(writer)


def post(path: str, body: bytes = b"", headers: Mapping[str, Any] | None = None) -> bytes:
    """Return an HTTP/1.1 POST, with its length unless `headers` replace it."""
    named = {"host": "gateway", "content-type": "application/json", "content-length": len(body), **(headers or {})}
    return f"POST {path} HTTP/1.1\r\n".encode() + b"".join(f"{n}: {v}\r\n".encode() for n, v in named.items()) + b"\r\n" + body
