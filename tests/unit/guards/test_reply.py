"""Guards over replies, event by event."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from antiphon.config import GuardConfig
from antiphon.domain.errors import ProviderProtocolError
from antiphon.domain.events import (
    AudioDelta,
    Batch,
    DeltaGroup,
    Event,
    ExtraDelta,
    Finished,
    FinishReason,
    RefusalDelta,
    ReplyExtra,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from antiphon.domain.reply import Reply
from antiphon.domain.request import ChatRequest, JsonObjectFormat, ResponseFormat, Sampling
from antiphon.guards.registry import build_guards
from tests.unit.guards.feeding import pieces
from tests.unit.scripted import START, STOP, USAGE, ScriptedProvider

FILTERED = Finished(0, FinishReason.CONTENT_FILTER, "content_filter")


def reading(
    provider: ScriptedProvider, action: str = "mask", choices: int = 1, form: ResponseFormat | None = None
) -> AsyncGenerator[Batch, None]:
    made = build_guards([GuardConfig(name="words", kind="blocklist", patterns=["bad+|4{4}"], action=action, replacement="#")])  # type: ignore[call-arg]
    assert made is not None
    request = ChatRequest("one", (), stream=True, sampling=Sampling(choices=choices), response_format=form)
    return made.reply(provider.stream(request), request)


async def told(*batches: Batch | Exception | None, **options: Any) -> list[Batch]:
    return [batch async for batch in reading(ScriptedProvider(*batches), **options)]


async def test_text_is_told_as_it_comes_but_for_what_may_be_the_beginning_of_a_match() -> None:
    """The rest comes before the end."""
    assert await told([START, TextDelta(0, "so b")], [TextDelta(0, "a")], [TextDelta(0, "d ba")], [USAGE, STOP]) == [
        [START, TextDelta(0, "so ")],
        [TextDelta(0, "# ")],
        [USAGE, TextDelta(0, "ba"), STOP],
    ]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["mask", "block"]))
async def test_a_reply_is_the_same_whichever_way_it_is_split(data: st.DataObject, action: str) -> None:
    """Text of two choices that come by turns, and thoughts before."""
    texts = pieces(st.text(alphabet="bad 4\n", max_size=20))
    split = [data.draw(texts) for _ in range(4)]

    def whole(deltas: Sequence[Sequence[str]]) -> list[Event]:
        events: list[Event] = [ThinkingDelta(index, text) for index in (0, 1) for text in deltas[index]]
        for at in range(max(len(deltas[2]), len(deltas[3]))):
            events += [TextDelta(index, deltas[2 + index][at]) for index in (0, 1) if at < len(deltas[2 + index])]
        return events

    async def answered(events: list[Event]) -> list[Any]:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
        batches = [events[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(events)], strict=True) if begin < end]
        reply = Reply()
        for batch in await told([START], *batches, [STOP, Finished(1, FinishReason.STOP, "stop")], action=action, choices=2):
            for event in batch:
                reply.add(event)
        return [(c.index, "".join(c.thinking), "".join(c.text), c.reason) for c in reply.choices]

    assert await answered(whole(split)) == await answered(whole([["".join(text)] for text in split]))


async def test_a_match_ends_the_reply_and_the_providers_call() -> None:
    """As filtered, with what came before it, though the provider would go on."""
    provider = ScriptedProvider([START, TextDelta(0, "so ba")], [TextDelta(0, "d "), TextDelta(0, "more")], None)
    batches = reading(provider, "block")
    assert await anext(batches) == [START, TextDelta(0, "so ")]
    assert await anext(batches) == [FILTERED]
    assert provider.closed == 1
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


async def test_each_choice_ends_for_itself() -> None:
    """The call goes on for those that are left, and ends when none is."""
    two = [TextDelta(1, "good"), Finished(0, FinishReason.STOP, "stop"), Finished(1, FinishReason.LENGTH, "length")]
    assert await told([START, TextDelta(0, "bad !")], [TextDelta(0, "more")], two, action="block", choices=2) == [
        [START],
        [TextDelta(1, "good"), FILTERED, Finished(1, FinishReason.LENGTH, "length")],
    ]
    assert await told([START, TextDelta(0, "bad !")], [TextDelta(1, "ok bad !")], None, action="block", choices=2) == [
        [START],
        [TextDelta(1, "ok "), FILTERED, Finished(1, FinishReason.CONTENT_FILTER, "content_filter")],
    ]


async def test_a_whole_reply_keeps_its_usage() -> None:
    """The provider has counted it already."""
    assert await told([START, TextDelta(0, "so bad"), USAGE, STOP], action="block") == [
        [START, TextDelta(0, "so "), USAGE, FILTERED]
    ]


async def test_a_match_that_ends_with_the_reply_is_found() -> None:
    """Nothing comes after it."""
    assert await told([START, TextDelta(0, "so bad")], [STOP], action="block") == [[START, TextDelta(0, "so ")], [FILTERED]]


async def test_tool_calls_come_whole_when_all_is_said() -> None:
    """Their arguments stay JSON: names and values are masked, escaped or not, and the function's name as in a request."""
    batches = [
        [START, TextDelta(0, "Ba"), ToolCallDelta(0, 0, "a", "bad", '{"bad": "b')],
        [ToolCallDelta(0, 0, None, None, '\\u0061d", "n": 44'), ToolCallDelta(0, 1, "b", "good", '{"x":  1}')],
        [ToolCallDelta(0, 0, None, None, "44}"), TextDelta(0, "d b")],
        [Finished(0, FinishReason.TOOL_CALLS, "tool_calls")],
    ]
    assert (await told(*batches))[-1] == [
        TextDelta(0, "b"),
        ToolCallDelta(0, 0, "a", "#", '{"#": "#", "n": "#"}'),
        ToolCallDelta(0, 1, "b", "good", '{"x":  1}'),
        Finished(0, FinishReason.TOOL_CALLS, "tool_calls"),
    ]
    assert (await told(*batches, action="block"))[-1] == [TextDelta(0, "b"), FILTERED]


