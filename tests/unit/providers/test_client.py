"""Tests of the credentials of a provider's call, and of how its failure is told."""

import asyncio
import hashlib
import hmac
from functools import partial

import pytest
import structlog
from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from antiphon.config import ProviderConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ProviderCredentials, ProviderError, ProviderUnavailable
from antiphon.domain.request import ChatRequest
from antiphon.net.http import Transport
from antiphon.providers.client import Credentials, HeaderAuth, Prepared, ProviderClient
from antiphon.providers.openai.request import encode
from antiphon.providers.openai.response import OpenAIReader
from tests.odd_upstream import LAST, OddUpstream, answer, chunk, head, sse

SENT = (URL("https://x.test/"), b"{}")


@pytest.mark.parametrize(("header", "value"), [("Authorization", "Bearer {}"), ("api-key", "{}")])
async def test_a_key_in_a_header(header: str, value: str) -> None:
    """The caller's own key replaces the gateway's for that call only. Both are listed as secrets to be hidden in the log."""
    auth = HeaderAuth(header, "ours", CIMultiDict({"accept": "*/*"}), {"X-Org": "acme"}, ("of-the-url",))
    ours = await auth.credentials(*SENT, None)
    assert dict(ours.headers) == {"accept": "*/*", header.lower(): value.format("ours"), "x-org": "acme"}
    assert set(ours.secrets) == {"ours", "acme", "of-the-url"}
    theirs = await auth.credentials(*SENT, SecretStr("theirs"))
    assert theirs.headers[header] == value.format("theirs")
    assert set(theirs.secrets) == {"ours", "acme", "of-the-url", "theirs"}
    assert (await auth.credentials(*SENT, None)).headers[header] == value.format("ours")


async def test_without_a_key() -> None:
    """Without a key no header is sent for it. A configured header replaces any other of its name."""
    auth = HeaderAuth("authorization", None, CIMultiDict({"accept": "*/*"}), {"Accept": "text/plain"}, ())
    assert dict((await auth.credentials(*SENT, None)).headers) == {"accept": "text/plain"}


class SignedByToken:
    """Fetches a secret, and signs address and body with it, as hosts of other protocols want."""

    fixed = None

    def __init__(self, secrets: list[str]) -> None:
        """`secrets` are those that are fetched; none: it is refused."""
        self._secrets = secrets

    async def credentials(self, url: URL, body: bytes, own_key: SecretStr | None) -> Credentials:
        await asyncio.sleep(0)
        if not self._secrets:
            raise ProviderCredentials("No token.", provider="acme")
        secret = self._secrets.pop(0)
        signature = hmac.new(secret.encode(), str(url).encode() + body, hashlib.sha256).hexdigest()
        return Credentials(CIMultiDict({"x-token": secret, "x-signature": signature}), (secret,))

    async def replacement(self, refused: Credentials) -> Credentials | None:
        return None

    async def close(self) -> None:
        """Nothing is in progress."""


async def test_each_call_is_authorised_by_what_is_sent() -> None:
    """A token may be fetched, and what is signed is what goes out; where it is refused nothing goes out, and no log shows one."""
    request = ChatRequest("m", (Message(Role.USER, (Text("hello"),)),), stream=False)
    async with OddUpstream() as upstream:
        url = URL(f"{upstream.base_url}/chat/completions")
        upstream.default = [answer({"error": {"message": "token-1 and token-2 are bad"}}, "400 Bad Request")]
        transport = Transport("acme", ProviderConfig(base_url=upstream.base_url))
        client = ProviderClient("acme", transport, SignedByToken(["token-1", "token-2"]), url)

        def prepare(asked: ChatRequest) -> Prepared:
            return Prepared(url, encode(asked, "acme", stream_usage=False), partial(OpenAIReader, asked, "acme"))

        with structlog.testing.capture_logs() as logs:
            for number in (1, 2):
                with pytest.raises(ProviderError) as caught:
                    _ = [batch async for batch in client.stream(request, prepare)]
                assert f"token-{number}" not in str(caught.value)
                assert f"token-{number}" not in str(logs.pop())
            with pytest.raises(ProviderCredentials):
                _ = [batch async for batch in client.stream(request, prepare)]
        await client.close()
        assert len(upstream.requests) == 2
        for number, sent in enumerate(upstream.requests, 1):
            token = f"token-{number}"
            signature = hmac.new(token.encode(), str(url).encode() + sent.body, hashlib.sha256).hexdigest()
            assert (sent.headers["x-token"], sent.headers["x-signature"]) == (token, signature)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_failure_inside_an_answer_is_told_from_one_of_the_connection(streamed: bool) -> None:
    """An error without a status inside a 200 says that the provider was reached; a closed port does not."""
    request = ChatRequest("m", (Message(Role.USER, (Text("hello"),)),), stream=streamed)
    error = {"error": {"type": "overloaded_error", "message": "Overloaded"}}
    async with OddUpstream() as upstream:
        url = URL(f"{upstream.base_url}/chat/completions")
        upstream.default = [head(), chunk(sse(error)), LAST] if streamed else [answer(error)]
        auth = HeaderAuth("authorization", None, CIMultiDict(), {}, ())
        client = ProviderClient("acme", Transport("acme", ProviderConfig(base_url=upstream.base_url)), auth, url)

        def prepare(asked: ChatRequest) -> Prepared:
            return Prepared(url, encode(asked, "acme", stream_usage=False), partial(OpenAIReader, asked, "acme"))

        with pytest.raises(ProviderUnavailable) as inside:
            _ = [batch async for batch in client.stream(request, prepare)]
        await upstream.stop()
        with pytest.raises(ProviderUnavailable) as outside:
            _ = [batch async for batch in client.stream(request, prepare)]
        await client.close()
    assert (inside.value.was_reached, outside.value.was_reached) == (True, False)
