"""Which messages of a request repeat what is stored, and where its new ones belong. No I/O.

Most chat clients hold the conversation themselves and send all of it with each turn; some send their new messages only. The rule:

1. Messages that equal the stored path, from its first message on, are a repetition: they are not stored again. If nothing follows
   them, another reply to them is wanted.
2. The first difference begins a branch: what follows is new, behind the last message that was equal. What stood there stays stored.
3. A request that repeats no reply, and has none before its last message, brings new messages only, which go behind the head. So
   "yes" can be said twice.
4. `request_id` decides the rest: without one, a turn that was answered is never taken for a retry.

Messages are equal if a client that received the stored one may send it so. Thoughts, fields beside the text and space around it do
not count; of a tool call its id and name do, and of a model's recording what is said in it, or its id. A reply that broke off, or
says nothing, may be left out: perhaps it never arrived.

Two exceptions, each for clients that are tested:

- A repetition may be the end of the path, if it is longer so. LangChain's `trim_messages` sends the end of a chat only, and the
  OpenAI SDK, given the new message alone, sends that again by itself after a failure.
- Instructions (system, developer) are compared apart from the talk, as programs on the OpenAI SDK send them with every call, and
  change them. They are stored unless the path has them, and again if the last one sent is not the last one stored.

The model is told what was sent, behind what the path has before it. Instructions that are sent take the place of those that are
stored. Of a repeated reply the stored blocks are sent: their order, and what is a provider's own, are lost on clients that know
texts only. A call whose arguments its client has changed is sent as it is now.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import takewhile
from operator import eq
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import (
    Audio,
    Document,
    Image,
    Message,
    Opaque,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.history.base import BEGINNING, MessageState, Parent, StoredMessage
from antiphon.history.sendable import INSTRUCTIONS, Entry, says_something

_NOTHING: Final[Mapping[str, int]] = {}
_NO_TRANSCRIPTS: Final[Mapping[str, str]] = {}


class Continuation(Struct, frozen=True):
    """How a conversation goes on with the messages `sent`: those at `places` are stored behind `parent_id`.

    `repeated` maps the id of a stored message to the place of the one that repeats it. `instructed`: instructions were sent, and
    are told in place of the stored ones.
    """

    sent: tuple[Message, ...]
    places: tuple[int, ...]
    parent_id: Parent = None
    repeated: Mapping[str, int] = _NOTHING
    instructed: bool = False

    @property
    def new(self) -> tuple[Message, ...]:
        """The messages to store."""
        return tuple(self.sent[place] for place in self.places)

    def told(self, before: Sequence[StoredMessage]) -> tuple[Entry, ...]:
        """Return what the model is told; `before` is the stored path that the new messages go behind."""
        told = list(map(Entry, takewhile(_instructs, self.sent if self.instructed else ())))
        at = len(told)
        for row in before:
            place = self.repeated.get(row.id)
            if place is not None:
                told += map(Entry, self.sent[at:place])  # instructions between the messages
                told.append(Entry(_merged(row.message, self.sent[place]), row))
                at = place + 1
            elif not (self.instructed and _instructs(row.message)):
                told.append(Entry(row.message, row))
        return (*told, *map(Entry, self.sent[at:]))


def continuation(path: Sequence[StoredMessage], sent: Sequence[Message]) -> Continuation:
    """Apply the rule to a request for the conversation with this path, in time linear in both."""
    rows = [row for row in path if not _instructs(row.message)]
    talk = [place for place, message in enumerate(sent) if not _instructs(message)]
    instructions = [place for place, message in enumerate(sent) if _instructs(message)]
    repeated = _repeated(rows, [sent[place] for place in talk])
    following = talk[len(repeated or ()) :]
    parent: Parent = BEGINNING
    if repeated is None:
        parent = None
    elif repeated:
        last = repeated[-1]
        if following and not _is_reply(sent[following[0]]):
            last += sum(1 for _ in takewhile(_broke_off, rows[last + 1 :]))  # the conversation goes on behind what broke off
        parent = rows[last].id
    return Continuation(
        tuple(sent),
        tuple(sorted([*_unknown(up_to(path, parent), sent, instructions), *following])),
        parent,
        {rows[at].id: place for at, place in zip(repeated or (), talk, strict=False)},
        instructed=bool(instructions),
    )


def up_to(path: Sequence[StoredMessage], last: Parent) -> Sequence[StoredMessage]:
    """Return the part of `path` that stands before what goes behind `last`."""
    if last is BEGINNING:
        return ()
    return path[: next((at for at, row in enumerate(path, 1) if row.id == last), len(path))]


def _repeated(rows: Sequence[StoredMessage], talk: Sequence[Message]) -> list[int] | None:
    """Return the places of the rows that the first messages of `talk` repeat.

    None if `talk` has new messages only; empty if it begins the conversation anew.
    """
    transcripts = {
        block.id: block.transcript for row in rows for block in row.message.blocks if isinstance(block, Audio) and block.id
    }
    keys, stored = [_key(message, transcripts) for message in talk], [_key(row.message) for row in rows]
    sent = set(keys)
    # Without replies that broke off and were not sent. One that is in progress stays: what it answers has not failed.
    places = [
        at for at, row in enumerate(rows) if not _broke_off(row) or row.state is MessageState.IN_PROGRESS or stored[at] in sent
    ]
    path = [stored[at] for at in places]
    begin = sum(takewhile(bool, map(eq, path, keys)))  # how many of the first are equal
    end = _overlap(path, keys)
    repeats = any(map(_is_reply, talk[:begin]))
    if end > (begin if repeats else 0):
        return places[-end:]
    return places[:begin] if repeats or any(map(_is_reply, talk[:-1])) else None


def _overlap(path: Sequence[Hashable], keys: Sequence[Hashable]) -> int:
    """Return the length of the longest end of `path` that `keys` begin with."""
    line = [*keys, None, *path]
    lengths = [0]  # of the longest beginning that ends at each item: the prefix function of Knuth, Morris and Pratt
    for item in line[1:]:
        length = lengths[-1]
        while length and item != line[length]:
            length = lengths[length - 1]
        lengths.append(length + (item == line[length]))
    return lengths[-1]


def _unknown(path: Sequence[StoredMessage], sent: Sequence[Message], places: Sequence[int]) -> Sequence[int]:
    """Return the places of the instructions that are to be stored behind `path`."""
    known = [_key(row.message) for row in path if _instructs(row.message)]
    found = set(known)
    unknown = [place for place in places if _key(sent[place]) not in found]
    return unknown if unknown or not places or _key(sent[places[-1]]) == known[-1] else places


def _merged(stored: Message, sent: Message) -> Message:
    """Return the message as it is stored, with the fields that its caller has for it."""
    if sent.role is not Role.ASSISTANT or sent == stored:
        return sent
    if not says_something(stored):
        return stored  # clients show it as an empty text, which hosts refuse
    if _arguments(stored) != _arguments(sent):
        return sent
    extra = {name: value for name, value in sent.extra.items() if name not in stored.fields}
    return replace(stored, name=sent.name, extra={**stored.extra, **extra})


def _arguments(message: Message) -> list[object]:
    """What the tools are given, as JSON where it is some."""
    return [_read(block.arguments) for block in message.blocks if isinstance(block, ToolCall)]


def _read(arguments: str) -> object:
    try:
        return msgspec.json.decode(arguments or "{}")
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return arguments


def _instructs(message: Message) -> bool:
    return message.role in INSTRUCTIONS


def _is_reply(message: Message) -> bool:
    return message.role is Role.ASSISTANT


def _broke_off(row: StoredMessage) -> bool:
    return _is_reply(row.message) and (row.state is not MessageState.COMPLETE or not says_something(row.message))


def _key(message: Message, transcripts: Mapping[str, str] = _NO_TRANSCRIPTS) -> Hashable:
    """Return what equal messages have in common. `transcripts` are those of recordings by id: a client may send the id alone."""
    text: list[str] = []
    rest: list[Hashable] = []
    for block in message.blocks:
        for each in (block, *block.blocks) if isinstance(block, ToolResult) else (block,):
            match each:
                case Text() | Refusal():
                    text.append(each.text)
                case ToolCall():
                    rest.append((each.id, each.name))
                case ToolResult():
                    rest.append(each.tool_call_id)
                case Opaque():
                    rest.append(msgspec.json.encode(each.form, order="deterministic"))
                case Audio() if each.media.url is None and each.media.file_id is None:
                    text.append(each.transcript or transcripts.get(each.id, ""))
                case Image() | Audio() | Video() | Document():
                    rest.append(each.media)
                case _:
                    pass  # thoughts, and what the provider ran, which clients do not send back
    return message.role, "".join(text).strip(), tuple(rest)
