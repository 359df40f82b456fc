"""What of a conversation can be sent to a provider. No I/O.

What is stored stays in the history as it was said. But hosts refuse a request that holds one message that they do not take, so that
a single reply that broke off would end its conversation for good. So of what is stored is left out:

1. What a provider refused: the messages of a turn that ended without a word because its request was refused as such, or because
   of a content filter. System and developer messages of such a turn stay.
2. Replies that say nothing: thoughts alone, or nothing at all.
3. Tool calls that broke off: their arguments are no JSON, and their reply did not end by itself. The text beside them stays.
4. Tool calls that no tool answered at once: chat APIs want the results of all calls directly behind them.
5. Tool results without their call, and all but the last of several results of one call.

A call without arguments is sent with `{}`: some hosts write an empty text there, and yet take only JSON.

What the request itself brings is sent as it is, but for the result of a tool call that was left out.
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
"""Why a turn failed that would fail again: its request cannot be sent, or was refused as such."""

_WHOLE: Final = frozenset({FinishReason.STOP, FinishReason.TOOL_CALLS, FinishReason.PAUSE, None})
"""Finish reasons of a reply that ended by itself. None: it was not told, or a caller stored the reply."""

_GOES_ON: Final = frozenset({FinishReason.TOOL_CALLS, FinishReason.PAUSE, None})
"""Finish reasons of a reply of which a tool of the provider's may have its result in the next one."""


class Entry(Struct, frozen=True):
    """A message that is to be sent, and the stored row that it is of; `row` None: the request has brought it."""

    message: Message
    row: StoredMessage | None = None


class Why(StrEnum):
    """Why something was left out. The values are for the log."""

    REFUSED = "refused"
    SAYS_NOTHING = "says_nothing"
    BROKEN_CALL = "broken_call"
    UNANSWERED_CALL = "unanswered_call"
    RESULT_WITHOUT_CALL = "result_without_call"


class LeftOut(Struct, frozen=True):
    """A message of which something was left out."""

    row: StoredMessage | None
    why: Why


def sendable(entries: Sequence[Entry]) -> tuple[tuple[Message, ...], tuple[LeftOut, ...]]:
    """The messages of `entries` that can be sent, in order, and what was left out of them.

    A reply that ended before anything of it came is left out without a word about it: there is nothing in it.
    """
    left_out: list[LeftOut] = []
    refused = _refused(entries)
    spoken: list[Entry] = []
    for entry in entries:
        if entry.row is not None and entry.row.id in refused:
            left_out.append(LeftOut(entry.row, Why.REFUSED))
        elif (message := _spoken(entry)) is not None:
            spoken.append(entry if message is entry.message else replace(entry, message=message))
        elif entry.message.blocks:
            left_out.append(LeftOut(entry.row, Why.SAYS_NOTHING))
    return _Calls(spoken, left_out).sent(), tuple(left_out)


def says_something(message: Message) -> bool:
    """Whether a reply has more than thoughts."""
    return any(not isinstance(block, THOUGHTS) for block in message.blocks)


def _refused(entries: Sequence[Entry]) -> set[str]:
    """The ids of the stored messages that a provider refused."""
    rows = [entry.row for entry in entries if entry.row is not None]
    asked = (row for at, reply in enumerate(rows) if _is_refusal(reply) for row in _asked(rows, at))
    return {row.id for row in asked if row.message.role not in INSTRUCTIONS}


def _asked(rows: Sequence[StoredMessage], at: int) -> Sequence[StoredMessage]:
    """The messages of the turn whose reply is at `at`: those that were stored in one go with it."""
    begin = at
    while begin and rows[begin - 1].created == rows[at].created:
        begin -= 1
    if begin == at:  # a turn that was tried again has stored its reply alone
        while begin and rows[begin - 1].message.role is not Role.ASSISTANT:
            begin -= 1
    return rows[begin:at]


def _is_refusal(row: StoredMessage) -> bool:
    """Whether a row is the reply of a turn that ended without a word, and would end so again."""
    if row.message.role is not Role.ASSISTANT or says_something(row.message):
        return False
    return row.error_reason in _REFUSALS or row.finish_reason in (FinishReason.CONTENT_FILTER, FinishReason.REFUSAL)


def _spoken(entry: Entry) -> Message | None:
    """The message; None for a reply that says nothing."""
    message = entry.message
    if message.role is not Role.ASSISTANT or says_something(message):
        return message
    return message if entry.row is None and (message.blocks or message.extra) else None


