"""Clients that resend their whole chat, through the real Envoy: new messages are stored once, and nothing is lost."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, trim_messages
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.e2e.conftest import KEY, Gateway
from tests.odd_upstream import LAST, OddUpstream, answer, chunk, delta, head, sse

Chat = list[dict[str, Any]]
Say = Callable[[Chat], Awaitable[dict[str, Any]]]

CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
RESULT = {"role": "tool", "tool_call_id": "call-1", "content": "20 °C"}


def answering(upstream: OddUpstream, *deltas: dict[str, Any], finish: str = "stop") -> None:
    events = chunk(sse(*deltas, delta(finish=finish), "[DONE]"))
    upstream.script("odd-persona", [head(), events, LAST])


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


class Client:
    """Keeps the id of a chat, and sends the given messages to it."""

    def __init__(self, http: httpx2.AsyncClient, dialect: str) -> None:
        self._http = http
        self._dialect = dialect
        self.id = ""

    async def say(self, messages: Chat) -> dict[str, Any]:
        """Send messages, and return the reply as a message."""
        if self._dialect == "sessions":
            body = {"model": "odd-persona", "messages": messages, "session_id": self.id or None}
            answer = await self._http.post("/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            self.id = answer.json()["session_id"]
            reply: dict[str, Any] = answer.json()["choices"][0]["message"]
        else:
            body = {"chat_history": messages, "persona": "odd"}
            answer = await self._http.post("/chat/generate", params={"chatId": self.id} if self.id else {}, json=body)
            assert answer.status_code == 201, answer.text
            self.id = answer.json()["chatId"]
            reply = answer.json()["result"]["response"]
        return {name: value for name, value in reply.items() if name in {"role", "content", "tool_calls"}}

    async def stored(self) -> list[tuple[str, Any]]:
        """Return role and content of each message on the current path."""
        return self._messages((await self._http.get(f"/chat/fetch/{self.id}")).json())

    async def branches(self) -> list[list[tuple[str, Any]]]:
        """Return the same for each branch, the newest first."""
        return [self._messages(branch) for branch in (await self._http.get(f"/chat/fetch/{self.id}")).json()["branches"]]

    @staticmethod
    def _messages(found: dict[str, Any]) -> list[tuple[str, Any]]:
        assert {message["status"] for message in found["messages"]} == {"complete"}
        return [
            (message["role"], message["tool_calls"][0]["id"] if "tool_calls" in message else message["content"])
            for message in found["messages"]
        ]


@pytest_asyncio.fixture(params=["sessions", "chats"], loop_scope="session")
async def client(request: pytest.FixtureRequest, persona_gateway: Gateway) -> Any:
    """Yield a client of each dialect that stores chats."""
    async with persona_gateway.client() as http:
        yield Client(http, request.param)


def sent(upstream: OddUpstream) -> list[Any]:
    """Return the contents of the messages last sent to the provider, without instructions."""
    return [message["content"] for message in upstream.requests[-1].json["messages"] if message["role"] != "system"]


async def test_tools_a_trimmed_reply_and_a_window(client: Client, upstream: OddUpstream) -> None:
    """Each turn stores only its new messages. What the client has changed or left out becomes a branch."""
    call = {"tool_calls": [{"index": 0, **CALL}]}
    answering(upstream, delta(**call), finish="tool_calls")
    chat: Chat = [user("How is it in Paris?")]
    chat.append(await client.say(chat))
    assert chat[-1]["tool_calls"][0]["id"] == "call-1"

    answering(upstream, delta("  It is 20 °C in Paris,"), delta(" and sunny.\n"))
    chat.append(RESULT)
    assert (await client.say(chat))["content"] == "  It is 20 °C in Paris, and sunny.\n"
    assert [message["role"] for message in upstream.requests[-1].json["messages"]][-3:] == ["user", "assistant", "tool"]

    answering(upstream, delta("Colder."))
    chat += [{"role": "assistant", "content": "It is 20 °C"}, user("And in Oslo?")]
    chat.append(await client.say(chat))
    begin = [("user", "How is it in Paris?"), ("assistant", "call-1"), ("tool", "20 °C")]
    expected = [*begin, ("assistant", "It is 20 °C"), ("user", "And in Oslo?"), ("assistant", "Colder.")]
    assert await client.stored() == expected
    assert await client.branches() == [[("assistant", "  It is 20 °C in Paris, and sunny.\n")]]
    assert sent(upstream)[3:] == ["It is 20 °C", "And in Oslo?"], "the reply in the client's version"

    answering(upstream, delta("Warmer."))
    chat.append(user("And in Rome?"))
    chat.append(await client.say(chat[-4:]))  # begins with the trimmed reply
    expected += [("user", "And in Rome?"), ("assistant", "Warmer.")]
    assert await client.stored() == expected
    assert len(sent(upstream)) == 7, "the whole stored chat, whatever the window"

    answering(upstream, delta("Bye."))
    plain = [message for message in chat if message["role"] != "tool" and "tool_calls" not in message]
    await client.say([*plain, user("Thanks ")])
    left, expected = expected[1:], [*expected[:1], *expected[3:], ("user", "Thanks "), ("assistant", "Bye.")]
    assert await client.stored() == expected, "the client left out tool calls"
    assert left in await client.branches()

    await client.say([*plain, user("Thanks")])
    assert await client.stored() == expected, "the last reply was regenerated"


async def test_a_chat_that_begins_with_a_greeting(client: Client, upstream: OddUpstream) -> None:
    """A greeting by the assistant is stored once, whether the client repeats it or not."""
    answering(upstream, delta("Hi."))
    greeting = {"role": "assistant", "content": "Welcome!"}
    chat: Chat = [greeting, user("Hello")]
    chat.append(await client.say(chat))
    chat.append(user("More"))
    chat.append(await client.say(chat))
    await client.say([*chat[1:], user("And more")])
    assert await client.stored() == [
        ("assistant", "Welcome!"),
        ("user", "Hello"),
        ("assistant", "Hi."),
        ("user", "More"),
        ("assistant", "Hi."),
        ("user", "And more"),
        ("assistant", "Hi."),
    ]


async def test_an_image_that_is_left_out_later(client: Client, upstream: OddUpstream) -> None:
    """If the client later leaves out an image, the chat begins anew without it, and the old one becomes a branch."""
    answering(upstream, delta("A cat."))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    chat: Chat = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture]}]
    chat.append(await client.say(chat))
    assert sent(upstream)[0][1]["type"] == "image_url"
    first = await client.stored()
    chat = [user("What is this?"), chat[1], user("And its colour?")]
    chat.append(await client.say(chat))
    assert sent(upstream) == ["What is this?", "A cat.", "And its colour?"]
    await client.say([*chat, user("And its age?")])
    assert [role for role, _ in await client.stored()] == ["user", "assistant"] * 3
    assert await client.branches() == [first]


async def test_a_branch_from_the_beginning_can_be_forked(persona_gateway: Gateway, upstream: OddUpstream) -> None:
    """If the first message was changed, the old chat is a branch after no message, and can be forked."""
    answering(upstream, delta("Hi."))
    async with persona_gateway.client() as http:
        client = Client(http, "chats")
        reply = await client.say([user("Hello")])
        await client.say([user("Good day"), reply, user("More")])
        found = (await http.get(f"/chat/fetch/{client.id}")).json()
        assert [message["content"] for message in found["messages"]] == ["Good day", "Hi.", "More", "Hi."]
        assert found["messageCount"] == 4
        (branch,) = found["branches"]
        assert (branch["messageId"], [message["content"] for message in branch["messages"]]) == (None, ["Hello", "Hi."])
        fork = await http.post("/chat/fork", json={"chatId": client.id, "messageId": branch["messages"][-1]["messageId"]})
        forked = (await http.get(f"/chat/fetch/{fork.json()['chatId']}")).json()
        assert (forked["messages"], forked["branches"]) == (branch["messages"], [])


CUSTOM = {"index": 0, "id": "call-1", "type": "custom", "custom": {"name": "weather", "input": "Paris"}}
REPLIES: dict[str, dict[str, Any]] = {
    "a text": delta("  It is sunny.\n"),
    "a thought and a text": delta("Sunny.", reasoning_content="Hm"),
    "a thought alone": delta(reasoning_content="Hm"),
    "a call": delta(tool_calls=[{"index": 0, **CALL}]),
    "a text and a call": delta("Let me look.", tool_calls=[{"index": 0, **CALL}]),
    "a call with a signature": delta(
        tool_calls=[{"index": 0, **CALL, "extra_content": {"google": {"thought_signature": "AbC+/=="}}}]
    ),
    "a call of a custom tool": delta(tool_calls=[CUSTOM]),
    "a function call of 2023": delta(function_call={"name": "weather", "arguments": "{}"}),
    "a refusal": delta(refusal="I will not."),
    "annotations": delta("Sunny.", annotations=[{"type": "url_citation", "url_citation": {"url": "https://a.test/"}}]),
    "a picture": delta(images=[{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]),
}


@pytest.mark.parametrize("kind", REPLIES)
@pytest.mark.parametrize("nulls", [False, True])
async def test_a_reply_as_the_sdk_has_it_is_a_repetition(
    persona_gateway: Gateway, upstream: OddUpstream, kind: str, nulls: bool
) -> None:
    """A reply of any kind that the SDK sends back is recognised, so the next turn continues the path without a branch."""
    answering(upstream, REPLIES[kind], finish="tool_calls" if "call" in kind else "stop")
    async with persona_gateway.sdk() as sdk, persona_gateway.client() as http:
        chat: Any = [user("How is it in Paris?")]
        first = await sdk.chat.completions.create(model="odd-persona", messages=chat)
        reply = first.choices[0].message
        chat.append(reply.model_dump(exclude_none=not nulls))
        chat += [RESULT] if reply.tool_calls else [user("Well?")]
        answering(upstream, delta("Fine."))
        body = {"session_id": (first.model_extra or {})["session_id"]}
        await sdk.chat.completions.create(model="odd-persona", messages=chat, extra_body=body)
        found = (await http.get(f"/chat/fetch/{body['session_id']}")).json()
        assert (len(found["messages"]), found["branches"]) == (4, [])


@pytest.mark.parametrize(
    ("expires", "sent"),
    [(4_000_000_000, {"content": None, "audio": {"id": "audio-1"}}), (1_760_000_000, {"content": "Sunny."})],
    ids=["by its id", "by its transcript, when the id has expired"],
)
async def test_a_reply_in_audio_is_recognised_by_its_id(
    persona_gateway: Gateway, upstream: OddUpstream, expires: int, sent: dict[str, Any]
) -> None:
    """It begins no branch. The provider gets the id until it expires, and then the transcript."""
    answering(upstream, delta(audio={"id": "audio-1", "data": "AAAA", "transcript": "Sunny.", "expires_at": expires}))
    async with persona_gateway.client() as http:
        client = Client(http, "sessions")
        await client.say([user("How is it?")])
        answering(upstream, delta("Fine."))
        spoken = {"role": "assistant", "content": None, "audio": {"id": "audio-1"}}
        chat = [user("How is it?"), spoken, user("Well?")]
        chat.append(await client.say(chat))
        assert upstream.requests[-1].json["messages"][1] == {"role": "assistant", **sent}
        await client.say([*chat, user("And now?")])
        assert await client.branches() == []


async def test_a_window_of_langchain(persona_gateway: Gateway, upstream: OddUpstream) -> None:
    """The window that `trim_messages` leaves of a chat is understood, and the model gets the whole chat."""
    answering(upstream, delta("Fine."))
    async with persona_gateway.client() as http:
        client = Client(http, "sessions")
        await client.say([user("turn 0")])
        body = {"session_id": client.id}
        model = ChatOpenAI(
            base_url=persona_gateway.url, api_key=SecretStr(KEY), model="odd-persona", max_retries=0, timeout=20, extra_body=body
        )
        chat: list[BaseMessage] = [HumanMessage("turn 0"), AIMessage("Fine.")]
        for turn in range(1, 5):
            chat.append(HumanMessage(f"turn {turn}"))
            window = trim_messages(chat, max_tokens=4, token_counter=len, strategy="last")
            chat.append(await model.ainvoke(window))
        expected = [text for turn in range(5) for text in (f"turn {turn}", "Fine.")]
        assert [content for _, content in await client.stored()] == expected
        assert sent(upstream) == expected[:-1]
        assert await client.branches() == []


async def test_instructions_that_change_and_change_back(persona_gateway: Gateway, upstream: OddUpstream) -> None:
    """The model gets only the latest instructions, as the first message."""
    answering(upstream, delta("Hi."))
    async with persona_gateway.client() as http:
        client = Client(http, "sessions")
        chat: Chat = []
        for words in ("Be brief.", "Be long.", "Be brief."):
            chat.append(user("Hello"))
            chat.append(await client.say([{"role": "system", "content": words}, *chat]))
            messages = upstream.requests[-1].json["messages"]
            assert [each["content"] for each in messages if each["role"] == "system"] == [messages[0]["content"]] == [words]
        stored = [content for role, content in await client.stored() if role == "system"]
        assert stored == ["Be brief.", "Be long.", "Be brief."]


async def test_a_turn_that_the_sdk_tries_again_is_stored_once(persona_gateway: Gateway, upstream: OddUpstream) -> None:
    """A turn that the SDK retries after failures is stored once, although only the new message is sent."""
    answering(upstream, delta("Hi."))
    async with persona_gateway.sdk(max_retries=2) as client, persona_gateway.client() as http:
        first = await client.chat.completions.create(model="odd-persona", messages=[{"role": "user", "content": "Hello"}])
        session = first.model_extra["session_id"]
        turn = {"model": "odd-persona", "messages": [{"role": "user", "content": "More"}], "extra_body": {"session_id": session}}
        upstream.script("odd-persona", [answer({"error": {"message": "busy"}}, "503 Service Unavailable")])
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(**turn)
        requests = [received.json["messages"] for received in upstream.requests[-3:]]
        assert [[message["content"] for message in messages] for messages in requests] == [["Hello", "Hi.", "More"]] * 3
        answering(upstream, delta("There."))
        await client.chat.completions.create(**turn)
        chat = (await http.get(f"/chat/fetch/{session}")).json()
        assert [message["content"] for message in chat["messages"]] == ["Hello", "Hi.", "More", "There."]


async def test_an_invalid_message_is_named_by_its_index_in_the_request(persona_gateway: Gateway, upstream: OddUpstream) -> None:
    """An error names a message by its index in the request, not among the new messages."""
    answering(upstream, delta("Hi."))
    async with persona_gateway.client() as http:
        chat: Chat = [user("Hello")]
        client = Client(http, "sessions")
        chat += [await client.say(chat), user("fine"), {**user("odd"), "name": "a\0b"}]
        body = {"model": "odd-persona", "messages": chat, "session_id": client.id}
        sessions = await http.post("/chat/completions", json=body)
        assert (sessions.status_code, [found["loc"] for found in sessions.json()["detail"]]) == (422, [["body", "messages", 3]])
        chats = await http.post(f"/chat/generate?chatId={client.id}", json={"chat_history": chat, "persona": "odd"})
        assert (chats.status_code, chats.json()["message"].split(":")[0]) == (400, "chat_history.3")
        assert await client.stored() == [("user", "Hello"), ("assistant", "Hi.")]
