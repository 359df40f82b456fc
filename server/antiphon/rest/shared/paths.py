"""The HTTP paths of a method, read from its proto."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

VARIABLE: Final = re.compile(r"\{(\w+)(?:=[^}]*)?\}")
"""A variable of a path template, such as {chat_id} or {model=**}."""


def bindings(method: MethodDescriptor) -> Iterator[tuple[str, str]]:
    """Yield each HTTP method, in lower case, and its path template."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        yield verb, getattr(binding, verb)


def has_variables(path: str) -> bool:
    """Return whether a path template has variables."""
    return VARIABLE.search(path) is not None


def pattern_of(path: str) -> str:
    """Return an RE2 pattern that matches the paths of a template. It does not match a query."""
    return VARIABLE.sub(lambda found: ".*" if found[0].endswith("=**}") else "[^/?]+", path)


def query_of(method: MethodDescriptor) -> list[FieldDescriptor]:
    """Return the fields that the query may set: none if a path has variables, because the query could override them."""
    if any(has_variables(path) for _, path in bindings(method)):
        return []
    return [field for field in method.input_type.fields if field.name != "body"]
