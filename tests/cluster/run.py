"""One run: start the cluster, put it under load, make the faults, and report. It must run in a sandbox."""

import asyncio
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import orjson
from rich.console import Console

from antiphon.v1 import history_pb2, history_pb2_grpc
from tests.cluster.clients import Clients
from tests.cluster.deployment import Deployment
from tests.cluster.display import Display
from tests.cluster.faults import Faults, provider
from tests.cluster.journal import Journal
from tests.cluster.load import AT_ONCE, AT_ONCE_GROUP, AT_ONCE_KEY, KEY, RATE, RATE_KEYS, Load
from tests.cluster.network import Network
from tests.cluster.report import Findings, Report
from tests.cluster.service import Service
from tests.cluster.stores import Stores
from tests.cluster.template import EDGE_PORT, Template
from tests.cluster.upstream import Upstream
from tests.waiting import until

SETTLING = 90.0
"""Seconds within which turns of servers that are gone must be settled."""


def _variable(name: str) -> str:
    return f"KEY_{name.replace('-', '_').upper()}"


_LIMITED = {AT_ONCE_GROUP: {"concurrent_streams": AT_ONCE}} | {name: {"requests_per_minute": RATE} for name in RATE_KEYS}

SETTINGS: dict[str, Any] = {
    "providers": provider(),
    "routing": {"attempts": 1},  # each call that the provider receives is one that a client sent
    "database": {"pooler": True},
    "auth": {
        "keys": [
            {"name": "all", "key_env": "ANTIPHON_KEY"},
            *({"name": name, "key_env": _variable(name), "limits": quota} for name, quota in _LIMITED.items()),
        ]
    },
}
"""The settings that are added to the overlay's antiphon.yaml."""

SECRET = {
    "ANTIPHON_KEY": KEY,
    _variable(AT_ONCE_GROUP): AT_ONCE_KEY,
    **{_variable(name): key for name, key in RATE_KEYS.items()},
}
"""The data of the Secret `antiphon`."""


async def run(minutes: float, folder: Path, console: Console, only: str = "") -> bool:
    """Run the test, and return whether all requirements are met.

    Writes the report, the calls and the logs of the replicas into `folder`.
    """
    files = Path(tempfile.mkdtemp(prefix="cluster-"))
    network = Network()
    journal = Journal()
    try:
        async with AsyncExitStack() as stack:
            console.print("Starting PostgreSQL, PgBouncer, Redis, the provider and the replicas")
            stores = stack.enter_context(Stores())
            upstream = await stack.enter_async_context(Upstream())
            template = Template(files, SETTINGS, SECRET, stores.urls)
            service = await stack.enter_async_context(Service(443, EDGE_PORT))
            deployment = await stack.enter_async_context(Deployment(template, network, service, files))
            clients = Clients(files / "ca.crt")
            faults = Faults(deployment, template, stores, journal)
            began = time.monotonic()
            async with Display(console, journal, deployment, faults).show(), Load(clients, journal).calling():
                await faults.run(minutes, only)
            seconds = time.monotonic() - began
            await until(lambda: not any(state == "in_progress" for _, _, state in stores.turns()), SETTLING)
            found = Findings(
                turns=stores.turns(),
                replies=await _replies(clients, journal),
                request_counts=upstream.request_counts,
                cancelled=len(upstream.cancelled),
                at_once=upstream.most.get(AT_ONCE_GROUP, ()),
                exit_codes=deployment.exit_codes,
            )
            report = Report(journal, faults.windows, found, seconds, template.replicas)
            _write(report, folder, console)
            _write_calls(journal, faults, folder, began)
            return report.ok
    finally:
        await asyncio.to_thread(_keep_logs, files, folder)


async def _replies(clients: Clients, journal: Journal) -> dict[str, str]:
    """Return the text of each message of each recorded conversation, by message id."""
    found: dict[str, str] = {}
    metadata = [("authorization", f"Bearer {KEY}")]
    async with clients.edge() as channel:
        stub = history_pb2_grpc.HistoryServiceStub(channel)
        for conversation in {turn.conversation for turn in journal.turns}:
            request = history_pb2.ListMessagesRequest(conversation_id=conversation, page_size=1000)
            try:
                messages = (await stub.ListMessages(request, metadata=metadata, timeout=30)).messages
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    continue  # its turns count as lost
                raise
            found |= {one.id: one.message.blocks[0].text.text for one in messages if one.message.blocks}
    return found


def _write(report: Report, folder: Path, console: Console) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_bytes(orjson.dumps(report.figures(), option=orjson.OPT_INDENT_2))
    with (folder / "report.txt").open("w") as file:
        report.print(Console(file=file, width=160))
    report.print(console)


def _write_calls(journal: Journal, faults: Faults, folder: Path, began: float) -> None:
    """Write each window and each call as a line of JSON. Times are seconds since the load began."""
    calls = [
        {"kind": call.kind, "name": call.name, "began": call.began - began, "ended": call.ended - began}
        | {"outcome": call.outcome.value, "cause": call.cause}
        for call in journal.calls
    ]
    windows = [{"window": window.name, "began": window.began - began, "ended": window.ended - began} for window in faults.windows]
    (folder / "calls.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in [*windows, *calls]))


def _keep_logs(files: Path, folder: Path) -> None:
    for log in files.glob("*/*.log"):
        kept = folder / "logs" / log.parent.name
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, kept / log.name)
