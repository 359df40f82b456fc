"""The assistant dialect over plain HTTP, with a simple reader of events."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.e2e.conftest import Gateway
from tests.odd_upstream import CUT, HANG, LAST, OddUpstream, chunk, delta, head, sse
from tests.waiting import until

HI = [{"role": "user", "content": "Hi"}]


@pytest_asyncio.fixture(loop_scope="session")
async def http(persona_gateway: Gateway) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """Yield a client of the gateway whose default model is `echo`."""
    async with persona_gateway.client() as made:
        yield made


def events(text: str) -> list[Any]:
    """Return the data of a stream's events, including the last one."""
    assert text.endswith("\n\n")
    found = [line.removeprefix("data: ") for line in text.split("\n\n")[:-1]]
    return [entry if entry == "[DONE]" else json.loads(entry) for entry in found]


async def generate(http: httpx2.AsyncClient, history: Any = HI, query: str = "", **body: Any) -> Any:
    response = await http.post(f"/chat/generate{query}", json={"chat_history": history, **body})
    assert response.status_code == 201, response.text
    return response.json()


async def fetch(http: httpx2.AsyncClient, chat: str) -> Any:
    response = await http.get(f"/chat/fetch/{chat}")
    assert response.status_code == 200, response.text
    return response.json()


async def stored_texts(http: httpx2.AsyncClient, chat: str) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in (await fetch(http, chat))["messages"]]


async def test_generate_answers_201_and_keeps_the_chat(http: httpx2.AsyncClient) -> None:
    """Generate answers 201 with every documented field, and stores the chat."""
    made = await generate(http, query="?source=slack&username=ann&title=Weather%20%26%20more", persona="maya", scope="internal")
    assert made["result"] == {
        "response": {"role": "assistant", "content": "You said: Hi"},
        "message": "You said: Hi",
        "persona": "maya",
    }
    assert (made["title"], made["researchMode"], made["stream"]) == ("Weather & more", False, False)
    assert isinstance(made["metadata"]["timeTaken"], int)
    chat = await fetch(http, made["chatId"])
    assert (chat["title"], chat["pinned"], chat["source"], chat["messageCount"]) == ("Weather & more", False, "slack", 2)
    assert [(m["role"], m["content"], m["status"]) for m in chat["messages"]] == [
        ("user", "Hi", "complete"),
        ("assistant", "You said: Hi", "complete"),
    ]
    assert chat["messages"][1]["messageId"] == made["messageId"]
    assert chat["createdAt"].endswith("Z")


async def test_the_documents_example(http: httpx2.AsyncClient) -> None:
    """A call without a query works, and the title comes from the first message."""
    made = await generate(http, [{"role": "user", "content": "What's the weather like?"}], persona="maya")
    assert made["title"] == "What's the weather like?"


async def test_a_chat_goes_on_and_only_its_tail_is_new(http: httpx2.AsyncClient) -> None:
    """A client may resend the whole history or only the new message. Messages that are stored already are not stored again."""
    made = await generate(http)
    chat = made["chatId"]
    history = [*HI, {"role": "assistant", "content": "You said: Hi"}, {"role": "user", "content": "And now?"}]
    assert (await generate(http, history, f"?chatId={chat}"))["chatId"] == chat
    history += [{"role": "assistant", "content": "You said: And now?"}, {"role": "user", "content": "And then?"}]
    assert (await generate(http, history, chatId=chat))["chatId"] == chat
    await generate(http, [{"role": "user", "content": "The last."}], f"?chat_id={chat}")
    texts = ["Hi", "And now?", "And then?", "The last."]
    expected = [pair for text in texts for pair in (("user", text), ("assistant", f"You said: {text}"))]
    assert await stored_texts(http, chat) == expected


@pytest.mark.parametrize("path", ["/chat/generate", "/chat/generate/stream"])
async def test_a_stream_is_events_as_documented(http: httpx2.AsyncClient, path: str) -> None:
    """A stream has the documented events: planning, the reply piece by piece, the metadata, the end."""
    response = await http.post(path, json={"chat_history": HI, "stream": True})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    found = events(response.text)
    assert found[0] == {"type": "thinking_update", "content": "Planning response"}
    final = [event["content"] for event in found[1:-2]]
    assert all(event["type"] == "final_response" for event in found[1:-2])
    assert len(final) > 1
    assert "".join(final) == "You said: Hi"
    assert found[-2]["type"] == "metadata"
    metadata = found[-2]["content"]
    assert metadata["title"] == "Hi"
    assert found[-1] == "[DONE]"
    chat = await fetch(http, metadata["chatId"])
    assert chat["messages"][1]["messageId"] == metadata["messageId"]


