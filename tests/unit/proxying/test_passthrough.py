"""Tests of POSTs to a proxy target over real sockets, with a scripted name service."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
import pytest_asyncio

from antiphon.config import LimitsConfig, ProxyConfig
from antiphon.domain.call import Call
from antiphon.domain.errors import (
    AntiphonError,
    DeadlineExceeded,
    PermissionDenied,
    ProviderProtocolError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    ShuttingDown,
)
from antiphon.limits.limiter import Limiter
from antiphon.limits.quotas import Quotas
from antiphon.proxying.passthrough import Passthrough
from tests.odd_upstream import CUT, HANG, LAST, OddUpstream, Step, answer, chunk, head

BODY = b'{"model": "odd"}'


@pytest_asyncio.fixture
async def upstream() -> AsyncGenerator[OddUpstream, None]:
    async with OddUpstream() as server:
        yield server


def port_of(upstream: OddUpstream) -> int:
    return int(upstream.base_url.rpartition(":")[2].removesuffix("/v1"))


class System:
    """A name service that gives its answers one by one; the last one is repeated."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.lookups: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.lookups.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def passing(upstream: OddUpstream, system: System, **config: float) -> Passthrough:
    """Return a `Passthrough` that allows the upstream under a name that only `system` resolves."""
    allowed = ProxyConfig(allow=(f"http://models.test:{port_of(upstream)}", "http://models.test"), **config)  # type: ignore[arg-type]
    return Passthrough(allowed, timeout=5, lookup=system)


async def post(through: Passthrough, url: str, *, query: str = "", timeout: float | None = None) -> tuple[int, bytes]:
    target = through.policy.target(url)
    async with through.post(Call(timeout=timeout), target, "/x", query, {"accept": "a"}, BODY) as got:
        return got.status, b"".join([piece async for piece in got])


async def test_the_address_that_was_checked_is_the_one_connected_to(upstream: OddUpstream) -> None:
    """The name is resolved once, and the connection goes to the address that was checked."""
    upstream.script("odd", [answer(b"ok", "201 Created")])
    system = System(["127.0.0.1"], ["169.254.169.254"])
    through = passing(upstream, system)
    url = f"http://models.test:{port_of(upstream)}"
    assert await post(through, url, query="a=%41+%2f") == (201, b"ok")
    received = upstream.requests[-1]
    assert (received.path, received.body) == ("/x?a=%41+%2f", BODY)
    assert received.headers == {"host": f"models.test:{port_of(upstream)}", "accept": "a", "content-length": str(len(BODY))}
    assert system.lookups == ["models.test"]
    await through.close()


async def test_a_request_that_crosses_a_close_is_sent_again(upstream: OddUpstream) -> None:
    """A request that crosses the close of its idle connection is sent again once, to a checked address.

    One that got a byte of an answer is not.
    """
    system = System(["127.0.0.1"])
    through = passing(upstream, system)
    url = f"http://models.test:{port_of(upstream)}"
    upstream.script("odd", [answer(b"ok")])
    await post(through, url)
    for connection in list(upstream._open):
        connection.drop()  # there is no await before the request is sent
    assert await post(through, url) == (200, b"ok")
    assert (len(upstream.requests), upstream.connections) == (2, 2)
    upstream.script("odd", [b"H", CUT])
    with pytest.raises(ProviderUnavailable):
        await post(through, url)
    assert len(upstream.requests) == 3
    await through.close()


async def test_a_name_that_is_bound_anew_is_refused(upstream: OddUpstream) -> None:
    """A name that gets a forbidden address later is refused at the next connection (DNS rebinding)."""
    upstream.script("odd", [answer(b"ok", "200 OK", "text/plain", "connection: close"), CUT])
    system = System(["127.0.0.1"], ["169.254.169.254"])
    through = passing(upstream, system)
    url = f"http://models.test:{port_of(upstream)}"
    await post(through, url)
    through._client._pool._connector._names.clear()  # type: ignore[union-attr]  # as if the cached address had expired
    with pytest.raises(PermissionDenied):
        await post(through, url)
    assert len(upstream.requests) == 1
    assert len(system.lookups) == 2
    await through.close()


async def test_a_name_without_its_port_on_the_list_reaches_nothing_inside(upstream: OddUpstream) -> None:
    """A name that is allowed without its port reaches no private address."""
    through = passing(upstream, System(["127.0.0.1"]))
    with pytest.raises(PermissionDenied) as caught:
        await post(through, "http://models.test")
    assert "127.0.0.1" not in caught.value.message
    await through.close()


