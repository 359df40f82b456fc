"""The command `antiphon`.

The server and the gRPC client are imported by the commands that need them, as they take a second.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import uvloop
from rich.markup import escape
from rich.table import Table

from antiphon.auth.api_keys.secret import new_key
from antiphon.auth.api_keys.static import KEY_VARIABLE
from antiphon.cli.access import key_rows, show_access, token_rows
from antiphon.cli.console import ADDRESS, AddressOption, KeyOption, out, print_table, rpc_told, say, tell_failure
from antiphon.cli.keys import keys
from antiphon.config import Config, ConfigError, KeyConfig, LimitsConfig, ProviderConfig, TlsConfig, database_url
from antiphon.config.file import load
from antiphon.routing.router import Router
from antiphon.telemetry import log
from antiphon.up.banner import banner, warnings_of
from antiphon.up.launch import become_supervisor, hold_signals, plan, unusable_addresses

if TYPE_CHECKING:
    import grpc

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.add_typer(keys, name="keys")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="ANTIPHON_CONFIG", help="The YAML file. None: defaults and environment.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]


@contextmanager
def _told(config: Path | None = None) -> Iterator[None]:
    """What an operator can mend is told in a line, without a traceback. `config` is the file that was read, if any."""
    try:
        yield
    except ConfigError as error:
        for line in str(error).splitlines():
            where = "" if error.located or config is None else f"{config}: "
            say(f"[bold red]configuration:[/] {escape(where + line)}")
        raise typer.Exit(2) from None
    except OSError as error:
        say(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from None


@contextmanager
def _unheard() -> Iterator[None]:
    """For the commands that stay: at their end, what could not be printed is dropped, or else the exit code would be of that."""
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


def _open_standard_streams() -> None:
    """Opens those that this process was started without: else the next file, or socket, would be what the rest writes to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            os.set_inheritable(number, True)  # noqa: FBT003  # it has no name
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # the same
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # the same
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal of another encoding cannot show is no reason to end


@app.command()
def up(config: ConfigOption = None) -> None:
    """Start the gateway: the server and Envoy. A part that dies is started again."""
    with _told(config):
        loaded = load(config)
        if loaded.rest.upstream is not None:
            raise ConfigError("rest.upstream: is for `antiphon edge` and `antiphon serve`; `up` has workers of its own")
        environment = dict(os.environ)
        made = None
        if not loaded.auth.keys and not loaded.auth.tokens and not environment.get(KEY_VARIABLE, "").strip():
            made = environment[KEY_VARIABLE] = new_key().get_secret_value()
        # A configuration that is not usable is told here, once, and not by each worker.
        router = _prepare(loaded, environment)
        if taken := unusable_addresses(loaded):
            for line in taken:
                say(escape(line))
            raise typer.Exit(1)
        for line in warnings_of(loaded):
            say(escape(line))
        said = banner(out, loaded, made, router.default, _names(router))
        hold_signals()  # a stop that comes from here on finds somebody who takes the plan's folder away
        become_supervisor(plan(loaded, config, said), environment)


@app.command()
def serve(
    config: ConfigOption = None,
    socket: Annotated[Path | None, typer.Option(help="A unix socket to listen on as well.")] = None,
    worker: Annotated[
        int | None, typer.Option(help="This process's number, for its logs: it shares the address with others that have one.")
    ] = None,
) -> None:
    """Start the gRPC server alone, in one process."""
    from antiphon.app import App, serve_until_signalled
    from antiphon.up.heap import give_back_large_blocks

    give_back_large_blocks()
    with _unheard(), _told(config):
        loaded = load(config)
        log.configure(loaded.log, worker=worker or 0)
        server = App(loaded, os.environ)
        if worker is None and (taken := unusable_addresses(loaded, ["grpc.listen"])):
            raise OSError(taken[0])  # or it would get some of the calls that are another's
        addresses = [loaded.grpc.listen] + ([f"unix:{socket}"] if socket else [])
        uvloop.run(serve_until_signalled(server, addresses))


