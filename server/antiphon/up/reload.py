"""A change of the configuration while the gateway runs: the workers are exchanged one after the other.

A reload begins with a signal, or when a file that the configuration is made of has changed. A program of its own checks the file
(`antiphon.cli.reload`), so that one that is not usable changes nothing, and leaves a copy in the gateway's folder, which the
workers read: whatever becomes of the file, a worker that dies comes back with what was checked. Then, for each worker, a new one
is started on a socket of its own; when Envoy finds it healthy, Envoy is told to send the old one no more calls; and the old one
is told to finish those that it has, for which it may take as long as a call may take.

Nothing here waits: `look` goes on with what there is to do. Of the standard library alone, as the supervisor is.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

from antiphon.edge.endpoints import endpoints_text
from antiphon.up.child import Child, Say
from antiphon.up.plan import Program
from antiphon.up.readiness import sockets, successor_socket

CONFIG = "antiphon.yaml"
"""The configuration that is in force, in the gateway's folder."""

NEXT = "next.yaml"
"""The one that was checked, and is to be."""

BEFORE = "before.yaml"
"""The one that was in force before it."""

WATCHED = "watched.json"
"""The paths of the files that the configuration is made of."""

ENDPOINTS = "endpoints.yaml"
"""Where Envoy is told of the workers' sockets."""

INTERVAL = 1.0
"""Seconds between two looks at the files."""

POLL = 0.05
"""Seconds between two looks at how a reload goes."""

PATIENCE = 60.0
"""Seconds that a new worker may take until it is healthy."""

CHECKING = 60.0
"""Seconds that the check of a configuration may take. It reads files, which may be on a volume that hangs."""

AGAIN = 60.0
"""Seconds after which a reload whose new worker did not become ready is tried again: its database may have been away."""

FORGETTING = 5.0
"""Seconds that Envoy may take to let go of a worker."""


class Reload:
    """Exchanges the workers."""

    def __init__(
        self,
        workers: list[Child],
        make: Callable[[Program], Child],
        check: Program,
        folder: Path,
        output: int,
        retiring: float,
        say: Say,
        edge: Path | None = None,
    ) -> None:
        """`workers` changes as they do. `check` runs first; `output` takes what it prints. `retiring`: seconds for an old one.

        `folder` is the gateway's, `edge` is Envoy's; None: they are one.
        """
        self.others: list[Child] = []
        """Workers that are not yet, or no more, among `workers`."""
        self.due: float | None = time.monotonic() + INTERVAL
        """When to look again."""
        self.refused = False
        """Whether the newest configuration was refused, and an older one is in force."""
        self._workers = workers
        self._first = [worker.program.socket for worker in workers]
        self._names = self._first.copy()
        self._make = make
        self._check = check
        self._folder = folder
        self._edge = edge or folder
        self._output = output
        self._retiring = retiring
        self._say = say
        self._generation = 0
        self._why: str | None = None
        self._again: float | None = None
        self._going_on: Generator[None] | None = None
        self._checking: subprocess.Popen[bytes] | None = None
        self._seen = self._changed = self._files()

    def ask(self, why: str) -> None:
        """Reload as soon as no other reload goes on."""
        self._why = why
        self.due = time.monotonic()

    def look(self) -> None:
        """Take the next step, if it is time for one."""
        now = time.monotonic()
        self.others = [child for child in self.others if not child.over]
        if self.due is None or now < self.due:
            return
        if self._going_on is not None:
            try:
                if next(self._going_on, self) is self:
                    self._going_on = None
            except OSError as error:
                self._going_on = None
                self.refused = True
                self._say(f"Not reloaded: {error}. The configuration stays as it was.")
        else:
            self._watch()
            if self._why is not None:
                self._say(f"Reloading the configuration: {self._why}.")
                self._why = None
                self._going_on = self._reload()
        self.due = now + (POLL if self._going_on is not None else INTERVAL)

    def stop(self) -> None:
        """Begin no reload any more, and break off the check of one."""
        self.due = None
        if self._checking is not None:
            self._checking.kill()
            self._checking.wait()

    def _watch(self) -> None:
        """Ask for a reload if files have changed, and have not changed again since: one may be written bit by bit."""
        files = self._files()
        if files == self._changed != self._seen:
            self._seen = files
            self._why = self._why or "a file has changed"
        elif self._again is not None and time.monotonic() > self._again:
            self._why = self._why or "another try"
        self._changed = files

    def _files(self) -> dict[str, tuple[int, int, int] | None]:
        with contextlib.suppress(OSError, ValueError):
            return {path: _state(path) for path in json.loads((self._folder / WATCHED).read_text(encoding="utf-8"))}
        return {}

    def _reload(self) -> Generator[None]:
        self._again = None
        before = self._seen = self._changed = self._files()
        with subprocess.Popen(  # noqa: S603  # our own program
            list(self._check.command), cwd=self._check.folder, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output
        ) as self._checking:
            end = time.monotonic() + CHECKING
            while self._checking.poll() is None:
                if time.monotonic() > end:
                    self._say(f"The check of the configuration took more than {CHECKING:g} s: does a file that it names answer?")
                    self._checking.kill()
                    self._checking.wait()
                yield
        code, self._checking = self._checking.returncode, None
        self.refused = bool(code)
        if code:
            self._say("Not reloaded, for the reason above: the configuration stays as it was.")
            return
        # Other files may be named now. What has changed since the check began is not what was checked: it is seen as a change.
        self._seen = self._changed = {path: before.get(path, state) for path, state in self._files().items()}
        self._take_up()
        self._generation += 1
        for number in range(len(self._workers)):
            done = yield from self._exchange(number)
            if not done:
                return
        self._say("Reloaded.")

    def _take_up(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # there is none where all is in the environment
            (self._folder / BEFORE).unlink(missing_ok=True)
            os.link(self._folder / CONFIG, self._folder / BEFORE)
        with contextlib.suppress(FileNotFoundError):
            (self._folder / NEXT).replace(self._folder / CONFIG)

    def _exchange(self, number: int) -> Generator[None, None, bool]:
        """Have a new worker in the place of an old one. Returns whether that was done."""
        old, old_name = self._workers[number], self._names[number]
        name = successor_socket(self._first[number], self._generation)
        paths = {str(self._edge / old_name): str(self._edge / name)}
        new = self._make(replace(old.program, command=[paths.get(part, part) for part in old.program.command]))
        self.others.append(new)
        tell_envoy(self._edge, [*self._names, name])
        end = time.monotonic() + PATIENCE
        while not self._has(name):
            if new.failure or time.monotonic() > end:
                self._give_up(number, new)
                return False
            yield
        new.settled = True
        self._workers[number], self._names[number] = new, name
        self.others[self.others.index(new)] = old
        tell_envoy(self._edge, self._names)
        end = time.monotonic() + FORGETTING
        while self._has(old_name) is not None and time.monotonic() < end:
            yield
        yield  # Envoy's threads learn of it a moment later
        old.retire(self._retiring)
        return True

    def _give_up(self, number: int, new: Child) -> None:
        self.refused = True
        self._again = time.monotonic() + AGAIN
        new.stop()
        tell_envoy(self._edge, self._names)
        if number == 0:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / BEFORE).replace(self._folder / CONFIG)
        why = new.failure or f"{new.program.name} was not ready within {PATIENCE:g} s."
        which = "the configuration stays as it was" if number == 0 else f"workers from {number} on have the old configuration"
        self._say(f"Not reloaded: {which}. {why}")

    def _has(self, name: str) -> bool | None:
        """Whether Envoy finds the worker at this socket healthy; None if it knows of none there."""
        with contextlib.suppress(OSError, ValueError):
            return sockets(self._edge).get(name)
        return False


def tell_envoy(edge: Path, names: Sequence[str]) -> None:
    """Have the Envoy in the folder `edge` send calls to the sockets of these names alone. Raises `OSError`."""
    new = edge / "new-endpoints.yaml"
    new.write_text(endpoints_text(names), encoding="utf-8")
    new.replace(edge / ENDPOINTS)


def _state(path: str) -> tuple[int, int, int] | None:
    """What changes when a file is written, or another one takes its place. None: there is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116  # pathlib is for those who go on with the path
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
