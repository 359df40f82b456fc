"""Reads the tool calls of one choice of an OpenAI answer, from the different deltas of different hosts. No I/O.

Hosts differ in how they tell calls apart: by an index, an id, both, or neither, where each delta is a complete call. They also
differ in whether id and name are sent once, with every delta, or in pieces. The rules:

- A new index with a name starts a new call, and so does a new id with a name.
- A delta without a name continues a call: the one with its index or id, else the last.
- The same name again is a repetition. Another name is a further piece of it, unless both are names of offered tools.
- Arguments that are complete JSON are not continued. A delta with a name then starts a new call, unless it repeats the same
  arguments.
- A call's `BlockStarted` is sent when its name is complete, judging by the names of the offered tools, and at the latest with its
  arguments. For a tool that was not offered it is sent when the next call starts, or at the end of the choice.
- A call of an unknown kind is sent at the end of the choice, because it is not known how its fields are merged.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

import msgspec
import orjson
from msgspec import Struct

from antiphon.domain import unknown_fields
from antiphon.domain.content import CUSTOM, FUNCTION, FUNCTION_CALL, JsonObject, ToolCall
from antiphon.domain.events import Batch, BlockFinished, InputDelta
from antiphon.providers.codec.blocks import BlockNumbers, state_of
from antiphon.providers.codec.names import ToolNames
from antiphon.providers.codec.values import is_shallow, text
from antiphon.providers.openai.blocks import take_signature

_CALL: Final = frozenset({"index", "id", "type", "function", "custom"})

_FUNCTION: Final = frozenset({"name", "arguments"})
_CUSTOM: Final = frozenset({"name", "input"})

_ABOUT: Final = frozenset({"extra_content", "provider_specific_fields"})
"""Fields that a call of any kind may have."""


class _Call(Struct):
    """A tool call while it is received."""

    index: object
    """The host's index; None if it sent none."""
    host_id: str
    """The host's id; empty if it sent none."""
    id: str
    type: str
    is_known: bool
    """Whether the kind of the call is known: it has a name, and arguments that are streamed."""
    block: int | None = None
    """The number of its block; None before `BlockStarted` is sent."""
    name: str = ""
    pieces: list[str] = msgspec.field(default_factory=list)
    """The pieces of the arguments."""
    length: int = 0
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    opaque: str | None = None
    is_changed: bool = False
    """Whether the state has changed since `BlockStarted`."""

    def add(self, arguments: str) -> None:
        self.pieces.append(arguments)
        self.length += len(arguments)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def has_complete_arguments(self) -> bool:
        """Return whether the arguments are a complete JSON object or list."""
        if not self.pieces or self.type == CUSTOM or self.pieces[-1].rstrip()[-1:] not in ("}", "]"):
            return False  # the fast path: nothing is joined for nearly every piece
        try:
            msgspec.json.decode(self.arguments)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class ToolCalls:
    """Reads the tool calls of one choice."""

    def __init__(
        self, choice: int, tools: frozenset[str], numbers: BlockNumbers, names: ToolNames | None = None, *, whole: bool = False
    ) -> None:
        """`tools` are the names of the offered tools, as they were sent; `names` has the caller's, None if they are the same.

        `whole`: each delta is a complete call, as in a reply that does not stream.
        """
        self._choice = choice
        self._tools = tools
        self._numbers = numbers
        self._names = names
        self._whole = whole
        self._calls: list[_Call] = []
        self._function_call: _Call | None = None

    def __bool__(self) -> bool:
        """Return whether there is a call."""
        return bool(self._calls) or self._function_call is not None

    def read(self, delta: JsonObject, events: Batch) -> None:
        """Append the events of a delta of a call.

        Raises `TypeError`, `ValueError` or `AttributeError` for JSON of another shape.
        """
        self._read(delta, events, whole=self._whole)

    def read_function_call(self, delta: JsonObject, events: Batch) -> None:
        """Append the events of a delta of `function_call`, the single call of the API of 2023. It has no id."""
        call = self._function_call
        if call is None:
            call = self._function_call = _Call(None, "", "", FUNCTION_CALL, is_known=True)
        self._take_fields(call, {name: value for name, value in delta.items() if name not in _FUNCTION and value is not None})
        self._grow(call, text(delta.get("name")), _arguments(delta), events, joins=False)

    def finish_from_message(self, calls: list[JsonObject], events: Batch) -> None:
        """Append what the calls of a complete message at the end of a stream add to the streamed ones."""
        for position, given in enumerate(calls):
            if position >= len(self._calls):
                self._read(given, events, whole=True)
                continue
            known = self._calls[position]
            _, arguments, _ = _body(given)
            if known.is_known and arguments.startswith(known.arguments) and arguments != known.arguments:
                self._add_arguments(known, arguments[len(known.arguments) :], events)

    def finish_function_call(self, given: JsonObject, events: Batch) -> None:
        """Append what the `function_call` of a complete message at the end of a stream adds to the streamed one."""
        known = self._function_call
        if known is None:
            self.read_function_call(given, events)
            return
        arguments = _arguments(given)
        if arguments.startswith(known.arguments) and arguments != known.arguments:
            self._add_arguments(known, arguments[len(known.arguments) :], events)

    def end(self, events: Batch) -> None:
        """Append the calls that were held back, and the ends of all calls. Raises `ValueError` if a call has no name."""
        for call in (*self._calls, *(() if self._function_call is None else (self._function_call,))):
            if call.is_known:
                if not call.name and call.type != CUSTOM:
                    raise ValueError("a tool call without a name")
                self._begin(call, events)
            else:
                self._begin_unknown(call, events)
            assert call.block is not None, "its start was appended above"
            state = state_of(call.opaque, call.fields) if call.is_changed or not call.is_known else None
            events.append(BlockFinished(call.block, state))

    def break_off(self, events: Batch) -> None:
        """Append the calls that were held back, with what has arrived of them, as the reply breaks off."""
        for call in (*self._calls, *(() if self._function_call is None else (self._function_call,))):
            self._begin(call, events)

    def _read(self, delta: JsonObject, events: Batch, *, whole: bool) -> None:
        """Read a delta: find or create its call, then add the fields. `whole`: the delta is a complete call."""
        has_body = delta.get("function") is not None or delta.get("custom") is not None
        name, arguments, inner = _body(delta)
        position = None if whole else self._find(delta, name, arguments, has_body=has_body)
        extra: dict[str, Any] = inner
        if not delta.keys() <= _CALL:
            extra |= {key: value for key, value in delta.items() if key not in _CALL and value is not None}
        if position is None:
            position = len(self._calls)
            self._calls.append(self._new(delta, extra, has_body=has_body))
            for earlier in self._calls[:-1]:
                self._begin(earlier, events)
        call = self._calls[position]
        if not call.is_known and has_body:
            call.is_known = True
            call.type = CUSTOM if delta.get("custom") is not None else call.type
        if extra:
            self._take_fields(call, extra)
        if call.is_known:
            self._grow(call, name, arguments, events, joins=True)
        else:
            call.id = call.id or text(delta.get("id"))

    def _new(self, delta: JsonObject, extra: JsonObject, *, has_body: bool) -> _Call:
        """Return a new call. It gets an id of its own if the host sent none or repeated an earlier one."""
        given = text(delta.get("id"))
        kind = text(delta.get("type")) or (CUSTOM if delta.get("custom") is not None else FUNCTION)
        is_known = has_body or (kind in (FUNCTION, CUSTOM) and not (not delta.get("type") and extra.keys() - _ABOUT))
        call_id = given
        if is_known and (not given or any(call.host_id == given for call in self._calls)):
            call_id = f"call_{uuid4().hex[:24]}"
        return _Call(delta.get("index"), given, call_id, kind if is_known else text(delta.get("type")), is_known)

    @staticmethod
    def _take_fields(call: _Call, extra: dict[str, Any]) -> None:
        """Merge unknown fields into the state of a call. Raises `ValueError` if they are nested too deeply."""
        if not extra:
            return
        if not is_shallow(extra):
            raise ValueError("depth")
        call.opaque = take_signature(extra) or call.opaque
        unknown_fields.add(call.fields, extra, joins=True)
        call.is_changed = True

    def _grow(self, call: _Call, name: str, arguments: str, events: Batch, *, joins: bool) -> None:
        """Add a piece of the name and of the arguments to a call of a known kind."""
        if name and (name != call.name or self._continues_name(call, name)) and (joins or not call.name):
            if call.block is not None:
                raise ValueError("a name that goes on")
            call.name += name
        if arguments and not (len(arguments) == call.length and call.has_complete_arguments and arguments == call.arguments):
            self._add_arguments(call, arguments, events)
        if call.block is None and call.name and (self._whole or self._is_name_complete(call, joins=joins)):
            self._begin(call, events)

    def _is_name_complete(self, call: _Call, *, joins: bool) -> bool:
        """Return whether the name of a call is complete. `joins`: the name may arrive in pieces."""
        if call.pieces and (call.name in self._tools or not joins):
            return True
        goes_on = any(tool != call.name and tool.startswith(call.name) for tool in self._tools)
        return call.name in self._tools and not goes_on

    def _add_arguments(self, call: _Call, arguments: str, events: Batch) -> None:
        call.add(arguments)
        if call.block is not None:
            events.append(InputDelta(call.block, arguments))

    def _begin(self, call: _Call, events: Batch) -> None:
        """Append the start of a call with its arguments so far, unless it was started or has no name yet."""
        if call.block is not None or not call.is_known or not (call.name or call.type == CUSTOM):
            return
        state = state_of(call.opaque, dict(call.fields))
        call.is_changed = False
        name = call.name if self._names is None else self._names.original(call.name)
        call.block = self._numbers.begin(self._choice, ToolCall(call.id, name, "", call.type, state=state), events)
        if call.pieces:
            events.append(InputDelta(call.block, call.arguments))

    def _begin_unknown(self, call: _Call, events: Batch) -> None:
        """Start a call of an unknown kind. Its arguments are the JSON object under the name of its type."""
        action = call.fields.pop(call.type, None) if isinstance(call.fields.get(call.type), dict) else None
        call.block = self._numbers.begin(self._choice, ToolCall(call.id, "", "", call.type), events)
        if action is not None:
            events.append(InputDelta(call.block, msgspec.json.encode(action).decode()))

    def _find(self, delta: JsonObject, name: str, arguments: str, *, has_body: bool) -> int | None:
        """Return the position of the call that a delta continues; None if it starts a new call."""
        calls = self._calls
        key, given = delta.get("index"), delta.get("id")
        if calls and not name and key is not None and calls[-1].index == key and (not given or calls[-1].host_id == given):
            return len(calls) - 1  # the most common case: more arguments
        by_id = by_key = None
        for position in range(len(calls) - 1, -1, -1):
            call = calls[position]
            if by_id is None and given and call.host_id == given and (key is None or call.index in (None, key)):
                by_id = position
            if by_key is None and key is not None and call.index == key:
                by_key = position
        found = by_key if by_id is None else by_id
        if found is None:
            found = self._find_without_match(key, given, begins=bool(name) or not has_body)
            if found is None:
                return None
        call = calls[found]
        if by_id is None and given and call.host_id and (name or not has_body):  # another id under the same index
            return None
        if not name or not call.name:
            return found
        return found if self._continues(call, name, arguments, is_identified=by_id is not None or by_key is not None) else None

    def _find_without_match(self, key: object, given: object, *, begins: bool) -> int | None:
        """Return the position of the call that a delta continues if no call has its index or id; None if it starts a new call.

        `begins`: the delta may be the first of a call.
        """
        last = len(self._calls) - 1
        if last < 0 or (begins and (given or key is not None)):
            return None
        if key is None:
            return last
        # The host may number its deltas, not its calls.
        for position in range(last, -1, -1):
            if given and self._calls[position].host_id == given:
                return position
        return None if given or self._calls[last].has_complete_arguments else last

    def _continues(self, call: _Call, name: str, arguments: str, *, is_identified: bool) -> bool:
        """Return whether a delta with a name continues a call that already has one.

        `is_identified`: the delta has the index or id of the call.
        """
        same = name == call.name
        if call.has_complete_arguments:
            repeats = not arguments.strip() or (bool(call.host_id) and arguments == call.arguments)
            return repeats and (same or self._continues_name(call, name))
        if not same:
            if self._continues_name(call, name):
                return True
            if call.name in self._tools and name in self._tools:
                return False
        return is_identified or bool(call.arguments)

    def _continues_name(self, call: _Call, name: str) -> bool:
        """Return whether `name` is a further piece of the call's name, judging by the names of the offered tools."""
        return call.name not in self._tools and call.name + name in self._tools


def _body(delta: JsonObject) -> tuple[str, str, dict[str, Any]]:
    """Return the name, the arguments and the unknown fields of a delta's function or plain-text tool."""
    function = delta.get("function")
    if function is not None:
        inner = {} if function.keys() <= _FUNCTION else {key: value for key, value in function.items() if key not in _FUNCTION}
        return text(function.get("name")), _arguments(function), {FUNCTION: inner} if inner else {}
    custom = delta.get("custom")
    if custom is not None:
        inner = {key: value for key, value in custom.items() if key not in _CUSTOM}
        return text(custom.get("name")), text(custom.get("input")), {CUSTOM: inner} if inner else {}
    return "", "", {}


def _arguments(function: JsonObject) -> str:
    arguments = function.get("arguments")
    return orjson.dumps(arguments).decode() if isinstance(arguments, (dict, list)) else text(arguments)
