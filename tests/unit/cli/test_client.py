"""`antiphon chat` against a server that answers as it is told, over gRPC."""

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest_asyncio
from rich.console import Console

from antiphon.cli import client
from antiphon.v1 import chat_pb2, chat_pb2_grpc

ODD = "all:\n\tcc a.c :bug: \x1b[31mred [bold]x[/]"


class Told(chat_pb2_grpc.ChatServiceServicer):
    """Fails for "fail", calls two tools at once for "tools", says ODD for "odd"; else tells how many messages it got."""

    async def StreamGenerate(
        self, request: chat_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[chat_pb2.StreamGenerateResponse]:
        said = request.messages[-1].blocks[0].text.text
        events: list[dict[str, Any]] = [{"text": {"text": f"{len(request.messages)} messages"}}]
        if said == "tools":
            pieces = [(0, "{"), (0, '"a": [1]'), (1, '{"b": 2'), (0, "}"), (1, "}")]
            events = [
                {"block_started": {"block": block, "value": {"tool_call": {"name": name}}}}
                for block, name in ((0, "add"), (1, "mul"))
            ]
            events += [{"input": {"block": block, "text": more}} for block, more in pieces]
        if said == "odd":
            events = [{"text": {"text": ODD}}]
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


async def chat(
    address: str, *words: str | bytes, said: bytes = b"", variables: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, str, str]:
    """The exit code, what was printed, and what was told besides."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", "chat", *words),
        env={"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": address, **variables},
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


async def test_what_a_model_says_is_shown_to_the_letter(address: str) -> None:
    """Tabs, and what would be an emoji, or markup, of the library that prints."""
    assert (await chat(address, "odd"))[1] == ODD + "\n"


async def test_half_of_what_a_gateway_is_to_be_shown_is_told(tmp_path: Path) -> None:
    """A certificate without its key, and a file that is not there, by the variable."""
    file = tmp_path / "me.crt"
    file.touch()
    for variables, expected in (
        ({"ANTIPHON_CLIENT_CERTIFICATE": str(file)}, "ANTIPHON_CLIENT_KEY is not set"),
        ({"ANTIPHON_CLIENT_KEY": str(file)}, "ANTIPHON_CLIENT_CERTIFICATE is not set"),
        ({"ANTIPHON_CA": str(tmp_path / "none")}, f"ANTIPHON_CA: {tmp_path}/none: No such file or directory"),
    ):
        code, _, told = await chat("https://127.0.0.1:1", "hi", variables=variables)
        assert code == 1
        assert expected in told


def test_what_would_command_a_terminal_does_not_reach_one() -> None:
    """A model could else change its title, or what stands above."""
    shown = io.StringIO()
    client._write(Console(file=shown, force_terminal=True, color_system="standard"), ODD, "yellow")  # no terminal here
    assert shown.getvalue() == "\x1b[33m" + ODD.replace("\x1b", "") + "\x1b[0m"
