"""The text that a start prints: the addresses, the models, and commands to paste for a first request."""

from __future__ import annotations

import ipaddress
import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from antiphon.config import Config, split_address
from antiphon.telemetry.private_file import stays_open_to_others

WIDTH: Final = 80
"""Columns that the banner fits in, if addresses and names are of usual length."""

_MODEL_LINES: Final = 3


def banner(out: Console, config: Config, key: str | None, default: str, models: Sequence[str]) -> str:
    """Return the text, with `out`'s styling, that says that the gateway is up and how to send it a request.

    `key` is the API key that was made for this run, if any: it is shown only here. `default` is the default model.
    """
    with out.capture() as captured:
        _print(out, config, key, default, models)
    return captured.get()


def _print(out: Console, config: Config, key: str | None, default: str, models: Sequence[str]) -> None:
    def say(line: str = "") -> None:
        out.print(line, markup=False, soft_wrap=True)

    url = f"{'https' if config.rest.tls else 'http'}://{config.rest.listen}/api/v1"
    grpc_address = f"{'grpcs://' if config.grpc.tls else ''}{config.grpc.listen}"
    out.print("\n[bold green]Antiphon is up.[/]")
    say(f"  REST    {url}")
    say(f"  gRPC    {grpc_address}")
    say(_models(default, models))
    if key:
        say("\nA key was made for this run. It is shown only here. To have one that stays,")
        say("set ANTIPHON_KEY before the start.")
        say(f"  export ANTIPHON_KEY={key}")
    say("\nAsk it something; paste this:\n" if key else "\nAsk it something; paste this, with one of your keys in ANTIPHON_KEY:\n")
    say(_curl(url, key or '"$ANTIPHON_KEY"', default))
    say("\nOr, with ANTIPHON_KEY set as above:\n" if key else "\nOr:\n")
    say(f"  {_program()} chat --address {grpc_address}\n")
    plain = "" if config.grpc.tls else "-plaintext "
    say(f'  grpcurl {plain}-H "Authorization: Bearer $ANTIPHON_KEY" \\')
    body = {"messages": [{"role": "ROLE_USER", "blocks": [{"text": {"text": "Hi"}}]}]}
    say(f"    -d '{json.dumps(body, separators=(',', ':'))}' \\")
    say(f"    {config.grpc.listen} antiphon.v1.ChatService/StreamGenerate\n")


def _models(default: str, models: Sequence[str]) -> str:
    """Return the lines about models: the default, as many others as fit into a few lines, and how many more there are."""
    others = [model for model in models if model != default]
    label = "  models  "
    for shown in range(len(others), -1, -1):
        rest = len(others) - shown
        named = [f"{default} (default)", *others[:shown], *([f"and {rest} more: `antiphon models`"] if rest else [])]
        lines = textwrap.wrap(
            ", ".join(named), WIDTH - len(label), break_long_words=False, break_on_hyphens=False, subsequent_indent=" " * len(label)
        )
        if len(lines) <= _MODEL_LINES or not shown:
            break
    return label + "\n".join(lines)


def _curl(url: str, key: str, model: str) -> str:
    """Return a curl command that streams a reply. `--oauth2-bearer` is shorter than a header, so that a key fits on the line."""
    messages = json.dumps([{"role": "user", "content": "Hello!"}])
    body = f'{{"model": {json.dumps(model)}, "stream": true,\n         "messages": {messages}}}'
    parts = [f"curl -N {url}/chat/completions", f"--oauth2-bearer {key}", "-H 'Content-Type: application/json'"]
    return "  " + " \\\n    ".join([*parts, f"-d {shlex.quote(body)}"])


def warnings_of(config: Config) -> list[str]:
    """Return a line for each thing that others could read.

    These are addresses that other machines can reach without TLS, and a log file that belongs to another user.
    """
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
    """Return how to call this program in a pasted command: by its name if it is on the PATH, else by path or `python -m`."""
    if shutil.which("antiphon"):
        return "antiphon"
    beside = Path(sys.executable).with_name("antiphon")
    if not beside.exists():
        return f"{sys.executable} -m antiphon"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)