async def test_what_the_model_thinks_is_an_update(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """Each delta of the model's reasoning is a `thinking_update` before the reply."""
    pieces = [delta(reasoning_content="Hm"), delta(reasoning_content=", so"), delta("Yes", "stop")]
    upstream.script("odd-persona", [head(), chunk(sse(*pieces, "[DONE]")), b"0\r\n\r\n"])
    response = await http.post("/chat/generate/stream", json={"chat_history": HI, "persona": "odd"})
    assert [(event["type"], event["content"]) for event in events(response.text)[:-2]] == [
        ("thinking_update", "Planning response"),
        ("thinking_update", "Hm"),
        ("thinking_update", ", so"),
        ("final_response", "Yes"),
    ]


async def test_persona_and_context_reach_the_provider_and_are_not_kept(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """Persona and context are sent before the chat each time and not stored. Model, sampling and tools reach the provider."""
    upstream.script("odd-persona", [head(), chunk(sse(delta("Yes", "stop"), "[DONE]")), b"0\r\n\r\n"])
    tools = {"look": {"description": "Looks.", "parameters": {"type": "object"}}, "depth": 3}
    body = {"persona": "odd", "fastContext": ["It rains.", {"content": "In Rome."}, {"a": 1}], "tools": tools, "stream": True}
    first = await http.post("/chat/generate", json={"chat_history": HI, **body})
    chat = events(first.text)[-2]["content"]["chatId"]
    history = [*HI, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "More"}]
    await http.post(f"/chat/generate?chatId={chat}", json={"chat_history": history, **body})
    assert await stored_texts(http, chat) == [("user", "Hi"), ("assistant", "Yes"), ("user", "More"), ("assistant", "Yes")]
    sent = upstream.requests[-1].json
    assert sent["messages"] == [
        {"role": "system", "content": "You are odd."},
        {"role": "system", "content": 'Context for this chat:\n\nIt rains.\n\nIn Rome.\n\n{"a":1}'},
        *history,
    ]
    assert sent["temperature"] == 0.5
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["look"]


async def test_a_direct_chat_keeps_nothing(http: httpx2.AsyncClient) -> None:
    """POST /chat stores nothing, and reports the time taken in milliseconds."""
    before = (await http.get("/chat/history?pageSize=1000")).json()["chats"]
    response = await http.post("/chat", json={"chat_history": HI, "persona": "maya"})
    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"result", "metadata"}
    assert body["result"] == {"message": "You said: Hi", "persona": "maya"}
    assert isinstance(body["metadata"]["timeTaken"], int)
    assert (await http.get("/chat/history?pageSize=1000")).json()["chats"] == before


async def test_history_is_paged_pinned_first(http: httpx2.AsyncClient) -> None:
    """The history lists pinned chats first, then the last changed. Filters hold across pages, and the last token is null."""
    source = "paging"
    made = [await generate(http, query=f"?source={source}&title=Chat%20{number}") for number in range(5)]
    await http.put(f"/chat/{made[1]['chatId']}/pin", json={"pinned": True})
    found: list[Any] = []
    token = ""
    while True:
        page = (await http.get("/chat/history", params={"source": source, "page_size": 2, "page_token": token})).json()
        found += page["chats"]
        token = page["nextPageToken"]
        if token is None:
            break
    assert [chat["title"] for chat in found] == ["Chat 1", "Chat 4", "Chat 3", "Chat 2", "Chat 0"]
    assert [chat["pinned"] for chat in found] == [True, False, False, False, False]
    assert found[0]["messageCount"] == 2
    only = (await http.get(f"/chat/history?source={source}&pinned=true&pageSize=1")).json()
    assert [chat["title"] for chat in only["chats"]] == ["Chat 1"]


async def test_fork(http: httpx2.AsyncClient) -> None:
    """A fork has the messages up to one given by id or index. Afterwards the original and the fork are independent."""
    made = await generate(http)
    chat = made["chatId"]
    await generate(http, [{"role": "user", "content": "More"}], f"?chatId={chat}")
    messages = (await fetch(http, chat))["messages"]
    for body in ({"messageId": messages[1]["messageId"]}, {"messageIndex": 1}):
        response = await http.post("/chat/fork", json={"chatId": chat, **body})
        assert response.status_code == 201
        fork = response.json()
        assert (fork["title"], fork["forkedFrom"], fork["messageCount"]) == ("Hi", chat, 2)
        await generate(http, [{"role": "user", "content": "Otherwise"}], f"?chatId={fork['chatId']}")
        assert [text for _, text in await stored_texts(http, fork["chatId"])][2:] == ["Otherwise", "You said: Otherwise"]
    assert [text for _, text in await stored_texts(http, chat)][2:] == ["More", "You said: More"]


