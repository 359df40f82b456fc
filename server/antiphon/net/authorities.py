"""Certificate authorities: those of the system, and those from a file of the operator, which is read again when it changes.

Only the standard library reads them: `cryptography` would take 9 MB in every worker, and httpx2 3 MB.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from functools import cache
from pathlib import Path
from typing import Final

import structlog

from antiphon.config import ConfigError

_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)
"""The files in which systems keep their authorities. Not every Python was built to look there."""

_HASHED: Final = re.compile(r"[0-9a-f]{8}\.\d+")
"""The name of an authority's file in a folder that OpenSSL can search."""

_log: Final = structlog.get_logger(__name__)


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context that verifies hosts, one for all of them: loading it takes tens of milliseconds.

    It trusts what the system trusts, or the authorities in `SSL_CERT_FILE` or `SSL_CERT_DIR`. Raises `OSError` if these are wrong.
    """
    if file := os.environ.get("SSL_CERT_FILE"):
        return ssl.create_default_context(cafile=file)
    if folder := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=folder)
    if sys.platform != "linux":  # the system keeps its authorities in no file
        import httpx2

        return httpx2.create_ssl_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_default_verify_paths()
    if not _has_default_authorities() and (file := next(filter(os.path.isfile, _FILES), None)):
        context.load_verify_locations(file)
    return context


def _has_default_authorities() -> bool:
    """Return whether there are authorities where this Python looks for them."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None:
        return True
    return paths.capath is not None and any(_HASHED.fullmatch(path.name) for path in Path(paths.capath).iterdir())


class Authorities:
    """The authorities in one file, as a TLS context that verifies certificates."""

    def __init__(self, setting: str, path: Path) -> None:
        """Read the file. Raises `ConfigError`, which names `setting` and the file, if it contains no certificate."""
        self._setting = setting
        self._path = path
        self._stamp = self._file_stamp()
        try:
            self._context = _read(path)
        except OSError as error:
            raise ConfigError(f"{setting}: {path}: {_reason(error)}") from None

    def context(self) -> ssl.SSLContext:
        """Return the context for the file as it is now; while it cannot be read, the previous one. Never raises.

        A changed file gives a new object, so that connections made with the previous one are not reused.
        """
        stamp = self._file_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = _read(self._path)
            except OSError as error:
                _log.error("authorities_not_read", setting=self._setting, error=_reason(error), older_ones_used=True)
            else:
                _log.info("authorities_read", setting=self._setting)
        return self._context

    def _file_stamp(self) -> tuple[int, int, int] | None:
        """Return what identifies the state of the file; None if it does not exist."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ctime_ns, status.st_ino, status.st_size


def _read(path: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=path)  # not `cadata`: if empty, it means the authorities of the system


def _reason(error: OSError) -> str:
    return "holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror or type(error).__name__
