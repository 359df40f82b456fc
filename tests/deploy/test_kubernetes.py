"""The manifests of deploy/kubernetes: they are valid by Kubernetes' schemas, and they are consistent with each other."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pydantic
import pytest
import yaml
from cloudcoil.models.cert_manager import v1 as cert_manager

from antiphon.config.file import load
from antiphon.edge import files as edge
from tests.certificates import Authority
from tests.kubernetes import (
    MANIFESTS,
    NEWEST,
    OLDEST,
    OVERLAYS,
    PROGRAMS,
    ROOT,
    containers,
    find,
    kustomize,
    pods,
    write_config_map,
)

CUSTOM = {
    "Certificate": cert_manager.Certificate,
    "Issuer": cert_manager.Issuer,
}
"""The models of kinds that Kubernetes' own schemas do not include, from the projects that define them."""

MEMORY = {"Mi": 2**20, "Gi": 2**30}

AT_REST = 215 * 10**6
"""The most bytes of memory that a server uses before any request."""


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return kustomize(request.param)


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) * MEMORY[quantity[-2:]]


def _configuration(documents: list[dict[str, Any]]) -> dict[str, Any]:
    text = find(documents, "ConfigMap", "antiphon-config")["data"]["antiphon.yaml"]
    read: dict[str, Any] = yaml.safe_load(text)
    return read


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_documents_are_valid(overlay: list[dict[str, Any]], version: str) -> None:
    """Each document is valid by the strict schema of its kind, in the oldest and the newest supported version."""
    for document in overlay:
        _validate(document, version)


def _validate(document: dict[str, Any], version: str) -> None:
    if custom := CUSTOM.get(document["kind"]):
        custom.model_validate(document, extra="forbid")
    else:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_find_mistakes(overlay: list[dict[str, Any]]) -> None:
    """A misspelt field is refused, so the schemas do check the documents."""
    broken = copy.deepcopy(find(overlay, "Deployment", "antiphon"))
    broken["spec"]["template"]["spec"]["containers"][0]["misspelt"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        _validate(broken, NEWEST)
    for document in overlay:
        if document["kind"] in CUSTOM:
            with pytest.raises(pydantic.ValidationError):
                _validate({**document, "spec": {**document["spec"], "misspelt": 1}}, NEWEST)


def test_pods_are_restricted(overlay: list[dict[str, Any]]) -> None:
    """Every container meets the restricted pod security standard.

    It also has a read-only file system, a memory limit and no token.
    """
    for name, pod in pods(overlay):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["serviceAccountName"] == "antiphon"
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(
            set(volume) - {"name"} <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"} for volume in pod["volumes"]
        )
        for container in containers(pod).values():
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["resources"]["limits"].keys() == {"memory"}
            assert container["image"] == "antiphon:0.1.0"
    account = find(overlay, "ServiceAccount", "antiphon")
    assert account["automountServiceAccountToken"] is False


def test_manifests_contain_no_secret(overlay: list[dict[str, Any]]) -> None:
    """Manifests refer to Secrets but contain none, and only the server and the migrations have them in their environment."""
    assert not [document for document in overlay if document["kind"] == "Secret"]
    for _, pod in pods(overlay):
        for name, container in containers(pod).items():
            assert ("envFrom" in container) == (name in ("server", "migrate"))


def test_selectors_find_their_pods(overlay: list[dict[str, Any]]) -> None:
    """Services, disruption budgets and policies select existing pods, and Services name ports that these pods have."""
    templates = [document["spec"]["template"] for document in overlay if document["kind"] in ("Deployment", "Job")]
    for document in overlay:
        spec = document.get("spec", {})
        match document["kind"]:
            case "Service":
                wanted = spec["selector"]
            case "PodDisruptionBudget":
                wanted = spec["selector"]["matchLabels"]
            case "NetworkPolicy":
                wanted = spec["podSelector"]["matchLabels"]
            case _:
                continue
        found = [template for template in templates if wanted.items() <= template["metadata"]["labels"].items()]
        assert found, document["metadata"]["name"]
        if document["kind"] == "Service":
            ports = {port["name"] for container in containers(found[0]["spec"]).values() for port in container.get("ports", [])}
            assert {port["targetPort"] for port in spec["ports"]} <= ports


def test_configurations_are_good(overlay: list[dict[str, Any]], tmp_path: Path) -> None:
    """The sample configuration is valid, and its ports are those of the containers."""
    folder = write_config_map(find(overlay, "ConfigMap", "antiphon-config"), tmp_path / "config")
    config = load(folder / "antiphon.yaml", {"REDIS_URL": "redis://localhost"})
    ports = {
        port["name"]: port["containerPort"]
        for _, pod in pods(overlay)
        for container in containers(pod).values()
        for port in container.get("ports", [])
    }
    assert config.grpc.listen == f"0.0.0.0:{ports['grpc']}"
    assert config.rest.listen == f"0.0.0.0:{ports['edge']}"
    assert config.metrics.listen == f"0.0.0.0:{ports['metrics']}"
    if config.rest.tls is not None:
        for _, pod in pods(overlay):
            for name, container in containers(pod).items():
                mounted = {Path(mount["mountPath"]) for mount in container["volumeMounts"]}
                assert name == "edge-files" or mounted & set(config.rest.tls.certificate.parents), name


def test_edge_and_servers_know_each_other() -> None:
    """With TLS between edge and servers, each mounts its own certificate.

    The servers' certificate has the name that the edge expects.
    """
    documents = kustomize("overlays/edge-apart-tls")
    config = _configuration(documents)
    tls = config["rest"]["upstream"]["tls"]
    certificates = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "Certificate"}
    assert certificates["antiphon-server"]["dnsNames"] == [tls["server_name"]]
    issuer = find(documents, "Issuer", certificates["antiphon-server"]["issuerRef"]["name"])
    authority = next(spec for spec in certificates.values() if spec.get("isCA"))
    assert issuer["spec"]["ca"]["secretName"] == authority["secretName"]
    for name, pod in pods(documents):
        side = "antiphon-edge" if name == "antiphon-edge" else "antiphon-server"
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        assert secrets == {"mtls": certificates[side]["secretName"]}
        for container in containers(pod).values():
            mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert Path(mounted["mtls"]) in Path(tls["certificate"]).parents
            assert not any("grpc" in container.get(probe, {}) for probe in ("startupProbe", "livenessProbe", "readinessProbe"))


