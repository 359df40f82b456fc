"""The tool calls of one choice of an OpenAI answer, out of deltas that hosts make each their own way. No I/O.

Hosts differ in how they distinguish calls: by an index, an id, both, or neither, each delta being a whole call; and in whether id
and name come once, every time, or in pieces. The rules:

- Another index with a name is another call, and so is another id with a name.
- A delta without a name continues a call: the one of its index or id, else the last.
- The same name again is a repetition; another one is a further piece of the name, unless both are names of tools.
- Arguments that are complete JSON are not continued: a delta with a name is then another call, and the same arguments again are a
  repetition.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias
from uuid import uuid4

import msgspec
import orjson
from msgspec import Struct

from antiphon.domain.content import NOTHING, JsonObject
from antiphon.domain.events import ToolCallDelta
from antiphon.providers.openai.values import is_shallow, text

_CALL: Final = frozenset({"index", "id", "type", "function"})

_FUNCTION: Final = frozenset({"name", "arguments"})

_ABOUT: Final = frozenset({"extra_content", "provider_specific_fields"})
"""Fields that a call of any kind may have."""

ReadCall: TypeAlias = "ToolCallDelta | dict[str, Any]"
"""A piece of a call: of a function, or of a tool of another kind, that one as the JSON in which it came, with our `index`."""


class _Call(Struct):
    """A tool call that has begun."""

    key: object
    """The host's index, if it has one."""
    given: str
    """The host's id, if it has one."""
    native: bool
    """The call is of another kind than a function."""
    name: str = ""
    pieces: list[str] = msgspec.field(default_factory=list)
    """Of the arguments."""
    length: int = 0

    def add(self, arguments: str) -> None:
        self.pieces.append(arguments)
        self.length += len(arguments)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a complete object or list."""
        if not self.pieces or self.pieces[-1].rstrip()[-1:] not in ("}", "]"):  # joins nothing for nearly every piece
            return False
        try:
            msgspec.json.decode(self.arguments)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class ToolCalls:
    """Reads the tool calls of one choice."""

    def __init__(self, choice: int, tools: frozenset[str], *, whole: bool = False) -> None:
        """`tools` are the names of those that were offered. `whole`: each delta is a call, as in an answer that does not stream."""
        self._choice = choice
        self._tools = tools
        self._whole = whole
        self._calls: list[_Call] = []

    def __bool__(self) -> bool:
        """Whether a call has begun."""
        return bool(self._calls)

    def read(self, delta: JsonObject) -> ReadCall | None:
        """The piece that a delta of a call adds; None: nothing. Raises for another shape."""
        return self._read(delta, whole=self._whole)

    def conclude(self, calls: list[JsonObject]) -> Iterator[ReadCall]:
        """What the calls of a whole message at the end of the stream add to those that streamed."""
        for position, given in enumerate(calls):
            if position >= len(self._calls):
                if (call := self._read(given, whole=True)) is not None:
                    yield call
                continue
            known = self._calls[position]
            arguments = _arguments(given.get("function") or NOTHING)
            if not known.native and arguments.startswith(known.arguments) and arguments != known.arguments:
                rest = arguments[len(known.arguments) :]
                known.add(rest)
                yield ToolCallDelta(self._choice, position, arguments=rest)

    def end(self) -> None:
        """Raises if a call has no name."""
        if any(not call.name and not call.native for call in self._calls):
            raise ValueError("a tool call without a name")

    def _read(self, delta: JsonObject, *, whole: bool) -> ReadCall | None:
        function = delta.get("function")
        name, arguments = text((function or NOTHING).get("name")), _arguments(function or NOTHING)
        position = None if whole else self._find(delta, name, arguments)
        extra: dict[str, Any] = {}
        if not delta.keys() <= _CALL:
            extra = {key: value for key, value in delta.items() if key not in _CALL and value is not None}
        call_id = None
        if position is None:
            position = len(self._calls)
            given = text(delta.get("id"))
            native = function is None and delta.get("type") != "function" and bool(delta.get("type") or extra.keys() - _ABOUT)
            call_id = given
            if not native and (not given or any(call.given == given for call in self._calls)):
                call_id = f"call_{uuid4().hex[:24]}"
            self._calls.append(_Call(delta.get("index"), given, native))
        call = self._calls[position]
        call.native = call.native and function is None
        if call.native:
            return {"index": position, **{key: delta[key] for key in ("id", "type") if delta.get(key)}, **extra}
        if delta.get("type") not in (None, "", "function"):
            extra["type"] = delta["type"]
        if function and not function.keys() <= _FUNCTION:
            extra["function"] = {key: value for key, value in function.items() if key not in _FUNCTION}
        if extra and not is_shallow(extra):
            raise ValueError("depth")
        if name and (name != call.name or self._joins(call, name)):
            call.name += name
        else:
            name = ""
        if arguments:
            if len(arguments) == call.length and call.is_whole and arguments == call.arguments:
                arguments = ""
            else:
                call.add(arguments)
        if not (call_id or name or arguments or extra):
            return None
        return ToolCallDelta(self._choice, position, id=call_id, name=name or None, arguments=arguments, extra=extra or NOTHING)

    def _find(self, delta: JsonObject, name: str, arguments: str) -> int | None:
        """Which call this is more of; None: a new one."""
        calls = self._calls
        key, given = delta.get("index"), delta.get("id")
        if calls and not name and key is not None and calls[-1].key == key and (not given or calls[-1].given == given):
            return len(calls) - 1  # the commonest: more arguments
        by_id = by_key = None
        for position in range(len(calls) - 1, -1, -1):
            call = calls[position]
            if by_id is None and given and call.given == given and (key is None or call.key in (None, key)):
                by_id = position
            if by_key is None and key is not None and call.key == key:
                by_key = position
        found = by_key if by_id is None else by_id
        is_function = delta.get("function") is not None
        if found is None:
            found = self._find_otherwise(key, given, begins=bool(name) or not is_function)
            if found is None:
                return None
        call = calls[found]
        if by_id is None and given and call.given and (name or not is_function):  # another id under the same index
            return None
        if not name or not call.name:
            return found
        return found if self._continues(call, name, arguments, told_apart=by_id is not None or by_key is not None) else None

    def _find_otherwise(self, key: object, given: object, *, begins: bool) -> int | None:
        """Which call a delta continues that neither its index nor its id tells. `begins`: a call may begin with it."""
        last = len(self._calls) - 1
        if last < 0 or (begins and (given or key is not None)):
            return None
        if key is None:
            return last
        # An index that is only a counter of deltas.
        for position in range(last, -1, -1):
            if given and self._calls[position].given == given:
                return position
        return None if given or self._calls[last].is_whole else last

    def _continues(self, call: _Call, name: str, arguments: str, *, told_apart: bool) -> bool:
        """Whether a delta with a name continues a call that has one. `told_apart`: it has the index or the id of the call."""
        same = name == call.name
        if call.is_whole:
            repeats = not arguments.strip() or (bool(call.given) and arguments == call.arguments)
            return repeats and (same or self._joins(call, name))
        if not same:
            if self._joins(call, name):
                return True
            if call.name in self._tools and name in self._tools:
                return False
        return told_apart or bool(call.arguments)

    def _joins(self, call: _Call, name: str) -> bool:
        """Whether this is a further piece of the name, judging by the names of the tools."""
        return call.name not in self._tools and call.name + name in self._tools


def _arguments(function: JsonObject) -> str:
    arguments = function.get("arguments")
    return orjson.dumps(arguments).decode() if isinstance(arguments, (dict, list)) else text(arguments)
