"""Stored keys and the audit log, on SQLite and on PostgreSQL."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from sqlalchemy import text

from antiphon.auth.api_keys.secret import new_key
from antiphon.auth.api_keys.store import Grants, KeyStore, StoredKey
from antiphon.auth.api_keys.stored import FRESH, STALE, StoredKeys
from antiphon.auth.audit import REFUSED, AuditLog, Event, Origin
from antiphon.database.base import Database
from antiphon.database.open import open_database
from antiphon.domain.errors import InvalidRequest, KeyNotFound, KeyRevoked, StoreUnavailable, Unauthenticated
from antiphon.domain.principal import DEFAULT_SCOPES, Quota, Scope, scopes_or_default

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
        grants=Grants(**({"scopes": scopes_or_default(None)} | grants)),  # type: ignore[arg-type]
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


async def test_a_stored_key_with_empty_lists_opens_nothing(keys: KeyStore) -> None:
    """No scope and no model; a key that was stored without models may use all of them."""
    _, closed = await make(keys, "closed", scopes=(), models=())
    _, usual = await make(keys, "usual")
    found, other = [await StoredKeys(keys).authenticate(secret) for secret in (closed, usual)]
    assert found is not None
    assert other is not None
    assert (found.scopes, found.models, found.may_use("gpt-4o", "openai")) == (frozenset(), (), False)
    assert (other.models, other.may_use("gpt-4o", "openai")) == (None, True)


async def test_the_secret_is_nowhere_in_the_database(keys: KeyStore, database: Database) -> None:
    """Only its digest, and its last characters."""
    _, secret = await make(keys)
    rows = await database.read(lambda connection: [tuple(row) for row in connection.execute(text("SELECT * FROM api_keys"))])
    assert len(rows) == 1
    assert secret not in str(rows)
    assert secret[6:20] not in str(rows)


async def test_a_revoked_key_is_refused(keys: KeyStore) -> None:
    """As soon as what is remembered of it is no longer fresh; for good."""
    now = 0.0
    made, secret = await make(keys)
    judge = StoredKeys(keys, lambda: now)
    assert await judge.authenticate(secret)
    revoked = await keys.revoke(made.id, origin=BOSS)
    now += FRESH
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


async def test_a_key_is_an_issuers_users_only_if_that_is_said(database: Database) -> None:
    """Its name makes nobody's conversations its own."""
    keys = KeyStore(database, ("corp:",))
    with pytest.raises(InvalidRequest) as caught:
        await make(keys, "corp:vic")
    assert [violation.path for violation in caught.value.violations] == [("key", "owner")]
    for name, owner in (("corp:vic", "ops"), ("for vic", "corp:vic"), ("corpse", ""), ("corp", "")):
        made, _ = await keys.create(name=name, owner=owner, grants=Grants((Scope.CHAT,)), expires=None, origin=BOSS)
        assert made.owner == (owner or name)


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


async def test_keys_are_found_by_name(keys: KeyStore) -> None:
    """Exactly that, and all of them, page by page; revoked ones only if they are asked for."""
    made = [(await make(keys, name=name))[0] for name in ("app", "app", "App", "application", "app")]
    await keys.revoke(made[1].id, origin=BOSS)
    assert [key.id for key in (await keys.list(size=9, name="app")).keys] == [made[4].id, made[0].id]
    first = await keys.list(size=1, name="app", revoked=True)
    rest = await keys.list(size=9, name="app", revoked=True, token=first.next_token)
    assert [key.id for key in (*first.keys, *rest.keys)] == [made[4].id, made[1].id, made[0].id]
    with pytest.raises(InvalidRequest):
        await keys.list(size=9, name="App", revoked=True, token=first.next_token)
    assert (await keys.list(size=9, name="a\0pp")).keys == ()


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


async def test_a_known_key_outlives_an_outage(database: Database) -> None:
    """For a while; one that is not known cannot be judged, and that is no refusal."""
    now = 0.0
    keys = Away(database)
    (_, secret), (_, unknown) = await make(keys), await make(keys)
    judge = StoredKeys(keys, lambda: now)
    assert await judge.authenticate(secret)
    keys.away = True
    for seconds in (FRESH, STALE - FRESH - 1):
        now += seconds
        assert await judge.authenticate(secret)
        with pytest.raises(StoreUnavailable):
            await judge.authenticate(unknown)
    now += 1
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


