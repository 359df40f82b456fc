"""Sessions of the OpenAI dialect, with the OpenAI SDK."""

from typing import Any

import httpx2
import openai
import pytest

from tests.e2e.conftest import Gateway

HI: Any = [{"role": "user", "content": "Hi"}]


async def stored(http: httpx2.AsyncClient, session: str) -> list[tuple[str, Any]]:
    chat = (await http.get(f"/chat/fetch/{session}")).json()
    return [(message["role"], message["content"]) for message in chat["messages"]]


async def test_a_call_without_a_session_keeps_nothing(http: httpx2.AsyncClient) -> None:
    """Without a session, and if sessions are not automatic, nothing is stored and no session id is returned."""
    before = (await http.get("/chat/history?pageSize=1000")).json()
    response = await http.post("/chat/completions", json={"model": "echo", "messages": HI, "session_id": None})
    assert "x-session-id" not in response.headers
    assert "session_id" not in response.json()
    assert (await http.get("/chat/history?pageSize=1000")).json() == before


async def test_an_automatic_session_goes_on(persona_gateway: Gateway) -> None:
    """An automatic session's id is in header and body. The SDK repeats its messages, and only new ones are stored."""
    async with persona_gateway.sdk() as sdk, persona_gateway.client() as http:
        raw = await sdk.chat.completions.with_raw_response.create(model="echo", messages=HI)
        first = raw.parse()
        session = raw.headers["x-session-id"]
        assert first.model_extra is not None
        assert first.model_extra["session_id"] == session
        messages: Any = [*HI, first.choices[0].message.model_dump(exclude_none=True), {"role": "user", "content": "More"}]
        await sdk.chat.completions.create(model="echo", messages=messages, extra_body={"session_id": session})
        assert await stored(http, session) == [
            ("user", "Hi"),
            ("assistant", "You said: Hi"),
            ("user", "More"),
            ("assistant", "You said: More"),
        ]
        listed = (await http.get("/chat/history?title=hi")).json()["chats"]
        assert session in [chat["chatId"] for chat in listed]


async def test_a_streamed_session(persona_gateway: Gateway) -> None:
    """In a stream the session id is in the header and in the first event. A new message alone also continues the session."""
    async with persona_gateway.sdk() as sdk, persona_gateway.client() as http:
        raw = await sdk.chat.completions.with_raw_response.create(model="echo", messages=HI, stream=True)
        session = raw.headers["x-session-id"]
        chunks = [chunk async for chunk in raw.parse()]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: Hi"
        assert [(chunk.model_extra or {}).get("session_id") for chunk in chunks] == [session, *[None] * (len(chunks) - 1)]
        body: Any = {"session_id": session}
        again = [{"role": "user", "content": "Hi"}]
        stream = await sdk.chat.completions.create(model="echo", messages=again, stream=True, extra_body=body)  # type: ignore[arg-type]
        async for _ in stream:
            pass
        assert await stored(http, session) == [("user", "Hi"), ("assistant", "You said: Hi")] * 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_names_its_session(persona_gateway: Gateway, stream: bool) -> None:
    """A failed call names its session, and a retry continues from the stored message without storing it twice."""
    async with persona_gateway.client() as http:
        session = (await http.post("/chat/completions", json={"model": "echo", "messages": HI})).headers["x-session-id"]
        more = {"session_id": session, "messages": [{"role": "user", "content": "More"}], "stream": stream}
        failed = await http.post("/chat/completions", json={"model": "lost", **more})
        assert failed.status_code == 502
        assert failed.headers["x-session-id"] == session
        assert (await stored(http, session))[-1:] == [("user", "More")]
        repeated = [*HI, {"role": "assistant", "content": "You said: Hi"}, *more["messages"]]  # type: ignore[misc]
        again = await http.post("/chat/completions", json={"model": "echo", **more, "stream": False, "messages": repeated})
        assert again.status_code == 200
        assert (await stored(http, session))[-1] == ("assistant", "You said: More")
        assert [role for role, _ in await stored(http, session)].count("user") == 2


async def test_a_session_of_which_nothing_came_is_not_kept(persona_gateway: Gateway) -> None:
    """A new session without any reply is removed, so that the SDK's own retries leave none behind."""
    async with persona_gateway.sdk(max_retries=2) as sdk, persona_gateway.client() as http:
        before = (await http.get("/chat/history?pageSize=1000")).json()
        with pytest.raises(openai.InternalServerError) as caught:
            await sdk.chat.completions.create(model="lost", messages=HI)
        assert "x-session-id" not in caught.value.response.headers
        assert (await http.get("/chat/history?pageSize=1000")).json() == before


async def test_instructions_are_kept_once(persona_gateway: Gateway) -> None:
    """Instructions that an SDK sends with every call are stored once."""
    system: Any = {"role": "system", "content": "Be brief."}
    async with persona_gateway.sdk() as sdk, persona_gateway.client() as http:
        raw = await sdk.chat.completions.with_raw_response.create(model="echo", messages=[system, *HI])
        session = raw.headers["x-session-id"]
        body = {"session_id": session}
        await sdk.chat.completions.create(model="echo", messages=[system, {"role": "user", "content": "More"}], extra_body=body)
        assert [role for role, _ in await stored(http, session)] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_session_is_404(sdk: openai.AsyncOpenAI, stream: bool) -> None:
    """An unknown session gets 404 in the format that the SDK reads."""
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.chat.completions.create(model="echo", messages=HI, stream=stream, extra_body={"session_id": "string"})
    assert caught.value.param == "session_id"
    assert caught.value.code == "conversation_not_found"
