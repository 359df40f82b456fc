"""The contract of every store, method by method, on SQLite, on PostgreSQL, and on PostgreSQL through a pooler.

It is long because it covers the whole contract.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from msgspec.structs import replace
from sqlalchemy import update

from antiphon.database import paging
from antiphon.database.base import Database
from antiphon.database.open import open_database
from antiphon.database.tables import messages
from antiphon.domain.content import (
    Block,
    Citation,
    Compaction,
    Document,
    Image,
    Media,
    Message,
    Opaque,
    Origin,
    RedactedThinking,
    Role,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.domain.errors import ConversationChanged, ConversationNotFound, InvalidRequest, MessageNotFound, RequestIdReused
from antiphon.domain.events import FinishReason, Usage
from antiphon.history import rows
from antiphon.history.base import (
    BEGINNING,
    Conversation,
    MessagePage,
    MessageState,
    PartialReply,
    ProviderReplyInfo,
    Store,
    StoredMessage,
    Turn,
    TurnEnd,
)
from antiphon.history.sql import SqlStore

ME, OTHER = "me", "somebody else"
NO_ID = "01890000-0000-7000-8000-000000000000"
ODD_IDS = ["", "x", NO_ID, NO_ID.upper(), NO_ID + "\n", "a\0b", "\ud800", "' OR 1=1 --", "x" * 10_000]


@pytest.fixture(params=["sqlite_url", "fresh_postgres_url", "pooled_url"])
def database(request: pytest.FixtureRequest) -> Database:
    pooled = request.param == "pooled_url"
    return open_database(request.getfixturevalue(request.param), pooler=pooled, statement_cache=not pooled)


@pytest_asyncio.fixture
async def store(database: Database) -> AsyncGenerator[Store, None]:
    yield SqlStore(database)
    await database.close()


def user_messages(*texts: str) -> list[Message]:
    return [Message(Role.USER, (Text(text),)) for text in texts]


def answered(text: str, state: MessageState = MessageState.COMPLETE) -> TurnEnd:
    return TurnEnd(state, Message(Role.ASSISTANT, (Text(text),)))


def texts(messages: Sequence[StoredMessage]) -> list[str]:
    return ["".join(part.text for part in stored.message.blocks if isinstance(part, Text)) for stored in messages]


async def path(store: Store, conversation: str, owner: str = ME) -> list[str]:
    return texts((await store.messages(owner, conversation)).messages)


async def create(
    store: Store, *messages: str, owner: str = ME, title: str = "", source: str = "", pinned: bool = False
) -> Conversation:
    return await store.create(owner, title=title, source=source, pinned=pinned, messages=user_messages(*messages))


async def test_a_new_conversation_has_the_given_fields(store: Store) -> None:
    """A new conversation has the given title, source, pin, count and head, and the current time in UTC."""
    before = datetime.now(UTC)
    made = await store.create(ME, title="Ünï", source="app", pinned=True, messages=user_messages("a", "b"))
    assert before - timedelta(seconds=1) < made.created == made.updated <= datetime.now(UTC)
    found = (await store.messages(ME, made.id)).messages
    assert (made.owner, made.title, made.source, made.pinned, made.message_count, made.head_id, made.forked_from) == (
        (ME, "Ünï", "app", True, 2, found[1].id, None)
    )
    assert await store.get(ME, made.id) == made
    assert [stored.parent_id for stored in found] == [None, found[0].id]
    assert {stored.state for stored in found} == {MessageState.COMPLETE}
    empty = await create(store)
    assert (empty.message_count, empty.head_id, await path(store, empty.id)) == (0, None, [])


async def test_anothers_conversation_does_not_exist(store: Store) -> None:
    """For every method, a conversation, message or turn of another owner looks like a missing one."""
    theirs = await create(store, "secret", owner=OTHER, title="secret", source="s")
    turn = await store.begin_turn(OTHER, theirs.id, user_messages("more"), request_id="r")
    mine = await create(store, "mine")
    for id_ in [theirs.id, *ODD_IDS]:
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda id_=id_: store.get(ME, id_),
            lambda id_=id_: store.update(ME, id_, title="x"),
            lambda id_=id_: store.update(ME, id_),
            lambda id_=id_: store.delete(ME, id_),
            lambda id_=id_: store.fork(ME, id_),
            lambda id_=id_: store.messages(ME, id_),
            lambda id_=id_: store.append(ME, id_, user_messages("x")),
            lambda id_=id_: store.begin_turn(ME, id_, user_messages("x"), request_id="r"),
        ]
        for call in calls:
            with pytest.raises(ConversationNotFound):
                await call()
    for id_ in [turn.reply.id, *ODD_IDS]:
        with pytest.raises(MessageNotFound):
            await store.fork(ME, mine.id, message_id=id_)
        with pytest.raises(MessageNotFound):
            await store.begin_turn(ME, mine.id, user_messages("x"), parent_id=id_)
        assert not await store.end_turn(ME, id_, answered("forged"))
    assert [found.id for found in (await store.list(ME, size=10)).conversations] == [mine.id]
    assert (await store.list(ME, size=10, source="s", title_contains="secret")).conversations == ()
    assert not (await store.begin_turn(ME, None, user_messages("x"), request_id="r")).existing
    seen = (await store.messages(OTHER, theirs.id)).messages
    assert [(stored.state, text) for stored, text in zip(seen, texts(seen), strict=True)] == [
        (MessageState.COMPLETE, "secret"),
        (MessageState.COMPLETE, "more"),
        (MessageState.IN_PROGRESS, ""),
    ]
    assert await store.get(OTHER, theirs.id) == turn.conversation


async def test_a_forged_token_shows_nothing_of_others(store: Store) -> None:
    """A forged page token that names another owner's message yields an empty page."""
    theirs = await create(store, "1", "2", "3", owner=OTHER)
    mine = await create(store, "1", "2", "3")
    token = (await store.messages(OTHER, theirs.id, size=1)).next_token
    with pytest.raises(InvalidRequest):
        await store.messages(ME, mine.id, size=1, token=token)
    forged = paging.token(rows.PathToken(mine.id, theirs.head_id or "", 1))
    assert (await store.messages(ME, mine.id, size=1, token=forged)).messages == ()


