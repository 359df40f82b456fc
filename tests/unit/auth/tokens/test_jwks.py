"""Tests of where an issuer's keys are read from, and how they rotate."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from antiphon.auth.tokens.jwks import RotatingKeys, from_discovery, from_file, from_url
from antiphon.auth.tokens.keyset import MAX_BYTES, KeysUnusable
from antiphon.config import ConfigError
from antiphon.domain.errors import IdentityUnavailable
from antiphon.net.fetch import Fetcher
from tests.odd_upstream import CUT, HANG, RESET, OddUpstream, answer, chunk, head
from tests.unit.auth.signer import config, entry, jwks

TTL, STALE, COOLDOWN = 300.0, 3600.0, 10.0
"""The defaults of the configuration, in seconds."""


class Issuer:
    """A source of a key set.

    It waits while `gate` is closed and raises `fails` if that is set; a test sets its clock `now` by hand.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self.fails: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads = 0
        self.now = 1000.0

    async def __call__(self) -> bytes:
        self.reads += 1
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return jwks(*(entry(name) for name in self.names))

    def keys(self, **more: Any) -> RotatingKeys:
        return RotatingKeys(config(**more), self, lambda: self.now)


async def found(keys: RotatingKeys, kid: str | None) -> list[str | None]:
    return [key.kid for key in await keys.find(kid)]


async def unavailable(keys: RotatingKeys, kid: str = "ed-1") -> IdentityUnavailable:
    with pytest.raises(IdentityUnavailable) as caught:
        await keys.find(kid)
    return caught.value


async def test_a_key_set_is_read_once_and_again_after_its_time() -> None:
    """A key set is read once and kept until its TTL ends. A key that was withdrawn by then is not found afterwards."""
    issuer = Issuer("ed-1", "ed-2")
    keys = issuer.keys()
    assert [await found(keys, kid) for kid in ("ed-1", "ed-2", "ed-1")] == [["ed-1"], ["ed-2"], ["ed-1"]]
    issuer.names = ("ed-2",)
    issuer.now += TTL - 1
    assert await found(keys, "ed-1") == ["ed-1"]
    assert issuer.reads == 1
    issuer.now += 1
    assert (await found(keys, "ed-1"), await found(keys, "ed-2")) == ([], ["ed-2"])
    assert issuer.reads == 2


async def test_an_unknown_key_makes_it_read_again_once_within_the_cooldown() -> None:
    """An unknown key id makes the key set be read again, at most once per cooldown.

    So a new key works at once, and invented ids cause few reads.
    """
    issuer = Issuer("ed-1")
    keys = issuer.keys()
    assert await found(keys, "ed-1") == ["ed-1"]
    issuer.now += COOLDOWN
    issuer.names = ("ed-1", "ed-2")
    assert await found(keys, "ed-2") == ["ed-2"]
    assert issuer.reads == 2
    for number in range(100):
        assert await found(keys, f"made-up-{number}") == []
    assert issuer.reads == 2
    issuer.now += COOLDOWN
    await asyncio.gather(*(found(keys, f"made-up-{number}") for number in range(100)))
    assert issuer.reads == 3


async def test_concurrent_callers_share_one_read() -> None:
    """Concurrent callers share one read of the key set, and a caller that is cancelled does not end it for the others."""
    issuer = Issuer("ed-1")
    issuer.gate.clear()
    keys = issuer.keys()
    callers = [asyncio.create_task(found(keys, "ed-1")) for _ in range(50)]
    while not issuer.reads:
        await asyncio.sleep(0)
    callers[0].cancel()
    issuer.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [["ed-1"]] * 49
    assert issuer.reads == 1


@pytest.mark.parametrize("failure", [OSError("no"), KeysUnusable("status 500"), TimeoutError()])
async def test_a_failing_issuer_is_not_asked_again_within_the_cooldown(failure: Exception) -> None:
    """If no keys are known and the read fails, calls get `IdentityUnavailable` with the time to retry.

    The issuer is not asked again within the cooldown.
    """
    issuer = Issuer("ed-1")
    issuer.fails = failure
    keys = issuer.keys()
    with capture_logs() as logs:
        errors = await asyncio.gather(*(unavailable(keys) for _ in range(20)))
    assert issuer.reads == 1
    assert {error.retry_after for error in errors} == {COOLDOWN}
    assert [(entry["event"], entry["older_ones_used"]) for entry in logs] == [("issuer_keys_not_read", False)]
    issuer.now += COOLDOWN - 2
    assert (await unavailable(keys)).retry_after == 2
    assert issuer.reads == 1
    issuer.now += 2
    issuer.fails = None
    assert await found(keys, "ed-1") == ["ed-1"]