@pytest.mark.parametrize(("name", "arguments"), [("a_bad_f", "{}"), ("f", '{"bad": 1}'), ("f", '{"a": 1, "a": "\\u0062ad"}')])
async def test_names_in_a_call_are_read(name: str, arguments: str) -> None:
    """That of the function, and those of fields: fields that only the provider knows could tell them."""
    call = ToolCallDelta(0, 0, "a", name, arguments)
    assert await told([START, call, ExtraDelta(0, {"x": 1}), STOP], action="block") == [[START, FILTERED]]
    (masked,) = await told([START, call, ExtraDelta(0, {"x": 1}), STOP])
    assert [type(event) for event in masked] == [type(START), ToolCallDelta, Finished]
    assert "bad" not in str(masked)


async def test_a_thought_ends_where_something_else_comes() -> None:
    """A signature is told only where nothing was masked: it is good for that text alone."""
    assert await told(
        [START, ThinkingDelta(0, "good b"), TextDelta(0, "Hi")],
        [ThinkingDelta(0, "b"), ThinkingDelta(0, "", signature="one")],
        [ThinkingDelta(0, "ba"), ThinkingDelta(0, "d"), ThinkingDelta(0, "", signature="two")],
        [STOP],
    ) == [
        [START, ThinkingDelta(0, "good "), ThinkingDelta(0, "b"), TextDelta(0, "Hi")],
        [ThinkingDelta(0, "b"), ThinkingDelta(0, "", signature="one")],
        [ThinkingDelta(0, "#")],
        [STOP],
    ]


async def test_fields_of_a_reply_as_a_whole_pass_unless_a_guard_finds_something_in_them() -> None:
    """At its start, and later."""
    start = replace(START, extra={"service_tier": "default", "citations": ["bad.example"]})
    batches = [[start], [TextDelta(0, "Hi"), ReplyExtra({"search_results": ["fine"]}), ReplyExtra({"note": "bad"})], [STOP]]
    passed = [event for batch in await told(*batches) for event in batch]
    assert passed[0] == replace(START, extra={"service_tier": "default"})
    assert [event for event in passed if isinstance(event, ReplyExtra)] == [ReplyExtra({"search_results": ["fine"]})]


async def test_refusals_and_transcripts_are_read() -> None:
    """Sound passes."""
    batches = [
        [START, RefusalDelta(0, "No b"), AudioDelta(0, "id", "QUJD", "so ba")],
        [RefusalDelta(0, "ad."), AudioDelta(0, None, "QUJD", "d."), STOP],
    ]
    assert await told(*batches) == [
        [START, RefusalDelta(0, "No "), AudioDelta(0, transcript="so "), AudioDelta(0, "id", "QUJD")],
        [RefusalDelta(0, "#."), AudioDelta(0, transcript="#."), AudioDelta(0, None, "QUJD"), STOP],
    ]


def token(text: str, *others: str) -> dict[str, Any]:
    return {"token": text, "logprob": -0.4444, "bytes": list(text.encode()), "top_logprobs": [{"token": each} for each in others]}


async def test_log_probabilities_come_with_the_text_that_they_spell_until_it_is_changed() -> None:
    """With the end of their piece of it. Those that spell something else, or have an alternative that is masked, are left out."""
    hi, bar, ba, d = token("Hi "), token("bar"), token("ba"), token("d")
    batches = [
        [START, TextDelta(0, "Hi ", (hi,)), TextDelta(0, "ba", (token("ba"),))],
        [TextDelta(0, "r ", (token("r "),)), TextDelta(0, "x", (bar,)), TextDelta(0, "y", (token("y", "bad"),))],
        [TextDelta(0, "ba", (ba,)), TextDelta(0, "d", (d,)), TextDelta(0, " end", (token(" end"),)), STOP],
    ]
    events = [event for batch in await told(*batches) for event in batch]
    assert events == [
        START,
        TextDelta(0, "Hi ", (hi,)),
        TextDelta(0, "bar ", (ba, token("r "))),
        TextDelta(0, "x"),
        TextDelta(0, "y"),
        TextDelta(0, "# end"),
        STOP,
    ]


