"""Runs pip and shows its progress: `install.py TITLE ARGUMENT...`, where the arguments are those of `pip install`.

On a terminal this is one line that changes, elsewhere a line every few seconds. It uses the standard library only, as nothing else
is installed yet. pip's warnings are shown only if it fails.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Final

EVERY: Final = 5.0
"""Seconds between two lines if the output is not a terminal."""

_PACKAGE: Final = re.compile(r"^[A-Za-z0-9][\w.-]*(?:\[[\w,-]+\])?==", re.MULTILINE)
_STEP: Final = re.compile(r"(Collecting|Ignoring|Building|Preparing|Installing collected packages)\W+([\w.-]+)?")


class Progress:
    """Shows the progress of one run of pip, which installs `total` packages."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._found = 0
        self._doing = "starting"
        self._before: int | None = None
        self._begun = time.monotonic()
        self._over = threading.Event()
        self._ticking = threading.Thread(target=self._tick, daemon=True)
        self._ticking.start()

    def line(self, said: str) -> None:
        """Read one line of pip's output."""
        step = _STEP.match(said.strip())
        match step and step.groups():
            case ("Collecting", name):
                self._found += 1
                self._doing = f"fetching {self._found} of {max(self._total, self._found)}, {name}"
            case ("Ignoring", _):  # it is for another system
                self._total -= 1
            case ("Building" | "Preparing", _):
                self._doing = "building"
            case ("Installing collected packages", _):  # which follow, with commas
                self._found = said.count(",") + 1
                self._before = _unpacked()
            case _:
                pass

    def end(self, word: str) -> None:
        """Show the result."""
        self._over.set()
        self._ticking.join()
        self._show(f"{word} ({self._seconds()})", last=True)

    def _tick(self) -> None:
        self._show(self._doing)
        while not self._over.wait(0.2 if sys.stdout.isatty() else EVERY):
            if self._before is not None:
                self._doing = f"unpacking {_unpacked() - self._before} of {self._found}"
            self._show(f"{self._doing} ({self._seconds()})")

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._begun:.0f} s"

    def _show(self, what: str, *, last: bool = False) -> None:
        text = f"{self._title}: {what}"
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write(f"\r{text[:width]:<{width}}" + ("\n" if last else ""))
        else:
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _unpacked() -> int:
    """Return the number of packages installed; pip prints nothing while it unpacks."""
    return len(list(Path(sysconfig.get_path("purelib")).glob("*.dist-info")))


def main(title: str, arguments: list[str]) -> int:
    """Run pip, and return its exit code."""
    locks = [after for before, after in pairwise(arguments) if before == "-r"]
    total = sum(len(_PACKAGE.findall(Path(lock).read_text(encoding="utf-8"))) for lock in locks)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off", *arguments]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as warned:
        progress = Progress(title, total)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=warned, text=True) as pip:
            assert pip.stdout is not None
            for said in pip.stdout:
                progress.line(said)
        progress.end("failed" if pip.returncode else "done")
        if pip.returncode:
            warned.seek(0)
            sys.stderr.write(warned.read())
    return pip.returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(130)
