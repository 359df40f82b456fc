"""Tests of the cache of access tokens, over real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog

from antiphon.config import TokenConfig
from antiphon.domain.errors import ProviderCredentials, ProviderError, ProviderTimeout, ProviderUnavailable
from antiphon.net.fetch import Fetcher
from antiphon.net.outbound import DIRECT
from antiphon.providers.credentials.build import token_source
from antiphon.providers.credentials.cache import TokenCache
from tests.odd_upstream import CUT, OddUpstream, Step, answer
from tests.token_endpoint import OTHER_KEY, TokenEndpoint, pem


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def cache(tmp_path: Path, clock: Clock) -> AsyncIterator[Callable[..., TokenCache]]:
    """Return a function that makes a cache for the token of a metadata server, or with the credentials file `file`."""
    async with AsyncExitStack() as stack:

        def made(url: str = "", file: Path | None = None, **settings: Any) -> TokenCache:
            kind = {"kind": "google_metadata", "metadata_url": url} if file is None else {"kind": "google", "file": file}
            config = TokenConfig.model_validate({**kind, **settings})
            fetcher = Fetcher()
            source = token_source(config, "providers.acme.credentials", {}, fetcher, DIRECT)
            found = TokenCache("acme", config, source, fetcher, clock)
            stack.push_async_callback(found.close)
            return found

        yield made


async def arrived(endpoint: TokenEndpoint, requests: int) -> None:
    while len(endpoint.requests) < requests:
        await asyncio.sleep(0.001)


async def test_a_hundred_calls_share_one_fetch(endpoint: TokenEndpoint, cache: Callable[..., TokenCache]) -> None:
    """The first calls wait for one fetch, and later ones for none."""
    held = cache(endpoint.url)
    endpoint.gate.clear()
    calls = [asyncio.create_task(held.get()) for _ in range(100)]
    await arrived(endpoint, 1)
    endpoint.gate.set()
    tokens = await asyncio.gather(*calls)
    assert {*tokens, await held.get()} == {"token-1-secret"}
    assert len(endpoint.requests) == 1


async def test_the_caller_who_fetches_may_leave(endpoint: TokenEndpoint, cache: Callable[..., TokenCache]) -> None:
    """If the call that started the fetch is cancelled, the others get the token of that fetch."""
    held = cache(endpoint.url)
    endpoint.gate.clear()
    first = asyncio.create_task(held.get())
    await arrived(endpoint, 1)
    others = [asyncio.create_task(held.get()) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    endpoint.gate.set()
    assert set(await asyncio.gather(*others)) == {"token-1-secret"}
    assert len(endpoint.requests) == 1


async def test_a_new_token_is_fetched_before_the_old_one_ends(
    endpoint: TokenEndpoint, cache: Callable[..., TokenCache], clock: Clock
) -> None:
    """Shortly before the end one call fetches a new token, and none waits for it: all use the old one meanwhile."""
    held = cache(endpoint.url, refresh=300)
    assert await held.get() == "token-1-secret"
    clock.now = 3600 - 301
    assert await held.get() == "token-1-secret"
    assert len(endpoint.requests) == 1
    clock.now = 3600 - 299
    endpoint.gate.clear()
    assert {await held.get() for _ in range(100)} == {"token-1-secret"}
    await arrived(endpoint, 2)
    endpoint.gate.set()
    while await held.get() == "token-1-secret":
        await asyncio.sleep(0.001)
    assert await held.get() == "token-2-secret"
    assert len(endpoint.requests) == 2


async def test_a_token_near_its_end_is_not_sent(endpoint: TokenEndpoint, cache: Callable[..., TokenCache], clock: Clock) -> None:
    """A token that ends within seconds is not used any more, and calls wait for another."""
    held = cache(endpoint.url)
    assert await held.get() == "token-1-secret"
    clock.now = 3600 - 9
    assert await held.get() == "token-2-secret"


async def test_a_short_token_is_used_for_half_its_time(
    endpoint: TokenEndpoint, cache: Callable[..., TokenCache], clock: Clock
) -> None:
    """A token that lives for less than the time of `refresh` is not fetched with each call."""
    endpoint.lifetime = 60
    held = cache(endpoint.url)
    await held.get()
    clock.now = 29
    await held.get()
    assert len(endpoint.requests) == 1


async def test_the_old_token_is_used_while_its_endpoint_fails(
    endpoint: TokenEndpoint, cache: Callable[..., TokenCache], clock: Clock
) -> None:
    """While no new token can be had, the old one is used until it ends, and the endpoint is not asked with each call."""
    held = cache(endpoint.url, refresh=300)
    await held.get()
    endpoint.failures = [(400, {})] * 10
    clock.now = 3400
    for _ in range(20):
        assert await held.get() == "token-1-secret"
        await asyncio.sleep(0.002)
    assert len(endpoint.requests) == 2
    clock.now = 3595
    with pytest.raises(ProviderCredentials):
        await held.get()
    assert len(endpoint.requests) == 3
    endpoint.failures = []
    with pytest.raises(ProviderCredentials):
        await held.get()
    assert len(endpoint.requests) == 3, "for a moment nobody asks again"
    clock.now += 11
    assert await held.get() == "token-2-secret"


async def test_failures_that_pass_are_repeated(endpoint: TokenEndpoint, cache: Callable[..., TokenCache]) -> None:
    """A failure that may pass is tried again within the same call, twice at most."""
    endpoint.failures = [(503, {}), (410, {})]
    assert await cache(endpoint.url).get() == "token-1-secret"
    endpoint.failures = [(500, {})] * 3
    with pytest.raises(ProviderUnavailable, match="^There is no token for the provider acme now.$"):
        await cache(endpoint.url).get()
    assert len(endpoint.requests) == 6


async def test_a_wait_that_is_asked_for_is_kept(endpoint: TokenEndpoint, cache: Callable[..., TokenCache], clock: Clock) -> None:
    """An endpoint that names a wait is not asked before, and callers are told."""
    endpoint.failures = [(429, {"retry-after": "30"})]
    held = cache(endpoint.url)
    for _ in range(3):
        with pytest.raises(ProviderUnavailable) as caught:
            await held.get()
        assert caught.value.retry_after == 30
    assert len(endpoint.requests) == 1
    clock.now = 31
    assert await held.get() == "token-1-secret"


async def test_a_refusal_is_an_error_of_credentials(
    endpoint: TokenEndpoint, cache: Callable[..., TokenCache], tmp_path: Path
) -> None:
    """A refused grant is not repeated. Neither the error nor the log has a secret; the log has the reason."""
    held = cache(file=endpoint.service_account(tmp_path / "a.json", private_key=pem(OTHER_KEY)))
    with structlog.testing.capture_logs() as logs:
        errors = await asyncio.gather(*(held.get() for _ in range(10)), return_exceptions=True)
    assert {(type(error), str(error)) for error in errors} == {
        (ProviderCredentials, "This gateway's credentials for the provider acme were refused.")
    }
    assert len({id(error) for error in errors}) == 10, "each call has an error of its own"
    assert len(endpoint.requests) == 1
    assert logs == [
        {
            "event": "provider_token_not_fetched",
            "log_level": "warning",
            "provider": "acme",
            "kind": "google",
            "error": "status 400, invalid_grant",
            "refused": True,
            "older_one_used": False,
        }
    ]


async def test_a_slow_endpoint(endpoint: TokenEndpoint, cache: Callable[..., TokenCache]) -> None:
    """A fetch ends after its time-out, for all who wait."""
    endpoint.gate.clear()
    held = cache(endpoint.url, timeout=0.1)
    begun = time.monotonic()
    errors = await asyncio.gather(*(held.get() for _ in range(10)), return_exceptions=True)
    assert {type(error) for error in errors} == {ProviderTimeout}
    assert time.monotonic() - begun < 2
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "steps",
    [
        [CUT],
        [b"SSH-2.0\r\n\r\n", CUT],
        [answer(b"<html>", "200 OK", "text/html", "metadata-flavor: Google")],
        [answer(b"[]", "200 OK", "application/json", "metadata-flavor: Google")],
        [answer({"access_token": "", "expires_in": 60}, "200 OK", "application/json", "metadata-flavor: Google")],
        [answer({"access_token": "a\r\nb: c", "expires_in": 60}, "200 OK", "application/json", "metadata-flavor: Google")],
        [answer({"access_token": "a" * 40000, "expires_in": 60}, "200 OK", "application/json", "metadata-flavor: Google")],
        [answer({"access_token": "a"}, "200 OK", "application/json", "metadata-flavor: Google")],
        [answer({"access_token": "a", "expires_in": "soon"}, "200 OK", "application/json", "metadata-flavor: Google")],
        [answer({"access_token": "a", "expires_in": -1}, "200 OK", "application/json", "metadata-flavor: Google")],
        [answer({"access_token": "a", "expires_on": 1}, "200 OK", "application/json", "metadata-flavor: Google")],
        [answer({"access_token": "a", "expires_in": 9, "token_type": "mac"}, "200 OK", "a/b", "metadata-flavor: Google")],
        [answer(b" " * 70000, "200 OK", "application/json", "metadata-flavor: Google")],
        [answer(b"", "302 Found", "text/plain", "location: /elsewhere")],
        [answer(b"\xff{", "400 Bad Request")],
    ],
)
async def test_answers_that_are_no_token(cache: Callable[..., TokenCache], steps: list[Step]) -> None:
    """A cut, foreign or broken answer is an error of the provider; no redirect is followed, and no header is split."""
    async with OddUpstream() as upstream:
        upstream.default = steps
        with pytest.raises(ProviderError):
            await cache(upstream.base_url).get()
        assert {request.path.partition("?")[0] for request in upstream.requests} == {
            "/v1/computeMetadata/v1/instance/service-accounts/default/token"
        }


async def test_a_refused_token_is_replaced_once(endpoint: TokenEndpoint, cache: Callable[..., TokenCache], clock: Clock) -> None:
    """A token that the provider refuses is replaced, by one fetch for all; if the next is refused as well, it is kept."""
    held = cache(endpoint.url)
    first = await held.get()
    assert set(await asyncio.gather(*(held.replace(first) for _ in range(100)))) == {"token-2-secret"}
    assert await held.replace(first) == "token-2-secret", "which another call has fetched"
    assert len(endpoint.requests) == 2
    assert await held.replace("token-2-secret") is None
    assert len(endpoint.requests) == 2
    clock.now = 61
    assert await held.replace("token-2-secret") == "token-3-secret"


async def test_the_same_token_again_is_no_replacement(endpoint: TokenEndpoint, cache: Callable[..., TokenCache]) -> None:
    """A metadata service may have a cache itself: if it sends the refused token again, the call is not repeated."""
    endpoint.same = True
    held = cache(endpoint.url)
    assert await held.replace(await held.get()) is None


async def test_closing_ends_a_fetch(endpoint: TokenEndpoint, cache: Callable[..., TokenCache]) -> None:
    """Closing cancels a fetch in progress."""
    endpoint.gate.clear()
    held = cache(endpoint.url)
    call = asyncio.create_task(held.get())
    await arrived(endpoint, 1)
    await held.close()
    with pytest.raises(asyncio.CancelledError):
        await call
