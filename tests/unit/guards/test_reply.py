"""Tests of guards on the events of a reply."""

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


async def filtered(*batches: Batch | Exception | None, **options: Any) -> list[Batch]:
    """Return the batches that the guards pass on, without events that only frame blocks."""
    found = [without_frames(batch) for batch in await framed(*batches, **options)]
    return [batch for batch in found if batch]


def begin(block: int, choice: int = 0) -> BlockStarted:
    return BlockStarted(block, choice, Text(""))


def call(block: int, call_id: str, name: str, arguments: str, state: State | None = None, choice: int = 0) -> list[Event]:
    return [BlockStarted(block, choice, ToolCall(call_id, name, "", state=state)), InputDelta(block, arguments)]


async def test_only_the_possible_beginning_of_a_match_is_held_back() -> None:
    """Text is passed on at once, but for the possible beginning of a match, which comes before the end at the latest."""
    assert await filtered([START, TextDelta(0, "so b")], [TextDelta(0, "a")], [TextDelta(0, "d ba")], [USAGE, STOP]) == [
        [START, TextDelta(0, "so ")],
        [TextDelta(0, "# ")],
        [USAGE, TextDelta(0, "ba"), STOP],
    ]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["mask", "block"]))
async def test_a_reply_is_the_same_whichever_way_it_is_split(data: st.DataObject, action: str) -> None:
    """The result does not depend on how thoughts and text of two choices are split into deltas."""
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
    """A match is found across blocks of text. Text without a match stays in its block."""
    split = data.draw(pieces(st.text(alphabet="bad 4", max_size=20)))
    events: list[Event] = []
    for number, piece in enumerate(split):
        events += [begin(number), TextDelta(number, piece), BlockFinished(number)]
    found = [event for batch in await framed([START], *([event] for event in events), [STOP], action=action) for event in batch]
    check(found)
    (one,) = await framed([START, begin(0), TextDelta(0, "".join(split)), STOP], action=action)
    assert "".join(e.text for e in found if isinstance(e, TextDelta)) == "".join(e.text for e in one if isinstance(e, TextDelta))
    if not any(word in "".join(split) for word in ("bad", "4444")):
        text_by_block = {
            number: "".join(e.text for e in found if isinstance(e, TextDelta) and e.block == number) for number in range(len(split))
        }
        assert list(text_by_block.values()) == split


async def test_a_block_that_was_changed_has_no_signature() -> None:
    """A changed block loses its signature, and its citations their positions. Other blocks keep them."""
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
    assert await filtered([START, good, bad, *ends], [STOP]) == [
        [START],
        [BlockStarted(0, 0, Compaction("good", state=State("s"))), masked, STOP],
    ]
    assert await filtered([START, good, ends[0]], [STOP]) == [[START], [good, STOP]]
    assert await filtered([START, good, bad, *ends], [STOP], action="block") == [[START], [FILTERED]]


async def test_a_block_that_is_cut_where_something_is_blocked_has_no_signature() -> None:
    """Also one that it began with."""
    signed = BlockStarted(0, 0, Text("", state=State("s", {"x": 1})))
    batches = await framed([START, signed, TextDelta(0, "so bad"), BlockFinished(0)], [STOP], action="block")
    found = [event for batch in batches for event in batch]
    check(found)
    assert found == [START, signed, TextDelta(0, "so "), BlockFinished(0, State(None, {"x": 1})), FILTERED]


async def test_a_match_ends_the_reply_and_the_providers_call() -> None:
    """A blocking match ends the reply with CONTENT_FILTER after the text before it, and closes the provider's call."""
    provider = ScriptedProvider([START, TextDelta(0, "so ba")], [TextDelta(0, "d "), TextDelta(0, "more")], None)
    batches = reading(provider, "block")
    assert await anext(batches) == [START, begin(0), TextDelta(0, "so ")]
    assert await anext(batches) == [BlockFinished(0), FILTERED]
    assert provider.closed == 1
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


async def test_each_choice_ends_for_itself() -> None:
    """A blocking match ends its choice only. The provider's call is closed when no choice is left."""
    two = [begin(1, 1), TextDelta(1, "good"), Finished(0, FinishReason.STOP, "stop"), Finished(1, FinishReason.LENGTH, "length")]
    assert await filtered([START, TextDelta(0, "bad !")], [TextDelta(0, "more")], two, action="block", choices=2) == [
        [START],
        [TextDelta(1, "good"), FILTERED, Finished(1, FinishReason.LENGTH, "length")],
    ]
    assert await filtered(
        [START, TextDelta(0, "bad !")], [begin(1, 1), TextDelta(1, "ok bad !")], None, action="block", choices=2
    ) == [
        [START],
        [TextDelta(1, "ok "), FILTERED, Finished(1, FinishReason.CONTENT_FILTER, "content_filter")],
    ]