class Timer:
    """Goes on when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def refusal(number: int, actor: str = "", **fields: str) -> Event:
    usual = {"target": f"Service/{number % 7}", "reason": "UNAUTHENTICATED", "peer": "198.51.100.1"}
    return Event(REFUSED, actor, **{**usual, **fields})


async def test_nobody_without_a_key_fills_the_audit_log(database: Database) -> None:
    """However many doors and addresses are tried, it is a row for each of a few addresses, and one for all the others."""
    audit = AuditLog(database)
    audit.refused(refusal(0, "static:joe", reason="PERMISSION_DENIED"))
    for number in range(5000):
        audit.refused(refusal(number))
        audit.refused(refusal(number, peer=f"2001:db8::{number:x}"))
    audit.refused(refusal(0, reason="RATE_LIMIT_EXCEEDED"))
    await audit.write()
    found = [stored.event for stored in (await audit.list(size=100)).events]
    assert len(found) == 1 + 20 + 2
    assert found.count(refusal(0, "static:joe", reason="PERMISSION_DENIED")) == 1
    counts = {(event.peer, event.reason): (event.count, event.target) for event in found}
    assert counts["198.51.100.1", "UNAUTHENTICATED"] == (5000, "*")
    assert counts["2001:db8::0", "UNAUTHENTICATED"] == (1, "Service/0")
    assert counts["*", "UNAUTHENTICATED"] == (5000 - 19, "*")
    assert counts["*", "RATE_LIMIT_EXCEEDED"] == (1, "*")


async def test_refusals_of_nobody_known_are_written_once_a_minute(database: Database) -> None:
    """Those of known callers are each time; all of them before they are listed."""
    timer = Timer()
    audit = AuditLog(database, timer)

    async def after(seconds: float) -> list[tuple[str, int]]:
        timer.now += seconds
        audit.refused(refusal(1))
        audit.refused(refusal(1, "static:joe"))
        await audit.keep()
        return [(stored.event.actor, stored.event.count) for stored in (await audit.list(size=100)).events]

    assert sorted(await after(0)) == [("", 1), ("static:joe", 1)]
    for calls in (2, 3, 4):
        assert sorted(await after(5)) == [("", 1), *[("static:joe", 1)] * calls]
    assert sorted(await after(50))[:3] == [("", 1), ("", 4), ("static:joe", 1)]


async def test_refusals_of_a_known_caller_are_one_row_for_each_method(database: Database) -> None:
    """In whatever order they come; beyond what can be told apart, one for each caller."""
    audit = AuditLog(database)
    for number in range(700):
        audit.refused(refusal(number, "static:joe"))
    for number in range(2000):
        audit.refused(refusal(number, "static:eve", peer=f"10.0.{number // 250}.{number % 250}"))
    audit.refused(refusal(1, "static:ann"))
    await audit.write()
    found = [stored.event for stored in (await audit.list(size=2000)).events]
    counts = {(event.actor, event.target, event.peer): event.count for event in found}
    assert len(found) == len(counts) == 1000 + 2
    assert [counts["static:joe", f"Service/{number}", "198.51.100.1"] for number in range(7)] == [100] * 7
    assert counts["static:eve", "*", "*"] == 2000 - (1000 - 7)
    assert counts["static:ann", "*", "*"] == 1


class Hanging:
    """A database that can be away."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.away = True

    def __getattr__(self, name: str) -> object:
        return getattr(self.database, name)

    async def write(self, work: object) -> object:
        answer = await self.database.write(work)  # type: ignore[arg-type]
        if self.away:  # lost in the moment of the commit
            raise StoreUnavailable
        return answer


async def test_refusals_outlive_an_outage_of_the_database(database: Database) -> None:
    """With those that came meanwhile; what had been written after all is not written twice."""
    hanging = Hanging(database)
    audit = AuditLog(hanging)  # type: ignore[arg-type]
    audit.refused(refusal(1))
    with pytest.raises(StoreUnavailable):
        await audit.write()
    audit.refused(refusal(1))
    audit.refused(refusal(1, "static:joe"))
    hanging.away = False
    await audit.write()
    await audit.write()
    assert sorted(stored.event.actor for stored in (await audit.list(size=9)).events) == ["", "static:joe"]


def test_no_scope_means_all_but_admin() -> None:
    """Whoever names some gets those."""
    assert set(scopes_or_default(None)) == DEFAULT_SCOPES
    assert scopes_or_default([Scope.ADMIN, Scope.ADMIN]) == (Scope.ADMIN,)