async def test_update_changes_what_is_given(store: Store) -> None:
    """An update changes only the given fields and the time of change; a pin does not change the time."""
    made = await create(store, "a", title="old")
    titled = await store.update(ME, made.id, title="new")
    pinned = await store.update(ME, made.id, pinned=True)
    assert (titled.title, titled.pinned, pinned.title, pinned.pinned) == ("new", False, "new", True)
    assert made.updated < titled.updated == pinned.updated
    assert pinned.created == made.created
    assert await store.update(ME, made.id) == pinned
    assert [c.id for c in (await store.list(ME, size=5, title_contains="NEW")).conversations] == [made.id]
    assert (await store.list(ME, size=5, title_contains="old")).conversations == ()


ODD_TITLES = [
    "100%",
    "a_b",
    "a\\b",
    "a/b",
    "'\"; DROP TABLE",
    "🎉👩‍👩‍👧",
    "שלום عالم",
    "Straße",
    "İstanbul",
    "\u2028",
    " ",
    "x" * 500,
    "ß" * 500,
]


async def test_odd_titles_are_kept_and_found(store: Store) -> None:
    """Unusual titles are stored unchanged and found by their own text in any case; no character is a wildcard."""
    for title in ODD_TITLES:
        await create(store, title=title)
    await create(store, title="100 percent, a-b, no wildcard")
    for title in ODD_TITLES:
        for wanted in {title, title.upper() if len(title.upper()) <= 500 else title, title.casefold()[:500]}:
            found = await store.list(ME, size=50, title_contains=wanted)
            assert title in [conversation.title for conversation in found.conversations], wanted
    for wanted, expected in [("%", ["100%"]), ("_", ["a_b"]), ("\\", ["a\\b"]), ("STRASSE", ["Straße"])]:
        assert [c.title for c in (await store.list(ME, size=50, title_contains=wanted)).conversations] == expected


async def test_text_that_cannot_be_stored_is_refused(store: Store) -> None:
    """NUL, half a surrogate pair and overlong text are refused with the field's name, and nothing is written."""
    made = await create(store, "a")
    for bad in ["a\0b", "\ud83d"]:
        for parts in [(Text(bad),), (Opaque({"deep": [{bad: 1}]}),), (ToolResult("id", (Text(bad),)),)]:
            message = Message(Role.USER, parts)
            for call in [
                store.create(ME, title="", source="", pinned=False, messages=[message]),
                store.append(ME, made.id, [*user_messages("fine"), message]),
                store.begin_turn(ME, made.id, [*user_messages("fine"), message]),
            ]:
                with pytest.raises(InvalidRequest) as caught:
                    await call
                assert caught.value.violations[0].path[0] == "messages"
    for bad in ["a\0b", "\ud83d", "x" * 501]:
        for field, call in [
            ("title", create(store, title=bad)),
            ("source", create(store, source=bad)),
            ("title", store.update(ME, made.id, title=bad)),
            ("title", store.fork(ME, made.id, title=bad)),
            ("title", store.begin_turn(ME, None, user_messages("x"), title=bad)),
            ("source", store.begin_turn(ME, None, user_messages("x"), source=bad)),
            ("request_id", store.begin_turn(ME, made.id, user_messages("x"), request_id=bad)),
            ("title_contains", store.list(ME, size=1, title_contains=bad)),
            ("source", store.list(ME, size=1, source=bad)),
        ]:
            with pytest.raises(InvalidRequest) as caught:
                await call
            assert caught.value.violations[0].path == (field,)
    assert await path(store, made.id) == ["a"]
    assert len((await store.list(ME, size=50)).conversations) == 1


ODD_TEXTS = [
    "",
    " ",
    "🎉👩‍👩‍👧‍👦",
    "שלום \u202eعالم\u202c",  # noqa: RUF001  # scripts are what is tested
    "\u2028\u2029\x85",
    "\"'`\\",
    "\\u0000",
    "\\\\u0000",
    "\r\n\t\x01\x1f\x7f",
    "e\u0301",
    "\ufeff\ufffe\uffff",
    "\U0010ffff",
]


async def test_text_survives_exactly(store: Store) -> None:
    """Text of any script, with quotes, line ends and control characters, is stored unchanged."""
    made = await create(store, *ODD_TEXTS)
    turn = await store.begin_turn(ME, made.id, user_messages(*ODD_TEXTS))
    await store.end_turn(ME, turn.reply.id, answered("".join(ODD_TEXTS)))
    assert await path(store, made.id) == [*ODD_TEXTS, *ODD_TEXTS, "".join(ODD_TEXTS)]


async def test_a_message_of_a_megabyte_survives(store: Store) -> None:
    """A message of a megabyte is stored unchanged, as input and as a reply."""
    text = "0123456789abcde🎉" * 65536
    turn = await store.begin_turn(ME, None, user_messages(text))
    await store.end_turn(ME, turn.reply.id, answered(text))
    assert await path(store, turn.conversation.id) == [text, text]


