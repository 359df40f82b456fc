"""The command `antiphon`.

Modules that run, check or describe the server are imported inside the commands that need them: they take 0.5 s and 40 MB, which a
client command should not pay, and neither should `up`, which only starts the programs that do it.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from antiphon.auth.api_keys.secret import new_key
from antiphon.auth.api_keys.static import KEY_VARIABLE
from antiphon.cli.chat import chat
from antiphon.cli.console import (
    JsonOption,
    out,
    print_failure,
    print_json,
    print_note,
)
from antiphon.cli.keys import keys
from antiphon.cli.models import models
from antiphon.cli.owners import owners
from antiphon.cli.routes import routes
from antiphon.cli.usage import usage
from antiphon.config import ConfigError
from antiphon.config.file import load
from antiphon.edge import files
from antiphon.telemetry import log_file
from antiphon.up.addresses import unusable_addresses
from antiphon.up.banner import warnings_of
from antiphon.up.child import STDOUT, log_line, write
from antiphon.up.launch import become_supervisor, block_signals, plan, plan_server

RUN: Final = "Run a gateway"
USE: Final = "Use a running gateway"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Exit codes: 0, it is done; 1, the gateway or the system refused, or did not answer; 2, a mistake in the command line "
    "or the configuration; 130, Ctrl-C ended a call. Errors are printed on standard error.",
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="ANTIPHON_CONFIG", metavar="FILE", help="The YAML file. Without it: defaults and the environment."
    ),
]


@contextmanager
def _errors_reported(config: Path | None = None) -> Iterator[None]:
    """Print an error that the operator can fix as one line without a traceback, and exit.

    `config` is the file that was read, if any. The exit code is 2 for a `ConfigError`, and 1 for an `OSError`.
    """
    try:
        yield
    except (ConfigError, OSError) as error:
        raise typer.Exit(print_failure(error, config)) from None


def _open_standard_streams() -> None:
    """Open standard streams that were closed at the start. Otherwise the next file or socket would get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(number, True)  # noqa: FBT003  # the parameter cannot be passed by name
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # the same
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # the same
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal cannot show must not end the command


@app.command(rich_help_panel=RUN)
def up(config: ConfigOption = None) -> None:
    """Start the gateway: server and Envoy. A part that dies is started again.

    Example: antiphon up --config antiphon.yaml
    """
    if not sys.stdin.isatty():
        signal.signal(signal.SIGHUP, lambda *_: None)  # it requests a reload, and must not end a start
    with _errors_reported(config):
        loaded = load(config)
        if loaded.rest.upstream is not None:
            raise ConfigError("rest.upstream: is for `antiphon edge` and `antiphon serve`; `up` has workers of its own")
        environment = dict(os.environ)
        has_key = loaded.auth.keys or loaded.auth.tokens or environment.get(KEY_VARIABLE, "").strip()
        if not has_key:
            if loaded.log.stream == "stdout" and not sys.stdout.isatty():
                raise ConfigError(
                    f"auth.keys: nobody could call: there are no keys, no auth.tokens and no {KEY_VARIABLE}; and where standard "
                    "output takes the log (log.stream), no key is made for the run, as it could not be shown"
                )
            environment[KEY_VARIABLE] = new_key().get_secret_value()
        if loaded.rest.tls is not None:
            from antiphon.net import certificates

            certificates.check(loaded)  # Envoy is about to read them
        if loaded.log.file is not None:
            log_file.open_(loaded.log.file).close()  # the supervisor is about to open it
        if unusable := unusable_addresses(loaded):
            for line in unusable:
                print_note(escape(line))
            raise typer.Exit(1)
        for line in warnings_of(loaded):
            if loaded.log.stream == "stdout":
                write(STDOUT, log_line(line.removeprefix("warning: "), "warning"))
            else:
                print_note(escape(line))
        block_signals()  # from here on a stop signal also removes the folder of the plan
        become_supervisor(plan(loaded, config, made_key=not has_key, styled=out.is_terminal and not out.no_color), environment)


@app.command(rich_help_panel=RUN)
def serve(
    config: ConfigOption = None,
    socket: Annotated[Path | None, typer.Option(help="A unix socket to listen on, beside grpc.listen.")] = None,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Reload a changed configuration. The socket is in the folder that Envoy runs in."),
    ] = False,
) -> None:
    """Start the gRPC server alone, without Envoy: in one process, or with --reload in one under a supervisor."""
    if reload:
        _serve_and_reload(config, socket)
        return
    from antiphon import serve as server

    with _errors_reported(config):
        server.serve(load(config), os.environ, socket=socket)


