"""Helpers that feed a text to a filter in pieces."""

from hypothesis import strategies as st

from antiphon.guards.base import Blocked, Filter


def fed(reader: Filter, pieces: list[str]) -> str:
    """Return all text that the filter passes on. A blocked text ends with "!"."""
    output = []
    try:
        for piece in pieces:
            output += [reader.feed(piece, final=False)]
        output.append(reader.feed("", final=True))
    except Blocked as blocked:
        output += [blocked.before, "!"]
    return "".join(output)


@st.composite
def pieces(draw: st.DrawFn, text: st.SearchStrategy[str]) -> list[str]:
    """Draw a text that is cut at any places."""
    whole = draw(text)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
