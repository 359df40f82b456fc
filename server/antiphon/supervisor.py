"""Runs the gateway on one machine: the server's workers and Envoy, each a process of its own, started again when it dies.

The rules:

- A child that dies is started again, at once if it had lived a while, else after a delay that doubles. Until the gateway has been
  ready once, a child that keeps dying, or says that the configuration is not usable, ends the whole: there is somebody there to
  read why. After that a child is never given up, as the others may still serve; and one that a signal ended is started again at
  once unless it had only just started: whoever killed it, or whatever it crashed on, callers wait for it.
- Envoy gets what it needs of the environment, which no secret is in; the workers get all.
- SIGTERM, SIGINT: the workers get SIGTERM and finish their calls, through an Envoy that is still there; then Envoy. A second signal
  kills what is left.
- Children have sessions of their own, so that Ctrl-C in a terminal, or a signal to the process group, reaches this process alone;
  and on Linux they die with it, however it dies.
- SIGTERM may come to every process at once, as systemd sends it. The order stays the same: the workers drain already, and Envoy,
  on Linux, does not hear of it, as it is ended by SIGINT when its turn has come.

Signals only processes that it started itself. Knows nothing of what the children do.

`antiphon.launch` makes the plan and then becomes this program, which stays for as long as the gateway runs and has only to watch
over others: it is of the standard library alone, and so takes 14 MB where the configuration's libraries would make it 42.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from antiphon.plan import Plan, Program
from antiphon.readiness import missing

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

TOGETHER = 0.2
"""Seconds in which signals are taken for one: whoever told a child to end may be about to tell this process as well, and `timeout`
tells it twice."""

MARGIN = 5.0
"""Seconds that a child has to end beyond those that it was promised."""

POLL = 0.05
"""Seconds between two looks at whether the gateway is ready."""

PATIENCE = 10.0
"""Seconds after which, and then again and again, it is told what the start still waits for."""

STDOUT, STDERR = 1, 2

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that end the gateway."""

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


class GaveUp(Exception):
    """A child cannot be started; the message says which, and how it ended."""