def _serve_and_reload(config: Path | None, socket: Path | None) -> None:
    with _errors_reported(config):
        if socket is None:
            raise ConfigError("--reload: needs --socket, a name in the folder that Envoy runs in")
        loaded = load(config)  # the server checks the rest, and reports mistakes
        if unusable := unusable_addresses(loaded, ["grpc.listen", "metrics.listen"]):
            raise OSError(unusable[0])
        block_signals()
        become_supervisor(plan_server(loaded, config, socket.absolute()), os.environ)


@app.command("check-reload", hidden=True)
def check_reload(
    folder: Annotated[Path, typer.Argument(help="Where the gateway runs.")],
    config: ConfigOption = None,
    same_database: Annotated[bool, typer.Option("--same-database", help="Refuse another database, as nobody migrates it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a new configuration for a running gateway, and leave a copy of it in its folder. For the supervisor."""
    from antiphon.cli.reload import accept

    with _errors_reported(config):
        try:
            accept(folder, config, dict(os.environ), same_database=same_database)
        except (ConfigError, OSError) as error:
            if not as_json:
                raise
            write(STDOUT, log_line("configuration refused", "error", reason=str(error)))
            raise typer.Exit(2) from None


@app.command(rich_help_panel=RUN)
def edge(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where Envoy will run.")],
    config: ConfigOption = None,
    socket: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A unix socket in FOLDER at which the server listens. Without it: rest.upstream, or 127.0.0.1:50051.",
        ),
    ] = None,
    gateway: Annotated[
        Path | None, typer.Option(help="A folder with the gateway's files. Without it: those that came with this program.")
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Go on as that Envoy, once the files are written.")] = False,
) -> None:
    """Write Envoy's files, to run it apart from the server. Starts it only with --run.

    Without --run, the command that starts Envoy is printed.
    """
    with _errors_reported(config):
        loaded = load(config)
        if socket is not None and loaded.rest.upstream is not None:
            raise ConfigError("rest.upstream: is for an edge that is given no --socket")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.prepare(folder, loaded.rest, [socket] if socket else (), loaded.auth.tokens, gateway)
        command = files.command(os.cpu_count() or 1 if run else 1)
        if run:
            os.chdir(folder)
            os.execve(command[0], command, {name: os.environ[name] for name in files.VARIABLES & os.environ.keys()})  # noqa: S606  # no shell
        out.print(escape(f"(cd {folder} && {shlex.join(command)})"), soft_wrap=True)


@app.command(rich_help_panel=RUN)
def drain(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where Envoy runs.")],
    delay: Annotated[float, typer.Option(min=0, help="Seconds for callers and load balancers to go elsewhere.")] = 5.0,
    wait: Annotated[
        float, typer.Option(min=0, help="The most seconds to wait after that, until no call goes on at this Envoy.")
    ] = 0.0,
) -> None:
    """Have an Envoy ask its callers to connect elsewhere. It goes on serving: stop it afterwards."""
    from antiphon.up import draining

    with _errors_reported():
        draining.drain(folder, delay, wait)


@app.command("check-config", rich_help_panel=RUN)
def check_config(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    probe: Annotated[bool, typer.Option("--probe", help="Connect to database, Redis, issuers and providers instead.")] = False,
) -> None:
    """Check the configuration, and show its effect, or which of its services can be reached. Starts nothing."""
    with _errors_reported(config):
        if probe:
            from antiphon.cli import probe as probing

            if not probing.show(load(config), as_json=as_json):
                raise typer.Exit(1)
        else:
            from antiphon.cli import check

            check.show(load(config), as_json=as_json)


@app.command(rich_help_panel=RUN)
def migrate(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check the configuration, and bring the database to this version, as `up` does."""
    from antiphon.cli import check
    from antiphon.start import prepare

    with _errors_reported(config):
        loaded = load(config)
        router = prepare(loaded, check.environment_of_start(loaded))
        if as_json:
            print_json(check.models_as_json(router))
        else:
            out.print("[green]The database is ready.[/]")


@app.command(rich_help_panel=RUN)
def openapi() -> None:
    """Print the OpenAPI document of the REST paths, as JSON."""
    from antiphon.rest.openapi.document import document

    print_json(document())


app.command(rich_help_panel=USE)(models)
app.command(rich_help_panel=USE)(chat)
app.command(rich_help_panel=USE)(usage)
app.add_typer(keys, name="keys", rich_help_panel=USE)
app.add_typer(owners, name="owners", rich_help_panel=USE)
app.add_typer(routes, name="routes", rich_help_panel=USE)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        out.print(f"antiphon {version('antiphon')}")
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Antiphon, a self-hosted LLM chat gateway.

    `antiphon COMMAND --help` describes a command.
    """
    _open_standard_streams()
