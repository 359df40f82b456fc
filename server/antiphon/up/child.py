"""One child process of the supervisor: started, and restarted whenever it ends, until it is stopped.

- A child that ends is restarted: at once if it had run for a while, else after a delay that doubles each time. Until the gateway
  has been ready once, a child that keeps ending, or reports an unusable configuration, is given up, as an operator is there to read
  why. Afterwards a child is never given up, because the others may still serve. A child that a signal killed is then restarted at
  once, unless it had only just started: whatever killed it, callers are waiting for it.
- A child that is alive but hangs is killed, and so restarted.
- Each child has its own session, so that Ctrl-C in a terminal, or a signal to the process group, reaches only the supervisor. On
  Linux the children die with the supervisor, however it dies.

Nothing here blocks: call `look` when something may have happened, and at the time `due`. Uses the standard library only.
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

from antiphon.up.liveness import Liveness, liveness_of_pipe
from antiphon.up.plan import Program

MIN_LIFE = 5.0
"""A child that ends within this many seconds of its start counts as a failed start."""

MIN_LIFE_IF_KILLED = 1.0
"""The same in seconds for a child that a signal killed, after the gateway has been ready."""

MAX_FAILED_STARTS = 5
"""Failed starts in a row after which a child is given up, while the gateway has not been ready yet."""

FIRST_DELAY = 0.2
"""Seconds before the restart after a failed start; doubled for each further one."""

MAX_DELAY = 10.0
"""The longest delay before a restart, in seconds."""

EXIT_UNUSABLE_CONFIG = 2
"""The exit code of a worker whose configuration is unusable, so that a restart would not help."""

RETIRE_SIGNAL = "SIGUSR1"
"""The signal that makes a worker end once its calls have ended."""

HANDOVER_SIGNAL = "SIGUSR2"
"""The signal that makes a worker write down what the one that replaces it should know."""

STDOUT, STDERR = 1, 2

SIGNAL_WINDOW = 0.2
"""Seconds within which several signals count as one.

