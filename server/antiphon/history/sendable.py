"""Selects what of a conversation can be sent to a provider. No I/O.

Stored messages stay in the history unchanged. But hosts refuse a request with a single message that they do not accept, so one
reply that broke off would make its conversation unusable for good. So these stored messages and parts are left out:

1. What a provider refused: the messages of a turn that failed without output because its request was refused, or because of a
   content filter. System and developer messages of such a turn stay.
2. Replies without output: only thoughts, or nothing at all.
3. Tool calls that broke off: the arguments are not JSON, and the reply did not end by itself. The text beside them stays.
4. Tool calls without a result directly after them: chat APIs require the results of all calls there.
5. Tool results without their call, and all but the last of several results of one call.

A tool call without arguments is sent with `{}`: some hosts write an empty text there, but accept only JSON.

The request's own messages are sent unchanged, except the result of a tool call that was left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from typing import Final, TypeGuard

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import (
    CUSTOM,
    FUNCTION_CALL,
    THOUGHTS,
    Block,
    Message,
    Role,
    ServerToolCall,
    ServerToolResult,
    Text,
    ToolCall,
    ToolResult,
)
from antiphon.domain.errors import Reason
from antiphon.domain.events import FinishReason
from antiphon.history.base import MessageState, StoredMessage

INSTRUCTIONS: Final = frozenset({Role.SYSTEM, Role.DEVELOPER})

_REFUSALS: Final = frozenset({Reason.PROVIDER_REJECTED, Reason.UNSUPPORTED, Reason.INVALID_REQUEST})
"""Reasons of failed turns that would fail again: the request cannot be sent, or was refused as invalid."""

_SELF_ENDED: Final = frozenset({FinishReason.STOP, FinishReason.TOOL_CALLS, FinishReason.PAUSE, None})
"""Finish reasons of a reply that ended by itself. None: the reason is unknown, or a caller stored the reply."""

_CONTINUED: Final = frozenset({FinishReason.TOOL_CALLS, FinishReason.PAUSE, None})
"""Finish reasons of a reply whose provider-run tool calls may have their results in the next reply."""


_TEXT: Final = {Text}


class Entry(Struct, frozen=True):
    """A message to send, and its stored row; `row` is None for a message of the request."""

    message: Message
    row: StoredMessage | None = None


class LeftOutReason(StrEnum):
    """The reasons why something was left out. The values appear in the log."""

    REFUSED = "refused"
    SAYS_NOTHING = "says_nothing"
    BROKEN_CALL = "broken_call"
    UNANSWERED_CALL = "unanswered_call"
    RESULT_WITHOUT_CALL = "result_without_call"


class LeftOut(Struct, frozen=True):
    """A message that was left out, entirely or in part."""

    row: StoredMessage | None
    reason: LeftOutReason


def sendable(entries: Sequence[Entry]) -> tuple[tuple[Message, ...], tuple[LeftOut, ...]]:
    """Return the messages of `entries` that can be sent, in order, and what was left out.

    An entirely empty reply is left out without an entry in the second list: it has nothing that could be missed.
    """
    if all(map(_is_text, entries)):
        return tuple([entry.message for entry in entries]), ()
    left_out: list[LeftOut] = []
    refused = _refused(entries)
    kept: list[Entry] = []
    for entry in entries:
        if entry.row is not None and entry.row.id in refused:
            left_out.append(LeftOut(entry.row, LeftOutReason.REFUSED))
        elif (message := _with_output(entry)) is not None:
            kept.append(entry if message is entry.message else replace(entry, message=message))
        elif entry.message.blocks:
            left_out.append(LeftOut(entry.row, LeftOutReason.SAYS_NOTHING))
    return _Calls(kept, left_out).filtered(), tuple(left_out)


def _is_text(entry: Entry) -> bool:
    """Return whether an entry has text and nothing else, so that nothing of it is left out."""
    return set(map(type, entry.message.blocks)) == _TEXT


def has_output(message: Message) -> bool:
    """Return whether a message has anything besides thoughts."""
    return any(not isinstance(block, THOUGHTS) for block in message.blocks)


def _refused(entries: Sequence[Entry]) -> set[str]:
    """Return the ids of the stored messages that a provider refused."""
    rows = [entry.row for entry in entries if entry.row is not None]
    requests = (row for at, reply in enumerate(rows) if _is_refusal(reply) for row in _request_of(rows, at))
    return {row.id for row in requests if row.message.role not in INSTRUCTIONS}


def _request_of(rows: Sequence[StoredMessage], at: int) -> Sequence[StoredMessage]:
    """Return the request messages of the turn whose reply is at index `at`: those stored in the same transaction."""
    begin = at
    while begin and rows[begin - 1].created == rows[at].created:
        begin -= 1
    if begin == at:  # a turn that was requested again stored only its reply
        while begin and rows[begin - 1].message.role is not Role.ASSISTANT:
            begin -= 1
    return rows[begin:at]


def _is_refusal(row: StoredMessage) -> bool:
    """Return whether a row is the reply of a turn that failed without output, and would fail again."""
    if row.message.role is not Role.ASSISTANT or has_output(row.message):
        return False
    return row.error_reason in _REFUSALS or row.finish_reason in (FinishReason.CONTENT_FILTER, FinishReason.REFUSAL)


def _with_output(entry: Entry) -> Message | None:
    """Return the entry's message; None for a reply without output."""
    message = entry.message
    if message.role is not Role.ASSISTANT or has_output(message):
        return message
    return message if entry.row is None and (message.blocks or message.extra) else None


