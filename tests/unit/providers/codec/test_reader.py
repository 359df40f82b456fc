"""Tests of what the readers of all protocols share, on the smallest reader there can be."""

from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ProviderProtocolError, ProviderUnavailable
from antiphon.domain.events import BlockStarted, Event, Finished, FinishReason, TextDelta, Usage
from antiphon.domain.request import ChatRequest
from antiphon.providers.codec import json
from antiphon.providers.codec.reader import MarkedReader


class LetterReader(MarkedReader):
    """Reads events of one letter: `{"say": "x"}`, `{"fail": true}`, and `{"end": 3}` with the tokens used."""

    protocol = "letters"

    def __init__(self) -> None:
        super().__init__(ChatRequest("m", (Message(Role.USER, (Text("hi"),)),), stream=True), "acme")
        self._usage: Usage | None = None

    @staticmethod
    def _is_output(event: Event) -> bool:
        return isinstance(event, TextDelta)

    def _used(self) -> Usage | None:
        return self._usage

    def _read_event(self, event: Any, name: bytes, payload: bytes) -> None:
        if "fail" in event:
            raise ProviderUnavailable("failed", provider="acme")
        if "begin" in event:
            self._batch.append(BlockStarted(0, 0, Text("")))
        elif "end" in event:
            self._usage = Usage(1, event["end"], 1 + event["end"])
            self._end_with(Finished(0, FinishReason.STOP, "stop"))
        else:
            self._batch.append(TextDelta(0, event["say"]))

    def _read_whole(self, body: bytes) -> None:
        for event in json.read(body):
            self._read_event(event, b"", b"")


def test_a_whole_reply() -> None:
    """Events come as they are read, and at the end the usage and the end of the choice; `[DONE]` and empty data say nothing."""
    reader = LetterReader()
    assert reader.feed(b'data: {"begin": 1}\n\n') == [BlockStarted(0, 0, Text(""))]
    assert not reader.has_output
    assert reader.feed(b'data: {"say": "a"}\n\ndata: \n\ndata: [DONE]\n\n') == [TextDelta(0, "a")]
    assert reader.has_output
    assert not reader.has_usage
    assert reader.feed(b'data: {"end": 3}\n\ndata: {"say": "late"}\n\n') == []
    assert reader.ending.done
    assert reader.ending.wait() is None
    assert reader.has_usage
    assert reader.end() == [Usage(1, 3, 4), Finished(0, FinishReason.STOP, "stop")]


def test_the_last_event_needs_no_empty_line() -> None:
    """An event that only the end of the body completes is read."""
    reader = LetterReader()
    assert reader.feed(b'data: {"end": 0}\n') == []
    assert reader.end()[-1] == Finished(0, FinishReason.STOP, "stop")


def test_a_cut_reply() -> None:
    """A reply without its end is a failure."""
    reader = LetterReader()
    reader.feed(b'data: {"say": "a"}\n\n')
    with pytest.raises(ProviderProtocolError, match="The provider acme ended before the reply was whole"):
        reader.end()


def test_output_before_a_failure_is_kept() -> None:
    """What was read before a failure is returned first; without output the failure is raised at once."""
    reader = LetterReader()
    assert reader.feed(b'data: {"say": "a"}\n\ndata: {"fail": 1}\n\n') == [TextDelta(0, "a")]
    assert isinstance(reader.failure, ProviderUnavailable)
    with pytest.raises(ProviderUnavailable):
        reader.end()
    with pytest.raises(ProviderUnavailable):
        LetterReader().feed(b'data: {"begin": 1}\n\ndata: {"fail": 1}\n\n')


@pytest.mark.parametrize(
    ("data", "words"), [(b"data: {\n\n", "what is not JSON"), (b"data: {}\n\n", "unknown shape"), (b"data: 1\n\n", "unknown shape")]
)
def test_wrong_json(data: bytes, words: str) -> None:
    """What is not JSON, or has another shape, is an error of the protocol."""
    with pytest.raises(ProviderProtocolError, match=words):
        LetterReader().feed(data)


def test_one_object() -> None:
    """An answer in one piece is read by the same rules."""
    assert LetterReader().read_object(b'[{"say": "a"}, {"end": 0}]')[0] == TextDelta(0, "a")
    with pytest.raises(ProviderProtocolError, match="ended before"):
        LetterReader().read_object(b'[{"say": "a"}]')
    with pytest.raises(ProviderProtocolError, match="not JSON"):
        LetterReader().read_object(b"[")
