"""Tests of guards on requests."""

import asyncio

import pytest
from msgspec.structs import replace

from antiphon.config import GuardConfig
from antiphon.domain.content import (
    Audio,
    Block,
    Citation,
    Compaction,
    Document,
    Image,
    Media,
    Message,
    Opaque,
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
from antiphon.domain.errors import ContentBlocked
from antiphon.domain.request import (
    AudioOutput,
    ChatRequest,
    JsonSchemaFormat,
    NativeTool,
    Reasoning,
    Sampling,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from antiphon.guards.registry import build_guards
from antiphon.guards.service import Guards
from tests.unit.other_calls import other_call


def guards(action: str = "mask", on: tuple[str, ...] = ("request",)) -> Guards:
    made = build_guards(
        [GuardConfig(name="words", kind="blocklist", patterns=["bad+|4{4}"], action=action, replacement="#", on=on)]
    )  # type: ignore[call-arg, arg-type]
    assert made is not None
    return made


def request_with(*parts: Block) -> ChatRequest:
    return ChatRequest("one", (Message(Role.USER, parts),), stream=True)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Text("a bad one", extra={"cache": {"note": "bad"}}), Text("a # one", extra={"cache": {"note": "#"}})),
        (Refusal("bad"), Refusal("#")),
        (Thinking("so bad", state=State("s")), Thinking("so #")),
        (Thinking("so good", state=State("s")), Thinking("so good", state=State("s"))),
        (ToolCall("bad", "bad_f", '{"bad": ["\\u0062ad", 4444, 1.50]}'), ToolCall("bad", "#_f", '{"#": ["#", "#", 1.50]}')),
        (ToolCall("1", "f", '{"bad": 1, "badd": 2, "a": 3}'), ToolCall("1", "f", '{"#": 1, "#_": 2, "a": 3}')),
        (ToolCall("1", "f", '{"a": "bad", "a": ""}'), ToolCall("1", "f", '{"a": "#", "a": ""}')),
        (ToolCall("1", "f", '{"good":  1.50}'), ToolCall("1", "f", '{"good":  1.50}')),
        (ToolCall("1", "f", "{bad"), ToolCall("1", "f", "{#")),
        (ToolCall("1", "f", "[" * 900 + '"bad"' + "]" * 900), ToolCall("1", "f", "[" * 900 + '"#"' + "]" * 900)),
        (ToolResult("1", (Text("bad"),)), ToolResult("1", (Text("#"),))),
        (Document(Media(url="data:bad"), filename="bad.txt"), Document(Media(url="data:bad"), filename="#.txt")),
        (Document(Media(file_id="bad-1")), Document(Media(file_id="bad-1"))),
        (Document(Media(file_id="a bad file")), Document(Media(file_id="a # file"))),
        (Image(Media("https://a.test/bad.png"), "bad"), Image(Media("https://a.test/bad.png"), "#")),
        (Image(Media("a bad one"), "high"), Image(Media("a # one"), "high")),
        (Audio(Media("data:audio/bad\u00a0x;base64,bad\nbad")), Audio(Media("data:audio/#\u00a0x;base64,bad\nbad"))),
        (Video(Media("data:video/mp4;base64,bad\nbad")), Video(Media("data:video/mp4;base64,bad\nbad"))),
        (Thinking("good", state=State("so bad")), Thinking("good")),
        (Text("good", state=State("s", {"note": "bad"})), Text("good")),
        (RedactedThinking(state=State("bad")), RedactedThinking(state=State("bad"))),
        (ServerToolCall("1", "t", "bad", '{"q": "bad"}'), ServerToolCall("1", "t", "#", '{"q": "#"}')),
        (ServerToolResult("1", "t", state=State(fields={"x": "bad"})), ServerToolResult("1", "t")),
        (ServerToolCall("1", "a bad", state=State("s")), ServerToolCall("1", "a #")),
        (ServerToolResult("1", "a bad", state=State("s")), ServerToolResult("1", "a #")),
        (ToolResult("1", (), type="a bad"), ToolResult("1", (), type="a #")),
        (Thinking("", "a bad"), Thinking("", "a #")),
        (Text("x", (Citation("a bad", source_id="so bad"),)), Text("x", (Citation("a #", source_id="so #"),))),
        (Compaction("so bad"), Compaction("so #")),
        (Text("x", (Citation("https://a.test/bad", "bad"),)), Text("x", (Citation("https://a.test/bad", "#"),))),
        (
            Opaque({"type": "odd", "text": "bad", "n": True, "none": None}),
            Opaque({"type": "odd", "text": "#", "n": True, "none": None}),
        ),
    ],
)
async def test_every_block_that_is_text_is_masked(part: Block, expected: Block) -> None:
    """Text in every kind of block is masked.

    JSON stays JSON, unchanged text stays as it was written, and a changed block loses its state.
    """
    assert await guards().request(request_with(part)) == request_with(expected)


