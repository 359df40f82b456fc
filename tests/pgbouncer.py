"""A real PgBouncer for the tests, from Debian's package: in transaction mode, on a free port."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.ports import free_port
from tests.waiting import block_until

BINARY = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
"""None if it is not installed."""

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server} user=antiphon

[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
logfile = {folder}/log
"""


class PgBouncer:
    """One pooler. As a context manager it runs during the block, and its files are removed at the end."""

    def __init__(self, server_url: str, size: int = 3, host: str = "127.0.0.1") -> None:
        """Write the configuration; `size` is the most connections to each database.

        It is smaller than the number of callers' connections, so that they share them.
        """
        self.host = host
        self.port = free_port()
        server = urlsplit(server_url).port
        assert server is not None
        # It refuses to run as root.
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None
        configuration = _CONFIGURATION.format(server=server, host=host, port=self.port, size=size, folder=self._folder)
        (self._folder / "pgbouncer.ini").write_text(configuration)
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url_of(self, server_url: str) -> str:
        """Return the URL of the same database through the pooler."""
        database = urlsplit(server_url).path
        return f"postgresql://antiphon:pg-password@{self.host}:{self.port}{database}"

    def start(self) -> None:
        """Start the pooler, and wait until it accepts connections."""
        assert self._process is None
        assert BINARY is not None
        user = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        process = subprocess.Popen(
            [BINARY, "-q", self._folder / "pgbouncer.ini"],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **user,  # type: ignore[call-overload]
        )
        self._process = process
        block_until(lambda: self._listens() or process.poll() is not None)
        assert process.poll() is None, (self._folder / "log").read_text()

    def kill(self) -> None:
        """Kill the pooler if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def _listens(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1):
                return True
        except OSError:
            return False
