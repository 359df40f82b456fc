"""The command `antiphon chat`: a conversation with a model of a running gateway, in a terminal or through a pipe.

Standard output gets what the model says and nothing else, unless it is a terminal: that one is told model, tokens and cost as well.
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
from antiphon.cli.console import ADDRESS, AddressOption, KeyOption, out, rpc_told, say, tell_failure
from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2, models_pb2, models_pb2_grpc

with suppress(ImportError):
    import readline  # noqa: F401  # gives `input` line editing and a history, where Python has it

HELP: Final = """\
/model         show the model, and those that there are
/model NAME    go on with another model
/new           begin a new conversation
/help          show this
/quit          leave, as Ctrl-D does
Ctrl-C ends an answer that is coming; the conversation goes on."""

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters, but for the end of a line and a tab."""

_COMMAND: Final = re.compile(r"/(\w+)(?:\s+(\S+))?\s*")
_LEAVE: Final = frozenset({"/quit", "/exit"})


class Reply(Struct):
    """What has come of a reply."""

    pieces: list[str] = []
    model: str = ""
    usage: chat_pb2.Usage | None = None
    cost_usd: float | None = None

    @property
    def text(self) -> str:
        """What the model has said."""
        return "".join(self.pieces)

    def summary(self) -> str:
        """Return model, tokens and cost, in a line."""
        parts = [self.model]
        if self.usage is not None:
            about = "about " if self.usage.estimated else ""
            parts.append(f"{about}{self.usage.input_tokens:,} tokens in, {self.usage.output_tokens:,} out")
        cost = "0" if not self.cost_usd else f"{self.cost_usd:.6f}".rstrip("0")
        parts.append("price not known" if self.cost_usd is None else f"{cost} USD")
        return " · ".join(filter(None, parts))


class Conversation:
    """What was said so far, and the model. Raises `grpc.aio.AioRpcError`, and `UnicodeError` for what is not UTF-8."""

    def __init__(self, channel: grpc.aio.Channel, key: str, model: str, system: str) -> None:
        """`model` may be empty: the gateway's default."""
        self.model = model
        self._key = key
        self._chat = chat_pb2_grpc.ChatServiceStub(channel)
        self._models = models_pb2_grpc.ModelServiceStub(channel)
        self._system = [_message(message_pb2.ROLE_SYSTEM, system)] if system else []
        self._messages = list(self._system)

    async def say(self, said: str) -> None:
        """Say something, and show the reply as it comes.

        A reply that fails is left out of what follows, with what was said. Of one that is cancelled, what came of it stays.
        """
        question = _message(message_pb2.ROLE_USER, said)
        request = chat_pb2.GenerateRequest(model=self.model, messages=[*self._messages, question])
        reply = Reply()
        try:
            await _show(self._chat, request, self._key, reply)
        except asyncio.CancelledError:
            self._keep(question, reply)
            raise
        self._keep(question, reply)
        if out.is_terminal:
            out.print(Text(_CONTROLS.sub("", reply.summary()), "dim"))
            out.print()

    def begin_anew(self) -> None:
        """Forget what was said, but for the instructions."""
        self._messages = list(self._system)

    async def show_models(self) -> None:
        """Tell the model, and those that there are."""
        found = await list_models(self._models, self._key)
        default = next((model.name for model in found if model.is_default), "")
        say(f"The model is {escape(self.model or default)}. There are:")
        for model in found:
            say(f"  {escape(model.name)}" + ("  (default)" if model.is_default else ""))

    async def choose(self, model: str) -> None:
        """Go on with another model, if there is one of that name."""
        try:
            await self._models.GetModel(models_pb2.GetModelRequest(name=model), metadata=metadata_of(self._key))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            say(f"There is no model {escape(model)}. /model shows those that there are.")
            return
        self.model = model
        say(f"The model is {escape(model)}.")

    def _keep(self, question: message_pb2.Message, reply: Reply) -> None:
        if text := reply.text:
            self._messages += [question, _message(message_pb2.ROLE_ASSISTANT, text)]


