"""The manifests of deploy/kubernetes as kubectl builds them, and what is needed to run their containers on this machine."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "deploy" / "kubernetes"
PROGRAMS = Path(sys.executable).parent

OLDEST, NEWEST = "1.33", "1.37"
"""The supported minor versions of Kubernetes: sidecars are stable since 1.33."""

OVERLAYS = ("base", "overlays/local", "overlays/production", "overlays/edge-apart", "overlays/edge-apart-tls")


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
    """Write a folder as a pod sees it where this ConfigMap is mounted: symbolic links, so that all files change at once."""
    contents = {name: text.encode() for name, text in document.get("data", {}).items()}
    contents |= {name: base64.b64decode(encoded) for name, encoded in document.get("binaryData", {}).items()}
    folder.mkdir(parents=True)
    change_config_map(folder, contents)
    for name in contents:
        (folder / name).symlink_to(Path("..data", name))
    return folder


def change_config_map(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Change the contents of a ConfigMap that is mounted at `folder`, as the kubelet does."""
    version = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    for name, content in contents.items():
        (version / name).write_bytes(content)
    link = folder / "..data_tmp"
    link.symlink_to(version.name)
    link.replace(folder / "..data")


class Command(NamedTuple):
    """The command of a container, its working folder and its environment, translated to this machine."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]


class PodFolders:
    """The folders of this machine that stand for the volumes and Secrets of a pod."""

    TMP = "/tmp"  # noqa: S108  # the path in a pod

    def __init__(self, mounts: Mapping[str, Path], secret: Mapping[str, str], urls: Mapping[str, str]) -> None:
        """Take the folders by their path in the pod, the data of the Secret `antiphon`, and the URLs of other Secrets by name."""
        self._mounts = mounts
        self._secret = secret
        self._urls = urls
        paths = "|".join(sorted(map(re.escape, mounts), key=len, reverse=True))
        self._pattern = re.compile(rf"(^|(?<=//))({paths})(?=/|$)")

    def to_local(self, text: str) -> str:
        """Return a text with the pod's paths replaced by those of this machine."""
        return self._pattern.sub(lambda found: str(self._mounts[found[2]]), text)

    def command(self, container: dict[str, Any]) -> Command:
        """Return the command that the container runs."""
        variables = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": self.to_local(self.TMP)}
        if "envFrom" in container:
            variables |= self._secret
        for variable in container.get("env", []):
            match variable:
                case {"value": value}:
                    variables[variable["name"]] = self.to_local(value)
                case {"valueFrom": {"secretKeyRef": {"name": name, "key": "url"}}}:
                    variables[variable["name"]] = self._urls[name]
        arguments = [*container.get("command", ["antiphon"]), *map(self.to_local, container["args"])]
        return Command(arguments, self.to_local(container.get("workingDir", self.TMP)), variables)

    def hook(self, container: dict[str, Any]) -> list[str]:
        """Return the command to run before the container is stopped."""
        program, *arguments = container["lifecycle"]["preStop"]["exec"]["command"]
        return [str(PROGRAMS / program), *map(self.to_local, arguments)]
