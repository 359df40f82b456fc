"""The manifests of deploy/kubernetes, as kubectl builds them."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "deploy" / "kubernetes"
PROGRAMS = Path(sys.executable).parent

OLDEST, NEWEST = "1.33", "1.37"
"""The supported minor versions of Kubernetes: sidecars are stable since 1.33."""

OVERLAYS = ("base", "overlays/local", "overlays/production", "overlays/edge-apart")


def kustomize(folder: str | Path) -> list[dict[str, Any]]:
    """Return the documents that `kubectl kustomize` builds from a folder below deploy/kubernetes."""
    done = subprocess.run([PROGRAMS / "kubectl", "kustomize", MANIFESTS / folder], check=True, capture_output=True, timeout=60)
    return list(yaml.safe_load_all(done.stdout))


def find(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the document of this kind and name; the name of a ConfigMap may be followed by a hash."""

    def fits(found: str) -> bool:
        return found == name or (kind == "ConfigMap" and found.startswith(f"{name}-"))

    (document,) = [document for document in documents if document["kind"] == kind and fits(document["metadata"]["name"])]
    return document


def pods(documents: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pods of Deployments and Jobs: name and specification."""
    for document in documents:
        if document["kind"] in ("Deployment", "Job"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return all containers of a pod by name, in the order in which they start."""
    return {container["name"]: container for container in [*(pod.get("initContainers") or []), *pod["containers"]]}


def write_config_map(document: dict[str, Any], folder: Path) -> Path:
    """Write a folder as a pod sees it where this ConfigMap is mounted."""
    folder.mkdir(parents=True)
    for name, text in document.get("data", {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, encoded in document.get("binaryData", {}).items():
        (folder / name).write_bytes(base64.b64decode(encoded))
    return folder
