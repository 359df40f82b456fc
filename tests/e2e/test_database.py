"""The database of a whole gateway: through a connection pooler, and with retention."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import update

from antiphon.database import clock
from antiphon.database.migrate import migrate
from antiphon.database.open import open_database
from antiphon.database.tables import conversations
from antiphon.history.sql import SqlStore
from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.e2e.conftest import READY, Gateway
from tests.e2e.test_grpc import METADATA
from tests.pgbouncer import BINARY, PgBouncer
from tests.postgres import Postgres

ECHO: dict[str, Any] = {
    "providers": {"echo": {"protocol": "echo", "models": ["echo"]}},
    "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
}


@pytest.mark.slow
@pytest.mark.skipif(BINARY is None, reason="pgbouncer is not installed: apt-get install pgbouncer")
async def test_two_workers_behind_a_pooler(postgres: Postgres, tmp_path: Path) -> None:
    """Two workers migrate, record and read through at most three connections to the server, with the URL in a file."""
    postgres.run("CREATE DATABASE pooled")
    with PgBouncer(postgres.url) as pooler:
        (tmp_path / "url").write_text(pooler.url_of(postgres.url_of("pooled")))
        database = {"url_file": str(tmp_path / "url"), "pooler": True, "connections": 5}
        gateway = Gateway(tmp_path, {**ECHO, "workers": 2, "database": database})
        await asyncio.to_thread(gateway.wait_for, READY)
        async with grpc.aio.insecure_channel(gateway.rest) as channel:
            chat: Any = chat_pb2_grpc.ChatServiceStub(channel)
            history: Any = history_pb2_grpc.HistoryServiceStub(channel)

            async def talk(number: int) -> list[str]:
                conversation = ""
                for turn in ("one", "two"):
                    message = message_pb2.Message(
                        role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=f"{turn} {number}"))]
                    )
                    recording = chat_pb2.Recording(conversation_id=conversation, request_id=f"{turn} {number}")
                    request = chat_pb2.GenerateRequest(model="echo", messages=[message], recording=recording)
                    conversation = (await chat.Generate(request, metadata=METADATA)).conversation_id
                page = await history.ListMessages(history_pb2.ListMessagesRequest(conversation_id=conversation), metadata=METADATA)
                return [stored.message.blocks[0].text.text for stored in page.messages]

            texts = await asyncio.gather(*map(talk, range(40)))
        assert texts == [[f"one {n}", f"You said: one {n}", f"two {n}", f"You said: two {n}"] for n in range(40)]
        assert postgres.run("SELECT count(*) FROM pg_stat_activity WHERE datname = 'pooled'") <= "3"
        assert await asyncio.to_thread(gateway.stop) == 0
        assert "pg-password" not in gateway.output_text
        assert "store_unavailable" not in gateway.output_text


@pytest.mark.slow
async def test_old_conversations_are_removed_by_a_gateway(tmp_path: Path) -> None:
    """The gateway removes conversations not changed for the configured number of days. The URL is in a variable."""
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    await asyncio.to_thread(asyncio.run, migrate(url))
    database = open_database(url)
    store = SqlStore(database)
    old, young = [await store.create("test", title=title, source="", pinned=False, messages=[]) for title in ("old", "young")]
    for made, days in ((old, 31), (young, 29)):
        touched = update(conversations).where(conversations.c.id == made.id).values(updated=clock.now() - days * 86_400_000_000)
        await database.write(lambda connection, touched=touched: connection.execute(touched) and None)  # type: ignore[misc]
    gateway = Gateway(tmp_path, {**ECHO, "database": {"url_env": "KEPT"}, "history": {"retention": 30}}, KEPT=url)
    await asyncio.to_thread(gateway.wait_for, "removed what was kept for long enough")
    assert [each.title for each in (await store.list("test", size=9)).conversations] == ["young"]
    assert await asyncio.to_thread(gateway.stop) == 0
    await database.close()
