"""A gateway that reaches hosts with a private certificate authority through an outbound proxy: providers, targets, an issuer."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.certificates import Authority
from tests.e2e.conftest import KEY, PROVIDER_KEY, READY, Gateway
from tests.odd_upstream import OddUpstream, answer, delta, sse
from tests.outbound_proxy import OutboundProxy

REPLY = {
    "id": "chatcmpl-odd",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "odd-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hats"}, "finish_reason": "stop"}],
}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
SIGNER = ECKey.generate_key("P-256", parameters={"kid": "one", "alg": "ES256", "use": "sig"})


class Away(NamedTuple):
    """A gateway, its outbound proxy, and the hosts behind that."""

    gateway: Gateway
    proxy: OutboundProxy
    host: OddUpstream
    issuer: OddUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def away(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Away, None]:
    folder: Path = tmp_path_factory.mktemp("away")
    authority = Authority()
    tls = authority.issue("models.test", "issuer.test", "127.0.0.1").context(folder)
    right = {"proxy_env": "PROXY_URL", "ca": str(authority.write(folder / "ca.pem"))}
    wrong = {"ca": str(Authority("Another CA").write(folder / "other.pem"))}
    async with OddUpstream(tls) as host, OddUpstream(tls) as issuer:
        host.default = [answer(REPLY)]
        host.script("streamed", [answer(sse(delta("ha"), delta("ts", "stop"), "[DONE]"), "200 OK", "text/event-stream")])
        issuer.default = [answer({"keys": [SIGNER.as_dict(private=False)]})]
        with OutboundProxy(folder) as proxy:
            url = f"https://models.test:{host.port}/v1"
            config: dict[str, Any] = {
                "providers": {
                    "away": {"base_url": url, "api_key_env": "TEST_PROVIDER_KEY", "models": ["away", "streamed"], **right},
                    "untrusted": {"base_url": host.base_url, "models": ["untrusted"], **wrong},
                    "refused": {"base_url": url, "models": ["refused"], **right, "proxy_env": "WRONG_PROXY_URL"},
                },
                "proxy": {"allow": [url], **right},
                "auth": {
                    "keys": [{"name": "test", "key_env": "TEST_KEY"}],
                    "tokens": [
                        {
                            "name": "idp",
                            "issuer": "https://issuer.test",
                            "audience": "antiphon",
                            "jwks_url": f"https://issuer.test:{issuer.port}/keys",
                            **right,
                        }
                    ],
                },
                "log": {"level": "debug"},
            }
            secrets = {"PROXY_URL": proxy.url_with_password, "WRONG_PROXY_URL": proxy.url_with_password.replace("secret", "wr0ng")}
            started = Gateway(folder, config, **secrets)
            await asyncio.to_thread(started.wait_for, READY)
            yield Away(started, proxy, host, issuer)
            assert await asyncio.to_thread(started.stop) == 0
    for secret in (proxy.PASSWORD, "p%40ssword", "pr0xy", "wr0ng", "Basic ", KEY, PROVIDER_KEY):
        assert secret not in started.output_text
    assert "call_failed" not in started.output_text


async def test_a_model_behind_the_proxy(away: Away) -> None:
    """A provider behind the proxy answers, whole and streamed, and gets its own key and none of the proxy's headers."""
    async with away.gateway.client() as http:
        answered = await http.post("/chat/completions", json={"model": "away", **CHAT})
        assert answered.status_code == 200, answered.text
        assert answered.json()["choices"][0]["message"]["content"] == "hats"
        streamed = await http.post("/chat/completions", json={"model": "streamed", "stream": True, **CHAT})
    pieces = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces) == "hats"
    assert f"CONNECT models.test:{away.host.port}" in away.proxy.requests
    assert all("proxy-authorization" not in request.headers for request in away.host.requests)
    assert away.host.requests[-1].headers["authorization"] == f"Bearer {PROVIDER_KEY}"


async def test_a_target_behind_the_proxy(away: Away) -> None:
    """A proxied request goes through the outbound proxy too, which also resolves the target's name."""
    async with away.gateway.client() as http:
        target = quote(f"https://models.test:{away.host.port}/v1", safe="")
        answered = await http.post(f"/proxy/{target}/sk-own/chat/completions", json={"model": "x", **CHAT})
    assert answered.status_code == 200, answered.text
    assert answered.json() == REPLY


async def test_a_host_that_is_not_trusted_is_one_clear_failure(away: Away) -> None:
    """An untrusted certificate gives 502 without a retry and one log line, and the host gets no request."""
    before = len(away.host.requests)
    async with away.gateway.client() as http:
        answered = await http.post("/chat/completions", json={"model": "untrusted", **CHAT})
    assert answered.status_code == 502, answered.text
    assert answered.json()["error"]["message"] == "The provider untrusted shows a certificate that is not trusted."
    assert answered.headers["x-should-retry"] == "false"
    assert len(away.host.requests) == before
    lines = [line for line in away.gateway.output_text.splitlines() if "provider_out_of_reach" in line and "untrusted" in line]
    assert len(lines) == 1
    assert "certificate of 127.0.0.1 is not trusted" in lines[0]


async def test_a_proxy_that_refuses_is_a_bad_gateway(away: Away) -> None:
    """If the outbound proxy refuses, the caller gets 502. The log has the reason, without the proxy's URL."""
    async with away.gateway.client() as http:
        answered = await http.post("/chat/completions", json={"model": "refused", **CHAT})
    assert answered.status_code == 502, answered.text
    assert str(away.proxy.port) not in answered.text
    assert "the outbound proxy does not take its user and password (407)" in away.gateway.output_text


async def test_an_issuers_keys_are_fetched_by_the_proxy(away: Away) -> None:
    """An issuer's keys are fetched through the outbound proxy, so that its tokens are accepted."""
    claims = {"iss": "https://issuer.test", "aud": "antiphon", "sub": "somebody", "exp": int(time.time()) + 60}
    token = jwt.encode({"alg": "ES256", "kid": "one"}, claims, SIGNER)
    async with away.gateway.client(headers={"authorization": f"Bearer {token}"}) as http:
        answered = await http.post("/chat/completions", json={"model": "away", **CHAT})
    assert answered.status_code == 200, answered.text
    assert f"CONNECT issuer.test:{away.issuer.port}" in away.proxy.requests
