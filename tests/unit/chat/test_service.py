"""Tests of the chat service."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from pydantic import SecretStr

from antiphon.chat.hold import MAX_HELD
from antiphon.chat.prices import Prices
from antiphon.chat.service import ChatService
from antiphon.config import GuardConfig, LimitsConfig, PriceConfig
from antiphon.domain.call import Call
from antiphon.domain.content import (
    Audio,
    Block,
    Citation,
    Image,
    Media,
    Message,
    Opaque,
    RedactedThinking,
    Role,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
)
from antiphon.domain.errors import (
    BudgetExceeded,
    ContentBlocked,
    ConversationNotFound,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    ProviderProtocolError,
    ProviderRejected,
    RateLimited,
    RequestIdReused,
    ShuttingDown,
    StoreUnavailable,
    TurnInProgress,
    TurnNotComplete,
)
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    CitationDelta,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    MediaDelta,
    Metrics,
    Place,
    Started,
    TextDelta,
    Usage,
)
from antiphon.domain.principal import Principal
from antiphon.domain.reply import Reply, collect
from antiphon.domain.request import ChatRequest, Sampling
from antiphon.guards.registry import build_guards
from antiphon.history.base import MessageState, PartialReply, StoredMessage, TurnEnd
from antiphon.history.recorder import Record, Recorder
from antiphon.limits.base import NANOS
from antiphon.limits.ledger import Ledger
from antiphon.limits.limiter import Limiter
from antiphon.limits.quotas import Quotas
from antiphon.rest.openai.reply import completion
from antiphon.routing.router import Router
from tests.unit.framing import check
from tests.unit.listener import Listener
from tests.unit.memory_store import MemoryStore
from tests.unit.scripted import NO_PRICES, NO_STORE, ONE_ATTEMPT, ORIGIN, START, STOP, USAGE, ScriptedProvider

HELLO = Message(Role.USER, (Text("Hello"),))

BEGIN = BlockStarted(0, 0, Text(""))


def service(provider: ScriptedProvider, timeout: float = 60) -> ChatService:
    return ChatService(Router([(provider, ["one", "up-*"])], rules=ONE_ATTEMPT), Recorder(NO_STORE), NO_PRICES, timeout=timeout)


def request_for(model: str = "", *messages: Message) -> ChatRequest:
    return ChatRequest(model, messages or (HELLO,), stream=True)


async def test_it_asks_the_provider_by_the_providers_own_name_of_the_model() -> None:
    """The provider's prefix is removed from the model's name, and the rest of the request is passed on unchanged."""
    provider = ScriptedProvider()
    reply = await collect(service(provider).stream(Call(), request_for("scripted/up-1")))
    assert provider.requests == [request_for("up-1")]
    assert reply.choices[0].text == "Hello"


async def test_a_caller_that_leaves_closes_the_providers_call() -> None:
    """If the caller leaves, the provider's call is closed and the call is not in flight any more."""
    provider = ScriptedProvider([START, TextDelta(0, "Hel")], None)
    chat = service(provider)
    async with aclosing(chat.stream(Call(), request_for())) as batches:
        assert await anext(batches) == [START, BEGIN, TextDelta(0, "Hel")]
        assert chat.in_flight == 1
    assert (provider.closed, chat.in_flight) == (1, 0)


async def test_nothing_is_sent_before_the_first_delta() -> None:
    """Events before the first delta are sent together with it, so that an earlier failure can still become a status."""
    provider = ScriptedProvider([START], [TextDelta(0, "")], [TextDelta(0, "Hel")], [TextDelta(0, "lo")], [USAGE, STOP])
    batches = [batch async for batch in service(provider).stream(Call(), request_for())]
    assert batches[:2] == [[START, BEGIN, TextDelta(0, ""), TextDelta(0, "Hel")], [TextDelta(0, "lo")]]
    failing = service(ScriptedProvider([START], [TextDelta(0, "")], ProviderProtocolError("Cut.", provider="p")))
    with pytest.raises(ProviderProtocolError):
        await anext(failing.stream(Call(), request_for()))
    whole = [batch async for batch in service(ScriptedProvider([START], [USAGE, STOP])).stream(Call(), request_for())]
    assert [type(event) for batch in whole for event in batch] == [Started, Usage, Metrics, Finished]


async def test_only_some_events_are_held_back() -> None:
    """At most MAX_HELD events are held back, so that a provider that sends no delta does not fill the memory."""
    empty = ExtraFields(0, {"annotations": []})
    provider = ScriptedProvider([START], *([empty] for _ in range(MAX_HELD)), None)
    async with aclosing(service(provider).stream(Call(), request_for())) as batches:
        assert len(await anext(batches)) == MAX_HELD


@pytest.mark.parametrize(("own", "callers"), [(0.01, None), (60, 0.01), (0.01, 60)])
async def test_the_shorter_deadline_ends_the_call(own: float, callers: float | None) -> None:
    """The shorter of the configured and the caller's deadline ends the call, and the provider's call is closed."""
    provider = ScriptedProvider([START], None)
    with pytest.raises(DeadlineExceeded):
        await collect(service(provider, own).stream(Call(timeout=callers), request_for()))
    assert provider.closed == 1


