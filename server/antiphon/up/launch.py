"""Launches a gateway on one machine: what `antiphon up` and `antiphon serve --reload` do before they become the supervisor.

First the listening addresses are tried, so that one that is taken is reported by its setting. Then the run's folder is filled, and
this process becomes `antiphon.up.supervisor`, under the same process id.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from antiphon.auth.api_keys.static import KEY_VARIABLE
from antiphon.config import Config
from antiphon.edge import files as edge
from antiphon.up import run_folder
from antiphon.up.admin import turn_ready
from antiphon.up.plan import Plan, Program
from antiphon.up.readiness import worker_socket
from antiphon.up.reload import CONFIG, ENDPOINTS, WATCHED, write_endpoints
from antiphon.up.supervisor import MARGIN, STOP_SIGNALS

_GRPC_CORE: Final = {"GRPC_EXPERIMENTS": "-event_engine_listener", "GRPC_ENABLE_FORK_SUPPORT": "0"}
"""Settings of gRPC's core, which reads them when it is imported; the environment can set others.

Its event engine hands what it reads from a connection to another thread, which costs up to a tenth of a call. Nothing here forks.
"""


def plan(config: Config, config_path: Path | None, *, made_key: bool = False, styled: bool = False) -> Plan:
    """Return the plan of a gateway with Envoy, in a folder made here. `config_path` is the file that `config` was read from.

    `made_key`: the key in the environment was made for this run. `styled`: the banner goes to a terminal with colours. Raises
    `OSError` if the folder cannot be made or filled.
    """
    sockets = [worker_socket(number) for number in range(config.workers)]
    folder, lock = _make_folder(config, config_path, lambda folder: edge.prepare(folder, config.rest, sockets, config.auth.tokens))
    # Envoy needs a tenth of a worker's CPU time for a call.
    threads = min((config.workers + 1) // 2, os.cpu_count() or 1)
    variables = sorted(edge.VARIABLES)
    envoy = Program("Envoy", edge.command(threads), folder=folder, grace=MARGIN, variables=variables, stop_signal="SIGINT")
    made = _plan(config, config_path, folder, lock, [folder / name for name in sockets], envoy)
    chosen = ["--config", str(config_path)] if config_path else []
    flags = [flag for flag, is_set in (("--made-key", made_key), ("--styled", styled)) if is_set]
    command = [sys.executable, "-m", "antiphon.preparation", *chosen, *flags, "--folder", str(folder)]
    return made._replace(
        preparation=Program("preparation", command, folder=Path.cwd(), grace=MARGIN),
        restart_command=(sys.executable, "-m", "antiphon", "up", *chosen),
        set_variable=KEY_VARIABLE if made_key else "",
    )


def plan_server(config: Config, config_path: Path | None, socket: Path) -> Plan:
    """Return the plan of a single server whose Envoy somebody else runs, as a sidecar, in the folder of `socket`.

    Raises `OSError` if no Envoy runs there, or if the server's own folder cannot be made or filled.
    """
    if not (socket.parent / ENDPOINTS).exists():
        raise OSError(f"{socket.parent} is not where an Envoy runs: `antiphon edge` has to make it so")
    # An earlier server may have left the socket of a successor in the endpoints, and Envoy turned unready.
    write_endpoints(socket.parent, [socket.name])
    turn_ready(socket.parent)
    folder, lock = _make_folder(config, config_path, lambda _: None)
    return _plan(config, config_path, folder, lock, [socket], None)._replace(edge=socket.parent)


def _make_folder(config: Config, config_path: Path | None, fill: Callable[[Path], None]) -> tuple[Path, int]:
    """Make the folder of a run, and fill it; return it and the descriptor that holds its lock. Raises `OSError`."""
    run_folder.sweep()
    folder, lock = run_folder.make()
    try:
        fill(folder)
        keep_copy(folder, CONFIG, config, config_path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        raise
    return folder, lock


def _plan(
    config: Config, config_path: Path | None, folder: Path, lock: int, sockets: Sequence[Path], envoy: Program | None
) -> Plan:
    here = Path.cwd()
    drain = config.limits.drain_delay + config.limits.drain
    # Workers read the copy that was checked, as the file may have changed since.
    copy = folder / CONFIG if config_path else None
    workers = [
        Program(
            f"worker {number}",
            worker_command(copy, socket, number),
            folder=here,
            grace=drain + MARGIN,
            sends_heartbeat=True,
            socket=socket.name,
        )
        for number, socket in enumerate(sockets)
    ]
    chosen = ["--config", str(config_path)] if config_path else []
    options = [] if envoy else ["--same-database"]  # such a server runs no migrations
    options += ["--json"] if config.log.stream == "stdout" else []  # standard output may hold only JSON
    check = [sys.executable, "-m", "antiphon", "check-reload", *chosen, *options, str(folder)]
    return Plan(
        workers,
        envoy,
        folder=folder,
        lock=lock,
        drain=drain,
        log_file=config.log.file,
        banner="Antiphon is up.\n",
        check=Program("check", check, folder=here, grace=MARGIN),
        retire_grace=config.limits.drain_delay + max(config.limits.request_timeout, config.limits.drain) + MARGIN,
        stdout_is_log=config.log.stream == "stdout",
        metrics=config.metrics.listen,
    )


def keep_copy(folder: Path, name: str, config: Config, config_path: Path | None, text: bytes | None = None) -> None:
    """Copy the configuration file into `folder` as `name`, and write the list of files to watch there. Raises `OSError`.

    `text` is the file's content if it was read already; None: it is read now.
    """
    files = [] if config_path is None else [config_path]
    if config_path is not None:
        copy = folder / name
        copy.touch(mode=0o600)  # it may hold keys
        copy.write_bytes(config_path.read_bytes() if text is None else text)
    files += files_to_watch(config)
    (folder / WATCHED).write_text(json.dumps([str(file.absolute()) for file in files]), encoding="utf-8")


_REREAD: Final = frozenset({"tls", "token_file"})
"""Settings whose files are reread without a reload: certificates, and the token of a workload, which is replaced each hour."""


def files_to_watch(config: Config) -> list[Path]:
    """Return the files besides the configuration that are read only at a start: keys, secrets, certificate authorities."""
    settings = config.model_dump()
    del settings["log"]["file"]
    return list(_paths(settings))


def _paths(settings: Any) -> Iterator[Path]:
    """Yield all paths in the settings, except those in `_REREAD`."""
    if isinstance(settings, Path):
        yield settings
    elif isinstance(settings, Mapping):
        for name, value in settings.items():
            if name not in _REREAD:
                yield from _paths(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _paths(value)


def block_signals() -> None:
    """Block the signals that stop a gateway, until the supervisor that this process becomes handles them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def become_supervisor(plan: Plan, environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by the supervisor of `plan`, whose children get `environment`. Raises `OSError` if that fails.

    The plan is passed in a file without a name, so that nothing of it is left behind.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.write(plan.dumps())
        file.seek(0)
        for descriptor in (file.fileno(), plan.lock):
            if descriptor is not None:  # 0 is possible, if standard input is closed
                os.set_inheritable(descriptor, True)  # noqa: FBT003  # a positional-only argument
        sys.stdout.flush()
        sys.stderr.flush()
        command = [sys.executable, "-m", "antiphon.up.supervisor", str(file.fileno())]
        os.execve(command[0], command, {**_GRPC_CORE, **environment})  # noqa: S606  # no shell is needed


def worker_command(config_path: Path | None, socket_path: Path, number: int) -> list[str]:
    """Return the command line of a worker."""
    chosen = ["--config", str(config_path)] if config_path else []
    return [sys.executable, "-m", "antiphon.worker", *chosen, "--socket", str(socket_path), "--worker", str(number)]
