"""What a start says, so that the next thing is to ask the gateway something."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from antiphon.config import Config


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

    url = f"http://{config.rest.listen}/api/v1"
    out.print("\n[bold green]Antiphon is up.[/]")
    say(f"  REST    {url}")
    say(f"  gRPC    {config.grpc.listen}")
    say(f"  models  {', '.join(models)} (default: {default})")
    if key:
        say("\nThis key was made for this run, and is shown only here. Set ANTIPHON_KEY beforehand to choose one that stays.")
        say(f"  export ANTIPHON_KEY={key}")
    auth = f"-H 'Authorization: Bearer {key}'" if key else '-H "Authorization: Bearer $ANTIPHON_KEY"'
    body = json.dumps({"model": default, "messages": [{"role": "user", "content": "Hello!"}], "stream": True})
    typed = json.dumps({"model": default, "messages": [{"role": "ROLE_USER", "parts": [{"text": "Hello!"}]}]})
    say("\nTry it:\n")
    say(f"  curl -N {url}/chat/completions {auth} -H 'Content-Type: application/json' -d '{body}'\n")
    say(f"  grpcurl -plaintext {auth} -d '{typed}' {config.grpc.listen} antiphon.v1.ChatService/StreamGenerate\n")
    say(f"  {'ANTIPHON_KEY=' + key + ' ' if key else ''}{_program()} chat --address {config.grpc.listen} Hello!\n")


def _program() -> str:
    """How this program is called, for whoever pastes a line of it."""
    if shutil.which("antiphon"):
        return "antiphon"
    beside = Path(sys.executable).with_name("antiphon")
    return str(beside) if beside.exists() else f"{sys.executable} -m antiphon"
