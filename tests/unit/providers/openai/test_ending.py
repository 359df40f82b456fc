"""Tests of how a reply of the OpenAI API ends, in the ways of different hosts."""

from typing import Any

import pytest

from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderUnavailable
from antiphon.domain.events import Finished, FinishReason, TextDelta
from antiphon.domain.request import ChatRequest, Sampling
from antiphon.providers.openai.ending import LONG_WAIT, WAIT, OpenAIEnding, meaning_of
from antiphon.providers.openai.response import OpenAIReader
from tests.odd_upstream import delta, sse
from tests.unit.framing import without_frames

STOP, LENGTH, CALLS = FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS
FILTER, OTHER = FinishReason.CONTENT_FILTER, FinishReason.OTHER
REFUSAL, PAUSE, CONTEXT = FinishReason.REFUSAL, FinishReason.PAUSE, FinishReason.CONTEXT_WINDOW


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("stop STOP eos eos_token end_turn stop_sequence COMPLETE endTurn FINISH_REASON_STOP normal", STOP),
        ("length max_tokens MAX_TOKENS maxTokens model_length", LENGTH),
        ("tool_calls tool-calls TOOL_CALL tool_use function_call", CALLS),
        ("pause_turn CONTINUATION", PAUSE),
        ("model_context_window_exceeded context_length_exceeded", CONTEXT),
        ("refusal", REFUSAL),
        ("content_filter content-filter SAFETY RECITATION PROHIBITED_CONTENT sensitive ERROR_TOXIC", FILTER),
        ("OTHER brand_new", OTHER),
        ("error ERROR abort aborted Aborted cancelled canceled network_error timeout TIMEOUT internal_server_error failed", None),
        ("insufficient_system_resource engine_overloaded MALFORMED_FUNCTION_CALL malformed_model_output", None),
        ("UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS MISSING_THOUGHT_SIGNATURE", None),
        ("rate_limit RATE_LIMITED quota_exceeded throttled internal out_of_memory resource_exhausted", None),
    ],
)
def test_finish_reasons_of_hosts(words: str, meaning: FinishReason | None) -> None:
    """Each finish reason of a host has its meaning, in upper or lower case; those of failures have None."""
    assert {word: meaning_of(word) for word in words.split()} == dict.fromkeys(words.split(), meaning)


def test_finish_reasons_with_a_prefix() -> None:
    """A finish reason with a prefix, as Google's hosts write it, is read; one without Latin letters is OTHER."""
    assert meaning_of("content_filter: SAFETY") is FILTER
    assert meaning_of("odd: MAX_TOKENS") is LENGTH
    assert meaning_of("function_call_filter: MALFORMED_FUNCTION_CALL") is None
    assert meaning_of("error: the peer is gone") is None
    assert meaning_of("\u7d42") is OTHER


def ending(*steps: str | tuple[int, str], choices: int | None = None, spoke: bool = True) -> OpenAIEnding:
    """Return an `OpenAIEnding` after these steps.

    A word finishes choice 0 and a pair another choice, "..." is output, and "[DONE]" is the host's end mark.
    """
    made = OpenAIEnding(choices)
    made.begin(0)
    if spoke:
        made.note_output()
    for step in steps:
        match step:
            case "...":
                made.note_output()
            case "[DONE]":
                made.done = True
            case str():
                assert made.finish(0, step)
            case (choice, word):
                made.begin(choice)
                assert not word or made.finish(choice, word)
    return made


def test_silence_ends_what_is_finished() -> None:
    """When every choice has a reason, silence ends the reply after WAIT. More output cancels that until the next reason."""
    made = ending("stop")
    assert (made.wait(), made.changed, made.is_complete(silent=True)) == (WAIT, True, True)
    made.changed = False
    made.note_output()
    assert (made.wait(), made.changed) == (None, True)
    made.changed = False
    made.note_output()
    assert not made.changed
    made.finish(0, "stop")
    assert made.changed
    made.changed = False
    made.finish(0, "stop")
    assert made.changed
    assert ending("stop", choices=2).wait() is None
    assert ending("stop", (1, "stop"), choices=2).wait() == WAIT


