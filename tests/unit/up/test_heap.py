"""Tests of returning freed memory to the system."""

import subprocess
import sys

import pytest

PROGRAM = """
from antiphon.up.heap import give_back_large_blocks
give_back_large_blocks()

def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

bytearray(31 << 20)  # after this largest block, glibc would by default keep smaller ones
before = resident()
blocks = [bytearray(b"x") * (20 << 20) for _ in range(5)]
pinned = [bytes(100_000) for _ in range(20)]  # small blocks behind the large ones
del blocks
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the others have another allocator")
def test_large_blocks_go_back_when_they_are_freed() -> None:
    """Large freed blocks are returned to the system, even after larger ones were freed before."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 10 << 20
