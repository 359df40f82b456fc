"""The tool calls of one choice of an OpenAI answer, out of deltas that hosts make each their own way. No I/O."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

import orjson
from msgspec import Struct

from antiphon.messages import JsonObject, ToolCallDelta
from antiphon.providers.openai_values import text

_CALL: Final = frozenset({"index", "id", "type", "function"})

_FUNCTION: Final = frozenset({"name", "arguments"})


class _Call(Struct):
    """A tool call that has begun: what the host calls it."""

    key: object
    id: str
    name: str = ""
    handed_on: bool = False
    """It is of a kind that is not known here."""


class ToolCalls:
    """Tells one call from the next.

    Hosts differ in what does: an index, an id, both, or neither but that each delta is a whole call; and in whether id and name
    come once or every time.
    """

    def __init__(self, choice: int, *, whole: bool = False) -> None:
        """`whole`: each delta is a call, as in an answer that does not stream; its ids and indices may be alike."""
        self._choice = choice
        self._whole = whole
        self._calls: list[_Call] = []

    def read(self, delta: JsonObject) -> tuple[ToolCallDelta | None, dict[str, Any] | None]:
        """What a delta of a call tells, and what of it has no place in that, with our `index`. Raises for another shape."""
        function = delta.get("function")
        position = None if self._whole else self._find(delta, (function or {}).get("name"))
        unknown = {name: value for name, value in delta.items() if name not in _CALL and value is not None}
        if delta.get("type") and (function is None or delta["type"] != "function"):
            unknown["type"] = delta["type"]
        if function and not function.keys() <= _FUNCTION:
            unknown["function"] = {name: value for name, value in function.items() if name not in _FUNCTION}
        call_id = name = None
        if position is None:
            position = len(self._calls)
            call_id = text(delta.get("id"))
            if function is not None and not call_id:
                call_id = f"call_{uuid4().hex[:24]}"
            self._calls.append(_Call(delta.get("index"), call_id))
        call = self._calls[position]
        more = {"index": position, **({"id": delta["id"]} if delta.get("id") else {}), **unknown} if unknown else None
        if function is None:
            call.handed_on |= bool(unknown)
            return None, more
        if not call.name and function.get("name"):
            name = call.name = text(function["name"])
        arguments = function.get("arguments")
        if isinstance(arguments, dict | list):
            arguments = orjson.dumps(arguments).decode()
        if not (call_id or name or arguments):
            return None, more
        return ToolCallDelta(self._choice, position, id=call_id, name=name, arguments=text(arguments)), more

    def end(self) -> None:
        """Raises if a call has no name."""
        if any(not call.name and not call.handed_on for call in self._calls):
            raise ValueError("a tool call without a name")

    def _find(self, delta: JsonObject, name: object) -> int | None:
        """Which call this is more of; None: a new one."""
        calls = self._calls
        key, given = delta.get("index"), delta.get("id")
        for position in range(len(calls) - 1, -1, -1):
            call = calls[position]
            renamed = bool(name and call.name and name != call.name)
            if given and call.id == given and (key is None or call.key in (None, key)):
                return None if renamed else position
            if key is not None and call.key == key:
                # One index for all calls is known of some hosts: another id with a name is another call, and an empty one with
                # another name.
                other = (given and name and call.name) or ("id" in delta and renamed)
                return None if other else position
        return len(calls) - 1 if calls and key is None and not given and not name else None
