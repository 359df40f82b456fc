"""Stored keys and the audit log, on SQLite and on PostgreSQL."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from sqlalchemy import text

from antiphon.auth.api_keys.secret import new_key
from antiphon.auth.api_keys.store import Grants, KeyStore, StoredKey
from antiphon.auth.api_keys.stored import FRESH, STALE, StoredKeys
from antiphon.auth.audit import REFUSED, AuditLog, CallOrigin, Event
from antiphon.database.base import Database
from antiphon.database.open import open_database
from antiphon.domain.errors import InvalidRequest, KeyNotFound, KeyRevoked, StoreUnavailable, Unauthenticated
from antiphon.domain.principal import DEFAULT_SCOPES, Quota, Scope, scopes_or_default

BOSS = CallOrigin("static:boss", "request-1", "203.0.113.9")
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
    """Only its exact secret authenticates a key, with everything that was granted."""
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
    """A key with empty lists of scopes and models permits nothing. A key stored without models may use all."""
    _, closed = await make(keys, "closed", scopes=(), models=())
    _, usual = await make(keys, "usual")
    found, other = [await StoredKeys(keys).authenticate(secret) for secret in (closed, usual)]
    assert found is not None
    assert other is not None
    assert (found.scopes, found.models, found.may_use("gpt-4o", "openai")) == (frozenset(), (), False)
    assert (other.models, other.may_use("gpt-4o", "openai")) == (None, True)


async def test_the_secret_is_nowhere_in_the_database(keys: KeyStore, database: Database) -> None:
    """The database has only the digest and the last characters of a secret."""
    _, secret = await make(keys)
    rows = await database.read(lambda connection: [tuple(row) for row in connection.execute(text("SELECT * FROM api_keys"))])
    assert len(rows) == 1
    assert secret not in str(rows)
    assert secret[6:20] not in str(rows)


async def test_a_revoked_key_is_refused(keys: KeyStore) -> None:
    """A revoked key is refused for good, as soon as its cache entry is no longer fresh."""
    now = 0.0
    made, secret = await make(keys)
    authenticator = StoredKeys(keys, lambda: now)
    assert await authenticator.authenticate(secret)
    revoked = await keys.revoke(made.id, origin=BOSS)
    now += FRESH
    assert revoked.revoked is not None
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(secret)
    assert await keys.revoke(made.id, origin=BOSS) == revoked
    with pytest.raises(KeyRevoked):
        await keys.rotate(made.id, overlap=timedelta(), origin=BOSS)


async def test_an_expired_key_is_refused(keys: KeyStore) -> None:
    """A key is refused from the moment when it expires, even if it is cached."""
    _, secret = await make(keys, expires=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(Unauthenticated):
        await StoredKeys(keys).authenticate(secret)


async def test_a_rotated_key_keeps_what_it_opens(keys: KeyStore) -> None:
    """After a rotation the new secret is valid at once, and the old one during the overlap."""
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


async def test_names_must_be_printable(keys: KeyStore) -> None:
    """Names with control or invisible characters are refused, in keys and owners. Other scripts are allowed."""
    for odd in ("a\nb", "\x1b[2J", "a\u202eb", "a\u200b", "a\0", "\ud800", " "):
        for name, owner in ((odd, ""), ("x", odd)):
            with pytest.raises(InvalidRequest, match=r"^key\.(name|owner): "):
                await keys.create(name=name, owner=owner, grants=Grants((Scope.CHAT,)), expires=None, origin=BOSS)
    made, _ = await keys.create(name="Zoë", owner="株式会社 é", grants=Grants((Scope.CHAT,)), expires=None, origin=BOSS)
    assert (made.name, made.owner) == ("Zoë", "株式会社 é")


async def test_a_keys_name_does_not_make_it_an_issuers_users(database: Database) -> None:
    """A key belongs to an issuer's user only if the owner is given; its name alone cannot make it so."""
    keys = KeyStore(database, ("corp:",))
    with pytest.raises(InvalidRequest) as caught:
        await make(keys, "corp:vic")
    assert [violation.path for violation in caught.value.violations] == [("key", "owner")]
    for name, owner in (("corp:vic", "ops"), ("for vic", "corp:vic"), ("corpse", ""), ("corp", "")):
        made, _ = await keys.create(name=name, owner=owner, grants=Grants((Scope.CHAT,)), expires=None, origin=BOSS)
        assert made.owner == (owner or name)