async def test_known_keys_go_on_while_the_issuer_fails_for_a_bounded_time() -> None:
    """Known keys are used for the `stale` time while the issuer fails.

    An unknown key id is `IdentityUnavailable`, because it may be a new key.
    """
    issuer = Issuer("ed-1")
    keys = issuer.keys()
    await keys.find("ed-1")
    issuer.fails = OSError("down")
    issuer.now += TTL + 1
    assert await found(keys, "ed-1") == ["ed-1"]
    await unavailable(keys, "ed-2")
    assert issuer.reads == 2
    issuer.now += STALE - 2
    assert await found(keys, "ed-1") == ["ed-1"]
    issuer.now += 1
    await unavailable(keys)
    issuer.fails = None
    issuer.now += COOLDOWN
    assert await found(keys, "ed-1") == ["ed-1"]


async def test_a_hanging_issuer_delays_only_the_first_call() -> None:
    """If the issuer hangs, the first call waits for the timeout at most. Later reads run in the background if the key is known."""
    issuer = Issuer("ed-1")
    keys = issuer.keys(timeout=0.05)
    await keys.find("ed-1")
    issuer.gate.clear()
    issuer.now += TTL
    assert await found(keys, "ed-1") == ["ed-1"]
    issuer.now += COOLDOWN
    slow = keys._config.model_copy(update={"timeout": 60.0})
    keys._config = slow
    assert await found(keys, "ed-1") == ["ed-1"], "it does not wait"
    assert keys._set.is_reading
    waiting = asyncio.create_task(unavailable(keys, "ed-2"))
    await asyncio.sleep(0)
    issuer.fails = OSError("down")
    issuer.gate.set()
    await waiting
    assert issuer.reads == 3


async def test_an_issuer_that_withdraws_all_keys_has_none() -> None:
    """An empty key set is accepted, and the keys of the previous set are not used."""
    issuer = Issuer("ed-1")
    keys = issuer.keys()
    await keys.find("ed-1")
    issuer.names = ()
    issuer.now += TTL
    assert await found(keys, "ed-1") == []


async def test_closing_ends_a_reading() -> None:
    """Closing cancels a read in progress, and closing twice is allowed."""
    issuer = Issuer("ed-1")
    issuer.gate.clear()
    keys = issuer.keys()
    waiting = asyncio.create_task(keys.find("ed-1"))
    while not issuer.reads:
        await asyncio.sleep(0)
    await keys.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await keys.close()


async def test_a_file_is_read_again_when_it_was_replaced(tmp_path: Path) -> None:
    """A replaced key file is read again, and a deleted one keeps the known keys.

    A file that is unusable at the start is a `ConfigError`.
    """
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(entry("ed-1")))
    keys = from_file(config(keys_ttl=0.001, keys_cooldown=0.001), path)
    assert await found(keys, "ed-1") == ["ed-1"]
    path.write_bytes(jwks(entry("ed-2")))
    async with asyncio.timeout(5):
        while await found(keys, "ed-2") != ["ed-2"]:
            pass
    path.unlink()
    async with asyncio.timeout(5):
        while not keys._set.is_failing:
            assert await found(keys, "ed-2") == ["ed-2"]
    for data, where in ((b"{}", "not a key set"), (jwks(), "no key"), (jwks(entry("short-1")), "no key"), (None, "No such file")):
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ConfigError, match=where):
            from_file(config(), path)
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match=f"more than {MAX_BYTES} bytes"):
        from_file(config(), path)


@asynccontextmanager
async def fetcher() -> AsyncGenerator[Fetcher, None]:
    made = Fetcher()
    try:
        yield made
    finally:
        await made.close()


async def test_a_url_is_asked_for_keys() -> None:
    """Keys are fetched from a URL with no more headers than HTTP needs."""
    async with OddUpstream() as server, fetcher() as client:
        server.default = [answer(jwks(entry("ed-1")))]
        keys = from_url(config(), f"{server.base_url}/jwks?of=corp", client)
        assert await found(keys, "ed-1") == ["ed-1"]
        (request,) = server.requests
    assert request.path == "/v1/jwks?of=corp"
    assert set(request.headers) == {"host", "accept", "accept-encoding", "user-agent"}


