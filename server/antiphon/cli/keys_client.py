"""A client of the AdminService of a running gateway, for its API keys.

Every function raises `grpc.aio.AioRpcError`, and `UnicodeError` for text that is not UTF-8.
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
"""The scopes of a key, as written on the command line."""

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
    """Create a key, and return it with its secret. With `days` None it never expires."""
    named = [admin_pb2.Scope.Value(f"SCOPE_{scope.upper()}") for scope in scopes]
    wanted = admin_pb2.Key(name=name, owner=owner, scopes=named, models=models, quota=admin_pb2.Quota(**quota), tags=tags)
    if days is not None:
        wanted.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    request = admin_pb2.CreateKeyRequest(key=wanted)
    response: admin_pb2.CreateKeyResponse = call_admin(address, lambda stub: stub.CreateKey(request, metadata=metadata_of(key)))
    return response


def list_keys(address: str, key: str, *, owner: str = "", name: str = "", revoked: bool = False) -> Iterator[admin_pb2.Key]:
    """Yield the keys, newest first, filtered by owner and exact name if given. `revoked` includes revoked keys."""
    request = admin_pb2.ListKeysRequest(owner=owner, name=name, show_revoked=revoked, page_size=_PAGE)
    while True:
        page: admin_pb2.ListKeysResponse = call_admin(address, lambda stub: stub.ListKeys(request, metadata=metadata_of(key)))
        yield from (found for found in page.keys if name in {"", found.name})  # an older gateway ignores the name
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def revoke(address: str, key: str, id_: str) -> admin_pb2.Key:
    """Revoke a key, and return it."""
    request = admin_pb2.RevokeKeyRequest(id=id_)
    answer: admin_pb2.RevokeKeyResponse = call_admin(address, lambda stub: stub.RevokeKey(request, metadata=metadata_of(key)))
    return answer.key


def rotate(address: str, key: str, id_: str, overlap: float) -> admin_pb2.RotateKeyResponse:
    """Give the key with the id `id_` a new secret, and return key and secret.

    `key` is the caller's own key. The old secret stays valid for `overlap` hours.
    """
    request = admin_pb2.RotateKeyRequest(id=id_, overlap=duration_pb2.Duration(seconds=round(overlap * 3600)))
    response: admin_pb2.RotateKeyResponse = call_admin(address, lambda stub: stub.RotateKey(request, metadata=metadata_of(key)))
    return response


def call_admin(address: str, rpc: Callable[[Any], Any]) -> Any:
    """Call `rpc` with a stub of the AdminService at `address`, and return its response."""

    async def call() -> Any:
        async with connect(address) as channel:
            return await rpc(admin_pb2_grpc.AdminServiceStub(channel))

    return asyncio.run(call())
