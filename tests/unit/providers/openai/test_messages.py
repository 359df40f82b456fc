"""Tests of how a reply is sent back in the next request: to the host that made it, and to another host."""

import hashlib
import json
from typing import Any, Final

import pytest

from antiphon.domain.content import (
    CUSTOM,
    FUNCTION_CALL,
    Audio,
    Block,
    Citation,
    Compaction,
    Document,
    Image,
    Media,
    Message,
    Opaque,
    Origin,
    RedactedThinking,
    Refusal,
    Role,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.domain.errors import Unsupported
from antiphon.providers.openai.capabilities import capabilities_of
from antiphon.providers.openai.messages import OpenAIEncoder

Json = dict[str, Any]

NO_THOUGHTS: Final = ("openai", "azure", "xai", "perplexity")
LENIENT: Final = (*NO_THOUGHTS, "openrouter", "unknown", "deepseek", "moonshot")
"""The hosts that ignore unknown fields of a message."""
STRICT: Final = ("groq", "cerebras", "mistral")
ALL: Final = (*LENIENT, *STRICT)

FILLS: Final = {"deepseek": "", "moonshot": " "}
"""What `reasoning_content` must have, by host, if a reply has no thought."""

ANSWER: Final = {"role": "tool", "tool_call_id": "c1", "content": "ok"}
GO: Final = {"role": "user", "content": "Go"}
HI: Final = {"content": "Hi"}
DETAIL: Final = {"reasoning_details": {"type": "reasoning.text", "format": "x"}}
GOOGLE: Final = {"extra_content": {"google": {"thought_signature": "sig"}}}
ANNOTATION: Final = {"type": "url_citation", "url_citation": {"url": "https://x.test/", "title": "X"}}
PICTURE: Final = {"type": "image_url", "image_url": {"url": "https://x.test/a"}}


def own(*cells: tuple[tuple[str, ...], Json]) -> dict[str, Json]:
    """Return the expected fields by host. A later cell of a host replaces an earlier one."""
    return {host: fields for named, fields in cells for host in named}


def called(**fields: Any) -> Json:
    return {
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, **fields}],
    }


def parts(*texts: str) -> list[Json]:
    return [{"type": "text", "text": text} for text in texts]


THOUGHT_PART: Final = {"type": "thinking", "thinking": parts("Hm")}

