"""What callers get for each fault of a provider, alone and with a second deployment, over all four APIs."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import grpc
import pytest
import pytest_asyncio

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.certificates import Authority
from tests.e2e.conftest import READY, Gateway, configuration
from tests.e2e.test_grpc import METADATA
from tests.faults import FAULTS, Fault
from tests.odd_upstream import LAST, OddUpstream, chunk, delta, head, sse
from tests.ports import free_port

GOOD = [head(), chunk(sse(delta("Well"))), chunk(sse(delta(finish="stop"), "[DONE]")), LAST]
STREAMED = ("SSE", "gRPC stream")


class Setup(NamedTuple):
    gateway: Gateway
    bad: OddUpstream
    good: OddUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def setup(llm: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Setup, None]:
    """Yield a gateway whose provider `alone` has a bad deployment, and `pair` a bad one that is preferred and a good one."""
    tls = Authority().issue("127.0.0.1").context(tmp_path_factory.mktemp("authority"))
    async with OddUpstream() as bad, OddUpstream() as good, OddUpstream(tls) as untrusted:
        good.default = GOOD
        addresses = {
            "": bad.base_url,
            "refused": f"http://127.0.0.1:{free_port()}/v1",
            "dns": "http://nowhere.invalid/v1",
            "tls": untrusted.base_url,
        }
        config = configuration(bad, llm)
        for name, address in addresses.items():
            common = {"timeouts": {"stall": 1}, "models": [f"{name}*" if name else "odd-*"], "base_url": address}
            config["providers"][f"alone{name}"] = common
            deployments = {"bad": {"weight": 1e9}, "good": {"base_url": good.base_url, "weight": 1e-9}}
            config["providers"][f"pair{name}"] = {**common, "timeouts": {"stall": 1, "first_token": 1}, "deployments": deployments}
        config["routing"] = {"attempts": 2, "backoff": {"first": 0.01}, "budget": 1}
        gateway = Gateway(tmp_path_factory.mktemp("faults"), config)
        await asyncio.to_thread(gateway.wait_for, READY)
        yield Setup(gateway, bad, good)
        assert await asyncio.to_thread(gateway.stop) == 0
        assert "call_failed" not in gateway.output_text


class Answer(NamedTuple):
    """What the caller gets: an HTTP status or the name of a gRPC one, the text, whether it ended well, and headers."""

    status: int | str
    text: str
    whole: bool
    headers: dict[str, str]


async def ask(api: str, gateway: Gateway, model: str) -> Answer:
    if api in ("JSON", "SSE"):
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": api == "SSE"}
        async with gateway.client() as http:
            response = await http.post("/v1/chat/completions".removeprefix("/v1"), json=body)
        headers = dict(response.headers)
        if response.status_code != 200 or api == "JSON":
            found = response.json() if response.status_code == 200 else {}
            text = found["choices"][0]["message"]["content"] if found else ""
            return Answer(response.status_code, text, bool(found), headers)
        events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: ")]
        chunks = [json.loads(event) for event in events if event != "[DONE]"]
        text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one.get("choices"))
        assert any("error" in one for one in chunks) is (events[-1] != "[DONE]")
        return Answer(200, text, events[-1] == "[DONE]", headers)
    request = chat_pb2.GenerateRequest(
        model=model,
        messages=[message_pb2.Message(role=message_pb2.ROLE_USER, blocks=[message_pb2.Block(text=message_pb2.Text(text="Hello"))])],
    )
    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        if api == "gRPC unary":
            call = stub.Generate(request, metadata=METADATA)
            try:
                reply = await call
            except grpc.aio.AioRpcError as error:
                return Answer(
                    error.code().name, "", whole=False, headers=dict(error.initial_metadata() or error.trailing_metadata())
                )
            text = "".join(block.text.text for block in reply.choices[0].message.blocks)
            assert [attempt.outcome for attempt in reply.metrics.attempts][-1] == "ok"
            return Answer("OK", text, whole=True, headers={})
        events: list[chat_pb2.StreamEvent] = []
        try:
            async for message in stub.StreamGenerate(request, metadata=METADATA):
                events += message.events
        except grpc.aio.AioRpcError as error:
            if not events:
                return Answer(error.code().name, "", whole=False, headers={})
        text = "".join(event.text.text for event in events)
        return Answer("OK", text, events[-1].HasField("finished"), {})


GRPC = {
    400: {"INVALID_ARGUMENT"},
    429: {"RESOURCE_EXHAUSTED"},
    502: {"UNAVAILABLE", "FAILED_PRECONDITION"},
    504: {"DEADLINE_EXCEEDED"},
}


def check_status(found: Answer, fault: Fault) -> None:
    if isinstance(found.status, int):
        assert found.status == fault.status
    else:
        assert found.status in GRPC[fault.status]


@pytest.mark.parametrize("api", ["JSON", "SSE", "gRPC unary", "gRPC stream"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_of_the_only_deployment(fault: Fault, api: str, setup: Setup) -> None:
    """Without another deployment the caller gets a status that says what failed, or an error in the stream after some output."""
    model = f"{fault.address or 'odd'}-{FAULTS.index(fault)}-{api.replace(' ', '-')}-alone"
    setup.bad.script(model, fault.steps)
    before = len(setup.bad.requests)
    found = await ask(api, setup.gateway, f"alone{fault.address}/{model}")
    if fault.after_output and api in STREAMED:
        assert (found.status, found.text, found.whole) == (200 if api == "SSE" else "OK", "Hi", False)
        tries = 1
    else:
        assert not found.whole
        check_status(found, fault)
        tries = fault.tries
        if fault.status == 429 and isinstance(found.status, int):
            assert int(found.headers["retry-after"]) >= 1
    if not fault.address:
        made = len(setup.bad.requests) - before
        assert made == tries
    if isinstance(found.status, int):
        route = f"alone{fault.address}/{model}" if tries > 1 else None  # a single try at the only target says nothing new
        assert found.headers.get("x-antiphon-attempts") == (str(tries) if tries > 1 else None)
        assert found.headers.get("x-antiphon-route") == route


@pytest.mark.parametrize("api", ["JSON", "SSE", "gRPC unary", "gRPC stream"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_of_one_of_two_deployments(fault: Fault, api: str, setup: Setup) -> None:
    """With another deployment the caller gets its reply, unless the request is at fault, or output was sent already."""
    model = f"{fault.address or 'odd'}-{FAULTS.index(fault)}-{api.replace(' ', '-')}-pair"
    setup.bad.script(model, fault.steps)
    found = await ask(api, setup.gateway, f"pair{fault.address}/{model}")
    if fault.after_output and api in STREAMED:
        assert (found.text, found.whole) == ("Hi", False)
        return
    route = f"pair{fault.address}/{'good' if fault.moves_on else 'bad'}/{model}"
    if fault.moves_on:
        assert (found.status, found.text, found.whole) == (200 if api in ("JSON", "SSE") else "OK", "Well", True)
    else:
        check_status(found, fault)
    if isinstance(found.status, int):
        assert found.headers["x-antiphon-route"] == route
        assert found.headers["x-antiphon-attempts"] == ("2" if fault.moves_on else "1")
