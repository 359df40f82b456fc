"""The sandbox in which the cluster runs: its own namespaces for network, mounts and processes.

However the run ends, by itself, by Ctrl-C or killed, the kernel removes its processes, network and files. Nothing of them is
visible outside. It needs util-linux, iproute2, iptables and root.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

FILES = "/run"
"""The folder for the files of a run: it exists on every system, and the sandbox mounts a tmpfs on it."""

PROGRAMS = ("setpriv", "unshare", "nsenter", "mount", "ip", "iptables", "iptables-restore")

_INSIDE = "ANTIPHON_CLUSTER_SANDBOX"

_NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

# The kernel features that the cluster needs: interface pairs, a bridge, and connections redirected at random.
_TRIAL = """
mount -t tmpfs tmpfs /run && ip link add cluster0 type bridge && ip link add pod0 type veth peer name pod1 && ip link set lo up &&
iptables -t nat -A OUTPUT -d 198.18.1.1 -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination 198.18.0.2:1 &&
iptables -A OUTPUT -d 198.18.1.1 -p tcp -j REJECT --reject-with tcp-reset
"""


def missing() -> str:
    """Return the reason why no sandbox can be made on this machine; empty if one can."""
    if lacking := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"{', '.join(lacking)} not installed"
    done = subprocess.run([*_NAMESPACES, "sh", "-c", _TRIAL], check=False, capture_output=True, timeout=60)
    return "" if done.returncode == 0 else f"no network namespace can be made: {done.stderr.decode().strip()}"


def inside() -> bool:
    """Return whether this process is in a sandbox."""
    return _INSIDE in os.environ


def run(module: str, arguments: Sequence[str]) -> int:
    """Run a Python module in its own sandbox, and return its exit code. The sandbox ends with this process, however that ends."""
    command = ["setpriv", "--pdeathsig", "KILL", *_NAMESPACES, sys.executable, "-m", module, *arguments]
    # gRPC's fork handlers are for children that go on using gRPC, and may crash a child that starts a program.
    grpc = {"GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "ERROR"}
    process = subprocess.Popen(command, env={**os.environ, **grpc, _INSIDE: "1", "TMPDIR": FILES})

    def stop(number: int, frame: FrameType | None) -> None:
        process.kill()  # `unshare` reacts to no other signal; its child ends with it

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    # The run is in the terminal's process group, so it gets Ctrl-C itself and stops in order.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare() -> None:
    """Mount the sandbox's own files. Must be called once, in the sandbox."""
    assert inside()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", FILES], check=True)
