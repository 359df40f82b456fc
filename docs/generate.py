"""Write the pages of reference that repeat what the code knows: settings, errors, and faults of providers.

    python docs/generate.py            # writes docs/reference/settings.md, errors.md and faults.md

A test holds the committed pages to what this writes. `deploy/observe.py` does the same for metrics.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from antiphon.config import Config, QuotaConfig, TlsConfig
from antiphon.config.words import free_names

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.faults import FAULTS  # the tests are no package that is installed

ROOT: Final = Path(__file__).parents[1]
REFERENCE: Final = ROOT / "docs" / "reference"
REASONS: Final = ROOT / "proto" / "antiphon" / "v1" / "error_reason.proto"

_SETTINGS_HEAD: Final = """# Settings

Every setting has a default, so a file is optional: `antiphon up --config antiphon.yaml`. An environment variable overrides
the file: `ANTIPHON_` and the path of the setting, joined by two underscores, as in `ANTIPHON_REST__LISTEN=0.0.0.0:8080`.
Lists, mappings and whole sections are JSON there. A misspelt setting, or one that is set twice, is refused at start with its
line or variable. `antiphon check-config` shows the result.

A secret is never in the file: settings that end in `_env` or `_file` name the variable or file that holds it. A relative path is
relative to the working directory of the process, not to the file.

`NAME` stands for a name that you choose, `[]` for each entry of a list.

"""

_ERRORS_HEAD: Final = """# Errors

Every error of the typed API is a `google.rpc.Status` whose `ErrorInfo` has one of these reasons and the domain `antiphon`.
Decide by the reason: messages are for people and may change. REST dialects have shapes of their own.

"""

_FAULTS_HEAD: Final = """# Faults of providers

What a caller gets for each thing that a provider does wrong, and what follows. A test holds this table over REST and gRPC, streamed
and not, alone and with a second deployment.

- `status` (of chat completions) and `tries` are those of a route with one deployment, with `routing.attempts` 2. The classes are
  those of [routing](../guide/routing.md).
- `reason` is that of the error over gRPC. The `code` of chat completions is the same in lower case, or the provider's own.
- A provider with a second deployment answers from that one. A streamed reply that has begun is never continued by another
  deployment; one that is not streamed is, as nothing of it was sent.
- `breaker`: a fault that *counts* is a failure; a number of them in a row, or a share of all calls, opens the breaker
  (`routing.breaker`). A deployment that limits its rate is *left alone* for the time that it named, or for a second. A stream that
  failed after its first token counts in any case.
- A recorded conversation holds the question, and the reply in the state of the last column: without any text if it failed, with
  what had come if it is incomplete, and as a second deployment gave it if that one answered.

"""

_BOUNDS: Final = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}


class Setting(NamedTuple):
    """One row of the page: the path of a setting, what its value is, its default, and what it does."""

    path: str
    kind: str
    default: str
    about: str


SHARED: Final[Mapping[type[BaseModel], str]] = {TlsConfig: "TLS", QuotaConfig: "Quota"}
"""Sections that stand in several places: they have a table of their own."""


def pages() -> dict[Path, str]:
    """Return the text of each page by its path."""
    return {
        REFERENCE / "settings.md": settings_page(),
        REFERENCE / "errors.md": errors_page(),
        REFERENCE / "faults.md": faults_page(),
    }


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield each section by its path: those of the file, then those that stand in several places."""
    for name, field in Config.model_fields.items():
        section, suffix = _section(field.annotation)
        if section is not None:
            yield name + suffix, section
    yield from (("", section) for section in SHARED)


def settings_page() -> str:
    """Return the page of all settings."""
    about = docstrings(Config)
    single = [row for row in settings(Config) if _section(Config.model_fields[row.path].annotation)[0] is None]
    pieces = [_SETTINGS_HEAD, "## General\n\n", _table(single)]
    for path, section in sections():
        name = path.partition(".")[0].removesuffix("[]")
        text = " ".join(filter(None, (_paragraph(section.__doc__), about.get(name))))
        pieces += [f"## {SHARED.get(section, name)}\n\n{text}\n\n", _table(settings(section, path))]
    return "".join(pieces).rstrip() + "\n"


def settings(section: type[BaseModel], path: str = "") -> Iterator[Setting]:
    """Yield every setting of a section and of the sections in it, in the order of the source."""
    about = docstrings(section)
    for own_name, field in section.model_fields.items():
        name = field.alias or own_name
        about[name] = about.get(own_name, "")
        where = f"{path}.{name}" if path else name
        inner, suffix = _section(field.annotation)
        if inner is None or inner in SHARED:
            yield Setting(where + suffix, kind(field), default(field), about.get(name, ""))
        elif path:
            if about.get(name):
                yield Setting(where + suffix, "section" if not suffix else kind(field), default(field), about[name])
            yield from settings(inner, where + suffix)
    named = free_names(section)
    if named is not None:
        yield from settings(named, f"{path}.<name>")


