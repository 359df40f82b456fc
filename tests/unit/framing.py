"""Helpers that add the starts and ends of blocks to a test's events, and assert the rules that hold for all events."""

from collections.abc import Iterable

from antiphon.domain.content import Audio, Block, Compaction, Image, Media, Refusal, ServerToolCall, Text, Thinking, ToolCall
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockProgress,
    BlockStarted,
    CitationDelta,
    DeltaGroup,
    Event,
    ExtraFields,
    Finished,
    InputDelta,
    MediaDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from antiphon.domain.reply import Reply

_OF_BLOCKS = (
    TextDelta,
    ThinkingDelta,
    RefusalDelta,
    InputDelta,
    MediaDelta,
    CitationDelta,
    BlockProgress,
    BlockStarted,
    BlockFinished,
)
"""The events with a `block` number."""

_KINDS: dict[type[Event], Block] = {
    TextDelta: Text(""),
    ThinkingDelta: Thinking(""),
    RefusalDelta: Refusal(""),
    InputDelta: ToolCall("call", "f", ""),
    MediaDelta: Audio(Media()),
}


_OTHER_KINDS: dict[type[Event], type[Block]] = {InputDelta: ServerToolCall, MediaDelta: Image}
"""Further kinds of blocks that have such deltas."""


class Frames:
    """Adds missing starts and ends of blocks, batch by batch. A block without a start begins with its first delta, in choice 0."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}

    def batch(self, batch: Iterable[Event]) -> Batch:
        made: Batch = []
        for event in batch:
            if isinstance(event, BlockStarted):
                self._open[event.block] = event.choice
            elif isinstance(event, BlockFinished):
                self._open.pop(event.block, None)
            elif (value := _KINDS.get(type(event))) is not None and event.block not in self._open:  # type: ignore[union-attr]
                made.append(BlockStarted(event.block, 0, value))  # type: ignore[union-attr]
                self._open[event.block] = 0  # type: ignore[union-attr]
            elif isinstance(event, Finished):
                ended = [block for block, choice in self._open.items() if choice == event.choice]
                at = next((at for at, earlier in enumerate(made) if isinstance(earlier, Finished)), len(made))
                made[at:at] = [BlockFinished(block) for block in sorted(ended)]
                for block in ended:
                    del self._open[block]
            made.append(event)
        return made


def framed(*events: Event) -> Batch:
    """Return the events of a whole reply with the starts and ends of blocks added."""
    return Frames().batch(events)


def folded(*events: Event) -> Reply:
    """Return the reply that the events make, with the starts and ends of blocks added."""
    reply = Reply()
    for event in framed(*events):
        reply.add(event)
    return reply


def without_frames(events: Iterable[Event]) -> Batch:
    """Return the events without those that only frame others: starts of text and thoughts, ends without a state, groups."""
    return [
        event
        for event in events
        if not isinstance(event, DeltaGroup)
        and not (isinstance(event, BlockFinished) and event.state is None)
        and not (
            isinstance(event, BlockStarted) and isinstance(event.value, Text | Thinking | Refusal) and event.value.state is None
        )
    ]


def without_early_usage(events: Iterable[Event]) -> Batch:
    """Return the events with the last usage alone: those before it tell what a reply has used that breaks off."""
    batch = list(events)
    last = max((at for at, event in enumerate(batch) if isinstance(event, Usage)), default=-1)
    return [event for at, event in enumerate(batch) if at == last or not isinstance(event, Usage)]


def check(events: Iterable[Event], *, is_whole: bool = True, in_order: bool = True) -> None:
    """Assert the rules of `antiphon.domain.events` on all events of one reply.

    With `is_whole` the reply must have ended well. With `in_order` blocks must begin in the order of their numbers, which holds
    unless one was held back.
    """
    choices: dict[int, int] = {}
    open_blocks: dict[int, Block] = {}
    finished: set[int] = set()
    ended: set[int] = set()
    started = False
    group = 0
    for event in events:
        assert started or isinstance(event, Started), "the start comes first"
        group = event.count if isinstance(event, DeltaGroup) else max(group - 1, 0)
        match event:
            case Started():
                assert not started, "and once"
                started = True
            case BlockStarted():
                assert event.block not in choices, "a block begins once"
                assert not in_order or event.block == len(choices), "blocks are numbered in order, over all choices"
                assert event.choice not in ended, "nothing follows the end of a choice"
                is_whole_at_once = isinstance(event.value, Compaction)
                assert is_whole_at_once or not getattr(event.value, "text", ""), "there is no text at the start"
                assert getattr(event.value, "arguments", "") == ""
                choices[event.block] = event.choice
                open_blocks[event.block] = event.value
            case BlockFinished():
                assert event.block in open_blocks, "a block ends once, after it began"
                del open_blocks[event.block]
                finished.add(event.block)
            case Finished():
                assert event.choice not in ended, "a choice ends once"
                assert not any(choices[block] == event.choice for block in open_blocks), "its blocks have ended"
                ended.add(event.choice)
            case ExtraFields():
                assert event.choice not in ended
            case _ if isinstance(event, _OF_BLOCKS):
                assert event.block in open_blocks, "a delta stands between the start and the end of its block"
                expected = _KINDS.get(type(event))
                kinds = (type(expected), _OTHER_KINDS.get(type(event), type(expected)))
                assert expected is None or isinstance(open_blocks[event.block], kinds), "and is of its kind"
            case _:
                pass
    assert group == 0, "a group is not longer than what follows it"
    assert not is_whole or (not open_blocks and ended >= set(choices.values()))