async def test_calls_in_flight_can_be_interrupted() -> None:
    """`interrupt` ends all calls in flight with `ShuttingDown` and closes the calls to the provider."""
    provider = ScriptedProvider([START], None)
    chat = service(provider)
    calls = [asyncio.create_task(collect(chat.stream(Call(), request_for()))) for _ in range(3)]
    while chat.in_flight < 3:
        await asyncio.sleep(0)
    chat.interrupt()
    for call in calls:
        with pytest.raises(ShuttingDown):
            await call
    assert (provider.closed, chat.in_flight) == (3, 0)


async def test_a_bad_request_never_reaches_a_provider() -> None:
    """A request without messages, with a NUL or for an unknown model raises before the provider is asked."""
    provider = ScriptedProvider()
    chat = service(provider)
    with pytest.raises(InvalidRequest):
        await collect(chat.stream(Call(), ChatRequest("one", (), stream=False)))
    with pytest.raises(InvalidRequest) as caught:
        await collect(chat.stream(Call(), request_for("one", HELLO, Message(Role.USER, (Text("a\0b"),)))))
    assert [violation.path for violation in caught.value.violations] == [("messages", 1)]
    with pytest.raises(ModelNotFound):
        await collect(chat.stream(Call(), request_for("two")))
    assert provider.requests == []


async def test_the_observer_gets_each_event_once() -> None:
    """The observer gets each event of a call once and in order; afterwards the call has its route, provider, model and usage."""
    listener = Listener()
    call = Call(observer=listener)
    await collect(service(ScriptedProvider()).stream(call, request_for("scripted/up-1")))
    assert listener.events == ["admitted", "attempt_started", "first_token", "attempt_ended", "settled"]
    assert (call.route, call.provider, call.model) == ("scripted/up-1", "scripted", "up-1")
    assert call.usage == USAGE


async def test_a_model_that_a_key_may_not_use_is_known_to_the_log() -> None:
    """A call that is refused for its model has the route set, so that the log shows what was refused."""
    call = Call(caller=Principal("ann", owner="ann", models=("other",)))
    with pytest.raises(PermissionDenied):
        await collect(service(ScriptedProvider()).stream(call, request_for("scripted/up-1")))
    assert (call.route, call.provider, call.model) == ("scripted/up-1", "scripted", "up-1")


async def test_a_caller_that_leaves_is_reported() -> None:
    """If the caller leaves, the observer gets `cancelled_upstream` and `attempt_ended` before `settled`."""
    listener = Listener()
    chat = service(ScriptedProvider([START, TextDelta(0, "Hel")], None))
    async with aclosing(chat.stream(Call(observer=listener), request_for())) as batches:
        await anext(batches)
    assert listener.events[3:] == ["cancelled_upstream", "attempt_ended", "settled"]


async def test_a_database_that_fails_is_no_fault_of_the_provider() -> None:
    """If storing the reply fails, the provider's attempt has still ended without an error."""

    class Failing(MemoryStore):
        async def end_turn(self, owner: str, message_id: str, end: TurnEnd) -> bool:
            raise ConversationNotFound(message_id)

    listener = Listener()
    chat = recording(ScriptedProvider(), Failing())
    with pytest.raises(ConversationNotFound):
        await collect(chat.stream(Call(observer=listener), request_for(), Record("ann")))
    assert listener.errors[:1] == [None]


async def test_a_stream_without_a_finish_reason_is_cut() -> None:
    """A stream that ends without a finish reason raises `ProviderProtocolError`."""
    with pytest.raises(ProviderProtocolError):
        await collect(service(ScriptedProvider([START, TextDelta(0, "Hel")])).stream(Call(), request_for()))


# Limits.


class Limited:
    """A chat service whose only caller has the limits `quota`."""

    def __init__(
        self, provider: ScriptedProvider, store: MemoryStore | None = None, wants_key: Sequence[str] = (), **quota: Any
    ) -> None:
        self.provider = provider
        self.ledger = Ledger(NO_STORE)
        self.headers: dict[str, str] = {}
        prices = Prices({"one": PriceConfig(input=1_000_000, output=1_000_000)}, {})
        config = LimitsConfig.model_validate({"overall": quota})
        router = Router([(provider, ["one"])], wants_key=wants_key, rules=ONE_ATTEMPT)
        limiter = Limiter(Quotas(config), self.ledger)
        self.chat = ChatService(router, Recorder(store or NO_STORE), prices, timeout=60, limiter=limiter)

    async def ask(self, record: Record | None = None, **sampling: Any) -> Reply:
        request = ChatRequest("one", (HELLO,), stream=True, sampling=Sampling(**sampling))
        return await collect(self.chat.stream(self.call(), request, record))

    def call(self) -> Call:
        return Call(observer=self.ledger, headers=self.headers)

    @property
    def spent(self) -> float:
        today, _ = self.ledger.periods()
        return self.ledger.spent("overall", today) / NANOS


async def test_a_call_over_the_limit_reaches_neither_provider_nor_database() -> None:
    """A call over the limit reaches no provider, and nothing of it is stored."""
    store = MemoryStore()
    limited = Limited(ScriptedProvider(), store, requests_per_minute=1)
    await limited.ask(Record("me"))
    with pytest.raises(RateLimited):
        await limited.ask(Record("me"))
    assert len(limited.provider.requests) == 1
    assert len((await store.list("me", size=9)).conversations) == 1


