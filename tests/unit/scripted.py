"""A provider that says what a test tells it to: the whole of the interface in a few lines, which shows that it is narrow."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from antiphon.chat.prices import Prices
from antiphon.domain.content import Origin
from antiphon.domain.events import Batch, Finished, FinishReason, Started, TextDelta, Usage
from antiphon.domain.request import ChatRequest
from tests.unit.framing import Frames

NO_STORE: Any = None
"""For what must not ask the database: it fails if it does."""

NO_PRICES = Prices({}, {})

ORIGIN = Origin("openai-chat", "scripted", "model-1", "scripted")
START = Started("chatcmpl-1", "model-1", ORIGIN, 1_700_000_000)
STOP = Finished(0, FinishReason.STOP, "stop")
USAGE = Usage(3, 2, 5)


class ScriptedProvider:
    """Yields `batches`; an exception among them is raised, and None waits for ever. Frames of blocks need not be told."""

    name = "scripted"

    def __init__(self, *batches: Batch | Exception | None) -> None:
        self.batches = batches or ([START, TextDelta(0, "Hel")], [TextDelta(0, "lo")], [USAGE, STOP])
        self.requests: list[ChatRequest] = []
        self.closed = 0

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Batch, None]:
        self.requests.append(request)
        frames = Frames()
        try:
            for batch in self.batches:
                if batch is None:
                    await asyncio.Event().wait()
                elif isinstance(batch, Exception):
                    raise batch
                else:
                    yield frames.batch(batch)
        finally:
            self.closed += 1

    async def close(self) -> None:
        pass
