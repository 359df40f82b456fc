"""A program in a terminal of its own, for tests of interactive commands."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.waiting import PATIENCE, until

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Escape sequences for colours and modes."""


class Terminal:
    """A program started in a terminal of 80 columns. As a context manager it is killed at the end."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], columns: int = 80) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        os.set_blocking(self._ours, False)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],  # so that Ctrl-C reaches the program
            env=dict(environment),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._raw = b""
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    @property
    def output(self) -> str:
        """Return all text printed so far, without colours."""
        return _ESCAPES.sub("", self._raw.decode(errors="replace"))

    def type(self, keys: str) -> None:
        """Type keys, as a user does."""
        os.write(self._ours, keys.encode())

    async def wait_for(self, text: str) -> None:
        """Wait until `text` appears in the output after the text of the previous wait. Raises `AssertionError` if it does not."""

        def there() -> bool:
            self._read()
            return text in self.output[self._seen :]

        try:
            await until(there)
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in {self.output[self._seen :]!r}") from None
        self._seen = self.output.index(text, self._seen) + len(text)

    async def wait_for_prompt(self, text: str) -> None:
        """Wait until `text` appears and the program waits for a key. An earlier interrupt would be lost by `input`."""
        await self.wait_for(text)
        await until(lambda: Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")

    async def wait_for_exit(self) -> int:
        """Wait until the program has ended, and return its exit code."""
        async with asyncio.timeout(PATIENCE):
            while self.process.poll() is None:
                self._read()
                await asyncio.sleep(0.01)
        self._read()
        code: int = self.process.returncode
        return code

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self._raw += data
        except BlockingIOError:
            pass
        except OSError:
            pass  # Linux raises it once the program has ended
