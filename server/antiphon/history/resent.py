"""What is new in a conversation that a caller sends again as a whole. No I/O.

Chat clients hold the conversation themselves and send all of it with each turn. What is stored already must not be stored twice,
and yet a caller that sends only its new message must be understood too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import Message, Part, Refusal, Role, Text, Thinking, ToolCall, ToolResult
from antiphon.history.base import MessageState, StoredMessage
from antiphon.history.sendable import INSTRUCTIONS, Entry, says_something

_CALLS: Final = ("tool_calls", "function_call")
"""Calls that only a provider knows, among the fields of a message."""

_STEPS: Final = 150_000
"""The most comparisons for one call, some 40 ms of them: a chat that says one thing over and over would take many more."""


class Continuation(Struct, frozen=True):
    """How a conversation goes on: `new` behind `parent_id`, None being the head. `places`: which of the messages sent those are.

    `retold` and `tail` are set where the messages were read beside a path, which had `read` messages, the last of which is `last`:
    what the model is to be told for those, and for what is new.
    """

    new: tuple[Message, ...]
    parent_id: str | None = None
    places: tuple[int, ...] = ()
    retold: tuple[Entry, ...] | None = None
    tail: tuple[Message, ...] = ()
    read: int = 0
    last: str | None = None

    def told(self, before: Sequence[StoredMessage], new: Iterable[Message]) -> tuple[Entry, ...]:
        """What the model is to be told: `before` is the path that the turn goes on from, `new` are its messages as they are stored.

        A turn that came between is told as well. If the path is another one by now, it is told as it is stored.
        """
        if self.retold is None or (self.read and (len(before) < self.read or before[self.read - 1].id != self.last)):
            return (*map(_entry, before), *map(Entry, new))
        return (*self.retold, *map(_entry, before[self.read :]), *map(Entry, self.tail))


def continuation(path: Sequence[StoredMessage], sent: Sequence[Message]) -> Continuation:
    """What of `sent` is not on the stored `path` yet, where it belongs, and what the model is to be told.

    Messages are the same if role and content are. A reply is also the same as the stored one that it takes the place of: clients
    change replies, and leave out what they do not understand. What a user said is also the same if the same reply follows it:
    clients leave out images and documents that were answered.

    1. `sent` begins with the whole path, or with the end of it from some message on: what follows is new, behind the head.
    2. `sent` begins with a part of the path that holds a reply, then differs or ends: the caller went back and said something
       else, or wants another reply. A branch begins there; what was there before stays stored. Where it ends with a reply, that
       reply is wanted again, behind what it answered; but where it ends with the beginning of a reply that the caller wrote, and
       that was gone on with, it is that turn, tried again.
    3. Anything else repeats nothing: all of it is new, behind the head. So a caller may also send its new messages only, and
       saying "yes" twice is not taken for a repetition, unless the first was not answered: then it is that turn, tried again.

    A reply that broke off, or says nothing, need not be repeated, and may be repeated in any length: its caller has seen less of
    it, or nothing. It stays on the path if something new follows; if nothing does, the caller wants that reply again. Nor need what
    a chat opens with before anybody has asked anything, a greeting, nor calls of tools and their results: some clients know only
    what was said in the end.

    The model is told what was sent, as it was sent, and of the path what stands before it or was left out. What stays stored is
    how it was said first. Instructions (system, developer) are compared apart from the talk: if any are sent, those are told, in
    their places, and none that are stored; those that the path has are not stored again, unless its last one is another by now.
    """
    talk = [place for place, message in enumerate(sent) if message.role not in INSTRUCTIONS]
    ours = [place for place, message in enumerate(path) if message.message.role not in INSTRUCTIONS]
    match = _Comparison([path[place] for place in ours], [sent[place] for place in talk]).best()
    pairs = [(ours[mine], talk[theirs]) for mine, theirs in match.pairs]
    parent = _parent([path[place] for place in ours], match, ended=match.heard == len(talk))
    kept = up_to(path, parent)
    heard = {theirs for _, theirs in pairs}
    known = _known(kept, sent)
    places = tuple(place for place in range(len(sent)) if place not in heard and place not in known)
    retold, rest = _retold(kept, sent, pairs)
    return Continuation(
        new=tuple(sent[place] for place in places),
        parent_id=parent,
        places=places,
        retold=retold,
        tail=tuple(sent[place] for place in range(rest, len(sent)) if place not in heard),
        read=len(kept),
        last=kept[-1].id if kept else None,
    )


def up_to(path: Sequence[StoredMessage], last: str | None) -> Sequence[StoredMessage]:
    """The path to the message `last`; None: all of it."""
    return path[: next((at for at, message in enumerate(path, 1) if message.id == last), len(path))]


def _parent(stored: Sequence[StoredMessage], match: _Match, *, ended: bool) -> str | None:
    """What is gone on from. `ended`: nothing that was sent is left."""
    if match.heard and ended:
        if match.at < len(stored) and _is_reply(stored[match.at - 1]) and _is_reply(stored[match.at]):
            return stored[match.at - 1].id  # the beginning of a reply: what comes behind it is its end
        asked = [message.id for message in stored[: match.at] if not _is_reply(message)]
        return asked[-1] if asked else stored[match.at - 1].id
    if match.heard and not match.whole:
        return stored[match.at - 1].id
    return None  # the head, whatever it is by now: a turn that came between is not left aside


def _known(path: Sequence[StoredMessage], sent: Sequence[Message]) -> set[int]:
    """The places of the instructions that are stored: none if the last ones are not."""
    stored: dict[Hashable, list[int]] = {}
    last: Hashable = None
    for at, message in enumerate(path):
        if message.message.role in INSTRUCTIONS:
            last = _key(message.message)
            stored.setdefault(last, []).append(at)
    places = [place for place, message in enumerate(sent) if message.role in INSTRUCTIONS]
    known: set[int] = set()
    begin = 0
    for place in places:
        found = stored.get(_key(sent[place]), [])
        if (at := bisect_left(found, begin)) < len(found):
            begin = found[at] + 1
            known.add(place)
    if len(known) == len(places) and places and _key(sent[places[-1]]) != last:
        return set()
    return known


def _retold(
    path: Sequence[StoredMessage], sent: Sequence[Message], pairs: Sequence[tuple[int, int]]
) -> tuple[tuple[Entry, ...], int]:
    """What the model is told for the path, and the place from which on what was sent is not in that yet."""
    instructed = any(message.role in INSTRUCTIONS for message in sent)
    place = next((at for at, message in enumerate(sent) if message.role not in INSTRUCTIONS), len(sent))
    told = [*map(Entry, sent[:place])]
    at = 0

    def left_out(end: int) -> Iterator[Entry]:
        return (_entry(each) for each in path[at:end] if not instructed or each.message.role not in INSTRUCTIONS)

    for ours, theirs in pairs:
        if ours >= len(path):
            break
        told += left_out(ours)
        told += map(Entry, sent[place:theirs])  # instructions
        following = [each.message for each in path[ours + 1 : ours + 2]] + list(sent[theirs + 1 : theirs + 2])
        answered = any(message.role is Role.TOOL for message in following)
        told.append(Entry(_merged(path[ours], sent[theirs], answered=answered), path[ours]))
        at, place = ours + 1, theirs + 1
    told += left_out(len(path))
    return tuple(told), place


def _entry(stored: StoredMessage) -> Entry:
    return Entry(stored.message, stored)


def _merged(stored: StoredMessage, theirs: Message, *, answered: bool) -> Message:
    """A message as its caller has it now. The thoughts and calls of a reply are its own, as many clients do not send them back.

    `answered`: results of its calls follow; without them, calls that the caller knows nothing of are no good.
    """
    ours = stored.message
    if ours.role is not Role.ASSISTANT or ours == theirs:
        return theirs
    # One without text was only not understood, and of one that broke off a part was seen.
    seen = _broke_off(stored) and _text(ours).startswith(_text(theirs))
    said = ours if seen or not _text(theirs) else theirs
    calls = theirs if _calls(theirs) or not answered else ours
    extra = {name: value for name, value in ours.extra.items() if calls is ours or name not in _CALLS}
    return replace(
        theirs,
        parts=(
            *(part for part in ours.parts if isinstance(part, Thinking)),
            *(part for part in said.parts if not isinstance(part, Thinking | ToolCall)),
            *(part for part in calls.parts if isinstance(part, ToolCall)),
        ),
        extra={**extra, **theirs.extra},
    )


class _Match(Struct, frozen=True, order=True):
    """What was sent, beside the path from some message on. They are ordered by how well they match.

    `same` messages are the same word for word, `altered`, which is negative, are not; `heard` are stored in all. `whole`: that is
    all that matters of the path, which holds those before `at`. `pairs`: the places of each, there and in what was sent.
    """

    same: int = 0
    altered: int = 0
    heard: int = 0
    whole: bool = False
    at: int = 0
    pairs: tuple[tuple[int, int], ...] = ()


class _Comparison:
    """A stored path beside what was sent, both without instructions."""

    def __init__(self, stored: Sequence[StoredMessage], talk: Sequence[Message]) -> None:
        numbers: dict[Hashable, int] = {}

        def numbered(messages: Iterable[Message]) -> list[int]:
            return [numbers.setdefault(_key(message), len(numbers)) for message in messages]

        self._talk = talk
        self._ours = numbered(message.message for message in stored)
        self._theirs = numbered(talk)
        self._replies = list(map(_is_reply, stored))
        self._users = [message.message.role is Role.USER for message in stored]
        self._broke_off = [_broke_off(message) for message in stored]
        self._failed = [each.state is not MessageState.IN_PROGRESS and _broke_off(each) for each in stored]
        # From where on only replies that broke off are left.
        self._end = next((at for at in range(len(stored), 0, -1) if not self._broke_off[at - 1]), 0)
        # By the place of a call of tools: what was said in the end.
        self._final = list(range(len(stored)))
        for at in range(len(stored) - 2, -1, -1):
            message = stored[at].message
            if (message.role is Role.TOOL or _calls(message)) and stored[at + 1].message.role in {Role.TOOL, Role.ASSISTANT}:
                self._final[at] = self._final[at + 1]

    def best(self) -> _Match:
        """Of the places where what was sent may begin on the path, the one where most is the same word for word.

        But where a part of the path would say that nothing is new, and its end that something is, it is: no word is lost.
        """
        best = fresh = _Match()
        steps = 0
        greeting = next((at for at, reply in enumerate(self._replies) if not reply), len(self._ours))
        # From its beginning, or else an end of it: those are what clients send, if the comparisons should not do for all places.
        for start in (*range(min(greeting + 1, len(self._ours))), *range(len(self._ours) - 1, greeting, -1)):
            if not self._talk or min(len(self._ours) - start, len(self._talk)) < min(best.same, fresh.same):
                continue
            if steps > _STEPS:
                break
            match = self._from(start)
            steps += match.at - start + 1
            if self._repeats(match, opening=start <= greeting):
                best = max(best, match) if best.heard else match
                if match.whole and not match.altered and match.heard < len(self._talk):
                    fresh = max(fresh, match)
        if fresh.heard and best.heard == len(self._talk) and best.pairs[0][0] > greeting:
            return fresh
        return best

    def _from(self, start: int) -> _Match:
        """If what was sent begins at `start`."""
        same = 0
        index = at = start
        pairs: list[tuple[int, int]] = []
        while index < len(self._ours) and len(pairs) < len(self._theirs):
            heard = len(pairs)
            if self._ours[index] == self._theirs[heard]:
                same += 1
            elif self._replies[index] and self._talk[heard].role is Role.ASSISTANT:
                final = self._final[index]
                if self._replies[final] and not self._knows_tools(heard):
                    index = final
                    same += self._ours[index] == self._theirs[heard]
            elif self._broke_off[index]:
                index += 1
                continue
            elif not self._answered_alike(index, heard):
                break
            pairs.append((index, heard))
            index += 1
            at = index
        return _Match(same, same - len(pairs), len(pairs), bool(pairs) and at >= self._end, at, tuple(pairs))

    def _repeats(self, match: _Match, *, opening: bool) -> bool:
        """Whether so much is a repetition, and no accident."""
        if not any(message.role is Role.ASSISTANT for message in self._talk[: match.heard]):
            return match.whole and (opening or self._failed[match.at :] == [True])
        # A single reply that differs stands for the last one, if something follows it.
        return match.same > 0 or (match.whole and match.heard < len(self._talk))

    def _answered_alike(self, index: int, heard: int) -> bool:
        """Whether what the user said, there and here, has the same reply word for word."""
        if heard + 1 >= len(self._talk) or index + 1 >= len(self._ours):
            return False
        if self._users[index] and self._talk[heard].role is Role.USER and self._talk[heard + 1].role is Role.ASSISTANT:
            reply = self._theirs[heard + 1]
            return reply in (self._ours[index + 1], self._ours[self._final[index + 1]]) and bool(self._talk[heard + 1].parts)
        return False

    def _knows_tools(self, heard: int) -> bool:
        """Whether who sent a reply sent the calls of its turn too."""
        if _calls(self._talk[heard]):
            return True
        return heard + 1 < len(self._talk) and self._talk[heard + 1].role is Role.TOOL


def _calls(message: Message) -> bool:
    return any(isinstance(part, ToolCall) for part in message.parts) or any(name in message.extra for name in _CALLS)


def _is_reply(message: StoredMessage) -> bool:
    return message.message.role is Role.ASSISTANT


def _text(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, Text | Refusal)).strip()


def _broke_off(message: StoredMessage) -> bool:
    return _is_reply(message) and (message.state is not MessageState.COMPLETE or not says_something(message.message))


def _key(message: Message) -> Hashable:
    """What makes two messages the same: who, and what. White space around it does not count, as clients trim it."""
    text: list[str] = []
    other: list[bytes | tuple[str, ...]] = []
    for part in message.parts:
        _add(part, text, other)
    return message.role, "".join(text).strip(), tuple(other)


def _add(part: Part, text: list[str], other: list[bytes | tuple[str, ...]]) -> None:
    match part:
        case Text():
            text.append(part.text)
        case Thinking():
            pass  # clients do not send it back
        case Refusal():
            text.append(part.text)
        case ToolCall():
            other.append((part.id, part.name))
        case ToolResult():
            other.append((part.tool_call_id,))
            for inner in part.parts:
                _add(inner, text, other)
        case _:
            other.append(msgspec.json.encode(part))
