"""Export and erasure of all data of one owner, by an admin, from a terminal."""

import asyncio
import json
import os
import sys
from typing import Any

import grpc
import httpx2
import pytest

from antiphon.owners.data import digest_of
from antiphon.v1 import admin_pb2, admin_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY, Gateway
from tests.waiting import until

ADMIN = (("authorization", f"Bearer {KEY}"),)
LARGE = 2 * 1024 * 1024
MEGABYTE = 1024 * 1024


async def antiphon(address: str, *words: str, key: str = KEY) -> tuple[int, bytes, str]:
    """Run `antiphon owners`, and return its exit code, its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", "owners", *words),
        env={"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": address, "ANTIPHON_KEY": key},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed, errors.decode()


async def fill(gateway: Gateway, owner: str) -> str:
    """Record a conversation larger than a gRPC message, and a call, for an owner. Return the owner's key."""
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        made = await admin.CreateKey(admin_pb2.CreateKeyRequest(key=admin_pb2.Key(name=f"{owner}'s", owner=owner)), metadata=ADMIN)
        history: Any = history_pb2_grpc.HistoryServiceStub(channel)
        messages = [
            message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=letter * LARGE))])
            for letter in "abcd"
        ]
        request = history_pb2.CreateConversationRequest(
            conversation=history_pb2.Conversation(title=f"of {owner}"), messages=messages
        )
        await history.CreateConversation(request, metadata=(("authorization", f"Bearer {made.secret}"),))
    headers = {"authorization": f"Bearer {made.secret}", "x-antiphon-tags": "team=search"}
    async with httpx2.AsyncClient(trust_env=False, headers=headers) as http:
        body = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}
        assert (await http.post(f"{gateway.url}/chat/completions", json=body)).status_code == 200
    secret: str = made.secret
    return secret


async def test_all_is_given_out_in_parts_that_fit(admin_gateway: Gateway) -> None:
    """An export works with default gRPC clients, which accept 4 MiB at a time, directly and through Envoy, for admins only."""
    secret = await fill(admin_gateway, "erin")
    for address in (admin_gateway.grpc, admin_gateway.rest):
        code, printed, _ = await antiphon(address, "export", "erin")
        assert code == 0
        found = [json.loads(line) for line in printed.splitlines()]
        texts = [line["message"]["parts"][0]["text"] for line in found if line["kind"] == "message"]
        assert [(text[0], len(text)) for text in texts] == [(letter, LARGE) for letter in "abcd"]
        assert [line["title"] for line in found if line["kind"] == "conversation"] == ["of erin"]
        assert secret not in printed.decode()
    async with grpc.aio.insecure_channel(admin_gateway.rest) as channel:
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
        parts = [len(part.lines) async for part in stub.ExportOwner(admin_pb2.ExportOwnerRequest(owner="erin"), metadata=ADMIN)]
    assert len(parts) == 9
    assert max(parts) <= MEGABYTE
    for command in (("export", "erin"), ("erase", "erin", "--yes")):
        code, printed, errors = await antiphon(admin_gateway.grpc, *command, key=secret)
        assert (code, printed) == (1, b"")
        assert "PERMISSION_DENIED" in errors
    code, printed, _ = await antiphon(admin_gateway.grpc, "export", "nobody at all")
    assert (code, [json.loads(line)["action"] for line in printed.splitlines()]) == (0, ["owners.export"])
    code, _, errors = await antiphon(admin_gateway.grpc, "export", "")
    assert code == 1
    assert "owner" in errors


async def test_all_is_removed_once_it_is_confirmed(admin_gateway: Gateway) -> None:
    """After confirmation everything is removed, counts are printed, the key is refused, and the audit log omits the name."""
    secret = await fill(admin_gateway, "frank")
    async with httpx2.AsyncClient(trust_env=False, headers={"authorization": f"Bearer {secret}"}) as http:

        async def status() -> int:
            return (await http.get(f"{admin_gateway.url}/models")).status_code

        code, printed, errors = await antiphon(admin_gateway.grpc, "erase", "frank")
        assert (code, printed.strip()) == (1, b"")
        assert "Aborted" in errors
        assert await status() == 200
        code, printed, _ = await antiphon(admin_gateway.grpc, "erase", "frank", "--yes")
        assert code == 0
        assert printed.startswith(b"Removed what was kept of frank: 1 conversations, 4 messages, 1 keys, ")

        async def refused() -> bool:
            return await status() == 401

        await until(refused)

    async def exported() -> bytes:
        """Erase again, as the usage of the calls may have been written later, and return what is left."""
        await antiphon(admin_gateway.grpc, "erase", "frank", "--yes")
        return (await antiphon(admin_gateway.grpc, "export", "frank"))[1]

    async def none_left() -> bool:
        return {json.loads(line)["kind"] for line in (await exported()).splitlines()} == {"audit_event"}

    await until(none_left)
    printed = await exported()
    assert b"frank" not in printed
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
        page = await stub.ListAuditEvents(admin_pb2.ListAuditEventsRequest(action="owners.erase"), metadata=ADMIN)
    assert {(event.actor, event.target) for event in page.events} == {("static:boss", digest_of("frank"))}
    assert page.events[0].request_id


@pytest.mark.parametrize("method", ["ExportOwner", "EraseOwner"])
async def test_a_request_without_an_owner_is_invalid(admin_gateway: Gateway, method: str) -> None:
    """A request without an owner is invalid, so it cannot remove data of callers without a key."""
    async with grpc.aio.insecure_channel(admin_gateway.grpc) as channel:
        call = getattr(admin_pb2_grpc.AdminServiceStub(channel), method)(getattr(admin_pb2, f"{method}Request")(), metadata=ADMIN)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call if method == "EraseOwner" else call.read())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