@pytest.mark.parametrize("resent", [False, True])
async def test_what_is_stored_counts_before_the_provider_is_asked(resent: bool) -> None:
    """The stored conversation counts as prompt tokens. A short message that makes the prompt too long is refused and not stored."""
    store = MemoryStore()
    limited = Limited(ScriptedProvider(), store, tokens_per_minute=1000, requests_per_minute=3)
    long = Message(Role.USER, (Text("x" * 4000),))
    made = await store.create("me", title="", source="", pinned=False, messages=[long])
    with pytest.raises(RateLimited, match="about 1010 tokens"):
        await limited.ask(Record("me", conversation=made.id, resent=resent))
    assert limited.provider.requests == []
    assert len((await store.messages("me", made.id)).messages) == 1
    headers = limited.headers
    await limited.ask()
    assert (headers["x-ratelimit-remaining-tokens"], headers["x-ratelimit-remaining-requests"]) == ("744", "1")


async def test_what_is_stored_and_cannot_be_sent_does_not_count() -> None:
    """Stored messages that cannot be sent to the provider do not count as prompt tokens."""
    store = MemoryStore()
    limited = Limited(ScriptedProvider(), store, tokens_per_minute=1000)
    thought = Message(Role.ASSISTANT, (Thinking("Hm" * 4000),))
    made = await store.create("me", title="", source="", pinned=False, messages=[HELLO, thought])
    await limited.ask(Record("me", conversation=made.id))
    assert limited.provider.requests[-1].messages == (HELLO, HELLO)


async def test_a_turn_is_one_request_and_holds_what_it_comes_to() -> None:
    """A recorded turn counts as one request and reserves the tokens of its whole prompt, though its limits are checked twice."""
    store = MemoryStore()
    limited = Limited(ScriptedProvider([START], None), store, tokens_per_minute=1000, requests_per_minute=9, concurrent_streams=1)
    made = await store.create("me", title="", source="", pinned=False, messages=[Message(Role.USER, (Text("x" * 400),))])
    headers = limited.headers
    call = asyncio.create_task(limited.ask(Record("me", conversation=made.id), max_tokens=100))
    while not limited.provider.requests:
        await asyncio.sleep(0)
    assert (headers["x-ratelimit-remaining-tokens"], headers["x-ratelimit-remaining-requests"]) == (str(1000 - 110 - 100), "8")
    with pytest.raises(RateLimited):
        await limited.ask()
    call.cancel()
    await asyncio.wait([call])
    await limited.chat.settled()


async def test_a_call_is_settled_before_its_last_batch() -> None:
    """A call is settled before its last batch is sent, so that the caller may start another call at once."""
    limited = Limited(ScriptedProvider(), concurrent_streams=1, tokens_per_minute=30)
    batches = limited.chat.stream(Call(observer=limited.ledger), request_for())
    async with aclosing(batches):
        async for batch in batches:
            if type(batch[-1]) is Finished:
                await limited.ask()
    assert limited.spent == 2 * 5


@pytest.mark.parametrize(
    ("first", "spent"),
    [
        (None, 6),  # the caller left before any output, but the provider had the prompt
        ([START, TextDelta(0, "x" * 40)], 6 + 10),  # the output so far is charged
    ],
)
async def test_a_call_that_is_broken_off_gives_back_what_it_did_not_use(first: Any, spent: float) -> None:
    """A cancelled call releases its place and the tokens that it did not use; the prompt and the text so far are charged."""
    limited = Limited(ScriptedProvider(first, None), concurrent_streams=1, tokens_per_minute=1000)
    call = asyncio.create_task(limited.ask(max_tokens=200))
    while not limited.provider.requests:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await limited.ask()
    call.cancel()
    await asyncio.wait([call])
    headers = limited.headers
    limited.provider.batches = ([START], [USAGE, STOP])
    await limited.ask(max_tokens=100)
    assert headers["x-ratelimit-remaining-tokens"] == str(1000 - round(spent) - 106)
    assert limited.spent == spent + 5


async def test_a_prompt_is_used_where_its_reply_is_too_late() -> None:
    """The prompt of a call that ends by its deadline is charged."""
    limited = Limited(ScriptedProvider(None), tokens_per_minute=1000)
    with pytest.raises(DeadlineExceeded):
        await collect(limited.chat.stream(Call(timeout=0.01, observer=limited.ledger), ChatRequest("one", (HELLO,), stream=True)))
    assert limited.spent == 6


async def test_a_call_that_fails_gives_back_all_but_its_request() -> None:
    """A call that fails at the provider returns its place and tokens, but counts as a request."""
    error = ProviderProtocolError("x", provider="scripted")
    limited = Limited(ScriptedProvider(error), concurrent_streams=1, tokens_per_minute=1000, requests_per_minute=3)
    headers = limited.headers
    for _ in range(3):
        with pytest.raises(ProviderProtocolError):
            await limited.ask(max_tokens=200)
        assert headers["x-ratelimit-remaining-tokens"] == str(1000 - 206)
    with pytest.raises(RateLimited):
        await limited.ask()
    assert limited.spent == 0


async def test_a_callers_own_key_costs_the_gateway_nothing() -> None:
    """A call with the caller's own provider key counts tokens, but costs nothing and needs no budget."""
    limited = Limited(ScriptedProvider(), wants_key=["scripted"], daily_usd=1, tokens_per_minute=1000)
    request = ChatRequest("one", (HELLO,), stream=True, api_key=SecretStr("sk-own"))
    await collect(limited.chat.stream(Call(observer=limited.ledger), request))
    assert limited.spent == 0
    await limited.ask()
    with pytest.raises(BudgetExceeded):
        await limited.ask()
    await collect(limited.chat.stream(Call(observer=limited.ledger), request))


