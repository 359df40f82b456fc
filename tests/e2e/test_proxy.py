"""Both proxies through a real Envoy, with the real clients and with scripted upstreams."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

import httpx2
import openai
import pytest
import pytest_asyncio
from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from llmock.scenarios import Fail, Reply
from llmock.testing import LLMockServer

from tests.e2e.conftest import KEY, READY, Gateway, configuration
from tests.odd_upstream import CUT, HANG, LAST, RESET, OddUpstream, Pause, Step, answer, chunk, delta, head, sse
from tests.waiting import until

PATH_KEY = "sk-caller-own-Provider-key~1"
GEMINI_KEY = "AIza-caller-own-gemini-key"
HELLO: Any = [{"role": "user", "content": "Hello"}]
CONTENTS: Any = [{"parts": [{"text": "Hello"}]}]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def proxy(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway that lets callers reach the two upstreams. None of the callers' keys may be in its output."""
    allowed = {
        "allow": [upstream.base_url.removesuffix("/v1"), llm.base_url("openai"), llm.base_url("gemini"), "http://127.0.0.1:9"],
        "aliases": {"default": llm.base_url("openai")},
        "read_timeout": 2,
    }
    started = Gateway(tmp_path_factory.mktemp("proxy"), configuration(upstream, llm, proxy=allowed))
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    for secret in (KEY, PATH_KEY, GEMINI_KEY, quote(PATH_KEY, safe=""), "proxy/http", "v1beta"):
        assert secret not in started.output_text
    assert "call_failed" not in started.output_text


def path_of(base_url: str, key: str = PATH_KEY) -> str:
    return f"/proxy/{quote(base_url, safe='')}/{quote(key, safe='')}/chat/completions"


def gemini_path(base_url: str, task: str = "generateContent", model: str = "gemini-2.0-flash") -> str:
    return f"/proxy/{quote(base_url, safe='')}/v1beta/models/{model}:{task}"


def asking(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, **fields}


# The real clients.


def sdk(proxy: Gateway, base_url: str) -> openai.AsyncOpenAI:
    """Return the OpenAI SDK with the gateway's key, and with the provider's key in the base URL."""
    return proxy.sdk(base_url=f"{proxy.url}{path_of(base_url).removesuffix('/chat/completions')}")


@pytest.mark.parametrize("written", ["whole", "alias", "host"])
async def test_the_openai_sdk(proxy: Gateway, llm: LLMockServer, written: str) -> None:
    """The OpenAI SDK works, whole and streamed, with the target as a URL, an alias, or a host alone."""
    base_url = llm.base_url("openai")
    targets = {"whole": base_url, "alias": "default", "host": base_url.removeprefix("http://").removesuffix("/v1")}
    llm.state.scenarios.add(Reply(text="Hello, \u2028 שלום 🎼", times=2))
    async with sdk(proxy, targets[written]) as client:
        reply = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert reply.choices[0].message.content == "Hello, \u2028 שלום 🎼"
        stream = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
        text = [part.choices[0].delta.content or "" async for part in stream if part.choices]
        assert "".join(text) == "Hello, \u2028 שלום 🎼"
        assert len([piece for piece in text if piece]) > 1
    assert llm.state.journal.records()[-1].body == {"model": "gpt-4o", "messages": HELLO, "stream": True}


async def test_the_openai_sdk_reads_the_providers_errors(proxy: Gateway, llm: LLMockServer, upstream: OddUpstream) -> None:
    """The provider's 401 and 429 reach the caller unchanged, and a stream that breaks off raises."""
    async with sdk(proxy, llm.base_url("openai")) as client:
        llm.state.scenarios.add(Fail(429))
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)
        llm.state.scenarios.add(Fail(401))
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    upstream.script("cut", [head(), chunk(sse(delta("Hel"))), CUT])
    async with sdk(proxy, upstream.base_url) as client:
        stream = await client.chat.completions.create(model="cut", messages=HELLO, stream=True)
        got = []
        with pytest.raises(openai.APIError, match="broke off"):
            async for part in stream:
                got.append(part.choices[0].delta.content)  # noqa: PERF401  # the text before the break
        assert got == ["Hel"]


