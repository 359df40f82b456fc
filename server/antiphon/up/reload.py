"""Reloads the configuration while the gateway runs: replaces the workers one after the other.

A reload begins with a signal, or when a file that belongs to the configuration has changed. A separate program checks the
configuration first (`antiphon.cli.reload`), so an unusable one changes nothing. It leaves a copy in the gateway's folder, which the
workers read: so a worker that dies is restarted with what was checked, even if the file has changed since. Then, for each worker:
have the old one write down what it knows of its deployments; start a new one on its own socket; when Envoy finds it healthy, take
the old one out of Envoy's endpoints; tell the old one to finish its calls, for which it may take as long as a call may take.

Nothing here blocks: `look` takes the next step. Uses the standard library only, as the supervisor does.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from antiphon.edge.endpoints import endpoints_text
from antiphon.up.child import Child, Say
from antiphon.up.plan import Program
from antiphon.up.readiness import successor_socket, worker_health

CONFIG = "antiphon.yaml"
"""The configuration in force, in the gateway's folder."""

NEXT = "next.yaml"
"""The configuration that was checked, and is about to come into force."""

PREVIOUS = "before.yaml"
"""The configuration that was in force before."""

WATCHED = "watched.json"
"""The list of the files that belong to the configuration."""

ENDPOINTS = "endpoints.yaml"
"""The file from which Envoy reads the workers' sockets."""

INTERVAL = 1.0
"""Seconds between two checks of the files."""

POLL = 0.05
"""Seconds between two steps of a running reload."""

READY_TIMEOUT = 60.0
"""Seconds that a new worker may take to become healthy."""

CHECK_TIMEOUT = 60.0
"""Seconds that the check of a configuration may take. It reads files, which may be on a volume that hangs."""

RETRY_AFTER = 60.0
"""Seconds after which a reload is retried if its new worker did not become ready: its database may have been unreachable."""

REMOVAL_TIMEOUT = 5.0
"""Seconds that Envoy may take to remove a worker from its endpoints."""

APPLIED_AFTER = 0.5
"""Seconds after which Envoy's threads have applied that, too, on a busy machine: a call that reaches a stopping worker is lost."""


