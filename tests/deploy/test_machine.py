"""What runs the gateway on one machine: the unit of systemd, and the compose file. And the examples of routes."""

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
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Its own checker knows each setting, and has nothing against them."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/antiphon/bin/antiphon", str(Path(sys.executable).parent / "antiphon")))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False, timeout=60)
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


def test_systemd_waits_for_the_drain() -> None:
    """It kills no sooner than the drain, the delay before it and what is left of a stop may take."""
    assert int(_setting("TimeoutStopSec")) >= load(None, {}).limits.drain + 5 + 15
    assert _setting("KillMode") == "mixed"


def test_envoy_may_compile_its_lua() -> None:
    """Memory that is written and then run is not forbidden to it."""
    assert "\nMemoryDenyWriteExecute" not in UNIT.read_text()


def test_compose_names_settings_that_there_are() -> None:
    """Its environment is read as a configuration without a mistake, and it publishes its ports on this host alone."""
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
    """It is good by the strict schema of its kind; those of the other examples are not Kubernetes' own."""
    kubernetes_validate.validate(_examples()["ingress"], version, strict=True)


def test_routes_reach_the_service_and_cut_no_stream() -> None:
    """Each names a port that the Service has, in its namespace, and what may be set there of time-outs is none, or an hour."""
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