GOOD = jwks(entry("ed-1"))


@pytest.mark.parametrize(
    "steps",
    [
        [answer(GOOD, "500 Internal Server Error")],
        [answer(GOOD, "404 Not Found")],
        [answer(GOOD, "204 No Content")],
        [answer(GOOD, "302 Found", "text/plain", "location: /v1/jwks")],
        [answer(GOOD, "307 Temporary Redirect", "text/plain", "location: http://169.254.169.254/")],
        [answer(b"<html>login</html>", "200 OK", "text/html")],
        [answer(GOOD[:-2])],
        [answer(GOOD[:-1] + b', "pad": "' + b"x" * MAX_BYTES + b'"}')],
        [head(content_type="application/json"), *[chunk(b" " * 65536)] * 5, HANG],
        [answer(GOOD)[:-5], CUT],
        [head(content_type="application/json"), chunk(GOOD), CUT],
        [b"HTTP/1.1 200 OK\r\n", HANG],
        [b"SSH-2.0-OpenSSH_9.2\r\n", HANG],
        [RESET],
        [CUT],
        [HANG],
    ],
)
async def test_a_url_that_gives_no_key_set_makes_the_issuer_unavailable(steps: Any) -> None:
    """A failed request for the key set gives `IdentityUnavailable` and a log line with the reason.

    The failures are an error status, a redirect, which is not followed, a large or malformed body, a cut and silence.
    """
    async with OddUpstream() as server, fetcher() as client:
        server.default = steps
        keys = from_url(config(timeout=0.3), f"{server.base_url}/jwks", client)
        with capture_logs() as logs:
            await unavailable(keys)
            await unavailable(keys)
        assert len(server.requests) <= 2, "aiohttp asks again by itself where the connection was dropped"
        await keys.close()
    (line,) = logs
    assert line["event"] == "issuer_keys_not_read"
    assert line["error"]
    assert "127.0.0.1" not in str(line)


@asynccontextmanager
async def provider(**document: Any) -> AsyncGenerator[tuple[str, list[str]], None]:
    """Run a server with a discovery document, whose fields `document` replaces, and a key set.

    Yield its URL and the list of requested paths.
    """
    paths: list[str] = []

    async def discovery(request: web.Request) -> web.Response:
        paths.append(request.path)
        usual = {"issuer": url, "jwks_uri": f"{url}/keys"}
        fields = {name: value.format(url=url) if isinstance(value, str) else value for name, value in (usual | document).items()}
        return web.json_response(fields)

    async def keys(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(body=GOOD)

    app = web.Application()
    app.router.add_get("/tenant/.well-known/openid-configuration", discovery)
    app.router.add_get("/tenant/keys", keys)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/tenant"
    try:
        yield url, paths
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("slash", ["", "/"])
async def test_discovery_leads_to_the_keys(slash: str) -> None:
    """The discovery document is read below the issuer's path. A slash at the end of the issuer is not doubled in the URL."""
    async with provider(issuer="{url}" + slash) as (url, paths), fetcher() as client:
        keys = from_discovery(config(issuer=url + slash), client)
        assert await found(keys, "ed-1") == ["ed-1"]
        assert paths == ["/tenant/.well-known/openid-configuration", "/tenant/keys"]


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "{url}/"},
        {"issuer": "https://evil.test"},
        {"issuer": None},
        {"issuer": ["{url}"]},
        {"jwks_uri": None},
        {"jwks_uri": 5},
        {"jwks_uri": ""},
        {"jwks_uri": "/tenant/keys"},
        {"jwks_uri": "http://id.test/keys"},
        {"jwks_uri": "http://169.254.169.254/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user:password@127.0.0.1/keys"},
    ],
)
async def test_a_document_that_is_not_the_issuers_leads_nowhere(document: dict[str, Any]) -> None:
    """A discovery document is refused unless its `issuer` is exactly the configured one and its `jwks_uri` is a safe URL."""
    async with provider(**document) as (url, paths), fetcher() as client:
        keys = from_discovery(config(issuer=url), client)
        with capture_logs() as logs:
            await unavailable(keys)
        assert paths == ["/tenant/.well-known/openid-configuration"]
    assert "test" not in json.dumps(logs)