class _Calls:
    """Tool calls beside their results: one pass over the messages, in order."""

    def __init__(self, entries: Sequence[Entry], left_out: list[LeftOut]) -> None:
        """Appends to `left_out`."""
        self._entries = entries
        self._left_out = left_out
        self._brought = {each.tool_call_id for entry in entries if entry.row is None for each in _results(entry.message)}
        """The calls that the request has results of."""
        self._gone: set[str] = set()
        """The calls that were left out."""
        self._open: dict[str, ToolResult] = {}
        """The calls that may be answered where the pass is, and what answers them."""
        self._function_gone = False
        """The function call of 2023 before this message was left out."""

    def sent(self) -> tuple[Message, ...]:
        """The messages without what hosts refuse."""
        return tuple(message for at, entry in enumerate(self._entries) if (message := self._message(at, entry)) is not None)

    def _message(self, at: int, entry: Entry) -> Message | None:
        message = entry.message
        if message.role is Role.ASSISTANT:
            return self._reply(at, entry)
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
        self._note(entry, Why.RESULT_WITHOUT_CALL)
        answers = any(isinstance(block, ToolResult) for block in blocks)
        return replace(message, blocks=blocks) if answers or (blocks and message.role is not Role.TOOL) else None

    def _reply(self, at: int, entry: Entry) -> Message | None:
        message, row = entry.message, entry.row
        self._function_gone = False
        calls = list(_calls(message))
        ids = {call.id for call in calls}
        self._open = self._answered(at, ids) if ids else {}
        self._gone -= ids
        if row is None:
            return message
        broke_off = row.state is not MessageState.COMPLETE or row.finish_reason not in _WHOLE
        broken = {call.id for call in calls if broke_off and not _is_whole(call)}
        unanswered = ids - self._open.keys() - self._brought
        self._gone |= broken | unanswered
        self._open = {id_: result for id_, result in self._open.items() if id_ not in broken}
        self._function_gone = broke_off and any(_is_of_2023(block) and not _is_whole(block) for block in message.blocks)
        message = _with_arguments(message)
        ran = _without_open_tools(message) if broke_off or row.finish_reason not in _GOES_ON else message
        if not (broken or unanswered or self._function_gone):
            return ran
        self._note(entry, Why.BROKEN_CALL if broken or self._function_gone else Why.UNANSWERED_CALL)
        kept = _without_calls(ran, broken | unanswered, function=self._function_gone)
        return kept if any(not isinstance(block, THOUGHTS) and block != Text("") for block in kept.blocks) else None

    def _answered(self, at: int, calls: Collection[str]) -> dict[str, ToolResult]:
        """The last results that stand directly behind the reply at `at`, by those of its calls that they answer."""
        found: dict[str, ToolResult] = {}
        for place in range(at + 1, len(self._entries)):
            message = self._entries[place].message
            found.update((result.tool_call_id, result) for result in _results(message) if result.tool_call_id in calls)
            if not _is_results(message):
                break
        return found

    def _is_wanted(self, entry: Entry, result: ToolResult, *, function_gone: bool) -> bool:
        if result.type == FUNCTION_CALL:
            return not function_gone
        if entry.row is None:
            return result.tool_call_id in self._open or result.tool_call_id not in self._gone
        return self._open.get(result.tool_call_id) is result

    def _note(self, entry: Entry, why: Why) -> None:
        self._left_out.append(LeftOut(entry.row, why))


def _calls(message: Message) -> Iterator[ToolCall]:
    """The tool calls that have an id."""
    return (block for block in message.blocks if isinstance(block, ToolCall) and block.type != FUNCTION_CALL)


def _is_of_2023(block: Block) -> TypeGuard[ToolCall]:
    """Whether a block is the one function call that models of 2023 make."""
    return isinstance(block, ToolCall) and block.type == FUNCTION_CALL


def _is_whole(call: ToolCall) -> bool:
    """Whether the arguments of a call are JSON, where its type has JSON in the first place."""
    return call.type == CUSTOM or not call.name or _is_json(call.arguments)


def _results(message: Message) -> Iterator[ToolResult]:
    return (block for block in message.blocks if isinstance(block, ToolResult))


def _is_results(message: Message) -> bool:
    """Whether a message is tool results and nothing else."""
    return bool(message.blocks) and all(isinstance(block, ToolResult) for block in message.blocks)


def _without_calls(message: Message, ids: Collection[str], *, function: bool) -> Message:
    """The message without these tool calls, and with `function` without its function call of 2023."""
    blocks = tuple(
        block
        for block in message.blocks
        if not isinstance(block, ToolCall) or not (function if _is_of_2023(block) else block.id in ids)
    )
    return replace(message, blocks=blocks)


def _without_open_tools(message: Message) -> Message:
    """The message without calls of the provider's own tools that have no result: it went on without."""
    answered = {block.call_id for block in message.blocks if isinstance(block, ServerToolResult)}
    blocks = tuple(block for block in message.blocks if not isinstance(block, ServerToolCall) or block.id in answered)
    return message if len(blocks) == len(message.blocks) else replace(message, blocks=blocks)


def _with_arguments(message: Message) -> Message:
    """The message, with `{}` for the arguments of calls that have none."""
    if not any(_lacks_arguments(block) for block in message.blocks):
        return message
    blocks = (replace(block, arguments="{}") if _lacks_arguments(block) else block for block in message.blocks)
    return replace(message, blocks=tuple(blocks))


def _lacks_arguments(block: Block) -> TypeGuard[ToolCall]:
    return isinstance(block, ToolCall) and not block.arguments and bool(block.name) and block.type not in (CUSTOM, FUNCTION_CALL)


def _is_json(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return False
    return True
