"""Runs the gateway on one machine: the server's workers and Envoy, each an `antiphon.up.child` of its own.

- Envoy gets what it needs of the environment, which no secret is in; the workers get all.
- SIGTERM, SIGINT: Envoy is told to say that it is not ready; the workers are told to end, for which they wait a while if they are
  to (`limits.drain_delay`), and finish their calls, through an Envoy that is still there; then Envoy. A second signal kills what is
  left, unless it comes at once, as from `timeout`, which tells its child twice.
- SIGTERM may come to every process at once, as systemd sends it. The order stays the same: the workers drain already, and Envoy,
  on Linux, does not hear of it, as it is ended by SIGINT when its turn has come.

- SIGHUP reloads the configuration, or ends the gateway where there is a terminal: see `antiphon.up.reload`.

Signals only processes that it started itself. Knows nothing of what the children do.

`antiphon.up.launch` makes the plan and then becomes this program, which stays for as long as the gateway runs and has only to watch
over others: it is of the standard library alone, and of that without `asyncio`, which would double what it takes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from antiphon.telemetry.names import METRICS_SOCKET
from antiphon.telemetry.private_file import open_private
from antiphon.up.admin import answers, turn_unready
from antiphon.up.child import TOGETHER, Child, Say, log_line, write
from antiphon.up.counts import Counts
from antiphon.up.plan import Plan, Program
from antiphon.up.readiness import missing
from antiphon.up.reload import Reload
from antiphon.up.responder import Parts, Responder

MARGIN = 5.0
"""Seconds that a child has to end beyond those that it was promised."""

POLL = 0.05
"""Seconds between two looks at whether the gateway is ready."""

PATIENCE = 10.0
"""Seconds after which, and then again and again, it is told what the start still waits for."""

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that end the gateway. SIGHUP reloads one that has no terminal."""

STDOUT, STDERR = 1, 2

Wait = Callable[[float | None], list[int]]
"""Waits for so many seconds, None being for ever, and returns the signals that came. May return before, for no signal."""


def supervise(plan: Plan, environment: Mapping[str, str], *, say: Say, ready: Callable[[], None]) -> int:
    """Runs the gateway until it is told to stop, and returns the exit code of the whole.

    `environment` is the workers', and some of it Envoy's. `say` takes lines for the operator, `ready` is called once when every
    worker and Envoy answer. The code is 0 after one signal, 128 and the signal's number after a second one, 1 when a child cannot
    be started. At the end the plan's folder is gone. Raises `OSError` if the log file cannot be written, or the
    port of metrics cannot be had.
    """
    try:
        with _output(plan) as output:

            def child(program: Program, answers: Callable[[], bool] | None = None) -> Child:
                names = environment if program.variables is None else program.variables
                return Child(program, {name: environment[name] for name in names if name in environment}, output, say, answers)

            edge = plan.envoys_folder
            workers = [child(worker) for worker in plan.workers]
            envoy = child(plan.envoy, lambda: answers(edge)) if plan.envoy else None
            lacking = partial(missing, edge, len(workers))
            check = plan.check
            reload = Reload(workers, child, check, plan.folder, output, plan.retiring, say, plan.edge) if check else None
            leaving = threading.Event()

            def leave() -> None:
                leaving.set()
                turn_unready(edge)

            def hanging() -> list[str]:
                return [one.program.name for one in (*workers, envoy) if one is not None and one.hangs]

            with _probes(plan, lacking, hanging, leaving.is_set, lambda: reload is None or not reload.refused):
                return run(workers, envoy, lacking, drain=plan.drain, say=say, ready=ready, leave=leave, reload=reload)
    finally:
        shutil.rmtree(plan.folder, ignore_errors=True)
        if plan.lock is not None:
            os.close(plan.lock)


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
) -> int:
    """Runs the children until a signal, or until one is given up. As `supervise`.

    `missing` tells what is not ready. `leave` is called when a stop begins, before any child is told to end. `reload` exchanges
    `workers`, once the gateway has been ready.
    """
    envoys = [envoy] if envoy else []

    def servers() -> list[Child]:
        return [*workers, *(reload.others if reload else ())]

    def children() -> list[Child]:
        return servers() + envoys

    with _signals() as wait:
        watch = _Watch(children, wait, drain, say, reload)
        try:
            start = _Start(children(), missing, say, ready)
            while not watch.signals and not any(child.failure for child in (*workers, *envoys)):
                start.look()
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
            for child in children():
                child.kill()
            for child in children():
                child.wait()
    if any(child.failure for child in (*workers, *envoys)):
        return 1
    return 128 + watch.signals[-1] if len(watch.signals) > 1 else 0