def chat(
    message: Annotated[
        list[str] | None, typer.Argument(metavar="[MESSAGE]...", help="What to say. Without it: a conversation, line by line.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="Without it: the gateway's default.")] = "",
    system: Annotated[str, typer.Option("--system", "-s", metavar="TEXT", help="Instructions to the model.")] = "",
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Talk to a model of a running gateway. The answer is shown as it comes.

    In a conversation, /help lists what can be typed. Ctrl-C ends the answer that is coming; Ctrl-D, or Ctrl-C again, leaves.

    Example, for one question: antiphon chat -m echo "Hello!"
    """
    with rpc_told(address):
        if not _talk(address, key, " ".join(message or ()), model, system) and not sys.stdin.isatty():
            raise typer.Exit(1)  # nobody was there to read it


def _talk(address: str, key: str, message: str, model: str, system: str) -> bool:
    """Say `message`; without one, hold a conversation until the input ends. Return whether nothing failed."""

    async def begin() -> tuple[grpc.aio.Channel, Conversation]:
        channel = connect(address)
        return channel, Conversation(channel, key, model, system)

    with asyncio.Runner() as runner:
        channel, conversation = runner.run(begin())
        try:
            if message:
                runner.run(conversation.say(message))
                return True
            return _converse(runner, conversation, address)
        finally:
            runner.run(channel.close())


def _converse(runner: asyncio.Runner, conversation: Conversation, address: str) -> bool:
    """Read lines until they end, and answer each. An answer that fails is told, and ends nothing."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is not UTF-8 has half surrogates, which nothing else takes
    if _somebody_reads():
        say("[dim]/help shows what can be typed; Ctrl-D leaves.[/]")
    whole = True
    interrupted = False
    while True:
        try:
            said = _line()
            interrupted = False
            if said is None or said.strip() in _LEAVE:
                return whole
            if said.strip():
                runner.run(_answer(conversation, said))
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            say("")
            if interrupted:
                return whole
            interrupted = True
            say("[dim]Ctrl-C again, or Ctrl-D, leaves.[/]")
        except grpc.aio.AioRpcError as error:
            whole = False
            tell_failure(error, address)
        except UnicodeError:
            whole = False
            say("[bold red]error:[/] the line is not UTF-8.")


async def _answer(conversation: Conversation, said: str) -> None:
    """Do what a line says: a command, or something to be said to the model."""
    found = _COMMAND.fullmatch(said)
    match found and found.groups():
        case ("model", None):
            await conversation.show_models()
        case ("model", str(model)):
            await conversation.choose(model)
        case ("new", None):
            conversation.begin_anew()
            say("A new conversation.")
        case ("help", None):
            say(HELP)
        case (str(other), None) if sys.stdin.isatty():
            say(f"There is no command /{other}; /help shows those that there are.")
        case _:
            await conversation.say(said)


def _somebody_reads() -> bool:
    return sys.stdin.isatty() and out.is_terminal


def _line() -> str | None:
    """Return the next line, None after the last."""
    try:
        return input(_prompt() if _somebody_reads() else "")
    except EOFError:
        if sys.stdin.isatty():
            say("")
        return None


def _prompt() -> str:
    if out.no_color:
        return "you> "
    begin, end = ("\001", "\002") if "readline" in sys.modules else ("", "")  # tell it what takes no room
    return f"{begin}\033[1;36m{end}you>{begin}\033[0m{end} "


async def _show(stub: chat_pb2_grpc.ChatServiceStub, request: chat_pb2.GenerateRequest, key: str, reply: Reply) -> None:
    """Show a reply as it comes. Tool calls, whose pieces may come mixed, have a line each at the end."""
    calls: dict[int, tuple[str, str]] = {}  # name and arguments, by block
    call = stub.StreamGenerate(request, metadata=metadata_of(key))
    whole = False
    try:
        async for answer in call:
            for event in answer.events:
                match event.WhichOneof("event"):
                    case "started":
                        reply.model = event.started.model
                    case "thinking" if out.is_terminal:  # a pipe gets the reply alone
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
        whole = True
    finally:
        call.cancel()  # the provider is not to go on for nobody
        if reply.pieces or (whole and not calls):
            out.print()
        for name, arguments in calls.values():
            _write(out, f"{name}({arguments})", "magenta")
            out.print()


def _add_call(calls: dict[int, tuple[str, str]], event: chat_pb2.StreamEvent) -> None:
    begun = event.block_started
    if begun.value.WhichOneof("kind") == "tool_call":
        calls[begun.block] = begun.value.tool_call.name or begun.value.tool_call.type, ""
    elif event.input.block in calls:
        name, arguments = calls[event.input.block]
        calls[event.input.block] = name, arguments + event.input.text


def _write(out: Console, text: str, style: str = "") -> None:
    """Writes what a model says, to the letter; what would command a terminal does not reach one."""
    if out.is_terminal:
        text = _CONTROLS.sub("", text)
        if style and not out.no_color:
            text = Style.parse(style).render(text)
    out.file.write(text)
    out.file.flush()


def _message(role: message_pb2.Role.ValueType, text: str) -> message_pb2.Message:
    return message_pb2.Message(role=role, blocks=[message_pb2.Block(text=message_pb2.Text(text=text))])