@app.command()
def edge(folder: Annotated[Path, typer.Argument(help="Where Envoy will run.")], config: ConfigOption = None) -> None:
    """Write Envoy's files for this configuration, to run it apart from the server. Starts nothing."""
    from antiphon.edge.files import command, prepare

    with _told(config):
        loaded = load(config)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        prepare(folder, loaded.rest, (), loaded.auth.tokens)
        out.print(escape(f"(cd {folder} && {shlex.join(command(1))})"), soft_wrap=True)


@app.command("check-config")
def check_config(
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration, and show what it amounts to. Starts nothing."""
    from antiphon.app import App
    from antiphon.net.certificates import check
    from antiphon.providers import hosts

    with _told(config):
        loaded = load(config)
        check(loaded)
        log.check(loaded.log)
        environment = _environment(loaded)
        router = App(loaded, environment).router
        settings = _settings(loaded)
        keys_opened, tokens_opened = key_rows(loaded.auth, os.environ), token_rows(loaded.auth)
        if as_json:
            _print_json({**_models(router), "settings": settings, "keys": keys_opened, "tokens": tokens_opened})
            return
        _show(hosts.configured(loaded.providers, environment), environment)
        show_access(keys_opened, tokens_opened)
        for setting, value in settings.items():
            out.print(f"{setting}: {escape(value)}", soft_wrap=True)
        out.print(f"default model: [bold]{escape(router.default)}[/]", soft_wrap=True)
        out.print("[green]The configuration is good.[/]")


def _environment(config: Config) -> dict[str, str]:
    """What a start has: where no key is named, and none is set, `up` makes one."""
    return dict(os.environ) if config.auth.keys else {KEY_VARIABLE: "none", **os.environ}


def _models(router: Router) -> dict[str, Any]:
    return {"default": router.default, "models": _names(router)}


def _names(router: Router) -> list[str]:
    return [entry.name for entry in router.models()]


def _print_json(value: object) -> None:
    print(json.dumps(value))  # noqa: T201


def _show(providers: dict[str, ProviderConfig], environment: dict[str, str]) -> None:
    table = Table("provider", "protocol")
    table.add_column("address", overflow="fold")
    table.add_column("key")
    table.add_column("models", overflow="fold")
    for name, provider in providers.items():
        key = "yes" if provider.api_key(name, environment) else "none"
        address, _, query = (provider.base_url or "-").partition("?")
        shown = f"{address}?***" if query else address  # a query may hold a key
        row = (name, provider.protocol, shown, key, " ".join(provider.models) or "any, by prefix")
        table.add_row(*map(escape, row))
    print_table(table)


def _settings(config: Config) -> dict[str, str]:
    """What is in force, for an operator's eyes: no key, no password."""
    from antiphon.database.open import parse

    database = parse(database_url(config))
    hidden = {name: "***" for name in database.query if "password" in name}
    limits, written = config.limits, config.log
    none = "none" if config.auth.tokens else "one that `up` makes"
    return {
        "gRPC": f"{config.grpc.listen}, {_tls(config.grpc.tls)}",
        "REST": f"{config.rest.listen}, {_tls(config.rest.tls)}",
        "workers": str(config.workers),
        "keys": ", ".join(map(_key, config.auth.keys))
        or (f"default (admin), in {KEY_VARIABLE}" if os.environ.get(KEY_VARIABLE, "").strip() else none),
        "tokens": ", ".join(f"{issuer.name}, signed by {issuer.issuer}" for issuer in config.auth.tokens) or "none",
        "database": database.update_query_dict(hidden).render_as_string(hide_password=True),
        "database timeout": f"{config.database.timeout:g} s",
        "limits": f"a call {limits.request_timeout:g} s, a stop {limits.drain:g} s",
        "quotas": ", ".join(_quotas(limits)) or "none",
        "counted": f"in Redis, {limits.on_failure} while it is out of reach" if _in_redis(limits) else "by each worker for itself",
        "guards": ", ".join(f"{guard.name} ({guard.kind}, {' and '.join(guard.on)})" for guard in config.guards) or "none",
        "log": f"{written.level}, to {written.file or 'standard error'}",
    }


def _key(key: KeyConfig) -> str:
    """A key, and what it may that is not usual."""
    told = [
        *(["admin"] if key.admin else []),
        *([f"owner {key.owner}"] if key.owner else []),
        *([f"scopes {' '.join(key.scopes) or 'none'}"] if key.scopes is not None else []),
        *([f"models {' '.join(key.models) or 'none'}"] if key.models is not None else []),
    ]
    if key.expire_time is not None:
        told.append(f"{'ended' if key.expire_time <= datetime.now(UTC) else 'until'} {key.expire_time:%Y-%m-%d %H:%M} UTC")
    return f"{key.name} ({'; '.join(told)})" if told else key.name


def _tls(config: TlsConfig | None) -> str:
    if config is None:
        return "plain text"
    return "TLS" if config.client_ca is None else "TLS, with a certificate of every caller"


def _in_redis(limits: LimitsConfig) -> bool:
    return limits.redis_url is not None or limits.redis_url_env is not None


def _quotas(limits: LimitsConfig) -> Iterator[str]:
    named = {"overall": limits.overall, "per owner": limits.per_owner, "per key": limits.per_key}
    named |= {f"owner {name}": quota for name, quota in limits.owners.items()}
    for name, quota in named.items():
        for field, most in quota.model_dump(exclude_unset=True).items():
            yield f"{name} {field} {'unlimited' if most is None else most}"


@app.command()
def migrate(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check the configuration, then bring the database to this version. `up` does it too."""
    with _told(config):
        loaded = load(config)
        router = _prepare(loaded, _environment(loaded))
        if as_json:
            _print_json(_models(router))
        else:
            out.print("[green]The database is ready.[/]")


def _prepare(config: Config, environment: dict[str, str]) -> Router:
    """Checks all of the configuration, and brings the database to this version. Raises `ConfigError`, `OSError`."""
    from antiphon.app import App
    from antiphon.database.migrate import migrate as bring_up
    from antiphon.domain.errors import StoreUnavailable
    from antiphon.net.certificates import check

    check(config)
    log.configure(config.log)
    router = App(config, environment).router
    try:
        uvloop.run(bring_up(database_url(config), config.database.timeout))
    except StoreUnavailable:
        raise OSError("database.url: the database cannot be reached; the log line above tells why") from None
    return router


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the REST paths, as JSON."""
    from antiphon.rest.openapi.document import document

    _print_json(document())


@app.command()
def models(address: AddressOption = ADDRESS, key: KeyOption = "") -> None:
    """List the models of a running gateway."""
    from antiphon.cli import client

    with rpc_told(address):
        found = asyncio.run(client.models(address, key))
    table = Table("model", "provider", "default")
    for model in found:
        table.add_row(escape(model.name), escape(model.provider), "yes" if model.is_default else "")
    print_table(table)


@app.command()
def usage(
    first: Annotated[str, typer.Option("--from", metavar="DAY", help="As in 2026-11-01. None: the first of the month.")] = "",
    last: Annotated[str, typer.Option("--to", metavar="DAY", help="The last day. None: today, in UTC.")] = "",
    owner: Annotated[str, typer.Option(help="Only that of this owner.")] = "",
    as_json: JsonOption = False,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Show what was used, by day and owner: requests, tokens and USD. Asks for an admin's key."""
    from antiphon.cli import usage

    with rpc_told(address):
        usage.show(address, key, first, last, owner, as_json=as_json)


@app.command()
def chat(
    message: Annotated[list[str] | None, typer.Argument(help="What to say. None: a conversation, line by line.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="The model. None: the gateway's default.")] = "",
    system: Annotated[str, typer.Option("--system", "-s", help="Instructions to the model.")] = "",
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Talk to a running gateway. The reply is shown as it comes; one that fails does not end a conversation."""
    from antiphon.cli import client

    def failed(error: grpc.aio.AioRpcError | None) -> None:
        if error is None:
            say("[bold red]error:[/] the line is not UTF-8.")
        else:
            tell_failure(error, address)

    with rpc_told(address):
        whole = asyncio.run(client.chat(address, key, " ".join(message or ()), model, system, out, failed))
        if not whole and not sys.stdin.isatty():
            raise typer.Exit(1)  # nobody was there to read it


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"antiphon {version('antiphon')}")
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Antiphon: a self-hosted LLM chat gateway."""
    # Else gRPC's core prints a line for each handshake that fails, so that anybody could fill the log.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    _open_standard_streams()
