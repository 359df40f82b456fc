"""Tests of recording turns, through the outcomes that the observer gets."""

import asyncio
from contextlib import aclosing, suppress

import pytest

from antiphon.chat.service import ChatService
from antiphon.domain.call import Attempt, Call, Observer
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ProviderProtocolError
from antiphon.domain.events import TextDelta
from antiphon.domain.request import ChatRequest
from antiphon.history.recorder import Record, Recorder
from antiphon.routing.router import Router
from tests.unit.memory_store import MemoryStore
from tests.unit.scripted import NO_PRICES, START, ScriptedProvider


class Turns(Observer):
    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.streamed: list[bool] = []

    def turn_ended(self, call: Call, outcome: str) -> None:
        self.outcomes.append(outcome)

    def attempt_started(self, call: Call, attempt: Attempt) -> None:
        self.streamed.append(attempt.streamed)


async def run_turns(provider: ScriptedProvider, *, times: int = 1, stop: bool = False, record: Record | None = None) -> Turns:
    """Ask `times` times with one request id and return the observer. `stop` cancels each call at its first batch."""
    turns = Turns()
    chat = ChatService(Router([(provider, ["one"])]), Recorder(MemoryStore()), NO_PRICES, timeout=60)
    request = ChatRequest("", (Message(Role.USER, (Text("Hello"),)),), stream=True)

    async def ask() -> None:
        async with aclosing(chat.stream(Call(observer=turns), request, record)) as batches:
            async for _ in batches:
                if stop:
                    raise asyncio.CancelledError

    for _ in range(times):
        task = asyncio.create_task(ask())
        with suppress(ProviderProtocolError, asyncio.CancelledError):
            await task
    await chat.settled()
    return turns


async def test_a_whole_turn_is_complete_and_the_same_one_again_is_replayed() -> None:
    """A finished turn is `complete`. The same request id again is `replayed`, without a second request to the provider."""
    turns = await run_turns(ScriptedProvider(), times=2, record=Record("ann", request_id="r"))
    assert turns.outcomes == ["complete", "replayed"]
    assert turns.streamed == [True]


@pytest.mark.parametrize("before", [(), ([START, TextDelta(0, "Hel")],)])
async def test_a_turn_whose_provider_fails_is_failed(before: tuple[list[object], ...]) -> None:
    """A turn is `failed` if its provider fails, with or without some text before."""
    failing = ScriptedProvider(*before, ProviderProtocolError("Cut.", provider="p"))  # type: ignore[arg-type]
    assert (await run_turns(failing, record=Record("ann"))).outcomes == ["failed"]


async def test_a_turn_whose_caller_leaves_is_cancelled() -> None:
    """A turn is reported as `cancelled`, and only once, if its caller leaves."""
    assert (await run_turns(ScriptedProvider(), stop=True, record=Record("ann"))).outcomes == ["cancelled"]


async def test_a_call_that_is_not_recorded_reports_no_turn() -> None:
    """A call that is not recorded reports no turn."""
    assert (await run_turns(ScriptedProvider())).outcomes == []