CELLS: Final[dict[str, tuple[tuple[Block, ...], dict[str, Json], Json]]] = {
    "texts": ((Text("H"), Text("i")), own((ALL, HI)), HI),
    "a text with a source and a signature": (
        (Text("Hi", (Citation("https://x.test/", "X"),), state=State("sig")),),
        own((LENIENT, {**HI, **GOOGLE, "annotations": [ANNOTATION]}), (STRICT, HI)),
        HI,
    ),
    "a thought": (
        (Thinking("Hm"), Text("Hi")),
        own(
            (ALL, HI),
            (("deepseek", "moonshot"), {**HI, "reasoning_content": "Hm"}),
            (("openrouter", "groq", "cerebras"), {**HI, "reasoning": "Hm"}),
            (("mistral",), {"content": [THOUGHT_PART, *parts("Hi")]}),
        ),
        HI,
    ),
    "a thought and a call": (
        (Thinking("Hm", "reasoning"), ToolCall("c1", "f", "{}")),
        own(
            (ALL, called()),
            (("deepseek", "moonshot"), {**called(), "reasoning_content": "Hm"}),
            (("openrouter", "groq", "cerebras", "unknown"), {**called(), "reasoning": "Hm"}),
            (("mistral",), {**called(), "content": [THOUGHT_PART]}),
        ),
        called(),
    ),
    "a signed thought": (
        (Thinking("Hm", state=State("sig", DETAIL)), Text("Hi")),
        own(
            (ALL, HI),
            (("deepseek", "moonshot"), {**HI, "reasoning_content": "Hm"}),
            (("groq", "cerebras"), {**HI, "reasoning": "Hm"}),
            (
                ("openrouter",),
                {**HI, "reasoning_details": [{**DETAIL["reasoning_details"], "index": 0, "text": "Hm", "signature": "sig"}]},
            ),
            (("mistral",), {"content": [THOUGHT_PART, *parts("Hi")]}),
        ),
        HI,
    ),
    "an encrypted thought": (
        (RedactedThinking(state=State("zz")), Text("Hi")),
        own(
            (ALL, HI),
            (("openrouter",), {**HI, "reasoning_details": [{"type": "reasoning.encrypted", "index": 0, "data": "zz"}]}),
        ),
        HI,
    ),
    "a call": (
        (ToolCall("c1", "f", "{}", state=State("sig", {"x": 1})),),
        own((LENIENT, called(x=1, **GOOGLE)), (STRICT, called())),
        called(),
    ),
    "a call of a tool that takes plain text": (
        (ToolCall("c1", "f", "x", CUSTOM),),
        own((ALL, {"content": None, "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}}]})),
        {"content": None, "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
    ),
    "a call of 2023": (
        (ToolCall("", "f", "{}", FUNCTION_CALL),),
        own(
            (ALL, {"content": None, "function_call": {"name": "f", "arguments": "{}"}}),
        ),
        {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
    ),
    "a refusal": (
        (Refusal("No"),),
        own((ALL, {"content": "No"}), (("openai", "azure", "openrouter", "unknown"), {"content": None, "refusal": "No"})),
        {"content": "No"},
    ),
    "a recording": (
        (Audio(Media(), "a1", "La"),),
        own((LENIENT, {"content": None, "audio": {"id": "a1"}}), (STRICT, {"content": "La"})),
        {"content": "La"},
    ),
    "a recording that is no more": ((Audio(Media(), "a1", "La", 5),), own((ALL, {"content": "La"})), {"content": "La"}),
    "a block of an unknown kind": (
        (Text("Hi"), Opaque(state=State(fields={"type": "odd"}))),
        own((ALL, {"content": [*parts("Hi"), {"type": "odd"}]})),
        HI,
    ),
    "tools of the provider": (
        (ServerToolCall("s", "web_search"), ServerToolResult("s", "web_search"), Compaction("x"), Text("Hi")),
        own((ALL, HI)),
        HI,
    ),
}


def encoded(host: str, *messages: Message, model: str = "m") -> list[Any]:
    """Return the messages as they are sent to a host."""
    return list(OpenAIEncoder(host, capabilities_of(host, None), model, known_fields=False).encode(messages))


def reply(origin: str, *blocks: Block, **fields: Any) -> Message:
    return Message(Role.ASSISTANT, blocks, origin=Origin("openai-chat", origin, "m", origin), fields=fields)


def short(call_id: str) -> str:
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]


def as_host_has_it(host: str, fields: Json) -> Json:
    """Return the fields with what a host needs in every reply: a thought, and ids of its form."""
    if host in ("mistral", "cerebras") and "function_call" in fields:
        function = fields["function_call"]
        fields = {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
    if host in FILLS and fields.get("reasoning_content") is None:
        fields = {**fields, "reasoning_content": FILLS[host]}
    if host == "mistral" and "tool_calls" in fields:
        fields = {**fields, "tool_calls": [{**call, "id": short(call["id"])} for call in fields["tool_calls"]]}
    return fields


@pytest.mark.parametrize("host", ALL)
@pytest.mark.parametrize("name", CELLS)
def test_to_the_host_that_made_it(name: str, host: str) -> None:
    """The host that made a reply gets it with all the state that it accepts, and with unknown fields if it is lenient."""
    blocks, cells, _ = CELLS[name]
    fields = {"x": 1} if host in LENIENT else {}
    assert encoded(host, reply(host, *blocks, x=1)) == [{"role": "assistant", **as_host_has_it(host, cells[host]), **fields}]


@pytest.mark.parametrize("host", ALL)
@pytest.mark.parametrize("name", CELLS)
def test_to_another_host(name: str, host: str) -> None:
    """Another host gets nothing that was the provider's own: no state, signatures or unknown fields."""
    blocks, _, cell = CELLS[name]
    assert encoded(host, reply("else", *blocks, x=1)) == [{"role": "assistant", **as_host_has_it(host, cell)}]


@pytest.mark.parametrize("host", ALL)
@pytest.mark.parametrize("is_own", [True, False])
def test_a_picture(host: str, *, is_own: bool) -> None:
    """An image goes back in the reply if the host made it and is lenient, and otherwise with the user's next message."""
    first, second = encoded(
        host, reply(host if is_own else "else", Text("See"), Image(Media("https://x.test/a"))), Message(Role.USER, (Text("Go"),))
    )
    if is_own and host in LENIENT:
        assert first == {"role": "assistant", **as_host_has_it(host, {"content": "See"}), "images": [PICTURE]}
        assert second == GO
    else:
        assert first == {"role": "assistant", **as_host_has_it(host, {"content": "See"})}
        assert second == {"role": "user", "content": [PICTURE, *parts("Go")]}


@pytest.mark.parametrize(("host", "is_marked"), [("openai", False), ("groq", False), ("openrouter", True), ("unknown", True)])
def test_marks_for_a_cache(host: str, is_marked: bool) -> None:
    """They reach only hosts that may know them, wherever they are."""
    mark = {"cache_control": {"type": "ephemeral"}}
    text = Text("Hi", extra=mark)
    messages = (
        Message(Role.SYSTEM, (text,), extra=mark),
        reply("else", ToolCall("c1", "f", "{}", extra=mark)),
        Message(Role.TOOL, (ToolResult("c1", (text,)),)),
    )
    assert json.dumps(encoded(host, *messages)).count("cache_control") == (4 if is_marked else 0)


def test_documents_in_results() -> None:
    """OpenAI has them in a message of the user, too."""
    document = Document(Media("data:application/pdf;base64,AA=="), "a.pdf")
    messages = encoded("openai", reply("else", ToolCall("c1", "f", "{}")), Message(Role.TOOL, (ToolResult("c1", (document,)),)))
    assert messages[1:] == [
        {**ANSWER, "content": ""},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": document.media.url, "filename": "a.pdf"}}]},
    ]


def test_the_signature_of_a_picture() -> None:
    """It goes back with the image to the host that made it."""
    (first,) = encoded("unknown", reply("unknown", Image(Media("https://x.test/a"), state=State("sig"))))
    assert first["images"] == [{**PICTURE, **GOOGLE}]


@pytest.mark.parametrize("url", [None, "s3://b/x.png"])
def test_a_picture_that_cannot_be_sent(url: str | None) -> None:
    """The conversation goes on without it."""
    go = Message(Role.USER, (Text("Go"),))
    assert encoded("openai", reply("else", Text("Hi"), Image(Media(url))), go) == [{"role": "assistant", **HI}, GO]


@pytest.mark.parametrize("host", ["openai", "unknown"])
def test_pictures_in_results(host: str) -> None:
    """OpenAI has them in a message of the user alone, after all results of the turn; other hosts may take them where they are."""
    picture = Image(Media("https://x.test/a"))
    calls = reply("else", ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}"))
    results = [Message(Role.TOOL, (ToolResult(name, (Text("ok"), picture)),)) for name in ("c1", "c2")]
    go = Message(Role.USER, (Text("Go"),))
    if host == "unknown":
        assert [one["content"] for one in encoded(host, calls, *results)[1:]] == [[*parts("ok"), PICTURE]] * 2
        return
    answers = [ANSWER, {**ANSWER, "tool_call_id": "c2"}]
    shown = {"role": "user", "content": [PICTURE, PICTURE]}
    assert encoded(host, calls, *results)[1:] == [*answers, shown]
    assert encoded(host, calls, *results, reply("else", Text("Hi")))[1:] == [*answers, shown, {"role": "assistant", **HI}]
    assert encoded(host, calls, *results, go)[1:] == [*answers, {"role": "user", "content": [PICTURE, PICTURE, *parts("Go")]}]


@pytest.mark.parametrize("host", ["openai", "mistral", "unknown"])
def test_a_call_of_a_providers_own_type(host: str) -> None:
    """A call of a provider's own type goes back to that host only. Another host gets neither the call nor its result."""
    call = ToolCall("c1", "", '{"a":1}', "shell_call", state=State(fields={"x": 1}))
    later = (Message(Role.TOOL, (ToolResult("c1", (Text("ok"),)),)), Message(Role.USER, (Text("Go"),)))
    call_id = short("c1") if host == "mistral" else "c1"
    assert encoded(host, reply(host, call), *later) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call_id, "type": "shell_call", "shell_call": {"a": 1}, **({} if host in STRICT else {"x": 1})}],
        },
        {**ANSWER, "tool_call_id": call_id},
        GO,
    ]
    assert encoded(host, reply("else", call), *later) == [GO]


@pytest.mark.parametrize("host", ALL)
def test_a_reply_of_thoughts_alone_is_not_sent_to_another_host(host: str) -> None:
    """A reply of thoughts alone is not sent to another host, because it would be a message without content."""
    assert encoded(host, reply("else", Thinking("Hm")), Message(Role.USER, (Text("Go"),))) == [GO]


def test_what_a_caller_writes_has_no_origin() -> None:
    """A message that the caller wrote has no origin and goes to any host as it is."""
    call = ToolCall("c1", "f", "{}", extra={"x": 1})
    message = Message(Role.ASSISTANT, (Thinking("Hm"), Opaque({"type": "odd"}), call))
    assert encoded("unknown", message) == [
        {"role": "assistant", "content": [{"type": "odd"}], "tool_calls": called(x=1)["tool_calls"], "reasoning_content": "Hm"}
    ]
    assert encoded("groq", Message(Role.ASSISTANT, (Text("Hi"),), extra={"x": 1})) == [{"role": "assistant", "content": "Hi"}]


STATES: Final[dict[str, tuple[Origin | None, Origin | None, bool]]] = {
    "no origin at all": (None, None, False),
    "one that names nobody": (Origin(), None, True),
    "the protocol alone": (Origin("openai-chat"), None, True),
    "the provider alone": (Origin(provider="openai"), None, True),
    "another model and deployment": (Origin("openai-chat", "openai", "other", "other"), None, True),
    "another protocol of the provider": (Origin("responses", "openai"), None, False),
    "another provider of the protocol": (Origin("openai-chat", "else"), None, False),
    "the block's own, in a message of nobody's": (None, Origin("openai-chat", "openai"), True),
    "the block's own, in a message from elsewhere": (Origin("openai-chat", "else"), Origin(provider="openai"), True),
    "that of another, in a message from here": (Origin("openai-chat", "openai"), Origin("responses", "openai"), False),
}
"""Origins of a message and of a block in it, and whether its state goes to OpenAI."""


@pytest.mark.parametrize("name", STATES)
def test_a_state_goes_to_its_origin_alone(name: str) -> None:
    """Whoever wrote the origin; fields of the message go by the message's, and nothing else of it does."""
    of_message, of_block, goes = STATES[name]
    call = ToolCall("c1", "f", "{}", state=State("sig", {"x": 1}, origin=of_block))
    odd = Opaque(state=State(fields={"type": "odd"}, origin=of_block))
    (sent,) = encoded("openai", Message(Role.ASSISTANT, (Text("Hi"), odd, call), origin=of_message, fields={"y": 1}))
    assert sent["tool_calls"] == (called(x=1, **GOOGLE) if goes else called())["tool_calls"]
    assert sent["content"] == ([*parts("Hi"), {"type": "odd"}] if goes else "Hi")
    assert ("y" in sent) is (of_message is not None and of_message.is_from(Origin("openai-chat", "openai")))


def test_a_thought_of_nobody_is_no_part_of_a_content() -> None:
    """Models of a host that has such parts refuse those of others."""
    blocks = (Thinking("Hm", state=State("s")), Text("Hi"))
    assert encoded("mistral", Message(Role.ASSISTANT, blocks, origin=Origin("openai-chat"))) == [{"role": "assistant", **HI}]


def test_a_block_may_be_of_another_origin_than_its_message() -> None:
    """A block's own origin counts and not that of its message, because clients may combine values of two providers."""
    elsewhere = State("sig", {"x": 1}, origin=Origin("openai-chat", "else"))
    here = State("sig", {"x": 1}, origin=Origin("openai-chat", "openai"))
    for origin in ("openai", "else"):
        (sent,) = encoded(
            "openai", reply(origin, ToolCall("c1", "f", "{}", state=here), ToolCall("c1", "f", "{}", state=elsewhere))
        )
        assert sent["tool_calls"] == [*called(x=1, **GOOGLE)["tool_calls"], *called()["tool_calls"]]


@pytest.mark.parametrize(
    ("given", "sent"), [("xyzKLM123", "xyzKLM123"), ("xyzKLM12", short("xyzKLM12")), ("äyzKLM123", short("äyzKLM123"))]
)
def test_ids_that_mistral_takes(given: str, sent: str) -> None:
    """An id that Mistral does not accept is replaced by the same hash in the call and in its result."""
    call, result = encoded(
        "mistral", reply("mistral", ToolCall(given, "f", "{}")), Message(Role.TOOL, (ToolResult(given, (Text("ok"),)),))
    )
    assert (call["tool_calls"][0]["id"], result["tool_call_id"]) == (sent, sent)


@pytest.mark.parametrize("host", ALL)
def test_a_name(host: str) -> None:
    """The name of a reply is sent, but not to hosts that refuse it."""
    (sent,) = encoded(host, Message(Role.ASSISTANT, (Text("Hi"),), "MiniMax AI"))
    assert sent.get("name") == (None if host in ("groq", "mistral") else "MiniMax AI")


GEMINI_3: Final = "gemini-3-pro"
CALL: Final = called()["tool_calls"][0]
PASSED: Final = {**CALL, "extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}}


def test_gemini_is_sent_no_null() -> None:
    """Nor a field that its API has not, nor an empty content beside a call: it refuses the request."""
    nulls = {"refusal": None, "annotations": None, "x": 1}
    for blocks in ((ToolCall("c1", "f", "{}"),), (Text(""), ToolCall("c1", "f", "{}"))):
        message = Message(Role.ASSISTANT, (Thinking("Hm", "reasoning"), *blocks), extra=nulls)
        assert encoded("gemini", message, model="gemini-2.5-pro") == [{"role": "assistant", "tool_calls": [CALL]}]
    assert encoded("gemini", Message(Role.ASSISTANT, (Text("Hi"),), extra=nulls)) == [{"role": "assistant", **HI}]


@pytest.mark.parametrize("model", [GEMINI_3, "gemini-flash-latest"])
def test_gemini_is_told_of_calls_that_nobody_signed(model: str) -> None:
    """The first of a reply, as the API documents it for calls of other models; what is signed goes as it is."""
    foreign = reply("else", ToolCall("c1", "f", "{}", state=State("sig")), ToolCall("c1", "f", "{}"))
    dropped = Message(Role.ASSISTANT, (ToolCall("c1", "f", "{}"), ToolCall("c1", "f", "{}")))
    own = reply("gemini", ToolCall("c1", "f", "{}", state=State("sig")), ToolCall("c1", "f", "{}"))
    unsigned = {"role": "assistant", "tool_calls": [PASSED, CALL]}
    signed = {"role": "assistant", "tool_calls": [{**CALL, **GOOGLE}, CALL]}
    assert encoded("gemini", foreign, dropped, own, model=model) == [unsigned, unsigned, signed]


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "models/gemini-2.0-flash", "gemma-3-27b-it"])
def test_models_that_sign_nothing_are_told_nothing(model: str) -> None:
    """Older models of Gemini take calls as they are."""
    (sent,) = encoded("gemini", Message(Role.ASSISTANT, (ToolCall("c1", "f", "{}"),)), model=model)
    assert sent == {"role": "assistant", "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("host", "model", "takes"),
    [
        ("groq", "openai/gpt-oss-120b", True),
        ("groq", "llama-3.3-70b-versatile", False),
        ("mistral", "magistral-small-latest", True),
        ("mistral", "mistral-small-latest", False),
        ("cerebras", "zai-glm-4.7", True),
    ],
)
def test_a_thought_of_another_model_of_the_host(host: str, model: str, *, takes: bool) -> None:
    """It goes to models that think, as others refuse it."""
    (sent,) = encoded(host, reply(host, Thinking("Hm", "reasoning"), Text("Hi")), model=model)
    thought = {"content": [THOUGHT_PART, *parts("Hi")]} if host == "mistral" else {**HI, "reasoning": "Hm"}
    assert sent == {"role": "assistant", **(thought if takes else HI)}


