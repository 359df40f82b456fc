"""One server for all strict APIs, each under a path of its own."""

import json
from collections.abc import Sequence
from typing import Any

from tests.odd_upstream import OddUpstream, Step
from tests.strict.anthropic import StrictAnthropic
from tests.strict.base import StrictApi
from tests.strict.bedrock import StrictBedrock
from tests.strict.chat import StrictDeepSeek, StrictOpenRouter
from tests.strict.cohere import StrictCohere
from tests.strict.gemini import StrictGemini
from tests.strict.responses import StrictResponses

BASES = {"deepseek": "/v1", "openrouter": "/v1", "openai-responses": "/v1"}
"""By protocol: the part of the base URL behind its name."""

PROTOCOLS = ("anthropic", "bedrock", "cohere", "deepseek", "gemini", "openai-responses", "openrouter")


class StrictUpstream(OddUpstream):
    """The server, as an async context manager."""

    def __init__(self, place: str = "") -> None:
        """`place` tells several such servers apart, as the deployments of providers."""
        super().__init__()
        kinds = (StrictAnthropic, StrictBedrock, StrictCohere, StrictDeepSeek, StrictGemini, StrictResponses, StrictOpenRouter)
        apis: list[StrictApi] = [kind(place) for kind in kinds]
        self.apis = {api.protocol: api for api in apis}
        self.refused: list[str] = []
        """Why requests were refused."""
        self.turns = 0
        """How many requests were answered."""

    def steps(self, body: bytes) -> Sequence[Step]:
        """Answer a request."""
        path = self.requests[-1].path
        api = self.apis[path.split("/")[1]]
        steps, found = api.answer(path, json.loads(body))
        self.refused += found
        self.turns += not found
        return steps

    def providers(self) -> dict[str, Any]:
        """Return the configuration of a provider for each API. Its name is that of the protocol, or of the host."""
        root = f"http://127.0.0.1:{self.port}"
        return {
            name: {
                "protocol": "openai" if name in ("deepseek", "openrouter") else name,
                "base_url": f"{root}/{name}{BASES.get(name, '')}",
                "api_key_env": "TEST_PROVIDER_KEY",
            }
            for name in PROTOCOLS
        }

    def expect(self, *, by_chat: bool = False, drops: bool = False) -> None:
        """Set whether the callers use chat completions, which can express less, and whether they send only texts and calls back."""
        for api in self.apis.values():
            api.by_chat, api.drops = by_chat, drops
