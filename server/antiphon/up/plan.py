"""What a supervisor is to run, as values that one process can hand to another.

`antiphon.up.launch` makes a plan, `antiphon.up.supervisor` sees it through. Of the standard library alone, as that one is. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Program:
    """What a child runs. `name` is how it is spoken of; `command` begins with an absolute path; `folder` is where it runs."""

    name: str
    command: Sequence[str]
    folder: Path
    grace: float
    """Seconds that it may take to end after the signal."""
    variables: Sequence[str] | None = None
    """What it gets of the environment, by name; None is all of it."""
    ends_by: str = "SIGTERM"
    """The signal that tells it to end. If that is another one, it never sees SIGTERM, on Linux."""
    beats: bool = False
    """Whether it takes `--heartbeat`, the descriptor of a pipe, and gives signs of life there."""
    socket: str = ""
    """A worker's unix socket, by its name in Envoy's folder."""


@dataclass(frozen=True)
class Plan:
    """All that a supervisor is to know, as one JSON text may hold it."""

    workers: Sequence[Program]
    envoy: Program | None
    """None: somebody else runs it, as a sidecar."""
    folder: Path
    """What is of this run alone, such as the configuration in force: it goes at the end."""
    drain: float
    """Seconds that calls in flight may take after a signal, the delay before it included."""
    log_file: Path | None
    """Where what the children print goes; None is standard error, or standard output."""
    banner: str
    """What is said on standard output once the gateway is ready."""
    check: Program | None = None
    """What checks the configuration before a reload. None: there is no reload."""
    retiring: float = 0.0
    """Seconds that a worker may take to end after a reload."""
    lock: int | None = None
    """The descriptor that holds the folder's lock: see `antiphon.up.run_folder`."""
    stdout_is_log: bool = False
    """Whether standard output takes lines of JSON and nothing else, unless it is a terminal: what is told to the operator too."""
    metrics: str | None = None
    """The address at which metrics and probes are answered; None is none."""
    edge: Path | None = None
    """Where Envoy runs, with its files and the workers' sockets; None is `folder`."""

    @property
    def envoys_folder(self) -> Path:
        """Where Envoy runs."""
        return self.edge or self.folder

    def dumps(self) -> str:
        """The plan in JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def loads(cls, text: str) -> Plan:
        """The plan that `dumps` gave."""
        found = json.loads(text)
        return cls(
            workers=[_program(worker) for worker in found["workers"]],
            envoy=_program(found["envoy"]) if found["envoy"] else None,
            folder=Path(found["folder"]),
            drain=found["drain"],
            log_file=Path(found["log_file"]) if found["log_file"] else None,
            banner=found["banner"],
            check=_program(found["check"]) if found["check"] else None,
            retiring=found["retiring"],
            lock=found["lock"],
            stdout_is_log=found["stdout_is_log"],
            metrics=found["metrics"],
            edge=Path(found["edge"]) if found["edge"] else None,
        )


def _program(found: dict[str, Any]) -> Program:
    return Program(**{**found, "folder": Path(found["folder"])})
