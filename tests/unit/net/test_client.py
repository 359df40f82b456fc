"""Tests of the HTTP client over real sockets: the exact bytes of requests, and what comes back.

Failures and connections are tested in the modules that use the client.
"""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from multidict import CIMultiDict
from yarl import URL

from antiphon.domain.errors import PermissionDenied, ProviderTimeout, ProviderUnavailable
from antiphon.domain.trace import TraceContext, set_outgoing_trace
from antiphon.net.client import Client
from antiphon.net.outbound import Outbound
from tests.odd_upstream import HANG, OddUpstream, answer
from tests.waiting import until


class Resolver:
    """A resolver that raises `error` for every name."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        raise self.error


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    made = Client(connect_timeout=5, read_timeout=5, keep_alive=1)
    yield made
    await made.close()


@pytest.mark.parametrize("size", [0, 5, 2**20])
async def test_what_is_sent(client: Client, size: int) -> None:
    """A request has the URL as written, the headers with their case and repetitions, the body with its length, and `Host`."""
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readuntil(b"\r\n\r\n")
        received.put_nowait(data + await reader.readexactly(size))
        writer.write(answer(b"ok"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    url = URL(f"http://{host}/%41/a%2fb/../c;d?e=%7E+f&g=a b", encoded=True)
    headers = CIMultiDict([("X-Key", "ü"), ("accept", "a"), ("accept", "b")])
    response = await client.post("acme", url, headers, b"x" * size)
    assert await response.read() == b"ok"
    head, _, body = (await received.get()).partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    assert line == "POST /%41/a%2fb/../c;d?e=%7E+f&g=a b HTTP/1.1"
    assert sorted(lines) == [f"Content-Length: {size}", f"Host: {host}", "X-Key: ü", "accept: a", "accept: b"]
    assert body == b"x" * size
    server.close()


async def test_a_host_header_is_sent_in_place_of_the_urls(client: Client) -> None:
    """A request has one `Host`: that of its headers, if there is one."""
    async with OddUpstream() as upstream:
        upstream.default = [answer(b"ok")]
        for headers, host in (({}, f"127.0.0.1:{upstream.port}"), ({"HOST": "models.test"}, "models.test")):
            response = await client.post("acme", URL(upstream.base_url), headers, b"")
            await response.read()
            assert upstream.requests[-1].headers["host"] == host


async def test_what_is_kept_of_a_request_is_not_out_of_date(client: Client) -> None:
    """Of the same URL and headers the present method, headers and length are sent, also if the headers were changed in place."""
    async with OddUpstream() as upstream:
        upstream.default = [answer(b"ok")]
        url, headers = URL(upstream.base_url), CIMultiDict({"x": "1"})
        upstream.paths[url.raw_path] = upstream.default
        sent = []
        for change in (None, None, "2", None, "3"):
            if change is not None:
                headers["x"] = change
            for body in (b"abc", b"", None):
                response = await (client.get("acme", url, headers) if body is None else client.post("acme", url, headers, body))
                assert await response.read() == b"ok"
                sent.append((upstream.requests[-1].headers["x"], upstream.requests[-1].headers.get("content-length")))
        assert sent == [(x, length) for x in "11223" for length in ("3", "0", None)]
        await (await client.post("acme", url / "other", headers, b"")).read()
        assert upstream.requests[-1].path == "/v1/other"
        assert upstream.connections == 1


async def test_a_proxy_reads_the_whole_url() -> None:
    """A proxy is sent the URL as written, without its fragment, which is sent to no host: RFC 9112, section 3.2."""
    async with OddUpstream() as proxy:
        client = Client(connect_timeout=5, read_timeout=5, keep_alive=1, outbound=Outbound(URL(f"http://127.0.0.1:{proxy.port}")))
        response = await client.post("acme", URL("http://models.test:8000/a%2fb?c=%20+d#e", encoded=True), {}, b"")
        response.close()
        assert proxy.requests[-1].path == "http://models.test:8000/a%2fb?c=%20+d"
        assert proxy.requests[-1].headers["host"] == "models.test:8000"
        await client.close()


@pytest.mark.parametrize("control", ["\x00", "\x01", "\r", "\n", "\x7f"])
async def test_control_characters_are_not_sent(client: Client, control: str) -> None:
    """A control character in the URL, or in a header's name or value, is refused before anything is sent."""
    async with OddUpstream() as upstream:
        bad_headers = ({"x": f"a{control}b"}, {f"a{control}b": "x"})
        requests = [(URL(upstream.base_url), headers) for headers in bad_headers]
        if control not in "\r\n":  # yarl drops these
            requests.append((URL(f"{upstream.base_url}/a{control}b", encoded=True), {}))
        for url, headers in requests:
            with pytest.raises(ValueError, match="control characters"):
                await client.post("acme", url, headers, b"")
        assert upstream.connections == 0


@pytest.mark.parametrize("url", ["http:///v1", "/v1", "ftp://127.0.0.1/"])
async def test_a_url_that_is_not_of_http(client: Client, url: str) -> None:
    """A URL without a host, or of another scheme, is an unavailable provider."""
    with pytest.raises(ProviderUnavailable):
        await client.post("acme", URL(url), {}, b"")


