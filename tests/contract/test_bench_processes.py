"""The benchmark's measurements of other processes."""

import os
import subprocess
import sys

from tests.bench.processes import Clock, children, cpu, memory
from tests.waiting import block_until

WORK = "import sys; held = bytearray(b'x') * 50_000_000; sum(range(10_000_000)); print('done', flush=True); sys.stdin.read()"


def test_cpu_and_memory_of_another_process() -> None:
    """CPU time and memory of a child are measured, and its CPU time is kept after it has ended."""
    clock = Clock()
    with subprocess.Popen([sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        assert process.pid in children(os.getpid())
        assert cpu([process.pid]) > 20_000_000
        assert cpu([process.pid, os.getpid()]) > cpu([process.pid])
        assert 50_000_000 < memory([process.pid]) < 90_000_000
        used = clock.read([process.pid])
        process.communicate(b"")
    block_until(lambda: process.pid not in children(os.getpid()))
    assert clock.read([process.pid]) == used
    assert clock.read([os.getpid()]) > used
