"""The shared parts of the commands: output to the terminal, common options, and error reports of calls to a running gateway."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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
from antiphon.config import ConfigError
from antiphon.up.child import EXIT_UNUSABLE_CONFIG

ADDRESS = "127.0.0.1:50051"

INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""

UNLIMITED_WIDTH = 1000
"""The table width in columns where no terminal shows it: programs read it, so nothing may be cut."""


class RaisingConsole(Console):
    """A console that raises `BrokenPipeError` when its reader is gone. Rich's own would end the program."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704  # rich calls this inside its `except` block


out = Console(highlight=False)
err = RaisingConsole(stderr=True, highlight=False)


def _check_key(key: str) -> str:
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise typer.BadParameter("a key has only printable ASCII characters")
    return key


def _check_address(address: str) -> str:
    if not target(address):
        raise typer.BadParameter("an address is host:port, or https://host:port")
    return address


AddressOption = Annotated[
    str,
    typer.Option(
        envvar="ANTIPHON_ADDRESS",
        metavar="ADDRESS",
        callback=_check_address,
        help="Where the gateway is: host:port of its gRPC or REST address, or https://host:port with TLS.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
KeyOption = Annotated[
    str, typer.Option(envvar=KEY_VARIABLE, metavar="KEY", help="Your API key.", show_default=False, callback=_check_key)
]


def print_note(markup: str) -> None:
    """Print a line on standard error. Write errors are ignored: a closed pipe or a full disk must not end the command."""
    with suppress(OSError):
        err.print(markup, soft_wrap=True)


def print_failure(error: ConfigError | OSError, config: Path | None = None) -> int:
    """Print an error that the operator can fix, without a traceback; return the exit code: 2 for the configuration, else 1.

    `config` is the file that was read, if any.
    """
    if not isinstance(error, ConfigError):
        print_note(f"[bold red]error:[/] {escape(str(error))}")
        return 1
    for line in error.lines(config):
        print_note(f"[bold red]configuration:[/] {escape(line)}")
    return EXIT_UNUSABLE_CONFIG


def print_table(table: Table, print_narrow: Callable[[], None] | None = None) -> None:
    """Print a table: unfolded for a program, folded to the width of a terminal. `print_narrow` is called if that is too narrow."""
    if not out.is_terminal:
        Console(highlight=False, width=UNLIMITED_WIDTH).print(table)
        return
    table.box, table.pad_edge = box.SIMPLE_HEAD, False  # 80 columns leave no room for lines between columns
    if print_narrow is not None and table.__rich_measure__(out, out.options.update(width=UNLIMITED_WIDTH)).maximum > out.width:
        print_narrow()
    else:
        out.print(table)


def print_json(value: object) -> None:
    """Print a value as one line of JSON."""
    print(json.dumps(value))  # noqa: T201


def print_rpc_error(error: grpc.aio.AioRpcError, address: str) -> None:
    """Print the error of a call to a gateway as one line, also if no gateway answers."""
    if error.code() is grpc.StatusCode.UNAVAILABLE and not error.initial_metadata() and not error.trailing_metadata():
        # The client library made this error itself: a gateway that answers sends metadata.
        print_note(f"[bold red]error:[/] no gateway answers at {escape(address)}. Is it running? --address names another.")
    else:
        problems = _violations(error) or [error.details() or ""]
        print_note(f"[bold red]{error.code().name}[/] from {escape(address)}: {escape('; '.join(problems))}")
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        print_note(f"Set {KEY_VARIABLE}, or give --key.")


def _violations(error: grpc.aio.AioRpcError) -> list[str]:
    """Return the invalid fields of the request, each with the reason, as far as the gateway named them."""
    found = []
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            bad_request = error_details_pb2.BadRequest()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(bad_request):
                    found += [f"{violation.field}: {violation.description}" for violation in bad_request.field_violations]
    return found


@contextmanager
def rpc_errors_reported(address: str) -> Iterator[None]:
    """Print an error of a call as one line, and exit with code 1, or with `INTERRUPTED` after Ctrl-C."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        print_rpc_error(error, address)
        raise typer.Exit(1) from None
    except UnicodeError:
        print_note("[bold red]error:[/] the text to send is not UTF-8.")
        raise typer.Exit(1) from None
    except OSError as error:
        print_note(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print_note("")
        raise typer.Exit(INTERRUPTED) from None
