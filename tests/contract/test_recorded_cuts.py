"""Every recorded reply of every protocol: where it is split changes nothing, and where it is cut off, nothing before that is lost.

The tests of one protocol say what its events mean (`test_*_recorded.py`). These hold for all of them alike.
"""

import json
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from antiphon import domain
from antiphon.domain.errors import ProviderError, ProviderProtocolError
from antiphon.domain.events import Finished, InputDelta, Started, TextDelta, ThinkingDelta, Usage
from tests.recorded import READERS, Recording, parameters, recordings, streams

CUTS = 1000
"""Points at which streams are cut, over all of them."""

PERIOD = 23
"""Bytes of a piece in the passes that split at every offset."""

WINDOW = 4096
"""Bytes at the beginning of a stream that are split into two pieces at each offset."""

WHOLE = [one for one in streams() if not one.is_broken]


def read(recording: Recording, pieces: Iterable[bytes], *, ends: bool = True) -> list[domain.Event]:
    """Return the events, but for the first: it may have the time of the test. `ends`: the last piece ends the reply.

    The tokens used so far are left out: a reader of chat completions tells them once a read.
    """
    reader = recording.reader()
    events: list[domain.Event] = []
    for piece in pieces:
        events += reader.feed(piece)
        assert reader.failure is None
        if reader.ending.done:
            break
    if ends:
        events += reader.end()
    assert not events or isinstance(events[0], Started)
    return [event for event in events[1:] if not (isinstance(event, Usage) and event.estimated)]