async def test_a_key_that_no_provider_asks_for_is_no_way_past_a_budget() -> None:
    """A caller's key for a provider that takes none is ignored: the call is charged and needs a budget."""
    limited = Limited(ScriptedProvider(), daily_usd=5)
    request = ChatRequest("one", (HELLO,), stream=True, api_key=SecretStr("x"))
    await collect(limited.chat.stream(Call(observer=limited.ledger), request))
    assert limited.spent == 5
    with pytest.raises(BudgetExceeded):
        await collect(limited.chat.stream(Call(observer=limited.ledger), request))
    assert len(limited.provider.requests) == 1


async def test_a_spent_budget_refuses_the_next_call() -> None:
    """A call is charged by its price, and the next call raises `BudgetExceeded` if the budget is spent."""
    limited = Limited(ScriptedProvider(), daily_usd=5)
    reply = await limited.ask()
    assert reply.metrics
    assert reply.metrics.cost_usd == limited.spent == 5
    with pytest.raises(BudgetExceeded):
        await limited.ask()
    assert len(limited.provider.requests) == 1


# Recorded turns.


def recording(provider: ScriptedProvider, store: MemoryStore) -> ChatService:
    return ChatService(Router([(provider, ["one"])], rules=ONE_ATTEMPT), Recorder(store), NO_PRICES, timeout=60)


async def path(store: MemoryStore) -> tuple[StoredMessage, ...]:
    """Return the messages of the owner's only conversation."""
    (conversation,) = (await store.list("ann", size=10)).conversations
    return (await store.messages("ann", conversation.id)).messages


async def test_a_turn_is_stored_before_the_request_and_before_its_last_batch() -> None:
    """The message and a reply in progress are stored before the first batch.

    The reply is stored as complete before the last batch is sent.
    """
    store = MemoryStore()
    provider = ScriptedProvider()
    batches = recording(provider, store).stream(Call(), request_for(), Record("ann"))
    seen = [(batch, [message.state for message in await path(store)]) async for batch in batches]
    assert seen[0][1] == [MessageState.COMPLETE, MessageState.IN_PROGRESS]
    assert seen[-1][1] == [MessageState.COMPLETE, MessageState.COMPLETE]
    started = seen[0][0][0]
    assert isinstance(started, Started)
    _, reply = await path(store)
    assert (reply.message.blocks, reply.usage, reply.provider) == ((Text("Hello"),), Usage(3, 2, 5), "scripted")
    assert (started.message_id, started.conversation_title) == (reply.id, "Hello")


async def test_the_model_gets_the_conversation_from_its_beginning() -> None:
    """The provider gets the whole stored conversation, though the request has only the new message."""
    store = MemoryStore()
    provider = ScriptedProvider()
    chat = recording(provider, store)
    first = await collect(chat.stream(Call(), request_for(), Record("ann")))
    assert first.started is not None
    more = Message(Role.USER, (Text("More"),))
    record = Record("ann", conversation=first.started.conversation_id)
    await collect(chat.stream(Call(), request_for("one", more), record))
    assert provider.requests[-1].messages == (HELLO, Message(Role.ASSISTANT, (Text("Hello"),), origin=ORIGIN), more)


async def test_a_request_id_seen_again_is_answered_from_the_store() -> None:
    """A repeated request id gets the stored reply with the same ids, without a second request to the provider."""
    store = MemoryStore()
    provider = ScriptedProvider()
    chat = recording(provider, store)
    first = await collect(chat.stream(Call(), request_for(), Record("ann", request_id="r")))
    again = await collect(chat.stream(Call(), request_for(), Record("ann", request_id="r")))
    assert len(provider.requests) == 1
    assert first.started is not None
    assert again.started is not None
    assert again.started == first.started
    assert again.choices[0].provider_reason == first.choices[0].provider_reason
    assert "".join(again.choices[0].text) == "Hello"
    assert len(await path(store)) == 2


async def test_a_turn_that_goes_on_or_broke_off_is_not_begun_again() -> None:
    """A repeated request id raises `TurnInProgress` while the turn runs.

    If the turn broke off, it gets the stored text and then `TurnNotComplete`.
    """
    store = MemoryStore()
    provider = ScriptedProvider([START, TextDelta(0, "Hel")], None)
    chat = recording(provider, store)
    record = Record("ann", request_id="r")
    async with aclosing(chat.stream(Call(), request_for(), record)) as batches:
        await anext(batches)
        with pytest.raises(TurnInProgress):
            await collect(chat.stream(Call(), request_for(), record))
    await chat.settled()
    found = []
    with pytest.raises(TurnNotComplete):
        async for batch in chat.stream(Call(), request_for(), record):
            found += batch
    assert TextDelta(0, "Hel") in found
    assert len(provider.requests) == 1


async def test_a_turn_cancelled_before_any_output_can_be_retried() -> None:
    """If a turn was cancelled before any text came, the same request id runs it again in the same conversation."""
    store = MemoryStore()
    provider = ScriptedProvider([START], None)
    chat = recording(provider, store)
    record = Record("ann", request_id="r")
    call = asyncio.create_task(collect(chat.stream(Call(), request_for(), record)))
    while not provider.requests:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await chat.settled()
    assert [stored.state for stored in await path(store)] == [MessageState.COMPLETE, MessageState.CANCELLED]
    provider.batches = ScriptedProvider().batches
    reply = await collect(chat.stream(Call(), request_for(), record))
    assert reply.choices[0].text == "Hello"
    assert [stored.state for stored in await path(store)] == [MessageState.COMPLETE, MessageState.COMPLETE]


