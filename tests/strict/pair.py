"""Two deployments of each strict API, of which now and then one is out of order.

Those of an API that encrypts for one organisation and region refuse the state of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Self

from tests.odd_upstream import Step, answer
from tests.strict.upstream import StrictUpstream

STATEFUL: Final = ("anthropic", "gemini", "openai-responses")
"""The protocols that sign or encrypt what a model thought."""

EVERY: Final = 20
"""One of so many requests is answered with 503."""


class _Deployment(StrictUpstream):
    def __init__(self, place: str, pair: StrictPair) -> None:
        super().__init__(place)
        self._pair = pair

    def steps(self, body: bytes) -> Sequence[Step]:
        self._pair.requests += 1
        if self._pair.requests % EVERY == 0:
            self._pair.out_of_order += 1
            return [answer({"error": {"type": "overloaded_error", "message": "not now"}}, "503 Service Unavailable")]
        return super().steps(body)


class StrictPair:
    """The two, as an async context manager."""

    def __init__(self) -> None:
        self.requests = 0
        self.out_of_order = 0
        self.deployments = {place: _Deployment(place, self) for place in ("east", "west")}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for each in self.deployments.values():
                await stack.enter_async_context(each)
            self._running = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()

    @property
    def refused(self) -> list[str]:
        """Return why requests were refused: a caller would get 400."""
        return [reason for each in self.deployments.values() for reason in each.refused]

    def expect(self, *, by_chat: bool) -> None:
        """Set whether the callers use chat completions."""
        for each in self.deployments.values():
            each.expect(by_chat=by_chat)

    def model(self, protocol: str) -> str:
        """Return the name by which a gateway knows the model of a protocol."""
        return f"{protocol}/{self.deployments['east'].apis[protocol].model}"

    def providers(self) -> dict[str, Any]:
        """Return the configuration of a provider with two deployments for each of `STATEFUL`."""
        found = {place: each.providers() for place, each in self.deployments.items()}
        return {
            name: {
                **{setting: value for setting, value in found["east"][name].items() if setting != "base_url"},
                "deployments": {place: {"base_url": found[place][name]["base_url"]} for place in found},
            }
            for name in STATEFUL
        }
