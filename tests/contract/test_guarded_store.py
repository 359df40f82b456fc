"""Titles and messages that callers write into the history directly also pass the guards of requests."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from antiphon.config import GuardConfig
from antiphon.database.open import open_database
from antiphon.domain.content import Message, Role, Text, ToolCall
from antiphon.domain.errors import ContentBlocked, ConversationChanged, ConversationNotFound
from antiphon.guards.registry import build_guards
from antiphon.history.base import MAX_TITLE
from antiphon.history.guarded_store import GuardedStore
from antiphon.history.sql import SqlStore

ME = "me"


def text_message(text: str, role: Role = Role.USER) -> Message:
    return Message(role, (Text(text),))


@pytest_asyncio.fixture
async def store(sqlite_url: str) -> AsyncGenerator[SqlStore, None]:
    """Yield the store behind the guards."""
    database = open_database(sqlite_url)
    yield SqlStore(database)
    await database.close()


@pytest.fixture
def guarded(store: SqlStore) -> GuardedStore:
    """Return a store that masks "bad" and blocks "worst". The guard for "fine" applies to replies only."""
    guards = build_guards(
        [
            GuardConfig(name="mask", kind="blocklist", patterns=["bad"], action="mask", replacement="####"),  # type: ignore[call-arg]
            GuardConfig(name="block", kind="blocklist", patterns=["worst"]),  # type: ignore[call-arg]
            GuardConfig(name="reply", kind="blocklist", patterns=["fine"], on=("reply",)),  # type: ignore[call-arg]
        ]
    )
    return GuardedStore(store, guards)


async def test_what_is_masked_is_not_stored(guarded: GuardedStore) -> None:
    """Titles and messages are masked by every method that writes them, whatever the role."""
    made = await guarded.create(
        ME, title="a bad title", source="", pinned=False, messages=[text_message("bad"), text_message("bad", Role.ASSISTANT)]
    )
    assert made.title == "a #### title"
    call = Message(Role.ASSISTANT, (ToolCall("c", "f", '{"a": "bad"}'),))
    _, appended = await guarded.append(ME, made.id, [text_message("fine, not bad"), call])
    assert appended[0].message == text_message("fine, not ####")
    path = (await guarded.messages(ME, made.id)).messages
    assert "bad" not in repr([stored.message for stored in path])
    assert (await guarded.update(ME, made.id, title="bad")).title == "####"
    assert (await guarded.fork(ME, made.id, title="bad fork")).title == "#### fork"
    assert (await guarded.fork(ME, made.id)).title == "####"
    assert (await guarded.update(ME, made.id, pinned=True)).title == "####"


async def test_what_is_blocked_is_refused_and_changes_nothing(guarded: GuardedStore) -> None:
    """A blocked text is refused with the guard's name, and nothing changes."""
    made = await guarded.create(ME, title="t", source="", pinned=False, messages=[text_message("a")])
    for call in (
        guarded.create(ME, title="worst", source="", pinned=False, messages=[]),
        guarded.create(ME, title="", source="", pinned=False, messages=[text_message("worst")]),
        guarded.update(ME, made.id, title="worst"),
        guarded.fork(ME, made.id, title="worst"),
        guarded.append(ME, made.id, [text_message("a"), text_message("worst")]),
    ):
        with pytest.raises(ContentBlocked) as caught:
            await call
        assert caught.value.guard == "block"
    assert (await guarded.list(ME, size=10)).conversations == (made,)


async def test_a_title_that_masking_makes_too_long_is_cut(guarded: GuardedStore) -> None:
    """A title that masking makes too long is shortened, because the caller respected the limit."""
    made = await guarded.create(ME, title="bad" * 166, source="", pinned=False, messages=[])
    assert made.title == ("####" * 166)[:MAX_TITLE]


async def test_what_is_read_is_what_the_store_has(guarded: GuardedStore, store: SqlStore) -> None:
    """Reads return what the store has, page by page, and deletes remove it."""
    made = await store.create(
        ME, title="bad title", source="s", pinned=True, messages=[text_message("bad"), text_message("worst"), text_message("c")]
    )
    other = await store.create(ME, title="other", source="t", pinned=False, messages=[])
    first = (await store.messages(ME, made.id)).messages[0]
    await store.begin_turn(ME, made.id, [text_message("d")], parent_id=first.id)
    await store.begin_turn(ME, made.id, [text_message("e")], parent_id=first.id)
    assert await guarded.get(ME, made.id) == await store.get(ME, made.id)
    for filters in ({"pinned": False}, {"source": "t"}, {"title_contains": "her"}):
        assert [found.id for found in (await guarded.list(ME, size=9, **filters)).conversations] == [other.id]  # type: ignore[arg-type]
    page = await guarded.list(ME, size=1)
    assert (page, await guarded.list(ME, size=1, token=page.next_token)) == (
        await store.list(ME, size=1),
        await store.list(ME, size=1, token=page.next_token),
    )
    assert await guarded.messages(ME, made.id) == await store.messages(ME, made.id)
    read = await guarded.messages(ME, made.id, size=9, most_bytes=1)
    assert read.messages == (first,)
    assert len((await guarded.messages(ME, made.id, size=9, token=read.next_token)).messages) == 2
    found = await guarded.branches(ME, made.id, size=1)
    assert found == await store.branches(ME, made.id, size=1)
    assert len((await guarded.branches(ME, made.id, size=9, token=found.next_token)).branches) == 1
    with pytest.raises(ConversationChanged):
        await guarded.append(ME, made.id, [], expected_head=first.id)
    assert (await guarded.fork(ME, made.id, message_id=first.id)).message_count == 1
    await guarded.delete(ME, made.id)
    with pytest.raises(ConversationNotFound):
        await store.get(ME, made.id)
