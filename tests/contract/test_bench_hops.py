"""What a call and a token may cost inside the server, in counts that are the same on every machine.

`python -m tests.bench.hops` makes the counts, and lists where each of them is. A bound has little room above what was counted when
it was set: a change that exceeds one says why the new count is worth it, and raises it here. One that stays far below lowers it.
CPU time depends on the machine, so no test looks at it: `make bench` measures it beside other gateways.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.bench.features import LIMITS
from tests.ports import free_port

ROOT: Final = Path(__file__).parents[2]

BOUNDS: Final = {
    # A JSON call: one request read and checked, one call of the provider, one answer.
    "REST JSON call": {
        "Python calls": 199,
        "C calls": 168,
        "async hops, antiphon": 27,
        "async hops, libraries": 1,
        "awaits woken, antiphon": 13,  # until the first output, the attempts wait between the service and the provider
        "tasks": 2,  # gRPC's for the call, and one that waits for its caller to leave
        "gRPC operations": 6,  # receive metadata, message and close; send metadata, message and status
        "gRPC batches": 4,  # those three are sent together
        "SQL statements": 0,  # a call that is not recorded asks the database nothing
        "log writes": 1,
        "JSON read": 2,  # the request, the provider's answer
        "JSON written": 3,  # the provider's request, our answer, the line of the log
        "protobuf parsed": 1,
        "protobuf serialised": 1,
        "pydantic validations": 0,
    },
    # The same, recorded as the first turn of a conversation.
    "REST JSON turn": {
        "Python calls": 312,  # without those of the database's thread
        "C calls": 250,
        "async hops, antiphon": 39,
        "async hops, libraries": 1,
        "awaits woken, antiphon": 29,
        "tasks": 3,  # those of a call, and one that stores the turn though its caller leaves
        "gRPC operations": 6,
        "SQL statements": 9,  # 2 transactions: begin, conversation, messages, head, commit; begin, conversation, reply, commit
        "log writes": 1,
        "protobuf serialised": 1,
    },
    # The same call as the first, typed.
    "gRPC call": {
        "Python calls": 203,
        "C calls": 190,
        "async hops, antiphon": 27,
        "tasks": 2,
        "gRPC operations": 6,
        "gRPC batches": 4,
        "SQL statements": 0,
        "log writes": 1,
        "JSON written": 2,
        "protobuf parsed": 1,
        "protobuf serialised": 1,
    },
    # A stream of one token, whole: what a stream costs beside its tokens.
    "REST stream of 1 read": {
        "Python calls": 316,
        "async hops, antiphon": 35,
        "tasks": 2,
        "gRPC operations": 7,  # those of a JSON call, and one for the message before the last
        "gRPC batches": 5,
        "SQL statements": 0,
        "log writes": 1,
    },
    "gRPC stream of 1 read": {
        "Python calls": 320,
        "async hops, antiphon": 33,
        "tasks": 2,
        "gRPC operations": 7,
        "gRPC batches": 6,  # the end follows the last message
        "SQL statements": 0,
        "log writes": 1,
    },
    # A token that arrives alone, the dearest kind: tokens that arrive together share all of this.
    "REST read": {
        "Python calls": 29,
        "C calls": 44,
        "async hops, antiphon": 5,
        "async hops, libraries": 0,
        "awaits woken, antiphon": 7,
        "tasks": 0,
        "gRPC operations": 1,  # the message that is sent
        "SQL statements": 0,
        "log writes": 0,
        "JSON read": 1,
        "JSON written": 1,
        "protobuf serialised": 1,
        "pydantic validations": 0,
    },
    "gRPC read": {
        "Python calls": 30,
        "C calls": 39,
        "async hops, antiphon": 5,
        "async hops, libraries": 0,
        "awaits woken, antiphon": 7,
        "tasks": 0,
        "gRPC operations": 1,
        "SQL statements": 0,
        "log writes": 0,
        "JSON read": 1,
        "JSON written": 0,
        "protobuf serialised": 1,
        "pydantic validations": 0,
    },
}

SWITCHED_ON: Final = {
    **LIMITS,
    "traces": {"endpoint": "http://127.0.0.1:9"},  # nothing listens there: what counts is the worker's part
}

BOUNDS_SWITCHED_ON: Final = {
    # Eight limits are checked and settled, and eight metrics and two spans are written.
    "REST JSON call": {
        "Python calls": 270,
        "C calls": 292,
        "async hops, antiphon": 32,
        "awaits woken, antiphon": 13,
        "tasks": 2,
        "gRPC operations": 6,
        "SQL statements": 0,
        "log writes": 1,
        "JSON read": 2,
        "JSON written": 4,  # also the fields beside the messages, whose tokens are estimated
        "protobuf parsed": 1,
        "protobuf serialised": 1,
    },
    "REST stream of 1 read": {"Python calls": 388, "async hops, antiphon": 38, "tasks": 2, "gRPC operations": 7},
    "REST read": {"Python calls": 29, "C calls": 44, "gRPC operations": 1},  # a token costs no more
    "gRPC read": {"Python calls": 30, "C calls": 39, "gRPC operations": 1},
}

HOUSEKEEPING: Final = 0.25
"""What the server does every few seconds, divided by the calls or tokens during which it was counted."""


@pytest.mark.timeout(300)
def test_no_call_and_no_token_costs_more_than_its_bounds() -> None:
    """Python calls, tasks, awaits, gRPC operations, SQL statements, lines of the log and conversions, of each."""
    check()


@pytest.mark.timeout(300)
def test_a_name_for_one_model_costs_nothing() -> None:
    """A call by a name with one target has the bounds of a call by the model's own: there is nothing to choose."""
    aliases = {name: {"try": [f"upstream/{name}"]} for name in ("whole", "stream")}
    check("--with", json.dumps({"models": {"default": "whole", **aliases}}))


@pytest.mark.timeout(300)
def test_limits_metrics_and_traces_cost_no_more_than_their_bounds() -> None:
    """A call with everything switched on has bounds of its own, and a token costs what it costs without."""
    metrics = {"metrics": {"listen": f"127.0.0.1:{free_port()}"}}
    check("--with", json.dumps({**SWITCHED_ON, **metrics}), bounds=BOUNDS_SWITCHED_ON)


def check(*options: str, bounds: Mapping[str, Mapping[str, int]] = BOUNDS) -> None:
    """Count with these options, and hold the counts to the bounds."""
    command = [sys.executable, "-m", "tests.bench.hops", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    assert found.keys() == BOUNDS.keys() >= bounds.keys()
    assert all(counts["gRPC operations"] for counts in found.values()), "gRPC logged nothing"
    exceeded = [
        f"{scenario}: {found[scenario].get(name, 0):.2f} {name}, and at most {bound} are allowed"
        for scenario, most in bounds.items()
        for name, bound in most.items()
        if found[scenario].get(name, 0) > bound + HOUSEKEEPING
    ]
    assert not exceeded, "see the head of this file\n" + "\n".join(exceeded)