async def test_a_whole_reply_keeps_its_usage() -> None:
    """A blocked whole reply keeps the provider's usage."""
    assert await filtered([START, TextDelta(0, "so bad"), USAGE, STOP], action="block") == [
        [START, TextDelta(0, "so "), USAGE, FILTERED]
    ]


async def test_a_match_that_ends_with_the_reply_is_found() -> None:
    """A match at the very end of the reply is found."""
    assert await filtered([START, TextDelta(0, "so bad")], [STOP], action="block") == [[START, TextDelta(0, "so ")], [FILTERED]]


async def test_tool_calls_come_whole_at_the_end() -> None:
    """Tool calls come whole at the end. Names and values in their arguments are masked, and the arguments stay JSON."""
    batches = [
        [START, TextDelta(0, "Ba"), *call(1, "a", "bad", '{"bad": "b')],
        [InputDelta(1, '\\u0061d", "n": 44'), *call(2, "b", "good", '{"x":  1}')],
        [InputDelta(1, "44}"), TextDelta(0, "d b")],
        [Finished(0, FinishReason.TOOL_CALLS, "tool_calls")],
    ]
    assert (await filtered(*batches))[-1] == [
        TextDelta(0, "b"),
        *call(1, "a", "#", '{"#": "#", "n": "#"}'),
        *call(2, "b", "good", '{"x":  1}'),
        Finished(0, FinishReason.TOOL_CALLS, "tool_calls"),
    ]
    assert (await filtered(*batches, action="block"))[-1] == [TextDelta(0, "b"), FILTERED]


@pytest.mark.parametrize(("name", "arguments"), [("a_bad_f", "{}"), ("f", '{"bad": 1}'), ("f", '{"a": 1, "a": "\\u0062ad"}')])
async def test_names_in_a_call_are_read(name: str, arguments: str) -> None:
    """The name of the function and the names of arguments are masked, and unknown fields, which could repeat them, are dropped."""
    made = call(0, "a", name, arguments)
    assert await filtered([START, *made, ExtraFields(0, {"x": 1}), STOP], action="block") == [[START, FILTERED]]
    (masked,) = await filtered([START, *made, ExtraFields(0, {"x": 1}), STOP])
    assert [type(event) for event in masked] == [type(START), BlockStarted, InputDelta, Finished]
    assert "bad" not in str(masked)


