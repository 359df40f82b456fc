"""Filters one text of a choice, which may span several blocks, and makes deltas of what no match can be part of any more.

A match may begin in one block and end in the next. Text that is held back keeps its block, and the starts and ends of blocks wait
until the text before them has been emitted.
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
from antiphon.guards.unchanged import allowed_logprobs


class _Piece(Struct):
    """A piece of text that is not entirely emitted yet. `whole` is the piece as it came."""

    block: int
    text: str
    """The rest that is not emitted yet."""
    whole: str
    logprobs: tuple[JsonObject, ...] = ()


class _Mark(Struct, frozen=True):
    """An event at a position in the text, such as the start or end of a block."""

    block: int
    event: Event


class Channel:
    """Filters one text. Methods append the resulting events to the batch `out`."""

    def __init__(
        self, guards: Sequence[Guard], delta: Callable[..., Event], finish: Callable[[Event, bool], Event], *, json: bool = False
    ) -> None:
        """Set the event makers.

        `delta` makes a delta from a block number, a text, and log probabilities if there are any. `finish` returns the event to
        emit for a mark, given whether the text of its block was changed. `json`: the text is to be JSON.
        """
        self._guards = guards
        self._chain = JsonChain(guards) if json else Chain(guards)
        self._delta = delta
        self._finish = finish
        self._queue: deque[_Piece | _Mark] = deque()
        self._held = ""  # text that came and is not emitted yet
        self._masked = False  # the emitted text differs from what came
        self._changed: set[int] = set()

    async def feed(self, block: int, text: str, out: Batch, *, logprobs: tuple[JsonObject, ...] = ()) -> None:
        """Take more of a block's text, and emit what may be passed on.

        Raises `Blocked`, after emitting the text before the match.
        """
        self._queue.append(_Piece(block, text, text, logprobs))
        self._held += text
        await self._feed(text, out, final=False)

    def mark(self, block: int, event: Event, out: Batch) -> None:
        """Take an event that belongs after the text so far."""
        self._queue.append(_Mark(block, event))
        self._release(out)

    async def end(self, out: Batch) -> None:
        """Emit the rest: the text ends here. Raises `Blocked`."""
        await self._feed("", out, final=True)
        if self._held:  # replaced by an empty mask
            self._masked = True
            self._changed |= {piece.block for piece in self._queue if isinstance(piece, _Piece) and piece.text}
            self._held = ""
        while self._queue:
            if isinstance(self._queue[0], _Piece):
                self._queue.popleft()
            self._release(out)

    @property
    def masked(self) -> bool:
        """Return whether the emitted text differs from the text that came. Valid after `end`."""
        return self._masked

    async def _feed(self, text: str, out: Batch, *, final: bool) -> None:
        """Filter more of the text, and emit what is released."""
        try:
            released = await self._chain.feed(text, final=final)
        except Blocked as blocked:
            if blocked.before:
                await self._emit(blocked.before, out)
            raise
        if released:
            await self._emit(released, out)
        self._release(out)

    async def _emit(self, released: str, out: Batch) -> None:
        """Emit released text as deltas of the blocks that it came from, with the marks between them."""
        self._masked = self._masked or not self._held.startswith(released)
        size = max(len(self._held) - self._chain.held, 0) if self._masked else len(released)
        self._held = self._held[size:]
        taken = await self._take(size)
        if self._masked:
            self._replace(taken, released)
        for each in taken:
            if isinstance(each, _Mark):
                out.append(self._finish(each.event, each.block in self._changed))
            elif each.logprobs:
                out.append(self._delta(each.block, each.text, each.logprobs))
            elif each.text:
                out.append(self._delta(each.block, each.text))

    def _replace(self, taken: list[_Piece | _Mark], released: str) -> None:
        """Replace the text of the pieces in `taken` by `released`. Equal text at both ends stays in its block.

        A mask is put into the block in which its match began.
        """
        pieces = [each for each in taken if isinstance(each, _Piece)]
        if not pieces:
            pieces.append(_Piece(self._queue[0].block if self._queue else 0, "", ""))
            taken.insert(0, pieces[0])
        text = "".join(piece.text for piece in pieces)
        most = min(len(text), len(released))
        begin = next((at for at in range(most) if text[at] != released[at]), most)
        same = next((at for at in range(most - begin) if text[-1 - at] != released[-1 - at]), most - begin)
        end, masked = len(text) - same, released[begin : len(released) - same]
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
        """Take so many characters off the queue, and the marks between them. Adjacent pieces of one block are joined."""
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
                if entry.logprobs and not self._masked:
                    logprobs = await allowed_logprobs(self._guards, entry.whole, entry.logprobs)
            last = taken[-1] if taken else None
            if isinstance(last, _Piece) and last.block == entry.block:
                text, logprobs = last.text + text, (*last.logprobs, *logprobs)
                taken.pop()
            taken.append(_Piece(entry.block, text, text, logprobs))
        return taken

    def _release(self, out: Batch) -> None:
        """Emit the marks that have no text before them any more."""
        while self._queue and isinstance(self._queue[0], _Mark):
            mark = self._queue.popleft()
            assert isinstance(mark, _Mark), "it was looked at"
            out.append(self._finish(mark.event, mark.block in self._changed))
