"""What the programs have in common that a supervisor starts: they do without the libraries of the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from antiphon.config import ConfigError
from antiphon.up.child import EXIT_UNUSABLE_CONFIG, STDERR, write


def without_colours() -> None:
    """Keep structlog from importing rich, for colours that nobody sees: 4 MB, and 50 ms of a start.

    Call it before structlog is imported. None in `sys.modules` means that a module is not there.
    """
    sys.modules["rich"] = None  # type: ignore[assignment]


def report(error: ConfigError | OSError, config: Path | None) -> int:
    """Print an error that the operator can fix, and return the exit code. `config` is the file that was read, if any."""
    if not isinstance(error, ConfigError):
        write(STDERR, f"error: {error}\n")
        return 1
    for line in error.lines(config):
        write(STDERR, f"configuration: {line}\n")
    return EXIT_UNUSABLE_CONFIG
