"""The reference page of the log matches what the code can log."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "server" / "antiphon"
PAGE = (ROOT / "docs" / "reference" / "log.md").read_text(encoding="utf-8")

LOGGERS = {"log", "_log"}
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}


class Logged(NamedTuple):
    """A place that logs. `fields` are those of its line, besides the fields that every line has."""

    event: str
    level: str
    fields: frozenset[str]


def _constants(node: ast.AST) -> Iterator[str]:
    yield from (each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str))


def _fields(call: ast.Call, tree: ast.Module) -> frozenset[str]:
    """Return the names of the fields of a log line; for `**name`, those that `name` gets in the same file."""
    named = {keyword.arg for keyword in call.keywords if keyword.arg is not None} - {"exc_info"}
    if any(keyword.arg == "exc_info" for keyword in call.keywords) or getattr(call.func, "attr", "") == "exception":
        named.add("exception")
    for keyword in call.keywords:
        if keyword.arg is None:
            assert isinstance(keyword.value, ast.Name)
            named |= _given(keyword.value.id, tree)
    return frozenset(named)


def _given(name: str, tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Subscript) and getattr(target.value, "id", "") == name:
                found |= set(_constants(target.slice))
            elif getattr(target, "id", "") == name and isinstance(node.value, ast.DictComp):
                found |= set(_constants(node.value.generators[0].iter))
    return found


def _events(node: ast.expr) -> list[str]:
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def logged() -> set[Logged]:
    """Return every place in the code that logs an event by its name."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            assert getattr(node.func, "id", "") not in LOGGERS, (
                f"{path.name}: a method of the logger by another name is not found here"
            )
            if getattr(node.func, "id", "") == "log_line" and len(node.args) == 2:  # the supervisor's own line
                found |= {Logged(event, *_events(node.args[1]), _fields(node, tree)) for event in _events(node.args[0])}
            if not isinstance(node.func, ast.Attribute):
                continue
            whose = getattr(node.func.value, "id", getattr(node.func.value, "attr", ""))
            if whose in LOGGERS and node.func.attr in LEVELS:
                assert _events(node.args[0]), f"{path.name}: an event needs its name where it is logged, to be found here"
                found |= {Logged(event, LEVELS[node.func.attr], _fields(node, tree)) for event in _events(node.args[0])}
            elif whose == "self" and node.func.attr == "_log":  # the supervisor's line about a child
                found |= {Logged(event, "error", _fields(node, tree) | {"child"}) for event in _events(node.args[0])}
    return found


def documented() -> set[Logged]:
    """Return the events in the page's tables."""
    rows = re.findall(r"^\| `([^`]+)` \| (debug|info|warning|error) \|([^|]*)\|", PAGE, re.MULTILINE)
    return {Logged(event, level, frozenset(re.findall(r"`(\w+)`", fields))) for event, level, fields in rows}


def test_every_event_is_documented_with_its_fields() -> None:
    """Every event is documented with its level and fields, and nothing else is."""
    assert len(logged()) > 30
    assert documented() == logged()


def test_what_every_line_may_have_is_documented() -> None:
    """The log fields of a call, and those in the edge's access log, are documented."""
    bound = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("log_fields.update"):
                bound |= {keyword.arg for keyword in node.keywords if keyword.arg is not None}
    assert {"request_id", "key", "model", "provider"} <= bound
    (listener,) = yaml.safe_load((ROOT / "gateway" / "listeners.yaml").read_text(encoding="utf-8"))["resources"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    of_edge = set(manager["access_log"][0]["typed_config"]["log_format"]["json_format"])
    common = set(re.findall(r"^\| `(\w+)` \| [^|]*\|$", PAGE, re.MULTILINE))
    assert bound | of_edge | {"event", "level", "timestamp", "worker", "process", "child", "lost", "exception"} <= common
