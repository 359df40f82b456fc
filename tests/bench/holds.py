"""Measures how long one request blocks all others: bodies at the limits of `antiphon.net.json_bounds`, and beyond them.

    python -m tests.bench.holds

Each body is read, checked, converted to a request of the domain and encoded for a provider, as in a servicer and a provider, beside
a task that records the longest time between two of its turns. Times are CPU time of this thread, so that other load on the machine
matters little.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import orjson

from antiphon.config import MAX_KEYLESS_BYTES
from antiphon.domain.errors import InvalidRequest
from antiphon.domain.fairness import yield_to_other_calls
from antiphon.net.json_bounds import MAX_VALUES, TooMuch
from antiphon.providers.openai.request import encode
from antiphon.rest.engine import request as engine_request
from antiphon.rest.openai import request as openai
from antiphon.rest.proxy import proxied
from antiphon.rest.shared.body import parse_in_turns
from antiphon.rpc import wire
from antiphon.rpc.convert.request import request_from_proto
from antiphon.v1 import chat_pb2, message_pb2

MIB = 1024 * 1024
WHOLE = 32 * MIB - 1024
SHAPE = wire.shape_of(chat_pb2.GenerateRequest.DESCRIPTOR)
USER = {"role": "user", "content": "Hello"}


def texts() -> Iterator[tuple[str, bytes]]:
    """Yield bodies of 32 MiB with few values."""
    picture = base64.b64encode(random.Random(1).randbytes(WHOLE * 3 // 4 - 300)).decode()
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    yield "a picture", orjson.dumps({"messages": [{"role": "user", "content": [url]}]})
    prose = "He said, [so they tell], {that} it: was so. "
    yield "one text", orjson.dumps({"messages": [{"role": "user", "content": prose * (WHOLE // len(prose))}]})
    one = prose * (WHOLE // 10_100 // len(prose))
    yield "10,000 messages", orjson.dumps({"messages": [{"role": "user", "content": one}] * 10_000})
    code = "    return value  # as it was written\n"
    yield "code", orjson.dumps({"messages": [{"role": "user", "content": code * (WHOLE // (len(code) + 1) - 9)}]})
    inner = '{"a": [1, 2], "b": {"c": null}}, '
    yield "JSON in a text", orjson.dumps({"messages": [{"role": "user", "content": inner * (WHOLE // (len(inner) + 6) - 9)}]})
    yield "nothing but line breaks", orjson.dumps({"messages": [{"role": "user", "content": "\n" * (WHOLE // 2 - 99)}]})
    yield "Chinese", orjson.dumps({"messages": [{"role": "user", "content": "漢" * (WHOLE // 3 - 99)}]})
    yield "cut off", orjson.dumps({"messages": [{"role": "user", "content": prose * (WHOLE // len(prose))}]})[:-3]


def values() -> Iterator[tuple[str, bytes]]:
    """Yield bodies with as many values as allowed."""
    most = MAX_VALUES - 100
    part = {"type": "text", "text": "Hello"}
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    named = {f"k{number}": number for number in range(most)}
    yield "10,000 messages of a part", orjson.dumps({"messages": [{"role": "user", "content": [part]}] * 10_000})
    yield "parts", orjson.dumps({"messages": [{"role": "user", "content": [part] * (most // 3)}]})
    yield "pictures", orjson.dumps({"messages": [{"role": "user", "content": [picture] * (most // 4)}]})
    yield "tool calls", orjson.dumps({"messages": [{"role": "assistant", "tool_calls": [call] * (most // 6)}]})
    yield "logit_bias", orjson.dumps({"messages": [USER], "logit_bias": {str(number): 1 for number in range(10_000)}})
    yield "unknown fields", orjson.dumps({"messages": [USER], **named})
    yield "lists in an unknown field", orjson.dumps({"messages": [USER], "x": {"y": [[]] * (most // 2)}})
    yield "an unknown object", orjson.dumps({"messages": [USER], "x": named})
    for name, wrong in (("numbers", 0), ("lists", []), ("empty objects", {}), ("texts", "x")):
        yield f"{name} for parts", orjson.dumps({"messages": [{"role": "user", "content": [wrong] * (most // 2)}]})
        yield f"{name} for calls", orjson.dumps({"messages": [{"role": "assistant", "tool_calls": [wrong] * (most // 2)}]})
    wrong = {"role": 1, "content": 0, "name": 0, "tool_calls": 0, "tool_call_id": 0}
    yield "messages of wrong types", orjson.dumps({"messages": [wrong] * 10_000})
    yield "logit_bias of texts", orjson.dumps({"messages": [USER], "logit_bias": dict.fromkeys(named, "x")})
    yield "long numbers", b'{"messages":[],"x":[' + b",".join([b"1" * 4000] * 260) + b"]}"


def too_much() -> Iterator[tuple[str, bytes]]:
    """Yield bodies of 32 MiB that are refused before they are parsed."""
    yield "[],[],...", b'{"messages":[' + b"[]," * (WHOLE // 3) + b"[]]}"
    yield "0,0,...", b'{"x":[' + b"0," * (WHOLE // 2) + b"0]}"
    yield '{"a":0},...', b'{"x":[' + b'{"a":0},' * (WHOLE // 8) + b"0]}"
    yield "one name again and again", b"{" + b'"a":0,' * (WHOLE // 6) + b'"a":0}'
    yield "[[[[...", b'{"x":' + b"[" * (WHOLE // 2) + b"]" * (WHOLE // 2) + b"}"
    yield "one number", b'{"x":' + b"1" * WHOLE + b"}"


def messages() -> Iterator[tuple[str, bytes]]:
    """Yield similar messages for gRPC."""
    hello = message_pb2.Message(role=message_pb2.ROLE_USER, blocks=[message_pb2.Block(text=message_pb2.Text(text="Hello"))])
    yield "10,000 messages", chat_pb2.GenerateRequest(messages=[hello] * 10_000).SerializeToString()
    nested = chat_pb2.GenerateRequest(messages=[hello])
    nested.extra.update({"x": [[]] * (MAX_VALUES // 2 - 99), "y": "z" * 2 * MAX_VALUES})
    yield "lists", nested.SerializeToString()
    parts = message_pb2.Message(
        role=message_pb2.ROLE_USER, blocks=[message_pb2.Block(text=message_pb2.Text(text="Hello"))] * (MAX_VALUES // 2 - 99)
    )
    yield "parts", chat_pb2.GenerateRequest(messages=[parts]).SerializeToString()
    yield "empty values, 32 MiB", _field(22, _field(1, _field(1, b"x") + _field(2, _field(6, b"\x0a\x00" * (WHOLE // 2)))))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + _varint(number >> 7)


async def rest(data: bytes) -> None:
    """Handle a body as the OpenAI dialect does, and others that use its messages."""
    body = await parse_in_turns(data, openai.ChatCompletionBody)
    converted = openai.request_from_body(body, stream=True)
    if sum(len(message.blocks) for message in converted.messages) > 1000:  # as `ChatService` does
        await yield_to_other_calls()
    encode(converted, "p", stream_usage=True)


async def engine(data: bytes) -> None:
    """Search a body for a key, as before authentication, up to the size that is allowed then."""
    engine_request.key_from_json(data[:MAX_KEYLESS_BYTES])


async def proxy(data: bytes) -> None:
    """Handle a body as the proxies do."""
    await proxied.check_size(data)
    proxied.check_openai(data)


async def grpc(data: bytes) -> None:
    """Handle a message as the typed API does."""
    wire.check(data, SHAPE)
    converted = request_from_proto(chat_pb2.GenerateRequest.FromString(data), stream=True)
    await yield_to_other_calls()
    encode(converted, "p", stream_usage=True)


async def longest_hold(work: Callable[[bytes], Awaitable[None]], data: bytes) -> tuple[float, float, str]:
    """Return the longest time between two turns of another task, the total time, both in seconds, and the outcome."""
    longest, over = 0.0, False

    async def other() -> None:
        nonlocal longest
        before = time.thread_time()
        while not over:
            await asyncio.sleep(1e-5)  # not 0: a task that waits for a socket or a timer only runs after the loop has polled
            now = time.thread_time()
            longest = max(longest, now - before)
            before = now

    turns = asyncio.create_task(other())
    await asyncio.sleep(0)
    begin, ended = time.thread_time(), "taken"
    try:
        await work(data)
    except TooMuch:
        ended = "refused unread"
    except InvalidRequest as error:
        kinds = {violation.kind for violation in error.violations}
        ended = "refused unread" if "too_large" in kinds else f"refused: {', '.join(sorted(kinds))[:40]}"
    whole = time.thread_time() - begin
    await asyncio.sleep(0)
    over = True
    await turns
    return longest, whole, ended


async def main() -> None:
    """Print a line for each body."""
    gc.collect()
    gc.freeze()
    groups: list[tuple[str, Any, Any]] = [
        ("32 MiB of text", rest, texts),
        ("as many values as may be", rest, values),
        ("32 MiB of too much", rest, too_much),
        ("the engine's search for a key", engine, too_much),
        ("proxies", proxy, texts),
        ("proxies", proxy, too_much),
        ("gRPC", grpc, messages),
    ]
    for title, work, bodies in groups:
        print(f"\n{title}")  # noqa: T201
        for name, data in bodies():
            longest, whole, ended = await longest_hold(work, data)
            figures = f"{len(data) / MIB:5.1f} MiB  longest {longest * 1000:6.1f} ms  all {whole * 1000:6.0f} ms"
            print(f"  {name:28} {figures}  {ended}")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
