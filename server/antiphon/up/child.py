"""One child of the supervisor: a program that is started, and started again when it ends, until it is stopped.

- A child that dies is started again, at once if it had lived a while, else after a delay that doubles. Until the gateway has been
  ready once, a child that keeps dying, or says that the configuration is not usable, is given up: there is somebody there to read
  why. After that a child is never given up, as the others may still serve; and one that a signal ended is started again at once
  unless it had only just started: whoever killed it, or whatever it crashed on, callers wait for it.
- A child that gives no sign of life any more, though it lives, is killed, and so started again.
- Children have sessions of their own, so that Ctrl-C in a terminal, or a signal to the process group, reaches the supervisor alone;
  and on Linux they die with it, however it dies.

Nothing here waits: `look` is called when something may have happened, and at `due`. Of the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from antiphon.up.plan import Program
from antiphon.up.pulse import Pulse, pulse_of_pipe

QUICK = 5.0
"""A child that ends within so many seconds of its start has not lived."""

QUICK_KILL = 1.0
"""The same, for one that a signal ended after the gateway had been ready."""

ATTEMPTS = 5
"""How often a child may end quickly, one after the other, before the gateway has been ready."""

FIRST_DELAY = 0.2
"""Seconds before a child that ended quickly is started again; doubled each time it does."""

LONGEST_DELAY = 10.0
"""Seconds."""

UNUSABLE = 2
"""The exit code by which a worker says that its configuration is not usable, so that starting it again is of no use."""

RETIRE = "SIGUSR1"
"""The signal that has a worker end when its calls do."""

TOGETHER = 0.2
"""Seconds in which signals are taken for one: whoever told a child to end may be about to tell the supervisor as well."""

_TOLD = frozenset({0, -signal.SIGTERM, -signal.SIGINT})
"""How a child ends that was told to."""

# Runs before the child's own program, in its process: asks the kernel for SIGKILL at the parent's death (1 is PR_SET_PDEATHSIG),
# and blocks SIGTERM, which the program then inherits, if it is to end by another signal.
# A program rather than a preexec_fn, which would run Python in a fork of a process that may have threads.
_LEASH = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
if sys.argv[2] != "SIGTERM":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
import ctypes
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""

Say = Callable[[str], None]


class Child:
    """One child."""

    def __init__(
        self, program: Program, environment: Mapping[str, str], output: int, say: Say, answers: Callable[[], bool] | None = None
    ) -> None:
        """`output` is the file descriptor that takes the child's standard output and error. Starts nothing before `look`.

        `answers` asks a child that can be asked whether it is there.
        """
        self.program = program
        self.settled = False
        """Set once the gateway has been ready: from then on the child is never given up."""
        self.failure: str | None = None
        """Why the child was given up."""
        self._environment = dict(environment)
        self._output = output
        self._say = say
        self._answers = answers
        self._pulse: Pulse | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._quick = 0
        self._start_at: float | None = time.monotonic()
        self._kill_at: float | None = None
        self._told, self._grace = "", 0.0
        """The signal that told it to end, and how long it may take."""
        self._ended: tuple[int, float] | None = None
        """How it ended and how long it had lived, while nothing is made of that yet."""

    @property
    def over(self) -> bool:
        """Whether it has ended, and will not be started again."""
        return self._process is None and self._start_at is None

    @property
    def hangs(self) -> bool:
        """Whether it lives, but has given no sign of that for long."""
        pulse = self._pulse
        return pulse is not None and pulse.is_weak

    @property
    def due(self) -> float | None:
        """When there is something to do even if nothing happens, as `time.monotonic` tells it."""
        if self._process is None:
            return self._start_at
        return self._kill_at if self._kill_at is not None or self._pulse is None else self._pulse.due

    def look(self) -> None:
        """Takes note of an end, and starts or kills what is to be."""
        now = time.monotonic()
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            self._end_pulse()
            if self._start_at is None:  # it was to end
                return
            self._ended = code, now - self._started
            self._start_at = now + TOGETHER if code in _TOLD else now
        if self._process is not None:
            if self._kill_at is not None and now >= self._kill_at:
                self._say(f"{self.program.name} did not end within {self._grace:g} s of {self._told}: killed")
                self.kill()
            elif self._kill_at is None and self._pulse is not None and self._pulse.is_gone(now):
                self._say(f"{self.program.name} hangs: not a sign of it for {self._pulse.silence:g} s; killed")
                self._log("child hangs", silent_s=self._pulse.silence)
                self._end_pulse()
                self._process.kill()  # it is started again, as if it had died
        elif self._start_at is not None and now >= self._start_at:
            if self._ended is not None:
                code, lived = self._ended
                self._ended = None
                self._again(code, _how(code), lived)
            else:
                self._start()

    def stop(self) -> None:
        """Tells the child to end; `look` kills it once its grace is over."""
        self._tell(self.program.ends_by, self.program.grace)

    def retire(self, grace: float) -> None:
        """Tells the child to take no new calls, and to end with the last it has; `look` kills it once its grace is over."""
        self._tell(RETIRE, grace)

    def _tell(self, signal_name: str, grace: float) -> None:
        self._start_at = None
        if self._process is not None and self._told != signal_name:
            self._told, self._grace = signal_name, grace
            self._kill_at = time.monotonic() + grace
            self._process.send_signal(signal.Signals[signal_name])

    def kill(self) -> None:
        """Ends the child by force."""
        self._start_at = self._kill_at = None
        if self._process is not None:
            self._process.kill()

    def wait(self) -> None:
        """Returns when a child that was killed has ended."""
        if self._process is not None:
            self._process.wait()
            self._process = None
            self._end_pulse()

    def _start(self) -> None:
        self._started = time.monotonic()
        beat = None
        try:
            if self.program.beats:
                self._pulse, beat = pulse_of_pipe()
            elif self._answers is not None:
                self._pulse = Pulse(self._answers)
            self._process = subprocess.Popen(  # noqa: S603  # that is what the supervisor is for
                _leashed(self.program) + ([] if beat is None else ["--heartbeat", str(beat)]),
                pass_fds=() if beat is None else (beat,),
                cwd=self.program.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,
            )
        except OSError as error:  # no process to be had, for now
            self._end_pulse()
            self._again(1, f"not even started: {error.strerror}", 0.0)
        finally:
            if beat is not None:
                os.close(beat)

    def _end_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.close()
            self._pulse = None

    def _again(self, code: int, how: str, lived: float) -> None:
        """It has ended: it is started again soon, or given up."""
        self._quick = self._quick + 1 if lived < (QUICK_KILL if self.settled and code < 0 else QUICK) else 0
        if not self.settled and code == UNUSABLE:
            self._give_up(f"{how}. It says why above.")
        elif not self.settled and self._quick >= ATTEMPTS:
            self._give_up(f"it ended {self._quick} times within {QUICK:g} s, the last time {how}.")
        else:
            delay = min(FIRST_DELAY * 2 ** (self._quick - 1), LONGEST_DELAY) if self._quick else 0.0
            when = f"in {delay:g} s" if delay else "now"
            self._say(f"{self.program.name} ended ({how}) after {lived:.1f} s; starting it again {when}")
            self._log("child ended", how=how, lived_s=round(lived, 1), restart_in_s=delay)
            self._start_at = time.monotonic() + delay

    def _give_up(self, why: str) -> None:
        self._start_at = None
        self.failure = f"{self.program.name} cannot start: {why}"
        self._log("gave up", error=self.failure)

    def _log(self, event: str, **fields: Any) -> None:
        write(self._output, log_line(event, "error", child=self.program.name, **fields))


def log_line(event: str, level: str, **fields: Any) -> str:
    """Return a line that looks like those of the children's logs."""
    when = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({**fields, "event": event, "level": level, "timestamp": when, "process": "supervisor"}) + "\n"


def _leashed(program: Program) -> list[str]:
    """The command line that runs the program such that it dies with this process, where the system can do that."""
    if not sys.platform.startswith("linux"):
        return list(program.command)
    return [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), program.ends_by, *program.command]


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def write(descriptor: int, text: str) -> None:
    """Writes to a file that may have lost its reader, or its room: that is no reason to end. Nothing is left in a buffer."""
    data = text.encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]
