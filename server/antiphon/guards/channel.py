"""One text of a choice, over all its blocks of a kind, told in deltas as far as no match may be in it.

A match may go from one block into the next. What is held back keeps its block, and the starts and ends of blocks wait behind the
text that stands before them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from antiphon.domain.content import JsonObject
from antiphon.domain.events import Batch, Event
from antiphon.guards.base import Blocked, Guard
from antiphon.guards.chain import Chain
from antiphon.guards.json_chain import JsonChain
from antiphon.guards.unchanged import passed_logprobs


class _Piece(Struct):
    """A piece of text that is not told yet."""

    block: int
    text: str
    """What is left of it."""
    whole: str
    logprobs: tuple[JsonObject, ...] = ()


class _Mark(Struct, frozen=True):
    """An event that stands behind some text."""

    block: int
    event: Event


class Channel:
    """One text."""

    def __init__(
        self, guards: Sequence[Guard], delta: Callable[..., Event], finish: Callable[[Event, bool], Event], *, json: bool = False
    ) -> None:
        """`delta` makes the delta of a block, `finish` what is told of a mark, given whether the text of its block was changed."""
        self._guards = guards
        self._chain = JsonChain(guards) if json else Chain(guards)
        self._delta = delta
        self._finish = finish
        self._queue: deque[_Piece | _Mark] = deque()
        self._held = ""  # what came and is not told
        self._differs = False  # what was told is not what came
        self._changed: set[int] = set()

    async def feed(self, block: int, text: str, told: Batch, *, logprobs: tuple[JsonObject, ...] = ()) -> None:
        """Take more of the text of a block. What came before a match is told before this raises `Blocked`."""
        self._queue.append(_Piece(block, text, text, logprobs))
        self._held += text
        await self._feed(text, told, final=False)

    def mark(self, block: int, event: Event, told: Batch) -> None:
        """Take an event that belongs behind the text so far."""
        self._queue.append(_Mark(block, event))
        self._release(told)

    async def end(self, told: Batch) -> None:
        """Tell the rest."""
        await self._feed("", told, final=True)
        if self._held:  # masked with nothing
            self._differs = True
            self._changed |= {piece.block for piece in self._queue if isinstance(piece, _Piece) and piece.text}
            self._held = ""
        while self._queue:
            if isinstance(self._queue[0], _Piece):
                self._queue.popleft()
            self._release(told)

    @property
    def masked(self) -> bool:
        """Whether what was told is not what came. To be asked at the end."""
        return self._differs

    async def _feed(self, text: str, told: Batch, *, final: bool) -> None:
        try:
            passed = await self._chain.feed(text, final=final)
        except Blocked as blocked:
            if blocked.before:
                await self._tell(blocked.before, told)
            raise
        if passed:
            await self._tell(passed, told)
        self._release(told)

    async def _tell(self, passed: str, told: Batch) -> None:
        self._differs = self._differs or not self._held.startswith(passed)
        size = max(len(self._held) - self._chain.held, 0) if self._differs else len(passed)
        self._held = self._held[size:]
        taken = await self._take(size)
        if self._differs:
            self._replace(taken, passed)
        for each in taken:
            if isinstance(each, _Mark):
                told.append(self._finish(each.event, each.block in self._changed))
            elif each.logprobs:
                told.append(self._delta(each.block, each.text, each.logprobs))
            elif each.text:
                told.append(self._delta(each.block, each.text))

    def _replace(self, taken: list[_Piece | _Mark], passed: str) -> None:
        """Put what passed in the place of what was taken: what is the same at both ends stays in its block.

        What stands for a match is told in the block in which that began.
        """
        pieces = [each for each in taken if isinstance(each, _Piece)]
        if not pieces:
            pieces.append(_Piece(self._queue[0].block if self._queue else 0, "", ""))
            taken.insert(0, pieces[0])
        text = "".join(piece.text for piece in pieces)
        most = min(len(text), len(passed))
        begin = next((at for at in range(most) if text[at] != passed[at]), most)
        same = next((at for at in range(most - begin) if text[-1 - at] != passed[-1 - at]), most - begin)
        end, masked = len(text) - same, passed[begin : len(passed) - same]
        at = 0
        for piece in pieces:
            after = at + len(piece.text)
            before, behind = piece.text[: max(min(begin, after) - at, 0)], piece.text[max(end - at, 0) :]
            if at < end and after > begin:
                self._changed.add(piece.block)
            if masked and (after > begin or piece is pieces[-1]):
                self._changed.add(piece.block)
                before, masked = before + masked, ""
            piece.text = before + behind
            at = after

    async def _take(self, size: int) -> list[_Piece | _Mark]:
        """Take so many characters off the queue, and the marks between them; of one block in one piece."""
        taken: list[_Piece | _Mark] = []
        while self._queue and (size > 0 or (isinstance(self._queue[0], _Piece) and not self._queue[0].text)):
            entry = self._queue[0]
            if isinstance(entry, _Mark):
                taken.append(entry)
                self._queue.popleft()
                continue
            text, entry.text = entry.text[:size], entry.text[size:]
            size -= len(text)
            logprobs: tuple[JsonObject, ...] = ()
            if not entry.text:
                self._queue.popleft()
                if entry.logprobs and not self._differs:
                    logprobs = await passed_logprobs(self._guards, entry.whole, entry.logprobs)
            last = taken[-1] if taken else None
            if isinstance(last, _Piece) and last.block == entry.block:
                text, logprobs = last.text + text, (*last.logprobs, *logprobs)
                taken.pop()
            taken.append(_Piece(entry.block, text, text, logprobs))
        return taken

    def _release(self, told: Batch) -> None:
        """Tell the marks that no text stands before any more."""
        while self._queue and isinstance(self._queue[0], _Mark):
            mark = self._queue.popleft()
            assert isinstance(mark, _Mark), "it was looked at"
            told.append(self._finish(mark.event, mark.block in self._changed))
