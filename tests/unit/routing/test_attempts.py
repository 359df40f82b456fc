"""Tests of the attempts of a call: what is tried again, where, and what the caller sees."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from antiphon.config import ProviderConfig, RoutingConfig, TimeoutsConfig
from antiphon.config.routing import AliasConfig, BackoffConfig, BreakerConfig, QueueConfig
from antiphon.domain.call import Call, FailedUse
from antiphon.domain.content import Message, Origin, RedactedThinking, Role, State, Text, Thinking
from antiphon.domain.deadline import Deadline
from antiphon.domain.errors import (
    AntiphonError,
    DeadlineExceeded,
    ProviderCredentials,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    Rejection,
    RouteUnavailable,
    ShuttingDown,
    Unsupported,
)
from antiphon.domain.events import Batch, Finished, FinishReason, RefusalDelta, TextDelta
from antiphon.domain.principal import Principal
from antiphon.domain.request import ChatRequest
from antiphon.domain.warnings import Warnings, ignore
from antiphon.routing.attempts import Attempting, Attempts
from antiphon.routing.breaker import BreakerState
from antiphon.routing.deployment import Deployment, Pool
from antiphon.routing.router import Router
from antiphon.routing.shaper import Allowance, Demand
from tests.unit.listener import Listener
from tests.unit.scripted import START, STOP, USAGE, ScriptedProvider

FAST = RoutingConfig(backoff=BackoffConfig(first=0.001, most=0.001))
HELLO = Message(Role.USER, (Text("Hello"),))
REPLY: tuple[Batch, ...] = ([START, TextDelta(0, "Hel")], [TextDelta(0, "lo")], [USAGE, STOP])

P = {"provider": "p"}
UNREACHABLE = ProviderUnavailable("Out of reach.", **P)
BROKEN = ProviderUnavailable("Broken.", status=500, **P)
CUT = ProviderProtocolError("Cut.", **P)
BUSY = ProviderRateLimited("Busy.", status=429, retry_after=0.05, **P)
KEY = ProviderCredentials("No.", status=401, **P)


def rejected(rejection: Rejection) -> ProviderRejected:
    error = ProviderRejected("Refused.", status=400, **P)
    error.rejection = rejection
    return error


class Turns(ScriptedProvider):
    """A provider that answers each request with the next of its scripts, and further ones with the last."""

    def __init__(self, name: str, *scripts: Exception | tuple[Batch | Exception | None, ...]) -> None:
        super().__init__()
        self.name = name
        self.scripts = [script if isinstance(script, tuple) else (script,) for script in scripts] or [REPLY]

    def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
        self.batches = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        return super().stream(request, warn)


def routed(*tiers: list[ScriptedProvider], rules: RoutingConfig = FAST, when: Any = None, **config: Any) -> Router:
    """Return a router with an alias `any` for these tiers of providers. Each has a model with its own name."""
    providers = [provider for tier in tiers for provider in tier]
    others = list((when or {}).values())
    pools = [
        (Pool(each.name, [Deployment(each, each.name, ProviderConfig(**config), rules)]), [f"{each.name}-model"])
        for each in (*providers, *others)
    ]
    names = [{f"{each.name}-model": 1.0 for each in tier} for tier in tiers]
    told = {reason: f"{provider.name}-model" for reason, provider in (when or {}).items()}
    return Router(pools, aliases={"any": AliasConfig(**{"try": names, "when": told})}, rules=rules)


class Outcome:
    """What came of one call."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.call = Call(observer=self.listener, headers={}, caller=Principal("ann", owner="ann"))
        self.batches: list[Batch] = []
        self.error: BaseException | None = None
        self.failed_uses: list[FailedUse] = []

    @property
    def text(self) -> str:
        return "".join(event.text for batch in self.batches for event in batch if isinstance(event, TextDelta))

    @property
    def tries(self) -> list[str]:
        return [f"{each.deployment}:{each.outcome}" for each in self.call.attempts]


async def ask(router: Router, request: ChatRequest | None = None, *, seconds: float = 5, model: str = "any") -> Outcome:
    """Make a call, and read its whole reply."""
    outcome = Outcome()
    request = request or ChatRequest(model, (HELLO,), stream=True)
    deadline = Deadline(seconds)
    attempts = Attempts(outcome.call, router.resolve(request.model), request, router.rules, deadline)
    try:
        async with attempts:
            while True:
                with deadline:
                    batch = await anext(attempts, None)
                if batch is None:
                    break
                outcome.batches.append(batch)
    except (AntiphonError, asyncio.CancelledError) as error:
        outcome.error = error
    finally:
        deadline.close()
        outcome.failed_uses = attempts.failed_uses
    return outcome


