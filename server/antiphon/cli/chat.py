"""The command `antiphon chat`: a conversation with a model of a running gateway, in a terminal or through a pipe.

Standard output gets only the text of the model. If it is a terminal, it also gets model, tokens and cost.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
from contextlib import suppress
from typing import Annotated, Final

import grpc
import typer
from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.style import Style
from rich.text import Text

from antiphon.cli.client import connect, list_models, metadata_of
from antiphon.cli.console import ADDRESS, AddressOption, KeyOption, out, print_note, print_rpc_error, rpc_errors_reported
from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2, models_pb2, models_pb2_grpc

with suppress(ImportError):
    import readline  # noqa: F401  # gives `input` line editing and a history, if this Python has it

HELP: Final = """\
/model         show the current model, and list all models
/model NAME    continue with another model
/new           start a new conversation
/help          show this
/quit          leave, as Ctrl-D does
Ctrl-C stops an answer; the conversation continues."""

_CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters, except line feed and tab."""

_COMMAND: Final = re.compile(r"/(\w+)(?:\s+(\S+))?\s*")
_QUIT_COMMANDS: Final = frozenset({"/quit", "/exit"})


class StreamedReply(Struct):
    """The parts of a reply that have arrived so far."""

    pieces: list[str] = []
    model: str = ""
    usage: chat_pb2.Usage | None = None
    cost_usd: float | None = None

    @property
    def text(self) -> str:
        """Return the text of the reply so far."""
        return "".join(self.pieces)

    def summary(self) -> str:
        """Return model, tokens and cost in one line."""
        parts = [self.model]
        if self.usage is not None:
            about = "about " if self.usage.estimated else ""
            parts.append(f"{about}{self.usage.input_tokens:,} tokens in, {self.usage.output_tokens:,} out")
        cost = "0" if not self.cost_usd else f"{self.cost_usd:.6f}".rstrip("0")
        parts.append("price not known" if self.cost_usd is None else f"{cost} USD")
        return " · ".join(filter(None, parts))


class ChatSession:
    """A conversation and its model. Its methods raise `grpc.aio.AioRpcError`, and `UnicodeError` for text that is not UTF-8."""

    def __init__(self, channel: grpc.aio.Channel, key: str, model: str, system: str) -> None:
        """Start an empty conversation. An empty `model` selects the gateway's default; `system` has the instructions."""
        self.model = model
        self._key = key
        self._chat = chat_pb2_grpc.ChatServiceStub(channel)
        self._models = models_pb2_grpc.ModelServiceStub(channel)
        self._system = [_message(message_pb2.ROLE_SYSTEM, system)] if system else []
        self._messages = list(self._system)

    async def send(self, text: str) -> None:
        """Send a message of the user, and print the reply as it streams.

        A reply that fails is not added to the conversation, nor is the message. Of a cancelled reply, the part that arrived is
        added.
        """
        question = _message(message_pb2.ROLE_USER, text)
        request = chat_pb2.GenerateRequest(model=self.model, messages=[*self._messages, question])
        reply = StreamedReply()
        try:
            await _stream_reply(self._chat, request, self._key, reply)
        except asyncio.CancelledError:
            self._remember(question, reply)
            raise
        self._remember(question, reply)
        if out.is_terminal:
            out.print(Text(_CONTROL_CHARACTERS.sub("", reply.summary()), "dim"))
            out.print()

    def reset(self) -> None:
        """Forget all messages except the instructions."""
        self._messages = list(self._system)

    async def show_models(self) -> None:
        """Print the current model, and all models of the gateway."""
        found = await list_models(self._models, self._key)
        default = next((model.name for model in found if model.is_default), "")
        print_note(f"The model is {escape(self.model or default)}. Available models:")
        for model in found:
            print_note(f"  {escape(model.name)}" + ("  (default)" if model.is_default else ""))

    async def choose(self, model: str) -> None:
        """Switch to another model. If there is none of that name, print so and keep the current one."""
        try:
            await self._models.GetModel(models_pb2.GetModelRequest(name=model), metadata=metadata_of(self._key))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            print_note(f"There is no model {escape(model)}. /model lists all models.")
            return
        self.model = model
        print_note(f"The model is {escape(model)}.")

    def _remember(self, question: message_pb2.Message, reply: StreamedReply) -> None:
        if text := reply.text:
            self._messages += [question, _message(message_pb2.ROLE_ASSISTANT, text)]


