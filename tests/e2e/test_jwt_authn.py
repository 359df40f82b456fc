"""Tokens that Envoy itself refuses before the server, in each dialect's format; everything else passes."""

import asyncio
import io
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import httpx2
import pytest
import pytest_asyncio
from aiohttp import web

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.certificates import Authority
from tests.e2e.conftest import KEY, READY, Gateway
from tests.e2e.identity import IdentityProvider
from tests.ports import free_port
from tests.unit.auth import signer
from tests.waiting import until

AUDIENCE = "antiphon"
DOTTED_KEY = "a.static.key"
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
GONE = "http://127.0.0.1:9"
"""An issuer that cannot be reached."""
REFUSED = "The token is not valid."
OPENAI_ERROR = {"message": REFUSED, "type": "authentication_error", "param": None, "code": None}
OPENAI_BODY = {"detail": REFUSED, "error": OPENAI_ERROR}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def idp(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[IdentityProvider, None]:
    started = IdentityProvider(tmp_path_factory.mktemp("idp") / "config", free_port(), AUDIENCE)
    yield await asyncio.to_thread(started.wait)
    started.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(idp: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway with two issuers, one of which cannot be reached, and two keys."""
    keys = {"audience": AUDIENCE, "keys_cooldown": 0.2, "keys_ttl": 0.5}
    address = f"127.0.0.1:{free_port()}"
    config = {
        "providers": {"echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0}},
        "rest": {"listen": address, "jwt_authn": True},
        "log": {"level": "debug"},
        "auth": {
            "keys": [{"name": "test", "key_env": "TEST_KEY"}, {"name": "dotted", "key_env": "DOTTED_KEY"}],
            "tokens": [
                {"name": "corp", "issuer": idp.url, "jwks_url": f"{idp.url}/.well-known/jwks.json", **keys},
                {"name": "gone", "issuer": GONE, "jwks_url": f"{GONE}/keys", **keys},
            ],
        },
    }
    folder = tmp_path_factory.mktemp("guarded")
    started = Gateway(folder, config, DOTTED_KEY=DOTTED_KEY)
    started.rest, started.url = address, f"http://{address}/api/v1"
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.output_text
    for token in idp.issued:
        assert not any(part in started.output_text for part in token.split("."))


async def ask(gateway: Gateway, credential: str, path: str = "/chat/completions", **headers: str) -> httpx2.Response:
    async with gateway.client(headers={"authorization": f"Bearer {credential}", **headers}) as http:
        return await http.post(path, json=HELLO)


def by_envoy(gateway: Gateway, response: httpx2.Response) -> bool:
    """Return whether Envoy refused the call, so that the server has no log line for it."""
    return not any(
        response.headers["x-request-id"] in line and '"logger":"envoy.access"' not in line
        for line in gateway.output_text.splitlines()
    )


def invalid_tokens(token: str) -> dict[str, str]:
    """Return invalid tokens made from a valid one, by what is wrong with them."""
    head, payload, signature = token.split(".")
    return {
        "another signature": f"{head}.{payload}.{signature[:-8]}AAAAAAAA",
        "no signature": f"{head}.{payload}.",
        "another payload": f"{head}.{payload[:-4]}AAAA.{signature}",
        "no payload": f"{head}.e30.{signature}",
        "an unknown issuer": signer.sign(signer.claims(iss="https://nobody.test"), "oct-1", "HS256"),
    }


async def test_a_good_token_passes(guarded: Gateway, idp: IdentityProvider) -> None:
    """A valid token passes Envoy and the server, also after the issuer has a new key."""
    assert (await ask(guarded, await asyncio.to_thread(idp.access_token, "ann"))).status_code == 200
    await asyncio.to_thread(idp.rotate)
    token = await asyncio.to_thread(idp.access_token, "ann")

    async def good() -> bool:
        return (await ask(guarded, token)).status_code == 200

    await until(good)  # once the server may ask the issuer again


@pytest.mark.parametrize("credential", [KEY, DOTTED_KEY])
async def test_a_key_passes(guarded: Gateway, credential: str) -> None:
    """An API key passes, also one with dots in it, and with any case of the scheme."""
    assert (await ask(guarded, credential)).status_code == 200
    async with guarded.client(headers={"authorization": f"bearer {credential}"}) as http:
        assert (await http.post("/chat/completions", json=HELLO)).status_code == 200


@pytest.mark.parametrize("kind", ["another signature", "no signature", "another payload", "no payload", "an unknown issuer"])
async def test_a_bad_token_is_refused_by_envoy(guarded: Gateway, idp: IdentityProvider, kind: str) -> None:
    """Envoy refuses an invalid token with 401 and the headers that a client needs, without the reason."""
    token = invalid_tokens(await asyncio.to_thread(idp.access_token, "ann"))[kind]
    response = await ask(guarded, token)
    assert (response.status_code, response.json()) == (401, OPENAI_BODY)
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-should-retry"] == "false"
    assert by_envoy(guarded, response)


@pytest.mark.parametrize("odd", ["bearer {}", "Bearer  {}", "BEARER {}", "Bearer {}, Bearer sk-x"])
async def test_what_envoy_does_not_look_at_the_server_does(guarded: Gateway, idp: IdentityProvider, odd: str) -> None:
    """An unusual spelling of the header passes Envoy, but the server refuses it."""
    token = invalid_tokens(await asyncio.to_thread(idp.access_token, "ann"))["another signature"]
    async with guarded.client(headers={"authorization": odd.format(token)}) as http:
        assert (await http.post("/chat/completions", json=HELLO)).status_code == 401


async def test_no_credential_is_the_servers_to_refuse(guarded: Gateway) -> None:
    """Envoy does not require a token, nor read one from the query. The server refuses the call."""
    async with httpx2.AsyncClient(base_url=guarded.url, trust_env=False) as http:
        for path in ("/chat/completions", "/chat/completions?access_token=eyJhbGciOiJub25lIn0.e30."):
            response = await http.post(path, json=HELLO)
            assert response.status_code == 401
            assert not by_envoy(guarded, response)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", OPENAI_BODY),
        ("/models", OPENAI_BODY),
        ("/../../v1/chat/completions", OPENAI_BODY),
        ("/../../v1/models/echo", OPENAI_BODY),
        ("/ai/chat", {"error": "Unauthorized", "message": REFUSED, "code": 401}),
        ("/chat/generate", {"message": REFUSED}),
        ("/chat/history", {"message": REFUSED}),
        ("/../engine/chat/echo", {"detail": REFUSED}),
        (
            "/proxy/default/sk-x/chat/completions",
            {"error": {"message": REFUSED, "type": "authentication_error", "param": None, "code": None}},
        ),
        (
            "/proxy/default/v1beta/models/gemini:generateContent",
            {"error": {"message": REFUSED, "code": 401, "status": "UNAUTHENTICATED"}},
        ),
    ],
)
async def test_a_refusal_has_the_shape_of_its_dialect(
    guarded: Gateway, idp: IdentityProvider, path: str, body: dict[str, Any]
) -> None:
    """Envoy's refusal has the same format as the server's."""
    token = invalid_tokens(await asyncio.to_thread(idp.access_token, "ann"))["another signature"]
    url = f"http://{guarded.rest}/api/engine/chat/echo" if "engine" in path else path
    response = await ask(guarded, token, url)
    assert (response.status_code, response.json()) == (401, body)
    assert response.headers["www-authenticate"] == "Bearer"
    assert by_envoy(guarded, response)


async def test_a_refusal_over_grpc_is_a_status(guarded: Gateway, idp: IdentityProvider) -> None:
    """Over gRPC Envoy's refusal is a status."""
    token = invalid_tokens(await asyncio.to_thread(idp.access_token, "ann"))["another signature"]
    request = chat_pb2.GenerateRequest(
        model="echo", messages=[message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hi"))])]
    )
    async with grpc.aio.insecure_channel(guarded.rest) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await chat_pb2_grpc.ChatServiceStub(channel).Generate(request, metadata=[("authorization", f"Bearer {token}")])
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, REFUSED)


async def test_an_unreachable_issuer_affects_only_its_own_tokens(guarded: Gateway, idp: IdentityProvider) -> None:
    """Tokens of an unreachable issuer are refused without delay, while keys and other issuers' tokens still work."""
    async with asyncio.timeout(5):
        assert (await ask(guarded, signer.sign(signer.claims(iss=GONE)))).status_code == 401
    assert (await ask(guarded, await asyncio.to_thread(idp.access_token, "ann"))).status_code == 200
    assert (await ask(guarded, KEY)).status_code == 200


@pytest.mark.parametrize(
    ("good", "size", "status"),
    [(True, MAX_MESSAGE_BYTES + 1, 413), (False, MAX_MESSAGE_BYTES + 1, 401), (True, MAX_MESSAGE_BYTES - 4096, 422)],
)
async def test_the_bound_of_a_body_holds(guarded: Gateway, idp: IdentityProvider, good: bool, size: int, status: int) -> None:
    """The limit of the body's size is the same with token checks. With a bad token the body is not read at all."""
    token = await asyncio.to_thread(idp.access_token, "ann")
    headers = {
        "Authorization": f"Bearer {token if good else invalid_tokens(token)['another signature']}",
        "Content-Type": "application/json",
    }
    body = io.BytesIO(b'"' + b"x" * (size - 2) + b'"')
    async with aiohttp.ClientSession() as http, http.post(f"{guarded.url}/chat/completions", data=body, headers=headers) as answer:
        assert answer.status == status


@pytest.mark.slow
@pytest.mark.parametrize("others", [(), (GONE,)])
async def test_a_key_that_envoy_has_not_read_is_the_servers_to_judge(tmp_path: Path, others: tuple[str, ...]) -> None:
    """A token signed with the issuer's new key is accepted at once. Envoy still refuses tokens that are invalid otherwise."""
    published = ["ec-1"]

    async def keys(request: web.Request) -> web.Response:
        return web.Response(body=signer.jwks(*map(signer.entry, published)), content_type="application/json")

    application = web.Application()
    application.router.add_get("/keys", keys)
    runner = web.AppRunner(application)
    await runner.setup()
    port, address = free_port(), f"127.0.0.1:{free_port()}"
    await web.TCPSite(runner, "127.0.0.1", port).start()
    usual = {"audience": AUDIENCE, "keys_ttl": 3600, "keys_cooldown": 0.01}
    issuers = [{"name": f"o{number}", "issuer": url, "jwks_url": f"{url}/keys", **usual} for number, url in enumerate(others)]
    issuers.append({"name": "corp", "issuer": signer.ISSUER, "jwks_url": f"http://127.0.0.1:{port}/keys", **usual})
    config = {
        "providers": {"echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0}},
        "rest": {"listen": address, "jwt_authn": True},
        "auth": {"tokens": issuers},
        "log": {"level": "debug"},
    }
    gateway = Gateway(tmp_path, config)
    gateway.rest, gateway.url = address, f"http://{address}/api/v1"
    old, new = (signer.sign(signer.claims(), name, "ES256") for name in ("ec-1", "ec-2"))
    try:
        await asyncio.to_thread(gateway.wait_for, READY)
        assert (await ask(gateway, old)).status_code == 200
        unknown = await ask(gateway, new)
        assert (unknown.status_code, by_envoy(gateway, unknown)) == (401, False)
        published[:] = ["ec-2"]
        assert (await ask(gateway, new)).status_code == 200
        for bad in (
            invalid_tokens(old)["another signature"],
            invalid_tokens(old)["an unknown issuer"],
            signer.sign(signer.claims(exp=1), "ec-1", "ES256"),
            signer.sign(signer.claims(exp=1), "ec-2", "ES256"),
        ):
            refused = await ask(gateway, bad)
            assert (refused.status_code, refused.json(), by_envoy(gateway, refused)) == (401, OPENAI_BODY, True)
        forged = await ask(gateway, invalid_tokens(new)["another signature"])
        body = {**OPENAI_BODY, "error": {**OPENAI_ERROR, "code": "unauthenticated"}}
        assert (forged.status_code, forged.json(), by_envoy(gateway, forged)) == (401, body, False)
    finally:
        assert await asyncio.to_thread(gateway.stop) == 0
        await runner.cleanup()


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [True, False])
async def test_keys_are_read_over_tls(tmp_path: Path, trusted: bool) -> None:
    """Envoy reads an issuer's keys over TLS only from a host that the system's authorities trust."""
    authority = Authority()
    authority.issue("localhost").write(tmp_path, "issuer")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "issuer.crt", tmp_path / "issuer.key")
    fetches = []

    async def keys(request: web.Request) -> web.Response:
        fetches.append(request)
        return web.Response(body=signer.jwks(signer.entry("ec-1")), content_type="application/json")

    application = web.Application()
    application.router.add_get("/keys", keys)
    runner = web.AppRunner(application)
    await runner.setup()
    port, address = free_port(), f"127.0.0.1:{free_port()}"
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    (authority if trusted else Authority()).write(tmp_path / "ca.crt")
    config = {
        "providers": {"echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0}},
        "rest": {"listen": address, "jwt_authn": True},
        "auth": {
            "tokens": [
                {"name": "corp", "issuer": signer.ISSUER, "audience": AUDIENCE, "jwks_url": f"https://localhost:{port}/keys"}
            ]
        },
    }
    gateway = Gateway(tmp_path, config, SSL_CERT_FILE=str(tmp_path / "ca.crt"))
    gateway.rest, gateway.url = address, f"http://{address}/api/v1"
    try:
        await asyncio.to_thread(gateway.wait_for, READY)
        response = await ask(gateway, signer.sign(signer.claims(), "ec-1", "ES256"))
        assert response.status_code == (200 if trusted else 401), response.text
        assert len(fetches) == (2 if trusted else 0)
    finally:
        assert await asyncio.to_thread(gateway.stop) == 0
        await runner.cleanup()
