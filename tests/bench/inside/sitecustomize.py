"""Writes the number of asyncio's tasks of this process into a file, every few seconds: what `soak` cannot see from outside.

Python imports this module by its name at each start, as `soak` puts its folder on PYTHONPATH.
"""

import asyncio
import os
import sys
import threading
import time
from pathlib import Path


def _main_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that the main thread runs: it, or its main task, is a variable of what runs it."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        for value in frame.f_locals.values():
            if issubclass(type(value), asyncio.AbstractEventLoop):
                return value  # type: ignore[no-any-return]
            if issubclass(type(value), asyncio.Task):
                return value.get_loop()  # type: ignore[no-any-return]
        frame = frame.f_back
    return None


def _watch(folder: Path, seconds: float) -> None:
    loop = None
    while True:
        time.sleep(seconds)
        loop = loop or _main_loop()
        if loop is not None:
            made = folder / f"tasks-{os.getpid()}"
            made.with_suffix(".new").write_text(str(len(asyncio.all_tasks(loop))))
            made.with_suffix(".new").replace(made)


if "SOAK_FOLDER" in os.environ:
    threading.Thread(target=_watch, args=(Path(os.environ["SOAK_FOLDER"]), 2.0), daemon=True).start()
