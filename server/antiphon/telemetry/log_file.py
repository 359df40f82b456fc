"""The file of the log: whether it can be written, and its opening."""

from __future__ import annotations

import io
import os
from pathlib import Path

from antiphon.config import ConfigError, LogConfig
from antiphon.telemetry.private_file import open_private


def check(config: LogConfig) -> None:
    """Raise `ConfigError` if the log file cannot be written. Does not create the file."""
    if config.file is None:
        return
    if config.file.is_dir():
        raise ConfigError(f"log.file: {config.file}: is a folder")
    folder = config.file.parent
    if not folder.is_dir():
        raise ConfigError(f"log.file: {config.file}: there is no folder {folder}")
    if not os.access(config.file if config.file.exists() else folder, os.W_OK):
        raise ConfigError(f"log.file: {config.file}: may not be written")


def open_(path: Path) -> io.FileIO:
    """Open the file for appending; create it if it is not there. Raises `ConfigError` if it cannot be written."""
    try:
        return open_private(path)
    except OSError as error:
        raise ConfigError(f"log.file: {path}: {error.strerror}") from error
