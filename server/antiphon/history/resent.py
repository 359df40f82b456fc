"""Decides which messages of a request repeat stored ones, and where its new messages belong. No I/O.

Most chat clients keep the conversation themselves and send all of it with each turn; some send only their new messages. The rules:

1. Messages that equal the stored path, from its first message on, are repeated: they are not stored again. If nothing follows
   them, the client requests another reply to them.
2. The first difference starts a branch: the messages from there on are new, and follow the last equal message. What the path had
   after it stays stored.
3. A request that repeats no stored reply, and has no reply before its last message, has new messages only; they follow the head.
   So a user can send "yes" twice.
4. Only a `request_id` marks a retry: without one, a turn that was answered is never taken for a retry.

Messages are equal if a client that received the stored one may send it that way. Not compared are thoughts, fields other than the
text, and leading and trailing space; of a tool call only id and name are; of a model's recording its id or its
transcript. A reply that broke off, or has no output, may be missing
in the request: perhaps it never arrived.

Two exceptions, each for clients that are tested:

- The repeated messages may be the end of the path instead of its start, whichever matches more. LangChain's `trim_messages` sends
  only the end of a chat. The OpenAI SDK, given only the new message, sends that again by itself after a failure.
- Instructions (system, developer) are compared separately, as programs on the OpenAI SDK send them with every call, and change
  them. They are stored unless the path has them, and again if the last one sent is not the last one stored.

The model gets what was sent, after the part of the path before it. Instructions in the request replace the stored ones. For a
repeated reply the stored blocks are sent: clients that know only text lose their order and the provider's own data. A tool call
whose arguments the client has changed is sent as changed.
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
    Media,
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
from antiphon.history.sendable import INSTRUCTIONS, Entry, has_output

_NO_INDEXES: Final[Mapping[str, int]] = {}
_NO_TRANSCRIPTS: Final[Mapping[str, str]] = {}


class Continuation(Struct, frozen=True):
    """How a request continues a conversation: the messages of `sent` at the indexes `places` are stored after `parent_id`.

    `repeated` maps the id of a stored message to the index in `sent` of the message that repeats it. `has_instructions`: the
    request has instructions, which replace the stored ones for the model.
    """

    sent: tuple[Message, ...]
    places: tuple[int, ...]
    parent_id: Parent = None
    repeated: Mapping[str, int] = _NO_INDEXES
    has_instructions: bool = False

    @property
    def new(self) -> tuple[Message, ...]:
        """Return the messages to store."""
        return tuple(self.sent[place] for place in self.places)

    def for_model(self, before: Sequence[StoredMessage]) -> tuple[Entry, ...]:
        """Return what the model is sent. `before` is the stored path that the new messages follow."""
        entries = list(map(Entry, takewhile(_is_instruction, self.sent if self.has_instructions else ())))
        at = len(entries)
        for row in before:
            place = self.repeated.get(row.id)
            if place is not None:
                entries += map(Entry, self.sent[at:place])  # instructions sent between them
                entries.append(Entry(_merged(row.message, self.sent[place]), row))
                at = place + 1
            elif not (self.has_instructions and _is_instruction(row.message)):
                entries.append(Entry(row.message, row))
        return (*entries, *map(Entry, self.sent[at:]))


def continuation(path: Sequence[StoredMessage], sent: Sequence[Message]) -> Continuation:
    """Apply the module's rules to the messages `sent` for the conversation with this path, in time linear in both."""
    rows = [row for row in path if not _is_instruction(row.message)]
    talk = [place for place, message in enumerate(sent) if not _is_instruction(message)]
    instructions = [place for place, message in enumerate(sent) if _is_instruction(message)]
    repeated = _repeated(rows, [sent[place] for place in talk])
    following = talk[len(repeated or ()) :]
    parent: Parent = BEGINNING
    if repeated is None:
        parent = None
    elif repeated:
        last = repeated[-1]
        if following and not _is_reply(sent[following[0]]):
            last += sum(1 for _ in takewhile(_broke_off, rows[last + 1 :]))  # the new messages follow the replies that broke off
        parent = rows[last].id
    return Continuation(
        tuple(sent),
        tuple(sorted([*_new_instructions(up_to(path, parent), sent, instructions), *following])),
        parent,
        {rows[at].id: place for at, place in zip(repeated or (), talk, strict=False)},
        has_instructions=bool(instructions),
    )


def up_to(path: Sequence[StoredMessage], last: Parent) -> Sequence[StoredMessage]:
    """Return the part of `path` up to and including the message `last`; all of it for None, nothing for `BEGINNING`."""
    if last is BEGINNING:
        return ()
    return path[: next((at for at, row in enumerate(path, 1) if row.id == last), len(path))]


