"""Tests of outbound connections with a real HTTP proxy and a TLS host of a private authority."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
import structlog
from yarl import URL

from antiphon.config import ConfigError, OutboundConfig
from antiphon.domain.errors import PermissionDenied, ProviderError, ProviderUnavailable
from antiphon.net import outbound
from antiphon.net.client import Client
from antiphon.net.fetch import Fetcher, FetchFailed
from antiphon.net.outbound import DIRECT, Outbound, ProxyResolver
from tests.certificates import Authority, replace
from tests.odd_upstream import OddUpstream, answer
from tests.outbound_proxy import OutboundProxy
from tests.ports import free_port

NAME = "models.test"
"""A name that only the proxy can resolve."""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutboundProxy]:
    with OutboundProxy(tmp_path_factory.mktemp("proxy")) as started:
        yield started


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def host(authority: Authority, tmp_path: Path) -> AsyncIterator[OddUpstream]:
    """Run a host with a certificate of `authority` for its name and address."""
    async with OddUpstream(authority.issue(NAME, "127.0.0.1").context(tmp_path)) as started:
        started.default = [answer(b"hats")]
        yield started


@pytest.fixture
async def plain() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as started:
        started.default = [answer(b"hats")]
        yield started


def settings_for(tmp_path: Path, *, proxy: str | None = None, authority: Authority | None = None) -> Outbound:
    """Return the outbound settings as they are built from a configuration."""
    config = OutboundConfig(
        proxy_env=None if proxy is None else "PROXY_URL",
        ca=None if authority is None else authority.write(tmp_path / "ca.pem"),
    )
    return outbound.build("providers.acme", config, {"PROXY_URL": proxy or ""})


async def ask(settings: Outbound, *urls: str) -> list[bytes]:
    client = Client(connect_timeout=5, read_timeout=5, keep_alive=5, outbound=settings)
    try:
        return [await (await client.post("acme", URL(url), {"x-key": "k"}, b"{}")).read() for url in urls]
    finally:
        await client.close()


async def failure(settings: Outbound, url: str) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        await ask(settings, url)
    return raised.value


async def test_https_is_tunnelled_by_the_proxy_which_looks_the_name_up(
    proxy: OutboundProxy, authority: Authority, host: OddUpstream, tmp_path: Path
) -> None:
    """HTTPS goes through a tunnel that is reused: the proxy resolves the name and gets the password, and the host does not."""
    url = f"https://{NAME}:{host.port}/v1/x"
    before = len(proxy.requests)
    assert await ask(settings_for(tmp_path, proxy=proxy.url_with_password, authority=authority), url, url) == [b"hats", b"hats"]
    assert proxy.requests[before:] == [f"CONNECT {NAME}:{host.port}"]
    assert host.connections == 1
    for request in host.requests:
        assert request.headers == {"host": f"{NAME}:{host.port}", "x-key": "k", "content-length": "2"}


async def test_plain_http_is_sent_to_the_proxy_with_its_password(proxy: OutboundProxy, plain: OddUpstream, tmp_path: Path) -> None:
    """Plain HTTP is sent to the proxy with its password, which the host does not get."""
    before = len(proxy.requests)
    assert await ask(settings_for(tmp_path, proxy=proxy.url_with_password), f"http://{NAME}:{plain.port}/v1/x") == [b"hats"]
    assert proxy.requests[before:] == [f"POST {NAME}:{plain.port}"]
    assert "proxy-authorization" not in plain.requests[0].headers
    assert plain.requests[0].headers["x-key"] == "k"


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_a_refusing_proxy_is_logged_without_the_password(
    proxy: OutboundProxy, tmp_path: Path, capfd: pytest.CaptureFixture[str], scheme: str
) -> None:
    """If the proxy refuses its password, the call raises `ProviderUnavailable`. The reason is logged without the password."""
    wrong = proxy.url_with_password.replace("secret", "wr0ng-secret")
    with structlog.testing.capture_logs() as lines:
        error = await failure(settings_for(tmp_path, proxy=wrong), f"{scheme}://{NAME}:4433/")
    assert isinstance(error, ProviderUnavailable)
    assert error.status is None, "it is of the class of those that cannot be connected to"
    assert [line["error"] for line in lines] == ["the outbound proxy does not take its user and password (407)"]
    output = f"{error!r} {error.__cause__!r} {lines!r}"
    assert "wr0ng" not in output
    assert "Basic" not in output


async def test_a_proxy_that_is_not_there(plain: OddUpstream, tmp_path: Path) -> None:
    """If the proxy is unavailable, the host is not connected to directly."""
    with structlog.testing.capture_logs() as lines:
        error = await failure(settings_for(tmp_path, proxy=f"http://127.0.0.1:{free_port()}"), plain.base_url)
    assert isinstance(error, ProviderUnavailable)
    assert lines[0]["error"] == "the outbound proxy is out of reach: Connection refused"
    assert not plain.requests


async def test_only_the_proxys_name_is_resolved() -> None:
    """With a proxy, only the proxy's name is resolved, so that no direct connection is possible."""
    resolver = ProxyResolver("localhost")
    assert set(await resolver.resolve("localhost", 3128)) <= {"127.0.0.1", "::1"}
    with pytest.raises(PermissionDenied):
        await resolver.resolve(NAME, 3128)
    client = Client(connect_timeout=5, read_timeout=5, keep_alive=1, outbound=Outbound(URL("http://proxy.test:1")))
    assert client._resolver is not None
    with pytest.raises(PermissionDenied):
        await client._resolver.resolve("localhost", 80)


