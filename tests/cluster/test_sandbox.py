"""The sandbox in which a cluster runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import sandbox
from tests.waiting import block_until

STARTED = """
import subprocess, sys
from tests.cluster import sandbox
if sandbox.inside():
    sandbox.prepare()
    from tests.cluster.network import Network
    Network().namespace()
    print(sys.argv[1], flush=True)
    subprocess.run(["sleep", "infinity"])
else:
    sandbox.run("started", sys.argv[1:])
"""


def processes(mark: str) -> list[int]:
    """Return the ids of the processes that have `mark` as an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if mark in text.split("\0"):
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_it_stays_when_its_parent_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """When its parent is terminated or killed, all processes of the sandbox end, and its network with them."""
    if reason := sandbox.missing():
        pytest.skip(reason)
    (tmp_path / "started.py").write_text(STARTED)
    mark = f"mark-{os.getpid()}-{number}"
    paths = f"{tmp_path}:{Path(__file__).parents[2]}"
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "started", mark]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().decode().strip() == mark
    assert len(processes(mark)) > 2
    assert b"cluster0" not in subprocess.run(["ip", "link"], check=True, capture_output=True).stdout
    process.send_signal(number)
    process.wait(20)
    process.stdout.close()
    block_until(lambda: not processes(mark))
