"""Export and erasure of all data of one owner, on SQLite and on PostgreSQL."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import inspect, literal_column, select, table, text

from antiphon.auth.api_keys.store import Grants, KeyStore, StoredKey
from antiphon.auth.audit import REFUSED, AuditLog, CallOrigin, Event
from antiphon.database.base import Database
from antiphon.database.open import open_database
from antiphon.database.tables import METADATA
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import InvalidRequest, StoreUnavailable
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal, Scope
from antiphon.history import retention
from antiphon.history.base import BEGINNING, MessageState, TurnEnd
from antiphon.history.sql import SqlStore
from antiphon.limits.ledger import Ledger
from antiphon.owners import data
from antiphon.owners.data import Erased, Owners, digest_of

ANN, BEN = "corp:ann", "ben"
NOT_OF_OWNERS = {"alembic_version", "compatibility", "workers"}
BOSS = CallOrigin("static:boss", "request-1", "203.0.113.9")


@pytest_asyncio.fixture
async def database(url: str) -> AsyncGenerator[Database, None]:
    opened = open_database(url)
    yield opened
    await opened.close()


@pytest.fixture
def owners(database: Database) -> Owners:
    return Owners(database, {ANN: ["static:laptop"]})


def user_messages(*texts: str) -> list[Message]:
    return [Message(Role.USER, (Text(text),)) for text in texts]


async def fill(database: Database, owner: str) -> StoredKey:
    """Store some data of each kind: a conversation with a branch, a fork, a turn in progress, keys, usage, refusals."""
    store = SqlStore(database)
    made = await store.create(
        owner, title=f"of {owner}", source="web", pinned=True, messages=user_messages(f"I am {owner}", "two", "three")
    )
    await store.fork(owner, made.id)
    turn = await store.begin_turn(owner, made.id, user_messages("an edit 🎉"), parent_id=BEGINNING, request_id="r")
    await store.end_turn(
        owner, turn.reply.id, TurnEnd(MessageState.COMPLETE, Message(Role.ASSISTANT, (Text("hi"),)), "m", "p", Usage(1, 2, 3))
    )
    await store.begin_turn(owner, None, user_messages("in progress"))
    keys = KeyStore(database)
    key, _ = await keys.create(name=f"{owner}'s", owner=owner, grants=Grants((Scope.ADMIN,)), expires=None, origin=BOSS)
    other, _ = await keys.create(name=owner, owner=owner, grants=Grants((Scope.CHAT,)), expires=None, origin=BOSS)
    await keys.revoke(other.id, origin=CallOrigin(f"key:{key.id}", "request-2", "198.51.100.7"))
    ledger = Ledger(database)
    for id_ in (f"key:{key.id}", f"token:other:{owner}"):
        ledger.add(Principal("x", owner=owner, id=id_), Usage(10, 5, 15), 0.5, "openai", "gpt-4o", {"team": "search"})
    await ledger.write()
    audit = AuditLog(database)
    for actor in (f"token:{owner}", f"token:other:{owner}", f"key:{key.id}"):
        audit.refused(Event(REFUSED, actor, "ChatService/Generate", "PERMISSION_DENIED", "r", "198.51.100.7"))
    await audit.write()
    return key


async def everything(database: Database) -> dict[str, list[str]]:
    """Return every row of every table in the database, including unknown tables."""

    def work(connection: Any) -> dict[str, list[str]]:
        names = inspect(connection).get_table_names()
        return {
            name: [str(tuple(row)) for row in connection.execute(select(literal_column("*")).select_from(table(name)))]
            for name in names
        }

    return await database.read(work)


async def exported(owners: Owners, owner: str) -> list[dict[str, Any]]:
    whole = b"".join([part async for part in owners.export(owner, BOSS)])
    assert not whole or whole.endswith(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


async def test_all_of_an_owner_is_given_out(database: Database, owners: Owners) -> None:
    """The export has each message once, nothing of other owners, and no secret or digest."""
    key = await fill(database, ANN)
    await fill(database, BEN)
    found = await exported(owners, ANN)
    kinds = [line["kind"] for line in found]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "key": 2,
        "usage": 2,
        "model_usage": 2,
        "tag_usage": 2,
        "audit_event": 4 + 1,
        "conversation": 3,
        "message": 3 + 2 + 2,
    }
    assert BEN not in json.dumps([line for line in found if line["kind"] != "audit_event"])
    messages = {line["id"]: line for line in found if line["kind"] == "message"}
    assert len(messages) == 7
    assert sorted(line["message"]["parts"][0]["text"] for line in messages.values() if line["message"]["parts"]) == sorted(
        [f"I am {ANN}", "two", "three", "an edit 🎉", "hi", "in progress"]
    )
    (reply,) = (line for line in messages.values() if line["model"])
    assert (reply["model"], reply["provider"], reply["state"], reply["request_id"]) == ("m", "p", "complete", "r")
    assert messages[reply["parent_id"]]["message"]["parts"][0]["text"] == "an edit 🎉"
    conversations = {line["id"]: line for line in found if line["kind"] == "conversation"}
    assert {line["conversation_id"] for line in messages.values()} <= set(conversations)
    assert {line["head_id"] for line in conversations.values()} <= set(messages)
    assert [line["title"] for line in conversations.values()].count(f"of {ANN}") == 2
    assert all(line["created_time"].endswith("Z") for line in conversations.values())
    assert sum(line["cost_usd"] for line in found if line["kind"] == "usage") == 1.0
    assert [line["grants"]["scopes"] for line in found if line["kind"] == "key" and line["id"] == key.id] == [["admin"]]
    digests = await database.read(lambda connection: connection.execute(text("SELECT digest FROM api_keys")).scalars().all())
    assert not any(digest in json.dumps(found) for digest in digests)


async def test_pieces_are_small_and_messages_are_whole(database: Database, owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export comes in small pieces with complete lines, however many and large the messages are."""
    monkeypatch.setattr(data, "PIECE", 10_000)
    monkeypatch.setattr(data, "_ROWS", 3)
    store = SqlStore(database)
    for number in range(8):
        await store.create(
            ANN, title=str(number), source="", pinned=False, messages=user_messages(*"abcdefg", "x" * 12_345 * (number % 3))
        )
    pieces = [part async for part in owners.export(ANN, BOSS)]
    assert max(map(len, pieces)) <= 10_000
    found = [json.loads(line) for line in b"".join(pieces).splitlines()]
    texts = [line["message"]["parts"][0]["text"] for line in found if line["kind"] == "message"]
    assert len(texts) == 64
    assert sorted(len(text) for text in texts if len(text) > 1) == [12_345] * 3 + [24_690] * 2
    assert [line["title"] for line in found if line["kind"] == "conversation"] == list("01234567")