async def test_every_kind_of_part_survives(store: Store) -> None:
    """Every kind of block is stored with its provider's fields, and so is whether the content was a list."""
    parts: tuple[Block, ...] = (
        Text("t", extra={"cache_control": {"type": "ephemeral"}}),
        Image(Media("data:image/png;base64,AA=="), "low"),
        Document(Media(file_id="f"), "name.pdf"),
        Thinking("hm", state=State("sig", {"n": 2**70}, 1, Origin("a", "b"))),
        RedactedThinking(state=State("red")),
        ServerToolCall("w", "web_search", input="{}"),
        ServerToolResult("w", "web_search", is_error=True),
        Compaction(None, state=State("c")),
        Opaque(state=State(fields={"type": "odd"})),
        ToolCall("id", "name", "x", "custom"),
        Text("t", (Citation("u", start=0),)),
        ToolCall("id", "name", '{"a": 1.0}', extra={"n": None}),
        ToolResult("id", (Text("result"),), is_error=True),
        Opaque({"type": "odd", "numbers": [1, 1.5, 2**53], "none": None}),
    )
    message = Message(Role.DEVELOPER, parts, name="n", extra={"x": [True]}, listed=True)
    made = await store.create(ME, title="", source="", pinned=False, messages=[message])
    assert (await store.messages(ME, made.id)).messages[0].message == message
    for conversation in (None, made.id):
        turn = await store.begin_turn(ME, conversation, [message], request_id="r")
        assert (*turn.path, turn.reply) == (await store.messages(ME, turn.conversation.id)).messages


async def test_a_row_that_cannot_be_read_hides_no_other(store: Store) -> None:
    """A row that cannot be read is replaced by a note, deep values by null, and the chat can go on."""
    made = await create(store, "a", "b", "c")
    first, second, _ = (await store.messages(ME, made.id)).messages
    deep = '{"role":"user","parts":[{"type":"text","text":"a","extra":' + '{"x":' * 5000 + "1" + "}" * 5001 + "]}"
    assert isinstance(store, SqlStore)
    for id_, body in ((first.id, deep), (second.id, '{"role":"user","parts":[{"type":"newer"}]}')):
        change = update(messages).where(messages.c.id == id_).values(body=body)
        await store._database.write(lambda connection, change=change: connection.execute(change) and None)
    assert await path(store, made.id) == ["a", "[This message cannot be read.]", "c"]
    turn = await store.begin_turn(ME, made.id, user_messages("d"))
    assert texts(turn.path) == ["a", "[This message cannot be read.]", "c", "d"]


async def test_a_reply_that_cannot_be_stored_is_kept_with_replacements(store: Store) -> None:
    """A model's reply with text that cannot be stored is kept with replacement characters."""
    turn = await store.begin_turn(ME, None, user_messages("x"))
    await store.end_turn(
        ME, turn.reply.id, TurnEnd(MessageState.COMPLETE, Message(Role.ASSISTANT, (Text("a\0b\\\0c"),)), model="m\0")
    )
    reply = (await store.messages(ME, turn.conversation.id)).messages[-1]
    assert (texts([reply]), reply.model) == (["a\ufffdb\\\ufffdc"], "m\ufffd")
    turn = await store.begin_turn(ME, None, user_messages("x"))
    await store.end_turn(ME, turn.reply.id, answered("a\ud800b"))
    assert await path(store, turn.conversation.id) == ["x", "a?b"]
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"a": deep}
    turn = await store.begin_turn(ME, None, user_messages("x"))
    message = Message(Role.ASSISTANT, (Text("Hi"),), extra=deep)
    await store.checkpoint([PartialReply(turn.reply.id, message, "", "")])
    await store.end_turn(ME, turn.reply.id, TurnEnd(MessageState.COMPLETE, message))
    assert await path(store, turn.conversation.id) == ["x", "Hi"]


async def test_the_list_has_pinned_ones_first_then_the_last_changed(store: Store) -> None:
    """The list has pinned conversations first, then by last change. Any change except a pin moves one up."""
    made = [await create(store, "x", title=str(number)) for number in range(6)]

    async def order() -> str:
        return "".join(c.title for c in (await store.list(ME, size=50)).conversations)

    assert await order() == "543210"
    await store.append(ME, made[0].id, user_messages("y"))
    assert await order() == "054321"
    turn = await store.begin_turn(ME, made[1].id, user_messages("y"))
    assert await order() == "105432"
    await store.update(ME, made[3].id, pinned=True)
    await store.update(ME, made[2].id, pinned=True)
    assert await order() == "321054"
    await store.append(ME, made[0].id, user_messages("y"))
    assert await order() == "320154"
    await store.end_turn(ME, turn.reply.id, answered("z"))
    assert await order() == "321054"


async def test_filters_and_pages_together(store: Store) -> None:
    """Every combination of filters and page sizes gives the filtered list in the same order."""
    for number in range(24):
        await create(store, title=f"T{number % 3}", source=["", "app", "web"][number % 4 % 3], pinned=number % 5 == 0)
    everything = (await store.list(ME, size=100)).conversations
    assert len(everything) == 24
    for pinned in (None, True, False):
        for source in ("", "app", "none"):
            for title in ("", "t1"):
                expected = [
                    c for c in everything if pinned in (None, c.pinned) and source in ("", c.source) and title.upper() in c.title
                ]
                for size in (1, 5, len(expected) or 1, 100):
                    found: list[Conversation] = []
                    token = ""
                    while True:
                        page = await store.list(ME, size=size, token=token, pinned=pinned, source=source, title_contains=title)
                        assert len(page.conversations) <= size
                        found += page.conversations
                        token = page.next_token
                        if not token:
                            break
                    assert found == expected, (pinned, source, title, size)


