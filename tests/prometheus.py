"""A real Prometheus for the tests, from Debian's package, on a free port of 127.0.0.1."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import yaml

from tests.ports import free_port
from tests.waiting import block_until

BINARY, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
"""None where it is not installed."""


class Prometheus:
    """A server that scrapes a few addresses and loads a file of rules. As a context manager it runs during the block."""

    def __init__(self, folder: Path, targets: Mapping[str, str], rules: Path, interval: int = 2) -> None:
        """Take the addresses by the name of their job, the rules, and the scrape interval in seconds."""
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        jobs = [{"job_name": name, "static_configs": [{"targets": [address]}]} for name, address in targets.items()]
        every = f"{interval}s"
        intervals = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
        config = {"global": intervals, "scrape_configs": jobs, "rule_files": [str(rules)]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen[bytes] | None = None
        self._http = build_opener(ProxyHandler({}))

    def __enter__(self) -> Self:
        assert BINARY is not None
        options = [f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/prometheus"]
        options += [f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn"]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = process = subprocess.Popen([BINARY, *options], cwd=self._folder, stdout=log, stderr=log)
        block_until(lambda: self._is_ready() or process.poll() is not None, 60)
        assert process.poll() is None, (self._folder / "prometheus.log").read_text()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def get(self, path: str, **query: Any) -> Any:
        """Return the `data` of an answer of the HTTP API. Raises `urllib.error.HTTPError` for a query that it refuses."""
        with self._http.open(f"{self.url}/api/v1/{path}?{urlencode(query)}", timeout=30) as response:
            return json.load(response)["data"]

    def _is_ready(self) -> bool:
        try:
            with self._http.open(f"{self.url}/-/ready", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False