def test_silence_that_is_not_believed() -> None:
    """If a host went on after its finish reasons, only [DONE] or the end of the body ends the reply."""
    found = ending("stop", "...", "stop")
    assert (found.wait(), found.is_complete(silent=True), found.is_complete(silent=False)) == (LONG_WAIT, False, True)
    found.done = True
    assert found.is_complete(silent=True)


def test_silence_before_anything_was_said_ends_nothing() -> None:
    """A finish reason before any output does not make silence an end, because the model may still be thinking."""
    made = ending("stop", spoke=False)
    assert (made.is_finished, made.wait(), made.is_complete(silent=False)) == (False, None, True)
    made = ending("stop", "...", "stop", spoke=False)
    assert made.wait() == LONG_WAIT


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("tool_calls", "stop"), "tool_calls"),
        (("stop", "tool_calls"), "tool_calls"),
        (("length", "stop", "stop"), "length"),
        (("stop", "length"), "length"),
        (("content_filter", "STOP"), "content_filter"),
        (("stop", "", "null"), "stop"),
        (("odd", "eos"), "odd"),
    ],
)
def test_one_reason_of_several(words: tuple[str, ...], expected: str) -> None:
    """Of several finish reasons the last one that says more than `stop` counts."""
    assert ending(*words).reasons == {0: expected}


def test_words_such_as_null_end_nothing() -> None:
    """Words such as `null` that some hosts send while a choice goes on are no finish reason."""
    for word in ("", "null", "None", "not_finished", "FINISH_REASON_UNSPECIFIED"):
        made = ending(word)
        assert (made.reasons, made.wait(), made.is_complete(silent=False)) == ({0: None}, None, False)


def test_a_failure_ends_nothing() -> None:
    """A finish reason that is a failure is reported by `finish` and not kept."""
    made = ending()
    assert not made.finish(0, "abort")
    assert made.reasons == {0: None}


@pytest.mark.parametrize(
    ("made", "whole"),
    [
        (ending(), False),
        (ending("[DONE]"), False),
        (ending("stop"), True),
        (ending("stop", (1, "")), False),
        (ending("stop", (1, ""), "[DONE]"), False),
        (ending("stop", choices=2), False),
        (ending("stop", "[DONE]", choices=2), True),
        (ending("stop", (1, ""), "[DONE]", choices=2), True),
        (ending((1, ""), "[DONE]", choices=2), False),
        (ending("stop", (1, ""), "[DONE]", choices=3), False),
        (ending("stop", (1, "stop"), "[DONE]", choices=3), True),
        (ending("stop", (2, "stop"), "[DONE]", choices=3), False),
    ],
)
def test_when_a_reply_is_complete(made: OpenAIEnding, whole: bool) -> None:
    """A reply is complete if every choice has a reason. With [DONE] there may be fewer choices, or one reason for all."""
    assert made.is_complete(silent=False) is whole


def failure(reader: OpenAIReader, data: bytes, at: int) -> ProviderError:
    """Return the error that reading the bytes in two pieces raises, at once or at the end."""
    with pytest.raises(ProviderError) as raised:
        for piece in (data[:at], data[at:]):
            reader.feed(piece)
            if reader.failure is not None:
                raise reader.failure
        reader.end()
    return raised.value


