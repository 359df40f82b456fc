"""Recorded replies of providers, from the folder that `ANTIPHON_RECORDED` names: which protocol each file is of, and its bytes.

The protocol is found in the content, not in the name, so that a file which no test reads is found.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from antiphon.domain.request import ChatRequest
from antiphon.providers.anthropic.response import AnthropicReader
from antiphon.providers.bedrock.response import BedrockReader
from antiphon.providers.client import Reader
from antiphon.providers.cohere.response import CohereReader
from antiphon.providers.gemini.response import GeminiReader
from antiphon.providers.openai.response import OpenAIReader
from antiphon.providers.responses.response import ResponsesReader
from tests.eventstream import stream

FOLDER = os.environ.get("ANTIPHON_RECORDED")
REQUEST = ChatRequest("m", (), stream=True)

READERS: dict[str, Callable[[ChatRequest, str], Reader]] = {
    "anthropic": AnthropicReader,
    "bedrock": BedrockReader,
    "cohere": CohereReader,
    "gemini": GeminiReader,
    "openai": OpenAIReader,
    "responses": ResponsesReader,
}
"""By protocol: what reads its answers."""

STARTS = {"message_start": "anthropic", "message-start": "cohere", "response.created": "responses"}
"""By type of the first event of a stream: its protocol. Each begins a stream; a file may have several."""

BEDROCK = {"messageStart", "contentBlockStart", "contentBlockDelta", "output"}


class Recording(NamedTuple):
    """One stream as its events, or one whole reply as one object."""

    protocol: str
    """`error` for an error; `interactions` and `skill` for APIs that no provider here speaks; `unknown` for all else."""
    name: str
    payloads: tuple[str, ...]
    is_stream: bool

    @property
    def pieces(self) -> list[bytes]:
        """Return the bytes of each event of a stream, as they are sent."""
        if self.protocol == "bedrock":
            return [stream(json.loads(payload)) for payload in self.payloads]
        return [b"event: x\ndata: %b\n\n" % payload.encode() for payload in self.payloads]

    @property
    def ends(self) -> list[int]:
        """Return where each event ends."""
        return list(accumulate(map(len, self.pieces)))

    @property
    def is_broken(self) -> bool:
        """Return whether the recording is not JSON, or tells of a failure: such a reply has no clean end."""
        try:
            events = [json.loads(payload) for payload in self.payloads]
        except ValueError:
            return True
        return any(event.get("type") in ("response.failed", "error") for event in events)

    def reader(self) -> Reader:
        """Return a new reader of this protocol."""
        return READERS[self.protocol](REQUEST, "p")


@cache
def recordings() -> tuple[Recording, ...]:
    """Return all recordings; none if there is no folder."""
    return tuple(one for path in sorted(Path(FOLDER).rglob("*")) if path.is_file() for one in _read(path)) if FOLDER else ()


def streams() -> list[Recording]:
    """Return the streams of all protocols."""
    return [one for one in recordings() if one.is_stream and one.protocol in READERS]


def _read(path: Path) -> Iterator[Recording]:
    name = str(path.relative_to(str(FOLDER)))
    text = path.read_text()
    if path.suffix == ".json":
        yield Recording(_protocol(json.loads(text)), name, (text,), is_stream=False)
    elif path.name.endswith(".chunks.txt"):
        lines = [line for line in text.split("\n") if line[:1] == "{"]
        kinds = [_protocol_of_event(line) for line in lines]
        starts = [at for at, kind in enumerate(kinds) if kind in STARTS.values()] or [0]
        starts[0] = 0  # one host sends something before the start
        for number, (begin, end) in enumerate(pairwise([*starts, len(lines)])):
            protocol = next((kind for kind in kinds[begin:end] if kind is not None), "unknown")
            yield Recording(protocol, f"{name} {number}", tuple(lines[begin:end]), is_stream=True)


def _protocol_of_event(line: str) -> str | None:
    """Return the protocol of the event with which a stream of it begins; None for another event."""
    try:
        event = json.loads(line)
    except ValueError:
        return next((protocol for kind, protocol in STARTS.items() if f'"type":"{kind}"' in line), None)
    kind = event.get("type")
    return STARTS.get(kind) if isinstance(kind, str) else _protocol(event)


def _protocol(body: dict[str, Any]) -> str:
    match body:
        case {"type": "message", "content": list()}:
            return "anthropic"
        case {"object": "response", "output": list()}:
            return "responses"
        case {"candidates": _}:
            return "gemini"
        case {"choices": _}:
            return "openai"
        case {"message": {"role": "assistant"}, "finish_reason": _}:
            return "cohere"
        case {"error": _}:
            return "error"
        case {"interaction": {}} | {"object": "interaction"} | {"steps": _}:
            return "interactions"
        case {"id": str(name)} if name.startswith("skill_"):
            return "skill"
        case _:
            return "bedrock" if body.keys() & BEDROCK else "unknown"


def parameters(found: Iterable[Recording]) -> list[Any]:
    """Return recordings as parameters of a test; one that skips if there is no folder."""
    import pytest

    given = [pytest.param(one, id=one.name) for one in found]
    skip = pytest.mark.skip(reason="ANTIPHON_RECORDED names no folder of recorded replies")
    return given or [pytest.param(None, id="none", marks=skip)]
