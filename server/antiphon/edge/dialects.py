"""Generates the parts of `gateway/` that depend on the REST dialects, from `antiphon.rest.registry` and the protos.

`python -m antiphon.edge.dialects gateway [TARGET]` rewrites the sections between `>>>` and `<<<` in `listeners.yaml` and
`status.lua`. `make proto` runs it, and a test fails if it is due. The files stay plain ones that can be deployed as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from antiphon.edge.refusals import mappers
from antiphon.rest.registry import DIALECTS
from antiphon.rest.shared.paths import bindings, has_variables, pattern_of, query_of

FILES: Final = ("listeners.yaml", "status.lua")

_SECTION: Final = re.compile(
    r"^(?P<indent> *)(?P<mark>#|--) >>> (?P<name>\w+).*\n(?P<lines>(?:.*\n)*?) *(?P=mark) <<<\n", re.MULTILINE
)


def write(source: Path, target: Path) -> None:
    """Write the files of the folder `source` to the folder `target`, with their sections regenerated."""
    for name in FILES:
        (target / name).write_text(regenerate((source / name).read_text(encoding="utf-8")), encoding="utf-8")


def regenerate(text: str) -> str:
    """Return the text of a file with its sections regenerated. Raises `KeyError` for an unknown section."""

    def section(found: re.Match[str]) -> str:
        lines = "".join(f"{found['indent']}{line}\n" for line in SECTIONS[found["name"]]())
        start, end = (place - found.start() for place in found.span("lines"))
        return f"{found[0][:start]}{lines}{found[0][end:]}"

    return _SECTION.sub(section, text)


def services() -> Iterator[str]:
    """Yield the services that the transcoder serves."""
    for dialect in DIALECTS:
        yield f"- {dialect.service.full_name}"


def routes() -> Iterator[str]:
    """Yield a route for each dialect, so that the access log shows its name."""
    for dialect in DIALECTS:
        match = f"{{prefix: /{dialect.service.full_name}/}}"
        yield f"- {{name: {dialect.name}, match: {match}, route: {{cluster: antiphon, timeout: 0s}}}}"


def queries() -> Iterator[str]:
    """Yield the paths with their own query parameters."""
    for dialect in DIALECTS:
        for method in dialect.service.methods:
            if query_of(method):
                yield from (_entry(path) for _, path in bindings(method))


def streams() -> Iterator[str]:
    """Yield the media types of streamed answers."""
    types = {media for dialect in DIALECTS for method in dialect.methods.values() for media in method.streams}
    yield from map(_entry, sorted(types))


def paths_without_method() -> Iterator[str]:
    """Yield, by HTTP method, the fixed paths that lack this method but match a template that has it."""
    rules = [rule for dialect in DIALECTS for method in dialect.service.methods for rule in bindings(method)]
    for verb in sorted({verb for verb, _ in rules}):
        templates = [re.compile(pattern_of(path)) for other, path in rules if other == verb and has_variables(path)]
        plain = {path for _, path in rules if not has_variables(path) and (verb, path) not in rules}
        taken = sorted(path for path in plain if any(template.fullmatch(path) for template in templates))
        if taken:
            yield from (f"{verb.upper()} = {{", *(f"  {_entry(path)}" for path in taken), "},")


def _entry(value: str) -> str:
    """Return an entry of a Lua table that is used as a set."""
    return f'["{value}"] = true,'


SECTIONS: Final[dict[str, Callable[[], Iterable[str]]]] = {
    "mappers": lambda: mappers(DIALECTS),
    "services": services,
    "routes": routes,
    "queries": queries,
    "streams": streams,
    "names": paths_without_method,
}

if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[-1]))
