"""Stored keys and the audit log, on SQLite and on PostgreSQL."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from sqlalchemy import text

from antiphon.auth import stored
from antiphon.auth.audit import REFUSED, AuditLog, Event
from antiphon.auth.caller import Origin
from antiphon.auth.key_store import Grants, KeyStore, StoredKey
from antiphon.auth.secret import new_key
from antiphon.auth.stored import StoredKeys
from antiphon.database.base import Database
from antiphon.database.open import open_database
from antiphon.errors import InvalidRequest, KeyNotFound, KeyRevoked, StoreUnavailable, Unauthenticated
from antiphon.principal import EVERYDAY, Quota, Scope, everyday

BOSS = Origin("static:boss", "request-1", "203.0.113.9")
NOBODY = "01890000-0000-7000-8000-000000000000"


@pytest_asyncio.fixture
async def database(url: str) -> AsyncGenerator[Database, None]:
    opened = open_database(url)
    yield opened
    await opened.close()


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


async def make(keys: KeyStore, name: str = "app", expires: datetime | None = None, **grants: object) -> tuple[StoredKey, str]:
    made, secret = await keys.create(
        name=name,
        owner="",
        grants=Grants(**({"scopes": everyday([])} | grants)),  # type: ignore[arg-type]
        expires=expires,
        origin=BOSS,
    )
    return made, secret.get_secret_value()


async def test_a_key_opens_what_it_was_given(keys: KeyStore) -> None:
    """Its secret alone; all that was granted comes back."""
    quota = Quota(requests_per_minute=5, daily_usd=0.5)
    made, secret = await make(keys, "ops", scopes=(Scope.ADMIN, Scope.CHAT), models=("gpt-*",), quota=quota)
    found = await StoredKeys(keys).authenticate(secret)
    assert found is not None
    assert (found.id, found.name, found.owner) == (f"key:{made.id}", "ops", "ops")
    assert (found.scopes, found.models, found.quota) == (frozenset({Scope.ADMIN, Scope.CHAT}), ("gpt-*",), quota)
    assert made.hint == secret[-4:]
    for other in (new_key().get_secret_value(), secret[:-1], "", "sk-x"):
        assert await StoredKeys(keys).authenticate(other) is None


async def test_the_secret_is_nowhere_in_the_database(keys: KeyStore, database: Database) -> None:
    """Only its digest, and its last characters."""
    _, secret = await make(keys)
    rows = await database.read(lambda connection: [tuple(row) for row in connection.execute(text("SELECT * FROM api_keys"))])
    assert len(rows) == 1
    assert secret not in str(rows)
    assert secret[6:20] not in str(rows)


async def test_a_revoked_key_is_refused(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as what is remembered of it is no longer fresh; for good."""
    monkeypatch.setattr(stored, "FRESH", 0.0)
    made, secret = await make(keys)
    judge = StoredKeys(keys)
    assert await judge.authenticate(secret)
    revoked = await keys.revoke(made.id, origin=BOSS)
    assert revoked.revoked is not None
    with pytest.raises(Unauthenticated):
        await judge.authenticate(secret)
    assert await keys.revoke(made.id, origin=BOSS) == revoked
    with pytest.raises(KeyRevoked):
        await keys.rotate(made.id, overlap=timedelta(), origin=BOSS)