async def test_log_probabilities_wait_for_their_text_where_some_of_it_came_without() -> None:
    """Those of what is held back would spell a match that is masked a moment later."""
    bar, held = token("r "), token("xy ba")
    batches = [[START, TextDelta(0, "ba"), TextDelta(0, "r ", (bar,)), TextDelta(0, "xy ba", (held,))], [TextDelta(0, "d"), STOP]]
    events = [event for batch in await told(*batches) for event in batch]
    assert events == [START, TextDelta(0, "bar ", (bar,)), TextDelta(0, "xy "), TextDelta(0, "#"), STOP]


async def test_fields_that_only_the_provider_knows_come_last_where_nothing_was_changed() -> None:
    """As they came, but for log probabilities of refusals, which nobody has matched with what they spell."""
    fields = ExtraDelta(0, {"annotations": [{"url": "x"}]}, {"stop": None, "logprobs": {"refusal": [{"token": "b"}]}})
    whole = ExtraDelta(0, fields.fields, {"stop": None})
    assert await told([START, fields, TextDelta(0, "good")], [STOP]) == [[START, TextDelta(0, "good")], [whole, STOP]]
    for changed in (TextDelta(0, "bad"), ThinkingDelta(0, "bad"), RefusalDelta(0, "bad"), ToolCallDelta(0, 0, "a", "f", '["bad"]')):
        events = [event for batch in await told([START, fields, changed], [STOP]) for event in batch]
        assert not any(isinstance(event, ExtraDelta) for event in events)


async def test_fields_of_a_tool_call_come_with_it_where_nothing_was_changed() -> None:
    """In one delta, whichever way they are split; without them where a guard finds something in them, or elsewhere."""
    call, more = ToolCallDelta(0, 0, "a", "f", "{}", extra={"x": "go"}), ToolCallDelta(0, 0, extra={"x": "od"})
    whole = ToolCallDelta(0, 0, "a", "f", "{}", extra={"x": "good"})
    assert await told([START, DeltaGroup(0, 2), TextDelta(0, "x# "), call], [more], [STOP]) == [
        [START, TextDelta(0, "x# ")],
        [whole, STOP],
    ]
    plain = ToolCallDelta(0, 0, "a", "f", "{}")
    bad = [ToolCallDelta(0, 0, "a", "f", "{}", extra={"x": "b"}), ToolCallDelta(0, 0, extra={"x": "ad"})]
    assert await told([START, *bad], [STOP]) == [[START], [plain, STOP]]
    events = [event for batch in await told([START, TextDelta(0, "bad"), call], [STOP]) for event in batch]
    assert plain in events


async def test_what_is_repeated_of_a_reply_passes_as_such() -> None:
    """So that a caller is told it as often as the provider tells it."""
    again = ReplyExtra({"fp": "x"}, repeats=True)
    bad, none = ReplyExtra({"fp": "bad"}, repeats=True), ReplyExtra({}, repeats=True)
    assert await told([START, again, bad], [STOP]) == [[START, again, none], [STOP]]


@pytest.mark.parametrize("action", ["mask", "block"])
@pytest.mark.parametrize(
    "fields",
    [
        [{"reasoning_content": "b"}, {"reasoning_content": "ad"}],
        [{"details": [{"type": "text", "text": "b"}]}, {"details": [{"type": "text", "text": "ad"}]}],
        [{"tool_calls": [{"index": 0, "custom": {"input": "ba"}}]}, {"tool_calls": [{"index": 0, "custom": {"input": "d"}}]}],
        [{"number": 4444}],
    ],
)
async def test_fields_in_which_something_is_found_are_left_out(fields: list[dict[str, Any]], action: str) -> None:
    """However they are split; and the reply goes on."""
    events = [[START], *([ExtraDelta(0, each)] for each in fields), [TextDelta(0, "good"), STOP]]
    assert await told(*events, action=action) == [[START], [TextDelta(0, "good"), STOP]]  # type: ignore[arg-type]


async def test_a_masked_number_of_a_reply_that_is_to_be_json_becomes_a_string() -> None:
    """And the stream is not held back for it."""
    assert await told(
        [START, TextDelta(0, '{"n": 44')], [TextDelta(0, "44, ")], [TextDelta(0, '"x": 1}'), STOP], form=JsonObjectFormat()
    ) == [
        [START, TextDelta(0, '{"n": ')],
        [TextDelta(0, '"#", ')],
        [TextDelta(0, '"x": 1}'), STOP],
    ]


async def test_what_came_before_a_cut_is_told() -> None:
    """And then the cut is."""
    batches = reading(ScriptedProvider([START, TextDelta(0, "so ba")], ProviderProtocolError("Cut.", provider="p")))
    assert [await anext(batches), await anext(batches)] == [[START, TextDelta(0, "so ")], [TextDelta(0, "ba")]]
    with pytest.raises(ProviderProtocolError):
        await anext(batches)


async def test_a_caller_that_leaves_closes_the_providers_call() -> None:
    """At once."""
    provider = ScriptedProvider([START], None)
    batches = reading(provider)
    await anext(batches)
    await batches.aclose()
    assert provider.closed == 1
