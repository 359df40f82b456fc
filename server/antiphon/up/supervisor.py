"""Runs the gateway on one machine: the workers and Envoy, each as an `antiphon.up.child`.

- Envoy gets only the environment variables that it needs, none of which holds a secret; the workers get all.
- SIGTERM or SIGINT stops the gateway. First Envoy reports that it is not ready. Then the workers are told to end: they wait for
  `limits.drain_delay`, and finish their calls, while Envoy still runs. Envoy ends last. A second signal kills everything, unless
  it comes at once, as from `timeout`, which signals its child twice.
- systemd sends SIGTERM to every process at once. The order stays the same: the workers drain already, and Envoy does not see
  SIGTERM on Linux, as it is stopped by SIGINT when its turn has come.
- SIGHUP reloads the configuration, or stops a gateway that has a terminal: see `antiphon.up.reload`.

It signals only processes that it started, and does not know what they do.

`antiphon.up.launch` makes the plan and then becomes this program, which stays in memory as long as the gateway runs. So it uses the
standard library only, and not `asyncio`, which would double its memory.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from antiphon.telemetry.names import METRICS_SOCKET
from antiphon.telemetry.private_file import open_private
from antiphon.up.admin import is_answering, turn_unready
from antiphon.up.child import SIGNAL_WINDOW, STDERR, STDOUT, Child, Say, log_line, write
from antiphon.up.counts import Counts
from antiphon.up.plan import Plan, Program
from antiphon.up.preparation import EXIT_CHANGED, UNDER_WAY, Preparation
from antiphon.up.readiness import missing
from antiphon.up.reload import Reload
from antiphon.up.responder import Parts, Responder

MARGIN = 5.0
"""Seconds that a child gets to end in addition to its calls' time."""

POLL = 0.05
"""Seconds between two checks of whether the gateway is ready."""

NOTICE_INTERVAL = 10.0
"""Seconds between two messages about what a start is waiting for."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that stop the gateway. SIGHUP reloads one that has no terminal."""

Wait = Callable[[float | None], list[int]]
"""Waits up to so many seconds, or without limit for None; returns the signals received. May return early, without one."""


def supervise(plan: Plan, environment: Mapping[str, str], *, say: Say, ready: Callable[[str], None]) -> int:
    """Run the gateway until it is stopped; return the exit code.

    The workers get `environment`, Envoy a part of it. `say` prints a line for the operator; `ready` is called once, with the
    banner, when all workers and Envoy answer. The code is 0 after one signal, 128 plus the signal's number after a second one, 1 if
    a child cannot be started, and that of the preparation if it fails. At the end the plan's folder is removed.

    Raises `OSError` if the log file cannot be written, or the metrics address cannot be listened on.
    """
    try:
        with _output(plan) as output:
            preparation = None if plan.preparation is None else Preparation(plan.preparation, environment)
            gate = None if preparation is None else preparation.gate

            def child(program: Program, probe: Callable[[], bool] | None = None) -> Child:
                names = environment if program.variables is None else program.variables
                return Child(program, {name: environment[name] for name in names if name in environment}, output, say, probe, gate)

            edge = plan.envoys_folder
            workers = [child(worker) for worker in plan.workers]
            envoy = child(plan.envoy, lambda: is_answering(edge)) if plan.envoy else None

            def not_ready() -> list[str]:
                return [UNDER_WAY] if preparation is not None and preparation.code is None else missing(edge, len(workers))

            check = plan.check
            reload = Reload(workers, child, check, plan.folder, output, plan.retire_grace, say, plan.edge) if check else None
            leaving = threading.Event()

            def leave() -> None:
                leaving.set()
                turn_unready(edge)

            def hanging() -> list[str]:
                return [one.program.name for one in (*workers, envoy) if one is not None and one.hangs]

            with _probes(plan, not_ready, hanging, leaving.is_set, lambda: reload is None or not reload.refused):
                return run(
                    workers,
                    envoy,
                    not_ready,
                    drain=plan.drain,
                    say=say,
                    ready=lambda: ready(plan.banner if preparation is None else preparation.banner),
                    leave=leave,
                    reload=reload,
                    preparation=preparation,
                )
    finally:
        _remove(plan.folder)
        if plan.lock is not None:
            os.close(plan.lock)