@pytest.mark.parametrize("error", [UNREACHABLE, BROKEN, CUT, BUSY, KEY, Unsupported("No sound.", "a")])
async def test_a_failure_before_output_is_not_noticed_by_the_caller(error: Exception) -> None:
    """What another deployment may be able to do is tried there: the reply comes from it, and says so."""
    a, b = Turns("a", error), Turns("b")
    outcome = await ask(routed([a], [b]))
    assert (outcome.error, outcome.text) == (None, "Hello")
    assert [each.deployment for each in outcome.call.attempts] == ["a", "b"]
    assert (outcome.call.provider, outcome.call.model) == ("b", "b-model")
    assert outcome.call.headers == {"x-antiphon-route": "b/b-model", "x-antiphon-attempts": "2"}
    assert outcome.listener.events == ["attempt_started", "attempt_ended"] * 2
    assert outcome.listener.errors == [error, None]
    assert (a.requests[0].model, b.requests[0].model) == ("a-model", "b-model")
    assert a.closed == b.closed == 1


async def test_the_header_of_a_route_is_ascii() -> None:
    """A model's name may have other characters, which gRPC allows in no header: they are percent-encoded."""
    router = Router([(Pool("a", [Deployment(Turns("a", BUSY, REPLY), "a", ProviderConfig(), FAST)]), ["*"])], "m", rules=FAST)
    outcome = await ask(router, model="größe 50%:b")
    assert (outcome.error, outcome.text) == (None, "Hello")
    assert outcome.call.headers == {"x-antiphon-route": "a/gr%C3%B6%C3%9Fe 50%25:b", "x-antiphon-attempts": "2"}


@pytest.mark.parametrize("error", [UNREACHABLE, BROKEN, CUT, BUSY])
async def test_one_deployment_alone_is_tried_again(error: ProviderError) -> None:
    """Without another one, the same deployment is tried again after a wait; a rate limit is waited for."""
    a = Turns("a", error, REPLY)
    outcome = await ask(routed([a]))
    assert (outcome.error, outcome.text) == (None, "Hello")
    assert [each.deployment for each in outcome.call.attempts] == ["a", "a"]
    if error is BUSY:
        assert outcome.call.attempts[1].waited > 0


@pytest.mark.parametrize(
    "error", [KEY, rejected(Rejection.INVALID), rejected(Rejection.TOO_LONG), rejected(Rejection.REFUSED), ProviderTimeout("", **P)]
)
async def test_what_would_fail_again_is_not_tried_again(error: ProviderError) -> None:
    """A bad key, a bad request and a time-out are not sent to the same deployment again; a bad request to no other either."""
    outcome = await ask(routed([Turns("a", error)]))
    assert outcome.error is error
    assert len(outcome.call.attempts) == 1
    if isinstance(error, ProviderRejected):
        b = Turns("b")
        assert (await ask(routed([Turns("a", error)], [b]))).error is error
        assert not b.requests


@pytest.mark.parametrize("held", [0, 1, 2])
async def test_after_output_nothing_is_tried_again(held: int) -> None:
    """A reply that breaks off after its first output fails there; what comes before the output is not noticed."""
    b = Turns("b")
    begin: list[Batch] = [[START], [TextDelta(0, "")]]
    outcome = await ask(routed([Turns("a", (*begin[:held], [TextDelta(0, "Hel")], CUT))], [b]))
    assert outcome.error is CUT
    assert outcome.text == "Hel"
    assert outcome.tries == ["a:cut"]
    assert not b.requests
    silent = await ask(routed([Turns("a", (*begin[:held], CUT))], [b]))
    assert (silent.text, silent.error) == ("Hello", None)
    assert [each.deployment for each in silent.failed_uses] == (["a"] if held else [])


async def test_no_more_is_held_back_than_64_events_and_256_kib() -> None:
    """A deployment that sends much before its first output is passed on, and then not followed by another."""
    for many in ([[TextDelta(0, "")]] * 64, [[START]] + [[TextDelta(0, "", ({"x": "y" * 100_000},))]] * 3):
        b = Turns("b")
        outcome = await ask(routed([Turns("a", (*many, CUT))], [b]))
        assert outcome.error is CUT
        assert not b.requests


async def test_at_most_three_attempts_over_all_tiers() -> None:
    """`attempts` bounds the tries of a call, and the last error is what the caller gets."""
    providers = [Turns(name, BROKEN) for name in "abcd"]
    outcome = await ask(routed(providers[:2], providers[2:]))
    assert outcome.error is BROKEN
    assert len(outcome.tries) == 3
    assert not {each.deployment for each in outcome.call.attempts} & {"d"} or len(set(outcome.tries)) == 3


