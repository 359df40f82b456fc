"""What callers get for each fault of a provider, alone and with a second deployment, over all four APIs.

Beside the answer: how often the provider was called, what became of its breaker, and what a recorded conversation holds.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.faulty import APIS, QUESTION, STREAMED, Answer, Faulty
from tests.faults import FAULTS, Fault, Verdict

ASKED = ("user", "complete", QUESTION)
REPLY = "Well"

GRPC = {
    200: {"OK"},
    400: {"INVALID_ARGUMENT"},
    429: {"RESOURCE_EXHAUSTED"},
    502: {"UNAVAILABLE", "FAILED_PRECONDITION"},
    504: {"DEADLINE_EXCEEDED"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def faulty(llm: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Faulty, None]:
    async with Faulty.running(tmp_path_factory.mktemp("faults"), llm) as started:
        yield started


def check_answer(found: Answer, fault: Fault) -> None:
    """Assert that the status and the error are those of the fault."""
    if isinstance(found.status, int):
        assert (found.status, found.code) == (fault.status, fault.own_code or fault.reason)
    else:
        assert found.status in GRPC[fault.status]
        assert found.code == fault.reason
    if fault.status == 429 and isinstance(found.status, int):
        assert int(found.headers["retry-after"]) >= 1


def check_cut(found: Answer, fault: Fault, api: str) -> None:
    """Assert that a stream ended with the error of the fault behind what had come."""
    assert found.text == "Hi"
    if api == "SSE":
        assert (found.status, found.code) == (200, fault.own_code or fault.reason)
    else:
        assert found.status in GRPC[fault.status]
        assert found.code == fault.reason


async def check_health(faulty: Faulty, deployment: str, model: str, verdict: Verdict, failures: int) -> None:
    """Assert what the gateway thinks of the deployment behind so many failed tries; the second one in a row opens the breaker."""
    found = await faulty.health(deployment, model)
    match verdict:
        case Verdict.NOTHING:
            assert (found.breaker, found.wait, found.failed) == ("closed", 0, 0)
        case Verdict.COOLS:
            assert found.breaker == "closed"
            assert 0 < found.wait <= 300
            assert found.failed == 0
        case Verdict.TRIPS:
            assert found.breaker == "open"
            assert 55 < found.wait <= 60
        case Verdict.COUNTS:
            assert found.breaker == ("open" if failures >= 2 else "closed")
            assert (3 < found.wait <= 6) if failures >= 2 else (found.wait == 0)


async def prepare(faulty: Faulty, fault: Fault, api: str, kind: str) -> tuple[str, str]:
    """Script the fault for a model of its own, make the call that comes before it, and return the names of model and route."""
    model = f"{fault.address or 'odd'}-{FAULTS.index(fault)}-{api.replace(' ', '-')}-{kind}"
    route = f"{kind}{fault.address}/{model}"
    upstream = faulty.script(fault, model)
    if fault.before:
        upstream.script(model, fault.before)
        assert (await faulty.ask(api, route)).whole
        upstream.script(model, fault.steps)
        await asyncio.sleep(0.02)  # the connection goes back to the pool once the body has ended
    return model, route


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_of_the_only_deployment(fault: Fault, api: str, faulty: Faulty) -> None:
    """Without another deployment the caller gets a status that says what failed, or an error in the stream after some output.

    The question is recorded, and the reply as failed, or as far as it came. The breaker counts the tries that failed.
    """
    model, route = await prepare(faulty, fault, api, "alone")
    conversation = await faulty.conversation()
    bad = faulty.pooled if fault.address == "pooled" else faulty.bad
    before = len(bad.requests)
    found = await faulty.ask(api, route, conversation)
    tries, verdict = fault.tries, fault.breaker
    if fault.after_output and api in STREAMED:
        check_cut(found, fault, api)
        tries, verdict = 1, Verdict.COUNTS
        reply = ("assistant", "incomplete", "Hi")
    else:
        check_answer(found, fault)
        assert found.text == (REPLY if fault.outcome == "ok" else "")
        reply = ("assistant", "complete", REPLY) if fault.outcome == "ok" else ("assistant", "failed", "")
    if fault.address in ("", "pooled"):
        assert len(bad.requests) - before == tries
    if isinstance(found.status, int):
        told = (route, str(tries)) if tries > 1 else (None, None)  # a single try at the only target says nothing new
        assert (found.headers.get("x-antiphon-route"), found.headers.get("x-antiphon-attempts")) == told
    assert await faulty.recorded(conversation) == [ASKED, reply]
    if verdict is Verdict.TRIPS:
        verdict = Verdict.COUNTS
    await check_health(faulty, f"alone{fault.address}", model, verdict, tries)
    if verdict is Verdict.COUNTS and tries == 1:
        await faulty.ask(api, route)
        await check_health(faulty, f"alone{fault.address}", model, verdict, 2)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_of_one_of_two_deployments(fault: Fault, api: str, faulty: Faulty) -> None:
    """With another deployment the caller gets its reply, unless the request is at fault, or output was sent already.

    The conversation has that reply and nothing else. The first deployment is held to account as if it were alone, or left alone.
    """
    model, route = await prepare(faulty, fault, api, "pair")
    conversation = await faulty.conversation()
    found = await faulty.ask(api, route, conversation)
    verdict, moves_on = fault.breaker, fault.moves_on
    if fault.after_output and api in STREAMED:
        check_cut(found, fault, api)
        verdict, moves_on = Verdict.COUNTS, False
        reply = ("assistant", "incomplete", "Hi")
    elif moves_on or fault.outcome == "ok":
        assert (found.status, found.code, found.text) == (200 if api in ("JSON", "SSE") else "OK", "", REPLY)
        reply = ("assistant", "complete", REPLY)
    else:
        check_answer(found, fault)
        reply = ("assistant", "failed", "")
    assert await faulty.recorded(conversation) == [ASKED, reply]
    if isinstance(found.status, int) and found.text != "Hi":
        pool = f"pair{fault.address}"
        assert found.headers["x-antiphon-route"] == f"{pool}/{'good' if moves_on else 'bad'}/{model}"
        assert found.headers["x-antiphon-attempts"] == ("2" if moves_on else "1")
    await check_health(faulty, f"pair{fault.address}/bad", model, verdict, 1)