async def test_pin_update_delete(http: httpx2.AsyncClient) -> None:
    """A chat can be pinned with or without a body, renamed and deleted. After that every path answers 404."""
    chat = (await generate(http))["chatId"]
    assert (await http.put(f"/chat/{chat}/pin")).json()["pinned"] is True
    assert (await http.put(f"/chat/{chat}/pin", json={"pinned": False})).json()["pinned"] is False
    changed = await http.patch(f"/chat/{chat}", json={"title": "A title", "pinned": True})
    assert (changed.json()["title"], changed.json()["pinned"]) == ("A title", True)
    assert (await http.delete(f"/chat/{chat}")).json() == {"chatId": chat, "deleted": True}
    for response in (
        await http.delete(f"/chat/{chat}"),
        await http.get(f"/chat/fetch/{chat}"),
        await http.patch(f"/chat/{chat}", json={"pinned": True}),
        await http.put(f"/chat/{chat}/pin"),
        await http.post("/chat/fork", json={"chatId": chat}),
        await http.post(f"/chat/generate?chatId={chat}", json={"chat_history": HI}),
    ):
        assert response.status_code == 404
        assert set(response.json()) == {"message"}


async def test_a_new_chat_is_kept_as_it_was_sent(http: httpx2.AsyncClient) -> None:
    """POST /chat/new stores texts, lists of parts, tool calls and results as they were sent, and answers 201 with the id."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See"},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAEC", "format": "wav"}},
                {"type": "file", "file": {"file_id": "f1", "filename": "a.pdf"}},
                {"type": "odd", "a": 1},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Seven. 🙂 \u2028 مرحبا"},
    ]
    response = await http.post("/chat/new", json={"title": "Kept", "messages": messages})
    assert response.status_code == 201
    chat = await fetch(http, response.json()["chatId"])
    assert (chat["title"], chat["messageCount"]) == ("Kept", 6)
    ours = {"messageId", "createdAt", "status", "model"}
    assert [{k: v for k, v in message.items() if k not in ours} for message in chat["messages"]] == messages
    again = await http.post("/chat/new", json={"title": "Again", "messages": chat["messages"]})
    assert again.status_code == 201, "what was fetched can be sent"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/chat/generate", {}),
        ("POST", "/chat/generate", {"chat_history": []}),
        ("POST", "/chat/generate", {"chat_history": [{"content": "x"}]}),
        ("POST", "/chat/generate", {"chat_history": [{"role": "user", "content": "a\0b"}]}),
        ("POST", "/chat/generate", {"chat_history": HI, "persona": "nobody"}),
        ("POST", "/chat/generate", {"chat_history": HI, "tools": "x"}),
        ("POST", "/chat/generate/stream", {"chat_history": HI, "fastContext": {}}),
        ("POST", f"/chat/generate?title={'x' * 501}", {"chat_history": HI}),
        ("POST", "/chat", {"chat_history": "x"}),
        ("POST", "/chat/fork", {}),
        ("POST", "/chat/fork", {"chatId": "x", "messageIndex": -1}),
        ("POST", "/chat/new", {"title": "x"}),
        ("POST", "/chat/new", {"title": "a\0b", "messages": []}),
        ("PATCH", "/chat/x", {}),
        ("PATCH", "/chat/x", {"title": None}),
        ("PATCH", "/chat/x", {"title": " "}),
        ("PATCH", "/chat/x", {"owner": "me"}),
        ("PATCH", "/chat/x", {"pinned": "yes"}),
        ("PUT", "/chat/x/pin", {"pinned": 1}),
        ("GET", "/chat/history?pageSize=-1", None),
        ("GET", "/chat/history?pageSize=x", None),
        ("GET", "/chat/history?page_token=%25", None),
        ("GET", "/chat/history?title=%ff", None),
        ("GET", "/chat/fetch/%ff", None),
    ],
)
async def test_bad_requests_are_400_with_a_message(http: httpx2.AsyncClient, method: str, path: str, body: Any) -> None:
    """Invalid requests get 400 with a message and nothing else."""
    response = await http.request(method, path, json=body)
    assert response.status_code == 400, response.text
    assert set(response.json()) == {"message"}
    assert response.json()["message"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("page_size=abc", "page_size: must be a whole number"),
        ("source=x&pageSize=", "page_size: must be a whole number"),
        ("page_size=99999999999&pinned=true", "page_size: must be a whole number"),
        ("page_size=0x1", "page_size: must be a whole number"),
        ("page_size=1001", "page_size: must be between 1 and 1000"),
        ("pinned=x&page_size=5", "pinned: must be true or false"),
        ("pinned=", "pinned: must be true or false"),
        ("title=%00", "title: has a NUL character, which cannot be stored"),
        ("source=%00", "source: has a NUL character, which cannot be stored"),
    ],
)
async def test_a_query_at_fault_names_its_field(http: httpx2.AsyncClient, query: str, message: str) -> None:
    """An invalid query gets 400 with the name of the field, also where Envoy cannot read it."""
    response = await http.get(f"/chat/history?{query}")
    assert (response.status_code, response.json()) == (400, {"message": message})


async def test_unknown_fields_of_messages_are_kept_and_not_sent(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """Unknown fields of messages are stored, but not sent to the provider now or later, because strict hosts refuse them."""
    upstream.script("odd-persona", [head(), chunk(sse(delta("Hm", "stop"), "[DONE]")), LAST])
    sent = [{"role": "user", "content": "Hi", "id": "m1", "timestamp": 1}]
    expected = [{"role": "system", "content": "You are odd."}, *HI]
    assert (await http.post("/chat", json={"chat_history": sent, "persona": "odd"})).status_code == 200
    assert upstream.requests[-1].json["messages"] == expected
    chat = (await generate(http, sent, persona="odd"))["chatId"]
    assert upstream.requests[-1].json["messages"] == expected
    stored = (await fetch(http, chat))["messages"][0]
    assert (stored["id"], stored["timestamp"]) == ("m1", 1)
    stream = await http.post("/chat/generate/stream", json={"chat_history": HI, "persona": "odd", "chatId": chat})
    assert stream.status_code == 200
    assert upstream.requests[-1].json["messages"] == [*expected, {"role": "assistant", "content": "Hm"}, *HI]


async def test_a_nul_is_reported_for_the_field_that_was_sent(http: httpx2.AsyncClient) -> None:
    """A NUL character is reported for the message that has it, not for the title that is made from the message."""
    body = {"messages": [{"role": "user", "content": "a\0b"}]}
    response = await http.post("/chat/new", json=body)
    assert (response.status_code, response.json()["message"]) == (400, "messages.0: has a NUL character, which cannot be stored")
    response = await http.post("/chat/new", json={**body, "title": "a\0"})
    assert (response.status_code, response.json()["message"]) == (400, "title: has a NUL character, which cannot be stored")


async def test_a_blank_title_is_none(http: httpx2.AsyncClient) -> None:
    """A blank title is replaced by the user's text, or by "New chat" if that is blank too."""
    assert (await generate(http, query="?title=%20"))["title"] == "Hi"
    made = await http.post("/chat/new", json={"title": " ", "messages": [{"role": "user", "content": " \n "}]})
    assert made.json()["title"] == "New chat"
    fork = await http.post("/chat/fork", json={"chatId": made.json()["chatId"], "title": " "})
    assert fork.json()["title"] == "New chat"


