"""The SQL function for the size of a text in its row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class ByteLength(FunctionElement[int]):
    """The length of a text column in bytes.

    PostgreSQL knows it without reading the text; older versions of SQLite read the text.
    """

    type = Integer()
    inherit_cache = True


@compiles(ByteLength)
def _octet_length(element: ByteLength, compiler: SQLCompiler, **options: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **options)})"


@compiles(ByteLength, "sqlite")
def _length(element: ByteLength, compiler: SQLCompiler, **options: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **options)} AS BLOB))"
