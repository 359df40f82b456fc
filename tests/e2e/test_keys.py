"""Stored keys through the real Envoy: what each may call, and that it ends on time."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import grpc
import httpx2
import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from antiphon.domain.principal import DEFAULT_SCOPES
from antiphon.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    chat_pb2,
    chat_pb2_grpc,
    history_pb2,
    history_pb2_grpc,
    message_pb2,
    models_pb2,
    models_pb2_grpc,
)
from tests.e2e.conftest import KEY, Gateway
from tests.waiting import until

ADMIN = (("authorization", f"Bearer {KEY}"),)
HELLO = [message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hello"))])]
ASK = {"messages": [{"role": "user", "content": "Hello"}]}

# One call of each kind: method, path, body, and the scope that it needs.
CALLS: list[tuple[str, str, Any, str]] = [
    ("POST", "/api/v1/chat/completions", {"model": "echo", **ASK}, "chat"),
    ("GET", "/api/v1/models", None, "chat"),
    ("POST", "/api/v1/chat/generate", {"chat_history": ASK["messages"]}, "chat"),
    ("POST", "/api/v1/chat/generate/stream", {"chat_history": ASK["messages"]}, "chat"),
    ("POST", "/api/v1/chat", {"chat_history": ASK["messages"]}, "chat"),
    ("GET", "/api/v1/chat/history", None, "history"),
    ("GET", "/api/v1/chat/fetch/x", None, "history"),
    ("POST", "/api/v1/chat/fork", {"chatId": "x", "messageId": "y"}, "history"),
    ("PUT", "/api/v1/chat/x/pin", {"pinned": True}, "history"),
    ("PATCH", "/api/v1/chat/x", {"title": "t"}, "history"),
    ("DELETE", "/api/v1/chat/x", None, "history"),
    ("POST", "/api/v1/chat/new", {"title": "t", "messages": ASK["messages"]}, "history"),
    ("POST", "/api/v1/ai/chat", ASK, "admin"),
    ("POST", "/api/engine/chat/echo", {"model": "echo", "chat_input": "Hello"}, "engine"),
    ("GET", "/api/engine/providers", None, "engine"),
    ("GET", "/api/engine/models", None, "engine"),
    ("GET", "/api/engine/parameters?provider=echo", None, "engine"),
    ("POST", "/api/v1/proxy/default/sk-x/chat/completions", {"model": "m", **ASK}, "proxy"),
    ("POST", "/api/v1/proxy/gemini.test/v1beta/models/m:generateContent", {"contents": []}, "proxy"),
]


def anybody(gateway: Gateway) -> httpx2.AsyncClient:
    """Return a plain HTTP client without a key."""
    return httpx2.AsyncClient(base_url=f"http://{gateway.rest}", timeout=20, trust_env=False)


def service(channel: grpc.aio.Channel) -> Any:
    return admin_pb2_grpc.AdminServiceStub(channel)


async def make(channel: grpc.aio.Channel, **fields: Any) -> admin_pb2.CreateKeyResponse:
    request = admin_pb2.CreateKeyRequest(key=admin_pb2.Key(**{"name": "app", **fields}))
    made: admin_pb2.CreateKeyResponse = await service(channel).CreateKey(request, metadata=ADMIN)
    return made


async def statuses(http: httpx2.AsyncClient, headers: dict[str, str]) -> dict[tuple[str, str], int]:
    found = {}
    for method, path, body, _ in CALLS:
        answer = await http.request(method, path, json=body, headers=headers)
        found[method, path] = answer.status_code
    return found


async def test_each_scope_opens_its_own_paths(admin_gateway: Gateway) -> None:
    """Every path is 403 for a key without its scope, whatever else is wrong with the request."""
    async with (
        grpc.aio.insecure_channel(admin_gateway.grpc) as channel,
        anybody(admin_gateway) as http,
    ):
        for scope in (*sorted(DEFAULT_SCOPES), "admin"):
            made = await make(channel, scopes=[f"SCOPE_{scope.upper()}"])
            found = await statuses(http, {"authorization": f"Bearer {made.secret}"})
            for method, path, _, wanted in CALLS:
                assert (found[method, path] == 403) is (scope != wanted or "/proxy/" in path), (scope, method, path, found)


async def test_no_key_and_bad_keys_are_401_everywhere(admin_gateway: Gateway) -> None:
    """Without a valid key every path is 401: no key, another format, an unknown, a revoked and an expired one."""
    async with (
        grpc.aio.insecure_channel(admin_gateway.grpc) as channel,
        anybody(admin_gateway) as http,
    ):
        stub = service(channel)
        revoked = await make(channel)
        await stub.RevokeKey(admin_pb2.RevokeKeyRequest(id=revoked.key.id), metadata=ADMIN)
        soon = admin_pb2.Key(name="short")
        soon.expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=0.5))
        expired = await stub.CreateKey(admin_pb2.CreateKeyRequest(key=soon), metadata=ADMIN)
        await until(lambda: datetime.now(UTC) > expired.key.expire_time.ToDatetime(UTC))
        for headers in (
            {},
            {"authorization": "Basic abc"},
            {"authorization": "Bearer sk-none"},
            {"authorization": f"Bearer {revoked.secret[:-1]}"},
            {"authorization": f"Bearer {revoked.secret}"},
            {"authorization": f"Bearer {expired.secret}"},
        ):
            assert set((await statuses(http, headers)).values()) == {401}, headers


async def test_a_revocation_is_in_force_within_seconds(admin_gateway: Gateway) -> None:
    """A revoked key is refused within seconds, even if it is in constant use."""
    async with (
        grpc.aio.insecure_channel(admin_gateway.grpc) as channel,
        anybody(admin_gateway) as http,
    ):
        made = await make(channel)
        headers = {"authorization": f"Bearer {made.secret}"}
        assert (await http.get("/api/v1/models", headers=headers)).status_code == 200
        await service(channel).RevokeKey(admin_pb2.RevokeKeyRequest(id=made.key.id), metadata=ADMIN)

        async def refused() -> bool:
            return (await http.get("/api/v1/models", headers=headers)).status_code != 200

        await until(refused, 5)
        assert (await http.get("/api/v1/models", headers=headers)).status_code == 401


async def test_a_key_may_use_only_its_models(admin_gateway: Gateway) -> None:
    """A key may call only its models. Others are 403 in calls, not listed, and 404 when asked for by name."""
    async with (
        grpc.aio.insecure_channel(admin_gateway.grpc) as channel,
        anybody(admin_gateway) as http,
    ):
        made = await make(channel, models=["ech*"])
        headers = {"authorization": f"Bearer {made.secret}"}
        listed = (await http.get("/api/v1/models", headers=headers)).json()["data"]
        assert [model["id"] for model in listed] == ["echo"]
        there = (await http.get("/api/engine/models", headers=headers)).json()
        assert {name: found["models"] for name, found in there.items() if found["models"]} == {"echo": ["echo"]}
        for model, status in (("echo", 200), ("gpt-4o", 404), ("llmock/gpt-4o", 404), ("none", 404)):
            assert (await http.get(f"/api/v1/models/{model}", headers=headers)).status_code == status
        stub: Any = models_pb2_grpc.ModelServiceStub(channel)
        metadata = tuple(headers.items())
        page = await stub.ListModels(models_pb2.ListModelsRequest(), metadata=metadata)
        assert [model.name for model in page.models] == ["echo"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetModel(models_pb2.GetModelRequest(name="gpt-4o"), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        for model, status in (("echo", 200), ("gpt-4o", 403)):
            answer = await http.post("/api/v1/chat/completions", json={"model": model, **ASK}, headers=headers)
            assert answer.status_code == status, answer.text


async def test_owners_see_their_own(admin_gateway: Gateway) -> None:
    """Two keys of one owner share conversations. Another owner's do not exist for them."""
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        first, second = await make(channel, owner="team"), await make(channel, owner="team")
        other = await make(channel, owner="others")
        chat: Any = chat_pb2_grpc.ChatServiceStub(channel)
        history: Any = history_pb2_grpc.HistoryServiceStub(channel)
        request = chat_pb2.GenerateRequest(model="echo", messages=HELLO, recording=chat_pb2.Recording(request_id="keys-1"))
        reply = await chat.Generate(request, metadata=(("authorization", f"Bearer {first.secret}"),))
        wanted = history_pb2.GetConversationRequest(id=reply.conversation_id)
        assert await history.GetConversation(wanted, metadata=(("authorization", f"Bearer {second.secret}"),))
        for conversation in (reply.conversation_id, "01890000-0000-7000-8000-000000000000"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await history.GetConversation(
                    history_pb2.GetConversationRequest(id=conversation), metadata=(("authorization", f"Bearer {other.secret}"),)
                )
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert caught.value.details() == "The conversation does not exist."


async def test_only_admins_make_keys(admin_gateway: Gateway) -> None:
    """Only admins may manage keys. Refusals and actions are in the audit log, without secrets."""
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        stub = service(channel)
        made = await make(channel, name="mere")
        for metadata, code in (
            ((("authorization", f"Bearer {made.secret}"),), grpc.StatusCode.PERMISSION_DENIED),
            ((), grpc.StatusCode.UNAUTHENTICATED),
        ):
            for call in (
                stub.CreateKey(admin_pb2.CreateKeyRequest(key=admin_pb2.Key(name="x")), metadata=metadata),
                stub.ListKeys(admin_pb2.ListKeysRequest(), metadata=metadata),
                stub.RotateKey(admin_pb2.RotateKeyRequest(id=made.key.id), metadata=metadata),
                stub.ListAuditEvents(admin_pb2.ListAuditEventsRequest(), metadata=metadata),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is code
        page = await stub.ListAuditEvents(admin_pb2.ListAuditEventsRequest(page_size=1000), metadata=ADMIN)
        seen = {(event.action, event.actor, event.target, event.reason) for event in page.events}
        assert ("keys.create", "static:boss", made.key.id, "") in seen
        assert ("call.refused", f"key:{made.key.id}", "AdminService/RotateKey", "PERMISSION_DENIED") in seen
        nobody = [event for event in page.events if (event.action, event.actor) == ("call.refused", "")]
        assert sum(event.count for event in nobody if event.reason == "UNAUTHENTICATED") >= 4
        assert "ipv4:127.0.0.1" in {event.peer for event in nobody}
        assert made.secret not in str(page)


async def test_invalid_requests_are_refused(admin_gateway: Gateway) -> None:
    """Requests to make or rotate a key with invalid fields get INVALID_ARGUMENT."""
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        stub = service(channel)
        past = admin_pb2.Key(name="x")
        past.expire_time.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
        for key in (
            admin_pb2.Key(),
            past,
            admin_pb2.Key(name="x", expire_time=timestamp_pb2.Timestamp(seconds=2**62)),
            admin_pb2.Key(name="x", expire_time=timestamp_pb2.Timestamp(nanos=-5)),
            admin_pb2.Key(name="x" * 101),
            admin_pb2.Key(name="x", owner=" "),
            admin_pb2.Key(name="x", scopes=[admin_pb2.SCOPE_UNSPECIFIED]),
            admin_pb2.Key(name="x", models=[""]),
            admin_pb2.Key(name="x", quota=admin_pb2.Quota(daily_usd=-1)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.CreateKey(admin_pb2.CreateKeyRequest(key=key), metadata=ADMIN)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        for overlap in (
            duration_pb2.Duration(seconds=2**62),
            duration_pb2.Duration(seconds=-1),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.RotateKey(admin_pb2.RotateKeyRequest(id="none", overlap=overlap), metadata=ADMIN)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.RotateKey(admin_pb2.RotateKeyRequest(id="none"), metadata=ADMIN)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("odd", ["a\nb", "a\x1b[2Jb", "a\0b", "a\u202eb", "a\u2066b", "a\u200bb", "a\x7f"], ids=ascii)
async def test_a_name_that_does_not_show_is_refused(odd: str, admin_gateway: Gateway) -> None:
    """Names of keys, owners and models with non-printable characters are refused, with the field at fault."""
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        for field, key in (
            ("key.name", admin_pb2.Key(name=odd)),
            ("key.owner", admin_pb2.Key(name="x", owner=odd)),
            ("key.models", admin_pb2.Key(name="x", models=[odd])),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service(channel).CreateKey(admin_pb2.CreateKeyRequest(key=key), metadata=ADMIN)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            status = rpc_status.from_call(caught.value)
            assert status is not None
            bad = error_details_pb2.BadRequest()
            assert any(detail.Unpack(bad) for detail in status.details)
            assert [violation.field for violation in bad.field_violations] == [field]


async def keys(gateway: Gateway, *words: str, code: int = 0, key: str = KEY) -> str:
    """Run `antiphon keys`, check its exit code, and return its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", "keys", *words),
        env={"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": gateway.grpc, "ANTIPHON_KEY": key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == code, output.decode()
    assert b"Traceback" not in output
    return output.decode()


async def test_keys_from_the_terminal(admin_gateway: Gateway) -> None:
    """`antiphon keys` makes, lists, rotates and revokes keys, shows a secret once, and reports errors in one line."""
    run = partial(keys, admin_gateway)
    made = await run("create", "from-terminal", "--owner", "ops", "--scope", "chat", "--model", "echo", "--days", "1")
    secret = made.split()[-1]
    async with anybody(admin_gateway) as http:
        headers = {"authorization": f"Bearer {secret}"}
        assert (await http.get("/api/v1/models", headers=headers)).status_code == 200
        listed = next(line for line in (await run("list", "--owner", "ops")).splitlines() if "from-terminal" in line)
        assert secret not in listed
        assert "good" in listed
        key_id = listed.split()[1]
        second = (await run("rotate", key_id, "--overlap", "1")).split()[-1]
        assert (await http.get("/api/v1/models", headers={"authorization": f"Bearer {second}"})).status_code == 200
        assert "is revoked" in await run("revoke", key_id)
        assert "from-terminal" not in await run("list", "--owner", "ops")
        assert "revoked" in await run("list", "--owner", "ops", "--revoked")
    assert "NOT_FOUND" in await run("revoke", "none", code=1)
    assert "key.name: has a non-printable character" in await run("create", "two\nlines", code=1)
    assert "UNAUTHENTICATED" in await run("list", code=1, key="sk-none")
    assert "PERMISSION_DENIED" in await run("list", code=1, key=(await run("create", "mere")).split()[-1])


@pytest.mark.slow
async def test_a_key_is_named_by_its_name_where_that_is_enough(admin_gateway: Gateway) -> None:
    """`revoke` and `rotate` accept a name. If two keys have it, both stay, and the ids to choose from are shown."""
    run = partial(keys, admin_gateway)
    first = json.loads(await run("create", "twin", "--owner", "one", "--requests", "60", "--daily-usd", "2.5", "--json"))
    made = json.loads(await run("rotate", "twin", "--json"))
    assert made["key"]["id"] == first["key"]["id"]
    assert made["secret"] not in {"", first["secret"]}
    second = json.loads(await run("create", "twin", "--owner", "two", "--json"))["key"]
    for command in ("revoke", "rotate"):
        output = await run(command, "twin", code=1)
        assert output.startswith("error: 2 keys are called twin. Give the id of the one that you mean:\n")
        assert f"  {first['key']['id']}  owner one, secret ...{made['key']['hint']}, never used\n" in output
        assert f"  {second['id']}  owner two, " in output
    assert json.loads(await run("revoke", second["id"], "--json"))["key"]["state"] == "revoked"
    assert "is revoked" in await run("revoke", "twin")
    assert "NOT_FOUND" in await run("revoke", "twin", code=1)
    listed = {key["id"]: key for key in json.loads(await run("list", "--revoked", "--json", "--owner", "one"))["keys"]}
    key = listed[first["key"]["id"]]
    assert set(key) == {
        *("id", "name", "owner", "state", "hint", "scopes", "models", "limits", "tags"),
        *("create_time", "expire_time", "revoke_time", "last_use_time"),
    }
    assert (key["state"], key["models"], key["last_use_time"], key["expire_time"]) == ("revoked", None, None, None)
    assert {name: most for name, most in key["limits"].items() if most is not None} == {
        "requests_per_minute": 60,
        "daily_usd": 2.5,
    }
    assert datetime.fromisoformat(key["create_time"]) <= datetime.fromisoformat(key["revoke_time"])


@pytest.mark.slow
async def test_when_a_key_was_last_used_is_listed(admin_gateway: Gateway) -> None:
    """The list shows soon after a call when a key was last used, with its full id and its limits."""
    run = partial(keys, admin_gateway)
    made = json.loads(await run("create", "in-use", "--tokens", "5000", "--json"))
    async with anybody(admin_gateway) as http:
        headers = {"authorization": f"Bearer {made['secret']}"}
        assert (await http.get("/api/v1/models", headers=headers)).status_code == 200

    async def used() -> bool:
        listed = json.loads(await run("list", "--owner", "in-use", "--json"))["keys"]
        return listed[0]["last_use_time"] is not None

    await until(used)
    (row,) = [line for line in (await run("list", "--owner", "in-use")).splitlines() if made["key"]["id"] in line]
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells[6] == "5,000 tokens/min"
    assert cells[8].startswith(made["key"]["create_time"][:10])
