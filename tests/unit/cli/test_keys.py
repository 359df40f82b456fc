"""Tests of `antiphon keys ...`: arguments that are refused before a gateway is asked."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["revoke", ""], "NAME_OR_ID: it is empty"),
        (["rotate", ""], "NAME_OR_ID: it is empty"),
        (["rotate", "x", "--overlap", "169"], "'--overlap'"),
        (["create", "x", "--days", "1e99"], "'--days'"),
        (["create", "x", "--requests", "99999999999"], "'--requests'"),
        (["create", "x", "--scope", "all"], "all is not one of admin, chat, engine, history, proxy"),
        (["list", "--address", "http://"], "an address is host:port"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_refused(words: list[str], expected: str) -> None:
    """A wrong argument ends with exit code 2 and a message without a traceback."""
    command = [sys.executable, "-m", "antiphon", "keys", *words]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
