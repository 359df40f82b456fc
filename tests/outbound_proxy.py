"""A third-party outbound proxy (proxy.py) in a process of its own, which resolves every name to 127.0.0.1.

This module is also the plugin that the process loads: it records the requests to the proxy.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from proxy.http.parser import HttpParser
from proxy.http.proxy import HttpProxyBasePlugin
from yarl import URL

from tests.ports import free_port
from tests.waiting import block_until

_ROOT = Path(__file__).parent.parent
_LOG = "TEST_PROXY_LOG"


class Names(HttpProxyBasePlugin):
    """The plugin: resolves names and records requests."""

    def resolve_dns(self, host: str, port: int) -> tuple[str | None, Any]:
        return "127.0.0.1", None

    def before_upstream_connection(self, request: HttpParser) -> HttpParser | None:
        line = f"{(request.method or b'').decode()} {(request.host or b'').decode()}:{request.port}"
        with Path(os.environ[_LOG]).open("a") as log:
            log.write(f"{line}\n")
        return request


class OutboundProxy:
    """The process. As a context manager it runs during the block."""

    USER, PASSWORD = "gateway", "pr0xy p@ssword/secret"

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._log = folder / "requests.txt"
        self._log.touch()
        command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", str(self.port), "--num-workers", "1"]
        command += ["--num-acceptors", "1", "--data-dir", str(folder), "--basic-auth", f"{self.USER}:{self.PASSWORD}"]
        command += ["--plugins", f"{__name__}.Names", "--port-file", str(folder / "port"), *options]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(_ROOT), _LOG: str(self._log)}
        self._ready = folder / "port"
        self.output = folder / "proxy.txt"
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def __enter__(self) -> Self:
        block_until(lambda: self._ready.exists() or self._process.poll() is not None)
        assert self._process.poll() is None, self.output.read_text()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(20)

    @property
    def url(self) -> str:
        """Return the proxy's URL, without user and password."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url_with_password(self) -> str:
        return str(URL(self.url).with_user(self.USER).with_password(self.PASSWORD))

    @property
    def requests(self) -> list[str]:
        """Return the requests so far, such as "CONNECT models.test:443". Requests without the proxy's password are not included."""
        return self._log.read_text().splitlines()
