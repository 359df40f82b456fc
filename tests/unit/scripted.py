"""A provider that a test scripts: the whole provider interface in a few lines, which shows that it is narrow."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from antiphon.chat.prices import Prices
from antiphon.config import RoutingConfig
from antiphon.config.routing import BreakerConfig
from antiphon.domain.content import Origin
from antiphon.domain.events import Batch, Finished, FinishReason, Started, TextDelta, Usage
from antiphon.domain.models import ModelInfo
from antiphon.domain.request import ChatRequest
from antiphon.domain.warnings import Warnings, ignore
from tests.unit.framing import Frames

NO_STORE: Any = None
"""For code that must not use the database: any use fails."""

NO_PRICES = Prices({}, {})

ONE_ATTEMPT = RoutingConfig(attempts=1, breaker=BreakerConfig(consecutive=1000, of=1000))
"""Nothing is tried again, and no number of failures has an effect on later calls."""

ORIGIN = Origin("openai-chat", "scripted", "model-1", "scripted")
START = Started("chatcmpl-1", "model-1", ORIGIN, 1_700_000_000)
STOP = Finished(0, FinishReason.STOP, "stop")
USAGE = Usage(3, 2, 5)


class ScriptedProvider:
    """A provider that yields `batches`.

    It raises an exception among them, and waits forever at None. Missing starts and ends of blocks are added.
    """

    name = "scripted"

    def __init__(self, *batches: Batch | Exception | None) -> None:
        self.batches = batches or ([START, TextDelta(0, "Hel")], [TextDelta(0, "lo")], [USAGE, STOP])
        self.requests: list[ChatRequest] = []
        self.closed = 0
        self.warnings: Warnings = ()
        """What it warns of before the first batch."""
        self.models: tuple[ModelInfo, ...] | Exception | None = None
        """What it lists, or how that fails; None: it has no list."""
        self.lists = 0
        """How often it was asked for its list."""

    async def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
        self.requests.append(request)
        warn(self.warnings)
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

    async def list_models(self) -> tuple[ModelInfo, ...] | None:
        self.lists += 1
        if isinstance(self.models, Exception):
            raise self.models
        return self.models

    async def close(self) -> None:
        pass