async def test_a_deployment_that_fails_is_left_alone_and_found_well_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After five failures in a row it gets no call; alone, it is told as unavailable, with the time to wait."""
    a = Turns("a", BROKEN)
    router = routed([a], rules=FAST.model_copy(update={"attempts": 1}), queue=QueueConfig(wait=0))
    for _ in range(5):
        assert (await ask(router)).error is BROKEN
    outcome = await ask(router)
    assert isinstance(outcome.error, RouteUnavailable)
    assert outcome.error.retry_after == pytest.approx(1, abs=0.25), "the time until the next early probe"
    assert len(a.requests) == 5
    a.scripts = [REPLY]
    router.deployments()[0].candidates()[0].breaker.open_until = 0.0
    assert (await ask(router)).text == "Hello"


async def test_calls_wait_for_the_probe_while_everything_is_left_alone() -> None:
    """Calls queue while the only deployment is left alone, for the time that is allowed; one of them probes it."""
    a = Turns("a", BROKEN)
    router = routed([a], rules=FAST.model_copy(update={"attempts": 1}), queue=QueueConfig(wait=2))
    for _ in range(5):
        await ask(router)
    a.scripts = [REPLY]
    candidate = router.deployments()[0].candidates()[0]
    candidate.breaker.open_until = asyncio.get_running_loop().time() + 0.1
    outcomes = await asyncio.gather(*(ask(router) for _ in range(3)))
    assert any(outcome.text == "Hello" for outcome in outcomes)
    assert all(outcome.call.attempts[0].waited > 0.05 for outcome in outcomes if outcome.call.attempts)


QUICK = FAST.model_copy(update={"breaker": BreakerConfig(consecutive=2, open=0.5)})
"""Early probes each 0.1 s."""


async def test_the_first_good_answer_does_not_wait_for_the_end_of_a_breakers_time() -> None:
    """While all are left alone for long, one call at a time probes them, seldom, and the others wait; the first success ends it."""
    a, b = Turns("a", BROKEN), Turns("b", BROKEN)
    router = routed([a], [b], rules=QUICK, queue=QueueConfig(wait=1))
    first, second = (deployment.candidates()[0] for deployment in router.deployments())
    while not (first.is_broken(0.0) and second.is_broken(0.0)):
        await ask(router)
    for candidate in (first, second):
        candidate.breaker.open_until += 60
    asked = len(a.requests) + len(b.requests)
    began = time.monotonic()
    calls = [asyncio.create_task(ask(router)) for _ in range(20)]
    await asyncio.sleep(0.45)
    assert 2 <= len(a.requests) + len(b.requests) - asked <= 12, "a probe each 0.1 s of each, give or take"
    assert not any(call.done() and call.result().text for call in calls)
    b.scripts = [REPLY]
    while not any(call.done() and call.result().text for call in calls):
        await asyncio.sleep(0.01)
        assert time.monotonic() - began < 0.95, "none was answered"
    await asyncio.gather(*calls)
    assert first.breaker.open_until - time.monotonic() > 55, "failed early probes leave the times as they were"
    assert (first.deployment.in_flight, first.deployment.queued) == (0, 0)


async def test_a_failed_early_probe_waits_for_the_others() -> None:
    """The call that probed one in vain is not lost: it waits for another that returns, and is told of the failure if none does."""
    a, b = Turns("a", BROKEN), Turns("b", BROKEN)
    router = routed([a], [b], rules=QUICK, queue=QueueConfig(wait=0.5))
    first, second = (deployment.candidates()[0] for deployment in router.deployments())
    now = time.monotonic()
    for candidate, early in ((first, 0.0), (second, 0.2)):
        for _ in range(2):
            candidate.breaker.fail(now, candidate.breaker.begin(now))
        candidate.breaker.restore(msgspec.structs.replace(candidate.breaker.save(now), open_for=60, early_for=early), now)
    b.scripts = [REPLY]
    outcome = await ask(router)
    assert (outcome.text, outcome.tries) == ("Hello", ["a:overloaded", "b:ok"])
    assert 0.15 < outcome.call.attempts[1].waited < 0.5
    second.breaker.trip(time.monotonic(), 60)
    outcome = await ask(router)
    assert (outcome.error, outcome.tries) == (BROKEN, ["a:overloaded"])


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "behind one that fails"])
async def test_few_calls_do_not_wait_for_a_deployment_that_returns(alone: bool) -> None:
    """Calls one by one are no stampede: none of them waits until all of the calls are admitted again, or fails."""
    a = Turns("a", BROKEN)
    first = Turns("b", ProviderTimeout("Late.", **P))
    rules = QUICK.model_copy(update={"breaker": BreakerConfig(consecutive=2, open=0.1)})
    router = routed([a], rules=rules) if alone else routed([first], [a], rules=rules)
    candidate = router.deployments()[-1].candidates()[0]
    while not candidate.is_broken(0.0):
        await ask(router)
    a.scripts = [REPLY]
    assert (await ask(router)).text == "Hello"
    assert candidate.breaker.state is BreakerState.RAMP
    for _ in range(20):
        outcome = await ask(router)
        assert outcome.text == "Hello", (outcome.error, outcome.tries)
        assert outcome.call.attempts[-1].waited < 0.1


async def test_a_deployment_that_refuses_the_key_is_not_probed_early() -> None:
    """Nothing but somebody's work would mend it, and a wait of a minute is told at once."""
    a, b = Turns("a", KEY), Turns("b", KEY)
    router = routed([a], [b], queue=QueueConfig(wait=1))
    for _ in range(5):
        assert isinstance((await ask(router)).error, ProviderCredentials)
    assert (len(a.requests), len(b.requests)) == (1, 1)


