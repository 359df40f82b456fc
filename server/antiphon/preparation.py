"""The program `python -m antiphon.preparation`, which the supervisor of `antiphon up` runs beside the start of its workers.

It checks the configuration and migrates the database: see `antiphon.up.preparation` for what happens then. It reads the copy of the
configuration that the workers read. Like them it does without the libraries of the command line, which take a fifth of a second.
"""

from __future__ import annotations

import getopt
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from antiphon.up.child import STDERR, write
from antiphon.up.preparation import EXIT_CHANGED
from antiphon.up.program import report, start_lean
from antiphon.up.reload import CONFIG

PAUSE: Final = 2.0
"""Seconds between two attempts to reach the database."""


def main(arguments: Sequence[str]) -> int:
    """Prepare a start with the options of `antiphon.up.launch.plan`, and `--banner`. Return the exit code.

    The banner goes to the descriptor `--banner`: it may hold a key, which is for the operator and no log.
    """
    start_lean()
    from antiphon.auth.api_keys.static import KEY_VARIABLE
    from antiphon.config import ConfigError
    from antiphon.config.file import load
    from antiphon.start import model_names, prepare
    from antiphon.up.banner import banner

    options = dict(getopt.getopt(arguments, "", ["config=", "folder=", "made-key", "styled", "banner="])[0])
    path = Path(options["--config"]) if "--config" in options else None
    copy = None if path is None else Path(options["--folder"]) / CONFIG
    try:
        config = load(copy)
        router = prepare(config, os.environ, partial(_wait_for_database, path, copy))
    except (ConfigError, OSError) as error:
        return report(error, path)
    key = os.environ[KEY_VARIABLE] if "--made-key" in options else None
    text = banner(config, key, router.default, model_names(router), styled="--styled" in options)
    with os.fdopen(int(options["--banner"]), "w", encoding="utf-8") as writer:
        writer.write(text)
    return 0


def _wait_for_database(path: Path | None, copy: Path | None) -> None:
    """Wait a moment. If the configuration file differs from its copy then, end with `EXIT_CHANGED`."""
    write(STDERR, "Not ready: waiting for the database, which cannot be reached; the log line above has the reason.\n")
    time.sleep(PAUSE)
    if path is not None and copy is not None and path.exists() and path.read_bytes() != copy.read_bytes():
        sys.exit(EXIT_CHANGED)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # the workers wait for the end, and tearing Python down would take another 0.15 s
