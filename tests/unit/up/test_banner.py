"""Tests of what `antiphon up` prints at its start."""

import json
import subprocess
from typing import Any

import pytest

from antiphon.config import Config
from antiphon.up.banner import banner, warnings_of

TLS = {"certificate": "tls.crt", "key": "tls.key"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, ()),
        ({"rest": {"listen": "localhost:1"}, "grpc": {"listen": "[::1]:1"}}, ()),
        ({"rest": {"listen": "0.0.0.0:1"}}, ("rest.listen (0.0.0.0:1)",)),
        (
            {"rest": {"listen": "[::]:1"}, "grpc": {"listen": "gateway.test:1"}},
            ("grpc.listen (gateway.test:1)", "rest.listen ([::]:1)"),
        ),
        ({"rest": {"listen": "0.0.0.0:1", "tls": TLS}}, ()),
        ({"rest": {"listen": "0.0.0.0:1", "tls": TLS}, "grpc": {"listen": "10.0.0.1:1"}}, ("grpc.listen (10.0.0.1:1)",)),
    ],
)
def test_plain_text_for_others_is_warned_of(settings: dict[str, Any], named: tuple[str, ...]) -> None:
    """One line warns of settings that listen for other machines without TLS."""
    lines = warnings_of(Config(**settings))
    assert len(lines) == bool(named)
    for line in lines:
        assert line.startswith(f"warning: {' and '.join(named)}: ")


def test_with_tls_the_lines_to_paste_have_it() -> None:
    """With TLS the printed commands use `https` and `grpcs`."""
    plain = banner(Config(), None, "echo", ["echo"])
    secure = banner(Config(rest={"tls": TLS}, grpc={"tls": TLS}), None, "echo", ["echo"])
    assert "http://127.0.0.1:8080" in plain
    assert "-plaintext" in plain
    assert "https://127.0.0.1:8080" in secure
    assert "chat --address grpcs://127.0.0.1:50051" in secure
    assert "-plaintext" not in secure


@pytest.mark.parametrize("key", [None, "sk-ap-" + 51 * "x"], ids=["a key of the operator's", "a key made for the run"])
@pytest.mark.parametrize("names", [["echo"], ["echo", *(f"model-{number}" for number in range(500))]], ids=["one", "many"])
def test_it_fits_a_terminal_of_80_columns(key: str | None, names: list[str]) -> None:
    """The banner fits 80 columns and fewer than 30 lines, however many models there are."""
    output = banner(Config(), key, "echo", names)
    assert [line for line in output.splitlines() if len(line) > 80] == []
    assert len(output.splitlines()) < 30


def test_what_is_to_be_pasted_is_one_command_of_a_shell() -> None:
    """The printed curl command is one valid shell command with the generated key, whatever the model is called."""
    odd = 'it\'s $HOME \\ "x"'
    output = banner(Config(), "sk-made", odd, [odd])
    command = output[output.index("  curl ") : output.index("\n\nOr")]
    words = subprocess.run(["bash", "-c", command.replace("curl", "printf '%s\\0'", 1)], capture_output=True, text=True, check=True)
    arguments = words.stdout.split("\0")
    assert arguments[arguments.index("--oauth2-bearer") + 1] == "sk-made"
    assert json.loads(arguments[arguments.index("-d") + 1])["model"] == odd


def test_colours_are_for_terminals_that_show_them() -> None:
    """The first line is green if that is asked for; otherwise there are no escape sequences."""
    assert "\x1b[1;32mAntiphon is up.\x1b[0m" in banner(Config(), None, "echo", ["echo"], styled=True)
    assert "\x1b" not in banner(Config(), None, "echo", ["echo"])