async def test_a_pin_does_not_change_the_time_of_change(http: httpx2.AsyncClient) -> None:
    """Pinning does not change `updatedAt`. A new title does."""
    chat = (await generate(http))["chatId"]
    before = (await fetch(http, chat))["updatedAt"]
    assert (await http.put(f"/chat/{chat}/pin")).json()["updatedAt"] == before
    assert (await http.patch(f"/chat/{chat}", json={"pinned": False})).json()["updatedAt"] == before
    assert (await http.patch(f"/chat/{chat}", json={"title": "Other"})).json()["updatedAt"] > before


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/chat/generate", "POST"),
        ("GET", "/chat", "POST"),
        ("POST", "/chat/history", "GET, HEAD"),
        ("POST", "/chat/fetch/x", "GET, HEAD"),
        ("GET", "/chat/x/pin", "PUT"),
        ("GET", "/chat/x", "PATCH, DELETE"),
        *(
            (method, f"/chat/{path}", allow)
            for method in ("DELETE", "PATCH")
            for path, allow in (("generate", "POST"), ("new", "POST"), ("fork?a=b", "POST"), ("history", "GET, HEAD"))
        ),
    ],
)
async def test_a_wrong_method_is_405(http: httpx2.AsyncClient, method: str, path: str, allow: str) -> None:
    """A wrong method gets 405 with the allowed ones, and fixed paths such as /chat/new are not read as chat ids."""
    response = await http.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)
    assert response.headers["x-should-retry"] == "false"
    assert set(response.json()) == {"message"}