async def test_a_caller_that_leaves_gives_the_early_probe_to_the_next() -> None:
    """Its end says nothing: the deployment stays left alone for as long as it was, and the next call probes it."""
    a = Turns("a", BROKEN)
    router = routed([a], rules=QUICK)
    for _ in range(2):
        await ask(router)
    candidate = router.deployments()[0].candidates()[0]
    candidate.breaker.open_until += 60
    a.scripts = [(None,)]
    asked = len(a.requests)
    task = asyncio.create_task(ask(router))
    while len(a.requests) == asked:
        await asyncio.sleep(0.01)
    assert candidate.breaker.is_early
    task.cancel()
    assert isinstance((await task).error, asyncio.CancelledError)
    assert candidate.breaker.state is BreakerState.OPEN
    a.scripts = [REPLY]
    assert (await ask(router)).text == "Hello"
    assert candidate.breaker.state is BreakerState.RAMP


async def test_the_time_that_a_provider_in_trouble_names_is_waited_for() -> None:
    """Also of a 503: a retry before it would be in vain. One that does not fit is not made, and the caller is told the time."""
    soon = ProviderUnavailable("Overloaded.", status=503, retry_after=0.2, **P)
    a = Turns("a", soon, REPLY)
    outcome = await ask(routed([a]))
    assert (outcome.text, outcome.tries) == ("Hello", ["a:overloaded", "a:ok"])
    assert 0.19 < outcome.call.attempts[1].waited < 1
    for seconds in (21, 6):  # more than `retry_after_most`, and more than the deadline leaves
        late = ProviderUnavailable("Overloaded.", status=503, retry_after=seconds, **P)
        outcome = await ask(routed([Turns("a", late, REPLY)]))
        assert (outcome.error, outcome.tries) == (late, ["a:overloaded"])
    assert (await ask(routed([Turns("a", late)], [Turns("b")]))).text == "Hello"


async def test_bad_credentials_are_not_tried_with_every_call() -> None:
    """After one refused key a deployment is left alone for a minute if there is another; without one, after five."""
    a, b = Turns("a", KEY), Turns("b")
    router = routed([a], [b])
    for _ in range(3):
        assert (await ask(router)).text == "Hello"
    assert (len(a.requests), len(b.requests)) == (1, 3)
    alone = Turns("alone", KEY)
    router = routed([alone], queue=QueueConfig(wait=0))
    for _ in range(8):
        assert isinstance((await ask(router)).error, ProviderCredentials)
    assert len(alone.requests) == 5


async def test_a_callers_own_key_says_nothing_about_the_gateways() -> None:
    """A bad key of a caller, or its used-up rate, has no effect on other calls."""
    for error in (KEY, BUSY):
        a = Turns("a", error, error, error, REPLY)
        router = routed([a], rules=RoutingConfig(attempts=1))
        own = ChatRequest("any", (HELLO,), stream=True, api_key=SecretStr("sk-own"))
        for _ in range(3):
            assert (await ask(router, own)).error is error
        assert (await ask(router)).text == "Hello"


async def test_a_rate_limit_is_told_with_the_smallest_wait_of_all() -> None:
    """If all deployments limit the rate for longer than a call may wait, the caller gets 429 and the smallest of the waits."""
    a = Turns("a", ProviderRateLimited("", status=429, retry_after=300, **P))
    b = Turns("b", ProviderRateLimited("", status=429, retry_after=60, **P))
    router = routed([a], [b])
    for _ in range(2):
        outcome = await ask(router)
        assert isinstance(outcome.error, ProviderRateLimited)
        assert outcome.error.retry_after == pytest.approx(60, abs=1)
    assert len(a.requests) == len(b.requests) == 1


async def test_a_later_rate_limit_never_shortens_a_wait() -> None:
    """`cool_until` only grows."""
    router = routed([Turns("a")])
    candidate = router.deployments()[0].candidates()[0]
    candidate.cool(100.0)
    candidate.cool(50.0)
    assert candidate.cool_until == 100.0


@pytest.mark.parametrize(("reason", "rejection"), [("context_too_long", Rejection.TOO_LONG), ("refused", Rejection.REFUSED)])
async def test_what_is_too_long_or_refused_goes_to_the_model_named_for_it(reason: str, rejection: Rejection) -> None:
    """`when` names the model for such requests. If that fails in the same way, it is the end."""
    large = Turns("large")
    outcome = await ask(routed([Turns("a", rejected(rejection))], [Turns("b")], when={reason: large}))
    assert (outcome.text, outcome.call.provider) == ("Hello", "large")
    again = await ask(routed([Turns("a", rejected(rejection))], when={reason: Turns("large", rejected(rejection))}))
    assert isinstance(again.error, ProviderRejected)
    assert len(again.tries) == 2


