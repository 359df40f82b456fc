"""Guards over replies, event by event."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from antiphon.config import GuardConfig
from antiphon.domain.content import Audio, Citation, Compaction, Image, Media, RedactedThinking, State, Text, Thinking, ToolCall
from antiphon.domain.errors import ProviderProtocolError
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    CitationDelta,
    DeltaGroup,
    Event,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    MediaDelta,
    Place,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
)
from antiphon.domain.reply import Reply
from antiphon.domain.request import ChatRequest, JsonObjectFormat, ResponseFormat, Sampling
from antiphon.guards.registry import build_guards
from tests.unit.framing import check, without_frames
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


async def framed(*batches: Batch | Exception | None, **options: Any) -> list[Batch]:
    return [batch async for batch in reading(ScriptedProvider(*batches), **options)]


async def told(*batches: Batch | Exception | None, **options: Any) -> list[Batch]:
    """What is told, but for what only frames the blocks."""
    found = [without_frames(batch) for batch in await framed(*batches, **options)]
    return [batch for batch in found if batch]


def begin(block: int, choice: int = 0) -> BlockStarted:
    return BlockStarted(block, choice, Text(""))


def call(block: int, call_id: str, name: str, arguments: str, state: State | None = None, choice: int = 0) -> list[Event]:
    return [BlockStarted(block, choice, ToolCall(call_id, name, "", state=state)), InputDelta(block, arguments)]


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
        events: list[Event] = []
        for index in (0, 1):
            events += [BlockStarted(index, index, Thinking("")), *(ThinkingDelta(index, text) for text in deltas[index])]
            events.append(BlockFinished(index))
        events += [begin(2), begin(3, 1)]
        for at in range(max(len(deltas[2]), len(deltas[3]))):
            events += [TextDelta(2 + index, deltas[2 + index][at]) for index in (0, 1) if at < len(deltas[2 + index])]
        return events

    async def answered(events: list[Event]) -> list[Any]:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
        batches = [events[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(events)], strict=True) if begin < end]
        reply = Reply()
        found: list[Event] = []
        for batch in await framed([START], *batches, [STOP, Finished(1, FinishReason.STOP, "stop")], action=action, choices=2):
            found += batch
            for event in batch:
                reply.add(event)
        check(found, in_order=False)
        return [(c.index, [(type(b.value), b.text) for b in c.blocks if b.text], c.reason) for c in reply.choices]

    assert await answered(whole(split)) == await answered(whole([["".join(text)] for text in split]))


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(["mask", "block"]))
async def test_a_text_over_many_blocks_is_one(data: st.DataObject, action: str) -> None:
    """What is told of it is the same as of one block; what no guard changes stays in its block, and the frames are in order."""
    split = data.draw(pieces(st.text(alphabet="bad 4", max_size=20)))
    events: list[Event] = []
    for number, piece in enumerate(split):
        events += [begin(number), TextDelta(number, piece), BlockFinished(number)]
    found = [event for batch in await framed([START], *([event] for event in events), [STOP], action=action) for event in batch]
    check(found)
    (one,) = await framed([START, begin(0), TextDelta(0, "".join(split)), STOP], action=action)
    assert "".join(e.text for e in found if isinstance(e, TextDelta)) == "".join(e.text for e in one if isinstance(e, TextDelta))
    if not any(word in "".join(split) for word in ("bad", "4444")):
        told_of = {
            number: "".join(e.text for e in found if isinstance(e, TextDelta) and e.block == number) for number in range(len(split))
        }
        assert list(told_of.values()) == split


async def test_a_block_that_was_changed_has_no_signature() -> None:
    """Nor have its sources a place in it; the others keep theirs, also where a match goes over two."""
    source = CitationDelta(0, Citation("u", "t", start=0, end=2))
    events: list[Event] = []
    for number, text in enumerate(("so b", "ad", " good")):
        events += [begin(number), TextDelta(number, text), CitationDelta(number, source.citation)]
        events.append(BlockFinished(number, State(f"s{number}", {"x": 1})))
    found = [event for batch in await framed([START, *events], [STOP]) for event in batch]
    check(found)
    states = {event.block: event.state for event in found if isinstance(event, BlockFinished)}
    assert states == {0: State(None, {"x": 1}), 1: State(None, {"x": 1}), 2: State("s2", {"x": 1})}
    places = [event.citation.start for event in found if isinstance(event, CitationDelta)]
    assert places == [None, None, 0]
    assert "".join(event.text for event in found if isinstance(event, TextDelta)) == "so # good"


async def test_a_signature_that_is_a_text_is_read() -> None:
    """Where nobody can read it, no guard does; else a block does without it, if something is found in it."""
    for value, passes in (("bad", True), ("so good", True), ("so bad", False)):
        state, expected = State(value, {"x": 1}), State(value if passes else None, {"x": 1})
        encrypted, thought = BlockStarted(0, 0, RedactedThinking(state=state)), BlockStarted(1, 0, Thinking(""))
        events = [
            encrypted,
            BlockFinished(0),
            thought,
            ThinkingDelta(1, "hm"),
            BlockFinished(1, state),
            *call(2, "c", "f", "{}", state),
        ]
        found = [event for batch in await framed([START, *events, BlockFinished(2)], [STOP]) for event in batch]
        check(found)
        begun = [event.value.state for event in found if isinstance(event, BlockStarted)]
        assert begun == [expected, None, expected]
        assert BlockFinished(1, expected) in found


async def test_a_summary_is_read() -> None:
    """Masked, it is not what its provider has signed; what is blocked ends the choice."""
    state = State("s", {"x": 1})
    good, bad = BlockStarted(0, 0, Compaction("good", state=state)), BlockStarted(1, 0, Compaction("so bad", state=state))
    masked = BlockStarted(1, 0, Compaction("so #"))
    ends = [BlockFinished(0), BlockFinished(1)]
    assert await told([START, good, bad, *ends], [STOP]) == [
        [START],
        [BlockStarted(0, 0, Compaction("good", state=State("s"))), masked, STOP],
    ]
    assert await told([START, good, ends[0]], [STOP]) == [[START], [good, STOP]]
    assert await told([START, good, bad, *ends], [STOP], action="block") == [[START], [FILTERED]]


async def test_a_block_that_is_cut_where_something_is_blocked_has_no_signature() -> None:
    """Also one that it began with."""
    signed = BlockStarted(0, 0, Text("", state=State("s", {"x": 1})))
    batches = await framed([START, signed, TextDelta(0, "so bad"), BlockFinished(0)], [STOP], action="block")
    found = [event for batch in batches for event in batch]
    check(found)
    assert found == [START, signed, TextDelta(0, "so "), BlockFinished(0, State(None, {"x": 1})), FILTERED]


async def test_a_match_ends_the_reply_and_the_providers_call() -> None:
    """As filtered, with what came before it, though the provider would go on."""
    provider = ScriptedProvider([START, TextDelta(0, "so ba")], [TextDelta(0, "d "), TextDelta(0, "more")], None)
    batches = reading(provider, "block")
    assert await anext(batches) == [START, begin(0), TextDelta(0, "so ")]
    assert await anext(batches) == [BlockFinished(0), FILTERED]
    assert provider.closed == 1
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


async def test_each_choice_ends_for_itself() -> None:
    """The call goes on for those that are left, and ends when none is."""
    two = [begin(1, 1), TextDelta(1, "good"), Finished(0, FinishReason.STOP, "stop"), Finished(1, FinishReason.LENGTH, "length")]
    assert await told([START, TextDelta(0, "bad !")], [TextDelta(0, "more")], two, action="block", choices=2) == [
        [START],
        [TextDelta(1, "good"), FILTERED, Finished(1, FinishReason.LENGTH, "length")],
    ]
    assert await told([START, TextDelta(0, "bad !")], [begin(1, 1), TextDelta(1, "ok bad !")], None, action="block", choices=2) == [
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
        [START, TextDelta(0, "Ba"), *call(1, "a", "bad", '{"bad": "b')],
        [InputDelta(1, '\\u0061d", "n": 44'), *call(2, "b", "good", '{"x":  1}')],
        [InputDelta(1, "44}"), TextDelta(0, "d b")],
        [Finished(0, FinishReason.TOOL_CALLS, "tool_calls")],
    ]
    assert (await told(*batches))[-1] == [
        TextDelta(0, "b"),
        *call(1, "a", "#", '{"#": "#", "n": "#"}'),
        *call(2, "b", "good", '{"x":  1}'),
        Finished(0, FinishReason.TOOL_CALLS, "tool_calls"),
    ]
    assert (await told(*batches, action="block"))[-1] == [TextDelta(0, "b"), FILTERED]


@pytest.mark.parametrize(("name", "arguments"), [("a_bad_f", "{}"), ("f", '{"bad": 1}'), ("f", '{"a": 1, "a": "\\u0062ad"}')])
async def test_names_in_a_call_are_read(name: str, arguments: str) -> None:
    """That of the function, and those of fields: fields that only the provider knows could tell them."""
    made = call(0, "a", name, arguments)
    assert await told([START, *made, ExtraFields(0, {"x": 1}), STOP], action="block") == [[START, FILTERED]]
    (masked,) = await told([START, *made, ExtraFields(0, {"x": 1}), STOP])
    assert [type(event) for event in masked] == [type(START), BlockStarted, InputDelta, Finished]
    assert "bad" not in str(masked)


async def test_a_thought_ends_where_something_else_comes() -> None:
    """A signature is told only where nothing was masked: it is good for that text alone. What is encrypted passes."""
    sealed = BlockStarted(3, 0, RedactedThinking(state=State("d")))
    assert await told(
        [START, ThinkingDelta(0, "good b"), TextDelta(1, "Hi")],
        [ThinkingDelta(2, "b"), BlockFinished(2, State("one"))],
        [sealed, BlockFinished(3), ThinkingDelta(4, "ba"), ThinkingDelta(4, "d"), BlockFinished(4, State("two"))],
        [STOP],
    ) == [
        [START, ThinkingDelta(0, "good "), ThinkingDelta(0, "b"), TextDelta(1, "Hi")],
        [ThinkingDelta(2, "b"), BlockFinished(2, State("one"))],
        [sealed, ThinkingDelta(4, "#")],
        [STOP],
    ]


async def test_fields_of_a_reply_as_a_whole_pass_unless_a_guard_finds_something_in_them() -> None:
    """At its start, and later."""
    start = replace(START, fields={"service_tier": "default", "citations": ["bad.example"]})
    batches = [
        [start],
        [
            TextDelta(0, "Hi"),
            ExtraFields(None, {"search_results": ["fine"]}, Place.REPLY),
            ExtraFields(None, {"note": "bad"}, Place.REPLY),
        ],
        [STOP],
    ]
    passed = [event for batch in await told(*batches) for event in batch]
    assert passed[0] == replace(START, fields={"service_tier": "default"})
    assert [event for event in passed if isinstance(event, ExtraFields)] == [
        ExtraFields(None, {"search_results": ["fine"]}, Place.REPLY)
    ]


async def test_refusals_and_transcripts_are_read() -> None:
    """Sound passes."""
    sound = BlockStarted(1, 0, Audio(Media(), "id"))
    batches = [
        [START, RefusalDelta(0, "No b"), sound, MediaDelta(1, "QUJD", "so ba")],
        [RefusalDelta(0, "ad."), MediaDelta(1, "QUJD", "d."), STOP],
    ]
    assert await told(*batches) == [
        [START, RefusalDelta(0, "No "), sound, MediaDelta(1, transcript="so "), MediaDelta(1, "QUJD")],
        [RefusalDelta(0, "#."), MediaDelta(1, transcript="#."), MediaDelta(1, "QUJD"), STOP],
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
    fields = ExtraFields(0, {"annotations": [{"url": "x"}]})
    beside = ExtraFields(0, {"stop": None, "logprobs": {"refusal": [{"token": "b"}]}}, Place.CHOICE)
    passed = ExtraFields(0, {"stop": None}, Place.CHOICE)
    assert await told([START, fields, beside, TextDelta(0, "good")], [STOP]) == [
        [START, TextDelta(0, "good")],
        [fields, passed, STOP],
    ]
    changes: list[list[Event]] = [
        [TextDelta(0, "bad")],
        [ThinkingDelta(0, "bad")],
        [RefusalDelta(0, "bad")],
        call(0, "a", "f", '["bad"]'),
    ]
    for changed in changes:
        events = [event for batch in await told([START, fields, *changed], [STOP]) for event in batch]
        assert not any(isinstance(event, ExtraFields) for event in events)


async def test_fields_of_a_tool_call_come_with_it_where_nothing_was_changed() -> None:
    """Without them where a guard finds something in them, or elsewhere; without a signature where the call was changed."""
    state = State("s", {"x": "good"})
    made = call(1, "a", "f", "{}", state)
    assert await told([START, DeltaGroup(0, 3), TextDelta(0, "x# "), *made], [STOP]) == [
        [START, TextDelta(0, "x# ")],
        [*made, STOP],
    ]
    late = [*call(0, "a", "f", "{}"), BlockFinished(0, state)]
    assert await told([START, *late], [STOP]) == [[START], [*call(0, "a", "f", "{}", state), STOP]]
    unsigned = call(0, "a", "f", "{}", State("s"))
    assert await told([START, *call(0, "a", "f", "{}", State("s", {"x": "bad"}))], [STOP]) == [[START], [*unsigned, STOP]]
    events = [event for batch in await told([START, TextDelta(0, "bad"), *made], [STOP]) for event in batch]
    assert call(1, "a", "f", "{}", State("s"))[0] in events
    assert await told([START, *call(0, "a", "f", '["bad"]', state)], [STOP]) == [[START], [*call(0, "a", "f", '["#"]'), STOP]]


async def test_pictures_pass_and_sources_in_which_something_is_found_do_not() -> None:
    """A source stays behind the text that it is of."""
    picture = BlockStarted(1, 0, Image(Media("data:image/png;base64,AA")))
    good, bad = CitationDelta(0, Citation("https://good.example")), CitationDelta(0, Citation("u", "bad"))
    assert await told([START, TextDelta(0, "so b"), good, bad, picture], [STOP]) == [
        [START, TextDelta(0, "so "), picture],
        [TextDelta(0, "b"), good, STOP],
    ]


async def test_what_is_repeated_of_a_reply_passes_as_such() -> None:
    """So that a caller is told it as often as the provider tells it."""
    again = ExtraFields(None, {"fp": "x"}, Place.REPLY, repeats=True)
    bad, none = ExtraFields(None, {"fp": "bad"}, Place.REPLY, repeats=True), ExtraFields(None, {}, Place.REPLY, repeats=True)
    assert await told([START, again, bad], [STOP]) == [[START, again, none], [STOP]]


@pytest.mark.parametrize("action", ["mask", "block"])
@pytest.mark.parametrize(
    "fields",
    [
        [{"reasoning_content": "b"}, {"reasoning_content": "ad"}],
        [{"details": [{"type": "text", "text": "b"}]}, {"details": [{"type": "text", "text": "ad"}]}],
        [{"number": 4444}],
    ],
)
async def test_fields_in_which_something_is_found_are_left_out(fields: list[dict[str, Any]], action: str) -> None:
    """However they are split; and the reply goes on."""
    events = [[START], *([ExtraFields(0, each)] for each in fields), [TextDelta(0, "good"), STOP]]
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
    assert [await anext(batches), await anext(batches)] == [[START, begin(0), TextDelta(0, "so ")], [TextDelta(0, "ba")]]
    with pytest.raises(ProviderProtocolError):
        await anext(batches)


async def test_a_caller_that_leaves_closes_the_providers_call() -> None:
    """At once."""
    provider = ScriptedProvider([START], None)
    batches = reading(provider)
    await anext(batches)
    await batches.aclose()
    assert provider.closed == 1
