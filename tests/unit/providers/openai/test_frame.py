"""Chunks that differ in their text alone are read as any other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ProviderError
from antiphon.domain.events import Batch
from antiphon.domain.request import ChatRequest
from antiphon.providers.openai import response
from antiphon.providers.openai.frame import MAX_MISSES, frame_of
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


def read(chunks: list[bytes], size: int) -> tuple[Batch, str]:
    """Return the events of a stream that is read in pieces of `size` chunks, and the error at its end."""
    reader = OpenAIReader(REQUEST, "host")
    events: Batch = []
    try:
        for start in range(0, len(chunks), size):
            events += reader.feed(b"".join(b"data: %b\n\n" % one for one in chunks[start : start + size]))
            if reader.failure is not None:
                raise reader.failure
        events += reader.end()
    except ProviderError as error:
        return events, f"{type(error).__name__}: {error.message}"
    return events, ""


@given(CHUNKS, st.lists(TEXTS, max_size=4), st.integers(1, 4))
def test_a_stream_is_the_same_with_and_without_frames(others: list[bytes], texts: list[str], size: int) -> None:
    chunks = [chunk("a"), chunk("b"), *others, *map(chunk, texts), chunk("z", reason="stop"), b"[DONE]"]
    found = read(chunks, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response, "MAX_MISSES", 0)
        assert found == read(chunks, size)


def test_only_the_text_of_a_chunk_that_fits_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long stream decodes a few whole chunks; one whose chunks are padded gives up soon."""
    decoded: list[bytes] = []
    decode = response.ChunkDecoder.read
    monkeypatch.setattr(response.ChunkDecoder, "read", lambda reader, data: (decoded.append(data), decode(reader, data))[1])
    framed: list[bytes] = []
    monkeypatch.setattr(response, "frame_of", lambda data, *more: (framed.append(data), frame_of(data, *more))[1])
    read([chunk(str(number)) for number in range(100)], 3)
    assert len(decoded) <= 3
    framed.clear()
    read([chunk(str(number), obfuscation="x" * number) for number in range(100)], 3)
    assert len(framed) == MAX_MISSES
