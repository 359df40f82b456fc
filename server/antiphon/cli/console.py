"""What the commands have in common: where they print, and how they speak to a running gateway."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import grpc
import typer
from google.rpc import error_details_pb2, status_pb2
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from antiphon.auth.api_keys.static import KEY_VARIABLE
from antiphon.cli.client import target

ADDRESS = "127.0.0.1:50051"

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

WIDE = 1000
"""The columns of a table that no terminal shows: a program reads it, and nothing is cut."""


class Unheard(Console):
    """A console that may lose its reader: it raises `BrokenPipeError`, where rich's own would end the program."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704  # called where it is handled


out = Console(highlight=False)
err = Unheard(stderr=True, highlight=False)


def _one_word(key: str) -> str:
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise typer.BadParameter("a key has letters, digits and signs of ASCII, in one line")
    return key


def _somewhere(address: str) -> str:
    if not target(address):
        raise typer.BadParameter("an address is host:port, or https://host:port")
    return address


AddressOption = Annotated[
    str,
    typer.Option(
        envvar="ANTIPHON_ADDRESS",
        metavar="ADDRESS",
        callback=_somewhere,
        help="Where the gateway is: host:port of its gRPC or REST address, or https://host:port with TLS.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
KeyOption = Annotated[
    str, typer.Option(envvar=KEY_VARIABLE, metavar="KEY", help="Your API key.", show_default=False, callback=_one_word)
]


def say(markup: str) -> None:
    """Tells the operator, if there is one: that nobody reads it, or that the disk is full, is no reason to end."""
    with suppress(OSError):
        err.print(markup, soft_wrap=True)


def print_table(table: Table, narrow: Callable[[], None] | None = None) -> None:
    """Print a table: whole for a program, and within the width of a terminal. `narrow` prints it where that is too little."""
    if not out.is_terminal:
        Console(highlight=False, width=WIDE).print(table)
        return
    table.box, table.pad_edge = box.SIMPLE_HEAD, False  # lines between columns would take of 80 columns what names need
    if narrow is not None and table.__rich_measure__(out, out.options.update(width=WIDE)).maximum > out.width:
        narrow()
    else:
        out.print(table)


def print_json(value: object) -> None:
    """Print an answer for programs: one line."""
    print(json.dumps(value))  # noqa: T201


def tell_failure(error: grpc.aio.AioRpcError, address: str) -> None:
    """What a running gateway answers to a command, or that it does not answer, in a line."""
    if error.code() is grpc.StatusCode.UNAVAILABLE and not error.initial_metadata() and not error.trailing_metadata():
        # Said by the client itself: what answers sends metadata.
        say(f"[bold red]error:[/] no gateway answers at {escape(address)}. Is it running? --address names another.")
    else:
        wrong = _violations(error) or [error.details() or ""]
        say(f"[bold red]{error.code().name}[/] from {escape(address)}: {escape('; '.join(wrong))}")
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        say(f"Set {KEY_VARIABLE}, or give --key.")


def _violations(error: grpc.aio.AioRpcError) -> list[str]:
    """Return what is wrong with which field of the request, as far as the gateway tells."""
    found = []
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            bad = error_details_pb2.BadRequest()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(bad):
                    found += [f"{violation.field}: {violation.description}" for violation in bad.field_violations]
    return found


@contextmanager
def rpc_told(address: str) -> Iterator[None]:
    """A call that fails is told in a line, and ends the command."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        tell_failure(error, address)
        raise typer.Exit(1) from None
    except UnicodeError:
        say("[bold red]error:[/] what is to be sent is not UTF-8.")
        raise typer.Exit(1) from None
    except OSError as error:
        say(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say("")
        raise typer.Exit(INTERRUPTED) from None
