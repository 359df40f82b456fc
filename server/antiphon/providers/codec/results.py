"""Brings the calls of tools and their results together, as APIs want them that check each turn. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from msgspec.structs import replace

from antiphon.domain.content import FUNCTION_CALL, Block, Message, Role, ToolCall, ToolResult

_Place: TypeAlias = "tuple[int, int]"
"""The number of a message, and of a block in it."""

_INSTRUCTIONS = (Role.SYSTEM, Role.DEVELOPER)


def paired(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages with each result in the turn after its call. What has no counterpart is left out.

    A result belongs to the first call of its id before it that has none. One that comes after another reply is put after its call.
    """
    calls = _answered(messages)
    if calls is None:
        return messages
    turns = _turns(messages)
    results = {result: call for call, result in calls.items()}
    moved: dict[int, list[Block]] = {}
    for call, result in sorted(calls.items()):
        if turns[call[0]] != turns[result[0]]:
            moved.setdefault(call[0], []).append(messages[result[0]].blocks[result[1]])
    made: list[Message] = []
    for number, message in enumerate(messages):
        kept = [block for at, block in enumerate(message.blocks) if _stays(block, (number, at), message, calls, results, turns)]
        if len(kept) == len(message.blocks):
            made.append(message)
        elif kept:
            made.append(replace(message, blocks=tuple(kept)))
        if number in moved:
            made.append(Message(Role.TOOL, tuple(moved[number])))
    return made


def _answered(messages: Sequence[Message]) -> dict[_Place, _Place] | None:
    """Return the place of the result of each call that has one; None if there are neither calls nor results."""
    found: dict[_Place, _Place] = {}
    waiting: dict[str, list[_Place]] = {}
    is_any = False
    for number, message in enumerate(messages):
        for at, block in enumerate(message.blocks):
            if isinstance(block, ToolCall) and message.role is Role.ASSISTANT:
                is_any = True
                waiting.setdefault("" if block.type == FUNCTION_CALL else block.id, []).append((number, at))
            elif isinstance(block, ToolResult):
                is_any = True
                is_latest = block.type == FUNCTION_CALL  # the API of 2023 has no ids
                if places := waiting.get("" if is_latest else block.tool_call_id):
                    found[places.pop(-1 if is_latest else 0)] = (number, at)
    return found if is_any else None


def _turns(messages: Sequence[Message]) -> list[int]:
    """Return the number of the turn of each message: a reply, and what follows until the next reply."""
    turns: list[int] = []
    turn, is_reply = 0, False
    for message in messages:
        if message.role not in _INSTRUCTIONS:
            if message.role is Role.ASSISTANT and not is_reply:
                turn += 1
            is_reply = message.role is Role.ASSISTANT
        turns.append(turn)
    return turns


def _stays(
    block: Block,
    place: _Place,
    message: Message,
    calls: dict[_Place, _Place],
    results: dict[_Place, _Place],
    turns: list[int],
) -> bool:
    """Return whether a block is sent where it stands."""
    if isinstance(block, ToolCall) and message.role is Role.ASSISTANT:
        return place in calls
    if isinstance(block, ToolResult):
        call = results.get(place)
        return call is not None and turns[call[0]] == turns[place[0]]
    return True