def test_the_configuration_is_reloaded_and_the_gateway_rolled_out(overlay: list[dict[str, Any]]) -> None:
    """A changed configuration is reloaded, and a changed gateway makes new pods.

    Therefore only the name of the gateway's ConfigMap has a hash, and the configuration is mounted as a folder.
    """
    names = {document["metadata"]["name"] for document in overlay if document["kind"] == "ConfigMap"}
    assert "antiphon-config" in names
    (gateway,) = names - {"antiphon-config"}
    assert gateway.startswith("antiphon-gateway-")
    for _, pod in pods(overlay):
        for container in containers(pod).values():
            assert not any("subPath" in mount for mount in container["volumeMounts"])
        used = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
        assert used <= names


def test_the_gateway_has_every_file() -> None:
    """The gateway's ConfigMap has every file that Envoy reads, and the parts from which the edge's TLS files are made."""
    kustomization = yaml.safe_load((ROOT / "gateway" / "kustomization.yaml").read_text())
    (generator,) = kustomization["configMapGenerator"]
    assert set(generator["files"]) == {*edge.FILES, "listener_tls.yaml", "cluster_tls.yaml"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_envoy_accepts_the_files(name: str, tmp_path: Path) -> None:
    """The init container's own command makes Envoy's folder from the ConfigMaps, and Envoy's validation accepts it."""
    documents = kustomize(name)
    mounts = {
        "/run/antiphon": tmp_path / "run",
        "/etc/antiphon-gateway": write_config_map(find(documents, "ConfigMap", "antiphon-gateway"), tmp_path / "gateway"),
    }
    config = write_config_map(find(documents, "ConfigMap", "antiphon-config"), tmp_path / "config") / "antiphon.yaml"
    authority = Authority()
    for path in ("/etc/antiphon-tls", "/etc/antiphon-mtls"):
        mounts[path] = tmp_path / Path(path).name
        mounts[path].mkdir()
        authority.issue("chat.example.com").write(mounts[path], "tls")
        authority.write(mounts[path] / "ca.crt")
        config.write_text(config.read_text().replace(path, str(mounts[path])))
    mounts["/etc/antiphon"] = config.parent
    made = next(containers(pod)["edge-files"] for _, pod in pods(documents) if "edge-files" in containers(pod))
    arguments = list(made["args"])
    for path, folder in mounts.items():
        arguments = [
            str(folder) + one.removeprefix(path) if one == path or one.startswith(f"{path}/") else one for one in arguments
        ]
    subprocess.run([sys.executable, "-m", "antiphon", *arguments], check=True, timeout=60, capture_output=True)
    command = [PROGRAMS / "envoy", "--mode", "validate", "--config-path", "bootstrap.yaml"]
    done = subprocess.run(command, cwd=mounts["/run/antiphon"], timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_sidecar_starts_before_the_server_and_ends_after_it() -> None:
    """Envoy is a sidecar after the init container that makes its folder, and both Envoy and the server mount that folder."""
    for name in ("base", "overlays/local", "overlays/production"):
        pod = find(kustomize(name), "Deployment", "antiphon")["spec"]["template"]["spec"]
        names = [container["name"] for container in pod["initContainers"]]
        assert names[-2:] == ["edge-files", "envoy"]
        assert pod["initContainers"][-1]["restartPolicy"] == "Always"
        for container in (*pod["initContainers"][-2:], *pod["containers"]):
            assert "/run/antiphon" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_there_is_time_to_drain(overlay: list[dict[str, Any]]) -> None:
    """The grace period of a pod covers the hook before the stop, the delay, the drain, and 15 more seconds."""
    limits = _configuration(overlay)["limits"]
    for _, pod in pods(overlay):
        for name, container in containers(pod).items():
            match container.get("lifecycle", {}).get("preStop"):
                case {"exec": {"command": ["python3", "-m", "antiphon", "drain", _, *options]}}:
                    hook = sum(int(seconds) for seconds in options[1::2])
                case {"sleep": {"seconds": hook}}:
                    pass
                case _:
                    assert name != "server"
                    continue
            own = limits["drain_delay"] + limits["drain"] if name == "server" else 0
            assert pod["terminationGracePeriodSeconds"] >= hook + own + 15


def test_memory_is_bounded_above_what_is_allowed(overlay: list[dict[str, Any]]) -> None:
    """The memory limits leave room for all requests that the configuration permits to a server, and for Envoy's whole heap."""
    bootstrap = yaml.safe_load(find(overlay, "ConfigMap", "antiphon-gateway")["data"]["bootstrap.yaml"])
    heap = bootstrap["overload_manager"]["resource_monitors"][0]["typed_config"]["max_heap_size_bytes"]
    requests = _configuration(overlay)["limits"]["request_bytes_per_worker"]
    for _, pod in pods(overlay):
        for name, container in containers(pod).items():
            limit = _bytes(container["resources"]["limits"]["memory"])
            assert name != "server" or limit >= 2 * AT_REST + 2 * requests
            assert name != "envoy" or limit >= heap * 1.2


def test_a_rollout_keeps_the_number_of_replicas() -> None:
    """A rollout starts a new replica before an old one stops.

    There is a disruption budget, and replicas are spread over zones and hosts.
    """
    for name in ("base", "overlays/production", "overlays/edge-apart", "overlays/edge-apart-tls"):
        documents = kustomize(name)
        deployments = [document for document in documents if document["kind"] == "Deployment"]
        scaled = {d["spec"]["scaleTargetRef"]["name"] for d in documents if d["kind"] == "HorizontalPodAutoscaler"}
        budgets = [document for document in documents if document["kind"] == "PodDisruptionBudget"]
        assert len(budgets) == len(deployments)
        for deployment in deployments:
            assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
            assert deployment["metadata"]["name"] in scaled
            assert "replicas" not in deployment["spec"]
            assert {one["topologyKey"] for one in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]} == {
                "topology.kubernetes.io/zone",
                "kubernetes.io/hostname",
            }


def _with(component: str, folder: Path) -> list[dict[str, Any]]:
    """Return the documents of the base with a component."""
    paths = {
        "resources": [os.path.relpath(MANIFESTS / "base", folder)],
        "components": [os.path.relpath(MANIFESTS / "components" / component, folder)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(paths))
    return kustomize(folder)


def test_calls_in_flight_are_an_option(tmp_path: Path) -> None:
    """The component `calls-in-flight` adds its metric to the autoscaler, which stays valid."""
    autoscaler = find(_with("calls-in-flight", tmp_path), "HorizontalPodAutoscaler", "antiphon")
    assert [metric["type"] for metric in autoscaler["spec"]["metrics"]] == ["ContainerResource", "Pods"]
    _validate(autoscaler, OLDEST)


def test_a_monitor_is_an_option(tmp_path: Path) -> None:
    """The component `pod-monitor` selects the servers' pods and an existing port, and is valid by the operator's model."""
    documents = _with("pod-monitor", tmp_path)
    monitor = find(documents, "PodMonitor", "antiphon")
    from cloudcoil.models.prometheus_operator.v1 import PodMonitor  # takes seconds

    PodMonitor.model_validate(monitor, extra="forbid")
    template = find(documents, "Deployment", "antiphon")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {port["name"] for container in containers(template["spec"]).values() for port in container.get("ports", [])}
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports
