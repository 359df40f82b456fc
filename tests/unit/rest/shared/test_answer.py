"""Tests of writing a reply to a caller."""

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody

from antiphon import domain
from antiphon.domain.call import Call
from antiphon.domain.errors import AntiphonError, Internal, InvalidRequest, ProviderProtocolError, Violation
from antiphon.rest.shared.answer import PreparedCall, answer

CUT = ProviderProtocolError("Cut.", provider="p")


class Writer:
    """A writer that sends texts as they are; a batch without text adds nothing."""

    content_type = "text/odd"
    comment = b"..."

    def __init__(self, end: bytes | Exception) -> None:
        self._end = end

    def write(self, batch: domain.Batch) -> bytes:
        return "".join(event.text for event in batch if isinstance(event, domain.TextDelta)).encode()

    def end(self) -> bytes:
        if isinstance(self._end, Exception):
            raise self._end
        return self._end


async def batches_of(*texts: str | Exception) -> AsyncGenerator[domain.Batch, None]:
    for text in texts:
        if isinstance(text, Exception):
            raise text
        yield [domain.TextDelta(0, text)]


def late(error: AntiphonError) -> bytes:
    return f"late: {error.message}".encode()


def answered(batches: AsyncGenerator[domain.Batch, None], end: bytes | Exception) -> AsyncGenerator[HttpBody, None]:
    """Return the pieces that are written for a chat service which sends `batches`."""
    chat: Any = SimpleNamespace(stream=lambda *_: batches)

    async def prepare() -> PreparedCall:
        return PreparedCall(domain.ChatRequest("m", (), stream=True), Writer(end), late)

    return answer(chat, Call(), prepare)


async def pieces(*texts: str | Exception, end: bytes | Exception = b"end") -> list[tuple[str, bytes]]:
    return [(piece.content_type, piece.data) async for piece in answered(batches_of(*texts), end)]


async def test_the_first_piece_has_the_type() -> None:
    """The first piece has the content type. Empty pieces are left out, unless there is no other."""
    assert await pieces("", "a", "", "b") == [("text/odd", b"a"), ("", b"b"), ("", b"end")]
    assert await pieces("a", end=b"") == [("text/odd", b"a")]
    assert await pieces() == [("text/odd", b"end")]
    assert await pieces("", end=b"") == [("text/odd", b"")]


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize(("failure", "message"), [(CUT, "Cut."), (ValueError("secret"), Internal().message)])
async def test_a_failure_after_the_first_piece_is_sent_in_the_stream(failure: Exception, message: str, *, at_end: bool) -> None:
    """After the first piece any failure, also in the last one, is sent in the stream without the end mark.

    An internal error's text is not sent.
    """
    got: list[HttpBody] = []
    batches = batches_of("a") if at_end else batches_of("a", failure)
    with pytest.raises(type(failure)):
        async for piece in answered(batches, failure if at_end else b"end"):
            got.append(piece)  # noqa: PERF401  # the pieces before the error count
    assert [piece.data for piece in got] == [b"a", f"late: {message}".encode()]
    with pytest.raises(type(failure)):
        await pieces(*([] if at_end else [failure]), end=failure)


async def test_a_late_violation_has_the_path_in_the_callers_body() -> None:
    """A violation that is found late has the field's path in the caller's body and not the domain's name."""
    chat: Any = SimpleNamespace(
        stream=lambda *_: batches_of("a", InvalidRequest("No.", (Violation(("messages", 3), "is no good"),)))
    )

    async def prepare() -> PreparedCall:
        def tell(error: AntiphonError) -> bytes:
            assert isinstance(error, InvalidRequest)
            return str(error.violations[0].path).encode()

        request = domain.ChatRequest("m", (), stream=True)
        return PreparedCall(request, Writer(b"end"), tell, body_path=lambda path: ("chat_history", *path[1:]))

    got: list[bytes] = []
    with pytest.raises(InvalidRequest):
        async for piece in answer(chat, Call(), prepare):
            got.append(piece.data)  # noqa: PERF401  # the pieces before the error count
    assert got == [b"a", b"('chat_history', 3)"]