@pytest.mark.parametrize("status", [0, 99, 101, 204, 600, 999])
async def test_any_status_but_an_interim_one_is_the_answer(client: Client, status: int) -> None:
    """Interim answers are passed over; every other status is returned, even an invalid one."""
    async with OddUpstream() as upstream:
        upstream.default = [
            *(f"HTTP/1.1 {code} X\r\n\r\n".encode() for code in (100, 103, 199)),
            f"HTTP/1.1 {status:03} X\r\n\r\n".encode(),
        ]
        response = await client.post("acme", URL(upstream.base_url), {}, b"")
        assert response.status == status
        response.close()


async def test_the_read_timeout_goes_on_after_an_interim_answer() -> None:
    """A host that sends an interim answer and nothing more is given up; the timer does not outlive an answer."""
    client = Client(connect_timeout=5, read_timeout=0.1, keep_alive=60)
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with OddUpstream() as upstream:
        upstream.default = [interim, HANG]
        with pytest.raises(ProviderTimeout):
            await client.post("acme", URL(upstream.base_url), {}, b"")
        upstream.default = [interim + answer(b"ok")]
        for _ in range(2):
            response = await client.post("acme", URL(upstream.base_url), {}, b"")
            assert await response.read() == b"ok"
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.2)
        assert upstream.connections == 2
    await client.close()


async def test_what_comes_back(client: Client) -> None:
    """An encoded body, a redirect and repeated headers are returned as they came, in UTF-8 or not."""
    packed = gzip.compress(b"hats")
    async with OddUpstream() as upstream:
        upstream.default = [answer(packed, "302 Found", "a/b", "Content-Encoding: gzip", "location: /y", "x-a: 1", "X-A: ü")]
        upstream.default[0] = upstream.default[0].replace(b"x-a: 1", b"x-a: \xfc")
        response = await client.post("acme", URL(upstream.base_url), {}, b"")
        assert (response.status, await response.read()) == (302, packed)
        assert list(response.headers.items())[-2:] == [("x-a", "\udcfc"), ("X-A", "ü")]
        assert len(upstream.requests) == 1


async def test_a_resolver_decides_where_to_connect_to() -> None:
    """An error of the resolver is passed on, but `OSError` becomes `ProviderUnavailable`."""
    for error, expected in ((PermissionDenied("no"), PermissionDenied), (OSError("none"), ProviderUnavailable)):
        client = Client(connect_timeout=5, read_timeout=5, keep_alive=1, resolver=Resolver(error))
        with pytest.raises(expected):
            await client.post("acme", URL("http://models.test/"), {}, b"")
        await client.close()


async def test_closing_may_come_twice_and_before_the_first_call(client: Client) -> None:
    """The client may be closed before its first call, be used again, and be closed twice."""
    await client.close()
    async with OddUpstream() as upstream:
        upstream.default = [answer(b"ok")]
        await (await client.post("acme", URL(upstream.base_url), {}, b"")).read()
        assert upstream.open_connections == 1
        await client.close()
        while upstream.open_connections:
            await asyncio.sleep(0)
    await client.close()


async def test_a_request_belongs_to_the_trace_that_is_passed_on(client: Client) -> None:
    """A request has the headers of the outgoing trace, in place of its own, which it keeps without a trace."""
    async with OddUpstream() as upstream:
        upstream.script("m", [answer(b"{}")])
        url, headers = URL(f"{upstream.base_url}/x"), CIMultiDict({"a": "b"})

        async def post() -> dict[str, str]:
            response = await client.post("p", url, headers, b'{"model": "m"}')
            response.close()
            return upstream.requests[-1].headers

        set_outgoing_trace(TraceContext("0" * 31 + "1", "0" * 15 + "2", 1, "a=b"))
        traced = await post()
        set_outgoing_trace(TraceContext("0" * 31 + "3", "0" * 15 + "4"))
        headers = CIMultiDict(headers, TraceParent="of another", TraceState="c=d")
        replaced = await post()
        set_outgoing_trace(None)
        untraced = await post()
    assert traced.items() >= {"traceparent": f"00-{'0' * 31}1-{'0' * 15}2-01", "tracestate": "a=b", "a": "b"}.items()
    assert replaced["traceparent"] == f"00-{'0' * 31}3-{'0' * 15}4-01"
    assert "tracestate" not in replaced
    assert (untraced["traceparent"], untraced["tracestate"]) == ("of another", "c=d")


async def test_received_bytes_that_are_not_read_are_counted(client: Client) -> None:
    """`buffered` counts received bytes that are not read yet. It is bounded, and 0 after the answer is closed."""
    assert client.buffered == 0
    async with OddUpstream() as upstream:
        upstream.script("m", [answer(b"x" * 4 * 2**20)])
        response = await client.post("p", URL(f"{upstream.base_url}/x"), {}, b'{"model": "m"}')
        await until(lambda: client.buffered > 2**16)
        assert client.buffered < 2**20
        response.close()
    assert client.buffered == 0
