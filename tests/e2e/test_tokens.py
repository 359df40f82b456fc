"""Tokens of an identity provider as credentials, through the real Envoy: one that others wrote, and some that fail."""

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
    """One that a test stops."""
    started = IdentityProvider(tmp_path_factory.mktemp("mortal") / "config", free_port(), AUDIENCE)
    yield await asyncio.to_thread(started.wait)
    started.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def silent() -> AsyncGenerator[OddUpstream, None]:
    """One that takes requests and says nothing."""
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
    """A gateway that knows five issuers."""
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
    assert "call_failed" not in started.said, "the server met an exception that it does not know"
    for token in (*idp.given, *mortal.given):
        assert not any(part in started.said for part in token.split("."))
    assert signer.SECRET not in started.said
    assert "openid" not in started.said


def shared(**claims: Any) -> str:
    return signer.sign(signer.claims(iss=SECRET_ISSUER, **claims), "oct-1", "HS256")


def unasked(issuer: str) -> str:
    """A token of an issuer that cannot be asked."""
    return signer.sign(signer.claims(iss=issuer))


async def ask(gateway: Gateway, token: str, path: str = "/chat/completions", body: Any = HELLO) -> httpx2.Response:
    async with gateway.client(headers={"authorization": f"Bearer {token}"}) as http:
        return await http.post(path, json=body)


@pytest.mark.parametrize("user", [None, "ann"])
async def test_an_access_token_is_as_good_as_a_key(tokened: Gateway, idp: IdentityProvider, user: str | None) -> None:
    """Of a client, with no scopes at all, and of a user, with those of OpenID Connect; by the SDK, streaming."""
    token = await asyncio.to_thread(idp.access_token, user)
    async with tokened.sdk(api_key=token) as sdk:
        stream = await sdk.chat.completions.create(stream=True, **HELLO)  # type: ignore[call-overload]
        assert "Hello" in "".join([part.choices[0].delta.content or "" async for part in stream if part.choices])


async def test_a_token_is_good_over_grpc_too(tokened: Gateway, idp: IdentityProvider) -> None:
    """Without Envoy; a bad one has the status and the reason that a bad key has."""
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
    """The one who is in the group, and no other."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "client_id": "acme", "model": "echo"}
    for user, status in (("boss", 200), ("ann", 403), (None, 403)):
        token = await asyncio.to_thread(idp.access_token, user)
        assert (await ask(tokened, token, "/ai/chat", body)).status_code == status


async def test_a_conversation_belongs_to_the_subject(tokened: Gateway, idp: IdentityProvider) -> None:
    """Whichever token it has; nobody else sees it, be it another user, a key, or one of that name at another issuer."""
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
    """The provider rotates its key twice: the first token of each new one makes the gateway read the set again."""
    old = await asyncio.to_thread(idp.access_token)
    assert (await ask(tokened, old)).status_code == 200
    for _ in range(2):
        await asyncio.to_thread(idp.rotate)
        new = await asyncio.to_thread(idp.access_token)

        async def good() -> bool:
            return (await ask(tokened, new)).status_code == 200  # noqa: B023 - it is over before the next round

        await until(good)  # the last reading may be within the cooldown
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
async def test_a_bad_token_is_told_as_a_bad_key_is(tokened: Gateway, idp: IdentityProvider, method: str, path: str) -> None:
    """On every path: the status, the headers, and the shape of the body, before the body is looked at."""
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
    """A JSON value without its texts."""
    return {name: shape(entry) for name, entry in value.items()} if isinstance(value, dict) else type(value).__name__


async def test_the_longest_token_comes_through(tokened: Gateway) -> None:
    """8 KiB in all, over REST and over gRPC, each time."""
    longest = shared(pad="x" * 5800)
    assert 8000 < len(longest) <= 8192
    for _ in range(5):
        assert (await ask(tokened, longest)).status_code == 200


@pytest.mark.parametrize("issuer", ["silent", "gone"])
async def test_an_issuer_that_does_not_answer_holds_nobody_up(tokened: Gateway, silent: OddUpstream, issuer: str) -> None:
    """Its tokens are 503 with a time to try again; it is asked once; keys and other issuers' tokens are good meanwhile."""
    url = _url_of(issuer, tokened)
    async with asyncio.timeout(15):
        waiting = [asyncio.create_task(ask(tokened, unasked(url))) for _ in range(20)]
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
    """A token that was never seen is good though its issuer is gone; one with another key cannot be judged."""
    seen, unseen = [await asyncio.to_thread(mortal.access_token, user) for user in ("ann", "boss")]
    assert (await ask(tokened, seen)).status_code == 200
    mortal.stop()
    assert (await ask(tokened, unseen)).status_code == 200
    assert (await ask(tokened, seen)).status_code == 200
    answers = [await ask(tokened, unasked(mortal.url))]

    async def unavailable() -> bool:
        answers.append(await ask(tokened, unasked(mortal.url)))
        return answers[-1].status_code != 401

    await until(unavailable)  # the last reading may be within the cooldown
    assert answers[-1].status_code == 503
    assert answers[-1].headers["retry-after"] == "1"
    assert (await ask(tokened, unseen)).status_code == 200


async def test_a_key_in_the_body_may_be_a_token_of_either_side(tokened: Gateway, upstream: OddUpstream) -> None:
    """One of ours lets in and stays here; one that is meant for the provider goes there, and says nothing to us."""
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
        unjudged = unasked(_url_of("gone", tokened))
        response = await http.post("/api/engine/chat/odd", json={**asking, "api_key": unjudged})
        assert response.status_code == 503
    assert len(upstream.requests) == before