async def test_a_refusal_of_the_model_goes_there_too() -> None:
    """A reply that begins with a refusal, or ends as filtered without text, goes to the model for such; without one it stays."""
    filtered = Finished(0, FinishReason.CONTENT_FILTER, "content_filter")
    for begin in ([START, RefusalDelta(0, "No.")], [START, filtered]):
        other = Turns("other")
        outcome = await ask(routed([Turns("a", (begin, [USAGE, filtered]))], when={"refused": other}))
        assert (outcome.text, outcome.tries) == ("Hello", ["a:refused", "other:ok"])
        assert outcome.failed_uses
        alone = await ask(routed([Turns("a", (begin, [USAGE, filtered]))]))
        assert alone.tries == ["a:ok"]


def signed(deployment: str) -> ChatRequest:
    origin = Origin(provider=deployment, deployment=deployment)
    thought = Thinking("Hm.", state=State("sig", origin=origin))
    hidden = RedactedThinking(state=State("enc", origin=origin))
    return ChatRequest("any", (HELLO, Message(Role.ASSISTANT, (thought, hidden, Text("Hi"))), HELLO), stream=True)


async def test_state_goes_back_to_the_deployment_that_made_it() -> None:
    """A request with a signature goes to its deployment among those that share the calls, and to another if that one fails."""
    for _ in range(20):
        a, b = Turns("a"), Turns("b")
        assert (await ask(routed([a, b]), signed("b"))).tries == ["b:ok"]
    outcome = await ask(routed([Turns("a"), Turns("b", BROKEN)]), signed("b"))
    assert outcome.tries == ["b:overloaded", "a:ok"]
    assert (await ask(routed([Turns("a")]), signed("nobody"))).text == "Hello"


async def test_state_that_is_not_accepted_is_tried_at_its_owner_and_else_left_out() -> None:
    """What cannot be verified goes once to the deployment that made it; from that one, once more without the state."""
    state = rejected(Rejection.STATE)
    a, b = Turns("a", state), Turns("b")
    router = routed([a], [b])
    outcome = await ask(router, signed("b"))
    assert (outcome.tries, outcome.text) == (["a:state", "b:ok"], "Hello")
    c = Turns("c", state, REPLY)
    outcome = await ask(routed([c]), signed("c"))
    assert outcome.tries == ["c:state", "c:ok"]
    kinds = [[type(block) for block in message.blocks] for message in c.requests[1].messages]
    assert kinds == [[Text], [Text], [Text]]
    assert isinstance((await ask(routed([Turns("d", state)]), signed("d"))).error, ProviderRejected)


async def test_a_probe_that_hangs_does_not_keep_others_waiting() -> None:
    """While the only deployment is probed by a call that hangs, another call finds out that it is well again."""
    a = Turns("a", ([START], None), REPLY)
    rules = RoutingConfig(breaker=BreakerConfig(open=0.2), backoff=BackoffConfig(first=0.01, most=0.01))
    router = routed([a], rules=rules, queue=QueueConfig(size=5, wait=5))
    (candidate,) = router.deployments()[0].candidates()
    now = time.monotonic()
    for _ in range(rules.breaker.consecutive):
        candidate.breaker.fail(now, candidate.breaker.begin(now))
    hanging = asyncio.create_task(ask(router))
    while not a.requests:
        await asyncio.sleep(0.01)
    assert (await ask(router)).text == "Hello"
    assert not hanging.done()
    hanging.cancel()
    await asyncio.wait([hanging])


async def test_state_is_left_out_when_its_owner_has_failed() -> None:
    """A call whose state no other deployment takes is not sent a second time to the owner that has just failed."""
    a, b = Turns("a", rejected(Rejection.STATE), REPLY), Turns("b", BROKEN)
    outcome = await ask(routed([b], [a]), signed("b"))
    assert (outcome.tries, outcome.text) == (["b:overloaded", "a:state", "a:ok"], "Hello")
    assert [[type(block) for block in message.blocks] for message in a.requests[1].messages] == [[Text], [Text], [Text]]


@pytest.mark.parametrize(("owner", "kept"), [("a", False), ("b", True), ("nobody", True)])
async def test_the_last_attempt_is_made_without_the_state_of_one_that_failed(owner: str, kept: bool) -> None:
    """No attempt is left after it, so the caller would get 400 for state that only the failed deployment takes."""
    a, b = Turns("a", BROKEN), Turns("b")
    rules = FAST.model_copy(update={"attempts": 2, "affinity": "none"})
    outcome = await ask(routed([a], [b], rules=rules), signed(owner))
    assert outcome.tries == ["a:overloaded", "b:ok"]
    assert any(isinstance(block, Thinking) for message in b.requests[0].messages for block in message.blocks) is kept


async def test_state_of_several_deployments_is_left_out_in_the_end() -> None:
    """A conversation that went on at another deployment has state of both: neither takes it all, and one answers without it."""
    state = rejected(Rejection.STATE)
    first, second = signed("a").messages[1], signed("b").messages[1]
    request = ChatRequest("any", (HELLO, first, HELLO, second, HELLO), stream=True)
    for scripts, attempts in (((state, REPLY), 3), ((REPLY,), 2)):
        a, b = Turns("a", *scripts), Turns("b", state)
        outcome = await ask(routed([a, b], rules=FAST.model_copy(update={"attempts": attempts})), request)
        assert outcome.tries == ["b:state", *["a:state"] * (len(scripts) - 1), "a:ok"]
        assert all(isinstance(block, Text) for message in a.requests[-1].messages for block in message.blocks)


