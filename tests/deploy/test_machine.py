"""The files that run the gateway on one machine, for systemd and compose, and the example routes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from antiphon.config.file import load
from antiphon.providers.hosts import HOSTS
from tests.kubernetes import MANIFESTS, NEWEST, OLDEST, ROOT, find, kustomize

UNIT = ROOT / "deploy" / "systemd" / "antiphon.service"
COMPOSE = ROOT / "deploy" / "compose.yaml"


def _setting(name: str) -> str:
    (found,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return str(found)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd's own checker")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` has no complaint about the unit."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/antiphon/bin/antiphon", str(Path(sys.executable).parent / "antiphon")))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False, timeout=60)
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


def test_systemd_waits_for_the_drain() -> None:
    """The unit gives the gateway time for the drain, the delay before it, and 15 more seconds before systemd kills it."""
    assert int(_setting("TimeoutStopSec")) >= load(None, {}).limits.drain + 5 + 15
    assert _setting("KillMode") == "mixed"


def test_envoy_may_compile_its_lua() -> None:
    """The unit does not forbid memory that is written and then executed, which Envoy's Lua needs."""
    assert "\nMemoryDenyWriteExecute" not in UNIT.read_text()


def test_compose_names_existing_settings() -> None:
    """The environment in the compose file is a valid configuration, and the ports are published on this host only."""
    (service,) = yaml.safe_load(COMPOSE.read_text())["services"].values()
    variables = {name: value for name, value in service["environment"].items() if value is not None}
    config = load(None, variables)
    published = {port.rpartition(":")[2] for port in service["ports"]}
    assert published == {config.rest.listen.rpartition(":")[2], config.grpc.listen.rpartition(":")[2]}
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    passed_on = service["environment"].keys() - variables.keys()
    assert passed_on <= {host.key_variable for host in HOSTS}
    assert service["read_only"] is True
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]


def _examples() -> dict[str, Any]:
    return {path.stem: yaml.safe_load(path.read_text()) for path in (MANIFESTS / "examples").glob("*.yaml")}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_the_ingress(version: str) -> None:
    """The example Ingress is valid by its strict schema. The kinds of the other examples are not Kubernetes' own."""
    kubernetes_validate.validate(_examples()["ingress"], version, strict=True)


def test_routes_reach_the_service_and_cut_no_stream() -> None:
    """Each example names a port and the namespace of the Service, and its time-outs are off or one hour."""
    service = find(kustomize("overlays/local"), "Service", "antiphon")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    examples = _examples()
    assert {example["metadata"]["namespace"] for example in examples.values()} == {service["metadata"]["namespace"]}
    (rest,), (grpc,) = examples["httproute"]["spec"]["rules"], examples["grpcroute"]["spec"]["rules"]
    assert rest["backendRefs"] == [{"name": "antiphon", "port": ports["http"]}]
    assert rest["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    assert grpc["backendRefs"] == [{"name": "antiphon", "port": ports["grpc"]}]
    assert not set(examples["httproute"]["spec"]["hostnames"]) & set(examples["grpcroute"]["spec"]["hostnames"])
    annotations = {name.rpartition("/")[2]: value for name, value in examples["ingress"]["metadata"]["annotations"].items()}
    assert annotations["proxy-buffering"] == "off"
    assert annotations["proxy-read-timeout"] == annotations["proxy-send-timeout"] == "3600"