class _Calls:
    """Matches tool calls with their results, in one pass over the messages in order."""

    def __init__(self, entries: Sequence[Entry], left_out: list[LeftOut]) -> None:
        """Append what is left out to `left_out`."""
        self._entries = entries
        self._left_out = left_out
        self._requested = {each.tool_call_id for entry in entries if entry.row is None for each in _results(entry.message)}
        """The ids of the calls for which the request has results."""
        self._removed: set[str] = set()
        """The ids of the calls that were left out."""
        self._open: dict[str, ToolResult] = {}
        """The ids of the last reply's calls, and the result that answers each."""
        self._function_gone = False
        """The last reply's function call (of 2023) was left out."""

    def filtered(self) -> tuple[Message, ...]:
        """Return the messages without the tool calls and results that hosts refuse."""
        return tuple(message for at, entry in enumerate(self._entries) if (message := self._message(at, entry)) is not None)

    def _message(self, at: int, entry: Entry) -> Message | None:
        """Return the message of `entry`, the one at index `at`, without the calls and results that rules 3 to 5 leave out.

        None if nothing is left of it.
        """
        message = entry.message
        if message.role is Role.ASSISTANT:
            return self._reply(at, entry)
        if not any(isinstance(block, ToolResult) for block in message.blocks):
            self._open, self._function_gone = {}, False
            return message
        gone, self._function_gone = self._function_gone, False
        blocks = tuple(
            block
            for block in message.blocks
            if not isinstance(block, ToolResult) or self._is_wanted(entry, block, function_gone=gone)
        )
        if not _is_results(message):
            self._open = {}
        if len(blocks) == len(message.blocks):
            return message
        self._report(entry, LeftOutReason.RESULT_WITHOUT_CALL)
        answers = any(isinstance(block, ToolResult) for block in blocks)
        return replace(message, blocks=blocks) if answers or (blocks and message.role is not Role.TOOL) else None

    def _reply(self, at: int, entry: Entry) -> Message | None:
        """Return the same for a reply, and note the ids of its tool calls for the results after it."""
        message, row = entry.message, entry.row
        self._function_gone = False
        calls = list(_calls(message))
        ids = {call.id for call in calls}
        self._open = self._answered(at, ids) if ids else {}
        self._removed -= ids
        if row is None:
            return message
        broke_off = row.state is not MessageState.COMPLETE or row.finish_reason not in _SELF_ENDED
        broken = {call.id for call in calls if broke_off and not _is_whole(call)}
        unanswered = ids - self._open.keys() - self._requested
        self._removed |= broken | unanswered
        self._open = {id_: result for id_, result in self._open.items() if id_ not in broken}
        self._function_gone = broke_off and any(_is_function_call(block) and not _is_whole(block) for block in message.blocks)
        message = _with_arguments(message)
        ran = _without_open_tools(message) if broke_off or row.finish_reason not in _CONTINUED else message
        if not (broken or unanswered or self._function_gone):
            return ran
        self._report(entry, LeftOutReason.BROKEN_CALL if broken or self._function_gone else LeftOutReason.UNANSWERED_CALL)
        kept = _without_calls(ran, broken | unanswered, function=self._function_gone)
        return kept if any(not isinstance(block, THOUGHTS) and block != Text("") for block in kept.blocks) else None

    def _answered(self, at: int, calls: Collection[str]) -> dict[str, ToolResult]:
        """Return the results directly after the reply at index `at`, by the id of the call in `calls`; the last result of each."""
        found: dict[str, ToolResult] = {}
        for place in range(at + 1, len(self._entries)):
            message = self._entries[place].message
            found.update((result.tool_call_id, result) for result in _results(message) if result.tool_call_id in calls)
            if not _is_results(message):
                break
        return found

    def _is_wanted(self, entry: Entry, result: ToolResult, *, function_gone: bool) -> bool:
        """Return whether a tool result is sent: its call must be sent, and for a stored one it must be the last result."""
        if result.type == FUNCTION_CALL:
            return not function_gone
        if entry.row is None:
            return result.tool_call_id in self._open or result.tool_call_id not in self._removed
        return self._open.get(result.tool_call_id) is result

    def _report(self, entry: Entry, reason: LeftOutReason) -> None:
        self._left_out.append(LeftOut(entry.row, reason))


