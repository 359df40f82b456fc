"""The place where the cluster is played: namespaces of its own for network, mounts and processes, which end with it.

However it ends, by itself, by Ctrl-C or killed, the kernel takes away its processes, network and files: nothing of them has a name
outside. util-linux, iproute2 and iptables make it, and that is for root.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

FILES = "/run"
"""Where the files of a run are: a folder that every system has, on which the sandbox has a tmpfs."""

PROGRAMS = ("setpriv", "unshare", "nsenter", "mount", "ip", "iptables", "iptables-restore")

_INSIDE = "ANTIPHON_CLUSTER_SANDBOX"

_NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

# What the cluster needs of the kernel: pairs of interfaces, a bridge, and connections that are sent elsewhere by chance.
_TRIAL = """
mount -t tmpfs tmpfs /run && ip link add cluster0 type bridge && ip link add pod0 type veth peer name pod1 && ip link set lo up &&
iptables -t nat -A OUTPUT -d 198.18.1.1 -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination 198.18.0.2:1 &&
iptables -A OUTPUT -d 198.18.1.1 -p tcp -j REJECT --reject-with tcp-reset
"""


def missing() -> str:
    """Return why no sandbox can be made here; empty if one can."""
    if lacking := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"{', '.join(lacking)} not installed"
    done = subprocess.run([*_NAMESPACES, "sh", "-c", _TRIAL], check=False, capture_output=True, timeout=60)
    return "" if done.returncode == 0 else f"no network namespace can be made: {done.stderr.decode().strip()}"


def inside() -> bool:
    """Whether this process is in a sandbox."""
    return _INSIDE in os.environ


def run(module: str, arguments: Sequence[str]) -> int:
    """Run a module of Python in a sandbox of its own, and return its exit code. It ends with this process, however that ends."""
    command = ["setpriv", "--pdeathsig", "KILL", *_NAMESPACES, sys.executable, "-m", module, *arguments]
    # gRPC's handlers of forks are for children that go on with it, and may end one that starts a program.
    grpc = {"GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "ERROR"}
    process = subprocess.Popen(command, env={**os.environ, **grpc, _INSIDE: "1", "TMPDIR": FILES})

    def stop(number: int, frame: FrameType | None) -> None:
        process.kill()  # `unshare` takes no other signal, and its child ends with it

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    # Of the terminal's group: the run gets Ctrl-C itself, and stops in order.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare() -> None:
    """Make the sandbox's own files. To be called once, in it."""
    assert inside()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", FILES], check=True)
