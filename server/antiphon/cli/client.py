"""A running gateway as seen from a terminal: a gRPC client."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import grpc
from rich.console import Console
from rich.style import Style

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2, models_pb2, models_pb2_grpc


def target(address: str) -> str:
    """What gRPC connects to: "host:port" of an address, which may be the URL that a start prints."""
    return address.partition("://")[2].partition("/")[0] if "://" in address else address


_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters, but for the end of a line and a tab."""

CA_VARIABLE: Final = "ANTIPHON_CA"
"""The file of the authorities that a gateway with TLS is known by. Unset: those that are known everywhere."""

CERTIFICATE_VARIABLE: Final = "ANTIPHON_CLIENT_CERTIFICATE"
CLIENT_KEY_VARIABLE: Final = "ANTIPHON_CLIENT_KEY"
"""The files of what a gateway is shown that asks for a certificate."""


def connect(address: str) -> grpc.aio.Channel:
    """A channel to a gateway: with TLS if its address begins with https:// or grpcs://. Raises `OSError` for a file."""
    if not address.lower().startswith(("https://", "grpcs://")):
        return grpc.aio.insecure_channel(target(address))
    key, certificate = _file(CLIENT_KEY_VARIABLE), _file(CERTIFICATE_VARIABLE)
    if (key is None) != (certificate is None):
        lacking = CLIENT_KEY_VARIABLE if key is None else CERTIFICATE_VARIABLE
        raise OSError(f"{lacking} is not set: a certificate and its key belong together")
    return grpc.aio.secure_channel(target(address), grpc.ssl_channel_credentials(_file(CA_VARIABLE), key, certificate))


def _file(variable: str) -> bytes | None:
    path = os.environ.get(variable)
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise OSError(f"{variable}: {path}: {error.strerror}") from None


async def models(address: str, key: str) -> list[models_pb2.Model]:
    """Every model of the gateway at `address`. Raises `grpc.aio.AioRpcError`."""
    found: list[models_pb2.Model] = []
    async with connect(address) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        token = ""
        while True:
            page = await stub.ListModels(models_pb2.ListModelsRequest(page_token=token), metadata=metadata_of(key))
            found.extend(page.models)
            token = page.next_page_token
            if not token:
                return found


Failed: TypeAlias = Callable[[grpc.aio.AioRpcError | None], None]


async def chat(address: str, key: str, message: str, model: str, system: str, out: Console, failed: Failed) -> bool:
    """Says `message` and shows the reply; without one, goes on line by line until the input ends.

    Raises `grpc.aio.AioRpcError` and, for a text that is not UTF-8, `UnicodeError`. In a conversation neither ends it: `failed` is
    told instead, with None for such a text, and what was said is left out of what follows. Returns whether nothing failed.
    """
    messages: list[message_pb2.Message] = []
    if system:
        messages.append(_message(message_pb2.ROLE_SYSTEM, system))
    async with connect(address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)

        async def turn(said: str) -> None:
            request = chat_pb2.GenerateRequest(model=model, messages=[*messages, _message(message_pb2.ROLE_USER, said)])
            reply = await _show(stub, request, key, out)
            if reply:
                messages.extend((request.messages[-1], _message(message_pb2.ROLE_ASSISTANT, reply)))

        if message:
            await turn(message)
            return True
        whole = True
        for said in _lines(out):
            try:
                await turn(said)
            except grpc.aio.AioRpcError as error:
                whole = False
                failed(error)
            except UnicodeError:
                whole = False
                failed(None)
        return whole


def _lines(out: Console) -> Iterator[str]:
    """What is said, until the input ends. A line that is not UTF-8 has half surrogates in it, which nothing else takes."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    while True:
        try:
            said = out.input("[bold cyan]you>[/] " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if said.strip():
            yield said


async def _show(stub: chat_pb2_grpc.ChatServiceStub, request: chat_pb2.GenerateRequest, key: str, out: Console) -> str:
    """Shows the reply as it comes, and returns its text. Tool calls, whose pieces may come mixed, have a line each at the end."""
    pieces: list[str] = []
    calls: dict[int, tuple[str, str]] = {}  # name and arguments, by block
    try:
        async for answer in stub.StreamGenerate(request, metadata=metadata_of(key)):
            for event in answer.events:
                match event.WhichOneof("event"):
                    case "thinking" if out.is_terminal:  # a pipe gets the reply alone
                        _write(out, event.thinking.text, "dim")
                    case "text":
                        pieces.append(event.text.text)
                        _write(out, event.text.text)
                    case "refusal":
                        pieces.append(event.refusal.text)
                        _write(out, event.refusal.text, "yellow")
                    case "block_started" if event.block_started.value.WhichOneof("kind") == "tool_call":
                        call = event.block_started.value.tool_call
                        calls[event.block_started.block] = call.name or call.type, ""
                    case "input" if event.input.block in calls:
                        name, arguments = calls[event.input.block]
                        calls[event.input.block] = name, arguments + event.input.text
                    case _:
                        pass
    finally:
        if pieces or not calls:
            out.print()
        for name, arguments in calls.values():
            _write(out, f"{name}({arguments})", "magenta")
            out.print()
    return "".join(pieces)


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


def metadata_of(key: str) -> list[tuple[str, str]]:
    """The key, as a call carries it."""
    return [("authorization", f"Bearer {key}")] if key else []
