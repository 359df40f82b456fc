"""Loads the Lua scripts that Redis runs: files in `lua/`, whose head comments document arguments and results."""

from __future__ import annotations

from importlib.resources import files


def load_script(name: str) -> str:
    """Return the text of a script, such as "take", after the lines that all scripts share. Raises `OSError` if it is missing."""
    folder = files("antiphon.limits") / "lua"
    return "\n".join((folder / file).read_text(encoding="utf-8") for file in ("shared.lua", f"{name}.lua"))
