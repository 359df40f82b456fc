"""`antiphon chat` against a server that answers as it is told, over gRPC."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest_asyncio

from antiphon.v1 import chat_pb2, chat_pb2_grpc


class Told(chat_pb2_grpc.ChatServiceServicer):
    """Fails where the last message is "fail"; calls two tools at once for "tools"; else tells how many messages it got."""

    async def StreamGenerate(
        self, request: chat_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[chat_pb2.StreamGenerateResponse]:
        said = request.messages[-1].parts[0].text
        events = [{"text": {"text": f"{len(request.messages)} messages"}}]
        if said == "tools":
            pieces = [(0, "add", "{"), (1, "mul", ""), (0, "", '"a": [1]'), (1, "", '{"b": 2'), (0, "", "}"), (1, "", "}")]
            events = [{"tool_call": {"index": index, "name": name, "arguments": more}} for index, name, more in pieces]
        yield chat_pb2.StreamGenerateResponse(events=[chat_pb2.StreamEvent(**event) for event in events])
        if said == "fail":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too much.")


@pytest_asyncio.fixture
async def address() -> AsyncIterator[str]:
    server = grpc.aio.server()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(Told(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


async def chat(address: str, *words: str | bytes, said: bytes = b"") -> tuple[int, str, str]:
    """The exit code, what was printed, and what was told besides."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", "chat", *words),
        env={"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": address},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    shown, told = await process.communicate(said)
    assert b"Traceback" not in told
    assert process.returncode is not None
    return process.returncode, shown.decode(), told.decode()


async def test_an_answer_that_fails_does_not_end_a_conversation(address: str) -> None:
    """It is told, and left out of what is said next; a program learns of it by the exit code."""
    code, shown, told = await chat(address, said=b"one\nfail\nthree\n")
    assert shown.splitlines() == ["1 messages", "3 messages", "3 messages"]
    assert told == f"RESOURCE_EXHAUSTED from {address}: Too much.\n"
    assert code == 1
    assert (await chat(address, said=b"one\n"))[0] == 0


async def test_one_question_that_fails_ends_it(address: str) -> None:
    """With exit code 1."""
    code, _, told = await chat(address, "fail")
    assert (code, told) == (1, f"RESOURCE_EXHAUSTED from {address}: Too much.\n")


async def test_what_is_not_utf_8_is_told_in_a_line(address: str) -> None:
    """From the input, and the conversation goes on; from the command line; and of a key, whatever it is made of."""
    code, shown, told = await chat(address, said=b"caf\xe9\ntwo\n")
    assert (code, shown, told) == (1, "1 messages\n", "error: the line is not UTF-8.\n")
    code, _, told = await chat(address, b"caf\xe9")
    assert (code, told) == (1, "error: what is to be sent is not UTF-8.\n")
    for key in ("sk-é", b"sk-\xff", "sk-a\nb"):
        code, _, told = await chat(address, "--key", key, "one")
        assert code == 2
        assert "a key has letters, digits and signs of ASCII" in " ".join(told.replace("│", " ").split())


async def test_tool_calls_have_a_line_each(address: str) -> None:
    """Though their pieces come mixed."""
    assert (await chat(address, "tools"))[1] == 'add({"a": [1]})\nmul({"b": 2})\n'