@pytest.mark.parametrize(
    ("batches", "state", "text"),
    [
        (([START, TextDelta(0, "Hel")], ProviderProtocolError("Cut.", provider="p")), MessageState.INCOMPLETE, "Hel"),
        (([START, TextDelta(0, "Hel")], ZeroDivisionError()), MessageState.INCOMPLETE, "Hel"),
    ],
)
async def test_a_failed_turn_keeps_what_had_come(batches: tuple[object, ...], state: MessageState, text: str) -> None:
    """The text before a failure is stored as an incomplete reply with the error's reason."""
    store = MemoryStore()
    with pytest.raises((ProviderProtocolError, ZeroDivisionError)):
        await collect(recording(ScriptedProvider(*batches), store).stream(Call(), request_for(), Record("ann")))  # type: ignore[arg-type]
    _, reply = await path(store)
    assert (reply.state, reply.message.blocks) == (state, (Text(text),))
    assert reply.error_reason


@pytest.mark.parametrize("before", [(), ([START],)])
async def test_a_first_turn_of_which_nothing_comes_leaves_no_conversation(before: tuple[Batch, ...]) -> None:
    """A new conversation is removed if its first turn fails without any text, and the caller is not given its id."""
    store, recorded_ids = MemoryStore(), list[str]()
    provider = ScriptedProvider(*before, ProviderProtocolError("Cut.", provider="p"))
    chat = recording(provider, store)
    for request_id in ("", "", "r", "r"):
        with pytest.raises(ProviderProtocolError):
            await collect(chat.stream(Call(), request_for(), Record("ann", request_id=request_id, on_recorded=recorded_ids.append)))
    assert (await store.list("ann", size=10)).conversations == ()
    assert recorded_ids == []
    provider.batches = ScriptedProvider().batches
    await collect(chat.stream(Call(), request_for(), Record("ann", request_id="r", on_recorded=recorded_ids.append)))
    (conversation,) = (await store.list("ann", size=10)).conversations
    assert recorded_ids == [conversation.id]


async def test_a_conversation_that_is_named_keeps_a_turn_that_failed() -> None:
    """An existing conversation keeps a failed turn, and the caller gets its id."""
    store, recorded_ids = MemoryStore(), list[str]()
    made = await store.create("ann", title="", source="", pinned=False, messages=())
    chat = recording(ScriptedProvider(ProviderProtocolError("Cut.", provider="p")), store)
    with pytest.raises(ProviderProtocolError):
        await collect(chat.stream(Call(), request_for(), Record("ann", conversation=made.id, on_recorded=recorded_ids.append)))
    assert [message.state for message in await path(store)] == [MessageState.COMPLETE, MessageState.FAILED]
    assert recorded_ids == [made.id]


async def test_a_conversation_that_was_renamed_meanwhile_stays() -> None:
    """A new conversation that was renamed during its failing first turn is kept, with the turn as failed."""
    store = MemoryStore()

    class Renaming(ScriptedProvider):
        async def stream(self, request: ChatRequest, warn: Any = None) -> AsyncGenerator[Batch, None]:
            (conversation,) = (await store.list("ann", size=10)).conversations
            await store.update("ann", conversation.id, title="Mine")
            async for batch in super().stream(request):
                yield batch

    chat = recording(Renaming(ProviderProtocolError("Cut.", provider="p")), store)
    with pytest.raises(ProviderProtocolError):
        await collect(chat.stream(Call(), request_for(), Record("ann")))
    assert [message.state for message in await path(store)] == [MessageState.COMPLETE, MessageState.FAILED]


async def test_a_turn_whose_conversation_is_deleted_has_no_clean_end() -> None:
    """If the conversation is deleted during the reply, the call raises `ConversationNotFound` and has no clean end."""
    store = MemoryStore()
    found: Batch = []
    with pytest.raises(ConversationNotFound):
        async for batch in recording(ScriptedProvider(), store).stream(Call(), request_for(), Record("ann")):
            found += batch
            for conversation in (await store.list("ann", size=10)).conversations:
                await store.delete("ann", conversation.id)
    assert found
    assert not any(isinstance(event, Finished) for event in found)


async def test_a_turn_that_another_worker_took_over_is_in_progress() -> None:
    """If another worker has taken over the turn, the call raises `TurnInProgress`, because its reply is not the stored one."""

    class Taken(MemoryStore):
        async def end_turn(self, owner: str, reply_id: str, end: TurnEnd) -> bool:
            return False

    with pytest.raises(TurnInProgress):
        await collect(recording(ScriptedProvider(), Taken()).stream(Call(), request_for(), Record("ann", request_id="r")))


