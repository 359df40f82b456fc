"""All guards that are configured, as the chat service uses them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager

import structlog

from antiphon.domain.content import Message
from antiphon.domain.errors import ContentBlocked
from antiphon.domain.events import Batch
from antiphon.domain.request import ChatRequest, JsonObjectFormat, JsonSchemaFormat
from antiphon.guards.base import Blocked, Guard
from antiphon.guards.chain import passed
from antiphon.guards.reply import guarded
from antiphon.guards.request import passed_request

log = structlog.get_logger(__name__)


class Guards:
    """What reads requests, and what reads replies, each in order."""

    def __init__(self, of_requests: Sequence[Guard], of_replies: Sequence[Guard]) -> None:
        self._of_requests = of_requests
        self._of_replies = of_replies

    async def request(self, request: ChatRequest) -> ChatRequest:
        """The request as it may go to a provider; what of it is `trusted` is not read. Raises `ContentBlocked`."""
        if not self._of_requests:
            return request
        with _told():
            return await passed_request(self._of_requests, request)

    async def messages(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Messages as they may be stored: read as those of a request are. Raises `ContentBlocked`."""
        return (await self.request(ChatRequest("", tuple(messages), stream=False))).messages

    async def text(self, text: str) -> str:
        """What of a text, such as a title, may be stored. Raises `ContentBlocked`."""
        with _told():
            return await passed(self._of_requests, text)

    def reply(self, batches: AsyncGenerator[Batch, None], request: ChatRequest) -> AsyncGenerator[Batch, None]:
        """The reply to a request as it may go to the caller. Raises what `batches` raises."""
        if not self._of_replies:
            return batches
        json = isinstance(request.response_format, JsonObjectFormat | JsonSchemaFormat)
        return guarded(batches, self._of_replies, request.sampling.choices or 1, json=json)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Blocked as blocked:
        log.warning("request blocked", guard=blocked.guard)
        raise ContentBlocked(blocked.guard) from None