def gemini(proxy: Gateway, base_url: str) -> genai.Client:
    """Return the Gemini SDK with the provider's key, and with the gateway's key in a header."""
    options = types.HttpOptions(
        base_url=f"{proxy.url}/proxy/{quote(base_url, safe='')}",
        headers={"Authorization": f"Bearer {KEY}"},
        api_version="v1beta",  # llmock has no other
        timeout=20_000,
    )
    return genai.Client(api_key=GEMINI_KEY, http_options=options)


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")  # the SDK's own
async def test_the_gemini_sdk(proxy: Gateway, llm: LLMockServer) -> None:
    """The Gemini SDK generates and streams, and understands the provider's errors and ours."""
    client = gemini(proxy, llm.base_url("gemini"))
    models = client.aio.models
    try:
        llm.state.scenarios.add(Reply(text="Hello, \u2028 שלום 🎼 and more", times=2))
        config = types.GenerateContentConfig(
            temperature=0.5,
            safety_settings=[
                types.SafetySetting(
                    category=types.HarmCategory.HARM_CATEGORY_HARASSMENT, threshold=types.HarmBlockThreshold.BLOCK_NONE
                )
            ],
        )
        reply = await models.generate_content(model="gemini-2.0-flash", contents="Hello", config=config)
        assert reply.text == "Hello, \u2028 שלום 🎼 and more"
        pieces = [part.text or "" async for part in await models.generate_content_stream(model="gemini-2.0-flash", contents="x")]
        assert "".join(pieces) == "Hello, \u2028 שלום 🎼 and more"
        llm.state.scenarios.add(Fail(429))
        with pytest.raises(genai_errors.ClientError) as caught:
            await models.generate_content(model="gemini-2.0-flash", contents="Hello")
        assert caught.value.code == 429
    finally:
        await client.aio.aclose()
        client.close()
    client = gemini(proxy, "http://127.0.0.1:1")
    try:
        with pytest.raises(genai_errors.ClientError, match="PERMISSION_DENIED") as caught:
            await client.aio.models.generate_content(model="gemini-2.0-flash", contents="Hello")
        assert caught.value.code == 403
    finally:
        await client.aio.aclose()
        client.close()


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")  # the SDK's own
async def test_the_gemini_sdk_counts_tokens(proxy: Gateway, upstream: OddUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Gemini SDK counts tokens with the right path and key. llmock does not support it, so the upstream is scripted."""
    monkeypatch.setattr(upstream, "default", [answer({"totalTokens": 31})])
    client = gemini(proxy, upstream.base_url)
    try:
        counted = await client.aio.models.count_tokens(model="gemini-2.0-flash", contents="Hello there")
    finally:
        await client.aio.aclose()
        client.close()
    assert counted.total_tokens == 31
    assert upstream.requests[-1].path == "/v1/v1beta/models/gemini-2.0-flash:countTokens"
    assert upstream.requests[-1].headers["x-goog-api-key"] == GEMINI_KEY


# Byte for byte.

ODD_BODIES = [
    b'{"model":"odd","messages":[]}',
    b' {\r\n"messages" : [ {"content":null} ,\t{} ] ,\n "model":"odd", "zzz": {"b":1,"a":[ ]}, "a": 1.0, "e": 1E+02 }\n',
    rb'{"model":"odd","messages":["\ud83c\udfbc \u0041 \/ \ud83c"],"big":123456789012345678901234567890,"small":1e-400}',
    '{"model":"odd","messages":["🎼 שלום \u2028 é é"],"twice":1,"twice":2}'.encode(),
    b'{"model":"odd","messages":["' + b"x" * 2_000_000 + b'"]}',
]


@pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
async def test_bodies_pass_byte_for_byte(proxy: Gateway, upstream: OddUpstream, body: bytes) -> None:
    """Bodies pass unchanged both ways in both proxies: order, white space, escapes, numbers and unknown fields."""
    upstream.script("odd", [answer(body, "200 OK", "application/json; charset=utf-8")])
    async with proxy.client() as http:
        response = await http.post(path_of(upstream.base_url), content=body, headers={"content-type": "application/json"})
        assert (response.status_code, response.content) == (200, body)
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        assert upstream.requests[-1].body == body
        both = body.replace(b'"model":', b'"contents":[{"parts":[ ]}], "model":', 1)
        response = await http.post(gemini_path(upstream.base_url), content=both)
        assert (response.status_code, response.content) == (200, body)
        assert upstream.requests[-1].body == both


EVENTS = sse(delta("Hel"), delta("lo"), delta(finish="stop"), "[DONE]")
STREAMS = {
    "plain": EVENTS,
    "CRLF": EVENTS.replace(b"\n", b"\r\n"),
    "CR": EVENTS.replace(b"\n", b"\r"),
    "comments": b": keep-alive\n\n" + EVENTS.replace(b"data: ", b"event: x\nid: 7\nretry: 1\ndata:"),
    "without [DONE]": sse(delta("Hello", "stop")),
    "not even events": b"\xff\xfe\0 what \r\n ever \xe2\x80",
    "nothing": b"",
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("bytewise", [True, False])
async def test_streams_pass_byte_for_byte(proxy: Gateway, upstream: OddUpstream, name: str, bytewise: bool) -> None:
    """Streams pass unchanged, whatever their format and however they are cut."""
    data = STREAMS[name]
    pieces = [data[i : i + 1] for i in range(len(data))] if bytewise else [data] * bool(data)
    upstream.script("odd", [head("200 OK", "text/event-stream; charset=utf-8"), *map(chunk, pieces), LAST])
    async with proxy.client() as http:
        response = await http.post(path_of(upstream.base_url), json=asking("odd", stream=True))
    assert (response.status_code, response.content) == (200, data)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"


async def test_a_compressed_answer_stays_as_it_is(proxy: Gateway, upstream: OddUpstream) -> None:
    """No compression is requested, but a compressed answer is passed on with its encoding."""
    packed = bytes.fromhex("1f8b08000000000002ffab56aa0500990f7aab03000000")
    upstream.script("odd", [answer(packed, "200 OK", "application/json", "content-encoding: gzip")])
    async with (
        proxy.client() as http,
        http.stream("POST", path_of(upstream.base_url), json=asking("odd"), headers={"accept-encoding": "gzip, br"}) as response,
    ):
        assert response.headers["content-encoding"] == "gzip"
        assert b"".join([piece async for piece in response.aiter_raw()]) == packed
    assert upstream.requests[-1].headers["accept-encoding"] == "identity"


async def test_pieces_come_as_the_provider_sends_them(proxy: Gateway, upstream: OddUpstream) -> None:
    """A piece arrives before the provider has sent the next."""
    gate = asyncio.Event()
    upstream.script("odd", [head(), chunk(sse(delta("Hel"))), gate, chunk(sse(delta("lo"), "[DONE]")), LAST])
    async with (
        proxy.client() as http,
        http.stream("POST", path_of(upstream.base_url), json=asking("odd", stream=True)) as response,
    ):
        text = b""
        async for piece in response.aiter_raw():
            text += piece
            gate.set()
    assert text == sse(delta("Hel"), delta("lo"), "[DONE]")


@pytest.mark.parametrize(
    "query",
    [
        "a=%41&b=%2f+%20c&d&=e&&f=1&f=2",
        "api_key=7&proxy_url=http://evil.example&body.data=eA==&apiKey=8&gemini_url=x&unknown=%F0%9F%8E%BC",
        "x=http://a/?b=c&y=/../..//",
        "?",
        "%zz=%",
        "key=AIza-caller-own-gemini-key&alt=sse",
        "$fields=a(b,c)[d]|e^f`g{h}~!*';:@",
        "long=" + "x" * 20_000,
    ],
)
async def test_the_query_passes_byte_for_byte(proxy: Gateway, upstream: OddUpstream, query: str) -> None:
    """The query passes unchanged. Names of our own fields in it, and a header named like its field, have no effect."""
    upstream.script("odd", [answer(b"{}")])
    ours, theirs = path_of(upstream.base_url), gemini_path(upstream.base_url)
    body = json.dumps({**asking("odd"), "contents": CONTENTS}).encode()
    host, port = proxy.rest.split(":")
    for path, arrived in ((ours, "/v1/chat/completions"), (theirs, "/v1/v1beta/models/gemini-2.0-flash:generateContent")):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST /api/v1{path}?{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nx-antiphon-query: evil=1\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        assert b" 200 " in await reader.readline()
        writer.close()
        assert upstream.requests[-1].path == f"{arrived}?{query}"
    async with proxy.client() as http:
        await http.post(ours, content=body, headers={"x-antiphon-query": "evil=1"})
    assert upstream.requests[-1].path == "/v1/chat/completions"


async def test_only_the_headers_that_matter_pass(proxy: Gateway, upstream: OddUpstream) -> None:
    """Only selected headers of requests and answers pass, and each side's key stays on its side."""
    steps = (
        "x-request-id: up-1",
        "openai-processing-ms: 12",
        "x-ratelimit-remaining-requests: 7",
        "retry-after-ms: 5",
        "set-cookie: a=b",
        "location: http://10.0.0.7/",
        "x-inner: 10.0.0.7",
        "grpc-status: 13",
        "x-http-status: 500",
        f"openai-organization: {PATH_KEY}",
    )
    upstream.script("odd", [answer(b"{}", "200 OK", "application/json", *steps)])
    sent = {
        "accept": "text/plain",
        "user-agent": "mine/1",
        "openai-organization": "org",
        "openai-project": "p",
        "cookie": "a=b",
        "x-mine": "1",
        "x-goog-api-key": GEMINI_KEY,
        "x-forwarded-for": "1.2.3.4",
    }
    async with proxy.client(headers=sent) as http:
        response = await http.post(path_of(upstream.base_url), json=asking("odd"))
        received = upstream.requests[-1].headers
        assert received == {
            "host": upstream.base_url.split("/")[2],
            "accept": "text/plain",
            "accept-encoding": "identity",
            "authorization": f"Bearer {PATH_KEY}",
            "content-length": received["content-length"],
            "content-type": "application/json",
            "openai-organization": "org",
            "openai-project": "p",
            "user-agent": "mine/1",
        }
        assert response.headers["x-upstream-request-id"] == "up-1"
        assert response.headers["x-request-id"] != "up-1"
        assert response.headers["openai-processing-ms"] == "12"
        assert response.headers["x-ratelimit-remaining-requests"] == "7"
        assert response.headers["retry-after-ms"] == "5"
        for name in ("set-cookie", "location", "x-inner", "grpc-status", "x-http-status", "openai-organization"):
            assert name not in response.headers
        await http.post(gemini_path(upstream.base_url), json={"model": "odd", "contents": CONTENTS})
        received = upstream.requests[-1].headers
        assert received["x-goog-api-key"] == GEMINI_KEY
        assert not {"authorization", "cookie", "x-mine", "openai-organization", "x-forwarded-for"} & set(received)


# Errors.


@pytest.mark.parametrize(
    "status", ["400 Bad", "401 No", "402 Pay", "403 No", "404 No", "418 Tea", "422 No", "429 Slow", "500 Oh", "529 Busy"]
)
async def test_the_providers_errors_are_the_answer(proxy: Gateway, upstream: OddUpstream, status: str) -> None:
    """The provider's errors pass unchanged, with status, body and type, including its 401."""
    body = b'{ "error" : {"message": "Incorrect API key provided", "code": "x"} }\n'
    upstream.script("odd", [answer(body, status, "application/problem+json", "retry-after: 9")])
    async with proxy.client() as http:
        for path in (path_of(upstream.base_url), gemini_path(upstream.base_url)):
            response = await http.post(path, json={**asking("odd"), "contents": CONTENTS})
            assert (response.status_code, response.content) == (int(status[:3]), body)
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["retry-after"] == "9"


OPENAI_SHAPE = {"message", "type", "param", "code"}
GEMINI_SHAPE = {"code", "message", "status"}


async def failed_call(proxy: Gateway, path: str, body: Any, shape: set[str], **headers: str) -> tuple[int, dict[str, Any]]:
    """Make a call that the gateway refuses, check the error's format and that it has no key, and return status and error."""
    async with proxy.client() as http:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await http.post(path, content=content, headers=headers)
        assert response.headers["content-type"] == "application/json"
        assert set(response.json()) == {"error"}, response.text
        error = response.json()["error"]
        assert set(error) == shape
        everything = f"{response.text}{response.headers}"
        assert not [secret for secret in (KEY, PATH_KEY, GEMINI_KEY) if secret in everything]
        assert response.headers["x-request-id"]
        if shape == GEMINI_SHAPE:
            assert error["code"] == response.status_code
        return response.status_code, error


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("https://evil.example/v1", 403),
        ("http://127.0.0.1:1/v1", 403),
        ("http://169.254.169.254/latest", 403),
        ("evil.example", 403),
        ("http://user@127.0.0.1:9/v1", 400),
        ("http://2130706433:9/v1", 400),
        ("http://127.1:9/v1", 400),
        ("http://[::ffff:127.0.0.1]:9/v1", 400),
        ("http://127.0.0.1:9/v1/../..", 400),
        ("http://127.0.0.1:9/v1\r\nx: y", 400),
        ("http://127.0.0.1:9/v1?x=", 400),
        ("http://127.0.0.1:9/v1#", 400),
        ("http://127.0.0.1:9%2fv1", 400),
        ("http%3A%2F%2F127.0.0.1:9", 400),
        ("".join(f"%{ord(character):02x}" for character in "http://127.0.0.1:9"), 400),
        ("http://0xa9fea9fe/latest", 400),
        ("http://0251.0376.0251.0376/latest", 400),
        ("http://2852039166/latest", 400),
        ("http://[::ffff:a9fe:a9fe]/latest", 400),
        ("http://[fe80::1%25eth0]", 400),
        ("http://[64:ff9b::a9fe:a9fe]/latest", 403),
        ("http://[fd00:ec2::254]/latest", 403),
        ("http://0.0.0.0:9", 403),
        ("http://127\uff0e0\uff0e0\uff0e1:9", 400),
        ("http://127.0.0.1\u3002:9", 400),
        ("http:\\\\127.0.0.1:9", 400),
        ("http://127.0.0.1.:9", 400),
        ("http://\uff11\uff12\uff17.0.0.1:9", 400),
        ("http://127.0.0.1:9", 502),  # allowed, but nothing listens there
    ],
)
async def test_targets_that_may_not_be_reached(proxy: Gateway, target: str, status: int) -> None:
    """A malformed target gets 400 and one that is not allowed 403, in both formats."""
    got, error = await failed_call(proxy, path_of(target), asking("odd"), OPENAI_SHAPE)
    assert (got, error["param"]) == (status, "proxy_url" if status == 400 else None)
    got, error = await failed_call(proxy, gemini_path(target), {"contents": CONTENTS}, GEMINI_SHAPE)
    assert (got, error["status"]) == (status, {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 502: "UNAVAILABLE"}[status])