async def test_a_try_without_the_state_waits_for_a_place() -> None:
    """If another call took the place of the try before, the call waits its turn, and does not fail for that."""
    release = asyncio.Event()

    class Slow(Turns):
        async def _late(self, batches: AsyncGenerator[Batch, None]) -> AsyncGenerator[Batch, None]:
            await release.wait()
            async for batch in batches:
                yield batch

        def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
            return self._late(super().stream(request, warn))

    router = routed([Slow("a", rejected(Rejection.STATE), REPLY)], concurrent=1, queue=QueueConfig(size=5, wait=5))
    first, other = asyncio.create_task(ask(router, signed("a"))), asyncio.create_task(ask(router))
    while router.deployments()[0].queued < 1:
        await asyncio.sleep(0)
    release.set()
    outcomes = await asyncio.gather(first, other)
    assert [outcome.text for outcome in outcomes] == ["Hello", "Hello"]
    assert outcomes[0].tries == ["a:state", "a:ok"]


async def test_a_silent_deployment_is_left_for_another() -> None:
    """A deployment that sends no first token in its time is left; a role and pings do not count as one."""
    a = Turns("a", ([START], None))
    outcome = await ask(routed([a], [Turns("b")], timeouts=TimeoutsConfig(first_token=0.05)))
    assert outcome.tries == ["a:late", "b:ok"]
    assert a.closed == 1


async def test_callers_that_wait_in_vain_go_elsewhere() -> None:
    """A deployment that hangs gets few calls, also if its callers never wait until it is late; it is no failure of its."""
    a, b = Turns("a", ([START], None)), Turns("b")
    router = routed([a, b])
    outcomes = [await ask(router, seconds=0.03) for _ in range(60)]
    assert len(a.requests) < 15, "of 30 by weight"
    assert sum(outcome.text == "Hello" for outcome in outcomes) > 50
    hanging = router.deployments()[0].candidates()[0]
    assert (hanging.breaker.state, hanging.failures.value) == (BreakerState.CLOSED, 0)


async def test_a_slow_deployment_leaves_time_for_a_quick_one() -> None:
    """If it usually takes more than half of what the call has left, another one gets the other half. It is no failure."""
    a, b = Turns("a", ([START], None)), Turns("b")
    router = routed([a], [b])
    slow, quick = (deployment.candidates()[0] for deployment in router.deployments())
    slow.first_token.add(1.0)
    assert isinstance((await ask(router, seconds=0.1)).error, DeadlineExceeded), "the other one was not measured yet"
    quick.first_token.add(0.001)
    outcome = await ask(router, seconds=0.2)
    assert (outcome.tries, outcome.text) == (["a:late", "b:ok"], "Hello")
    assert (slow.breaker.state, slow.failures.value) == (BreakerState.CLOSED, 0)
    quick.first_token.add(5.0)
    assert (await ask(router, seconds=0.2)).tries == ["a:deadline"]


async def test_the_total_time_bounds_a_whole_try() -> None:
    """Before output the try is late and another deployment answers; after it the reply is cut, and what came is kept."""
    a = Turns("a", ([START], None))
    outcome = await ask(routed([a], [Turns("b")], timeouts=TimeoutsConfig(total=0.05)))
    assert outcome.tries == ["a:late", "b:ok"]
    a = Turns("a", ([START, TextDelta(0, "Hel")], None))
    outcome = await ask(routed([a], [Turns("b")], timeouts=TimeoutsConfig(total=0.05)))
    assert (outcome.tries, outcome.text) == (["a:cut"], "Hel")
    assert isinstance(outcome.error, ProviderTimeout)
    assert a.closed == 1
    whole = await ask(routed([Turns("a")], timeouts=TimeoutsConfig(total=5)))
    assert (whole.tries, whole.text, whole.error) == (["a:ok"], "Hello", None)


async def test_a_caller_that_reads_slowly_does_not_use_up_the_total_time() -> None:
    """Only the waits for the provider count: it cannot be quicker than its reader."""

    class Paced(Turns):
        async def _replay(self, batches: AsyncGenerator[Batch, None]) -> AsyncGenerator[Batch, None]:
            async for batch in batches:
                await asyncio.sleep(0.01)
                yield batch

        def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
            return self._replay(super().stream(request, warn))

    router = routed([Paced("a")], [Turns("b")], timeouts=TimeoutsConfig(total=0.1))
    call = Call(observer=Listener(), headers={}, caller=Principal("ann", owner="ann"))
    request = ChatRequest("any", (HELLO,), stream=True)
    deadline = Deadline(5)
    seen: list[Batch] = []
    async with Attempts(call, router.resolve("any"), request, router.rules, deadline) as attempts:
        async for batch in attempts:
            seen.append(batch)
            await asyncio.sleep(0.15)
    deadline.close()
    assert "".join(event.text for batch in seen for event in batch if isinstance(event, TextDelta)) == "Hello"
    assert [each.outcome for each in call.attempts] == ["ok"]
    assert router.deployments()[0].candidates()[0].failures.value == 0


