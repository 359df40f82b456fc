"""Chunks that differ in their text alone are read as any other."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ProviderError
from antiphon.domain.events import Batch, TextDelta
from antiphon.domain.request import ChatRequest
from antiphon.providers.openai import response
from antiphon.providers.openai.frame import MAX_MISSES, TextFrame, frame_of
from antiphon.providers.openai.response import OpenAIReader

REQUEST = ChatRequest(model="m", messages=(Message(Role.USER, (Text("Hi"),)),), stream=True)


def chunk(text: str | None, *, reason: str | None = None, choice: dict[str, Any] | None = None, **more: Any) -> bytes:
    """Return the JSON of one chunk."""
    delta = {} if text is None else {"content": text}
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, **(choice or {})}]
    return json.dumps(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **more}
    ).encode()


TEXTS = st.text(max_size=4) | st.sampled_from(['"', "\\", '","x":"', "\n", "\ud83d", "\ude00", "é", '"content":"', "{}"])
CHOICES = [{"index": 1}, {"content": "c"}, {"delta": {"reasoning": "r"}}, {"x": [1]}]
CALL = {"tool_calls": [{"index": 0, "id": "i", "function": {"name": "f", "arguments": "{}"}}]}
OTHERS = [b"ping", b"{}", b'{"choices": []}', b'{"content": "x", "choices": [{"index": 0, "delta": {"content": "y"}}]}']
CHUNKS = st.lists(
    st.one_of(
        st.builds(chunk, TEXTS),
        st.builds(chunk, TEXTS, system_fingerprint=st.sampled_from(["a", "b"])),
        st.builds(chunk, TEXTS, obfuscation=st.text("x", max_size=3)),
        st.builds(chunk, TEXTS, choice=st.sampled_from(CHOICES)),
        st.builds(chunk, TEXTS, usage=st.sampled_from([None, {"prompt_tokens": 1}])),
        st.just(chunk(None, choice={"delta": CALL})),
        st.just(chunk("end", reason="stop")),
        st.sampled_from(
            [b"ping", b"{}", b'{"choices": []}', b'{"content": "x", "choices": [{"index": 0, "delta": {"content": "y"}}]}']
        ),
    ),
    max_size=8,
)


def read(chunks: list[bytes], cuts: Iterable[int], line_break: bytes = b"\n") -> tuple[Batch, str]:
    """Return the events of a stream that is read in pieces, cut at these places, and the error at its end."""
    reader = OpenAIReader(REQUEST, "host")
    events: Batch = []
    data = b"".join(b"data: %b%b" % (one, 2 * line_break) for one in chunks)
    places = sorted({0, len(data), *(at % len(data) for at in cuts)})
    try:
        for start, end in pairwise(places):
            events += reader.feed(data[start:end])
            if reader.failure is not None:
                raise reader.failure
        events += reader.end()
    except ProviderError as error:
        return events, f"{type(error).__name__}: {error.message}"
    return events, ""


@given(CHUNKS, st.lists(TEXTS, max_size=4), st.lists(st.integers(0, 5000), max_size=5), st.sampled_from([b"\n", b"\r\n"]))
def test_a_stream_is_the_same_with_and_without_frames(
    others: list[bytes], texts: list[str], cuts: list[int], line_break: bytes
) -> None:
    chunks = [chunk("a"), chunk("b"), *others, *map(chunk, texts), chunk("z", reason="stop"), b"[DONE]"]
    found = read(chunks, cuts, line_break)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response, "MAX_MISSES", 0)
        assert found == read(chunks, cuts, line_break)


@pytest.mark.parametrize(
    "text", [b'"x","y"', b'"x', b'x"', b"", b'""', b"1", b'"x"}}', b'"x"\n"y"', b'"\\ud83d"', b'"\xff"', b'"\\n"', b'"x" "y"']
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_text_is_read_as_any_other_chunk(text: bytes, place: int) -> None:
    """Bytes where the text of a chunk would be, between others of the same read."""
    odd = chunk("odd").replace(b'"odd"', text)
    chunks = [chunk("c"), chunk("d")]
    chunks = [chunk("a"), chunk("b"), *chunks[:place], odd, *chunks[place:], chunk("z", reason="stop"), b"[DONE]"]
    cuts = [len(b"data: \n\n") + len(chunks[0])]
    found = read(chunks, cuts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response, "MAX_MISSES", 0)
        assert found == read(chunks, cuts)


@pytest.mark.parametrize("cut", range(1, 40))
def test_texts_are_read_together_wherever_a_read_ends(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that begins in the middle of a chunk is read the short way too."""
    alone: list[bytes] = []
    text_of = TextFrame.text_of
    monkeypatch.setattr(TextFrame, "text_of", lambda frame, payload: (alone.append(payload), text_of(frame, payload))[1])
    chunks = [chunk(str(number)) for number in range(60)]
    size = len(b"data: \n\n") + len(chunks[0])
    events, error = read(chunks, [size * 3, *(size * many + many * cut for many in range(10, 50, 10))])
    assert error.startswith("ProviderProtocolError"), "the stream has no end"
    assert [event.text for event in events if isinstance(event, TextDelta)] == [str(number) for number in range(60)]
    assert len(alone) <= 15, "one read at most, which begins between two line breaks"


def test_only_the_text_of_a_chunk_that_fits_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long stream decodes a few whole chunks; one whose chunks are padded gives up soon."""
    decoded: list[bytes] = []
    decode = response.ChunkDecoder.read
    monkeypatch.setattr(response.ChunkDecoder, "read", lambda reader, data: (decoded.append(data), decode(reader, data))[1])
    framed: list[bytes] = []
    monkeypatch.setattr(response, "frame_of", lambda data, *more: (framed.append(data), frame_of(data, *more))[1])
    thirds = range(0, 40_000, 400)
    read([chunk(str(number)) for number in range(100)], thirds)
    assert len(decoded) <= 3
    framed.clear()
    read([chunk(str(number), obfuscation="x" * number) for number in range(100)], thirds)
    assert len(framed) == MAX_MISSES