async def test_invalid_requests_are_not_sent(proxy: Gateway, upstream: OddUpstream) -> None:
    """An invalid request gets 400 with the field at fault, and is not sent."""
    before = len(upstream.requests)
    url = upstream.base_url
    for body, param, code in (
        (b"", "body", "invalid_json"),
        (b"{", "body", "invalid_json"),
        (b"[]", "body", "invalid_type"),
        ({"messages": []}, "model", "missing_required_parameter"),
        ({"model": "odd"}, "messages", "missing_required_parameter"),
        ({"model": 7, "messages": []}, "model", "invalid_type"),
        ({"model": "odd", "messages": {}}, "messages", "invalid_type"),
        ({"model": "odd", "messages": [[]] * 70_000}, "body", "too_large"),
    ):
        status, error = await failed_call(proxy, path_of(url), body, OPENAI_SHAPE)
        assert (status, error["type"], error["param"], error["code"]) == (400, "invalid_request_error", param, code)
    for wrong, where in (
        (b"{", "body"),
        ({}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": {}}, "contents"),
        ({"contents": ["x"]}, "contents[0]"),
        ({"contents": [{"parts": []}, {"role": "user"}]}, "contents[1].parts"),
        ({"contents": [{"parts": "x"}]}, "contents[0].parts"),
        ({"contents": CONTENTS, "x": [[]] * 70_000}, "body"),
        ({"contents": CONTENTS, "generationConfig": []}, "generationConfig"),
        ({"contents": CONTENTS, "safetySettings": {}}, "safetySettings"),
        ({"contents": CONTENTS, "safetySettings": ["x"]}, "safetySettings[0]"),
        ({"contents": CONTENTS, "safety_settings": [{"category": "X", "threshold": 5}]}, "safety_settings[0].threshold"),
        ({"contents": [{"parts": ["Hi"]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"text": 5}]}]}, "contents[0].parts[0].text"),
        ({"contents": CONTENTS, "generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"contents": CONTENTS, "generation_config": {"max_output_tokens": 1.5}}, "generation_config.max_output_tokens"),
    ):
        status, error = await failed_call(proxy, gemini_path(url), wrong, GEMINI_SHAPE)
        assert (status, error["status"]) == (400, "INVALID_ARGUMENT")
        assert error["message"].startswith(f"{where} ")
    for model, task in (
        ("m", "deleteModel"),
        ("m", "generateContent:x"),
        ("a%2Fb", "generateContent"),
        ("%2e%2e%2f", "countTokens"),
    ):
        status, _ = await failed_call(proxy, gemini_path(url, task, model), {"contents": CONTENTS}, GEMINI_SHAPE)
        assert status == 400
    status, error = await failed_call(proxy, path_of(url, "a key\r\nx: y"), asking("odd"), OPENAI_SHAPE)
    assert (status, error["param"]) == (400, "api_key")
    assert len(upstream.requests) == before


async def test_no_gateway_key_is_401_before_anything_else(proxy: Gateway, upstream: OddUpstream) -> None:
    """Without a gateway key the answer is 401 before anything else is checked. A provider's key does not count."""
    before = len(upstream.requests)
    for key in ("", "Bearer", f"Bearer {PATH_KEY}", f"Bearer {GEMINI_KEY}"):
        status, _ = await failed_call(proxy, path_of(upstream.base_url), b"{", OPENAI_SHAPE, authorization=key)
        assert status == 401
        status, error = await failed_call(proxy, gemini_path("http://evil.example"), b"{", GEMINI_SHAPE, authorization=key)
        assert (status, error["status"]) == (401, "UNAUTHENTICATED")
    assert len(upstream.requests) == before


async def test_what_envoy_refuses_has_the_proxies_shapes(proxy: Gateway, upstream: OddUpstream) -> None:
    """Envoy's own 404, 405 and 413 have the proxies' formats, and do not repeat the path or its key."""
    async with proxy.client() as http:
        for method, path, status, shape in (
            ("GET", path_of(upstream.base_url), 405, OPENAI_SHAPE),
            ("GET", path_of(upstream.base_url) + "?a=b", 405, OPENAI_SHAPE),
            ("POST", f"/proxy/x/{PATH_KEY}/embeddings", 404, OPENAI_SHAPE),
            ("POST", f"/proxy/http://x/v1/{PATH_KEY}/chat/completions", 404, OPENAI_SHAPE),
            ("DELETE", gemini_path(upstream.base_url) + "?key=" + GEMINI_KEY, 405, GEMINI_SHAPE),
            ("POST", "/proxy/x/v1beta/files", 404, GEMINI_SHAPE),
        ):
            response = await http.request(method, path)
            assert (response.status_code, set(response.json()), set(response.json()["error"])) == (status, {"error"}, shape), path
            assert PATH_KEY not in response.text
            assert "proxy" not in response.text
        for path, shape in ((path_of(upstream.base_url), OPENAI_SHAPE), (gemini_path(upstream.base_url), GEMINI_SHAPE)):
            response = await http.post(path, content=b" " * (32 * 1024 * 1024 + 1))
            assert (response.status_code, set(response.json()["error"])) == (413, shape)


async def test_failures_before_the_first_byte(proxy: Gateway, upstream: OddUpstream) -> None:
    """An invalid answer, a redirect or an unknown status gives 502. Silence, or the caller's own deadline, gives 504."""
    redirect = answer(b"", "302 Found", "text/html", "location: http://169.254.169.254/")
    weird = [
        [answer(b"{}", "600 Weird")],
        [answer(b"{}", "999 No")],
        [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", CUT],
    ]
    gone = [[CUT], [RESET], [b"SSH-2.0-x\r\n\r\n", CUT], [redirect]]
    for steps, status in (*((steps, 502) for steps in (*gone, *weird)), ([HANG], 504)):
        upstream.script("odd", steps)
        assert (await failed_call(proxy, path_of(upstream.base_url), asking("odd"), OPENAI_SHAPE))[0] == status
        body = {"model": "odd", "contents": CONTENTS}
        assert (await failed_call(proxy, gemini_path(upstream.base_url), body, GEMINI_SHAPE))[0] == status
    start = time.monotonic()
    status, error = await failed_call(proxy, path_of(upstream.base_url), asking("odd"), OPENAI_SHAPE, **{"grpc-timeout": "1S"})
    assert (status, error["code"]) == (504, "deadline_exceeded")
    assert 0.9 < time.monotonic() - start < 1.5


@pytest.mark.parametrize("end", [CUT, RESET, HANG])
@pytest.mark.parametrize("sent", [sse(delta("Hel")), b"data: {", sse(delta("Hel"), end="\r\n\r\n")], ids=["between", "in", "CRLF"])
async def test_a_stream_of_events_that_breaks_off_says_so(proxy: Gateway, upstream: OddUpstream, sent: bytes, end: Step) -> None:
    """A broken event stream ends with an error event of its dialect and no [DONE], also if it broke inside an event."""
    upstream.script("odd", [head(), chunk(sent), Pause(0.05), end])
    body = {**asking("odd"), "contents": CONTENTS}
    async with proxy.client() as http:
        paths = (path_of(upstream.base_url), gemini_path(upstream.base_url))
        responses = await asyncio.gather(*(http.post(path, json=body) for path in paths))
    for response, shape in zip(responses, (OPENAI_SHAPE, GEMINI_SHAPE), strict=True):
        assert response.status_code == 200
        assert response.content.startswith(sent)
        *_, last, nothing = response.content.removeprefix(sent).split(b"\n\n")
        assert nothing == b""
        assert set(json.loads(last.removeprefix(b"data: "))["error"]) == shape


ARRAY = [head("200 OK", "application/json"), chunk(b'[{"a": 1}'), Pause(0.05)]
LENGTH = [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n[1,", Pause(0.05)]


@pytest.mark.parametrize("steps", [ARRAY, LENGTH], ids=["chunks", "length"])
@pytest.mark.parametrize("end", [CUT, RESET, HANG])
async def test_any_other_answer_that_breaks_off_is_a_broken_transfer(
    proxy: Gateway, upstream: OddUpstream, steps: list[Step], end: Step
) -> None:
    """Any other broken answer is a broken transfer after the bytes so far. Other calls of the worker go on."""
    gate = asyncio.Event()
    # It sends more shortly before the silent provider's time-out.
    pause = [Pause(1.5)] if end is HANG else []
    upstream.script("other", [head(), chunk(b"data: 1\n\n"), *pause, chunk(b"data: 2\n\n"), gate, chunk(b"data: 3\n\n"), LAST])
    upstream.script("odd", [*steps, end])

    async def broken(path: str) -> bytes:
        body = b""
        async with http.stream("POST", path, json={**asking("odd"), "contents": CONTENTS}) as response:
            assert response.status_code == 200
            with pytest.raises(httpx2.RemoteProtocolError):
                async for piece in response.aiter_raw():
                    body += piece
        return body

    async with proxy.client() as http:
        calls = asyncio.gather(broken(path_of(upstream.base_url)), broken(gemini_path(upstream.base_url, "streamGenerateContent")))
        other = asyncio.create_task(http.post(path_of(upstream.base_url), json=asking("other")))
        assert set(await calls) <= {b'[{"a": 1}', b"[1,"}
        gate.set()
        assert (await other).content == b"data: 1\n\ndata: 2\n\ndata: 3\n\n"


@pytest.mark.parametrize("version", ["v1", "v1alpha", "v1beta"])
async def test_each_version_of_gemini_reaches_the_provider_as_itself(proxy: Gateway, upstream: OddUpstream, version: str) -> None:
    """Each version of the Gemini API keeps its path; Google's own client uses v1 by default."""
    upstream.script("odd", [answer(b"{}")])
    path = gemini_path(upstream.base_url).replace("v1beta", version)
    async with proxy.client() as http:
        assert (await http.post(path, json={"model": "odd", "contents": CONTENTS})).status_code == 200
    assert upstream.requests[-1].path == f"/v1/{version}/models/gemini-2.0-flash:generateContent"
    status, _ = await failed_call(proxy, path.replace(version, "v1x"), {"contents": CONTENTS}, GEMINI_SHAPE)
    assert status == 400


@pytest.mark.parametrize("answering", [True, False])
async def test_a_caller_that_leaves_ends_the_providers_call(proxy: Gateway, upstream: OddUpstream, answering: bool) -> None:
    """If the caller leaves, the provider's call ends within half a second, before the first byte or after."""
    upstream.script("odd", [head(), chunk(sse(delta("Hel"))), HANG] if answering else [HANG])
    while not upstream.left.empty():
        upstream.left.get_nowait()
    before = len(upstream.requests)
    async with proxy.client() as http:
        task = asyncio.create_task(http.post(path_of(upstream.base_url), json=asking("odd")))
        await until(lambda: len(upstream.requests) > before)
        assert (await http.get("/models")).status_code == 200  # after this round trip, the first byte has arrived, if there is one
        task.cancel()
        left = time.monotonic()
    assert await asyncio.wait_for(upstream.left.get(), 2) - left < 0.5


async def test_connections_to_a_target_are_kept(proxy: Gateway, upstream: OddUpstream) -> None:
    """Consecutive calls to a target use one connection."""
    upstream.script("odd", [head(), chunk(sse(delta("Hel"), "[DONE]")), LAST])
    async with proxy.client() as http:
        await http.post(path_of(upstream.base_url), json=asking("odd"))
        before = upstream.connections
        for _ in range(5):
            await http.post(path_of(upstream.base_url), json=asking("odd"))
    assert upstream.connections == before


@pytest.mark.parametrize("query", ["api_key={}", "access_token={}", "a=b&authorization=Bearer+{}", "{}", "%6bey={}"])
async def test_the_gateways_key_does_not_leave_in_the_query(proxy: Gateway, upstream: OddUpstream, query: str) -> None:
    """The gateway's key in a query or a forwarded header is refused, whatever its name, and not repeated in the error."""
    before = len(upstream.requests)
    for path, shape in ((path_of(upstream.base_url), OPENAI_SHAPE), (gemini_path(upstream.base_url), GEMINI_SHAPE)):
        body = {**asking("odd"), "contents": CONTENTS}
        assert (await failed_call(proxy, f"{path}?{query.format(KEY)}", body, shape))[0] == 400
        assert (await failed_call(proxy, path, body, shape, **{"user-agent": KEY}))[0] == 400
    assert len(upstream.requests) == before
