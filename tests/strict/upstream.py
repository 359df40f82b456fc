"""One server for all strict APIs, each under a path of its own.

    async with StrictUpstream(in_loop=False) as upstream:
        upstream.answer_next(Reply((Said("hi"),)), Failure(529))
        ...  # the first good request gets the reply, the second the error, all others an answer without calls

In a loop of tool calls, each good request that nothing was scripted for gets the next turn of that (see `base`).
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from tests.odd_upstream import LAST, End, OddUpstream, Step, answer, chunk, head
from tests.strict.anthropic import StrictAnthropic
from tests.strict.base import StrictApi
from tests.strict.bedrock import StrictBedrock
from tests.strict.chat import StrictChat, StrictDeepSeek, StrictOpenRouter
from tests.strict.cohere import StrictCohere
from tests.strict.gemini import StrictGemini
from tests.strict.reply import Failure, Reply
from tests.strict.responses import StrictResponses

APIS: tuple[type[StrictApi], ...] = (
    *(StrictAnthropic, StrictBedrock, StrictCohere, StrictDeepSeek, StrictGemini, StrictResponses, StrictOpenRouter),
)
PROTOCOLS = tuple(api.protocol for api in APIS)

ANSWER = 4
"""The number of a turn without calls."""

Scripted = Reply | Failure | tuple[Reply, int, End]
"""A reply with a number and a way to end is a stream that breaks after so many pieces."""


class StrictUpstream(OddUpstream):
    """The server, as an async context manager. It refuses wrong requests with 400, and keeps the reasons in `refused`."""

    def __init__(self, place: str = "", *, in_loop: bool = True) -> None:
        """`place` tells several such servers apart, as the deployments of providers."""
        super().__init__()
        self.apis = {api.protocol: api(place, in_loop=in_loop) for api in APIS}
        self.refused: list[str] = []
        """Why requests were refused."""
        self.turns = 0
        """How many requests were answered."""
        self._answers: deque[Scripted] = deque()

    @property
    def bodies(self) -> list[Any]:
        """Return the requests' bodies so far."""
        return [request.json for request in self.requests if request.body]

    def answer_next(self, *answers: Scripted) -> None:
        """Set the next answers, and forget the requests so far."""
        self.refused.clear()
        self.requests.clear()
        self._answers = deque(answers)

    def steps(self, body: bytes) -> Sequence[Step]:
        """Answer a request."""
        request = self.requests[-1]
        api = self.apis[request.path.split("/")[1]]
        if found := api.problems(request):
            self.refused += found
            return [answer(api.error(Failure(400, "; ".join(found))), "400 Bad Request")]
        self.turns += 1
        expected = api.turn(len(api.turns(request.json)) if api.in_loop else ANSWER)
        match self._answers.popleft() if self._answers else expected:
            case Failure(after=None) as failure:
                return [answer(api.error(failure), f"{failure.status} Error", "application/json", *failure.headers)]
            case Failure() as failure:
                pieces, end = [*api.pieces(expected)[: failure.after], api.error_piece(failure)], LAST
            case Reply() as reply if not api.is_stream(request.path, request.json):
                return [answer(api.whole(api.issue(reply)))]
            case Reply() as reply:
                pieces, end = api.pieces(api.issue(reply)), LAST
            case reply, count, end:
                pieces = api.pieces(reply)[:count]
        return [head(content_type=api.content_type), *map(chunk, pieces), end]

    def providers(self) -> dict[str, Any]:
        """Return the configuration of a provider for each API. Its name is that of the protocol, or of the host."""
        root = f"http://127.0.0.1:{self.port}"
        return {
            name: {
                "protocol": "openai" if isinstance(api, StrictChat) else name,
                "base_url": f"{root}/{name}{api.base}",
                "api_key_env": "TEST_PROVIDER_KEY",
            }
            for name, api in self.apis.items()
        }

    def expect(self, *, by_chat: bool = False, drops: bool = False) -> None:
        """Set whether the callers use chat completions, which can express less, and whether they send only texts and calls back."""
        for api in self.apis.values():
            api.by_chat, api.drops = by_chat, drops