def chat(
    message: Annotated[
        list[str] | None, typer.Argument(metavar="[MESSAGE]...", help="What to say. Without it: an interactive conversation.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="Without it: the gateway's default.")] = "",
    system: Annotated[str, typer.Option("--system", "-s", metavar="TEXT", help="Instructions to the model.")] = "",
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Talk to a model of a running gateway. The answer is shown as it comes.

    In a conversation, /help lists the commands. Ctrl-C stops an answer; Ctrl-D, or Ctrl-C again, leaves.

    Example, for one question: antiphon chat -m echo "Hello!"
    """
    with rpc_errors_reported(address):
        if not _run_chat(address, key, " ".join(message or ()), model, system) and not sys.stdin.isatty():
            raise typer.Exit(1)  # a script must see from the exit code that an answer failed


def _run_chat(address: str, key: str, message: str, model: str, system: str) -> bool:
    """Send `message` or, if it is empty, run a conversation until the input ends. Return True if no answer failed."""

    async def connect_session() -> tuple[grpc.aio.Channel, ChatSession]:
        channel = connect(address)
        return channel, ChatSession(channel, key, model, system)

    with asyncio.Runner() as runner:
        channel, conversation = runner.run(connect_session())
        try:
            if message:
                runner.run(conversation.send(message))
                return True
            return _run_interactive(runner, conversation, address)
        finally:
            runner.run(channel.close())


def _run_interactive(runner: asyncio.Runner, conversation: ChatSession, address: str) -> bool:
    """Read lines until the input ends, and answer each. Return True if no answer failed.

    A failed answer is printed as an error, and the conversation continues.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is not UTF-8 then has lone surrogates, and sending it raises
    if _is_interactive():
        print_note("[dim]/help shows what can be typed; Ctrl-D leaves.[/]")
    succeeded = True
    interrupted = False
    while True:
        try:
            line = _read_line()
            interrupted = False
            if line is None or line.strip() in _QUIT_COMMANDS:
                return succeeded
            if line.strip():
                runner.run(_handle_line(conversation, line))
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            print_note("")
            if interrupted:
                return succeeded
            interrupted = True
            print_note("[dim]Ctrl-C again, or Ctrl-D, leaves.[/]")
        except grpc.aio.AioRpcError as error:
            succeeded = False
            print_rpc_error(error, address)
        except UnicodeError:
            succeeded = False
            print_note("[bold red]error:[/] the line is not UTF-8.")


async def _handle_line(conversation: ChatSession, line: str) -> None:
    """Run the command in a line, or send the line to the model."""
    found = _COMMAND.fullmatch(line)
    match found and found.groups():
        case ("model", None):
            await conversation.show_models()
        case ("model", str(model)):
            await conversation.choose(model)
        case ("new", None):
            conversation.reset()
            print_note("A new conversation.")
        case ("help", None):
            print_note(HELP)
        case (str(other), None) if sys.stdin.isatty():
            print_note(f"There is no command /{other}; /help lists all commands.")
        case _:
            await conversation.send(line)


def _is_interactive() -> bool:
    return sys.stdin.isatty() and out.is_terminal


def _read_line() -> str | None:
    """Return the next line of the input, or None at its end."""
    try:
        return input(_prompt() if _is_interactive() else "")
    except EOFError:
        if sys.stdin.isatty():
            print_note("")
        return None


def _prompt() -> str:
    if out.no_color:
        return "you> "
    begin, end = ("\001", "\002") if "readline" in sys.modules else ("", "")  # mark for readline what has no width
    return f"{begin}\033[1;36m{end}you>{begin}\033[0m{end} "


async def _stream_reply(
    stub: chat_pb2_grpc.ChatServiceStub, request: chat_pb2.GenerateRequest, key: str, reply: StreamedReply
) -> None:
    """Print a reply as it streams, and store it in `reply`. Tool calls, whose parts may be mixed, get a line each at the end."""
    calls: dict[int, tuple[str, str]] = {}  # name and arguments, by block
    call = stub.StreamGenerate(request, metadata=metadata_of(key))
    succeeded = False
    try:
        async for answer in call:
            for event in answer.events:
                match event.WhichOneof("event"):
                    case "started":
                        reply.model = event.started.model
                    case "thinking" if out.is_terminal:  # a pipe gets only the reply
                        _write(out, event.thinking.text, "dim")
                    case "text":
                        reply.pieces.append(event.text.text)
                        _write(out, event.text.text)
                    case "refusal":
                        reply.pieces.append(event.refusal.text)
                        _write(out, event.refusal.text, "yellow")
                    case "block_started" | "input":
                        _add_call(calls, event)
                    case "usage":
                        reply.usage = event.usage
                    case "metrics" if event.metrics.HasField("cost_usd"):
                        reply.cost_usd = event.metrics.cost_usd
                    case _:
                        pass
        succeeded = True
    finally:
        call.cancel()  # else the provider would generate for nobody
        if reply.pieces or (succeeded and not calls):
            out.print()
        for name, arguments in calls.values():
            _write(out, f"{name}({arguments})", "magenta")
            out.print()


def _add_call(calls: dict[int, tuple[str, str]], event: chat_pb2.StreamEvent) -> None:
    started = event.block_started
    if started.value.WhichOneof("kind") == "tool_call":
        calls[started.block] = started.value.tool_call.name or started.value.tool_call.type, ""
    elif event.input.block in calls:
        name, arguments = calls[event.input.block]
        calls[event.input.block] = name, arguments + event.input.text


def _write(out: Console, text: str, style: str = "") -> None:
    """Write the text of a model unchanged. For a terminal, control characters are removed, as they could be commands to it."""
    if out.is_terminal:
        text = _CONTROL_CHARACTERS.sub("", text)
        if style and not out.no_color:
            text = Style.parse(style).render(text)
    out.file.write(text)
    out.file.flush()


def _message(role: message_pb2.Role.ValueType, text: str) -> message_pb2.Message:
    return message_pb2.Message(role=role, blocks=[message_pb2.Block(text=message_pb2.Text(text=text))])