async def test_a_thought_ends_where_something_else_comes() -> None:
    """A thought that was masked loses its signature, which is valid for the original text only. Encrypted thoughts pass."""
    sealed = BlockStarted(3, 0, RedactedThinking(state=State("d")))
    assert await filtered(
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
    """Unknown fields of the whole reply pass, at its start and later, unless a guard finds something in them."""
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
    passed = [event for batch in await filtered(*batches) for event in batch]
    assert passed[0] == replace(START, fields={"service_tier": "default"})
    assert [event for event in passed if isinstance(event, ExtraFields)] == [
        ExtraFields(None, {"search_results": ["fine"]}, Place.REPLY)
    ]


async def test_refusals_and_transcripts_are_read() -> None:
    """Refusals and transcripts are masked; sound passes."""
    sound = BlockStarted(1, 0, Audio(Media(), "id"))
    batches = [
        [START, RefusalDelta(0, "No b"), sound, MediaDelta(1, "QUJD", "so ba")],
        [RefusalDelta(0, "ad."), MediaDelta(1, "QUJD", "d."), STOP],
    ]
    assert await filtered(*batches) == [
        [START, RefusalDelta(0, "No "), sound, MediaDelta(1, transcript="so "), MediaDelta(1, "QUJD")],
        [RefusalDelta(0, "#."), MediaDelta(1, transcript="#."), MediaDelta(1, "QUJD"), STOP],
    ]


def token(text: str, *others: str) -> dict[str, Any]:
    return {"token": text, "logprob": -0.4444, "bytes": list(text.encode()), "top_logprobs": [{"token": each} for each in others]}


async def test_log_probabilities_come_with_the_text_that_they_spell_until_it_is_changed() -> None:
    """Log probabilities come with the text that they spell.

    Those of other or masked text, or with a masked alternative, are dropped.
    """
    hi, bar, ba, d = token("Hi "), token("bar"), token("ba"), token("d")
    batches = [
        [START, TextDelta(0, "Hi ", (hi,)), TextDelta(0, "ba", (token("ba"),))],
        [TextDelta(0, "r ", (token("r "),)), TextDelta(0, "x", (bar,)), TextDelta(0, "y", (token("y", "bad"),))],
        [TextDelta(0, "ba", (ba,)), TextDelta(0, "d", (d,)), TextDelta(0, " end", (token(" end"),)), STOP],
    ]
    events = [event for batch in await filtered(*batches) for event in batch]
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
    """Log probabilities wait until their text is passed on, because they would spell a match that is still held back."""
    bar, held = token("r "), token("xy ba")
    batches = [[START, TextDelta(0, "ba"), TextDelta(0, "r ", (bar,)), TextDelta(0, "xy ba", (held,))], [TextDelta(0, "d"), STOP]]
    events = [event for batch in await filtered(*batches) for event in batch]
    assert events == [START, TextDelta(0, "bar ", (bar,)), TextDelta(0, "xy "), TextDelta(0, "#"), STOP]


async def test_fields_that_only_the_provider_knows_come_last_where_nothing_was_changed() -> None:
    """Unknown fields come last, and only if no guard changed the reply. Log probabilities of refusals are always dropped."""
    fields = ExtraFields(0, {"annotations": [{"url": "x"}]})
    beside = ExtraFields(0, {"stop": None, "logprobs": {"refusal": [{"token": "b"}]}}, Place.CHOICE)
    passed = ExtraFields(0, {"stop": None}, Place.CHOICE)
    assert await filtered([START, fields, beside, TextDelta(0, "good")], [STOP]) == [
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
        events = [event for batch in await filtered([START, fields, *changed], [STOP]) for event in batch]
        assert not any(isinstance(event, ExtraFields) for event in events)


async def test_fields_of_a_tool_call_come_with_it_where_nothing_was_changed() -> None:
    """A call has its unknown fields only if no guard found anything in the reply, and its signature only if it is unchanged."""
    state = State("s", {"x": "good"})
    made = call(1, "a", "f", "{}", state)
    assert await filtered([START, DeltaGroup(0, 3), TextDelta(0, "x# "), *made], [STOP]) == [
        [START, TextDelta(0, "x# ")],
        [*made, STOP],
    ]
    late = [*call(0, "a", "f", "{}"), BlockFinished(0, state)]
    assert await filtered([START, *late], [STOP]) == [[START], [*call(0, "a", "f", "{}", state), STOP]]
    unsigned = call(0, "a", "f", "{}", State("s"))
    assert await filtered([START, *call(0, "a", "f", "{}", State("s", {"x": "bad"}))], [STOP]) == [[START], [*unsigned, STOP]]
    events = [event for batch in await filtered([START, TextDelta(0, "bad"), *made], [STOP]) for event in batch]
    assert call(1, "a", "f", "{}", State("s"))[0] in events
    assert await filtered([START, *call(0, "a", "f", '["bad"]', state)], [STOP]) == [[START], [*call(0, "a", "f", '["#"]'), STOP]]


async def test_pictures_pass_and_sources_in_which_something_is_found_do_not() -> None:
    """Images pass. A citation in which a guard finds something is dropped; others come after the text that they cite for."""
    picture = BlockStarted(1, 0, Image(Media("data:image/png;base64,AA")))
    good, bad = CitationDelta(0, Citation("https://good.example")), CitationDelta(0, Citation("u", "bad"))
    assert await filtered([START, TextDelta(0, "so b"), good, bad, picture], [STOP]) == [
        [START, TextDelta(0, "so "), picture],
        [TextDelta(0, "b"), good, STOP],
    ]


async def test_repeated_fields_pass_as_repeats() -> None:
    """Fields that the provider repeats pass as repeats, without those in which a guard finds something."""
    again = ExtraFields(None, {"fp": "x"}, Place.REPLY, repeats=True)
    bad, none = ExtraFields(None, {"fp": "bad"}, Place.REPLY, repeats=True), ExtraFields(None, {}, Place.REPLY, repeats=True)
    assert await filtered([START, again, bad], [STOP]) == [[START, again, none], [STOP]]


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
    """Unknown fields in which a guard finds something are dropped, however they are split, and the reply goes on."""
    events = [[START], *([ExtraFields(0, each)] for each in fields), [TextDelta(0, "good"), STOP]]
    assert await filtered(*events, action=action) == [[START], [TextDelta(0, "good"), STOP]]  # type: ignore[arg-type]


async def test_a_masked_number_of_a_reply_that_is_to_be_json_becomes_a_string() -> None:
    """In a JSON reply a masked number becomes a string, and the stream is not held back for it."""
    assert await filtered(
        [START, TextDelta(0, '{"n": 44')], [TextDelta(0, "44, ")], [TextDelta(0, '"x": 1}'), STOP], form=JsonObjectFormat()
    ) == [
        [START, TextDelta(0, '{"n": ')],
        [TextDelta(0, '"#", ')],
        [TextDelta(0, '"x": 1}'), STOP],
    ]


async def test_held_back_text_is_sent_before_an_error() -> None:
    """If the provider fails, the text that was held back is sent first and then the error."""
    batches = reading(ScriptedProvider([START, TextDelta(0, "so ba")], ProviderProtocolError("Cut.", provider="p")))
    assert [await anext(batches), await anext(batches)] == [[START, begin(0), TextDelta(0, "so ")], [TextDelta(0, "ba")]]
    with pytest.raises(ProviderProtocolError):
        await anext(batches)


async def test_a_caller_that_leaves_closes_the_providers_call() -> None:
    """If the caller leaves, the provider's call is closed at once."""
    provider = ScriptedProvider([START], None)
    batches = reading(provider)
    await anext(batches)
    await batches.aclose()
    assert provider.closed == 1
