"""Tests of `antiphon chat` against a scripted gRPC server."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

import grpc
import pytest
import pytest_asyncio
from rich.console import Console

from antiphon.cli.chat import _write
from antiphon.v1 import chat_pb2, chat_pb2_grpc, models_pb2, models_pb2_grpc
from tests.terminal import Terminal
from tests.waiting import until

ODD = "all:\n\tcc a.c :bug: \x1b[31mred [bold]x[/]"


class ScriptedChat(chat_pb2_grpc.ChatServiceServicer):
    """A chat service that answers with the number of messages that it got, unless the last message is a command.

    "fail" fails after the text, "tools" makes two tool calls at once, "odd" answers ODD. "hang" never ends, and sets
    `caller_left` when its caller is gone.
    """

    def __init__(self) -> None:
        self.caller_left = asyncio.Event()

    async def StreamGenerate(
        self, request: chat_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[chat_pb2.StreamGenerateResponse]:
        text = request.messages[-1].blocks[0].text.text
        events: list[dict[str, Any]] = [{"text": {"text": f"{len(request.messages)} messages"}}]
        if text == "tools":
            pieces = [(0, "{"), (0, '"a": [1]'), (1, '{"b": 2'), (0, "}"), (1, "}")]
            events = [
                {"block_started": {"block": block, "value": {"tool_call": {"name": name}}}}
                for block, name in ((0, "add"), (1, "mul"))
            ]
            events += [{"input": {"block": block, "text": more}} for block, more in pieces]
        if text == "odd":
            events = [{"text": {"text": ODD}}]
        if text == "hang":
            events.append({"text": {"text": " and more"}})
        elif text != "fail":
            usage = {"input_tokens": 1234, "output_tokens": 5}
            events += [{"usage": usage}, {"metrics": {"cost_usd": 0.00125}}, {"finished": {}}]
        events.insert(0, {"started": {"model": request.model or "usual"}})
        yield chat_pb2.StreamGenerateResponse(events=[chat_pb2.StreamEvent(**event) for event in events])
        if text == "hang":
            try:
                await asyncio.Event().wait()
            finally:
                self.caller_left.set()
        if text == "fail":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too much.")


class Models(models_pb2_grpc.ModelServiceServicer):
    """A model service with two models."""

    async def ListModels(self, request: models_pb2.ListModelsRequest, context: Any) -> models_pb2.ListModelsResponse:
        models = [models_pb2.Model(name="other"), models_pb2.Model(name="usual", is_default=True)]
        return models_pb2.ListModelsResponse(models=models)

    async def GetModel(self, request: models_pb2.GetModelRequest, context: Any) -> models_pb2.GetModelResponse:
        if request.name not in {"other", "usual"}:
            await context.abort(grpc.StatusCode.NOT_FOUND, "None.")
        return models_pb2.GetModelResponse(model=models_pb2.Model(name=request.name))


@pytest.fixture
def service() -> ScriptedChat:
    return ScriptedChat()


@pytest_asyncio.fixture
async def address(service: ScriptedChat) -> AsyncIterator[str]:
    server = grpc.aio.server()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(service, server)
    models_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


@pytest_asyncio.fixture
async def terminal(address: str) -> AsyncIterator[Terminal]:
    """Run `antiphon chat` in a terminal, up to its prompt."""
    words = [sys.executable, "-m", "antiphon", "chat"]
    with Terminal(words, {"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": address, "TERM": "xterm", "NO_COLOR": "1"}) as opened:
        await opened.wait_for("you> ")
        yield opened


async def chat(
    address: str, *words: str | bytes, stdin: bytes = b"", variables: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, str, str]:
    """Run `antiphon chat` with `stdin` as its input. Return the exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", "chat", *words),
        env={"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": address, **variables},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(stdin)
    assert b"Traceback" not in errors
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_an_answer_that_fails_does_not_end_a_conversation(address: str) -> None:
    """A failed reply is printed as an error and left out of later requests. The conversation goes on, and the exit code is 1."""
    code, output, errors = await chat(address, stdin=b"one\nfail\nthree\n")
    assert output.splitlines() == ["1 messages", "3 messages", "3 messages"]
    assert errors == f"RESOURCE_EXHAUSTED from {address}: Too much.\n"
    assert code == 1
    assert (await chat(address, stdin=b"one\n"))[0] == 0


async def test_one_question_that_fails_ends_it(address: str) -> None:
    """A single question that fails ends with exit code 1."""
    code, _, errors = await chat(address, "fail")
    assert (code, errors) == (1, f"RESOURCE_EXHAUSTED from {address}: Too much.\n")


