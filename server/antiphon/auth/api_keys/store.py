"""API keys in the database: create, list, revoke, rotate and find.

Every change is recorded in the audit log, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct
from pydantic import SecretStr
from sqlalchemy import Connection, bindparam, insert, or_, select, update

from antiphon.auth import audit
from antiphon.auth.api_keys.secret import digest, new_key
from antiphon.database import clock, paging, text
from antiphon.database.base import Database
from antiphon.database.ids import is_id, new_id
from antiphon.database.tables import api_keys
from antiphon.domain.errors import KeyNotFound, KeyRevoked
from antiphon.domain.principal import MAX_MODEL, MAX_NAME, MAX_OWNER, UNLIMITED, Principal, Quota, Scope

LONGEST_OVERLAP: Final = timedelta(days=7)

_HINT: Final = 4


class Grants(Struct, frozen=True, omit_defaults=True):
    """What a key permits, as stored."""

    scopes: tuple[Scope, ...]
    models: tuple[str, ...] | None = None
    """The models allowed. None allows all; so does a row without this field."""
    quota: Quota = UNLIMITED
    tags: dict[str, str] = {}
    """See `antiphon.domain.tags`."""


class StoredKey(Struct, frozen=True):
    """A key without its secret. Times are in UTC."""

    id: str
    hint: str
    name: str
    owner: str
    grants: Grants
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None

    @property
    def principal(self) -> Principal:
        """Return the principal that calls with this key."""
        grants = self.grants
        return Principal(
            self.name,
            self.owner,
            f"key:{self.id}",
            frozenset(grants.scopes),
            grants.models,
            grants.quota,
            tuple(grants.tags.items()),
        )

    def is_valid_at(self, time: datetime) -> bool:
        """Return whether the key is neither revoked nor expired at `time`."""
        return self.revoked is None and (self.expires is None or time < self.expires)


class KeyPage(Struct, frozen=True):
    """One page of keys; `next_token` requests the next page, and is empty on the last one."""

    keys: tuple[StoredKey, ...]
    next_token: str


class _Token(Struct, frozen=True, array_like=True, tag="k"):
    id: str
    filters: tuple[str, bool, str]


_grants: Final = msgspec.json.Decoder(Grants)
_COLUMNS: Final = tuple(
    api_keys.c[name] for name in ("id", "hint", "name", "owner", "grants", "created", "expires", "revoked", "last_used")
)
_ONE: Final = select(*_COLUMNS).where(api_keys.c.id == bindparam("key"))
_BY_DIGEST: Final = select(*_COLUMNS).where(
    or_(
        api_keys.c.digest == bindparam("given"),
        (api_keys.c.previous_digest == bindparam("given")) & (api_keys.c.previous_until > bindparam("now")),
    )
)
_USED: Final = update(api_keys).where(api_keys.c.id == bindparam("key")).values(last_used=bindparam("time"))


class KeyStore:
    """The stored keys, shared by all calls of a process. Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database, reserved: tuple[str, ...] = ()) -> None:
        """Keys whose name begins with one of `reserved` need an explicit owner: see `AuthConfig.reserved`."""
        self._database = database
        self._reserved = reserved

    async def create(
        self, *, name: str, owner: str, grants: Grants, expires: datetime | None, origin: audit.CallOrigin
    ) -> tuple[StoredKey, SecretStr]:
        """Create a key; return it and its secret, which is not stored. Raises `InvalidRequest`."""
        text.check_name(name, "key.name", MAX_NAME)
        text.check_name(owner, "key.owner", MAX_OWNER)
        for model in grants.models or ():
            text.check_name(model, "key.models", MAX_MODEL)
        if not owner and name.startswith(self._reserved):
            raise text.bad(("key", "owner"), "must be set, as the name could be that of an owner of an issuer's")
        secret = new_key()
        values = {
            "id": new_id(),
            "digest": digest(secret.get_secret_value()).hex(),
            "hint": secret.get_secret_value()[-_HINT:],
            "name": name,
            "owner": owner or name,
            "grants": msgspec.json.encode(grants).decode(),
            "created": clock.now(),
            "expires": None if expires is None else clock.stored(expires),
        }

        def work(connection: Connection) -> StoredKey:
            row = connection.execute(insert(api_keys).returning(*_COLUMNS), values).one()
            audit.record(connection, "keys.create", row.id, origin)
            return _stored(row)

        return await self._database.write(work), secret

    async def get(self, key: str) -> StoredKey:
        """Return a key by its id. Raises `KeyNotFound`."""
        return await self._database.read(lambda connection: _find(connection, key))

    async def list(self, *, size: int, token: str = "", owner: str = "", revoked: bool = False, name: str = "") -> KeyPage:
        """Return a page of keys, newest first; only those of `owner`, and with exactly this `name`, if given.

        Raises `InvalidRequest` for a page token that another list issued.
        """
        query = select(*_COLUMNS).order_by(api_keys.c.id.desc()).limit(size + 1)
        if owner:
            query = query.where(api_keys.c.owner == text.clean(owner))
        if name:
            query = query.where(api_keys.c.name == text.clean(name))
        if not revoked:
            query = query.where(api_keys.c.revoked.is_(None))
        if token:
            after = paging.read_token(token, _Token)
            if after.filters != (owner, revoked, name) or not is_id(after.id):
                raise paging.bad_token()
            query = query.where(api_keys.c.id < after.id)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        more = len(found) > size
        following = paging.token(_Token(found[size - 1].id, (owner, revoked, name))) if more else ""
        return KeyPage(tuple(map(_stored, found[:size])), following)

    async def revoke(self, key: str, *, origin: audit.CallOrigin) -> StoredKey:
        """Revoke a key; a revoked one is returned unchanged. Raises `KeyNotFound`."""

        def work(connection: Connection) -> StoredKey:
            found = _find(connection, key)
            if found.revoked is not None:
                return found
            change = update(api_keys).where(api_keys.c.id == key).values(revoked=clock.now()).returning(*_COLUMNS)
            row = connection.execute(change).one()
            audit.record(connection, "keys.revoke", key, origin)
            return _stored(row)

        return await self._database.write(work)

    async def rotate(self, key: str, *, overlap: timedelta, origin: audit.CallOrigin) -> tuple[StoredKey, SecretStr]:
        """Give a key a new secret; the previous one stays valid for `overlap`. Raises `KeyNotFound`, `KeyRevoked`."""
        secret = new_key()

        def work(connection: Connection) -> StoredKey:
            now = clock.now()
            if not _find(connection, key).is_valid_at(clock.read(now)):
                raise KeyRevoked(key)
            change = (
                update(api_keys)
                .where(api_keys.c.id == key)
                .values(
                    digest=digest(secret.get_secret_value()).hex(),
                    hint=secret.get_secret_value()[-_HINT:],
                    previous_digest=api_keys.c.digest,
                    previous_until=now + overlap // timedelta(microseconds=1),
                )
            )
            row = connection.execute(change.returning(*_COLUMNS)).one()
            audit.record(connection, "keys.rotate", key, origin)
            return _stored(row)

        return await self._database.write(work), secret

    async def find(self, given: bytes) -> StoredKey | None:
        """Return the key whose secret has this digest, even if it is revoked or expired, or None."""
        at = {"given": given.hex(), "now": clock.now()}
        row = await self._database.read(lambda connection: connection.execute(_BY_DIGEST, at).first())
        return None if row is None else _stored(row)

    async def write_uses(self, uses: Mapping[str, datetime]) -> None:
        """Store when keys were last used; `uses` is by key id."""
        rows = [{"key": key, "time": clock.stored(time)} for key, time in sorted(uses.items())]
        await self._database.write(lambda connection: connection.execute(_USED, rows) and None)


def _find(connection: Connection, key: str) -> StoredKey:
    row = connection.execute(_ONE, {"key": key}).first() if is_id(key) else None
    if row is None:
        raise KeyNotFound(key[:MAX_NAME])
    return _stored(row)


def _stored(row: Sequence[Any]) -> StoredKey:
    id_, hint, name, owner, grants, created, expires, revoked, last_used = row
    times = (None if time is None else clock.read(time) for time in (expires, revoked, last_used))
    return StoredKey(id_, hint, name, owner, _grants.decode(grants), clock.read(created), *times)