async def test_an_expired_key_is_refused(keys: KeyStore) -> None:
    """At its moment, and though it is remembered."""
    _, secret = await make(keys, expires=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(Unauthenticated):
        await StoredKeys(keys).authenticate(secret)


async def test_a_rotated_key_keeps_what_it_opens(keys: KeyStore) -> None:
    """The new secret is good at once, the old one for as long as the overlap says."""
    made, first = await make(keys)
    _, second = await keys.rotate(made.id, overlap=timedelta(hours=1), origin=BOSS)
    for secret in (first, second.get_secret_value()):
        found = await StoredKeys(keys).authenticate(secret)
        assert found is not None
        assert found.id == f"key:{made.id}"
    _, third = await keys.rotate(made.id, overlap=timedelta(), origin=BOSS)
    assert await StoredKeys(keys).authenticate(third.get_secret_value())
    for secret in (first, second.get_secret_value()):
        assert await StoredKeys(keys).authenticate(secret) is None


async def test_names_show(keys: KeyStore) -> None:
    """All of them: what would be a line of its own in a list, or turn it round, is refused; other scripts are not."""
    for odd in ("a\nb", "\x1b[2J", "a\u202eb", "a\u200b", "a\0", "\ud800", " "):
        for name, owner in ((odd, ""), ("x", odd)):
            with pytest.raises(InvalidRequest, match=r"^key\.(name|owner): "):
                await keys.create(name=name, owner=owner, grants=Grants((Scope.CHAT,)), expires=None, origin=BOSS)
    made, _ = await keys.create(name="Zoë", owner="株式会社 é", grants=Grants((Scope.CHAT,)), expires=None, origin=BOSS)
    assert (made.name, made.owner) == ("Zoë", "株式会社 é")


async def test_keys_are_listed_in_pages(keys: KeyStore) -> None:
    """The newest first; revoked ones where they are asked for; a token of another list is refused."""
    made = [(await make(keys, f"k{number}"))[0] for number in range(5)]
    await keys.revoke(made[1].id, origin=BOSS)
    first = await keys.list(size=3)
    rest = await keys.list(size=3, token=first.next_token)
    assert [key.name for key in (*first.keys, *rest.keys)] == ["k4", "k3", "k2", "k0"]
    assert rest.next_token == ""
    assert len((await keys.list(size=10, revoked=True)).keys) == 5
    assert [key.name for key in (await keys.list(size=10, owner="k3")).keys] == ["k3"]
    for bad in ({"owner": "x"}, {"revoked": True}):
        with pytest.raises(InvalidRequest):
            await keys.list(size=3, token=first.next_token, **bad)  # type: ignore[arg-type]
    for odd in ("", "x", NOBODY, "a\0b", "\ud800"):
        with pytest.raises(KeyNotFound):
            await keys.get(odd)


async def test_uses_are_written_once_a_minute(keys: KeyStore) -> None:
    """Behind the calls, not in them."""
    made, secret = await make(keys)
    judge = StoredKeys(keys)
    await judge.authenticate(secret)
    assert (await keys.get(made.id)).last_used is None
    await judge.write_uses()
    used = (await keys.get(made.id)).last_used
    assert used is not None
    await judge.authenticate(secret)
    await judge.write_uses()
    assert (await keys.get(made.id)).last_used == used


class Away(KeyStore):
    """A store whose database can be away."""

    away = False
    asked = 0

    async def find(self, given: bytes) -> StoredKey | None:
        self.asked += 1
        if self.away:
            raise StoreUnavailable
        return await super().find(given)


async def test_a_known_key_outlives_an_outage(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while; one that is not known cannot be judged, and that is no refusal."""
    monkeypatch.setattr(stored, "FRESH", 0.0)
    keys = Away(database)
    (_, secret), (_, unknown) = await make(keys), await make(keys)
    judge = StoredKeys(keys)
    assert await judge.authenticate(secret)
    keys.away = True
    assert await judge.authenticate(secret)
    with pytest.raises(StoreUnavailable):
        await judge.authenticate(unknown)
    monkeypatch.setattr(stored, "STALE", 0.0)
    with pytest.raises(StoreUnavailable):
        await judge.authenticate(secret)


async def test_what_is_fresh_asks_nothing(database: Database) -> None:
    """One look-up for many calls."""
    keys = Away(database)
    _, secret = await make(keys)
    judge = StoredKeys(keys)
    for _ in range(50):
        assert await judge.authenticate(secret)
    assert keys.asked == 1


async def test_the_audit_log_tells_what_was_done(keys: KeyStore, database: Database) -> None:
    """With the change itself; refusals alike are one row; pages go on where they ended."""
    audit = AuditLog(database)
    made, secret = await make(keys)
    await keys.rotate(made.id, overlap=timedelta(), origin=BOSS)
    await keys.revoke(made.id, origin=BOSS)
    for number in range(5):
        audit.refused(Event(REFUSED, "", "ChatService/Generate", "UNAUTHENTICATED", f"r{number}", "198.51.100.1"))
    audit.refused(Event(REFUSED, "static:joe", "x\0" * 500, "PERMISSION_DENIED"))
    await audit.write()
    await audit.write()
    first = await audit.list(size=2)
    rest = await audit.list(size=10, token=first.next_token)
    events = [found.event for found in (*first.events, *rest.events)]
    assert [event.action for event in events] == [REFUSED, REFUSED, "keys.revoke", "keys.rotate", "keys.create"]
    assert (events[1].count, events[1].request_id, events[1].peer) == (5, "r0", "198.51.100.1")
    assert len(events[0].target) == 200
    assert {event.target for event in events[2:]} == {made.id}
    assert secret not in str(events)
    assert [found.event.action for found in (await audit.list(size=9, actor="static:boss", action="keys.create")).events] == [
        "keys.create"
    ]
    await audit.prune(0)
    assert (await audit.list(size=9)).events == ()


def test_no_scope_means_all_but_admin() -> None:
    """Whoever names some gets those."""
    assert set(everyday([])) == EVERYDAY
    assert everyday([Scope.ADMIN, Scope.ADMIN]) == (Scope.ADMIN,)
