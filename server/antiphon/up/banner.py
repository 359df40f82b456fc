"""The text that a start prints: the addresses, the models, and commands to paste for a first request."""

from __future__ import annotations

import ipaddress
import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from antiphon.config import Config, split_address
from antiphon.telemetry.private_file import stays_open_to_others

WIDTH: Final = 80
"""Columns that the banner fits in, if addresses and names are of usual length."""

_MODEL_LINES: Final = 3

_BOLD_GREEN, _PLAIN = "\x1b[1;32m", "\x1b[0m"


def banner(config: Config, key: str | None, default: str, models: Sequence[str], *, styled: bool = False) -> str:
    """Return the text that says that the gateway is up and how to send it a request.

    `key` is the API key that was made for this run, if any: it is shown only here. `default` is the default model. `styled`: for a
    terminal that shows colours.
    """
    return "".join(f"{line}\n" for line in _lines(config, key, default, models, styled=styled))


def _lines(config: Config, key: str | None, default: str, models: Sequence[str], *, styled: bool) -> Iterator[str]:
    url = f"{'https' if config.rest.tls else 'http'}://{config.rest.listen}/api/v1"
    grpc_address = f"{'grpcs://' if config.grpc.tls else ''}{config.grpc.listen}"
    up = "Antiphon is up."
    yield f"\n{_BOLD_GREEN}{up}{_PLAIN}" if styled else f"\n{up}"
    yield f"  REST    {url}"
    yield f"  gRPC    {grpc_address}"
    yield _models(default, models)
    if key:
        yield "\nA key was made for this run. It is shown only here. To have one that stays,"
        yield "set ANTIPHON_KEY before the start."
        yield f"  export ANTIPHON_KEY={key}"
    yield "\nAsk it something; paste this:\n" if key else "\nAsk it something; paste this, with one of your keys in ANTIPHON_KEY:\n"
    yield _curl(url, key or '"$ANTIPHON_KEY"', default)
    yield "\nOr, with ANTIPHON_KEY set as above:\n" if key else "\nOr:\n"
    yield f"  {_program()} chat --address {grpc_address}\n"
    plain = "" if config.grpc.tls else "-plaintext "
    yield f'  grpcurl {plain}-H "Authorization: Bearer $ANTIPHON_KEY" \\'
    body = {"messages": [{"role": "ROLE_USER", "blocks": [{"text": {"text": "Hi"}}]}]}
    yield f"    -d '{json.dumps(body, separators=(',', ':'))}' \\"
    yield f"    {config.grpc.listen} antiphon.v1.ChatService/StreamGenerate\n"


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
