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
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import Message, Role, Text, Thinking, ToolCall, ToolResult
from antiphon.domain.errors import Reason
from antiphon.domain.events import FinishReason
from antiphon.history.base import MessageState, StoredMessage

INSTRUCTIONS: Final = frozenset({Role.SYSTEM, Role.DEVELOPER})

_REFUSALS: Final = frozenset({Reason.PROVIDER_REJECTED, Reason.UNSUPPORTED, Reason.INVALID_REQUEST})
"""Why a turn failed that would fail again: its request cannot be sent, or was refused as such."""

_WHOLE: Final = frozenset({FinishReason.STOP, FinishReason.TOOL_CALLS, FinishReason.FUNCTION_CALL, None})
"""Finish reasons of a reply that ended by itself. None: it was not told, or a caller stored the reply."""

_SPOKEN: Final = ("tool_calls", "function_call", "audio", "images")
"""Fields of a message, in the form of the OpenAI API, that say something where there is no text."""


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
        elif entry.message.parts:
            left_out.append(LeftOut(entry.row, Why.SAYS_NOTHING))
    return _Calls(spoken, left_out).sent(), tuple(left_out)


def says_something(message: Message) -> bool:
    """Whether a reply has more than thoughts."""
    return any(not isinstance(part, Thinking) for part in message.parts) or any(map(message.extra.get, _SPOKEN))


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
    return row.error_reason in _REFUSALS or row.finish_reason is FinishReason.CONTENT_FILTER


def _spoken(entry: Entry) -> Message | None:
    """The message; None for a reply that says nothing."""
    message = entry.message
    if message.role is not Role.ASSISTANT or any(not isinstance(part, Thinking) for part in message.parts):
        return message
    if entry.row is None:
        return message if message.parts or message.extra else None
    if not says_something(message):
        return None
    calls = any(map(message.extra.get, ("tool_calls", "function_call", "audio")))
    return message if calls else replace(message, parts=(*message.parts, Text("")))  # pictures: hosts want a content with them


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
        if self._function_gone:
            self._function_gone = False
            if message.extra.get("role") == "function":
                self._note(entry, Why.RESULT_WITHOUT_CALL)
                return None
        parts = tuple(part for part in message.parts if not isinstance(part, ToolResult) or self._is_wanted(entry, part))
        if not _is_results(message):
            self._open = {}
        if len(parts) == len(message.parts):
            return message
        self._note(entry, Why.RESULT_WITHOUT_CALL)
        answers = any(isinstance(part, ToolResult) for part in parts)
        return replace(message, parts=parts) if answers or (parts and message.role is not Role.TOOL) else None

    def _reply(self, at: int, entry: Entry) -> Message | None:
        message, row = entry.message, entry.row
        self._function_gone = False
        calls = list(_calls(message))
        ids = {id_ for id_, _ in calls}
        self._open = self._answered(at, ids) if ids else {}
        self._gone -= ids
        if row is None:
            return message
        broke_off = row.state is not MessageState.COMPLETE or row.finish_reason not in _WHOLE
        broken = {id_ for id_, arguments in calls if broke_off and not _is_json(arguments)}
        unanswered = ids - self._open.keys() - self._brought
        self._gone |= broken | unanswered
        self._open = {id_: result for id_, result in self._open.items() if id_ not in broken}
        self._function_gone = broke_off and not _is_json(_function_arguments(message))
        if not (broken or unanswered or self._function_gone):
            return _with_arguments(message)
        self._note(entry, Why.BROKEN_CALL if broken or self._function_gone else Why.UNANSWERED_CALL)
        kept = _without_calls(message, broken | unanswered, function=self._function_gone)
        said = any(not isinstance(part, Thinking) and part != Text("") for part in kept.parts)
        return _with_arguments(kept) if said or any(map(kept.extra.get, _SPOKEN)) else None

    def _answered(self, at: int, calls: Collection[str]) -> dict[str, ToolResult]:
        """The last results that stand directly behind the reply at `at`, by those of its calls that they answer."""
        found: dict[str, ToolResult] = {}
        for place in range(at + 1, len(self._entries)):
            message = self._entries[place].message
            found.update((result.tool_call_id, result) for result in _results(message) if result.tool_call_id in calls)
            if not _is_results(message):
                break
        return found

    def _is_wanted(self, entry: Entry, result: ToolResult) -> bool:
        if entry.row is None:
            return result.tool_call_id in self._open or result.tool_call_id not in self._gone
        return self._open.get(result.tool_call_id) is result

    def _note(self, entry: Entry, why: Why) -> None:
        self._left_out.append(LeftOut(entry.row, why))


def _calls(message: Message) -> Iterator[tuple[str, str]]:
    """The id and the arguments of each tool call; `{}` for calls whose arguments are no JSON in the first place."""
    for part in message.parts:
        if isinstance(part, ToolCall):
            yield part.id, part.arguments if part.extra.get("type", "function") == "function" else "{}"
    for call in extra_calls(message):
        match call:
            case {"function": {"arguments": str(arguments)}}:
                yield str(call.get("id")), arguments
            case _:
                yield str(call.get("id")), "{}"


def extra_calls(message: Message) -> list[dict[str, Any]]:
    """The tool calls among the fields of a message: it has all of its calls there if one of them is of no function."""
    calls = message.extra.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _function_arguments(message: Message) -> str:
    """The arguments of the function call that models of 2023 make; `{}` if there is none."""
    match message.extra.get("function_call"):
        case {"arguments": str(arguments)}:
            return arguments
        case _:
            return "{}"


def _results(message: Message) -> Iterator[ToolResult]:
    return (part for part in message.parts if isinstance(part, ToolResult))


def _is_results(message: Message) -> bool:
    """Whether a message is tool results and nothing else."""
    return bool(message.parts) and all(isinstance(part, ToolResult) for part in message.parts)


def _without_calls(message: Message, ids: Collection[str], *, function: bool) -> Message:
    """The message without these tool calls, and with `function` without its function call."""
    extra = dict(message.extra)
    if function:
        del extra["function_call"]
    if calls := [call for call in extra_calls(message) if str(call.get("id")) not in ids]:
        extra["tool_calls"] = calls
    else:
        extra.pop("tool_calls", None)
    parts = tuple(part for part in message.parts if not isinstance(part, ToolCall) or part.id not in ids)
    return replace(message, parts=parts, extra=extra)


def _with_arguments(message: Message) -> Message:
    """The message, with `{}` for the arguments of calls that have none."""
    if not any(isinstance(part, ToolCall) and not part.arguments for part in message.parts):
        return message
    parts = (replace(part, arguments="{}") if isinstance(part, ToolCall) and not part.arguments else part for part in message.parts)
    return replace(message, parts=tuple(parts))


def _is_json(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return False
    return True