async def test_what_goes_with_the_messages_is_masked_too() -> None:
    """All other text of a request is masked too: tools, response format, stop sequences, end user, names and unknown fields."""
    request = ChatRequest(
        "bad",
        (Message(Role.SYSTEM, (Text("bad"),)), Message(Role.USER, (), name="bad")),
        stream=False,
        sampling=Sampling(stop=("bad", "end")),
        tools=(Tool("bad", "bad", {"enum": ["bad"]}), NativeTool({"query": "bad"})),
        tool_choice=ToolChoice(ToolChoiceMode.AUTO, native={"x": "bad"}),
        response_format=JsonSchemaFormat("bad", {"title": "bad"}, extra={"json_schema": {"x": "bad"}}),
        end_user="bad@home",
        extra={"prediction": {"content": "bad"}, "metadata": {"bad": "x"}},
        trusted=1,
    )
    assert await guards().request(request) == ChatRequest(
        "bad",
        (Message(Role.SYSTEM, (Text("bad"),)), Message(Role.USER, (), name="#")),
        stream=False,
        sampling=Sampling(stop=("#", "end")),
        tools=(Tool("#", "#", {"enum": ["#"]}), NativeTool({"query": "#"})),
        tool_choice=ToolChoice(ToolChoiceMode.AUTO, native={"x": "#"}),
        response_format=JsonSchemaFormat("#", {"title": "#"}, extra={"json_schema": {"x": "#"}}),
        end_user="#@home",
        extra={"prediction": {"content": "#"}, "metadata": {"#": "x"}},
        trusted=1,
    )


@pytest.mark.parametrize("stop", ["a bad end", ("bad",)])
async def test_a_call_still_belongs_to_its_tool_and_what_ends_a_reply_is_masked(stop: str | tuple[str, ...]) -> None:
    """A name is masked alike at every place, so that a call still matches its tool.

    Ids are masked only if they are text with spaces.
    """
    request = ChatRequest(
        "one",
        (
            Message(Role.ASSISTANT, (ToolCall("bad 1", "bad_f", "{}"), ToolCall("bad:1|fc_bad/+=", "f", "{}"))),
            Message(Role.TOOL, (ToolResult("bad 1", ()), ToolResult("bad:1|fc_bad/+=", ()))),
        ),
        stream=True,
        sampling=Sampling(stop=stop),
        tools=(Tool("bad_f"),),
        tool_choice=ToolChoice(ToolChoiceMode.TOOL, "bad_f"),
    )
    assert await guards().request(request) == ChatRequest(
        "one",
        (
            Message(Role.ASSISTANT, (ToolCall("# 1", "#_f", "{}"), ToolCall("bad:1|fc_bad/+=", "f", "{}"))),
            Message(Role.TOOL, (ToolResult("# 1", ()), ToolResult("bad:1|fc_bad/+=", ()))),
        ),
        stream=True,
        sampling=Sampling(stop="a # end" if isinstance(stop, str) else ("#",)),
        tools=(Tool("#_f"),),
        tool_choice=ToolChoice(ToolChoiceMode.TOOL, "#_f"),
    )