async def test_pages_are_stable_while_rows_change(store: Store) -> None:
    """Unchanged conversations are seen exactly once while others are created, changed, pinned and deleted between pages."""
    still = [await create(store, title=f"still {number}") for number in range(20)]
    moving = [await create(store, title=f"moving {number}") for number in range(20)]
    seen: list[str] = []
    token = ""
    for step in range(20):
        page = await store.list(ME, size=3, token=token)
        seen += [c.id for c in page.conversations]
        token = page.next_token
        if not token:
            break
        await create(store, title="new")
        if step < 10:
            await store.update(ME, moving[step].id, pinned=True)
            await store.delete(ME, moving[-1 - step].id)
    assert not token
    assert [id_ for id_ in seen if id_ in {c.id for c in still}] == [c.id for c in reversed(still)]


async def test_a_token_of_another_list_is_refused(store: Store) -> None:
    """A page token is refused for other filters, owners, conversations or kinds of list, and if it is invalid."""
    made = [await create(store, "1", "2", "3") for _ in range(3)]
    token = (await store.list(ME, size=1, pinned=False)).next_token
    path_token = (await store.messages(ME, made[0].id, size=1)).next_token
    bad = ["x", "é", "=", "AAAA", token[:-2], token + "AAAA", path_token, "\0", "\ud800", "WyJjIl0"]
    for call in [
        store.list(ME, size=1, token=token),
        store.list(ME, size=1, token=token, pinned=True),
        store.list(ME, size=1, token=token, pinned=False, source="x"),
        store.list(OTHER, size=1, token=token, pinned=False),
        store.messages(ME, made[1].id, size=1, token=path_token),
        store.messages(ME, made[0].id, size=1, token=token),
        *[store.list(ME, size=1, token=other, pinned=False) for other in bad],
        *[store.messages(ME, made[0].id, size=1, token=other) for other in bad if other != path_token],
    ]:
        with pytest.raises(InvalidRequest) as caught:
            await call
        assert caught.value.violations[0].path == ("page_token",)


async def test_messages_come_in_pages(store: Store) -> None:
    """Messages come in pages of any size, and later pages show the path as it was at the first."""
    made = await create(store, *map(str, range(10)))
    for size in (1, 3, 10, 100):
        found: list[str] = []
        token = ""
        while True:
            page = await store.messages(ME, made.id, size=size, token=token)
            found += texts(page.messages)
            token = page.next_token
            if not token:
                break
        assert found == list(map(str, range(10)))
    first = await store.messages(ME, made.id, size=4)
    await store.append(ME, made.id, user_messages("more"))
    await store.begin_turn(ME, made.id, user_messages("branch"), parent_id=first.messages[1].id)
    assert texts((await store.messages(ME, made.id, token=first.next_token)).messages) == list(map(str, range(4, 10)))
    assert await path(store, made.id) == ["0", "1", "branch", ""]


