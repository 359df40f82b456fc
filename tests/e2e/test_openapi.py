"""Every documented path through the real Envoy, with requests that the OpenAPI document allows and with invalid ones.

Every answer must be documented: its status, its content type, and its JSON by its schema.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from llmock.testing import LLMockServer
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

from antiphon.rest.openapi.document import document
from tests.e2e.conftest import KEY, PROVIDER_KEY, READY, Gateway, configuration
from tests.odd_upstream import LAST, OddUpstream, chunk, delta, head, sse

SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = {f"{found.ok().method.upper()} {found.ok().path}": found.ok() for found in SCHEMA.get_all_operations()}
WRONG = [name for name, found in OPERATIONS.items() if found.body or found.query or found.path_parameters]
"""The operations that can have an invalid request."""
CHECKED = CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)
KNOWN = ("echo", "odd-whole")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def documented(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway on which every path can be called: an admin key, proxies with a target, automatic sessions."""
    upstream.script("odd-whole", [head(), chunk(sse(delta("Hello"), delta(finish="stop"), "[DONE]")), LAST])
    target = upstream.base_url.removesuffix("/v1")
    more = {
        "models": {"default": "echo"},
        "auth": {"keys": [{"name": "boss", "key_env": "TEST_KEY", "admin": True}]},
        "proxy": {"allow": [target], "aliases": {"default": upstream.base_url}},
        "sessions": {"automatic": True},
    }
    started = Gateway(tmp_path_factory.mktemp("documented"), {**configuration(upstream, llm), **more})
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert KEY not in started.output_text
    assert PROVIDER_KEY not in started.output_text
    assert "call_failed" not in started.output_text, "the server had an unexpected exception"


class Session(requests.Session):
    """Counts its requests."""

    sent = 0

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        self.sent += 1
        return super().send(request, **options)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as made:
        made.trust_env = False
        made.headers["authorization"] = f"Bearer {KEY}"
        yield made
        print(f"{made.sent} requests")  # noqa: T201 - shown when fuzzing


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, GenerationMode.POSITIVE) for name in OPERATIONS]
    + [pytest.param(name, GenerationMode.NEGATIVE, marks=pytest.mark.slow) for name in WRONG],
)
async def test_every_answer_is_documented(documented: Gateway, session: Session, name: str, mode: GenerationMode) -> None:
    """No answer is a server error, or has an undocumented status, content type or JSON."""
    operation = OPERATIONS[name]
    url = f"http://{documented.rest}"
    chat = (await asyncio.to_thread(session.post, f"{url}/api/v1/chat/new", json={"messages": []})).json()["chatId"]

    @settings(max_examples=settings.default.max_examples // 12)
    @given(operation.as_strategy(generation_mode=mode), st.sampled_from((None, *KNOWN)), st.booleans())
    def every(case: schemathesis.Case, model: str | None, exists: bool) -> None:
        aim(case, model, chat if exists else None)
        checked = [check for check in CHECKED if check.__name__ != "response_schema_conformance" or not is_1x_stream(case)]
        answer = case.call_and_validate(base_url=url, session=session, checks=checked)
        if answer.headers["content-type"][0].startswith("text/event-stream"):
            check_events(answer.content)

    await asyncio.to_thread(every)


def aim(case: schemathesis.Case, model: str | None, chat: str | None) -> None:
    """Change a request so that it names things that exist, which random values would hardly do."""
    places: list[Any] = [case.path_parameters, case.query, case.body]
    known = {"model": model, "provider": model and model.partition("-")[0], "chatId": chat, "session_id": chat}
    for place in places:
        if isinstance(place, dict):
            place |= {name: value for name, value in known.items() if value is not None and name in place}


def check_events(stream: bytes) -> None:
    """Check that every event is JSON and the last one is "[DONE]" or an error."""
    *events, last, nothing = stream.decode().split("\n\n")
    assert nothing == ""
    parsed = [json.loads(event.removeprefix("data: ")) for event in events]
    assert last == "data: [DONE]" or "error" in json.loads(last.removeprefix("data: ")), parsed


def is_1x_stream(case: schemathesis.Case) -> bool:
    """Return whether the answer is a stream of several JSON objects, which no schema can describe."""
    body = case.body
    return isinstance(body, dict) and "retries" in body and bool(body.get("is_stream"))
