"""The HTTP paths of a method, as its proto has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor

VARIABLE: Final = re.compile(r"\{(\w+)(?:=[^}]*)?\}")
"""A variable of a path template: {chat_id}, or {model=**}."""


def bindings(method: MethodDescriptor) -> Iterator[tuple[str, str]]:
    """Yield each HTTP method, in lower case, with the path template that it is called by."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        yield verb, getattr(binding, verb)
