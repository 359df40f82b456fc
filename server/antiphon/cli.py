"""The command `antiphon`.

The server and the gRPC client are imported by the commands that need them, as they take a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.markup import escape
from rich.table import Table

from antiphon.auth.keys import KEY_VARIABLE
from antiphon.auth.secret import new_key
from antiphon.banner import banner
from antiphon.cli_keys import keys
from antiphon.config import Config, ConfigError, LimitsConfig, ProviderConfig, database_url, load
from antiphon.console import ADDRESS, AddressOption, KeyOption, out, print_table, rpc_told, say
from antiphon.launch import become_supervisor, plan, unusable_addresses
from antiphon.routing import Router
from antiphon.telemetry import log

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.add_typer(keys, name="keys")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="ANTIPHON_CONFIG", help="The YAML file. None: defaults and environment.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]


@contextmanager
def _told() -> Iterator[None]:
    """What an operator can mend is told in a line, without a traceback."""
    try:
        yield
    except ConfigError as error:
        say(f"[bold red]configuration:[/] {escape(str(error))}")
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


@app.command()
def up(config: ConfigOption = None) -> None:
    """Start the gateway: the server and Envoy. A part that dies is started again."""
    with _told():
        loaded = load(config)
        environment = dict(os.environ)
        made = None
        if not loaded.auth.keys and not loaded.auth.tokens and not environment.get(KEY_VARIABLE, "").strip():
            made = environment[KEY_VARIABLE] = new_key().get_secret_value()
        # A configuration that is not usable is told here, once, and not by each worker.
        first = [sys.executable, "-m", "antiphon", "migrate", "--json", *(["--config", str(config)] if config else [])]
        prepared = subprocess.run(first, env=environment, stdout=subprocess.PIPE, check=False)
        if prepared.returncode:
            raise typer.Exit(prepared.returncode)
        found = json.loads(prepared.stdout)
        if taken := unusable_addresses(loaded):
            for line in taken:
                say(escape(line))
            raise typer.Exit(1)
        said = banner(out, loaded, made, found["default"], found["models"])
        become_supervisor(plan(loaded, config, said), environment)


@app.command()
def serve(
    config: ConfigOption = None,
    socket: Annotated[Path | None, typer.Option(help="A unix socket to listen on as well.")] = None,
    worker: Annotated[int, typer.Option(help="This process's number, for its logs.")] = 0,
) -> None:
    """Start the gRPC server alone, in one process."""
    from antiphon.app import App, until_told

    with _unheard(), _told():
        loaded = load(config)
        log.configure(loaded.log, worker=worker)
        addresses = [loaded.grpc.listen] + ([f"unix:{socket}"] if socket else [])
        uvloop.run(until_told(App(loaded, os.environ), addresses))


@app.command("check-config")
def check_config(
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration, and show what it amounts to. Starts nothing."""
    from antiphon.app import App, provider_configs

    with _told():
        loaded = load(config)
        log.check(loaded.log)
        environment = _environment(loaded)
        router = App(loaded, environment).router
        settings = _settings(loaded)
        if as_json:
            _print_json({**_models(router), "settings": settings})
            return
        _show(provider_configs(loaded, environment), environment)
        for setting, value in settings.items():
            out.print(f"{setting}: {escape(value)}", soft_wrap=True)
        out.print(f"default model: [bold]{escape(router.default)}[/]", soft_wrap=True)
        out.print("[green]The configuration is good.[/]")


def _environment(config: Config) -> dict[str, str]:
    """What a start has: where no key is named, and none is set, `up` makes one."""
    return dict(os.environ) if config.auth.keys else {KEY_VARIABLE: "none", **os.environ}


def _models(router: Router) -> dict[str, Any]:
    return {"default": router.default, "models": [entry.name for entry in router.models()]}


def _print_json(value: object) -> None:
    print(json.dumps(value))  # noqa: T201


def _show(providers: dict[str, ProviderConfig], environment: dict[str, str]) -> None:
    table = Table("provider", "protocol")
    table.add_column("address", overflow="fold")
    table.add_column("key")
    table.add_column("models", overflow="fold")
    for name, provider in providers.items():
        key = "yes" if provider.api_key(environment) else "none"
        row = (name, provider.protocol, provider.base_url or "-", key, " ".join(provider.models) or "any, by prefix")
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
        "gRPC": config.grpc.listen,
        "REST": config.rest.listen,
        "workers": str(config.workers),
        "keys": ", ".join(f"{key.name} (admin)" if key.admin else key.name for key in config.auth.keys)
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
    from antiphon.app import App
    from antiphon.database.migrate import migrate as bring_up
    from antiphon.errors import StoreUnavailable

    with _told():
        loaded = load(config)
        log.configure(loaded.log)
        router = App(loaded, _environment(loaded)).router
        try:
            uvloop.run(bring_up(database_url(loaded), loaded.database.timeout))
        except StoreUnavailable:
            raise OSError("database.url: the database cannot be reached; the log line above tells why") from None
        if as_json:
            _print_json(_models(router))
        else:
            out.print("[green]The database is ready.[/]")


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the REST paths, as JSON."""
    from antiphon.rest.openapi import document

    _print_json(document())


@app.command()
def models(address: AddressOption = ADDRESS, key: KeyOption = "") -> None:
    """List the models of a running gateway."""
    from antiphon import terminal

    with rpc_told(address):
        found = asyncio.run(terminal.models(address, key))
    table = Table("model", "provider", "default")
    for model in found:
        table.add_row(escape(model.name), escape(model.provider), "yes" if model.is_default else "")
    print_table(table)


@app.command()
def chat(
    message: Annotated[list[str] | None, typer.Argument(help="What to say. None: a conversation, line by line.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="The model. None: the gateway's default.")] = "",
    system: Annotated[str, typer.Option("--system", "-s", help="Instructions to the model.")] = "",
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Talk to a running gateway. The reply is shown as it comes."""
    from antiphon import terminal

    with rpc_told(address):
        asyncio.run(terminal.chat(address, key, " ".join(message or ()), model, system, out))


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"antiphon {version('antiphon')}")
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Antiphon: a self-hosted LLM chat gateway."""
    _open_standard_streams()
