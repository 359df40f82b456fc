"""The Helm chart, as Helm renders it, compared with the kustomize base."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.kubernetes import NEWEST, OLDEST, PROGRAMS, ROOT, containers, find, kustomize

CHART = ROOT / "deploy" / "chart"

TLS = {"tls": {"secretName": "antiphon-tls"}}
EVERYTHING: dict[str, Any] = {
    **TLS,
    "image": "registry.example/antiphon@sha256:0123",
    "envoyImage": "registry.example/envoy:1.40",
    "redisSecret": {"name": "antiphon-redis"},
    "autoscaling": {"enabled": False},
    "replicas": 4,
    "credentials": {"secretName": "google", "audience": "//iam.googleapis.com/projects/1/providers/cluster"},
    "serviceAccount": {"annotations": {"iam.gke.io/gcp-service-account": "gateway@acme.iam.gserviceaccount.com"}},
    "podLabels": {"azure.workload.identity/use": "true"},
    "networkPolicy": {"enabled": True, "metadata": True},
    "podAnnotations": {"example.com/note": "one"},
    "pod": {"nodeSelector": {"example.com/pool": "chat"}, "imagePullSecrets": [{"name": "registry"}]},
    "service": {"type": "LoadBalancer", "annotations": {"example.com/note": "two"}},
}


def _render(folder: Path, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    done = _helm(folder, values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _helm(folder: Path, values: dict[str, Any] | None) -> subprocess.CompletedProcess[str]:
    (folder / "values.yaml").write_text(yaml.safe_dump(values or {}))
    command = [PROGRAMS / "helm", "template", "antiphon", CHART, "--values", folder / "values.yaml", "--kube-version", NEWEST]
    variables = {"HOME": str(folder), "PATH": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=variables)


def test_the_templates_are_up_to_date_with_the_base() -> None:
    """The chart's templates are up to date with the base."""
    done = subprocess.run([sys.executable, ROOT / "deploy" / "chart.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_with_its_own_values_it_is_the_base(tmp_path: Path) -> None:
    """With default values the chart renders the documents of the base, except for the migrations.

    Helm runs those before the other documents exist, so they have their own ConfigMap and no service account.
    """
    rendered, base = _render(tmp_path), kustomize("base")
    for document in base:
        found = find(rendered, document["kind"], document["metadata"]["name"])
        if document["kind"] == "ConfigMap" and document["metadata"]["name"] == "antiphon-config":
            assert yaml.safe_load(found["data"]["antiphon.yaml"]) == yaml.safe_load(document["data"]["antiphon.yaml"])
        elif document["kind"] == "Job":
            _, job = found["metadata"].pop("annotations"), found["spec"]["template"]["spec"]
            assert job["volumes"][0]["configMap"]["name"] == "antiphon-migrate"
            job["volumes"][0]["configMap"]["name"] = "antiphon-config"
            assert found == {**document, "spec": found["spec"]}
            assert job == {
                name: part for name, part in document["spec"]["template"]["spec"].items() if name != "serviceAccountName"
            }
        else:
            if document["kind"] == "Service" and document["metadata"]["name"] == "antiphon":
                assert found["spec"].pop("type") == "ClusterIP"
            assert found == document
    assert len(rendered) == len(base) + 1


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["its own values", "all of them"])
def test_rendered_documents_are_valid(values: dict[str, Any], version: str, tmp_path: Path) -> None:
    """Each rendered document is valid by the strict schema of its kind."""
    for document in _render(tmp_path, values):
        kubernetes_validate.validate(document, version, strict=True)


def test_values_reach_the_pods(tmp_path: Path) -> None:
    """Values for images, TLS, Redis, replicas, scheduling and the Service appear in the rendered documents."""
    rendered = _render(tmp_path, EVERYTHING)
    deployment = find(rendered, "Deployment", "antiphon")["spec"]
    assert deployment["replicas"] == 4
    assert deployment["template"]["metadata"]["annotations"]["example.com/note"] == "one"
    pod = deployment["template"]["spec"]
    assert pod["nodeSelector"] == {"example.com/pool": "chat"}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    parts = containers(pod)
    assert parts["server"]["image"] == parts["edge-files"]["image"] == EVERYTHING["image"]
    assert parts["envoy"]["image"] == EVERYTHING["envoyImage"]
    assert {parts["envoy"][probe]["httpGet"]["scheme"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        "HTTPS"
    }
    assert {"name": "tls", "secret": {"secretName": "antiphon-tls", "defaultMode": 0o440}} in pod["volumes"]
    (migrate,) = find(rendered, "Job", "antiphon-migrate")["spec"]["template"]["spec"]["containers"]
    for container in (parts["envoy"], parts["server"], migrate):
        assert "/etc/antiphon-tls" in {mount["mountPath"] for mount in container["volumeMounts"]}
    reference = {"name": "REDIS_URL", "valueFrom": {"secretKeyRef": {"name": "antiphon-redis", "key": "url"}}}
    assert reference in parts["server"]["env"]
    assert reference in migrate["env"]
    assert not [document for document in rendered if document["kind"] == "HorizontalPodAutoscaler"]
    service = find(rendered, "Service", "antiphon")
    assert service["spec"]["type"] == "LoadBalancer"
    assert {port["appProtocol"] for port in service["spec"]["ports"]} == {"https"}
    assert service["metadata"]["annotations"] == {"example.com/note": "two"}


def test_an_identity_of_a_cloud_reaches_the_server(tmp_path: Path) -> None:
    """The server has the credentials and a token of the pods' service account, which is tied to the cloud's identity.

    Neither Envoy nor the migrations have them, and without these values the metadata service is out of reach.
    """
    rendered = _render(tmp_path, EVERYTHING)
    template = find(rendered, "Deployment", "antiphon")["spec"]["template"]
    assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    annotations = find(rendered, "ServiceAccount", "antiphon")["metadata"]["annotations"]
    assert annotations == EVERYTHING["serviceAccount"]["annotations"]
    (volume,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "credentials"]
    token = {"audience": EVERYTHING["credentials"]["audience"], "expirationSeconds": 3600, "path": "token"}
    assert volume["projected"]["sources"] == [{"secret": {"name": "google"}}, {"serviceAccountToken": token}]
    parts = {**containers(template["spec"]), **containers(find(rendered, "Job", "antiphon-migrate")["spec"]["template"]["spec"])}
    mounting = [name for name, part in parts.items() if "credentials" in {mount["name"] for mount in part["volumeMounts"]}]
    assert mounting == ["server"]
    metadata = {"ports": [{"port": 80}, {"port": 988}], "to": [{"ipBlock": {"cidr": "169.254.169.252/30"}}]}
    assert metadata in find(rendered, "NetworkPolicy", "antiphon")["spec"]["egress"]
    assert metadata not in find(_render(tmp_path), "NetworkPolicy", "antiphon")["spec"]["egress"]


@pytest.mark.parametrize(
    "values",
    [{"imgae": "antiphon:1"}, {"replicas": "4"}, {"config": {"grpc": {"listen": "0.0.0.0:1"}}}, {"service": {"type": "Ingress"}}],
    ids=["misspelt", "of another type", "a port that the probes do not ask", "unknown"],
)
def test_mistaken_values_are_refused(values: dict[str, Any], tmp_path: Path) -> None:
    """The schema of the values refuses misspelt names, wrong types, and ports that the probes do not use."""
    done = _helm(tmp_path, values)
    assert done.returncode != 0
    assert "values don't meet the specifications" in done.stderr


def test_helm_lint_succeeds(tmp_path: Path) -> None:
    """`helm lint --strict` succeeds."""
    command = [PROGRAMS / "helm", "lint", "--strict", CHART]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={"HOME": str(tmp_path), "PATH": ""})
    assert done.returncode == 0, done.stdout