class Reload:
    """Watches the configuration, and replaces the workers when it changes."""

    def __init__(
        self,
        workers: list[Child],
        make: Callable[[Program], Child],
        check: Program,
        folder: Path,
        output: int,
        retire_grace: float,
        say: Say,
        edge: Path | None = None,
    ) -> None:
        """`workers` is the list of running workers, which this object changes. `make` makes a child of a program.

        `check` is the program that checks the configuration; its output goes to the descriptor `output`. An old worker may take
        `retire_grace` seconds to end. `folder` is the gateway's, `edge` is Envoy's; None: they are the same. `say` prints a line
        for the operator.
        """
        self.other_workers: list[Child] = []
        """Workers outside `workers`: a new one that is not ready yet, and old ones that finish their calls."""
        self.due: float | None = time.monotonic() + INTERVAL
        """When to call `look` again, by `time.monotonic`; None: never."""
        self.refused = False
        """True if the newest configuration was refused, so that an older one is in force."""
        self._workers = workers
        self._first_sockets = [worker.program.socket for worker in workers]
        self._sockets = self._first_sockets.copy()
        self._make = make
        self._check = check
        self._folder = folder
        self._edge = edge or folder
        self._output = output
        self._retire_grace = retire_grace
        self._say = say
        self._generation = 0
        self._reason: str | None = None
        self._retry_at: float | None = None
        self._steps: Generator[None] | None = None
        self._checking: subprocess.Popen[bytes] | None = None
        self._applied_files = self._last_files = self._files()

    def request(self, why: str) -> None:
        """Request a reload, which begins as soon as no other one is running. `why` is the reason shown to the operator."""
        self._reason = why
        self.due = time.monotonic()

    def look(self) -> None:
        """Take the next step, if it is due."""
        now = time.monotonic()
        self.other_workers = [child for child in self.other_workers if not child.is_finished]
        if self.due is None or now < self.due:
            return
        if self._steps is not None:
            try:
                if next(self._steps, self) is self:
                    self._steps = None
            except OSError as error:
                self._steps = None
                self.refused = True
                self._say(f"Not reloaded: {error}. The configuration stays as it was.")
        else:
            self._watch()
            if self._reason is not None:
                self._say(f"Reloading the configuration: {self._reason}.")
                self._reason = None
                self._steps = self._reload()
        self.due = now + (POLL if self._steps is not None else INTERVAL)

    def stop(self) -> None:
        """Begin no more reloads, and kill a running check."""
        self.due = None
        if self._checking is not None:
            self._checking.kill()
            self._checking.wait()

    def _watch(self) -> None:
        """Request a reload if files have changed, and not again since the last look: a file may be written bit by bit."""
        files = self._files()
        if files == self._last_files != self._applied_files:
            self._applied_files = files
            self._reason = self._reason or "a file has changed"
        elif self._retry_at is not None and time.monotonic() > self._retry_at:
            self._reason = self._reason or "another try"
        self._last_files = files

    def _files(self) -> dict[str, tuple[int, int, int] | None]:
        """Return the state of each watched file by its path; empty if the list of files cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            return {path: _file_state(path) for path in json.loads((self._folder / WATCHED).read_text(encoding="utf-8"))}
        return {}

    def _reload(self) -> Generator[None]:
        """Check the configuration, put it into force, and replace the workers one after the other. Yields between steps."""
        self._retry_at = None
        before = self._applied_files = self._last_files = self._files()
        with subprocess.Popen(  # noqa: S603  # our own program
            list(self._check.command), cwd=self._check.folder, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output
        ) as self._checking:
            end = time.monotonic() + CHECK_TIMEOUT
            while self._checking.poll() is None:
                if time.monotonic() > end:
                    self._say(
                        f"The check of the configuration took more than {CHECK_TIMEOUT:g} s: does a file that it names answer?"
                    )
                    self._checking.kill()
                    self._checking.wait()
                yield
        code, self._checking = self._checking.returncode, None
        self.refused = bool(code)
        if code:
            self._say("Not reloaded, for the reason above: the configuration stays as it was.")
            return
        # The new configuration may name other files. A change since the check began was not checked: it will cause another reload.
        self._applied_files = self._last_files = {path: before.get(path, state) for path, state in self._files().items()}
        self._activate_config()
        self._generation += 1
        for number in range(len(self._workers)):
            done = yield from self._replace_worker(number)
            if not done:
                return
        self._say("Reloaded.")

    def _activate_config(self) -> None:
        """Make the checked configuration the one in force, and keep the previous one."""
        with contextlib.suppress(FileNotFoundError):  # there is no file if all settings are in the environment
            (self._folder / PREVIOUS).unlink(missing_ok=True)
            os.link(self._folder / CONFIG, self._folder / PREVIOUS)
        with contextlib.suppress(FileNotFoundError):
            (self._folder / NEXT).replace(self._folder / CONFIG)

    def _replace_worker(self, number: int) -> Generator[None, None, bool]:
        """Replace one worker by a new one, step by step. Return True if the new one took over."""
        old, old_name = self._workers[number], self._sockets[number]
        name = successor_socket(self._first_sockets[number], self._generation)
        paths = {str(self._edge / old_name): str(self._edge / name)}
        new = self._make(old.program._replace(command=[paths.get(part, part) for part in old.program.command]))
        if self._is_healthy(old_name):  # else it may not handle signals yet
            old.hand_over()
        self.other_workers.append(new)
        write_endpoints(self._edge, [*self._sockets, name])
        end = time.monotonic() + READY_TIMEOUT
        while not self._is_healthy(name):
            if new.failure or time.monotonic() > end:
                self._give_up(number, new)
                return False
            yield
        new.settled = True
        self._workers[number], self._sockets[number] = new, name
        self.other_workers[self.other_workers.index(new)] = old
        write_endpoints(self._edge, self._sockets)
        end = time.monotonic() + REMOVAL_TIMEOUT
        while self._is_healthy(old_name) is not None and time.monotonic() < end:
            yield
        end = time.monotonic() + APPLIED_AFTER
        while time.monotonic() < end:
            yield
        old.retire(self._retire_grace)
        return True

    def _give_up(self, number: int, new: Child) -> None:
        """Stop the new worker `number`, which did not become ready, and schedule another try. Workers already replaced stay."""
        self.refused = True
        self._retry_at = time.monotonic() + RETRY_AFTER
        new.stop()
        write_endpoints(self._edge, self._sockets)
        if number == 0:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / PREVIOUS).replace(self._folder / CONFIG)
        why = new.failure or f"{new.program.name} was not ready within {READY_TIMEOUT:g} s."
        which = "the configuration stays as it was" if number == 0 else f"workers from {number} on have the old configuration"
        self._say(f"Not reloaded: {which}. {why}")

    def _is_healthy(self, name: str) -> bool | None:
        """Return whether Envoy finds the worker at this socket healthy; None if Envoy does not know the socket."""
        with contextlib.suppress(OSError, ValueError):
            return worker_health(self._edge).get(name)
        return False


def write_endpoints(edge: Path, names: Sequence[str]) -> None:
    """Make the Envoy in the folder `edge` send calls to the sockets with these names only. Raises `OSError`."""
    new = edge / "new-endpoints.yaml"
    new.write_text(endpoints_text(names), encoding="utf-8")
    new.replace(edge / ENDPOINTS)


def _file_state(path: str) -> tuple[int, int, int] | None:
    """Return values that change when a file is written or replaced: mtime, inode, size. None: there is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116  # pathlib would gain nothing here
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
