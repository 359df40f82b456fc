"""All configured guards, in the form that the chat service uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from antiphon.domain.content import Message
from antiphon.domain.errors import ContentBlocked
from antiphon.domain.events import ReplyStream
from antiphon.domain.request import ChatRequest, JsonObjectFormat, JsonSchemaFormat
from antiphon.guards.base import Blocked, Guard
from antiphon.guards.chain import filter_text
from antiphon.guards.reply import filter_reply
from antiphon.guards.request import filter_request

log = structlog.get_logger(__name__)


class Guards:
    """The guards of requests and those of replies, each in order."""

    def __init__(self, request_guards: Sequence[Guard], reply_guards: Sequence[Guard]) -> None:
        self._request_guards = request_guards
        self._reply_guards = reply_guards
        self.filters_requests = bool(request_guards)

    async def request(self, request: ChatRequest) -> ChatRequest:
        """Return the request as it may go to a provider; its `trusted` messages are not filtered. Raises `ContentBlocked`."""
        if not self._request_guards:
            return request
        with _as_content_blocked():
            return await filter_request(self._request_guards, request)

    async def messages(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return messages as they may be stored, filtered like those of a request. Raises `ContentBlocked`."""
        if not self._request_guards:
            return tuple(messages)
        return (await self.request(ChatRequest("", tuple(messages), stream=False))).messages

    async def text(self, text: str) -> str:
        """Return a text, such as a title, as it may be stored. Raises `ContentBlocked`."""
        if not self._request_guards:
            return text
        with _as_content_blocked():
            return await filter_text(self._request_guards, text)

    def reply(self, batches: ReplyStream, request: ChatRequest) -> ReplyStream:
        """Return the filtered reply to a request, as it may go to the caller. Raises what `batches` raises."""
        if not self._reply_guards:
            return batches
        json = isinstance(request.response_format, JsonObjectFormat | JsonSchemaFormat)
        return filter_reply(batches, self._reply_guards, request.sampling.choices or 1, json=json)


@contextmanager
def _as_content_blocked() -> Iterator[None]:
    """Convert `Blocked` to `ContentBlocked`, and log it."""
    try:
        yield
    except Blocked as blocked:
        log.warning("request blocked", guard=blocked.guard)
        raise ContentBlocked(blocked.guard) from None