async def test_a_caller_that_leaves_closes_a_reply_with_a_total_time() -> None:
    """Cancelling the call while it waits for more of a bounded reply closes the provider's call at once."""
    a = Turns("a", ([START, TextDelta(0, "Hel")], None))
    task = asyncio.create_task(ask(routed([a], timeouts=TimeoutsConfig(total=60))))
    while not a.requests:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    outcome = await task
    assert (outcome.tries, outcome.text, a.closed) == (["a:gone"], "Hel", 1)


async def test_the_deadline_of_the_call_ends_every_wait() -> None:
    """The caller's deadline ends an attempt, a wait between attempts and a wait in a queue."""
    outcome = await ask(routed([Turns("a", (None,))]), seconds=0.05)
    assert isinstance(outcome.error, DeadlineExceeded)
    assert outcome.tries == ["a:deadline"]
    busy = ProviderRateLimited("", status=429, retry_after=10, **P)
    outcome = await ask(routed([Turns("a", busy)]), seconds=0.2)
    assert outcome.error is busy, "a wait that does not fit is not begun"


async def test_a_place_at_a_busy_deployment_is_waited_for_in_turn() -> None:
    """Calls beyond `concurrent` wait; what waits too long, or finds the queue full, gets 429 with the time to wait."""
    release = asyncio.Event()

    class Slow(Turns):
        async def stream(  # type: ignore[override]
            self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore
        ) -> AsyncGenerator[Batch, None]:
            self.requests.append(request)
            yield [START, TextDelta(0, "Hello")]
            await release.wait()
            yield [USAGE, STOP]

    router = routed([Slow("a")], concurrent=1, queue=QueueConfig(size=1, wait=5))
    first, second = asyncio.create_task(ask(router)), asyncio.create_task(ask(router))
    while router.deployments()[0].queued < 1:
        await asyncio.sleep(0)
    third = Outcome()
    deadline = Deadline(1)
    attempts = Attempts(third.call, router.resolve("any"), ChatRequest("any", (HELLO,), stream=True), router.rules, deadline)
    with pytest.raises(RateLimited) as caught:
        await anext(attempts)
    deadline.close()
    assert caught.value.limit == "queue"
    release.set()
    outcomes = await asyncio.gather(first, second)
    assert [outcome.text for outcome in outcomes] == ["Hello", "Hello"]
    assert outcomes[1].call.attempts[0].waited > 0
    assert router.deployments()[0].in_flight == 0


async def test_a_busy_deployment_is_passed_over_if_another_is_free() -> None:
    """With a free deployment in another tier nobody waits."""
    router = routed([Turns("a")], [Turns("b")], concurrent=1)
    router.deployments()[0].enter()
    outcome = Outcome()
    deadline = Deadline(1)
    route = router.resolve("any")
    async with Attempts(outcome.call, route, ChatRequest("any", (HELLO,), stream=True), router.rules, deadline) as attempts:
        await anext(attempts)
    deadline.close()
    assert outcome.tries == ["b:ok"]


@pytest.mark.parametrize("error", [None, DeadlineExceeded(), ShuttingDown(), asyncio.CancelledError(), GeneratorExit()])
async def test_attempts_are_closed_and_reported_however_the_call_ends(error: BaseException | None) -> None:
    """The provider's call is closed at once, and the time that took is reported if the call was cancelled."""
    a = Turns("a", ([START, TextDelta(0, "Hel")], None))
    router, outcome, deadline = routed([a]), Outcome(), Deadline(5)

    async def call() -> None:
        request = ChatRequest("any", (HELLO,), stream=True)
        async with Attempts(outcome.call, router.resolve("any"), request, router.rules, deadline) as attempts:
            await anext(attempts)
            if error is not None:
                raise error

    if error is None:
        await call()
    else:
        with pytest.raises(type(error)):
            await call()
    deadline.close()
    assert a.closed == 1
    assert outcome.listener.events == [
        "attempt_started",
        *(["cancelled_upstream"] if error is not None else []),
        "attempt_ended",
    ]
    assert router.deployments()[0].in_flight == 0


@pytest.mark.parametrize(
    ("error", "cancelled"),
    [
        (None, False),
        (ProviderUnavailable("x", provider="p"), False),
        (DeadlineExceeded(), True),
        (ShuttingDown(), True),
        (asyncio.CancelledError(), True),
        (GeneratorExit(), True),
    ],
)
async def test_a_proxied_attempt_is_closed_and_reported_however_it_ends(error: BaseException | None, cancelled: bool) -> None:
    """An attempt is closed and reported however it ends. The time to close it is reported if the call was cancelled."""
    listener = Listener()
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    async def attempt() -> None:
        async with Attempting(Call(observer=listener), close):
            if error is not None:
                raise error

    if error is None:
        await attempt()
    else:
        with pytest.raises(type(error)):
            await attempt()
    assert closed == [True]
    assert listener.events == ["attempt_started", *(["cancelled_upstream"] if cancelled else []), "attempt_ended"]
    assert listener.errors == [error]