async def test_a_page_ends_before_it_is_too_large(store: Store) -> None:
    """A page ends before its maximum of bytes. A larger message comes alone, and none is left out."""
    lengths = [400, 400, 400, 5000, 100, 100, *[1] * 40, 400]
    made = await create(store, *("é" * (length // 2) for length in lengths))
    for size, most in ((50, 1100), (3, 1100), (1, 1100), (50, 1), (50, 100_000)):
        pages: list[list[int]] = []
        token = ""
        while not pages or token:
            page = await store.messages(ME, made.id, size=size, token=token, most_bytes=most)
            pages.append([len(text) * 2 for text in texts(page.messages)])
            token = page.next_token
        assert [length for page in pages for length in page] == [length // 2 * 2 for length in lengths]
        assert all(len(page) <= size for page in pages)
        assert all(len(page) == 1 or sum(page) <= most for page in pages)
        if most == 1100 and size == 50:
            assert pages[:3] == [[400, 400], [400], [5000]]
    assert await store.messages(ME, (await create(store)).id, size=5, most_bytes=9) == MessagePage((), "")


async def test_append_goes_behind_the_head(store: Store) -> None:
    """Append adds messages after the head and returns them. An empty append changes nothing."""
    made = await create(store, "a")
    changed, new = await store.append(ME, made.id, user_messages("b", "c"), expected_head=made.head_id)
    assert (changed.message_count, changed.head_id) == (3, new[-1].id)
    assert changed.updated > made.updated
    assert (await store.messages(ME, made.id)).messages[1:] == new
    assert await store.append(ME, made.id, []) == (changed, ())
    with pytest.raises(ConversationChanged):
        await store.append(ME, made.id, user_messages("d"), expected_head=made.head_id)
    with pytest.raises(ConversationChanged):
        await store.append(ME, (await create(store)).id, user_messages("d"), expected_head="")
    assert await path(store, made.id) == ["a", "b", "c"]


async def test_a_turn_from_its_beginning_to_its_end(store: Store) -> None:
    """A turn has the path for the model, its reply in progress, and at the end the reply with all its fields."""
    made = await create(store, "a")
    turn = await store.begin_turn(ME, made.id, user_messages("b"), request_id="r")
    assert (texts(turn.path), turn.existing, turn.reply.state) == (["a", "b"], False, MessageState.IN_PROGRESS)
    assert turn.conversation == await store.get(ME, made.id)
    assert (turn.conversation.head_id, turn.conversation.message_count) == (turn.reply.id, 3)
    assert (await store.messages(ME, made.id)).messages == (*turn.path, turn.reply)
    info = ProviderReplyInfo("x", 1_700_000_000, "max_tokens", "", {"f": [1]}, {"odd": None}, {"d": 2**60}, (0,))
    end = TurnEnd(
        MessageState.INCOMPLETE,
        Message(Role.ASSISTANT, (Text("c"),)),
        model="gpt",
        provider="openai",
        usage=Usage(1, 2, 3, reasoning_tokens=1, extra={"tier": "x"}),
        finish_reason=FinishReason.LENGTH,
        error_reason="PROVIDER_PROTOCOL",
        provider_info=replace(info, id="chatcmpl-\0\ud800"),
    )
    await store.end_turn(ME, turn.reply.id, end)
    reply = (await store.messages(ME, made.id)).messages[-1]
    assert reply == StoredMessage(
        turn.reply.id, turn.path[-1].id, end.message, end.state, turn.reply.created, "r",
        end.model, end.provider, end.usage, end.finish_reason, end.error_reason,
    )  # fmt: skip
    assert (await store.get(ME, made.id)).updated > turn.conversation.updated
    again = await store.begin_turn(ME, made.id, user_messages("b"), request_id="r")
    assert (again.reply, again.provider_info) == (reply, replace(info, id="chatcmpl-\ufffd?"))


@pytest.mark.parametrize("reason", FinishReason)
async def test_every_finish_reason_is_kept(store: Store, reason: FinishReason) -> None:
    """Every finish reason is stored. In the column for the previous version, one that it knows is written."""
    turn = await store.begin_turn(ME, None, user_messages("a"))
    message = Message(Role.ASSISTANT, (Text('"finish":"stop"'),))
    await store.end_turn(ME, turn.reply.id, TurnEnd(MessageState.COMPLETE, message, finish_reason=reason))
    assert (await store.messages(ME, turn.conversation.id)).messages[-1].finish_reason is reason
    assert rows.finish_reason_column(reason) in {"stop", "length", "tool_calls", "content_filter", "other"}


NOTHING = TurnEnd(MessageState.FAILED, Message(Role.ASSISTANT, ()), error_reason="INTERNAL")


async def test_a_turn_without_a_reply_is_dropped(store: Store, count_messages: Callable[[], Awaitable[int]]) -> None:
    """Dropping a turn removes the conversation that it created, may be repeated, and frees its request id."""
    for _ in range(2):
        turn = await store.begin_turn(ME, None, user_messages("a"), request_id="r")
        assert turn.created_conversation
        await store.drop_turn(OTHER, turn, NOTHING)
        assert await path(store, turn.conversation.id) == ["a", ""]
        for _ in range(2):
            await store.drop_turn(ME, turn, NOTHING)
        with pytest.raises(ConversationNotFound):
            await store.get(ME, turn.conversation.id)
        assert await count_messages() == 0
        assert await store.settle() == 0


async def test_a_conversation_that_is_in_use_is_not_dropped(store: Store) -> None:
    """A conversation that was renamed, pinned, forked or continued is not dropped; only its turn ends."""
    changes: list[Callable[[str], Awaitable[object]]] = [
        lambda id_: store.update(ME, id_, title="mine"),
        lambda id_: store.update(ME, id_, pinned=True),
        lambda id_: store.fork(ME, id_),
        lambda id_: store.append(ME, id_, user_messages("more")),
        lambda id_: store.begin_turn(ME, id_, user_messages("more")),
    ]
    for change in changes:
        turn = await store.begin_turn(ME, None, user_messages("a"))
        await change(turn.conversation.id)
        await store.drop_turn(ME, turn, NOTHING)
        reply = (await store.messages(ME, turn.conversation.id)).messages[1]
        assert (reply.id, reply.state) == (turn.reply.id, MessageState.FAILED)


async def test_a_request_id_stands_for_the_messages_of_its_turn(store: Store) -> None:
    """A request id with other messages is refused, whatever the turn's state. The same messages find the turn."""
    for conversation in (None, (await create(store, "before")).id):
        for state in (None, MessageState.COMPLETE, MessageState.FAILED):
            name = f"{conversation} {state}"
            first = await store.begin_turn(ME, conversation, user_messages("a", "b"), request_id=name)
            if state is not None:
                await store.end_turn(ME, first.reply.id, TurnEnd(state, Message(Role.ASSISTANT, ())))
            for other in (
                user_messages("a", "c"),
                user_messages("b"),
                user_messages("a", "b", "c"),
                user_messages("before", "a", "b"),
            ):
                with pytest.raises(RequestIdReused):
                    await store.begin_turn(ME, conversation, other, request_id=name)
            again = await store.begin_turn(ME, conversation, user_messages("a", "b"), request_id=name)
            assert (again.reply.id, again.existing, again.created_conversation) == (
                first.reply.id,
                state is not MessageState.FAILED,
                False,
            )


async def test_a_settled_turn_stays_as_it_is(store: Store) -> None:
    """A later end does not change an ended turn and returns False, unless it is the same end again."""
    turn = await store.begin_turn(ME, None, user_messages("a"))
    assert await store.end_turn(ME, turn.reply.id, answered("first", MessageState.CANCELLED))
    before = await store.get(ME, turn.conversation.id)
    assert not await store.end_turn(ME, turn.reply.id, answered("second"))
    assert not await store.end_turn(ME, turn.reply.id, answered("first"))
    assert await store.end_turn(ME, turn.reply.id, answered("first", MessageState.CANCELLED))
    assert await path(store, before.id) == ["a", "first"]
    assert await store.get(ME, before.id) == before


@pytest.mark.parametrize("state", [MessageState.FAILED, MessageState.CANCELLED])
@pytest.mark.parametrize("new", [True, False])
async def test_a_turn_that_ended_without_text_is_begun_again(store: Store, state: MessageState, *, new: bool) -> None:
    """A turn without text can be restarted under its request id, in the same place, and nothing is stored twice."""
    made = await create(store, "a")

    async def begin() -> Turn:
        return await store.begin_turn(ME, None if new else made.id, user_messages("b"), request_id="r")

    first = await begin()
    await store.end_turn(ME, first.reply.id, TurnEnd(state, Message(Role.ASSISTANT, ()), error_reason="X"))
    again = await begin()
    assert (again.existing, again.reply.id, again.path) == (False, first.reply.id, first.path)
    assert (again.reply.state, again.reply.error_reason) == (MessageState.IN_PROGRESS, "")
    assert await store.settle() == 0
    assert (await begin()).existing
    await store.end_turn(ME, again.reply.id, answered("c"))
    found = (await store.messages(ME, first.conversation.id)).messages
    assert texts(found) == (["b", "c"] if new else ["a", "b", "c"])
    assert found[-1].state is MessageState.COMPLETE
    assert (await begin()).existing


@pytest.mark.parametrize("new", [True, False])
async def test_a_request_id_seen_again_is_the_same_turn(store: Store, *, new: bool) -> None:
    """A repeated request id finds the same turn with its current state. Other conversations and owners are separate."""

    async def begin(owner: str = ME) -> Turn:
        if not new and owner != ME:
            return await store.begin_turn(owner, (await create(store, owner=owner)).id, user_messages("b"), request_id="r")
        return await store.begin_turn(owner, None if new else made.id, user_messages("b"), request_id="r", title="t", source="s")

    made = await create(store, "a")
    first = await begin()
    again = await begin()
    assert (again.existing, again.conversation, again.path, again.reply) == (True, first.conversation, first.path, first.reply)
    await store.end_turn(ME, first.reply.id, answered("c"))
    await store.append(ME, first.conversation.id, user_messages("later"))
    again = await begin()
    assert (again.existing, again.path, texts([again.reply])) == (True, first.path, ["c"])
    assert again.conversation == await store.get(ME, first.conversation.id)
    by_name = await store.begin_turn(ME, first.conversation.id, user_messages("b"), request_id="r")
    assert (by_name.existing, by_name.reply.id) == (True, first.reply.id)
    assert not (await begin(OTHER)).existing
    assert not (await store.begin_turn(ME, (await create(store)).id, user_messages("b"), request_id="r")).existing
    await store.delete(ME, first.conversation.id)
    if new:
        assert not (await begin()).existing


async def test_a_turn_may_begin_a_branch(store: Store) -> None:
    """A turn may begin a branch, which becomes the path. The old branch can be continued by its message ids."""
    made = await create(store, "a", "b")
    a, b = (await store.messages(ME, made.id)).messages
    turn = await store.begin_turn(ME, made.id, user_messages("B"), parent_id=a.id)
    assert (texts(turn.path), turn.conversation.message_count) == (["a", "B"], 3)
    assert await path(store, made.id) == ["a", "B", ""]
    back = await store.begin_turn(ME, made.id, [], parent_id=b.id)
    assert (texts(back.path), back.reply.parent_id) == (["a", "b"], b.id)
    assert await path(store, made.id) == ["a", "b", ""]
    elsewhere = (await store.messages(ME, (await create(store, "x")).id)).messages[0]
    with pytest.raises(MessageNotFound):
        await store.begin_turn(ME, made.id, user_messages("c"), parent_id=elsewhere.id)


async def test_a_turn_may_begin_the_conversation_anew(store: Store) -> None:
    """A turn may start again from the beginning. The old path becomes a branch that can be continued, forked and deleted."""
    made = await create(store, "a", "b")
    a, b = (await store.messages(ME, made.id)).messages
    turn = await store.begin_turn(ME, made.id, user_messages("A"), parent_id=BEGINNING, request_id="r")
    assert (texts(turn.path), turn.path[0].parent_id, turn.conversation.message_count) == (["A"], None, 2)
    again = await store.begin_turn(ME, made.id, user_messages("A"), parent_id=BEGINNING, request_id="r")
    assert (again.existing, again.reply.id) == (True, turn.reply.id)
    await store.end_turn(ME, turn.reply.id, answered("reply"))
    assert await path(store, made.id) == ["A", "reply"]
    assert [texts((await store.messages(ME, made.id, size=1)).messages)] == [["A"]]
    assert await branches(store, made.id) == [(None, ["a", "b"])]
    fork = await store.fork(ME, made.id, message_id=b.id)
    back = await store.begin_turn(ME, made.id, user_messages("c"), parent_id=a.id)
    assert texts(back.path) == ["a", "c"]
    assert await branches(store, made.id) == [(None, ["A", "reply"]), (a.id, ["b"])]
    await store.delete(ME, made.id)
    assert (await path(store, fork.id), await branches(store, fork.id)) == (["a", "b"], [])


async def test_an_empty_conversation_may_be_begun_anew(store: Store) -> None:
    """In an empty conversation, starting from the beginning is the same as starting after the head."""
    made = await create(store)
    turn = await store.begin_turn(ME, made.id, user_messages("a"), parent_id=BEGINNING)
    assert (texts(turn.path), turn.conversation.message_count) == (["a"], 2)


async def test_a_turn_behind_one_in_progress(store: Store) -> None:
    """A turn after one in progress follows that one's reply, which is on the path without text."""
    first = await store.begin_turn(ME, None, user_messages("a"))
    second = await store.begin_turn(ME, first.conversation.id, user_messages("b"))
    assert texts(second.path) == ["a", "", "b"]
    assert second.path[1] == first.reply
    await store.end_turn(ME, second.reply.id, answered("B"))
    await store.end_turn(ME, first.reply.id, answered("A"))
    assert await path(store, first.conversation.id) == ["a", "A", "b", "B"]


async def test_a_turn_whose_messages_depend_on_the_path(store: Store) -> None:
    """A function gets the path as it is when the turn starts; what it returns is checked and stored like given messages."""
    made = await create(store)
    await store.append(ME, made.id, user_messages("a", "b", "c"))
    seen: list[list[str]] = []

    def after_b(path: Sequence[StoredMessage]) -> tuple[list[Message], str]:
        seen.append(texts(path))
        return user_messages("new"), path[1].id

    turn = await store.begin_turn(ME, made.id, after_b)
    assert seen == [["a", "b", "c"]]
    assert (texts(turn.path), turn.reply.parent_id) == (["a", "b", "new"], turn.path[-1].id)
    assert await path(store, made.id) == ["a", "b", "new", ""]
    anew = await store.begin_turn(ME, made.id, lambda _: (user_messages("other"), BEGINNING))
    assert texts(anew.path) == ["other"]
    with pytest.raises(InvalidRequest):
        await store.begin_turn(ME, made.id, lambda _: (user_messages("nul \0"), None))
    with pytest.raises(ConversationNotFound):
        await store.begin_turn(OTHER, made.id, after_b)
    assert await path(store, made.id) == ["other", ""]


async def branches(store: Store, conversation: str, size: int = 100, owner: str = ME) -> list[tuple[str | None, list[str]]]:
    """Return for each branch the message that it leaves from, and its texts, read in pages."""
    found: list[tuple[str | None, list[str]]] = []
    token = ""
    while True:
        page = await store.branches(owner, conversation, size=size, token=token)
        assert len(page.branches) <= size
        for branch in page.branches:
            page_of_branch = await store.messages(owner, conversation, size=100, token=branch.messages_token)
            assert page_of_branch.messages[0].parent_id == branch.parent_id
            found.append((branch.parent_id, texts(page_of_branch.messages)))
        token = page.next_token
        if not token:
            return found


async def test_messages_beside_the_path_are_found(store: Store) -> None:
    """Branches list every message beside the path exactly once, the newest branch first."""
    made = await create(store, "a", "b")
    assert await branches(store, made.id) == []
    b = (await store.messages(ME, made.id)).messages[1].id
    tabs = [await store.begin_turn(ME, made.id, user_messages(f"tab {number}"), parent_id=b) for number in range(3)]
    for number, turn in enumerate(tabs):
        await store.end_turn(ME, turn.reply.id, answered(f"reply {number}"))
    beside = [(b, ["tab 1", "reply 1"]), (b, ["tab 0", "reply 0"])]
    assert await path(store, made.id) == ["a", "b", "tab 2", "reply 2"]
    for size in (1, 2, 100):
        assert await branches(store, made.id, size) == beside
    again = await store.begin_turn(ME, made.id, [], parent_id=tabs[0].path[-1].id)
    assert await path(store, made.id) == ["a", "b", "tab 0", ""]
    assert await branches(store, made.id) == [
        (b, ["tab 2", "reply 2"]), (b, ["tab 1", "reply 1"]), (again.path[-1].id, ["reply 0"])
    ]  # fmt: skip
    fork = await store.fork(ME, made.id, message_id=tabs[1].path[-1].id)
    assert (await path(store, fork.id), await branches(store, fork.id)) == (["a", "b", "tab 1"], [])
    await store.append(ME, fork.id, user_messages("mine"))
    assert len(await branches(store, made.id)) == 3
    with pytest.raises(ConversationNotFound):
        await store.branches(OTHER, made.id, size=1)
    token = (await store.branches(ME, made.id, size=1)).next_token
    with pytest.raises(InvalidRequest):
        await store.branches(ME, fork.id, size=1, token=token)
    await store.delete(ME, made.id)
    assert await branches(store, fork.id) == []


async def test_a_branch_of_a_branch_comes_behind_it(store: Store) -> None:
    """A branch of a branch is listed after it, and may also start from an empty reply."""
    made = await create(store, "a")
    a = (await store.messages(ME, made.id)).messages[0].id
    left = await store.begin_turn(ME, made.id, user_messages("b"), parent_id=a)
    await store.end_turn(ME, left.reply.id, TurnEnd(MessageState.FAILED, Message(Role.ASSISTANT, ())))
    for text in ("c", "d"):
        turn = await store.begin_turn(ME, made.id, user_messages(text), parent_id=left.reply.id)
        await store.end_turn(ME, turn.reply.id, answered(text.upper()))
    await store.begin_turn(ME, made.id, user_messages("e"), parent_id=a)
    assert await branches(store, made.id) == [(a, ["b", "", "d", "D"]), (left.reply.id, ["c", "C"])]


async def test_empty_replies_are_no_branch_and_are_counted(store: Store) -> None:
    """Empty replies are not branches. Those on the path are counted for every conversation."""
    made = await create(store, "a")
    ends = [MessageState.FAILED, MessageState.CANCELLED, MessageState.CANCELLED, MessageState.INCOMPLETE]
    for state, text in zip(ends, ["", "", "half", "half"], strict=True):
        turn = await store.begin_turn(ME, made.id, user_messages("b"))
        await store.end_turn(ME, turn.reply.id, TurnEnd(state, Message(Role.ASSISTANT, (Text(text),) if text else ())))
    found = await store.get(ME, made.id)
    assert (found.message_count, found.empty_replies) == (9, 2)
    await create(store, "x")
    listed = {each.id: each.empty_replies for each in (await store.list(ME, size=9)).conversations}
    assert sorted(listed.values()) == [0, 2]
    assert (await store.update(ME, made.id, pinned=True)).empty_replies == 2
    whole = (await store.messages(ME, made.id)).messages
    assert (await store.fork(ME, made.id, message_id=whole[2].id)).empty_replies == 1
    await store.begin_turn(ME, made.id, user_messages("other"), parent_id=whole[0].id)
    assert (await store.get(ME, made.id)).empty_replies == 0
    assert await branches(store, made.id) == [(whole[0].id, ["b", "", "b", "", "b", "half", "b", "half"])]
    alone = await create(store, "a")
    for _ in range(2):
        turn = await store.begin_turn(ME, alone.id, [], parent_id=alone.head_id)
        await store.end_turn(ME, turn.reply.id, TurnEnd(MessageState.FAILED, Message(Role.ASSISTANT, ())))
    assert await branches(store, alone.id) == []


async def test_a_fork_shares_its_past(store: Store) -> None:
    """A fork shares messages without copying them, and afterwards both are independent."""
    made = await store.create(ME, title="t", source="s", pinned=True, messages=user_messages("a", "b", "c"))
    a, b, c = (await store.messages(ME, made.id)).messages
    fork = await store.fork(ME, made.id, message_id=b.id)
    assert (fork.title, fork.source, fork.pinned, fork.forked_from, fork.message_count, fork.head_id) == (
        ("t", "s", False, made.id, 2, b.id)
    )
    assert (await store.messages(ME, fork.id)).messages == (a, b)
    await store.append(ME, fork.id, user_messages("C"))
    await store.append(ME, made.id, user_messages("d"))
    assert (await path(store, made.id), await path(store, fork.id)) == (["a", "b", "c", "d"], ["a", "b", "C"])
    whole = await store.fork(ME, fork.id, title="")
    assert (whole.title, await path(store, whole.id), whole.forked_from) == ("", ["a", "b", "C"], fork.id)
    assert (await store.get(ME, made.id)).head_id != c.id
    empty = await store.fork(ME, (await create(store)).id)
    await store.append(ME, empty.id, user_messages("first"))
    assert await path(store, empty.id) == ["first"]


async def test_messages_of_another_fork_are_not_available(store: Store) -> None:
    """Messages that exist only in another fork are not available. A branch that was left is, together with its past."""
    made = await create(store, "a", "b", "c")
    a, b, c = (await store.messages(ME, made.id)).messages
    fork = await store.fork(ME, made.id, message_id=b.id)
    _, (theirs,) = await store.append(ME, fork.id, user_messages("theirs"))
    branch = await store.begin_turn(ME, fork.id, user_messages("branch"), parent_id=a.id)
    for conversation, message in ((made, theirs), (made, branch.reply), (fork, c)):
        with pytest.raises(MessageNotFound):
            await store.fork(ME, conversation.id, message_id=message.id)
        with pytest.raises(MessageNotFound):
            await store.begin_turn(ME, conversation.id, user_messages("x"), parent_id=message.id)
    assert await path(store, fork.id) == ["a", "branch", ""]
    for message in (a, b, theirs, branch.path[-1]):
        assert (await store.fork(ME, fork.id, message_id=message.id)).head_id == message.id
    await store.delete(ME, made.id)
    assert texts((await store.begin_turn(ME, fork.id, [], parent_id=b.id)).path) == ["a", "b"]


async def test_a_reply_in_progress_is_shared_too(store: Store) -> None:
    """A fork sees how a shared reply ends, even if the turn's own conversation is deleted before."""
    turn = await store.begin_turn(ME, None, user_messages("a"))
    fork = await store.fork(ME, turn.conversation.id)
    await store.delete(ME, turn.conversation.id)
    for _ in range(2):
        assert not await store.end_turn(ME, turn.reply.id, answered("b"))
    assert await path(store, fork.id) == ["a", "b"]


async def test_delete_keeps_messages_that_forks_use(store: Store, count_messages: Callable[[], Awaitable[int]]) -> None:
    """A deletion keeps the messages that forks and their branches use. The last deletion removes all."""
    made = await create(store, "a", "b", "c", "d")
    await create(store, "unrelated")
    a, b, *_ = (await store.messages(ME, made.id)).messages
    fork = await store.fork(ME, made.id, message_id=b.id)
    left = await store.begin_turn(ME, fork.id, user_messages("left"))
    await store.begin_turn(ME, fork.id, user_messages("taken"), parent_id=a.id)
    assert await count_messages() == 9
    await store.delete(ME, made.id)
    with pytest.raises(ConversationNotFound):
        await store.get(ME, made.id)
    with pytest.raises(ConversationNotFound):
        await store.delete(ME, made.id)
    assert await path(store, fork.id) == ["a", "taken", ""]
    assert await count_messages() == 7  # without "c" and "d"
    again = await store.begin_turn(ME, fork.id, [], parent_id=left.reply.id)
    assert texts(again.path) == ["a", "b", "left", ""]
    assert await store.end_turn(ME, left.reply.id, answered("late"))
    await store.delete(ME, fork.id)
    assert await count_messages() == 1
    assert not await store.end_turn(ME, again.reply.id, answered("too late"))
