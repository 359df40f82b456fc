"""The query plans of the history: every query uses an index, and a list reads only its owner's rows."""

import re
from typing import Any

import pytest
from sqlalchemy import Connection, Integer, Select, insert, text

from antiphon.database.tables import conversations, messages, trees
from antiphon.history import statements
from antiphon.history.base import Store
from antiphon.history.sql import SqlStore

COUNT = 3000
OWNERS = {"few": 3, "some": 297, "nearly all": 2700}

WHOLE = re.compile(r"\b(?:Seq Scan on|SCAN) (?:conversations|messages|trees)\b(?! USING INDEX messages_in_progress)")
"""Matches the full scan of a table. The index of messages in progress is excepted, because it has few rows."""

LISTS: dict[str, dict[str, Any]] = {
    "all": {},
    "title": {"folded_title": "no such title"},
    "common title": {"folded_title": "title"},
    "title of source": {"folded_title": "no such title", "source": "web"},
    "title of pinned": {"folded_title": "no such title", "pinned": True},
    "title, next page": {"folded_title": "no such title", "after": (False, 1500, "x")},
    "source": {"source": "web"},
    "pinned": {"pinned": True},
    "next page": {"after": (False, 1500, "x")},
}


def fill(connection: Connection) -> None:
    """Insert one conversation of two messages per tree; one owner has nearly all of them."""
    owners = [owner for owner, count in OWNERS.items() for _ in range(count)]
    ids = [f"{number:036}" for number in range(COUNT)]
    connection.execute(insert(trees), [{"id": id_, "owner": owner} for id_, owner in zip(ids, owners, strict=True)])
    row = {"message_count": 2, "forked_from": None, "create_request_id": None, "created": 0}
    defaults = {
        "request_id": None,
        "worker": None,
        "model": "",
        "provider": "",
        "finish_reason": None,
        "error_reason": "",
        "usage": None,
    }
    connection.execute(
        insert(conversations),
        [
            {
                "id": id_, "tree_id": id_, "owner": owner, "title": f"Title {id_}", "title_folded": f"title {id_}",
                "head_id": f"b{id_}", "pinned": at % 100 == 0, "source": "web" if at % 3 else "",
                "updated": at * 7919 % COUNT, **row,
            }
            for at, (id_, owner) in enumerate(zip(ids, owners, strict=True))
        ],
    )  # fmt: skip
    connection.execute(
        insert(messages),
        [
            {
                "id": f"{name}{id_}", "tree_id": id_, "conversation_id": id_, "parent_id": f"a{id_}" if depth else None,
                "depth": depth, "state": "complete", "created": 0, "body": "{}", **defaults,
            }
            for id_ in ids
            for depth, name in enumerate("ab")
        ],
    )  # fmt: skip
    connection.execute(text("ANALYZE"))


async def plan(store: SqlStore, query: Select[Any], **values: Any) -> str:
    def work(connection: Connection) -> str:
        written = query.compile(dialect=connection.dialect)
        numbers = {name for name, bind in written.binds.items() if isinstance(bind.type, Integer) or name == "size"}
        known = {name: 1 if name in numbers else "x" for name, bind in written.binds.items() if bind.required}
        filled = written.construct_params({**known, **values})
        how = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN (COSTS OFF) "
        found = connection.exec_driver_sql(how + str(written), tuple(filled[name] for name in written.positiontup or ()))
        return "\n".join(str(row[-1]) for row in found)

    return await store._database.read(work)


@pytest.mark.parametrize("owner", OWNERS)
async def test_a_list_reads_its_owners_rows(store: Store, owner: str) -> None:
    """Every list reads its owner's rows by an index, whatever the filters and the owner's share of rows."""
    assert isinstance(store, SqlStore)
    await store._database.write(fill)
    for name, filters in LISTS.items():
        wanted = {"size": 51, "pinned": None, "source": "", "folded_title": "", "after": None, **filters}
        found = await plan(store, statements.listing(**wanted), mine=owner)
        assert not WHOLE.search(found), (name, found)
        assert re.search(r"Index Cond: .*owner|USING INDEX \w+ \(owner=", found), (name, found)


async def test_no_query_reads_a_whole_table(store: Store) -> None:
    """No query scans a whole table."""
    assert isinstance(store, SqlStore)
    await store._database.write(fill)
    queries = {name: query for name, query in vars(statements).items() if isinstance(query, Select) and name.isupper()}
    assert len(queries) > 10
    for name, query in queries.items():
        found = await plan(store, query)
        assert not WHOLE.search(found), (name, found)