def split(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Yield the pieces of the data between the places."""
    for begin, end in pairwise([0, *places, len(data)]):
        yield data[begin:end]


def test_every_file_is_read() -> None:
    """Each file is of a protocol here, is an error, or is of an API that no provider speaks here."""
    found = {one.protocol for one in recordings()}
    assert found <= {*READERS, "error", "interactions", "skill"}, [one.name for one in recordings() if one.protocol == "unknown"]
    assert not found or found >= READERS.keys()


@pytest.mark.parametrize("recording", parameters(one for one in recordings() if one.protocol == "error"))
def test_an_error_instead_of_a_reply(recording: Recording) -> None:
    """It is a failure for every reader, also where the status says otherwise, and the provider's words are kept."""
    (body,) = recording.payloads
    for make in READERS.values():
        reader = make(domain.ChatRequest("m", (), stream=False), "p")
        with pytest.raises(ProviderError):
            reader.read_object(body.encode())


@pytest.mark.parametrize("recording", parameters(one for one in streams() if one.is_broken))
def test_a_broken_recording(recording: Recording) -> None:
    """A stream with a failure, or with what is not JSON, has no clean end in any two pieces."""
    data = b"".join(recording.pieces)
    for at in range(len(data)):
        reader = recording.reader()
        with pytest.raises(ProviderError):  # whichever of them finds it
            for piece in (data[:at], data[at:]):
                reader.feed(piece)
            reader.end()


@pytest.mark.parametrize("recording", parameters(WHOLE))
def test_splits(recording: Recording) -> None:
    """Split at each of its offsets, in pieces of one period, and about the end of each of its events, it has the same events."""
    data, ends = b"".join(recording.pieces), recording.ends
    expected = read(recording, [data])
    assert read(recording, recording.pieces) == expected
    assert spoken(expected) == said(recording, len(ends))
    for first in range(PERIOD):
        assert read(recording, split(data, range(first or PERIOD, len(data), PERIOD))) == expected, first
    for shift in (-2, -1, 0, 1, 2):
        for every in range(3):
            places = [end + shift for end in ends[every::3] if end + shift < len(data)]
            assert read(recording, split(data, places)) == expected, (shift, every)


@pytest.mark.parametrize("recording", parameters(WHOLE))
def test_pairs(recording: Recording) -> None:
    """In two pieces, it has the same events for a sample of the offsets."""
    check_pairs(recording, 32)


@pytest.mark.slow
@pytest.mark.parametrize("recording", parameters(WHOLE))
def test_all_pairs(recording: Recording) -> None:
    """In two pieces, it has the same events for each offset of its beginning."""
    check_pairs(recording, 1)


def check_pairs(recording: Recording, step: int) -> None:
    """Assert it for the events that end within or just after the window: what follows an event cannot change it."""
    data, ends = b"".join(recording.pieces), recording.ends
    known = bisect_right(ends, WINDOW) + 1
    window = data[: ends[min(known, len(ends)) - 1]]
    is_whole = window == data
    expected = read(recording, [window], ends=is_whole)
    for at in range(1, min(len(window), WINDOW), step):
        assert read(recording, [window[:at], window[at:]], ends=is_whole) == expected, at


def spoken(events: Iterable[domain.Event]) -> str:
    """Return what the events have of texts and thoughts, in order."""
    return "".join(event.text for event in events if isinstance(event, TextDelta | ThinkingDelta))


def said(recording: Recording, count: int) -> str:
    """Return what the model said and thought in the first events, as the provider sent it."""
    events = list(map(json.loads, recording.payloads[:count]))
    if recording.protocol == "responses":
        return "".join(responses_texts(events))
    return "".join(text for event in events for text in texts(recording.protocol, event))


def responses_texts(events: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the texts of a stream, also what only the end of a text tells."""
    sent: defaultdict[tuple[Any, ...], str] = defaultdict(str)
    for event in events:
        stem, _, end = event["type"].rpartition(".")
        if stem not in ("response.output_text", "response.reasoning_summary_text", "response.reasoning_text"):
            continue
        key = (stem, event["output_index"], event.get("content_index"), event.get("summary_index"))
        known = sent[key]
        piece = event["delta"] if end == "delta" else event["text"].removeprefix(known) if event["text"].startswith(known) else ""
        sent[key] += piece
        yield piece


def texts(protocol: str, event: dict[str, Any]) -> Iterator[str]:  # a match over all protocols
    """Yield the texts of an event of a stream."""
    match protocol, event:
        case "anthropic", {"delta": {"type": "text_delta", "text": str(text)} | {"type": "thinking_delta", "thinking": str(text)}}:
            yield text
        case "bedrock", {"contentBlockDelta": {"delta": {"text": str(text)} | {"reasoningContent": {"text": str(text)}}}}:
            yield text
        case "cohere", {"type": "content-delta", "delta": {"message": {"content": {"text": str(text)}}}}:
            yield text
        case "cohere", {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": str(text)}}}:
            yield text
        case "gemini", {"candidates": [{"content": {"parts": parts}}]}:
            yield from (part["text"] for part in parts if "text" in part)
        case "openai", {"choices": [{"delta": dict(delta)}]}:
            yield delta.get("reasoning_content") or delta.get("reasoning") or ""
            match delta.get("content"):
                case str(text):
                    yield text
                case list(parts):
                    for part in parts:
                        inner = part.get("thinking") or part.get("text") or ""
                        yield inner if isinstance(inner, str) else "".join(one["text"] for one in inner)
                case _:
                    pass
        case "openai", {"choices": [{"text": str(text)}]}:
            yield text
        case _:
            pass


def cuts() -> Iterator[Any]:
    """Share the cuts out among the streams, by their number of events, and at least five of each."""
    chosen = random.Random(13)  # the same points each time
    total = sum(len(one.payloads) for one in WHOLE)
    for one in WHOLE:
        size = one.ends[-1]
        count = min(size - 1, max(5, round(CUTS * len(one.payloads) / total)))
        yield one, sorted(chosen.sample(range(1, size), count))


def test_there_are_enough_cuts() -> None:
    """Over all streams there are as many as were promised."""
    assert not WHOLE or sum(len(places) for _, places in cuts()) >= CUTS


@pytest.mark.parametrize(
    ("recording", "places"),
    [pytest.param(*one, id=one[0].name) for one in cuts()] or [pytest.param(None, (), marks=pytest.mark.skip)],
)
def test_cuts(recording: Recording, places: Sequence[int]) -> None:
    """Cut off, it has no clean end, and all that had arrived in whole events has been delivered."""
    data, ends = b"".join(recording.pieces), recording.ends
    whole = read(recording, [data])
    clean = clean_ends(recording)
    for at in places:
        reader = recording.reader()
        before = reader.feed(data[:at])
        arrived = bisect_right(ends, at)
        if not clean[arrived] and ends[arrived] - 2 > at:  # with its last byte the last event is whole
            with pytest.raises(ProviderProtocolError):
                reader.end()
            before += reader.break_off()
            assert not any(isinstance(event, Finished) for event in before)
        events = before[1:]
        assert spoken(events) == said(recording, arrived), at
        expected = inputs(whole)
        for block, text in inputs(events).items():
            assert expected[block].startswith(text), at


def inputs(events: Iterable[domain.Event]) -> defaultdict[int, str]:
    """Return the inputs of the calls, by block."""
    found: defaultdict[int, str] = defaultdict(str)
    for event in events:
        if isinstance(event, InputDelta):
            found[event.block] += event.text
    return found


def clean_ends(recording: Recording) -> list[bool]:
    """Return for each number of events whether a stream of these alone has ended well, as the API defines its end."""
    ended = False
    found = [False]
    for payload in recording.payloads:
        event = json.loads(payload)
        match recording.protocol, event:
            case ("anthropic", {"type": "message_stop"}) | ("cohere", {"type": "message-end"}) | ("bedrock", {"messageStop": _}):
                ended = True
            case "responses", {"type": "response.completed" | "response.incomplete"}:
                ended = True
            case ("gemini", {"candidates": [{"finishReason": str()}]}) | ("openai", {"choices": [{"finish_reason": str()}]}):
                ended = True
            case _:
                pass
        found.append(ended)
    return found