async def test_keys_are_listed_in_pages(keys: KeyStore) -> None:
    """Keys are listed in pages, the newest first, revoked ones only if asked for. A token of another list is refused."""
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
    """Keys are found by their exact name, page by page; revoked ones only if asked for."""
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
    """The time of last use is written at most once a minute, and not during the call."""
    made, secret = await make(keys)
    authenticator = StoredKeys(keys)
    await authenticator.authenticate(secret)
    assert (await keys.get(made.id)).last_used is None
    await authenticator.write_uses()
    used = (await keys.get(made.id)).last_used
    assert used is not None
    await authenticator.authenticate(secret)
    await authenticator.write_uses()
    assert (await keys.get(made.id)).last_used == used


class UnreliableStore(KeyStore):
    """A store whose database can be unreachable."""

    away = False
    lookups = 0

    async def find(self, given: bytes) -> StoredKey | None:
        self.lookups += 1
        if self.away:
            raise StoreUnavailable
        return await super().find(given)


async def test_a_known_key_outlives_an_outage(database: Database) -> None:
    """During an outage a cached key works for a while. An unknown key gets `StoreUnavailable`, not a refusal."""
    now = 0.0
    keys = UnreliableStore(database)
    (_, secret), (_, unknown) = await make(keys), await make(keys)
    authenticator = StoredKeys(keys, lambda: now)
    assert await authenticator.authenticate(secret)
    keys.away = True
    for seconds in (FRESH, STALE - FRESH - 1):
        now += seconds
        assert await authenticator.authenticate(secret)
        with pytest.raises(StoreUnavailable):
            await authenticator.authenticate(unknown)
    now += 1
    with pytest.raises(StoreUnavailable):
        await authenticator.authenticate(secret)


async def test_a_fresh_cache_entry_needs_no_look_up(database: Database) -> None:
    """A fresh cache entry serves many calls with one look-up."""
    keys = UnreliableStore(database)
    _, secret = await make(keys)
    authenticator = StoredKeys(keys)
    for _ in range(50):
        assert await authenticator.authenticate(secret)
    assert keys.lookups == 1


async def test_the_audit_log_records_changes(keys: KeyStore, database: Database) -> None:
    """The audit log records changes in the same transaction, joins equal refusals, and comes in pages."""
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
    """A clock that moves only when a test sets it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def refusal(number: int, actor: str = "", **fields: str) -> Event:
    usual = {"target": f"Service/{number % 7}", "reason": "UNAUTHENTICATED", "peer": "198.51.100.1"}
    return Event(REFUSED, actor, **{**usual, **fields})


async def test_nobody_without_a_key_fills_the_audit_log(database: Database) -> None:
    """Refusals without a key make one row for each of a few addresses, and one for all others."""
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


async def test_refusals_of_unknown_callers_are_written_once_a_minute(database: Database) -> None:
    """Refusals of unknown callers are written once a minute, those of known callers each time, and all before a listing."""
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
    """Refusals of a known caller make one row per method, and beyond a maximum one row per caller."""
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


class FlakyDatabase:
    """A database whose commits succeed, but whose answers are lost while it is away."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.away = True

    def __getattr__(self, name: str) -> object:
        return getattr(self.database, name)

    async def write(self, work: object) -> object:
        answer = await self.database.write(work)  # type: ignore[arg-type]
        if self.away:  # the commit succeeded, but its answer was lost
            raise StoreUnavailable
        return answer


async def test_refusals_outlive_an_outage_of_the_database(database: Database) -> None:
    """Refusals are kept through an outage of the database, and are not written twice."""
    flaky = FlakyDatabase(database)
    audit = AuditLog(flaky)  # type: ignore[arg-type]
    audit.refused(refusal(1))
    with pytest.raises(StoreUnavailable):
        await audit.write()
    audit.refused(refusal(1))
    audit.refused(refusal(1, "static:joe"))
    flaky.away = False
    await audit.write()
    await audit.write()
    assert sorted(stored.event.actor for stored in (await audit.list(size=9)).events) == ["", "static:joe"]


def test_no_scope_means_all_but_admin() -> None:
    """Without scopes a key has all except admin. Given scopes replace that."""
    assert set(scopes_or_default(None)) == DEFAULT_SCOPES
    assert scopes_or_default([Scope.ADMIN, Scope.ADMIN]) == (Scope.ADMIN,)
