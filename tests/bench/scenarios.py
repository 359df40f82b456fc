"""The loads under which gateways are compared: how many callers, and what each asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from antiphon.v1 import chat_pb2, message_pb2

MESSAGES: Final = [
    {"role": "system", "content": "You are a helpful assistant. Answer briefly and precisely."},
    {
        "role": "user",
        "content": "Summarise the following paragraph in one sentence: the quick brown fox jumps over the lazy dog while the "
        "gateway forwards every token without delay.",
    },
]


class Scenario(NamedTuple):
    """A load: `connections` callers, each of which begins a call when its last one has ended."""

    name: str
    title: str
    connections: int
    tokens: int
    model: str = "mock-d0"
    stream: bool = False
    rpc: str = ""
    """The method of gRPC, which Antiphon alone has."""

    @property
    def unit(self) -> str:
        """What its cost is told of: a call, or a token of a stream."""
        return "token" if self.stream else "call"

    def body(self, model: str) -> bytes:
        """Return the request; `model` is how the gateway calls a model, as in "mock::{}"."""
        name = model.format(self.model)
        if self.rpc:
            messages = [
                message_pb2.Message(
                    role=f"ROLE_{each['role'].upper()}", blocks=[message_pb2.Block(text=message_pb2.Text(text=each["content"]))]
                )
                for each in MESSAGES
            ]
            sampling = chat_pb2.Sampling(max_tokens=self.tokens, temperature=0.7)
            return chat_pb2.GenerateRequest(model=name, messages=messages, sampling=sampling).SerializeToString()
        asked: dict[str, Any] = {"model": name, "messages": MESSAGES, "max_tokens": self.tokens, "temperature": 0.7}
        if self.stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        return msgspec.json.encode(asked)

    def write(self, folder: Path, model: str) -> Path:
        """Write the request into a file for the callers, and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.body"
        path.write_bytes(self.body(model))
        return path


def _json(connections: int) -> Scenario:
    return Scenario(f"json-{connections}", f"JSON, {connections} at once", connections, 32)


def _paced(connections: int) -> Scenario:
    title = f"{connections:,} streams, 20 tokens a second each"
    return Scenario(f"paced-{connections}", title, connections, 32, "mock-d50", stream=True)


BURST: Final = Scenario("burst-16", "16 streams without a pause", 16, 128, stream=True)
GRPC: Final = (
    Scenario("grpc-64", "gRPC, 64 at once", 64, 32, rpc="/antiphon.v1.ChatService/Generate"),
    Scenario(
        "grpc-burst-16", "gRPC, 16 streams without a pause", 16, 128, stream=True, rpc="/antiphon.v1.ChatService/StreamGenerate"
    ),
    Scenario(
        "grpc-paced-64",
        "gRPC, 64 streams, 20 tokens a second each",
        64,
        32,
        "mock-d50",
        stream=True,
        rpc="/antiphon.v1.ChatService/StreamGenerate",
    ),
)

ALL: Final = (*map(_json, (1, 16, 64, 256)), BURST, *map(_paced, (64, 256, 1000)), *GRPC)
QUICK: Final = (_json(16), BURST, _paced(64), GRPC[0])
WARM: Final = _json(8)
BY_NAME: Final = {scenario.name: scenario for scenario in (*ALL, *QUICK)}