async def test_no_key_is_401_and_nothing_of_others_is_seen(persona_gateway: Gateway) -> None:
    """Without a key the answer is 401, before the body is looked at. Another owner's chat is 404 on every path."""
    async with persona_gateway.client() as http, persona_gateway.client(headers={"authorization": "Bearer sk-other"}) as other:
        chat = (await generate(http))["chatId"]
        for response in (
            await other.get(f"/chat/fetch/{chat}"),
            await other.put(f"/chat/{chat}/pin"),
            await other.patch(f"/chat/{chat}", json={"title": "mine"}),
            await other.delete(f"/chat/{chat}"),
            await other.post("/chat/fork", json={"chatId": chat}),
            await other.post(f"/chat/generate?chatId={chat}", json={"chat_history": HI}),
            await other.post("/chat/completions", json={"messages": HI, "session_id": chat}),
        ):
            assert response.status_code == 404
        assert (await other.get("/chat/history")).json() == {"chats": [], "nextPageToken": None}
        nobody = await http.post("/chat/generate", content=b"{", headers={"authorization": ""})
        assert (nobody.status_code, set(nobody.json())) == (401, {"message"})
        assert nobody.headers["www-authenticate"] == "Bearer"


async def test_a_provider_that_fails_at_once_is_a_status(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A provider that fails at once gives status 502, also for a stream."""
    upstream.script("odd-persona", [head("503 Service Unavailable", "text/html"), b"0\r\n\r\n"])
    for path in ("/chat/generate", "/chat/generate/stream", "/chat"):
        response = await http.post(path, json={"chat_history": HI, "persona": "odd"})
        assert response.status_code == 502
        assert set(response.json()) == {"message"}


async def test_a_late_failure_is_an_event_and_what_came_is_kept(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A failure in mid-stream is an error event, and the text so far is stored as incomplete. A retry replaces that reply."""
    upstream.script("odd-persona", [head(), chunk(sse(delta("Hel"))), CUT])
    response = await http.post("/chat/generate/stream?source=cut", json={"chat_history": HI, "persona": "odd"})
    found = events(response.text)
    assert [event["type"] for event in found] == ["thinking_update", "final_response", "error"]
    assert found[-1]["content"] is None
    assert found[-1]["error"]["message"]
    chat = (await http.get("/chat/history?source=cut")).json()["chats"][0]["chatId"]
    last = (await fetch(http, chat))["messages"][-1]
    assert (last["content"], last["status"]) == ("Hel", "incomplete")
    await generate(http, query=f"?chatId={chat}")
    assert await stored_texts(http, chat) == [("user", "Hi"), ("assistant", "You said: Hi")]


async def test_a_caller_that_leaves_mid_stream_leaves_what_came(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """If the caller leaves, the provider's call is cancelled, and the text so far is stored as cancelled."""
    upstream.script("odd-persona", [head(), chunk(sse(delta("Hel"))), HANG])
    while not upstream.left.empty():
        upstream.left.get_nowait()
    body = {"chat_history": HI, "persona": "odd"}
    async with http.stream("POST", "/chat/generate/stream?source=gone", json=body) as response:
        text = ""
        async for piece in response.aiter_text():
            text += piece
            if "Hel" in text:
                break
    await asyncio.wait_for(upstream.left.get(), 2)
    chat = (await http.get("/chat/history?source=gone")).json()["chats"][0]["chatId"]

    async def last() -> dict[str, Any]:
        message: dict[str, Any] = (await fetch(http, chat))["messages"][-1]
        return message

    async def settled() -> bool:
        return (await last())["status"] != "in_progress"

    await until(settled)
    assert ((await last())["content"], (await last())["status"]) == ("Hel", "cancelled")


async def test_no_text_can_forge_an_event(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """Line ends of every kind, and text that looks like an event, arrive as text."""
    odd = 'a\n\ndata: [DONE]\n\nb\r\n\u2028data: {"type":"error"}\u2029\x85\u2028c'
    upstream.script("odd-persona", [head(), chunk(sse(delta(odd, "stop"), "[DONE]")), b"0\r\n\r\n"])
    response = await http.post("/chat/generate/stream", json={"chat_history": HI, "persona": "odd"})
    assert all(line.startswith("data: ") for line in response.text.splitlines() if line)
    found = events(response.text)
    assert [event["content"] for event in found if event != "[DONE]" and event["type"] == "final_response"] == [odd]
    assert (await stored_texts(http, found[-2]["content"]["chatId"]))[-1] == ("assistant", odd)