def _repeated(rows: Sequence[StoredMessage], talk: Sequence[Message]) -> list[int] | None:
    """Return the indexes of the rows that the first messages of `talk` repeat.

    None if `talk` has only new messages; empty if it starts the conversation anew.
    """
    transcripts = {
        block.id: block.transcript for row in rows for block in row.message.blocks if isinstance(block, Audio) and block.id
    }
    keys, stored = [_key(message, transcripts) for message in talk], [_key(row.message) for row in rows]
    sent = set(keys)
    # Without replies that broke off and are not repeated. A reply in progress stays, as it has not failed.
    places = [
        at for at, row in enumerate(rows) if not _broke_off(row) or row.state is MessageState.IN_PROGRESS or stored[at] in sent
    ]
    path = [stored[at] for at in places]
    begin = sum(takewhile(bool, map(eq, path, keys)))  # the number of equal messages from the start
    end = _overlap(path, keys)
    repeats = any(map(_is_reply, talk[:begin]))
    if end > (begin if repeats else 0):
        return places[-end:]
    return places[:begin] if repeats or any(map(_is_reply, talk[:-1])) else None


def _overlap(path: Sequence[Hashable], keys: Sequence[Hashable]) -> int:
    """Return the length of the longest suffix of `path` that is a prefix of `keys`."""
    line = [*keys, None, *path]
    lengths = [0]  # at each item, the length of the longest prefix that ends there: prefix function of Knuth, Morris and Pratt
    for item in line[1:]:
        length = lengths[-1]
        while length and item != line[length]:
            length = lengths[length - 1]
        lengths.append(length + (item == line[length]))
    return lengths[-1]


def _new_instructions(path: Sequence[StoredMessage], sent: Sequence[Message], places: Sequence[int]) -> Sequence[int]:
    """Return those of the indexes `places` whose instructions must be stored after `path`."""
    known = [_key(row.message) for row in path if _is_instruction(row.message)]
    found = set(known)
    unknown = [place for place in places if _key(sent[place]) not in found]
    return unknown if unknown or not places or _key(sent[places[-1]]) == known[-1] else places


def _merged(stored: Message, sent: Message) -> Message:
    """Return the stored message, with the name and extra fields that the caller sent for it.

    Returns `sent` itself if it is no reply, or if it changes the arguments of a tool call.
    """
    if sent.role is not Role.ASSISTANT or sent == stored:
        return sent
    if not has_output(stored):
        return stored  # clients send it as an empty text, which hosts refuse
    if _arguments(stored) != _arguments(sent):
        return sent
    extra = {name: value for name, value in sent.extra.items() if name not in stored.fields}
    return replace(stored, name=sent.name, extra={**stored.extra, **extra})


def _arguments(message: Message) -> list[object]:
    """Return the arguments of the message's tool calls, decoded if they are JSON."""
    return [_read(block.arguments) for block in message.blocks if isinstance(block, ToolCall)]


def _read(arguments: str) -> object:
    """Return the decoded arguments, or the text itself if it is not JSON."""
    try:
        return msgspec.json.decode(arguments or "{}")
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return arguments


def _is_instruction(message: Message) -> bool:
    return message.role in INSTRUCTIONS


def _is_reply(message: Message) -> bool:
    return message.role is Role.ASSISTANT


def _broke_off(row: StoredMessage) -> bool:
    """Return whether a row is a reply that is incomplete or has no output."""
    return _is_reply(row.message) and (row.state is not MessageState.COMPLETE or not has_output(row.message))


def _key(message: Message, transcripts: Mapping[str, str] = _NO_TRANSCRIPTS) -> Hashable:
    """Return a hashable value that is the same for messages that count as equal.

    `transcripts` maps the ids of recordings to what is said in them, as a client may send the id alone.
    """
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
                case Opaque(fields={"type": "video_url", "video_url": {"url": str(url)}}):
                    rest.append(Media(url))  # as version 0.1.0 stored a video of a client
                case Opaque():
                    rest.append(msgspec.json.encode(each.form, order="deterministic"))
                case Audio() if each.media.url is None and each.media.file_id is None:
                    text.append(each.transcript or transcripts.get(each.id, ""))
                case Image() | Audio() | Video() | Document():
                    rest.append(each.media)
                case _:
                    pass  # thoughts and provider-run tools, which clients do not send back
    return message.role, "".join(text).strip(), tuple(rest)
