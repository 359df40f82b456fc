"""What a start does beside its workers: a program checks the configuration, and migrates the database.

It runs while workers and Envoy start, as both take most of a second. The workers wait at a gate, which opens if the program
succeeds. If it does not, it has said why, and nothing was served. Uses the standard library only, as the supervisor does.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping
from typing import Final

from antiphon.up.child import Gate, wrapped_command
from antiphon.up.plan import Program

EXIT_CHANGED = 75
"""The exit code for a configuration that has changed before the database could be reached, so that the start has to begin anew."""

UNDER_WAY = "the check of the configuration and the database"
"""What a start waits for meanwhile, in words for the operator."""


class Preparation:
    """The running program, and the gate that it opens."""

    def __init__(self, program: Program, environment: Mapping[str, str]) -> None:
        """Start the program, with `--banner DESCRIPTOR` added. Raises `OSError`."""
        self.code: int | None = None
        """The exit code; None while it runs."""
        self.banner = ""
        """What the program wrote to the descriptor."""
        self.gate: Final = Gate()
        self._reader, writer = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own program
                [*wrapped_command(program), "--banner", str(writer)],
                pass_fds=(writer,),
                cwd=program.folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(writer)

    def look(self) -> None:
        """Notice that the program has ended, and open the gate if it has succeeded."""
        if self.code is None and (code := self._process.poll()) is not None:
            with os.fdopen(self._reader, encoding="utf-8") as reader:
                self.banner = reader.read()
            self.code = code if code >= 0 else 128 - code
            if code == 0:
                self.gate.open()

    def kill(self) -> None:
        """End the program if it runs."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self.look()
