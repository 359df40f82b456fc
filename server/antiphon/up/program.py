"""What the programs have in common that a supervisor starts: they do without the libraries of the command line."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import ModuleType

from antiphon.config import ConfigError
from antiphon.up.child import EXIT_UNUSABLE_CONFIG, STDERR, write


def start_lean() -> None:
    """Make the start of this program cheaper. Call it before structlog is imported; who serves for long enables collections again.

    Without rich and pygments, for colours that nobody sees: 4 MB, and 80 ms. None in `sys.modules` means that a module is missing.
    Without psutil, if it is there, which OpenTelemetry imports for one attribute that has to be asked for (`process.owner`): 1 MB.
    Without what fetches newer prices for genai-prices, which imports it with httpx2 and never uses it here: 1.4 MB, and 30 ms.
    Without collections, which look again and again at all that is imported, and find no garbage: 60 to 100 ms.
    """
    for module in ("rich", "pygments", "psutil"):
        sys.modules[module] = None  # type: ignore[assignment]
    updater = ModuleType("genai_prices.update_prices")
    updater.__getattr__ = lambda _: None  # type: ignore[method-assign]
    sys.modules[updater.__name__] = updater
    gc.disable()


def report(error: ConfigError | OSError, config: Path | None) -> int:
    """Print an error that the operator can fix, and return the exit code. `config` is the file that was read, if any."""
    if not isinstance(error, ConfigError):
        write(STDERR, f"error: {error}\n")
        return 1
    for line in error.lines(config):
        write(STDERR, f"configuration: {line}\n")
    return EXIT_UNUSABLE_CONFIG
