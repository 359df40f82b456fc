"""HEAD through the real Envoy: the answer of GET without its body (RFC 9110, section 9.3.2)."""

import httpx2
import pytest

from tests.e2e.conftest import KEY, Gateway
from tests.e2e.wire import END_HEADERS, END_STREAM, HEADERS, close, connect, frame, http2, read_answer

OWN = {"date", "x-request-id", "content-length", "transfer-encoding"}
"""Headers that differ between responses, or that describe a body."""


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/health", 200),
        ("/health?a=b", 200),
        ("/api/v1/models", 200),
        ("/api/v1/models/gpt-4o", 200),
        ("/api/v1/models/nothing", 404),
        ("/v1/models", 200),
        ("/v1/models/gpt-4o", 200),
        ("/v1/nothing", 404),
        ("/api/v1/chat/history?page_size=1", 200),
        ("/api/v1/chat/history?page_size=x", 400),
        ("/api/v1/chat/fetch/nothing", 404),
        ("/api/engine/providers", 200),
        ("/api/engine/models", 200),
        ("/api/engine/parameters?provider=echo&model=echo", 200),
        ("/nothing", 404),
    ],
)
async def test_head_is_answered_as_get(http: httpx2.AsyncClient, gateway: Gateway, path: str, status: int) -> None:
    """HEAD gets the status and headers of GET and no body, with a valid key and with a bad one."""
    url = f"http://{gateway.rest}{path}"
    for key in ({}, {"authorization": "Bearer sk-wrong"}):
        got, head = await http.get(url, headers=key), await http.head(url, headers=key)
        assert key or got.status_code == status
        assert head.status_code == got.status_code
        actual, expected = ({n: v for n, v in each.headers.items() if n not in OWN} for each in (head, got))
        assert actual == expected
        assert (bool(got.content), head.content) == (True, b"")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("chat/completions", "POST"),
        ("chat/generate", "POST"),
        ("chat/x", "PATCH, DELETE"),
        ("ai/chat", "POST"),
        ("proxy/host/sk-x/chat/completions", "POST"),
        ("proxy/host/v1beta/models/x:countTokens", "POST"),
    ],
)
async def test_head_of_what_has_no_get_is_405(http: httpx2.AsyncClient, path: str, allow: str) -> None:
    """HEAD of a path without GET gets 405 with the allowed methods, and asks no model."""
    response = await http.head(path)
    assert (response.status_code, response.headers["allow"], response.content) == (405, allow, b"")


async def test_what_takes_get_takes_head(http: httpx2.AsyncClient) -> None:
    """A path that accepts GET lists HEAD in its `allow` header too."""
    assert (await http.post("models")).headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/health", "/api/v1/models", "/nothing"])
async def test_the_connection_stays_good_for_the_next_request(gateway: Gateway, path: str) -> None:
    """The connection stays usable: in HTTP/1.1 no byte follows the headers, and in HTTP/2 the stream ends."""
    reader, writer = await connect(gateway.rest)
    for _ in range(2):
        writer.write(f"HEAD {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404" if path == "/nothing" else b"HTTP/1.1 200")
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = await read_answer(reader)
        assert (answer.status, b"healthy" in answer.body) == (200, True)
    await close(writer)
    async with http2(gateway.rest) as caller:
        for stream, method in enumerate(("HEAD", "GET", "HEAD", "GET")):
            request = caller.request(path if method == "HEAD" else "/health", method, authorization=f"Bearer {KEY}")
            await caller.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, request))
            body = await caller.answer(2 * stream + 1)
            assert (b"healthy" in body) if method == "GET" else body == b""
