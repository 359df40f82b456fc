"""The container image: built, and run as in a cluster."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.ports import free_port
from tests.waiting import block_until

ROOT = Path(__file__).parents[2]
BUILDER, BASE = "localhost/antiphon-builder:latest", "localhost/antiphon-base:amd64"
IMAGE = "localhost/antiphon-test"
KEY = "sk-test-of-the-image"
LARGEST = 150e6
"""The maximum compressed size of the image, in bytes."""

PODMAN = ["podman", "--cgroup-manager", "cgroupfs"]
# Not podman's default runtime and limits, so that it runs inside of a container, too.
CONFINED = ["--runtime", "runc", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "host"]
CONFINED += ["--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges"]

missing = [tool for tool in ("buildah", "podman", "runc", "debootstrap") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing), reason=f"builds and runs an image, which wants {', '.join(missing)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="builds an image of Debian's packages, which only root can"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the images that it begins with are of this architecture"),
]


def shell(*command: str, **environment: str) -> str:
    """Run a program that must succeed, and return its output."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built() -> Iterator[str]:
    """Build the image, and yield the output of the build, which has the image's name. The image is removed afterwards."""
    if not all(shell("buildah", "images", "--quiet", "--filter", f"reference={name}") for name in (BUILDER, BASE)):
        shell("deploy/container/debian-base")
    images = {"BUILDER": BUILDER, "BASE": BASE, "IMAGE": IMAGE}
    output = shell("deploy/container/build", sys.executable, BUILDAH_ISOLATION="chroot", **images)
    yield output
    shell("buildah", "rmi", "--force", _name(output))


def _name(output: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(f"{IMAGE}:"))


@pytest.fixture
def image(built: str) -> str:
    """Return the name of the image."""
    return _name(built)


@pytest.fixture
def mounted(tmp_path: Path) -> list[str]:
    """Return options that mount a configuration as a ConfigMap is mounted, and a folder for the database."""
    tmp_path.chmod(0o755)
    config, data, at_first = tmp_path / "config", tmp_path / "data", tmp_path / "config" / "..2026_11_29"
    at_first.mkdir(parents=True)
    at_first.joinpath("antiphon.yaml").write_text("providers: {echo: {protocol: echo, models: [echo], token_delay: 0}}\n")
    config.joinpath("..data").symlink_to(at_first.name)
    config.joinpath("antiphon.yaml").symlink_to("..data/antiphon.yaml")
    data.mkdir()
    os.chown(data, 10001, 10001)
    return ["--volume", f"{config}:/etc/antiphon:ro", "--volume", f"{data}:/var/lib/antiphon", "--tmpfs", "/run/antiphon"]


class Container:
    """A running container."""

    def __init__(self, image: str, folder: Path, options: list[str]) -> None:
        self.name, self.rest = f"antiphon-test-{os.getpid()}", f"127.0.0.1:{free_port()}"
        self.out, self.err = folder / "out", folder / "err"
        addresses = {"ANTIPHON_REST__LISTEN": self.rest, "ANTIPHON_GRPC__LISTEN": f"127.0.0.1:{free_port()}", "ANTIPHON_KEY": KEY}
        variables = [word for name, value in addresses.items() for word in ("--env", f"{name}={value}")]
        command = [*PODMAN, "run", "--rm", "--name", self.name, *CONFINED, *options, *variables, image]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Return its log; each line must be JSON."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def ask(self, code: str) -> str:
        """Run Python code in the container, and return what it prints."""
        return shell(*PODMAN, "exec", self.name, "python3", "-c", code).strip()


@pytest.fixture
def container(image: str, tmp_path: Path, mounted: list[str]) -> Iterator[Container]:
    """Yield a container whose gateway is up."""
    found = Container(image, tmp_path, mounted)
    try:
        block_until(lambda: found.process.poll() is not None or "Antiphon is up." in found.out.read_text(), 60)
        assert found.process.poll() is None, found.out.read_text() + found.err.read_text()
        yield found
    finally:
        if found.process.poll() is None:
            subprocess.run([*PODMAN, "rm", "--force", found.name], check=False, capture_output=True)
        found.process.wait()


def test_it_answers_with_nothing_that_a_strict_cluster_takes_away(container: Container, tmp_path: Path) -> None:
    """The gateway works as user 10001 without capabilities, a shell or a writable root, and ends with code 0."""
    body = {"model": "echo", "messages": [{"role": "user", "content": "Hello!"}], "stream": True}
    answer = httpx2.post(f"http://{container.rest}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n")

    assert container.ask("import os; print(os.getuid(), os.getgid(), os.path.exists('/bin/sh'))") == "10001 10001 False"
    status = dict(line.split(":\t") for line in container.ask("print(open('/proc/1/status').read())").splitlines())
    assert (status["CapEff"], status["CapBnd"], status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
    assert "Read-only" in container.ask("import contextlib\ntry: open('/opt/x', 'w')\nexcept OSError as e: print(e)")
    assert container.ask("import os; print(*(name[:9] for name in os.listdir('/run/antiphon')))") == "antiphon-"
    shell(*PODMAN, "healthcheck", "run", container.name)

    subprocess.run([*PODMAN, "kill", "--signal", "TERM", container.name], check=True, capture_output=True)
    assert container.process.wait(30) == 0
    assert {"serving", "Antiphon is up.", "call", "stopped"} <= {line["event"] for line in container.lines}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"antiphon.db"}


def test_one_image_migrates_and_checks(image: str, mounted: list[str], tmp_path: Path) -> None:
    """The commands of an init container and a job run in the image, with the server's restrictions."""
    confined = [*PODMAN, "run", "--rm", *CONFINED, *mounted, "--env", f"ANTIPHON_KEY={KEY}", image]
    assert json.loads(shell(*confined, "migrate", "--json", "--config", "/etc/antiphon/antiphon.yaml"))
    assert (tmp_path / "data" / "antiphon.db").exists()
    shell(*confined, "check-config", "--config", "/etc/antiphon/antiphon.yaml")
    refused = subprocess.run([*confined[:-3], image], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "nobody could call" in refused.stderr


def test_it_is_small_and_says_what_is_in_it(built: str, image: str) -> None:
    """The image has at most 150 MB compressed, and its bill of materials names locked packages, Envoy and Debian's packages."""
    version, architecture = image.rpartition(":")[2].rsplit("-", 1)
    stem = ROOT / "dist" / f"antiphon-{version}-linux-{architecture}"
    (size,) = (line for line in built.splitlines() if line.endswith(" components"))
    assert float(size.split()[0]) * 1e6 <= LARGEST
    named = Path(f"{stem}.cdx.json").read_text()
    for purl in (
        "pkg:pypi/grpcio@",
        "pkg:github/envoyproxy/envoy@v1.40.",
        "pkg:deb/debian/libssl3@",
        f"pkg:pypi/antiphon@{version}",
    ):
        assert purl in named
