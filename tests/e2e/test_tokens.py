"""Tokens of identity providers as credentials, through the real Envoy: a third-party provider, and some that fail."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import httpx2
import pytest
import pytest_asyncio
import yaml
from llmock.testing import LLMockServer

from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY, READY, Gateway, configuration
from tests.e2e.identity import IdentityProvider
from tests.odd_upstream import HANG, LAST, OddUpstream, chunk, delta, head, sse
from tests.ports import free_port
from tests.unit.auth import signer
from tests.waiting import until

AUDIENCE = "antiphon"
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
SECRET_ISSUER = "https://shared.test"  # noqa: S105 - a name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def idp(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[IdentityProvider, None]:
    started = IdentityProvider(tmp_path_factory.mktemp("idp") / "config", free_port(), AUDIENCE)
    yield await asyncio.to_thread(started.wait)
    started.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mortal(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[IdentityProvider, None]:
    """Yield an identity provider that a test stops."""
    started = IdentityProvider(tmp_path_factory.mktemp("mortal") / "config", free_port(), AUDIENCE)
    yield await asyncio.to_thread(started.wait)
    started.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def silent() -> AsyncGenerator[OddUpstream, None]:
    """Yield an issuer that accepts requests and never answers."""
    async with OddUpstream() as server:
        server.default = [HANG]
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tokened(
    upstream: OddUpstream,
    llm: LLMockServer,
    idp: IdentityProvider,
    mortal: IdentityProvider,
    silent: OddUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway with five issuers."""
    usual = {"audience": AUDIENCE, "keys_cooldown": 0.2}
    issuers = [
        {"name": "corp", "issuer": idp.url, **usual, "admin": {"claim": "groups", "value": "llm-admins"}},
        {"name": "mortal", "issuer": mortal.url, **usual, "keys_ttl": 0.1},
        {"name": "silent", "issuer": silent.base_url, **usual, "keys_cooldown": 60, "timeout": 1},
        {"name": "gone", "issuer": f"http://127.0.0.1:{free_port()}", **usual, "keys_cooldown": 60},
        {"name": "shared", "issuer": SECRET_ISSUER, "audience": AUDIENCE, "secret_env": "TOKEN_SECRET"},
    ]
    more = {
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}], "tokens": issuers},
        "engine": {"own_key_providers": ["odd"]},
        "clients": {"acme": {"context": "Acme sells hats."}},
    }
    started = Gateway(tmp_path_factory.mktemp("tokens"), {**configuration(upstream, llm), **more}, TOKEN_SECRET=signer.SECRET)
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.output_text, "the server had an unexpected exception"
    for token in (*idp.issued, *mortal.issued):
        assert not any(part in started.output_text for part in token.split("."))
    assert signer.SECRET not in started.output_text
    assert "openid" not in started.output_text


def shared(**claims: Any) -> str:
    return signer.sign(signer.claims(iss=SECRET_ISSUER, **claims), "oct-1", "HS256")


def unknown_key_token(issuer: str) -> str:
    """Return a token signed with a key that the gateway has not read from this issuer."""
    return signer.sign(signer.claims(iss=issuer))


async def ask(gateway: Gateway, token: str, path: str = "/chat/completions", body: Any = HELLO) -> httpx2.Response:
    async with gateway.client(headers={"authorization": f"Bearer {token}"}) as http:
        return await http.post(path, json=body)


@pytest.mark.parametrize("user", [None, "ann"])
async def test_an_access_token_is_as_good_as_a_key(tokened: Gateway, idp: IdentityProvider, user: str | None) -> None:
    """An access token of a client or a user works like a key, with the SDK and streaming."""
    token = await asyncio.to_thread(idp.access_token, user)
    async with tokened.sdk(api_key=token) as sdk:
        stream = await sdk.chat.completions.create(stream=True, **HELLO)  # type: ignore[call-overload]
        assert "Hello" in "".join([part.choices[0].delta.content or "" async for part in stream if part.choices])


