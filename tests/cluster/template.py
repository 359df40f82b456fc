"""The template of the pods: the manifests of an overlay, with the ConfigMaps and Secrets of this cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.certificates import Authority
from tests.cluster.service import ADDRESS
from tests.kubernetes import PodFolders, change_config_map, containers, find, kustomize, write_config_map

OVERLAY = "overlays/production"
EDGE_PORT, GRPC_PORT = 8443, 50051


SERVER, ENVOY = "server", "envoy"


class Template:
    """The Deployment of the overlay, and the folders that all its pods mount."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], secret: Mapping[str, str], urls: Mapping[str, str]) -> None:
        """Build it. `settings` are added to the overlay's antiphon.yaml; `secret` and `urls` are the contents of the Secrets."""
        documents = kustomize(OVERLAY)
        deployment = find(documents, "Deployment", "antiphon")["spec"]
        pod = deployment["template"]["spec"]
        self.containers = containers(pod)
        """All containers by name, in the order in which they start."""
        self.sidecars = [one["name"] for one in pod["initContainers"] if one.get("restartPolicy") == "Always"]
        self.migration = containers(find(documents, "Job", "antiphon-migrate")["spec"]["template"]["spec"])["migrate"]
        self.grace: int = pod["terminationGracePeriodSeconds"]
        self.min_ready: int = deployment["minReadySeconds"]
        self.replicas: int = find(documents, "HorizontalPodAutoscaler", "antiphon")["spec"]["minReplicas"]
        assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}, "as `Deployment.roll` does it"
        self.authority = Authority()
        self.authority.write(folder / "ca.crt")
        tls = folder / "tls"
        tls.mkdir()
        self.authority.issue(ADDRESS).write(tls, "tls")
        config = find(documents, "ConfigMap", "antiphon-config")
        self._settings = yaml.safe_load(config["data"]["antiphon.yaml"])
        self._config = write_config_map(config, folder / "config")
        self._mounts = {
            "/etc/antiphon": self._config,
            "/etc/antiphon-gateway": write_config_map(find(documents, "ConfigMap", "antiphon-gateway"), folder / "gateway"),
            "/etc/antiphon-tls": tls,
        }
        self._secret, self._urls = secret, urls
        self.configure(settings)

    @property
    def reloads(self) -> bool:
        """Return whether the servers reload a changed configuration without a restart."""
        return "--reload" in self.containers[SERVER]["args"]

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change sections of antiphon.yaml, and update the mounted file in all pods as the kubelet does, by replacing a link."""
        for section, values in changes.items():
            self._settings[section] = {**self._settings.get(section, {}), **values}
        text = yaml.safe_dump(self._settings).replace("/etc/antiphon-tls", str(self._mounts["/etc/antiphon-tls"]))
        change_config_map(self._config, {"antiphon.yaml": text.encode()})

    def pod_folders(self, folder: Path) -> PodFolders:
        """Make the volumes of one pod in `folder`."""
        own = {"/run/antiphon": "run", "/var/lib/antiphon": "data", PodFolders.TMP: "tmp"}
        mounts = self._mounts | {path: folder / name for path, name in own.items()}
        for name in own.values():
            (folder / name).mkdir(parents=True)
        return PodFolders(mounts, self._secret, self._urls)
