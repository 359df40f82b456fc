"""The server of all protocols, on a real socket.

async with StrictUpstream(anthropic) as upstream:
upstream.script(Reply((Said("hi"),)), Failure(529))
...  # the first good request gets the reply, the second the error, all others "Hello there."
"""

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from tests.e2e.upstreams.reply import Failure, Reply, Said, Wire
from tests.odd_upstream import LAST, End, OddUpstream, Step, answer, chunk, head

PHRASES = {400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 529: "Overloaded"}
DEFAULT = Reply((Said("Hello there, friend."),))


class StrictUpstream(OddUpstream):
    """The server, as an async context manager. It refuses wrong requests with 400, and keeps the reasons in `refused`."""

    def __init__(self, wire: Wire, content_type: str = "text/event-stream") -> None:
        super().__init__()
        self.wire = wire
        self.content_type = content_type
        self.refused: list[str] = []
        self._answers: deque[Reply | Failure | tuple[Reply, int, End]] = deque()

    @property
    def url(self) -> str:
        """Return the base URL, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[Any]:
        """Return the requests' bodies so far."""
        return [request.json for request in self.requests if request.body]

    def script(self, *answers: Reply | Failure | tuple[Reply, int, End]) -> None:
        """Set the next answers. A reply with a number and a way to end is a stream that breaks after so many pieces."""
        self.refused.clear()
        self.requests.clear()
        self._answers = deque(answers)

    def steps(self, body: bytes) -> Sequence[Step]:
        """Answer a request."""
        request = self.requests[-1]
        parsed = json.loads(body) if body else {}
        wrong = self.wire.problems(request.path, request.headers, parsed)
        if wrong:
            self.refused += wrong
            return [answer(self.wire.error(Failure(400, "; ".join(wrong))), "400 Bad Request")]
        found = self._answers.popleft() if self._answers else DEFAULT
        is_stream = self.wire.is_stream(request.path, parsed)
        if isinstance(found, Failure) and found.after is None:
            status = f"{found.status} {PHRASES.get(found.status, 'Error')}"
            return [answer(self.wire.error(found), status, "application/json", *found.headers)]
        if isinstance(found, Failure):
            pieces = self.wire.pieces(DEFAULT, parsed)[: found.after]
            return [head(content_type=self.content_type), *map(chunk, (*pieces, self.wire.error_piece(found))), LAST]
        if not isinstance(found, Reply):
            reply, count, way = found
            return [head(content_type=self.content_type), *map(chunk, self.wire.pieces(reply, parsed)[:count]), way]
        if not is_stream:
            return [answer(self.wire.whole(found, parsed))]
        return [head(content_type=self.content_type), *map(chunk, self.wire.pieces(found, parsed)), LAST]