class Child:
    """One child: started, and started again, until it is stopped."""

    def __init__(self, program: Program, environment: Mapping[str, str], output: int, say: Say) -> None:
        """`output` is the file descriptor that takes the child's standard output and error."""
        self.program = program
        self.settled = False
        """Set once the gateway has been ready: from then on the child is never given up."""
        self._environment = dict(environment)
        self._output = output
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._signal = signal.Signals[program.ends_by]
        self._task = asyncio.create_task(self._keep(), name=program.name)

    @property
    def task(self) -> asyncio.Task[None]:
        """Ends when the child was stopped, or fails with `GaveUp`."""
        return self._task

    async def stop(self) -> None:
        """Ends the child, by force once its grace is over, and returns when it has ended."""
        self._end(self._signal)
        done, _ = await asyncio.wait([self._task], timeout=self.program.grace)
        if not done:
            self._say(f"{self.program.name} did not end within {self.program.grace:g} s of {self.program.ends_by}: killed")
            self.kill()
            await asyncio.wait([self._task])

    def kill(self) -> None:
        """Ends the child by force, without waiting."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._signal is not signal.SIGKILL:
            self._signal = number  # for a process that is being started at this moment
        self._stopping.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        quick = 0
        while not self._stopping.is_set():
            started = loop.time()
            try:
                code = await self._run()
                how = _how(code)
            except OSError as error:  # no process to be had, for now
                code, how = 1, f"not even started: {error.strerror}"
            lived = loop.time() - started
            if code in _TOLD:
                await self._stopped_within(TOGETHER)
            if self._stopping.is_set():
                return
            quick = quick + 1 if lived < (QUICK_KILL if self.settled and code < 0 else QUICK) else 0
            if not self.settled and code == UNUSABLE:
                raise self._give_up(f"{how}. It says why above.")
            if not self.settled and quick >= ATTEMPTS:
                raise self._give_up(f"it ended {quick} times within {QUICK:g} s, the last time {how}.")
            delay = min(FIRST_DELAY * 2 ** (quick - 1), LONGEST_DELAY) if quick else 0.0
            when = f"in {delay:g} s" if delay else "now"
            self._say(f"{self.program.name} ended ({how}) after {lived:.1f} s; starting it again {when}")
            self._log("child ended", how=how, lived_s=round(lived, 1), restart_in_s=delay)
            await self._stopped_within(delay)

    async def _stopped_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _give_up(self, why: str) -> GaveUp:
        told = GaveUp(f"{self.program.name} cannot start: {why}")
        self._log("gave up", error=str(told))
        return told

    def _log(self, event: str, **fields: Any) -> None:
        """Writes a line that looks like those of the children, to where theirs go."""
        line = {"child": self.program.name, **fields, "event": event, "level": "error"}
        line |= {"timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"), "process": "supervisor"}
        write(self._output, json.dumps(line) + "\n")

    async def _run(self) -> int:
        """Runs the program once, and returns its exit code, or the negative number of the signal that ended it."""
        process = await asyncio.create_subprocess_exec(
            *_leashed(self.program),
            cwd=self.program.folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )
        self._process = process
        if self._stopping.is_set():
            self._end(self._signal)
        try:
            return await process.wait()
        finally:
            self._process = None


async def supervise(plan: Plan, environment: Mapping[str, str], *, say: Say, ready: Callable[[], None]) -> int:
    """Runs the gateway until it is told to stop, and returns the exit code of the whole.

    `environment` is the workers', and some of it Envoy's. `say` takes lines for the operator, `ready` is called once when every
    worker and Envoy answer. The code is 0 after one signal, 128 and the signal's number after a second one, 1 when a child cannot
    be started. At the end the plan's folder is gone. Raises `OSError` if the log file cannot be written.
    """
    try:
        with _output(plan.log_file) as output:

            def start(program: Program) -> Child:
                names = environment if program.variables is None else program.variables
                mine = {name: environment[name] for name in names if name in environment}
                return Child(program, mine, output, say)

            return await run(
                plan.workers,
                plan.envoy,
                start,
                lambda: missing(plan.folder, len(plan.workers)),
                drain=plan.drain,
                say=say,
                ready=ready,
            )
    finally:
        shutil.rmtree(plan.folder, ignore_errors=True)


async def run(
    workers: Sequence[Program],
    envoy: Program,
    start: Callable[[Program], Child],
    missing: Callable[[], Awaitable[Sequence[str]]],
    *,
    drain: float,
    say: Say,
    ready: Callable[[], None],
) -> int:
    """Runs `workers` and `envoy` until a signal, or until one is given up; `missing` tells what is not ready. As `supervise`."""
    loop = asyncio.get_running_loop()
    signals: list[int] = []
    first = 0.0
    told = asyncio.Event()
    children: list[Child] = []

    def on_signal(number: int) -> None:
        nonlocal first
        first = first or loop.time()
        if signals and loop.time() < first + TOGETHER:
            return
        signals.append(number)
        told.set()
        if len(signals) == 1:
            say(f"Stopping. Calls in flight may take {drain:g} s more; a second signal ends them at once.")
        else:
            for child in children:
                child.kill()

    with _signals(on_signal):
        children.extend(start(program) for program in (*workers, envoy))
        stopped = asyncio.create_task(told.wait())
        starting = asyncio.create_task(_until_ready(children, missing, say, ready))
        try:
            await _first([stopped, *(child.task for child in children)], starting)
            for error in _failures(children):
                say(str(error))
            await asyncio.gather(*(child.stop() for child in children[:-1]))
            await children[-1].stop()
        finally:
            stopped.cancel()
            starting.cancel()
            for child in children:
                child.kill()
            await asyncio.wait([stopped, starting, *(child.task for child in children)])
    if not starting.cancelled():
        starting.result()
    for error in _failures(children):
        if not isinstance(error, GaveUp):
            raise error
        return 1
    return 128 + signals[-1] if len(signals) > 1 else 0


async def _first(ends: Sequence[asyncio.Task[Any]], starting: asyncio.Task[None]) -> None:
    """Waits until one of `ends` has ended, or `starting` has failed."""
    waiting: set[asyncio.Task[Any]] = {*ends, starting}
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if done != {starting} or starting.exception() is not None:
            return


def _failures(children: Sequence[Child]) -> list[BaseException]:
    ended = [child.task for child in children if child.task.done() and not child.task.cancelled()]
    return [error for task in ended if (error := task.exception()) is not None]


async def _until_ready(
    children: Sequence[Child], missing: Callable[[], Awaitable[Sequence[str]]], say: Say, ready: Callable[[], None]
) -> None:
    loop = asyncio.get_running_loop()
    tell = loop.time() + PATIENCE
    while lacking := await missing():
        if loop.time() >= tell:
            say(f"Still waiting for {', '.join(lacking)}.")
            tell += PATIENCE
        await asyncio.sleep(POLL)
    await asyncio.sleep(POLL)  # Envoy's threads learn of a worker a moment later than Envoy tells of it
    for child in children:
        child.settled = True
    ready()


@contextlib.contextmanager
def _signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Hands the signals to `handle`, those too that were held back; SIGHUP not if it is ignored, as under nohup."""
    loop = asyncio.get_running_loop()
    numbers = [number for number in ENDING if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, handle, int(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _output(log_file: Path | None) -> Iterator[int]:
    """Where what the children print goes, as their logs do: the log file, or standard error."""
    if log_file is None:
        yield STDERR
    else:
        with log_file.open("ab") as file:
            yield file.fileno()


def _leashed(program: Program) -> list[str]:
    """The command line that runs the program such that it dies with this process, where the system can do that."""
    if not sys.platform.startswith("linux"):
        return list(program.command)
    return [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), program.ends_by, *program.command]


def write(descriptor: int, text: str) -> None:
    """Writes to a file that may have lost its reader, or its room: that is no reason to end. Nothing is left in a buffer."""
    data = text.encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def main(descriptor: int) -> int:
    """Reads a plan from the file that `descriptor` stands for, and sees it through. Returns the exit code."""
    with os.fdopen(descriptor, encoding="utf-8") as file:
        plan = Plan.loads(file.read())

    def say(line: str) -> None:
        write(STDERR, line + "\n")

    try:
        return asyncio.run(supervise(plan, os.environ, say=say, ready=lambda: write(STDOUT, plan.banner)))
    except OSError as error:
        say(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