Whoever sends one to a child, such as `timeout` or systemd, may be about to send one to the supervisor too.
"""

_STOP_CODES = frozenset({0, -signal.SIGTERM, -signal.SIGINT})
"""The codes of a child that ended because it received a stop signal."""

# Runs in the child's process before its own program. It asks the kernel for SIGKILL when the parent dies (1 is PR_SET_PDEATHSIG).
# If another signal than SIGTERM stops the program, it blocks SIGTERM, and the program inherits that.
# It asks for the policy of programs that do not interrupt others when they wake (sched(7)). Else worker and Envoy interrupt each
# other for each message, and on a busy machine each finds one where it would have found several (docs/adr/0010).
# Not a preexec_fn, which would run Python in a fork of a process that may have threads.
_WRAPPER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
if sys.argv[2] != "SIGTERM":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
try:
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
except OSError:
    pass
import ctypes
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""

Say = Callable[[str], None]
"""Prints a line for the operator."""


class Gate:
    """A pipe at whose end workers wait until it is closed: then what they are to serve has been checked."""

    def __init__(self) -> None:
        """Make the pipe. Raises `OSError` if there is no room for one."""
        self.reader: int | None
        """The descriptor that a worker reads from; None once the gate is open."""
        self.reader, self._writer = os.pipe()

    def open(self) -> None:
        """Let the workers in. May be called again."""
        if self.reader is not None:
            os.close(self._writer)
            os.close(self.reader)
            self.reader = None


class Child:
    """One child process; see the module for when it is restarted."""

    def __init__(
        self,
        program: Program,
        environment: Mapping[str, str],
        output: int,
        say: Say,
        probe: Callable[[], bool] | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Prepare the child; the first `look` starts it.

        `output` is the file descriptor for its standard output and error. `say` prints a line for the operator. `probe` returns
        whether a child that can be queried answers; None: it cannot be queried. A worker that is started while `gate` is closed
        waits until it opens, with everything imported.
        """
        self.program = program
        self.settled = False
        """True once the gateway has been ready: from then on the child is never given up."""
        self.failure: str | None = None
        """Why the child was given up; None: it was not."""
        self._environment = dict(environment)
        self._output = output
        self._say = say
        self._probe = probe
        self._gate = gate
        self._liveness: Liveness | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._failed_starts = 0
        self._start_at: float | None = time.monotonic()
        self._kill_at: float | None = None
        self._stop_signal, self._stop_grace = "", 0.0
        """The name of the last stop signal sent, and how many seconds the process may take to end."""
        self._unhandled_end: tuple[int, float] | None = None
        """Exit code and seconds lived of a process that has ended, until `look` decides about a restart."""

    @property
    def is_finished(self) -> bool:
        """True if the process has ended and will not be restarted."""
        return self._process is None and self._start_at is None

    @property
    def hangs(self) -> bool:
        """True if the process is alive but has missed signs of life, so that the next check may kill it."""
        liveness = self._liveness
        return liveness is not None and liveness.is_suspect

    @property
    def due(self) -> float | None:
        """When `look` has something to do even if nothing happens, by `time.monotonic`; None: never."""
        if self._process is None:
            return self._start_at
        return self._kill_at if self._kill_at is not None or self._liveness is None else self._liveness.due

    def look(self) -> None:
        """Notice that the process has ended, and start or kill it if that is due."""
        now = time.monotonic()
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            self._close_liveness()
            if self._start_at is None:  # it was told to end
                return
            self._unhandled_end = code, now - self._started
            self._start_at = now + SIGNAL_WINDOW if code in _STOP_CODES else now
        if self._process is not None:
            if self._kill_at is not None and now >= self._kill_at:
                self._say(f"{self.program.name} did not end within {self._stop_grace:g} s of {self._stop_signal}: killed")
                self.kill()
            elif self._kill_at is None and self._liveness is not None and self._liveness.check(now):
                self._say(f"{self.program.name} hangs: no sign of life for {self._liveness.silence:g} s; killed")
                self._log("child hangs", silent_s=self._liveness.silence)
                self._close_liveness()
                self._process.kill()  # restarted later, as if it had died
        elif self._start_at is not None and now >= self._start_at:
            if self._unhandled_end is not None:
                code, lived = self._unhandled_end
                self._unhandled_end = None
                self._restart_or_give_up(code, _exit_text(code), lived)
            else:
                self._start()

    def stop(self) -> None:
        """Send the stop signal; `look` kills the process once its grace period is over."""
        self._ask_to_end(self.program.stop_signal, self.program.grace)

    def retire(self, grace: float) -> None:
        """Tell a worker to take no new calls and end after its last one; `look` kills it after `grace` seconds."""
        self._ask_to_end(RETIRE_SIGNAL, grace)

    def hand_over(self) -> None:
        """Tell a worker that serves to write down what its successor should know."""
        if self._process is not None and not self._stop_signal:
            self._process.send_signal(signal.Signals[HANDOVER_SIGNAL])

    def _ask_to_end(self, signal_name: str, grace: float) -> None:
        """Send a stop signal, once for each kind, and set when `look` kills the process. It is not restarted."""
        self._start_at = None
        if self._process is not None and self._stop_signal != signal_name:
            self._stop_signal, self._stop_grace = signal_name, grace
            self._kill_at = time.monotonic() + grace
            self._process.send_signal(signal.Signals[signal_name])

    def kill(self) -> None:
        """Kill the process, and do not restart it."""
        self._start_at = self._kill_at = None
        if self._process is not None:
            self._process.kill()

    def wait(self) -> None:
        """Wait until a killed process has ended."""
        if self._process is not None:
            self._process.wait()
            self._process = None
            self._close_liveness()

    def _start(self) -> None:
        """Start the process. If the system cannot, this counts as a failed start."""
        self._started = time.monotonic()
        heartbeat_fd = None
        descriptors: dict[str, int] = {}
        try:
            if self.program.sends_heartbeat:
                self._liveness, heartbeat_fd = liveness_of_pipe()
                descriptors["--heartbeat"] = heartbeat_fd
                if self._gate is not None and self._gate.reader is not None:
                    descriptors["--gate"] = self._gate.reader
            elif self._probe is not None:
                self._liveness = Liveness(self._probe)
            self._process = subprocess.Popen(  # noqa: S603  # starting programs is the supervisor's task
                wrapped_command(self.program) + [part for name, fd in descriptors.items() for part in (name, str(fd))],
                pass_fds=list(descriptors.values()),
                cwd=self.program.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,
            )
        except OSError as error:  # for now, the system has no room for a process
            self._close_liveness()
            self._restart_or_give_up(1, f"not even started: {error.strerror}", 0.0)
        finally:
            if heartbeat_fd is not None:
                os.close(heartbeat_fd)

    def _close_liveness(self) -> None:
        if self._liveness is not None:
            self._liveness.close()
            self._liveness = None

    def _restart_or_give_up(self, code: int, how: str, lived: float) -> None:
        """Schedule a restart of the process that has ended, or give the child up.

        `code` is the exit code, negative for a signal; `how` describes it; `lived` is how many seconds the process ran.
        """
        min_life = MIN_LIFE_IF_KILLED if self.settled and code < 0 else MIN_LIFE
        self._failed_starts = self._failed_starts + 1 if lived < min_life else 0
        if not self.settled and code == EXIT_UNUSABLE_CONFIG:
            self._give_up(f"{how}. It says why above.")
        elif not self.settled and self._failed_starts >= MAX_FAILED_STARTS:
            self._give_up(f"it ended {self._failed_starts} times within {MIN_LIFE:g} s, the last time {how}.")
        else:
            delay = min(FIRST_DELAY * 2 ** (self._failed_starts - 1), MAX_DELAY) if self._failed_starts else 0.0
            when = f"in {delay:g} s" if delay else "now"
            self._say(f"{self.program.name} ended ({how}) after {lived:.1f} s; starting it again {when}")
            self._log("child ended", how=how, lived_s=round(lived, 1), restart_in_s=delay)
            self._start_at = time.monotonic() + delay

    def _give_up(self, why: str) -> None:
        """Do not restart the child any more, and set `failure`."""
        self._start_at = None
        self.failure = f"{self.program.name} cannot start: {why}"
        self._log("gave up", error=self.failure)

    def _log(self, event: str, **fields: Any) -> None:
        write(self._output, log_line(event, "error", child=self.program.name, **fields))


def log_line(event: str, level: str, **fields: Any) -> str:
    """Return a JSON line in the format of the children's logs."""
    when = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({**fields, "event": event, "level": level, "timestamp": when, "process": "supervisor"}) + "\n"


def wrapped_command(program: Program) -> list[str]:
    """Return the command line that runs the program so that it dies with this process. On Linux only; elsewhere its own command."""
    if not sys.platform.startswith("linux"):
        return list(program.command)
    return [sys.executable, "-I", "-S", "-c", _WRAPPER, str(os.getpid()), program.stop_signal, *program.command]


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def write(descriptor: int, text: str) -> None:
    """Write to a file descriptor without buffering, and ignore errors: a log without a reader, or a full disk, must not end us."""
    data = text.encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]
