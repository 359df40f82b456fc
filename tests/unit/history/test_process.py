"""Tests of detecting processes that have ended."""

import os
import subprocess
import sys

from antiphon.history.process import is_gone, this_process

PROGRAM = "from antiphon.history.process import this_process; print(this_process(), flush=True); input()"


def test_a_process_is_there_until_it_ends() -> None:
    """A killed process is gone at once, before and after its parent has waited for it."""
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdin is not None
    name = child.stdout.readline().strip()
    assert not is_gone(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(name)
    child.wait()
    assert is_gone(name)
    child.stdout.close()
    child.stdin.close()


def test_a_process_that_cannot_be_checked_is_not_gone() -> None:
    """A process of another machine or container, and a malformed name, are not reported as gone."""
    assert not is_gone(this_process())
    where, number, started = this_process().rsplit(" ", 2)
    for other in ("", "x", f"elsewhere {number} {started}", f"{where} x {started}", "a b c"):
        assert not is_gone(other)


def test_a_number_that_was_given_again_is_another_process() -> None:
    """A process with the same number but another start time is another process."""
    where, number, started = this_process().rsplit(" ", 2)
    assert is_gone(f"{where} {number} {int(started) - 1}")
