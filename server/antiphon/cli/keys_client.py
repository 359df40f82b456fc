"""The API keys of a running gateway as seen from a terminal: a client of its AdminService.

All of it raises `grpc.aio.AioRpcError`, and `UnicodeError` for a text that is not UTF-8.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf import duration_pb2, timestamp_pb2
from rich.markup import escape
from rich.table import Table

from antiphon.cli.client import connect, metadata_of
from antiphon.cli.console import out, print_table
from antiphon.v1 import admin_pb2, admin_pb2_grpc

SCOPES: Final = frozenset({"chat", "history", "proxy", "engine", "admin"})
"""What a key may open, in the words of the command line."""


def create(
    address: str,
    key: str,
    name: str,
    owner: str,
    scopes: Sequence[str],
    models: Sequence[str],
    days: float | None,
    quota: Mapping[str, Any],
) -> None:
    """Makes a key, and shows its secret. `days` None: it does not end."""
    named = [admin_pb2.Scope.Value(f"SCOPE_{scope.upper()}") for scope in scopes]
    wanted = admin_pb2.Key(name=name, owner=owner, scopes=named, models=models, quota=admin_pb2.Quota(**quota))
    if days is not None:
        wanted.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    request = admin_pb2.CreateKeyRequest(key=wanted)
    made: admin_pb2.CreateKeyResponse = ask(address, lambda stub: stub.CreateKey(request, metadata=metadata_of(key)))
    _show_secret(made.key, made.secret)


def show(address: str, key: str, owner: str, *, revoked: bool) -> None:
    """Lists the keys."""
    table = Table("id", "name", "owner", "secret", "scopes", "models", "expires", "last used", "state")
    request = admin_pb2.ListKeysRequest(owner=owner, show_revoked=revoked)
    while True:
        page: admin_pb2.ListKeysResponse = ask(address, lambda stub: stub.ListKeys(request, metadata=metadata_of(key)))
        for found in page.keys:
            table.add_row(*map(escape, _row(found)))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    print_table(table)


def revoke(address: str, key: str, id_: str) -> None:
    """Ends a key."""
    request = admin_pb2.RevokeKeyRequest(id=id_)
    answer: admin_pb2.RevokeKeyResponse = ask(address, lambda stub: stub.RevokeKey(request, metadata=metadata_of(key)))
    out.print(f"The key {escape(answer.key.name)} ({answer.key.id}) is revoked.", soft_wrap=True)


def rotate(address: str, key: str, id_: str, overlap: float) -> None:
    """Gives a key another secret, and shows it; `overlap` is in hours."""
    request = admin_pb2.RotateKeyRequest(id=id_, overlap=duration_pb2.Duration(seconds=round(overlap * 3600)))
    made: admin_pb2.RotateKeyResponse = ask(address, lambda stub: stub.RotateKey(request, metadata=metadata_of(key)))
    _show_secret(made.key, made.secret)


def ask(address: str, question: Callable[[Any], Any]) -> Any:
    """What a running gateway's AdminService answers to `question`, which is given its stub."""

    async def asked() -> Any:
        async with connect(address) as channel:
            return await question(admin_pb2_grpc.AdminServiceStub(channel))

    return asyncio.run(asked())


def _show_secret(key: admin_pb2.Key, secret: str) -> None:
    out.print(f"The key {escape(key.name)} ({key.id}). Its secret is shown here, and never again:", soft_wrap=True)
    out.print(f"  {escape(secret)}", soft_wrap=True)


def _row(key: admin_pb2.Key) -> list[str]:
    scopes = " ".join(admin_pb2.Scope.Name(scope).removeprefix("SCOPE_").lower() for scope in key.scopes)
    expires = _day(key.expire_time) if key.HasField("expire_time") else "never"
    used = _day(key.last_use_time) if key.HasField("last_use_time") else "never"
    past = key.HasField("expire_time") and key.expire_time.ToDatetime(UTC) <= datetime.now(UTC)
    state = "revoked" if key.HasField("revoke_time") else "expired" if past else "good"
    return [key.id, key.name, key.owner, f"...{key.hint}", scopes, " ".join(key.models) or "all", expires, used, state]


def _day(time: timestamp_pb2.Timestamp) -> str:
    return time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M")