async def test_a_wait_that_is_over_gives_back_no_place_that_it_never_had() -> None:
    """A caller that leaves the queue at the very moment at which another call ends frees no second place."""
    deployment = Deployment(Turns("a"), "a", ProviderConfig(concurrent=1), FAST)
    deployment.enter()
    waiting = asyncio.create_task(deployment.wait_for_place("ann", 60))
    await asyncio.sleep(0.001)
    waiting.cancel()
    deployment.leave()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert deployment.in_flight == 0


async def test_a_refusal_is_passed_on_if_no_attempt_is_left() -> None:
    """It is a reply, and not an error."""
    refusal = ([START, TextDelta(0, "No.")], [USAGE, Finished(0, FinishReason.CONTENT_FILTER, "content_filter")])
    once = RoutingConfig(attempts=1)
    outcome = await ask(routed([Turns("a", refusal)], when={"refused": Turns("b")}, rules=once))
    assert (outcome.error, outcome.text) == (None, "No.")


async def test_nothing_is_pending_between_two_attempts() -> None:
    """Then no provider has the request, so a caller that leaves is charged nothing for it."""
    outcome, request = Outcome(), ChatRequest("any", (HELLO,), stream=True)
    router = routed([Turns("a", UNREACHABLE)], rules=RoutingConfig(backoff=BackoffConfig(first=60, most=60)))
    deadline = Deadline(60)
    attempts = Attempts(outcome.call, router.resolve("any"), request, router.rules, deadline)
    waiting = asyncio.create_task(anext(attempts))
    await asyncio.sleep(0.01)
    assert not attempts.is_pending
    waiting.cancel()
    await asyncio.wait([waiting])
    deadline.close()


async def test_what_a_provider_grants_a_minute_is_kept() -> None:
    """A call beyond it goes to another deployment before the provider refuses; without one it gets 429 with the time to wait."""
    a, b = Turns("a"), Turns("b")
    router = routed([a, b], requests_per_minute=2)
    outcomes = [await ask(router) for _ in range(4)]
    assert [outcome.text for outcome in outcomes] == ["Hello"] * 4
    assert (len(a.requests), len(b.requests)) == (2, 2)
    refused = (await ask(router)).error
    assert isinstance(refused, RateLimited)
    assert (refused.limit, refused.scope, refused.quota) == ("requests_per_minute", "provider", 2)
    assert 50 < (refused.retry_after or 0) <= 60
    assert (len(a.requests), len(b.requests)) == (2, 2)
    own = ChatRequest("a-model", (HELLO,), stream=True, api_key=SecretStr("own"))
    assert (await ask(router, own)).text == "Hello", "a caller's own key has its own grant"


async def test_tokens_that_were_not_used_let_the_next_call_go() -> None:
    """A call waits for tokens that those in flight return at their end, and says how long; failed tries return theirs at once."""
    release = asyncio.Event()

    class Held(Turns):
        """A provider whose first reply ends when the test says so."""

        async def stream(  # type: ignore[override]
            self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore
        ) -> AsyncGenerator[Batch, None]:
            is_first = not self.requests
            async for batch in super().stream(request, warn):
                yield batch
                if is_first:
                    await release.wait()

    router = routed([Held("a")], tokens_per_minute=8)
    first = asyncio.create_task(ask(router, model="any"))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(ask(router))
    await asyncio.sleep(0.02)
    assert not second.done()
    assert next(iter(router.deployments())).queued == 1
    release.set()
    assert (await first).text == "Hello"
    outcome = await second
    assert outcome.text == "Hello"
    assert outcome.call.attempts[0].waited > 0.01
    failing = routed([Turns("c", BROKEN, REPLY)], tokens_per_minute=8)
    assert (await ask(failing)).tries == ["c:overloaded", "c:ok"]


async def test_a_call_that_leaves_while_it_waits_for_a_grant_takes_nothing() -> None:
    """Its deadline ends the wait, and what it would have taken is there for the next call."""
    router = routed([Turns("a")], tokens_per_minute=8)
    deployment = next(iter(router.deployments()))
    shaper = deployment.candidate("a-model").shaper
    assert shaper is not None
    held = await shaper.take(Demand(8, 0))
    assert isinstance(held, Allowance)
    deployment.enter()  # a call is in flight, so tokens may be returned at any moment
    outcome = await ask(router, seconds=0.05)
    assert isinstance(outcome.error, DeadlineExceeded | RateLimited)
    assert outcome.tries == []
    await shaper.settle(held, 0)
    deployment.leave()
    assert (await ask(router)).text == "Hello"
    assert (deployment.in_flight, deployment.queued) == (0, 0)
