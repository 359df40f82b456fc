"""Certificate authorities of an operator's own, from a file that is read again when it changes.

Only the standard library reads them: cryptography would take 9 MB of every worker.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import structlog

from antiphon.config import ConfigError

_log: Final = structlog.get_logger(__name__)


class Authorities:
    """The authorities in one file, as what TLS checks certificates with."""

    def __init__(self, setting: str, path: Path) -> None:
        """Raises `ConfigError`, which names `setting` and the file, for one that holds no certificate."""
        self._setting = setting
        self._path = path
        self._stamp = self._stamped()
        try:
            self._context = _read(path)
        except OSError as error:
            raise ConfigError(f"{setting}: {path}: {_why(error)}") from None

    def context(self) -> ssl.SSLContext:
        """Return the context of the file as it is now; while it cannot be read, that of before. Never raises.

        It is another object only if the file has changed, so that connections by the one before are not used again.
        """
        stamp = self._stamped()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = _read(self._path)
            except OSError as error:
                _log.error("authorities_not_read", setting=self._setting, error=_why(error), older_ones_used=True)
            else:
                _log.info("authorities_read", setting=self._setting)
        return self._context

    def _stamped(self) -> tuple[int, int, int] | None:
        """What of the file changes with it; None where it is not there."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ctime_ns, status.st_ino, status.st_size


def _read(path: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=path)  # not `cadata`: an empty one stands for the authorities of the system


def _why(error: OSError) -> str:
    return "holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror or type(error).__name__
