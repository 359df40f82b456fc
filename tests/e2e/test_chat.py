"""`antiphon chat` in a terminal, through the real gateway."""

import asyncio
import os
import sys

import pytest

from tests.e2e.conftest import KEY, Gateway
from tests.odd_upstream import HANG, OddUpstream, chunk, delta, head, sse
from tests.terminal import Terminal


@pytest.mark.slow
@pytest.mark.parametrize("edge", [False, True], ids=["direct", "envoy"])
async def test_ctrl_c_ends_the_call_of_the_provider(gateway: Gateway, upstream: OddUpstream, edge: bool) -> None:
    """Ctrl-C ends the provider's call at once, and the conversation goes on with another model."""
    upstream.script("odd-endless", [head(), chunk(sse(delta("One and"))), HANG])
    command = [sys.executable, "-m", "antiphon", "chat", "-m", "odd-endless"]
    address = gateway.rest if edge else gateway.grpc
    environment = {"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": address, "ANTIPHON_KEY": KEY, "TERM": "xterm"}
    with Terminal(command, environment) as terminal:
        await terminal.wait_for("you> ")
        terminal.type("Count!\r")
        await terminal.wait_for("One and")
        terminal.type("\x03")
        await asyncio.wait_for(upstream.left.get(), 20)
        await terminal.wait_for("you> ")
        terminal.type("/model echo\r")
        await terminal.wait_for("The model is echo.")
        terminal.type("Go on.\r")
        await terminal.wait_for("You said: Go on.")
        await terminal.wait_for("echo · ")
        await terminal.wait_for("you> ")
        terminal.type("\x04")
        assert await terminal.wait_for_exit() == 0
