"""What a start says."""

from typing import Any

import pytest
from rich.console import Console

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
    """In one line, with the settings; what only this machine reaches, or has TLS, is not."""
    lines = warnings_of(Config(**settings))
    assert len(lines) == bool(named)
    for line in lines:
        assert line.startswith(f"warning: {' and '.join(named)}: ")


def test_with_tls_the_lines_to_paste_have_it() -> None:
    """The URL, and what the terminal is given."""
    out = Console(width=200)
    plain = banner(out, Config(), None, "echo", ["echo"])
    secure = banner(out, Config(rest={"tls": TLS}, grpc={"tls": TLS}), None, "echo", ["echo"])
    assert "http://127.0.0.1:8080" in plain
    assert "-plaintext" in plain
    assert "https://127.0.0.1:8080" in secure
    assert "chat --address grpcs://127.0.0.1:50051" in secure
    assert "-plaintext" not in secure
