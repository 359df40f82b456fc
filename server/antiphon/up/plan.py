"""What a supervisor runs, as values that one process can pass to another.

`antiphon.up.launch` makes a plan, `antiphon.up.supervisor` carries it out. Uses the standard library only, as the supervisor does,
and no `dataclasses`, which would take 1 MB there. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Program(NamedTuple):
    """What a child runs: `name` for messages, `command` with an absolute path first, `folder` as its working directory."""

    name: str
    command: Sequence[str]
    folder: Path
    grace: float
    """Seconds that it may take to end after the stop signal."""
    variables: Sequence[str] | None = None
    """Names of the environment variables that it gets; None: all."""
    stop_signal: str = "SIGTERM"
    """The signal that stops it. If it is not SIGTERM, the program never sees SIGTERM, on Linux."""
    sends_heartbeat: bool = False
    """True if it accepts `--heartbeat DESCRIPTOR`, and writes its heartbeat to that pipe."""
    socket: str = ""
    """A worker's unix socket, by its name in Envoy's folder."""


class Plan(NamedTuple):
    """Everything that a supervisor needs; can be written as one JSON text."""

    workers: Sequence[Program]
    envoy: Program | None
    """None: somebody else runs Envoy, as a sidecar."""
    folder: Path
    """The folder of this run alone, such as for the configuration in force; removed at the end."""
    drain: float
    """Seconds that running calls may take after a stop signal, including the delay before the drain."""
    log_file: Path | None
    """Where the children's output goes; None: standard error, or standard output."""
    banner: str
    """The text printed on standard output once the gateway is ready. What the preparation writes takes its place."""
    check: Program | None = None
    """The program that checks the configuration before a reload. None: no reload."""
    retire_grace: float = 0.0
    """Seconds that a worker may take to end after a reload."""
    lock: int | None = None
    """The descriptor that holds the folder's lock: see `antiphon.up.run_folder`."""
    stdout_is_log: bool = False
    """True if standard output takes only JSON lines, unless it is a terminal; lines for the operator then are JSON too."""
    metrics: str | None = None
    """The address for metrics and probes; None: there is none."""
    edge: Path | None = None
    """The folder that Envoy runs in, with its files and the workers' sockets; None: `folder`."""
    preparation: Program | None = None
    """The program that has to succeed before the workers serve (`antiphon.up.preparation`). None: nothing has to."""
    restart_command: Sequence[str] = ()
    """The command line of another start, in case the configuration changes before this one is ready."""
    set_variable: str = ""
    """The environment variable that this start has set itself, and the next start must not see; empty: none."""

    @property
    def envoys_folder(self) -> Path:
        """The folder that Envoy runs in."""
        return self.edge or self.folder

    def dumps(self) -> str:
        """Return the plan as JSON."""
        programs = {
            "workers": [worker._asdict() for worker in self.workers],
            "envoy": self.envoy and self.envoy._asdict(),
            "check": self.check and self.check._asdict(),
            "preparation": self.preparation and self.preparation._asdict(),
        }
        return json.dumps(self._asdict() | programs, default=str)

    @classmethod
    def loads(cls, text: str) -> Plan:
        """Return the plan that `dumps` wrote."""
        found = json.loads(text)
        return cls(
            workers=[_program(worker) for worker in found["workers"]],
            envoy=_program(found["envoy"]) if found["envoy"] else None,
            folder=Path(found["folder"]),
            drain=found["drain"],
            log_file=Path(found["log_file"]) if found["log_file"] else None,
            banner=found["banner"],
            check=_program(found["check"]) if found["check"] else None,
            retire_grace=found["retire_grace"],
            lock=found["lock"],
            stdout_is_log=found["stdout_is_log"],
            metrics=found["metrics"],
            edge=Path(found["edge"]) if found["edge"] else None,
            preparation=_program(found["preparation"]) if found["preparation"] else None,
            restart_command=tuple(found["restart_command"]),
            set_variable=found["set_variable"],
        )


def _program(found: dict[str, Any]) -> Program:
    return Program(**{**found, "folder": Path(found["folder"])})