def _remove(folder: Path) -> None:
    """Remove a folder, which has only files. What cannot be removed stays. For `shutil.rmtree` 0.5 MB would be imported."""
    with contextlib.suppress(OSError):
        for file in list(folder.iterdir()):
            with contextlib.suppress(OSError):
                file.unlink()
        folder.rmdir()


def run(
    workers: Sequence[Child],
    envoy: Child | None,
    missing: Callable[[], Sequence[str]],
    *,
    drain: float,
    say: Say,
    ready: Callable[[], None],
    leave: Callable[[], None] = lambda: None,
    reload: Reload | None = None,
    preparation: Preparation | None = None,
) -> int:
    """Run the children until a stop signal, or until one is given up, or `preparation` fails; return the exit code, as `supervise`.

    `missing` returns what is not ready. `leave` is called when a stop begins, before any child is signalled. `reload` replaces
    `workers` once the gateway has been ready. `drain` is the seconds that calls may take, for the message to the operator.
    """
    envoys = [envoy] if envoy else []

    def servers() -> list[Child]:
        return [*workers, *(reload.other_workers if reload else ())]

    def children() -> list[Child]:
        return servers() + envoys

    with _signals() as wait:
        watch = _Watch(children, wait, drain, say, reload)
        start = _Start(children(), missing, say, ready, preparation)
        try:
            while not watch.signals and not any(child.failure for child in (*workers, *envoys)):
                start.look()
                if start.code:
                    return start.code
                due = start.due
                if reload and due is None:
                    reload.look()
                    due = reload.due
                watch.turn(due)
            for failure in filter(None, [child.failure for child in children()]):
                say(failure)
            leave()
            if reload:
                reload.stop()
            watch.end(servers())
            watch.end(envoys)
        finally:
            start.end()
            for child in children():
                child.kill()
            for child in children():
                child.wait()
    if any(child.failure for child in (*workers, *envoys)):
        return 1
    return 128 + watch.signals[-1] if len(watch.signals) > 1 else 0


class _Watch:
    """Handles signals and the children, one turn after the other."""

    def __init__(self, children: Callable[[], Sequence[Child]], wait: Wait, drain: float, say: Say, reload: Reload | None) -> None:
        self._children = children
        self._reload = None if _has_terminal() else reload  # with a terminal, SIGHUP means that it hung up: stop
        self._wait = wait
        self._drain = drain
        self._say = say
        self._first = 0.0
        self.signals: list[int] = []
        """The stop signals received, without repetitions within `SIGNAL_WINDOW` of the first one."""

    def turn(self, due: float | None = None) -> None:
        """Wait for a signal, for the time `due`, or until a child is due; then let every child act."""
        moments = [moment for moment in (due, *(child.due for child in self._children())) if moment is not None]
        for number in self._wait(max(min(moments) - time.monotonic(), 0) if moments else None):
            self._on_signal(number)
        for child in self._children():
            child.look()

    def end(self, children: Sequence[Child]) -> None:
        """Stop the children, and return when they have ended."""
        for child in children:
            child.stop()
        while not all(child.is_finished for child in children):
            self.turn()

    def _on_signal(self, number: int) -> None:
        """Request a reload for SIGHUP without a terminal; else begin the stop, or at a second signal kill all children."""
        if number == signal.SIGHUP and self._reload is not None:
            self._reload.request("SIGHUP")
            return
        if not self.signals:
            self._first = time.monotonic()
            self._say(f"Stopping. Calls in flight may take {self._drain:g} s more; a second signal ends them at once.")
        elif time.monotonic() < self._first + SIGNAL_WINDOW:
            return
        else:
            for child in self._children():
                child.kill()
        self.signals.append(number)