def test_what_a_client_has_of_another_hosts_call_is_not_sent_to_a_strict_host() -> None:
    """A signature, or any field that the API has not: the host would refuse the request."""
    extra = {"provider_specific_fields": {"x": 1}, "function": {"y": 1}}
    call = ToolCall("c1", "f", "{}", state=State("sig"), extra=extra)
    for host in STRICT:
        (sent,) = encoded(host, Message(Role.ASSISTANT, (call,), origin=Origin("openai-chat")))
        assert sent == {"role": "assistant", **as_host_has_it(host, called())}


@pytest.mark.parametrize("role", [Role.USER, Role.SYSTEM])
def test_the_name_of_who_asks(role: Role) -> None:
    """Mistral refuses it, but for that of a tool."""
    message = Message(role, (Text("Go"),), "Ann")
    assert encoded("openai", message) == [{"role": role.value, "name": "Ann", "content": "Go"}]
    assert encoded("mistral", message) == [{"role": role.value, "content": "Go"}]
    (result,) = encoded("mistral", Message(Role.TOOL, (ToolResult("xyzKLM123", (Text("ok"),)),), "f"))
    assert result["name"] == "f"


SUMMARY: Final = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm", "signature": "sig"}]}


@pytest.mark.parametrize("part", [SUMMARY, THOUGHT_PART])
@pytest.mark.parametrize("host", ALL)
def test_a_part_that_is_a_thought(host: str, part: Json) -> None:
    """A client that has one of Databricks or Mistral sends it without an origin; what is left is a text, as every host takes it."""
    text = Message(Role.ASSISTANT, (Opaque(part), Text("Hi")), listed=True)
    call = Message(Role.ASSISTANT, (Opaque(part), ToolCall("c1", "f", "{}")), listed=True)
    takes = host == "unknown" or (host == "mistral" and part is THOUGHT_PART)
    assert encoded(host, text, call, model="magistral-small") == [
        {"role": "assistant", **as_host_has_it(host, {"content": [part, *parts("Hi")]} if takes else HI)},
        {"role": "assistant", **as_host_has_it(host, {**called(), "content": [part]} if takes else called())},
    ]