async def test_proxies_of_the_environment_are_not_used(upstream: OddUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the environment are not used, because they would see the keys and choose where to connect."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    upstream.script("odd", [answer(b"ok")])
    through = passing(upstream, System(["127.0.0.1"]))
    assert await post(through, f"http://models.test:{port_of(upstream)}") == (200, b"ok")
    await through.close()


async def test_cookies_are_not_kept(upstream: OddUpstream) -> None:
    """Cookies are not kept, because they would be sent for another caller."""
    upstream.script("odd", [answer(b"ok", "200 OK", "text/plain", "set-cookie: a=b")])
    through = passing(upstream, System(["127.0.0.1"]))
    for _ in range(2):
        await post(through, f"http://models.test:{port_of(upstream)}")
    assert "cookie" not in upstream.requests[-1].headers
    await through.close()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([CUT], ProviderUnavailable),
        ([b"SSH-2.0-x\r\n\r\n", CUT], ProviderProtocolError),
        ([HANG], ProviderTimeout),
        ([answer(b"", "302 Found", "text/html", "location: http://169.254.169.254/")], ProviderProtocolError),
        ([answer(b"", "307 Again", "text/html", "location: /y")], ProviderProtocolError),
        ([answer(b"{}", "600 Weird")], ProviderProtocolError),
        ([answer(b"{}", "999 No")], ProviderProtocolError),
        ([b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", HANG], ProviderProtocolError),
        ([head(), chunk(b"x"), CUT], ProviderProtocolError),
        ([head(), chunk(b"x"), HANG], ProviderTimeout),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nxx", CUT], ProviderProtocolError),
    ],
)
async def test_each_failure_is_an_error_of_the_domain(
    upstream: OddUpstream, steps: list[Step], expected: type[AntiphonError]
) -> None:
    """Each failure, before and after the first byte, is an error of the domain.

    Redirects are not followed, and invalid statuses not passed on.
    """
    upstream.script("odd", steps)
    through = passing(upstream, System(["127.0.0.1"]), read_timeout=0.2)
    with pytest.raises(expected):
        await post(through, f"http://models.test:{port_of(upstream)}")
    assert len(upstream.requests) == 1
    assert through.in_flight == 0
    await through.close()


@pytest.mark.parametrize("steps", [[HANG], [head(), chunk(b"x"), HANG]])
async def test_deadlines_and_stops_end_a_call(upstream: OddUpstream, steps: list[Step]) -> None:
    """A deadline, a cancellation and a stop of the server end the call and drop the target's connection."""
    upstream.script("odd", steps)
    through = passing(upstream, System(["127.0.0.1"]))
    url = f"http://models.test:{port_of(upstream)}"

    async def begin() -> asyncio.Task[tuple[int, bytes]]:
        """Start a call and wait until it has reached the target."""
        before = len(upstream.requests)
        call = asyncio.create_task(post(through, url, timeout=1))
        async with asyncio.timeout(1):
            while len(upstream.requests) == before:
                await asyncio.sleep(0.01)
        return call

    late = await begin()
    with pytest.raises(DeadlineExceeded):
        await late
    cancelled = await begin()
    assert through.in_flight == 1
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    stopped = await begin()
    through.interrupt()
    with pytest.raises(ShuttingDown):
        await stopped
    async with asyncio.timeout(2):
        for _ in range(3):
            await upstream.left.get()
    assert through.in_flight == 0
    await through.close()


async def test_leaving_early_drops_the_rest(upstream: OddUpstream) -> None:
    """Leaving before the end of the answer drops the connection at once."""
    upstream.script("odd", [head(), chunk(b"x"), HANG, LAST])
    through = passing(upstream, System(["127.0.0.1"]))
    target = through.policy.target(f"http://models.test:{port_of(upstream)}")
    async with through.post(Call(), target, "", "", {}, BODY) as got:
        assert await anext(got) == b"x"
    await asyncio.wait_for(upstream.left.get(), 1)
    await through.close()


async def test_a_call_takes_a_place_and_gives_it_back(upstream: OddUpstream) -> None:
    """A proxied call counts as a concurrent stream until it ends. Limits of tokens and USD do not hold for it."""
    upstream.script("odd", [HANG])
    quotas = Quotas(LimitsConfig.model_validate({"overall": {"concurrent_streams": 1, "tokens_per_minute": 0, "daily_usd": 0}}))
    allowed = ProxyConfig(allow=(f"http://models.test:{port_of(upstream)}",))
    through = Passthrough(allowed, timeout=5, lookup=System(["127.0.0.1"]), limiter=Limiter(quotas))
    url = f"http://models.test:{port_of(upstream)}"
    for _ in range(2):
        hanging = asyncio.create_task(post(through, url))
        count = len(upstream.requests)
        async with asyncio.timeout(5):
            while len(upstream.requests) == count:
                await asyncio.sleep(0.005)
        with pytest.raises(RateLimited):
            await post(through, url)
        assert len(upstream.requests) == count + 1
        hanging.cancel()
        await asyncio.wait([hanging])
    await through.close()