async def test_settings_in_words_are_masked() -> None:
    """Settings that are text are masked. Token numbers in `logit_bias` are not."""
    request = ChatRequest(
        "one",
        (),
        stream=True,
        sampling=Sampling(logit_bias={"4444": 1, "a bad": -1}),
        reasoning=Reasoning("bad"),
        modalities=("text", "bad"),
        audio_output=AudioOutput("bad", "bad"),
    )
    assert await guards().request(request) == replace(
        request,
        sampling=Sampling(logit_bias={"#": 1, "a #": -1}),
        reasoning=Reasoning("#"),
        modalities=("text", "#"),
        audio_output=AudioOutput("#", "#"),
    )
    tokens = replace(request, sampling=Sampling(logit_bias={"4444": 1}), reasoning=None, modalities=(), audio_output=None)
    assert await guards().request(tokens) == tokens


async def test_a_blocked_request_names_the_guard_only() -> None:
    """`ContentBlocked` has the guard's name and not the text that was found."""
    with pytest.raises(ContentBlocked) as caught:
        await guards("block").request(request_with(Text("a bad one")))
    assert caught.value.metadata == {"guard": "words"}
    assert "bad" not in caught.value.message


async def test_a_guard_of_replies_alone_leaves_requests() -> None:
    """A guard for replies only returns the same request object."""
    request = request_with(Text("bad"))
    assert await guards(on=("reply",)).request(request) is request


async def test_a_long_text_does_not_keep_other_calls_waiting() -> None:
    """A long text is read in pieces that yield to other calls, and a match across two pieces is found."""
    task = asyncio.create_task(guards().request(request_with(Text("-" * 5_110 + "bad" + "-" * 100_000))))
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    assert (await task) == request_with(Text("-" * 5_110 + "#" + "-" * 100_000))
    assert turns > 100


async def test_guards_read_in_order() -> None:
    """Guards run in the configured order, each on the result of the one before."""
    made = build_guards(
        [
            GuardConfig(name="one", kind="blocklist", patterns=["bad"], action="mask", replacement="worse"),  # type: ignore[call-arg]
            GuardConfig(name="two", kind="blocklist", patterns=["bad|worst"]),  # type: ignore[call-arg]
            GuardConfig(name="three", kind="blocklist", patterns=["worse"], action="mask"),  # type: ignore[call-arg]
        ]
    )
    assert made is not None
    assert await made.request(request_with(Text("a bad one"))) == request_with(Text("a [REMOVED] one"))
    with pytest.raises(ContentBlocked, match="two"):
        await made.request(request_with(Text("the worst")))


@pytest.mark.parametrize(
    "request_",
    [
        ChatRequest("m", (Message(Role.USER, (Text("x"),)),) * 1000, stream=False),
        ChatRequest("m", (Message(Role.USER, (Text("x"),) * 1000),), stream=False),
        ChatRequest("m", (Message(Role.TOOL, (ToolResult("c", (Text("x"),) * 15),) * 15),) * 15, stream=False),
        ChatRequest("m", (), stream=False, extra={"x": ["x"] * 5000}),
        ChatRequest("m", (), stream=False, extra={"x": [{"y": index} for index in range(5000)]}),
        ChatRequest("m", (), stream=False, extra={str(index): None for index in range(5000)}),
        ChatRequest("m", (), stream=False, tools=(Tool("x", parameters={"a": "b"}),) * 1000),
    ],
    ids=["messages", "parts", "parts in parts", "texts", "objects", "names", "tools"],
)
async def test_many_short_texts_yield_to_other_calls(request_: ChatRequest) -> None:
    """Masking many short texts yields to other calls: after 16 messages, parts or tools, and after 100 texts in JSON."""
    async with other_call() as other:
        await guards().request(request_)
        assert other.turns >= 45
