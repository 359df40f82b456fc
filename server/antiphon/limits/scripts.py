"""The Lua scripts that Redis runs for `antiphon.limits.redis`: files in `lua/`, whose heads say what they take and return."""

from __future__ import annotations

from importlib.resources import files


def load_script(name: str) -> str:
    """Return the text of a script, such as "take": its file, after what all of them share. Raise `OSError` if there is none."""
    folder = files("antiphon.limits") / "lua"
    return "\n".join((folder / file).read_text(encoding="utf-8") for file in ("shared.lua", f"{name}.lua"))