@pytest.mark.parametrize("host", ["mistral", "cerebras", "gemini"])
def test_function_calls_of_2023_to_hosts_of_today(host: str) -> None:
    """As tool calls, each with an id that its result has too."""
    turn = (
        reply("else", ToolCall("", "f", "{}", FUNCTION_CALL)),
        Message(Role.TOOL, (ToolResult("", (Text("ok"),), type=FUNCTION_CALL),), "f"),
    )
    sent = encoded(host, *turn, *turn, model="gemini-2.5-pro")
    ids = [short(call_id) if host == "mistral" else call_id for call_id in ("call_1", "call_2")]
    assert [message["tool_calls"][0]["id"] for message in sent[::2]] == ids
    assert sent[1::2] == [{"role": "tool", "tool_call_id": call_id, "content": "ok", "name": "f"} for call_id in ids]


def test_a_part_that_is_a_thought_to_a_host_that_has_none() -> None:
    """Hosts that are known have thoughts in fields; one that nobody knows may be Databricks."""
    message = Message(Role.ASSISTANT, (Opaque(SUMMARY), Text("Hi")), listed=True)
    assert encoded("together", message) == [{"role": "assistant", **HI}]
    assert encoded("databricks", message) == [{"role": "assistant", "content": [SUMMARY, *parts("Hi")]}]


@pytest.mark.parametrize("host", ["gemini", "deepseek", "together", "xai"])
def test_a_refusal_that_a_client_sends_to_another_host(host: str) -> None:
    """It is text there: a reply without content would be refused."""
    (sent,) = encoded(host, Message(Role.ASSISTANT, (Refusal("No"),)))
    assert sent == {"role": "assistant", **as_host_has_it(host, {"content": "No"})}


def test_videos() -> None:
    """They go out in the form in which hosts take them, with the caller's own fields; OpenAI takes none."""
    video = Video(Media("data:video/mp4;base64,AAAA"), extra={"video_url": {"fps": 2}, "a": 1})
    asked = Message(Role.USER, (Text("See"), video))
    (message,) = encoded("openrouter", asked)
    sent = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA", "fps": 2}, "a": 1}
    assert message["content"] == [*parts("See"), sent]
    with pytest.raises(Unsupported, match="accepts no Video"):
        encoded("openai", asked)
    with pytest.raises(Unsupported, match="only as a URL"):
        encoded("openrouter", Message(Role.USER, (Video(Media(file_id="f")),)))