FAILURES: dict[str, list[dict[str, Any] | str]] = {
    "abort": [delta("a"), delta(finish="abort"), "[DONE]"],
    "an object": [delta("a"), delta(finish={"type": "abort", "message": "x"}), "[DONE]"],  # type: ignore[arg-type]
    "abort behind stop": [delta("a"), delta(finish="stop"), delta(finish="abort"), "[DONE]"],
    "an error in the choice": [
        delta("a"),
        {"choices": [{"index": 0, "delta": {}, "error": {"code": 502, "message": "x"}, "finish_reason": "stop"}]},
        "[DONE]",
    ],
    "an error beside an empty text": [
        delta("a"),
        {"choices": [{"index": 0, "delta": {"content": ""}, "error": {"code": 502, "message": "x"}, "finish_reason": None}]},
        "[DONE]",
    ],
    "an error in the delta": [delta("a"), delta(error={"message": "x"}, finish="stop"), "[DONE]"],
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_cut_anywhere(name: str) -> None:
    """Failures within a stream are `ProviderUnavailable` wherever the bytes are cut."""
    data = sse(*FAILURES[name])
    for at in range(len(data)):
        assert type(failure(OpenAIReader(ChatRequest("m", (), stream=True), "p"), data, at)) is ProviderUnavailable


def test_a_stop_after_every_chunk_cut_anywhere() -> None:
    """If a host sends `stop` with every chunk, all text is read, and the reply is complete only at [DONE]."""
    pieces = [delta("One"), delta(finish="stop"), delta(" two"), delta(finish="stop"), delta(" three"), delta(finish="stop")]
    data = sse(*pieces, "[DONE]")
    for at in range(len(data)):
        reader = OpenAIReader(ChatRequest("m", (), stream=True), "p")
        events = reader.feed(data[:at])
        assert (reader.ending.wait() == WAIT) is (len(sse(*pieces[:2])) <= at < len(sse(*pieces[:3])))
        events += reader.feed(data[at:]) if not reader.ending.done else []
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "One two three"
        assert without_frames(reader.end()) == [Finished(0, STOP, "stop")]
    reader = OpenAIReader(ChatRequest("m", (), stream=True), "p")
    reader.feed(sse(*pieces))
    assert reader.ending.wait() == LONG_WAIT
    with pytest.raises(ProviderProtocolError):
        reader.end(silent=True)


def test_one_reason_for_a_choice_cut_anywhere() -> None:
    """Of `tool_calls` and a later `stop`, only `tool_calls` is sent, once."""
    function = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    data = sse(delta("a"), delta(tool_calls=[function]), delta(finish="tool_calls"), delta(finish="stop"), "[DONE]")
    for at in range(len(data)):
        reader = OpenAIReader(ChatRequest("m", (), stream=True, sampling=Sampling()), "p")
        events = reader.feed(data[:at]) + reader.feed(data[at:]) + reader.end()
        assert [event for event in events if isinstance(event, Finished)] == [Finished(0, CALLS, "tool_calls")]


KEEP_ALIVES = {
    "comments as data": b"data: : keepalive\n\n",
    "a word": b"data: ping\n\n",
    "a word in brackets": b"data: [PING]\n\n",
    "a JSON string": b'data: "keep-alive"\n\n',
    "an object": b'data: {"type": "heartbeat", "time": 1}\n\n',
    "a named event": b"event: ping\ndata: 2026-01-01T00:00:00Z\n\n",
    "another": b'event: keepalive\ndata: {"choices": 7}\n\n',
    "a capital": b"event: Heartbeat\ndata: {}\n\n",
    "an empty event": b"data:\n\n",
}


@pytest.mark.parametrize("name", KEEP_ALIVES)
def test_keep_alives_as_data(name: str) -> None:
    """Keep-alives that hosts send as data are ignored at any place, and neither end a reply nor delay its end."""
    alive = KEEP_ALIVES[name]
    data = alive + sse(delta("hi")) + alive + sse(delta(finish="stop")) + alive + sse("[DONE]")
    for at in range(len(data)):
        reader = OpenAIReader(ChatRequest("m", (), stream=True), "p")
        events = reader.feed(data[:at]) + reader.feed(data[at:]) + reader.end()
        assert without_frames(events)[1:] == [TextDelta(0, "hi"), Finished(0, STOP, "stop")]
    reader = OpenAIReader(ChatRequest("m", (), stream=True), "p")
    reader.feed(sse(delta("hi"), delta(finish="stop")))
    reader.ending.changed = False
    assert reader.feed(alive) == []
    assert not reader.ending.changed


@pytest.mark.parametrize("payload", ["hello", "pinging", "-", "{", "[1, 2]", '"text"', "7"])
def test_data_that_is_no_keep_alive(payload: str) -> None:
    """Other data that is not a chunk raises `ProviderProtocolError`."""
    with pytest.raises(ProviderProtocolError):
        OpenAIReader(ChatRequest("m", (), stream=True), "p").feed(sse(payload))