async def test_nothing_of_an_owner_is_left(database: Database, owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an erasure no column mentions the owner, and the audit log records who did it."""
    monkeypatch.setattr(retention, "MESSAGES", 1)
    key = await fill(database, ANN)
    audit = AuditLog(database)
    audit.refused(Event(REFUSED, "static:laptop", "ChatService/Generate", "PERMISSION_DENIED", "r", "198.51.100.7"))
    await audit.write()
    await exported(owners, ANN)
    events = len((await everything(database))["audit_events"])
    assert await owners.erase(ANN, BOSS) == Erased(3, 7, 2, 2, 5)
    left = await everything(database)
    assert set(METADATA.tables) < set(left)
    for name, rows in left.items():
        exported_fields = [
            row for row in rows if any(word in row for word in ("ann", "laptop", f"key:{key.id}", "198.51.100.7", "an edit"))
        ]
        assert exported_fields == [], name
    assert {name: len(rows) for name, rows in left.items() if rows and name not in NOT_OF_OWNERS} == {"audit_events": events + 1}
    found = [stored.event for stored in (await audit.list(size=99)).events]
    assert [(event.action, event.actor, event.target) for event in found if event.action.startswith("owners.")] == [
        ("owners.erase", "static:boss", digest_of(ANN)),
        ("owners.export", "static:boss", digest_of(ANN)),
    ]
    assert [event.action for event in found if event.actor == digest_of(ANN)].count("keys.revoke") == 1
    assert await owners.erase(ANN, BOSS) == Erased(0, 0, 0, 0, 0)
    assert [line["kind"] for line in await exported(owners, ANN)] == ["audit_event"] * (5 + 4)


async def test_others_are_left_alone(database: Database, owners: Owners) -> None:
    """An erasure does not change the rows of other owners."""
    await fill(database, BEN)
    before = await everything(database)
    await fill(database, ANN)
    await owners.erase(ANN, BOSS)
    after = await everything(database)
    for name in ("conversations", "trees", "messages", "api_keys", "usage", "model_usage", "tag_usage"):
        assert sorted(after[name]) == sorted(before[name])
    assert set(before["audit_events"]) < set(after["audit_events"])


async def test_every_table_that_names_an_owner_is_known() -> None:
    """Every table with an owner is known, so a new one must be exported and erased too."""
    assert {name for name, table in METADATA.tables.items() if "owner" in table.c} == {
        "trees",
        "conversations",
        "api_keys",
        "usage",
        "model_usage",
        "tag_usage",
    }


async def test_an_erasure_that_breaks_off_is_gone_on_with(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted erasure can be repeated. Keys are removed first."""
    monkeypatch.setattr(retention, "MESSAGES", 1)

    class UnreliableDatabase:
        """A database that is lost after so many writes."""

        writes = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(database, name)

        async def write(self, work: Any) -> Any:
            if not self.writes:
                raise StoreUnavailable
            self.writes -= 1
            return await database.write(work)

    await fill(database, ANN)
    with pytest.raises(StoreUnavailable):
        await Owners(UnreliableDatabase()).erase(ANN, BOSS)  # type: ignore[arg-type]
    left = await everything(database)
    assert left["api_keys"] == []
    assert 0 < len(left["conversations"]) < 3
    again = await Owners(database).erase(ANN, BOSS)
    assert (again.conversations, again.keys) == (len(left["conversations"]), 0)
    assert (await everything(database))["conversations"] == []


@pytest.mark.parametrize("odd", ["", "a\0b", "\ud800", "x" * 2000])
async def test_an_impossible_owner_name_is_refused(owners: Owners, odd: str) -> None:
    """An impossible owner name is refused before the database is asked."""
    with pytest.raises(InvalidRequest, match="owner"):
        await owners.erase(odd, BOSS)
    with pytest.raises(InvalidRequest, match="owner"):
        await anext(owners.export(odd, BOSS))


async def test_the_columns_that_are_given_out_are_all_but_a_few(database: Database, owners: Owners) -> None:
    """All columns are exported except those listed here, so a new column is exported by default."""
    await fill(database, ANN)
    found = {line["kind"]: set(line) - {"kind"} for line in await exported(owners, ANN)}
    tables = {
        "key": "api_keys",
        "usage": "usage",
        "model_usage": "model_usage",
        "tag_usage": "tag_usage",
        "audit_event": "audit_events",
        "conversation": "conversations",
        "message": "messages",
    }
    renamed = {"body": "message", "cost_nanos": "cost_usd"}
    kept_back = {
        "key": {"owner", "digest", "previous_digest", "previous_until"},
        "usage": {"owner"},
        "model_usage": {"owner"},
        "tag_usage": {"owner"},
        "conversation": {"owner", "tree_id", "title_folded"},
        "message": {"tree_id", "depth", "worker"},
    }
    for kind, name in tables.items():
        columns = {column.name for column in METADATA.tables[name].c} - kept_back.get(kind, set())
        exported_fields = {field.removesuffix("_time") for field in found[kind]}
        assert exported_fields == {renamed.get(column, column) for column in columns}, kind