async def test_proxies_of_the_environment_are_not_used(plain: OddUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither HTTP client uses proxies of the environment."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for written in (name, name.lower()):
            monkeypatch.setenv(written, f"http://127.0.0.1:{free_port()}")
    assert await ask(DIRECT, plain.base_url) == [b"hats"]
    fetcher = Fetcher()
    assert await fetcher.get(httpx2.URL(plain.base_url), {}, 100) == b"hats"
    await fetcher.close()


async def test_a_certificate_of_no_authority_that_is_trusted(host: OddUpstream, tmp_path: Path) -> None:
    """An untrusted certificate raises a `ProviderUnavailable` that is not retryable. It is logged once."""
    for outbound_ in (DIRECT, settings_for(tmp_path, authority=Authority("Another CA"))):
        with structlog.testing.capture_logs() as lines:
            error = await failure(outbound_, f"https://127.0.0.1:{host.port}/")
        assert isinstance(error, ProviderUnavailable)
        assert error.message == "The provider acme shows a certificate that is not trusted."
        assert not error.retryable
        assert len(lines) == 1
        assert "is not trusted" in lines[0]["error"]
    assert not host.requests


async def test_the_authorities_are_read_again_when_the_file_changes(
    host: OddUpstream, authority: Authority, tmp_path: Path
) -> None:
    """A changed authority file holds for the next request, even on an open connection."""
    chosen = settings_for(tmp_path, authority=authority)
    url = URL(f"https://127.0.0.1:{host.port}/")
    client = Client(connect_timeout=5, read_timeout=5, keep_alive=5, outbound=chosen)
    assert await (await client.post("acme", url, {}, b"")).read() == b"hats"
    replace(tmp_path / "ca.pem", Authority("Another CA").pem)
    with pytest.raises(ProviderUnavailable, match="not trusted"):
        await client.post("acme", url, {}, b"")
    replace(tmp_path / "ca.pem", b"half a fi")
    with pytest.raises(ProviderUnavailable, match="not trusted"):
        await client.post("acme", url, {}, b"")
    replace(tmp_path / "ca.pem", authority.pem)
    assert await (await client.post("acme", url, {}, b"")).read() == b"hats"
    await client.close()


async def test_documents_use_the_same_proxy_and_authority(
    proxy: OutboundProxy, authority: Authority, host: OddUpstream, tmp_path: Path
) -> None:
    """Fetched documents, such as an issuer's keys, use the same proxy and authority; errors do not have the password."""
    fetcher = Fetcher()
    url = httpx2.URL(f"https://{NAME}:{host.port}/keys")
    before = len(proxy.requests)
    chosen = settings_for(tmp_path, proxy=proxy.url_with_password, authority=authority)
    assert await fetcher.get(url, {}, 100, chosen) == b"hats"
    assert proxy.requests[before:] == [f"CONNECT {NAME}:{host.port}"]
    for broken, expected in (
        (settings_for(tmp_path, proxy=proxy.url_with_password, authority=Authority()), "the certificate is not trusted"),
        (settings_for(tmp_path, proxy=proxy.url_with_password.replace("secret", "wrong")), "the outbound proxy refuses"),
    ):
        with pytest.raises(FetchFailed, match=expected) as raised:
            await fetcher.get(url, {}, 100, broken)
        assert "wrong" not in str(raised.value)
    await fetcher.close()


@pytest.mark.parametrize(
    "written",
    [
        "proxy:3128",
        "socks5://proxy:1080",
        "http://proxy",
        "http://proxy:99999",
        "http://user:hunter2@proxy:no",
        "http://u:hunter2@proxy:1/path",
        "http://:3128",
        "http://proxy:1?a=hunter2",
    ],
)
def test_a_url_that_is_no_proxys_is_refused(written: str) -> None:
    """An invalid proxy URL is a `ConfigError` that names the setting and does not repeat the URL."""
    with pytest.raises(ConfigError, match=r"^providers\.acme\.proxy: must be a URL") as raised:
        outbound.build("providers.acme", OutboundConfig(proxy_env="P"), {"P": written})
    assert "hunter2" not in str(raised.value)


def test_a_password_is_not_for_the_file() -> None:
    """A proxy password in the configuration file is refused; it must come from a variable or a file."""
    with pytest.raises(ConfigError, match="must not hold a password") as raised:
        outbound.build("proxy", OutboundConfig(proxy="http://u:hunter2@proxy:1"), {})
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(OutboundConfig(proxy="http://u:hunter2@proxy:1"))
    assert outbound.build("proxy", OutboundConfig(), {}) is DIRECT


def test_url_and_repr_have_no_password() -> None:
    """Neither the proxy's URL nor `repr` has the password; only the authorization header does."""
    made = Outbound(URL("http://proxy:3128").with_user("user").with_password("hunter2"))
    assert str(made.proxy) == "http://proxy:3128"
    assert made.authorization == "Basic dXNlcjpodW50ZXIy"
    assert "hunter2" not in repr(made)


async def test_a_proxy_that_speaks_tls_itself(authority: Authority, host: OddUpstream, tmp_path: Path) -> None:
    """A proxy with TLS is checked with the same authorities, and the host's TLS is inside that of the proxy."""
    certificate, key = authority.issue("localhost").write(tmp_path, "proxy")
    (tmp_path / "proxy").mkdir()
    with OutboundProxy(tmp_path / "proxy", "--cert-file", str(certificate), "--key-file", str(key)) as proxy:
        secure = proxy.url_with_password.replace("http:", "https:").replace("127.0.0.1", "localhost")
        url = f"https://{NAME}:{host.port}/"
        chosen = settings_for(tmp_path, proxy=secure, authority=authority)
        assert await ask(chosen, url, url) == [b"hats", b"hats"]
        fetcher = Fetcher()
        assert await fetcher.get(httpx2.URL(url), {}, 100, chosen) == b"hats"
        await fetcher.close()
        assert proxy.requests == [f"CONNECT {NAME}:{host.port}"] * 2
        assert isinstance(await failure(settings_for(tmp_path, proxy=secure), url), ProviderUnavailable)