async def test_a_token_is_good_over_grpc_too(tokened: Gateway, idp: IdentityProvider) -> None:
    """A token works over gRPC without Envoy. An invalid one gets the same status and reason as an invalid key."""
    token = await asyncio.to_thread(idp.access_token, "ann")
    request = chat_pb2.GenerateRequest(
        model="echo", messages=[message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hi"))])]
    )
    async with grpc.aio.insecure_channel(tokened.grpc) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        assert await stub.Generate(request, metadata=[("authorization", f"Bearer {token}")])
        for bad in (token[:-8] + "AAAAAAAA", "sk-bad"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Generate(request, metadata=[("authorization", f"Bearer {bad}")])
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert b"UNAUTHENTICATED" in dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]


async def test_a_claim_makes_an_admin(tokened: Gateway, idp: IdentityProvider) -> None:
    """Only a user in the configured group is an admin."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "client_id": "acme", "model": "echo"}
    for user, status in (("boss", 200), ("ann", 403), (None, 403)):
        token = await asyncio.to_thread(idp.access_token, user)
        assert (await ask(tokened, token, "/ai/chat", body)).status_code == status


async def test_a_conversation_belongs_to_the_subject(tokened: Gateway, idp: IdentityProvider) -> None:
    """A conversation belongs to the token's subject. Other users, keys and issuers do not see it."""
    first, second, other = [await asyncio.to_thread(idp.access_token, user) for user in ("ann", "ann", "boss")]
    assert first != second
    async with grpc.aio.insecure_channel(tokened.grpc) as channel:
        stub = history_pb2_grpc.HistoryServiceStub(channel)

        async def titles(token: str) -> list[str]:
            found = await stub.ListConversations(
                history_pb2.ListConversationsRequest(), metadata=[("authorization", f"Bearer {token}")]
            )
            return [conversation.title for conversation in found.conversations]

        made = history_pb2.CreateConversationRequest(conversation=history_pb2.Conversation(title="Ann's own"))
        await stub.CreateConversation(made, metadata=[("authorization", f"Bearer {first}")])
        assert await titles(second) == ["Ann's own"]
        for stranger in (other, KEY, shared(sub="ann"), shared(sub="corp:ann")):
            assert await titles(stranger) == []


async def test_a_new_key_is_good_at_once_and_the_old_one_stays(tokened: Gateway, idp: IdentityProvider) -> None:
    """After the provider rotates its key, the first new token makes the gateway read the key set again. Old tokens stay valid."""
    old = await asyncio.to_thread(idp.access_token)
    assert (await ask(tokened, old)).status_code == 200
    for _ in range(2):
        await asyncio.to_thread(idp.rotate)
        new = await asyncio.to_thread(idp.access_token)

        async def good() -> bool:
            return (await ask(tokened, new)).status_code == 200  # noqa: B023 - awaited here

        await until(good)  # the keys may have been read within the cooldown
        assert (await ask(tokened, old)).status_code == 200


PATHS = [
    ("POST", "/api/v1/chat/completions"),
    ("GET", "/api/v1/models"),
    ("POST", "/api/v1/ai/chat"),
    ("POST", "/api/v1/chat"),
    ("POST", "/api/v1/chat/generate"),
    ("POST", "/api/v1/chat/generate/stream"),
    ("GET", "/api/v1/chat/history"),
    ("GET", "/api/v1/chat/fetch/x"),
    ("DELETE", "/api/v1/chat/x"),
    ("POST", "/api/v1/proxy/default/sk-x/chat/completions"),
    ("POST", "/api/v1/proxy/default/v1beta/models/gemini:generateContent"),
    ("POST", "/api/engine/chat/odd"),
    ("GET", "/api/engine/providers"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_a_bad_token_gets_the_answer_of_a_bad_key(tokened: Gateway, idp: IdentityProvider, method: str, path: str) -> None:
    """An invalid token gets the same answer as an invalid key on every path, before the body is looked at."""
    tokens = await asyncio.to_thread(idp.tokens, "ann")
    access: str = tokens["access_token"]
    header, body, _ = access.split(".")
    none = signer.b64(json.dumps({"alg": "none", "kid": json.loads(base64.urlsafe_b64decode(f"{header}=="))["kid"]}).encode())
    bad = [
        f"{none}.{body}.",
        f"{access[:-8]}AAAAAAAA",
        f"{access}.{body}",
        tokens["id_token"],  # meant for the client
        tokens["refresh_token"],  # meant for the provider
        signer.sign(signer.claims(iss=idp.url)),
        signer.sign(signer.claims(iss="https://evil.test")),
        shared(exp=1),
        shared(sub="ann\0"),
        shared(pad="x" * 9000),
    ]
    content = b"{" if method == "POST" else None
    async with httpx2.AsyncClient(base_url=f"http://{tokened.rest}", timeout=20, trust_env=False) as http:
        usual = await http.request(method, path, content=content, headers={"authorization": "Bearer sk-bad"})
        assert usual.status_code == 401
        for token in bad:
            response = await http.request(method, path, content=content, headers={"authorization": f"bearer {token}"})
            assert (response.status_code, shape(response.json())) == (401, shape(usual.json()))
            for name in ("www-authenticate", "x-should-retry", "content-type"):
                assert response.headers.get(name) == usual.headers.get(name)


def shape(value: Any) -> Any:
    """Return a JSON value with its texts replaced by their types."""
    return {name: shape(entry) for name, entry in value.items()} if isinstance(value, dict) else type(value).__name__


async def test_the_longest_token_comes_through(tokened: Gateway) -> None:
    """A token of almost 8 KiB works every time."""
    longest = shared(pad="x" * 5800)
    assert 8000 < len(longest) <= 8192
    for _ in range(5):
        assert (await ask(tokened, longest)).status_code == 200


@pytest.mark.parametrize("issuer", ["silent", "gone"])
async def test_an_issuer_that_does_not_answer_delays_no_other_call(tokened: Gateway, silent: OddUpstream, issuer: str) -> None:
    """Tokens of an issuer that does not answer get 503 with a time to retry, and it is asked once. Others are not delayed."""
    url = _url_of(issuer, tokened)
    async with asyncio.timeout(15):
        waiting = [asyncio.create_task(ask(tokened, unknown_key_token(url))) for _ in range(20)]
        good = await asyncio.gather(ask(tokened, KEY), ask(tokened, shared()))
        assert [response.status_code for response in good] == [200, 200]
        for response in await asyncio.gather(*waiting):
            assert response.status_code == 503
            assert 0 < int(response.headers["retry-after"]) <= 60
            assert "x-should-retry" not in response.headers
            assert response.json()["error"]["message"]
    if issuer == "silent":
        assert len(silent.requests) == 1


def _url_of(name: str, gateway: Gateway) -> str:
    issuers = yaml.safe_load((gateway.output.parent / "antiphon.yaml").read_text())["auth"]["tokens"]
    (url,) = [str(issuer["issuer"]) for issuer in issuers if issuer["name"] == name]
    return url


async def test_keys_that_are_known_outlive_their_issuer(tokened: Gateway, mortal: IdentityProvider) -> None:
    """When an issuer is down, tokens with a known key are still valid. Those with an unknown key get 503."""
    seen, unseen = [await asyncio.to_thread(mortal.access_token, user) for user in ("ann", "boss")]
    assert (await ask(tokened, seen)).status_code == 200
    mortal.stop()
    assert (await ask(tokened, unseen)).status_code == 200
    assert (await ask(tokened, seen)).status_code == 200
    answers = [await ask(tokened, unknown_key_token(mortal.url))]

    async def unavailable() -> bool:
        answers.append(await ask(tokened, unknown_key_token(mortal.url)))
        return answers[-1].status_code != 401

    await until(unavailable)  # the keys may have been read within the cooldown
    assert answers[-1].status_code == 503
    assert answers[-1].headers["retry-after"] == "1"
    assert (await ask(tokened, unseen)).status_code == 200


async def test_a_key_in_the_body_may_be_a_token_of_either_side(tokened: Gateway, upstream: OddUpstream) -> None:
    """A token in the body is used by the gateway if it is ours, and passed to the provider if it is meant for that."""
    upstream.script("odd-own", [head(), chunk(sse(delta("Hi"), delta(finish="stop"), "[DONE]")), LAST])
    asking = {"model": "odd-own", "chat_input": "Hi"}
    theirs = signer.sign(signer.claims(iss=SECRET_ISSUER, aud="https://provider.test"), "rsa-1")
    strangers = signer.sign(signer.claims(iss="https://other.test"), "rsa-1")
    expired = shared(exp=1)
    async with httpx2.AsyncClient(base_url=f"http://{tokened.rest}", timeout=20, trust_env=False) as http:
        for key, sent in ((shared(), "sk-provider-secret"), (theirs, theirs), (strangers, strangers)):
            response = await http.post("/api/engine/chat/odd", json={**asking, "api_key": key})
            assert response.status_code == 200
            assert upstream.requests[-1].headers["authorization"] == f"Bearer {sent}"
        before = len(upstream.requests)
        for headers in ({}, {"authorization": f"Bearer {KEY}"}):
            response = await http.post("/api/engine/chat/odd", json={**asking, "api_key": expired}, headers=headers)
            assert response.status_code == 401
        unverifiable = unknown_key_token(_url_of("gone", tokened))
        response = await http.post("/api/engine/chat/odd", json={**asking, "api_key": unverifiable})
        assert response.status_code == 503
    assert len(upstream.requests) == before
