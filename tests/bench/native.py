"""The two programs in C of the benchmarks, compiled when they are needed: `load`, callers, and `upstream`, a provider."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from tests.ports import free_port
from tests.waiting import block_until

SOURCES: Final = Path(__file__).parent / "c"
FOLDER: Final = Path(__file__).parents[2] / ".venv" / "bench"
"""What the benchmarks install and build; git ignores it."""


def _compiler() -> list[str]:
    """Return the system's C compiler, or else Zig's, which comes as a Python package."""
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    packages = FOLDER / "zig"
    if not packages.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--target",
            packages,
            "ziglang==0.15.1",
        ]
        subprocess.run(command, check=True)
    return [str(packages / "ziglang" / "zig"), "cc"]


def program(name: str) -> Path:
    """Return the program's path, compiled if a source is newer."""
    made = FOLDER / "bin" / name
    newest = max(source.stat().st_mtime for source in (SOURCES / f"{name}.c", SOURCES / "common.h"))
    if not made.exists() or made.stat().st_mtime < newest:
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([*_compiler(), "-O2", "-o", made, SOURCES / f"{name}.c"], check=True)
    return made


class Upstream:
    """A running provider. `upstream.c` says what its models do."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.pid = process.pid
        self.base_url = f"http://127.0.0.1:{port}/v1"

    def stats(self) -> dict[str, int]:
        """Return what it has been asked so far."""
        with urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=10) as answer:
            found: dict[str, int] = json.load(answer)
        return found


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Run the provider during the block."""
    port = free_port()
    process = subprocess.Popen([program("upstream"), str(port)])
    made = Upstream(port, process)

    def listens() -> bool:
        with suppress(OSError):
            return bool(made.stats())
        assert process.poll() is None, "the upstream ended"
        return False

    try:
        block_until(listens)
        yield made
    finally:
        process.terminate()
        process.wait(10)


def load(
    port: int,
    path: str,
    body: Path,
    headers: Sequence[str] = (),
    *,
    connections: int,
    seconds: float,
    grace: float = 10.0,
    **more: float | bool,
) -> dict[str, Any]:
    """Run callers, and return what they found; `load.c` documents it. `more` are its options, such as `tokens` and `grpc`."""
    return finish(start_load(port, path, body, headers, connections=connections, seconds=seconds, grace=grace, **more))


def start_load(
    port: int,
    path: str,
    body: Path,
    headers: Sequence[str] = (),
    **options: float | bool,
) -> subprocess.Popen[bytes]:
    """Start callers as `load` does, and return their process."""
    arguments = ["--port", str(port), "--path", path, "--body", str(body)]
    for header in headers:
        arguments += ["--header", header]
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}", str(value)]
    return subprocess.Popen([program("load"), *arguments], stdout=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes], patience: float = 3600.0) -> dict[str, Any]:
    """Wait for the callers, and return what they found."""
    began = time.monotonic()
    output, _ = process.communicate(timeout=patience)
    assert process.returncode == 0, f"load ended with {process.returncode} after {time.monotonic() - began:.0f} s"
    found: dict[str, Any] = json.loads(output)
    return found