class _Start:
    """The start of the gateway, until it is ready."""

    def __init__(
        self,
        children: Sequence[Child],
        missing: Callable[[], Sequence[str]],
        say: Say,
        ready: Callable[[], None],
        preparation: Preparation | None,
    ) -> None:
        self._children = children
        self._missing = missing
        self._say = say
        self._ready = ready
        self._preparation = preparation
        self._complete = False
        self._notice_at = time.monotonic() + NOTICE_INTERVAL
        self.due: float | None = time.monotonic()
        """When to call `look` again, by `time.monotonic`; None once the gateway is ready."""

    @property
    def code(self) -> int | None:
        """The exit code of the preparation; None while it runs, or if there is none."""
        return None if self._preparation is None else self._preparation.code

    def end(self) -> None:
        """End what only a start needs."""
        if self._preparation is not None:
            self._preparation.kill()

    def look(self) -> None:
        """Check what is not ready yet, if that is due."""
        if self._preparation is not None:
            self._preparation.look()
        now = time.monotonic()
        if self.due is None or now < self.due:
            return
        if self._complete:
            for child in self._children:
                child.settled = True
            self.due = None
            self._ready()
            return
        pending = self._missing()
        self._complete = not pending  # reported at the next look: Envoy's threads learn of a worker a moment after its main thread
        if pending and now >= self._notice_at:
            self._say(f"Still waiting for {', '.join(pending)}.")
            self._notice_at += NOTICE_INTERVAL
        self.due = time.monotonic() + POLL


def _has_terminal() -> bool:
    """Return True if the process has a controlling terminal, which may hang up. A daemon has none."""
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return True
    return False


@contextlib.contextmanager
def _signals() -> Iterator[Wait]:
    """Handle the stop signals, including those blocked until now; yield the function that waits for them.

    SIGHUP is left alone if it is ignored, as under nohup. The end of a child ends a wait too.
    """
    numbers = [number for number in STOP_SIGNALS if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.settimeout(0)
        writer.settimeout(0)

        def wait(seconds: float | None) -> list[int]:
            readable, _, _ = select.select([reader], [], [], seconds)
            return [number for number in reader.recv(4096) if number in numbers] if readable else []

        handlers = {number: signal.signal(number, lambda *_: None) for number in (*numbers, signal.SIGCHLD)}
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        try:
            yield wait
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _output(plan: Plan) -> Iterator[int]:
    """Yield the descriptor for the children's output, the same as for their logs: the log file, or a standard stream."""
    if plan.log_file is None:
        yield STDOUT if plan.stdout_is_log else STDERR
    else:
        with open_private(plan.log_file) as file:
            yield file.fileno()


@contextlib.contextmanager
def _probes(
    plan: Plan, missing: Parts, hanging: Parts, leaving: Callable[[], bool], is_newest: Callable[[], bool]
) -> Iterator[None]:
    """Answer Prometheus and probes while in the context, if the plan has an address for them.

    This runs in threads. They receive no signals, as signals are blocked here.
    """
    if plan.metrics is None:
        yield
        return
    path = plan.envoys_folder / METRICS_SOCKET
    path.unlink(missing_ok=True)  # a killed supervisor leaves it behind
    with contextlib.closing(Counts(path, is_newest=is_newest)) as counts:
        responder = Responder(plan.metrics, counts.exposition, missing, hanging=hanging, leaving=leaving)
        with contextlib.closing(responder):
            yield


def main(descriptor: int) -> int:
    """Read a plan from the file descriptor, and run it. Return the exit code."""
    with os.fdopen(descriptor, encoding="utf-8") as file:
        plan = Plan.loads(file.read())

    def say(line: str) -> None:
        if plan.stdout_is_log:
            write(STDOUT, log_line(line, "info"))
        else:
            write(STDERR, line + "\n")

    def ready(banner: str) -> None:
        if plan.stdout_is_log and not os.isatty(STDOUT):
            say("Antiphon is up.")
        else:
            write(STDOUT, banner)

    try:
        code = supervise(plan, os.environ, say=say, ready=ready)
    except OSError as error:
        say(f"error: {error}")
        return 1
    if code == EXIT_CHANGED:
        say("The configuration has changed: starting again.")
        os.environ.pop(plan.set_variable, None)
        os.execv(plan.restart_command[0], list(plan.restart_command))  # noqa: S606  # this same program
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
