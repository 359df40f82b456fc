"""The API keys of a running gateway as seen from a terminal: a client of its AdminService.

All of it raises `grpc.aio.AioRpcError`, and `UnicodeError` for a text that is not UTF-8.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf import duration_pb2

from antiphon.cli.client import connect, metadata_of
from antiphon.v1 import admin_pb2, admin_pb2_grpc

SCOPES: Final = frozenset({"chat", "history", "proxy", "engine", "admin"})
"""What a key may open, in the words of the command line."""

_PAGE: Final = 1000


def create(
    address: str,
    key: str,
    name: str,
    owner: str,
    scopes: Sequence[str],
    models: Sequence[str],
    days: float | None,
    quota: Mapping[str, Any],
    tags: Mapping[str, str],
) -> admin_pb2.CreateKeyResponse:
    """Make a key, and return it with its secret. `days` None: it does not end."""
    named = [admin_pb2.Scope.Value(f"SCOPE_{scope.upper()}") for scope in scopes]
    wanted = admin_pb2.Key(name=name, owner=owner, scopes=named, models=models, quota=admin_pb2.Quota(**quota), tags=tags)
    if days is not None:
        wanted.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    request = admin_pb2.CreateKeyRequest(key=wanted)
    made: admin_pb2.CreateKeyResponse = ask(address, lambda stub: stub.CreateKey(request, metadata=metadata_of(key)))
    return made


def listed(address: str, key: str, *, owner: str = "", name: str = "", revoked: bool = False) -> Iterator[admin_pb2.Key]:
    """Yield the keys, the newest first: of an owner, of exactly that name, and the revoked ones if these are asked for."""
    request = admin_pb2.ListKeysRequest(owner=owner, name=name, show_revoked=revoked, page_size=_PAGE)
    while True:
        page: admin_pb2.ListKeysResponse = ask(address, lambda stub: stub.ListKeys(request, metadata=metadata_of(key)))
        yield from (found for found in page.keys if name in {"", found.name})  # an older gateway does not look at the name
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def revoke(address: str, key: str, id_: str) -> admin_pb2.Key:
    """End a key, and return it."""
    request = admin_pb2.RevokeKeyRequest(id=id_)
    answer: admin_pb2.RevokeKeyResponse = ask(address, lambda stub: stub.RevokeKey(request, metadata=metadata_of(key)))
    return answer.key


def rotate(address: str, key: str, id_: str, overlap: float) -> admin_pb2.RotateKeyResponse:
    """Give a key another secret, and return both; `overlap` is in hours."""
    request = admin_pb2.RotateKeyRequest(id=id_, overlap=duration_pb2.Duration(seconds=round(overlap * 3600)))
    made: admin_pb2.RotateKeyResponse = ask(address, lambda stub: stub.RotateKey(request, metadata=metadata_of(key)))
    return made


def ask(address: str, question: Callable[[Any], Any]) -> Any:
    """What a running gateway's AdminService answers to `question`, which is given its stub."""

    async def asked() -> Any:
        async with connect(address) as channel:
            return await question(admin_pb2_grpc.AdminServiceStub(channel))

    return asyncio.run(asked())