def _calls(message: Message) -> Iterator[ToolCall]:
    """Return the message's tool calls that have an id, so not the function call of 2023."""
    return (block for block in message.blocks if isinstance(block, ToolCall) and block.type != FUNCTION_CALL)


def _is_function_call(block: Block) -> TypeGuard[ToolCall]:
    """Return whether a block is a function call in the form of 2023, of which a reply has at most one."""
    return isinstance(block, ToolCall) and block.type == FUNCTION_CALL


def _is_whole(call: ToolCall) -> bool:
    """Return whether the arguments of a call are valid JSON, or of a type that need not be JSON."""
    return call.type == CUSTOM or not call.name or _is_json(call.arguments)


def _results(message: Message) -> Iterator[ToolResult]:
    return (block for block in message.blocks if isinstance(block, ToolResult))


def _is_results(message: Message) -> bool:
    """Return whether a message has only tool results."""
    return bool(message.blocks) and all(isinstance(block, ToolResult) for block in message.blocks)


def _without_calls(message: Message, ids: Collection[str], *, function: bool) -> Message:
    """Return the message without the tool calls with these ids, and with `function` without its function call of 2023."""
    blocks = tuple(
        block
        for block in message.blocks
        if not isinstance(block, ToolCall) or not (function if _is_function_call(block) else block.id in ids)
    )
    return replace(message, blocks=blocks)


def _without_open_tools(message: Message) -> Message:
    """Return the message without calls of provider-run tools that have no result: the provider continued without them."""
    answered = {block.call_id for block in message.blocks if isinstance(block, ServerToolResult)}
    blocks = tuple(block for block in message.blocks if not isinstance(block, ServerToolCall) or block.id in answered)
    return message if len(blocks) == len(message.blocks) else replace(message, blocks=blocks)


def _with_arguments(message: Message) -> Message:
    """Return the message with `{}` for the arguments of calls that have none."""
    if not any(_lacks_arguments(block) for block in message.blocks):
        return message
    blocks = (replace(block, arguments="{}") if _lacks_arguments(block) else block for block in message.blocks)
    return replace(message, blocks=tuple(blocks))


def _lacks_arguments(block: Block) -> TypeGuard[ToolCall]:
    """Return whether a block is a function call with an empty text as arguments."""
    return isinstance(block, ToolCall) and not block.arguments and bool(block.name) and block.type not in (CUSTOM, FUNCTION_CALL)


def _is_json(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return False
    return True