def _table(rows: Iterable[Setting]) -> str:
    lines = ["| setting | value | default | what it does |", "|---|---|---|---|"]
    lines += [f"| `{row.path}` | {row.kind} | {row.default} | {row.about} |".replace("<name>", "NAME") for row in rows]
    return "\n".join(lines) + "\n\n"


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


def errors_page() -> str:
    """Return the page of all reasons of errors, with the comments of the proto."""
    pieces = [_ERRORS_HEAD]
    for comment, name in re.findall(r"((?:  //.*\n)+)  ERROR_REASON_(\w+) = [1-9]\d*;", REASONS.read_text(encoding="utf-8")):
        lines = [line.strip().removeprefix("//").removeprefix(" ") for line in comment.splitlines()]
        words = " ".join(line for line in lines if not line.startswith("    "))
        sample = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
        pieces.append(f"## {name}\n\n{words.strip()}\n\n```json\n{sample}\n```\n\n")
    return "".join(pieces).rstrip() + "\n"


def faults_page() -> str:
    """Return the page of what callers get for each fault of a provider: the rows that `tests/e2e/test_faults.py` tests."""
    rows = [
        "| fault | class | status | reason | tries | with a second deployment | breaker | a stream | recorded reply |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for fault in FAULTS:
        second = "its reply" if fault.moves_on else "the same reply" if fault.outcome == "ok" else "the same error"
        stream = "ends with the error" if fault.after_output else "the same"
        reason = f"`{fault.reason.upper()}`" if fault.reason else "-"
        recorded = (
            "`complete`" if fault.outcome == "ok" else "`failed`, of a stream `incomplete`" if fault.after_output else "`failed`"
        )
        rows.append(
            f"| {fault.name} | `{fault.outcome}` | {fault.status} | {reason} | {fault.tries} | {second} | {fault.breaker.value} "
            f"| {stream} | {recorded} |"
        )
    return _FAULTS_HEAD + "\n".join(rows) + "\n"


def docstrings(section: type[BaseModel]) -> dict[str, str]:
    """Return the text below each field of a section, as one paragraph; also those of the classes that it is made of."""
    found: dict[str, str] = {}
    for each in reversed(section.__mro__):
        if not (issubclass(each, BaseModel) and each.model_fields):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore[union-attr]
    return found


def _section(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """Return the section that a field holds, and what its path has for each of several: `.<name>` or `[]`."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation, ""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return next((_section(each) for each in args if _section(each)[0]), (None, ""))
    if inspect.isclass(origin) and issubclass(origin, Mapping) and (inner := _section(args[1])[0]):
        return inner, ".<name>"
    if origin is tuple and (inner := _section(args[0])[0]):
        return inner, "[]"
    return None, ""


def kind(field: FieldInfo) -> str:
    """Return what a value may be, in words."""
    given = ((words, getattr(each, name, None)) for each in field.metadata for name, words in _BOUNDS.items())
    bounds = [words.format(_number(value)) for words, value in given if value is not None]
    return ", ".join([_type(field.annotation), *bounds])


def _type(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in args)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in args if each is not type(None)))
    if origin is tuple:
        return f"list of {_type(args[0])}"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"mapping to {_type(args[1])}"
    if hasattr(annotation, "__metadata__"):
        return _type(args[0])
    return _TYPES.get(annotation, "") or _named(annotation)


_TYPES: Final = {str: "text", bool: "true or false", int: "number", float: "number", Path: "file"}


def _named(annotation: Any) -> str:
    """Return the words for a type that is named after what it holds."""
    name = getattr(annotation, "__name__", str(annotation))
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        title = SHARED.get(annotation)
        return f"[{title}](#{title.lower()})" if title else "section"
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return " or ".join(f"`{each.value}`" for each in annotation)
    return {"SecretStr": "text", "datetime": "time"}.get(name, "text")


def default(field: FieldInfo) -> str:
    """Return the default as it would stand in the file; "required" where there is none, "unset" for none."""
    value = field.get_default(call_default_factory=True)
    if field.is_required():
        return "required"
    match value:
        case None | () | "" | {}:
            return "unset"
        case bool():
            return f"`{str(value).lower()}`"
        case BaseModel():
            return "see below"
        case tuple() | list():
            return "`[" + ", ".join(str(getattr(each, "value", each)) for each in value) + "]`"
        case float():
            return f"`{_number(value)}`"
        case _:
            return f"`{value}`"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
