"""What a start says, so that the next thing is to ask the gateway something."""

from __future__ import annotations

import ipaddress
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from antiphon.config import Config, split_address
from antiphon.telemetry.private_file import stays_open_to_others


def banner(out: Console, config: Config, key: str | None, default: str, models: Sequence[str]) -> str:
    """Says, as `out` would show it, that the gateway is up, and how to ask it something.

    `key` is the one that was just made, if one was: shown now only.
    """
    with out.capture() as said:
        _print(out, config, key, default, models)
    return said.get()


def _print(out: Console, config: Config, key: str | None, default: str, models: Sequence[str]) -> None:
    def say(line: str = "") -> None:
        out.print(escape(line), soft_wrap=True)

    url = f"{'https' if config.rest.tls else 'http'}://{config.rest.listen}/api/v1"
    grpc_address = f"{'grpcs://' if config.grpc.tls else ''}{config.grpc.listen}"
    out.print("\n[bold green]Antiphon is up.[/]")
    say(f"  REST    {url}")
    say(f"  gRPC    {grpc_address}")
    say(f"  models  {', '.join(models)} (default: {default})")
    if key:
        say("\nThis key was made for this run, and is shown only here. Set ANTIPHON_KEY beforehand to choose one that stays.")
        say(f"  export ANTIPHON_KEY={key}")
    auth = f"-H 'Authorization: Bearer {key}'" if key else '-H "Authorization: Bearer $ANTIPHON_KEY"'
    body = json.dumps({"model": default, "messages": [{"role": "user", "content": "Hello!"}], "stream": True})
    typed = json.dumps({"model": default, "messages": [{"role": "ROLE_USER", "parts": [{"text": "Hello!"}]}]})
    say("\nTry it:\n")
    say(f"  curl -N {url}/chat/completions {auth} -H 'Content-Type: application/json' -d '{body}'\n")
    plain = "" if config.grpc.tls else "-plaintext "
    say(f"  grpcurl {plain}{auth} -d '{typed}' {config.grpc.listen} antiphon.v1.ChatService/StreamGenerate\n")
    say(f"  {'ANTIPHON_KEY=' + key + ' ' if key else ''}{_program()} chat --address {grpc_address} Hello!\n")


def warnings_of(config: Config) -> list[str]:
    """A line for what others can read: addresses that are not of this machine alone, without TLS; a log file of another user's."""
    lines = []
    named = {"grpc.listen": (config.grpc.listen, config.grpc.tls), "rest.listen": (config.rest.listen, config.rest.tls)}
    open_ = [f"{setting} ({address})" for setting, (address, tls) in named.items() if tls is None and not _is_loopback(address)]
    if open_:
        where = " and ".join(open_)
        lines.append(
            f"warning: {where}: other machines can connect, and keys cross the network in plain text; "
            "grpc.tls and rest.tls end that"
        )
    if config.log.file is not None and stays_open_to_others(config.log.file):
        lines.append(f"warning: log.file ({config.log.file}): it belongs to another user, and its mode lets others open it")
    return lines


def _is_loopback(address: str) -> bool:
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _program() -> str:
    """How this program is called, for whoever pastes a line of it."""
    if shutil.which("antiphon"):
        return "antiphon"
    beside = Path(sys.executable).with_name("antiphon")
    return str(beside) if beside.exists() else f"{sys.executable} -m antiphon"