async def test_a_replayed_reply_equals_the_first() -> None:
    """A replayed reply equals the first one: all kinds of blocks, states, unknown fields and the provider's finish reason."""
    signed = State("s", {"signed": 1})
    blocks: list[Block] = [
        Thinking("", "reasoning", state=signed),
        RedactedThinking(state=State("d")),
        Text("", state=signed),
        ToolCall("c1", "f", "", state=signed),
        ToolCall("c2", "g", "", "custom"),
        ToolCall("", "h", "", "function_call"),
        ServerToolCall("w", "web_search", "find", None),
        ServerToolResult("w", "web_search", state=signed),
        Opaque(state=State(fields={"type": "odd"})),
        Image(Media("data:image/png;base64,AA")),
        Audio(Media(), "a"),
    ]
    batch: Batch = [START, *(BlockStarted(number, 0, block) for number, block in enumerate(blocks))]
    batch += [InputDelta(3, "{}"), InputDelta(4, "x"), InputDelta(6, "{}"), TextDelta(2, "Hi"), MediaDelta(10, "QUJD", "la")]
    ends: Batch = [CitationDelta(2, Citation("u")), ExtraFields(0, {"annotations": [1]})]
    provider = ScriptedProvider(batch, ends, [USAGE, Finished(0, FinishReason.PAUSE, "pause_turn")])
    chat = recording(provider, MemoryStore())
    first, again = [await collect(chat.stream(Call(), request_for(), Record("ann", request_id="r"))) for _ in range(2)]
    assert len(provider.requests) == 1
    assert again.message() == first.message()
    assert len(first.message().blocks) == len(blocks)
    ended = [(reply.choices[0].reason, reply.choices[0].provider_reason) for reply in (first, again)]
    assert ended == [(FinishReason.PAUSE, "pause_turn")] * 2


@pytest.mark.parametrize(
    "blocks",
    [
        (Text(""),),
        (Thinking("", state=State("s")), Text("")),
        (Text(""), RedactedThinking(state=State("d")), Text("")),
        (Text(""), Text("Hi")),
    ],
    ids=len,
)
async def test_a_replayed_reply_has_its_fields_and_empty_texts(blocks: tuple[Block, ...]) -> None:
    """What the provider sent beside the message is stored, and empty texts are, as clients tell them from none."""
    batch: Batch = [replace(START, fields={"service_tier": "default"})]
    for number, block in enumerate(blocks):
        batch.append(BlockStarted(number, 0, replace(block, text="") if isinstance(block, Text) else block))
        batch += [TextDelta(number, block.text)] if isinstance(block, Text) and block.text else []
        batch.append(BlockFinished(number))
    batch.append(ExtraFields(None, {"system_fingerprint": "fp"}, Place.REPLY))
    batch.append(ExtraFields(0, {"content_filter_results": {"hate": {"filtered": False}}}, Place.CHOICE))
    provider = ScriptedProvider(batch, [USAGE, Finished(0, FinishReason.STOP, "stop", {"stop_sequence": "."})])
    chat = recording(provider, MemoryStore())
    first, again = [await collect(chat.stream(Call(), request_for(), Record("ann", request_id="r"))) for _ in range(2)]
    assert len(provider.requests) == 1
    assert completion(again) == completion(first)
    assert again.choices[0].details == {"stop_sequence": "."}
    assert [one.block() for one in again.choices[0].blocks] == list(blocks)


async def test_a_replayed_block_is_one_delta() -> None:
    """Each block of a replayed reply is one delta between its start and end."""
    call = [BlockStarted(1, 0, ToolCall("c1", "f", "", state=State(fields={"signed": 1}))), InputDelta(1, "{}")]
    pieces = [TextDelta(0, "H"), TextDelta(0, "i"), *call]
    provider = ScriptedProvider([START, *pieces], [USAGE, Finished(0, FinishReason.TOOL_CALLS, "tool_calls")])
    chat = recording(provider, MemoryStore())
    await collect(chat.stream(Call(), request_for(), Record("ann", request_id="r")))
    (batch,) = [batch async for batch in chat.stream(Call(), request_for(), Record("ann", request_id="r"))]
    assert batch[1:-2] == [BEGIN, TextDelta(0, "Hi"), BlockFinished(0), *call, BlockFinished(1)]
    check(batch)


async def test_a_request_id_is_good_for_one_turn() -> None:
    """A request id with other messages raises `RequestIdReused`."""
    provider = ScriptedProvider()
    chat = recording(provider, MemoryStore())
    await collect(chat.stream(Call(), request_for(), Record("ann", request_id="r")))
    with pytest.raises(RequestIdReused):
        await collect(chat.stream(Call(), request_for("one", user_message("Other")), Record("ann", request_id="r")))
    assert len(provider.requests) == 1


async def test_the_turn_of_a_caller_that_leaves_is_settled_in_the_background() -> None:
    """If the caller leaves, its turn is stored in the background as cancelled, with the text so far."""
    store = MemoryStore()
    chat = recording(ScriptedProvider([START, TextDelta(0, "Hel")], None), store)
    async with aclosing(chat.stream(Call(), request_for(), Record("ann"))) as batches:
        await anext(batches)
    await chat.settled()
    _, reply = await path(store)
    assert (reply.state, reply.message.blocks) == (MessageState.CANCELLED, (Text("Hel"),))


async def test_the_text_of_a_long_reply_is_checkpointed() -> None:
    """A checkpoint stores the text of replies in progress, with one call of the store for all of them.

    A reply is stored from its second checkpoint on, and only if it has new text.
    """
    store = MemoryStore()
    recorder = Recorder(store)
    provider = ScriptedProvider([START, TextDelta(0, "Hel")], [TextDelta(0, "lo")], None)
    chat = ChatService(Router([(provider, ["one"])]), recorder, NO_PRICES, timeout=60)
    async with aclosing(chat.stream(Call(), request_for(), Record("ann"))) as batches:
        await anext(batches)
        calls = store.calls
        await recorder.checkpoint()
        assert store.calls == calls
        await recorder.checkpoint()
        await recorder.checkpoint()
        assert store.calls == calls + 1
        _, reply = await path(store)
        assert (reply.state, reply.message.blocks, reply.provider) == (MessageState.IN_PROGRESS, (Text("Hel"),), "scripted")
        await anext(batches)
        await recorder.checkpoint()
        assert (await path(store))[1].message.blocks == (Text("Hello"),)
    await chat.settled()
    calls = store.calls
    await recorder.checkpoint()
    assert store.calls == calls