async def test_text_that_is_not_utf_8_is_a_one_line_error(address: str) -> None:
    """A line, an argument or a key that is not valid gets a one-line error. The conversation goes on after a bad line."""
    code, output, errors = await chat(address, stdin=b"caf\xe9\ntwo\n")
    assert (code, output, errors) == (1, "1 messages\n", "error: the line is not UTF-8.\n")
    code, _, errors = await chat(address, b"caf\xe9")
    assert (code, errors) == (1, "error: the text to send is not UTF-8.\n")
    for key in ("sk-é", b"sk-\xff", "sk-a\nb"):
        code, _, errors = await chat(address, "--key", key, "one")
        assert code == 2
        assert "a key has only printable ASCII characters" in " ".join(errors.replace("│", " ").split())


async def test_tool_calls_have_a_line_each(address: str) -> None:
    """Each tool call is printed in a line of its own, though their pieces arrive interleaved."""
    assert (await chat(address, "tools"))[1] == 'add({"a": [1]})\nmul({"b": 2})\n'


async def test_what_a_model_says_is_shown_to_the_letter(address: str) -> None:
    """The reply is printed unchanged: tabs, emoji codes and markup of the Rich library are not interpreted."""
    assert (await chat(address, "odd"))[1] == ODD + "\n"


def test_escape_characters_do_not_reach_a_terminal() -> None:
    """Escape characters are removed when printing to a terminal, because a model could change its title or overwrite text."""
    output = io.StringIO()
    _write(Console(file=output, force_terminal=True, color_system="standard"), ODD, "yellow")  # the tests have no terminal
    assert output.getvalue() == "\x1b[33m" + ODD.replace("\x1b", "") + "\x1b[0m"


async def test_a_terminal_shows_model_tokens_and_cost(terminal: Terminal) -> None:
    """In a terminal each reply is followed by a line with model, tokens and cost. Ctrl-D ends the program."""
    terminal.type("one\r")
    await terminal.wait_for("1 messages\r\nusual · 1,234 tokens in, 5 out · 0.00125 USD\r\n")
    await terminal.wait_for("you> ")
    terminal.type("\x04")
    assert await terminal.wait_for_exit() == 0


async def test_commands_of_a_conversation(terminal: Terminal) -> None:
    """Commands such as `/model` are not sent to the model. An unknown command prints an error, and the conversation goes on."""
    for typed, seen in (
        ("one", "1 messages"),
        ("/help", "/new           start a new conversation"),
        ("/model", "The model is usual. Available models:\r\n  other\r\n  usual  (default)"),
        ("/model nope", "There is no model nope. /model lists all models."),
        ("/model other", "The model is other."),
        ("two", "3 messages\r\nother · "),
        ("/new", "A new conversation."),
        ("three", "1 messages\r\nother · "),
        ("/nonsense", "There is no command /nonsense; /help lists all commands."),
        ("/etc/passwd is what?", "3 messages"),
    ):
        terminal.type(f"{typed}\r")
        await terminal.wait_for(f"{typed}\r\n")
        await terminal.wait_for(seen)
        await terminal.wait_for("you> ")
    terminal.type("/quit\r")
    assert await terminal.wait_for_exit() == 0


async def test_ctrl_c_ends_the_answer_alone(terminal: Terminal, service: ScriptedChat) -> None:
    """Ctrl-C during a reply cancels the call and keeps the text so far in the conversation.

    At the prompt, pressed twice, it ends the program.
    """
    terminal.type("hang\r")
    await terminal.wait_for("1 messages and more")
    terminal.type("\x03")
    await asyncio.wait_for(service.caller_left.wait(), 20)
    await terminal.wait_for("Ctrl-C again, or Ctrl-D, leaves.\r\nyou> ")
    terminal.type("two\r")
    await terminal.wait_for("3 messages\r\nusual · ")
    await terminal.wait_for_prompt("you> ")
    terminal.type("\x03")
    await terminal.wait_for_prompt("leaves.\r\nyou> ")
    terminal.type("\x03")
    assert await terminal.wait_for_exit() == 0


async def test_an_interrupt_without_a_terminal_ends_it_all(address: str, service: ScriptedChat) -> None:
    """Without a terminal an interrupt cancels the call and ends the program with exit code 130."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", "chat", "hang"),
        env={"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": address},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readexactly(5), 20) == b"1 mes"
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in errors
    await until(service.caller_left.is_set)


async def test_commands_through_a_pipe(address: str) -> None:
    """Through a pipe, commands print to standard error, so that standard output has only replies.

    An unknown command is sent to the model.
    """
    code, output, errors = await chat(address, stdin=b"one\n/model other\ntwo\n/new\n/nonsense\n")
    assert (code, output.splitlines()) == (0, ["1 messages", "3 messages", "1 messages"])
    assert errors == "The model is other.\nA new conversation.\n"
