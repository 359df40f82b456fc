"""What is new in a conversation that a caller sends again as a whole. No I/O.

Chat clients hold the conversation themselves and send all of it with each turn. What is stored already must not be stored twice,
and yet a caller that sends only its new message must be understood too.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from antiphon.history.base import MessageState, StoredMessage
from antiphon.messages import Message, Part, Refusal, Role, Text, Thinking, ToolCall, ToolResult

_INSTRUCTIONS: Final = frozenset({Role.SYSTEM, Role.DEVELOPER})

_STEPS: Final = 500_000
"""The most comparisons for one call, a tenth of a second of them: a chat that says one thing over and over would take many more."""


class Continuation(Struct, frozen=True):
    """How a conversation goes on: `new` behind `parent_id`, None being the head. `places`: which of the messages sent those are.

    `instructions` are all that were sent, `leading` of them before the talk; `altered` has, by the id of what is stored, what the
    caller makes of it now.
    """

    new: tuple[Message, ...]
    parent_id: str | None = None
    places: tuple[int, ...] = ()
    instructions: tuple[Message, ...] = ()
    leading: int = 0
    altered: Mapping[str, Message] = {}

    def told(self, path: Iterable[StoredMessage]) -> tuple[Message, ...]:
        """What the model is to be told of the path that this turn is on: what its caller has changed as it is now.

        A caller that sends instructions means those, and none that it sent before: they come first, as it sent them.
        """
        said = [self.altered.get(message.id, message.message) for message in path]
        if not self.instructions:
            return tuple(said)
        within = {_key(message) for message in self.instructions[self.leading :]}
        talk = (message for message in said if message.role not in _INSTRUCTIONS or _key(message) in within)
        return (*self.instructions[: self.leading], *talk)


def continuation(path: Sequence[StoredMessage], sent: Sequence[Message]) -> Continuation:
    """What of `sent` is not on the stored `path` yet, and where it belongs.

    Messages are the same if role and content are. A reply is also the same as the stored one that it takes the place of: clients
    change replies, and leave out what they do not understand. What a user said is also the same if the same reply follows it:
    clients leave out images and documents that were answered. What was changed so is told to the model as it is now, and stays
    stored as it was. Instructions (system, developer) are compared apart from the talk: those that the path has last are not stored
    again, others go with the new messages.

    1. `sent` begins with the whole path, or with the end of it from some message on: what follows is new, behind the head.
    2. `sent` begins with a part of the path that holds a reply, then differs or ends: the caller went back and said something
       else, or wants another reply. A branch begins there; what was there before stays stored. Where it ends with a reply, that
       reply is wanted again, behind what it answered.
    3. Anything else repeats nothing: all of it is new, behind the head. So a caller may also send its new messages only, and
       saying "yes" twice is not taken for a repetition, unless the first was not answered: then it is that turn, tried again.

    A reply that broke off, or says nothing, need not be repeated, and may be repeated in any length: its caller has seen less of
    it, or nothing. It stays on the path if something new follows; if nothing does, the caller wants that reply again. Nor need what
    a chat opens with before anybody has asked anything, a greeting, nor calls of tools and their results: some clients know only
    what was said in the end.
    """
    talk = [message for message in sent if message.role not in _INSTRUCTIONS]
    stored = [message for message in path if message.message.role not in _INSTRUCTIONS]
    found = _Comparison(stored, talk).best()
    heard = found.heard
    last: str | None = None
    if heard and heard == len(talk):
        asked = [message.id for message in stored[: found.at] if message.message.role is not Role.ASSISTANT]
        last = asked[-1] if asked else stored[found.at - 1].id
    elif heard and not found.whole:
        last = stored[found.at - 1].id  # else None, whatever the head is by now: a turn that came between is not left aside
    instructions = tuple(message for message in sent if message.role in _INSTRUCTIONS)
    known = _known(path, last, instructions)
    places: list[int] = []
    for place, message in enumerate(sent):
        if message.role in _INSTRUCTIONS:
            if known:
                known -= 1
            else:
                places.append(place)
        elif heard:
            heard -= 1
        else:
            places.append(place)
    return Continuation(
        new=tuple(sent[place] for place in places),
        parent_id=last,
        places=tuple(places),
        instructions=instructions,
        leading=next((place for place, message in enumerate(sent) if message.role not in _INSTRUCTIONS), len(sent)),
        altered={stored[ours].id: _altered(stored[ours].message, talk[theirs]) for ours, theirs in found.altered},
    )


def up_to(path: Sequence[StoredMessage], last: str | None) -> Sequence[StoredMessage]:
    """The path to the message `last`; None: all of it."""
    return path[: next((at for at, message in enumerate(path, 1) if message.id == last), len(path))]


def _altered(ours: Message, theirs: Message) -> Message:
    """What the caller has made of a message. The thoughts and calls of a reply are its own: clients do not send them back."""
    if ours.role is not Role.ASSISTANT:
        return theirs
    said = (part for part in theirs.parts if not isinstance(part, Thinking | ToolCall))
    thoughts = (part for part in ours.parts if isinstance(part, Thinking))
    calls = (part for part in ours.parts if isinstance(part, ToolCall))
    return replace(ours, parts=(*thoughts, *said, *calls))


def _known(path: Sequence[StoredMessage], last: str | None, instructions: Sequence[Message]) -> int:
    """How many of the instructions, from the first on, are what the path has last, up to the message `last`."""
    ours = [_key(message.message) for message in up_to(path, last) if message.message.role in _INSTRUCTIONS]
    theirs = [_key(message) for message in instructions]
    return next((size for size in range(min(len(ours), len(theirs)), 0, -1) if ours[-size:] == theirs[:size]), 0)


class _Match(Struct, frozen=True, order=True):
    """What was sent, beside the path from `start` on. They are ordered by how well they match.

    `same` messages are the same word for word, `heard` are stored in all, and the path holds those before `at`. `whole`: that is
    all that matters of the path. `altered`: places on the path and in what was sent, of messages that the caller has changed.
    """

    same: int = 0
    heard: int = 0
    whole: bool = False
    start: int = 0
    at: int = 0
    altered: tuple[tuple[int, int], ...] = ()


class _Comparison:
    """A stored path beside what was sent, both without instructions."""

    def __init__(self, stored: Sequence[StoredMessage], talk: Sequence[Message]) -> None:
        numbers: dict[Hashable, int] = {}

        def numbered(messages: Iterable[Message]) -> list[int]:
            return [numbers.setdefault(_key(message), len(numbers)) for message in messages]

        self._stored = stored
        self._talk = talk
        self._ours = numbered(message.message for message in stored)
        self._theirs = numbered(talk)
        self._replies = [message.message.role is Role.ASSISTANT for message in stored]
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
        """Of the places where what was sent may begin on the path, the one where most is the same word for word."""
        best, steps = _Match(), 0
        greeting = next((at for at, reply in enumerate(self._replies) if not reply), len(self._ours))
        # From its beginning, or else an end of it: those are what clients send, if the comparisons should not do for all places.
        for start in (*range(min(greeting + 1, len(self._ours))), *range(len(self._ours) - 1, greeting, -1)):
            if not self._talk or min(len(self._ours) - start, len(self._talk)) < best.same:
                continue
            if steps > _STEPS:
                break
            match = self._from(start)
            steps += match.at - start + 1
            if self._repeats(match, opening=start <= greeting):
                best = max(best, match)
        return best

    def _from(self, start: int) -> _Match:
        """If what was sent begins at `start`."""
        heard = same = 0
        index = at = start
        altered: list[tuple[int, int]] = []
        while index < len(self._ours) and heard < len(self._theirs):
            if self._ours[index] == self._theirs[heard]:
                same += 1
            elif self._replies[index] and self._talk[heard].role is Role.ASSISTANT:
                final = self._final[index]
                if self._replies[final] and not self._knows_tools(heard):
                    index = final
                if self._ours[index] == self._theirs[heard]:
                    same += 1
                elif self._retells(index, heard):
                    altered.append((index, heard))
            elif self._broke_off[index]:
                index += 1
                continue
            elif self._answered_alike(index, heard):
                altered.append((index, heard))
            else:
                break
            index += 1
            heard, at = heard + 1, index
        return _Match(same, heard, heard > 0 and at >= self._end, start, at, tuple(altered))

    def _repeats(self, match: _Match, *, opening: bool) -> bool:
        """Whether so much is a repetition, and no accident."""
        if not any(message.role is Role.ASSISTANT for message in self._talk[: match.heard]):
            return match.whole and (opening or self._failed[match.at :] == [True])
        # A single reply that differs stands for the last one, if something follows it.
        return match.same > 0 or (match.whole and match.heard < len(self._talk))

    def _retells(self, index: int, heard: int) -> bool:
        """Whether a reply was changed: one that has no text was only not understood, and of one that broke off a part was seen."""
        text = _text(self._talk[heard])
        return bool(text) and not (self._broke_off[index] and _text(self._stored[index].message).startswith(text))

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
    return any(isinstance(part, ToolCall) for part in message.parts)


def _text(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, Text | Refusal)).strip()


def _broke_off(message: StoredMessage) -> bool:
    said = message.message.parts or message.message.extra
    return message.message.role is Role.ASSISTANT and (message.state is not MessageState.COMPLETE or not said)


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