async def test_a_failed_checkpoint_is_tried_again() -> None:
    """A checkpoint that fails is tried again at the next pass, and the call goes on."""

    class Failing(MemoryStore):
        failures = 1

        async def checkpoint(self, replies: Sequence[PartialReply]) -> None:
            self.failures -= 1
            if self.failures >= 0:
                raise StoreUnavailable
            await super().checkpoint(replies)

    store = Failing()
    recorder = Recorder(store)
    chat = ChatService(Router([(ScriptedProvider([START, TextDelta(0, "Hel")], None), ["one"])]), recorder, NO_PRICES, timeout=60)
    async with aclosing(chat.stream(Call(), request_for(), Record("ann"))) as batches:
        await anext(batches)
        for _ in range(3):
            await recorder.checkpoint()
        assert (await path(store))[1].message.blocks == (Text("Hel"),)


class FailingStore(MemoryStore):
    """A store whose `end_turn` fails the first `failures` times."""

    failures = 2

    async def end_turn(self, owner: str, reply_id: str, end: TurnEnd) -> bool:
        self.failures -= 1
        if self.failures >= 0:
            raise StoreUnavailable
        return await super().end_turn(owner, reply_id, end)


async def test_storing_the_end_of_a_turn_is_retried() -> None:
    """Storing the end of a turn is retried, and the caller gets the last batch after it has succeeded."""
    store = FailingStore()
    provider = ScriptedProvider([START, TextDelta(0, "Hello")], [STOP])
    await collect(recording(provider, store).stream(Call(), request_for(), Record("ann")))
    assert [message.state for message in await path(store)] == [MessageState.COMPLETE] * 2


class SlowStore(MemoryStore):
    """A store whose first `end_turn` takes until it is cancelled, or may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()

    async def end_turn(self, owner: str, reply_id: str, end: TurnEnd) -> bool:
        if not self.began.is_set():
            self.began.set()
            await self.go_on.wait()
        return await super().end_turn(owner, reply_id, end)


async def test_a_caller_that_leaves_while_its_reply_is_stored_loses_nothing() -> None:
    """A reply whose caller leaves at the very end is stored as complete."""
    store = SlowStore()
    chat = recording(ScriptedProvider([START, TextDelta(0, "Hello")], [STOP]), store)
    calling = asyncio.create_task(collect(chat.stream(Call(), request_for(), Record("ann"))))
    await store.began.wait()
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    await chat.settled()
    assert [message.state for message in await path(store)] == [MessageState.COMPLETE] * 2


async def test_a_caller_does_not_wait_for_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that cannot be stored in time is an error for its caller, and is stored later."""
    monkeypatch.setattr("antiphon.history.recorder.PATIENCE", 0.05)
    store = SlowStore()
    chat = recording(ScriptedProvider([START, TextDelta(0, "Hello")], [STOP]), store)
    with pytest.raises(StoreUnavailable):
        await collect(chat.stream(Call(), request_for(), Record("ann")))
    await chat.settled()
    assert [message.state for message in await path(store)] == [MessageState.COMPLETE] * 2


async def test_the_status_of_a_deadline_does_not_wait_for_a_slow_store() -> None:
    """A turn whose deadline passed is stored behind its caller's back: the margin before the caller's own timer is short."""
    store = SlowStore()
    chat = recording(ScriptedProvider([START, TextDelta(0, "Hello")], None), store)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(DeadlineExceeded):
        await collect(chat.stream(Call(timeout=0.1), request_for(), Record("ann")))
    assert loop.time() - began < 1
    assert store.began.is_set()
    store.go_on.set()
    await chat.settled()
    assert [message.state for message in await path(store)] == [MessageState.COMPLETE, MessageState.INCOMPLETE]


async def test_a_recorded_reply_is_sent_as_it_is_stored() -> None:
    """A NUL in a reply is replaced by U+FFFD both in the stream and in the store."""
    store = MemoryStore()
    provider = ScriptedProvider([START, TextDelta(0, "a\0b")], [USAGE, STOP])
    reply = await collect(recording(provider, store).stream(Call(), request_for(), Record("ann")))
    assert reply.choices[0].text == "a\ufffdb"
    assert (await path(store))[1].message.blocks == (Text("a\ufffdb"),)


@pytest.mark.parametrize("role", [Role.USER, Role.ASSISTANT])
async def test_only_an_empty_reply_is_not_sent_to_the_model(role: Role) -> None:
    """An empty reply of the assistant is not sent to the provider; an empty message of another role is."""
    provider = ScriptedProvider()
    empty = Message(role, ())
    await collect(recording(provider, MemoryStore()).stream(Call(), request_for("", HELLO, empty), Record("ann")))
    assert provider.requests[0].messages == ((HELLO, empty) if role is Role.USER else (HELLO,))


def user_message(text: str) -> Message:
    return Message(Role.USER, (Text(text),))