class _Watch:
    """Looks after the children, one turn after the other, and hears the signals."""

    def __init__(self, children: Callable[[], Sequence[Child]], wait: Wait, drain: float, say: Say, reload: Reload | None) -> None:
        self._children = children
        self._reload = None if _has_terminal() else reload  # a terminal that hangs up ends what was started in it
        self._wait = wait
        self._drain = drain
        self._say = say
        self._first = 0.0
        self.signals: list[int] = []
        """Those that have come, without what came along with the first one."""

    def turn(self, due: float | None = None) -> None:
        """Wait for a signal, for what a child is due to, or until `due`; then look at every child."""
        moments = [moment for moment in (due, *(child.due for child in self._children())) if moment is not None]
        for number in self._wait(max(min(moments) - time.monotonic(), 0) if moments else None):
            self._hear(number)
        for child in self._children():
            child.look()

    def end(self, children: Sequence[Child]) -> None:
        """Tell the children to end, and return when they have."""
        for child in children:
            child.stop()
        while not all(child.over for child in children):
            self.turn()

    def _hear(self, number: int) -> None:
        if number == signal.SIGHUP and self._reload is not None:
            self._reload.ask("SIGHUP")
            return
        if not self.signals:
            self._first = time.monotonic()
            self._say(f"Stopping. Calls in flight may take {self._drain:g} s more; a second signal ends them at once.")
        elif time.monotonic() < self._first + TOGETHER:
            return
        else:
            for child in self._children():
                child.kill()
        self.signals.append(number)


class _Start:
    """The start of the gateway, until it is ready."""

    def __init__(
        self, children: Sequence[Child], missing: Callable[[], Sequence[str]], say: Say, ready: Callable[[], None]
    ) -> None:
        self._children = children
        self._missing = missing
        self._say = say
        self._ready = ready
        self._complete = False
        self._tell_at = time.monotonic() + PATIENCE
        self.due: float | None = time.monotonic()
        """When to look again; None once the gateway is ready."""

    def look(self) -> None:
        """Asks what is missing, if it is time for that."""
        now = time.monotonic()
        if self.due is None or now < self.due:
            return
        if self._complete:
            for child in self._children:
                child.settled = True
            self.due = None
            self._ready()
            return
        lacking = self._missing()
        self._complete = not lacking  # told a moment later: so late do Envoy's threads learn of a worker that Envoy tells of
        if lacking and now >= self._tell_at:
            self._say(f"Still waiting for {', '.join(lacking)}.")
            self._tell_at += PATIENCE
        self.due = time.monotonic() + POLL


def _has_terminal() -> bool:
    """Whether there is a terminal that may hang up, which a daemon has not."""
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return True
    return False


@contextlib.contextmanager
def _signals() -> Iterator[Wait]:
    """Catches the signals that end the gateway, those too that were held back; SIGHUP not if it is ignored, as under nohup.

    The end of a child ends a wait as well.
    """
    numbers = [number for number in ENDING if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.settimeout(0)
        writer.settimeout(0)

        def wait(seconds: float | None) -> list[int]:
            heard, _, _ = select.select([reader], [], [], seconds)
            return [number for number in reader.recv(4096) if number in numbers] if heard else []

        handlers = {number: signal.signal(number, lambda *_: None) for number in (*numbers, signal.SIGCHLD)}
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        try:
            yield wait
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _output(plan: Plan) -> Iterator[int]:
    """Where what the children print goes, as their logs do: the log file, or a standard stream."""
    if plan.log_file is None:
        yield STDOUT if plan.stdout_is_log else STDERR
    else:
        with open_private(plan.log_file) as file:
            yield file.fileno()


@contextlib.contextmanager
def _probes(
    plan: Plan, missing: Parts, hanging: Parts, leaving: Callable[[], bool], is_newest: Callable[[], bool]
) -> Iterator[None]:
    """Answers Prometheus and probes, if there is a port for them. In threads, which take no signal: those are held back here."""
    if plan.metrics is None:
        yield
        return
    path = plan.envoys_folder / METRICS_SOCKET
    path.unlink(missing_ok=True)  # one that was killed leaves it behind
    with contextlib.closing(Counts(path, is_newest=is_newest)) as counts:
        responder = Responder(plan.metrics, counts.exposition, missing, hanging=hanging, leaving=leaving)
        with contextlib.closing(responder):
            yield


def main(descriptor: int) -> int:
    """Reads a plan from the file that `descriptor` stands for, and sees it through. Returns the exit code."""
    with os.fdopen(descriptor, encoding="utf-8") as file:
        plan = Plan.loads(file.read())

    def say(line: str) -> None:
        if plan.stdout_is_log:
            write(STDOUT, log_line(line, "info"))
        else:
            write(STDERR, line + "\n")

    def ready() -> None:
        if plan.stdout_is_log and not os.isatty(STDOUT):
            say("Antiphon is up.")
        else:
            write(STDOUT, plan.banner)

    try:
        return supervise(plan, os.environ, say=say, ready=ready)
    except OSError as error:
        say(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