@pytest.mark.parametrize("resent", [False, True])
async def test_a_message_that_the_provider_refused_is_not_sent_again(resent: bool) -> None:
    """A message that the provider rejected stays in the history, is left out of later requests, and is logged once."""
    store, provider = MemoryStore(), ScriptedProvider()
    chat = recording(provider, store)
    made = await store.create("ann", title="", source="", pinned=False, messages=[HELLO, Message(Role.ASSISTANT, (Text("Hi"),))])

    async def say(*messages: Message) -> list[Message]:
        """Send messages and return what the provider got after the first turn."""
        record = Record("ann", conversation=made.id, resent=resent)
        await collect(chat.stream(Call(), request_for("one", *messages), record))
        return list(provider.requests[-1].messages[2:])

    good, provider.batches = provider.batches, (ProviderRejected("No.", provider="p"),)
    with pytest.raises(ProviderRejected):
        await say(user_message("bad"))
    provider.batches = good
    reply = Message(Role.ASSISTANT, (Text("Hello"),), origin=ORIGIN)
    with structlog.testing.capture_logs() as logs:
        assert await say(user_message("1")) == [user_message("1")]
        assert await say(user_message("2")) == [user_message("1"), reply, user_message("2")]
        if resent:  # with all that it has seen, as a client sends that keeps its own history
            client_history = [
                HELLO,
                Message(Role.ASSISTANT, (Text("Hi"),)),
                user_message("bad"),
                user_message("1"),
                reply,
                user_message("2"),
                reply,
            ]
            assert await say(*client_history, user_message("3")) == [
                user_message("1"),
                reply,
                user_message("2"),
                reply,
                user_message("3"),
            ]
    stored = await path(store)
    assert stored[2].message == user_message("bad")
    lines = [entry for entry in logs if entry["event"] == "messages_not_sent"]
    assert [(entry["messages"], entry["reasons"]) for entry in lines] == [([stored[2].id], ["refused"])]


# Guarded calls.


def guarding(provider: ScriptedProvider, store: MemoryStore, action: str = "mask") -> ChatService:
    guards = build_guards([GuardConfig(name="words", kind="blocklist", patterns=["bad+"], action=action, replacement="#")])  # type: ignore[call-arg]
    return ChatService(Router([(provider, ["one"])], rules=ONE_ATTEMPT), Recorder(store), NO_PRICES, timeout=60, guards=guards)


async def test_masked_text_reaches_neither_provider_nor_history_nor_caller() -> None:
    """Message, instructions, title, source and reply are masked for provider, store and caller. The operator's preamble is not."""
    store = MemoryStore()
    provider = ScriptedProvider([START, TextDelta(0, "You said b")], [TextDelta(0, "ad."), USAGE, STOP])
    words = (Message(Role.SYSTEM, (Text("bad"),)),)
    record = Record("ann", source="so bad", instructions=words, preamble=words)
    reply = await collect(guarding(provider, store).stream(Call(), request_for("one", user_message("a bad one")), record))
    assert reply.choices[0].text == "You said #."
    assert provider.requests[0].messages == (*words, Message(Role.SYSTEM, (Text("#"),)), user_message("a # one"))
    assert [conversation.source for conversation in (await store.list("ann", size=10)).conversations] == ["so #"]
    assert [stored.message.blocks for stored in await path(store)] == [(Text("a # one"),), (Text("You said #."),)]
    assert reply.started is not None
    assert reply.started.conversation_title == "a # one"


async def test_a_blocked_request_is_neither_sent_nor_recorded() -> None:
    """A blocked request raises `ContentBlocked`, reaches no provider and is not stored."""
    store, provider = MemoryStore(), ScriptedProvider()
    bad = user_message("a bad one")
    for record, message in (
        (None, bad),
        (Record("ann"), bad),
        (Record("ann", preamble=(bad,)), HELLO),
        (Record("ann", source="bad"), HELLO),
    ):
        with pytest.raises(ContentBlocked):
            await collect(guarding(provider, store, "block").stream(Call(), request_for("one", message), record))
    assert provider.requests == []
    assert (await store.list("ann", size=10)).conversations == ()


async def test_a_blocked_reply_is_whole_as_filtered() -> None:
    """A blocked reply ends with CONTENT_FILTER and is stored as complete with the text before the match.

    Missing usage is estimated.
    """
    store = MemoryStore()
    provider = ScriptedProvider([START, TextDelta(0, "You said bad ")], None)
    reply = await collect(guarding(provider, store, "block").stream(Call(), request_for(), Record("ann")))
    assert (provider.closed, reply.choices[0].reason) == (1, FinishReason.CONTENT_FILTER)
    assert reply.usage is not None
    assert reply.usage.estimated
    _, stored = await path(store)
    assert (stored.state, stored.finish_reason) == (MessageState.COMPLETE, FinishReason.CONTENT_FILTER)
    assert stored.message.blocks == (Text("You said "),)


async def test_stored_messages_are_guarded_before_they_are_sent() -> None:
    """Stored messages pass the guards before they are sent to the provider, because they may be older than the guards."""
    store, provider = MemoryStore(), ScriptedProvider()
    first = await collect(recording(provider, store).stream(Call(), request_for("one", user_message("a bad one")), Record("ann")))
    assert first.started is not None
    record = Record("ann", conversation=first.started.conversation_id)
    await collect(guarding(provider, store).stream(Call(), request_for("one", HELLO), record))
    assert provider.requests[-1].messages[0] == user_message("a # one")
    with pytest.raises(ContentBlocked):
        await collect(guarding(provider, store, "block").stream(Call(), request_for("one", HELLO), record))
    assert len(provider.requests) == 2
    assert [stored.state for stored in await path(store)][-1] is MessageState.FAILED
