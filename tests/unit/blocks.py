"""Hypothesis strategies that generate any block and any message, for tests of properties."""

from typing import Any, Final

from hypothesis import strategies as st

from antiphon import domain
from antiphon.domain import Origin, State
from antiphon.domain.content import CUSTOM, FUNCTION, FUNCTION_CALL

texts: Final = st.text(max_size=8)
names: Final = st.text("abz_é ", max_size=4)
values: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False, width=32) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
objects: Final = st.dictionaries(names, values, max_size=2)
some: Final = st.dictionaries(names, values, min_size=1, max_size=2)
origins: Final = st.builds(Origin, texts, texts, texts, texts).filter(lambda origin: origin != Origin())
states: Final = st.builds(State, st.none() | texts, objects, st.none() | st.integers(0, 2**31 - 1), st.none() | origins).filter(
    lambda state: state != State()
)
citations: Final = st.builds(
    domain.Citation, texts, texts, texts, texts, st.none() | st.integers(0, 99), st.none() | st.integers(0, 99), objects
)
media: Final = st.builds(domain.Media, texts.map("https://example.com/{}".format)) | st.builds(
    domain.Media, file_id=texts.map("file-{}".format)
)
types: Final = st.sampled_from([FUNCTION, CUSTOM, FUNCTION_CALL, "shell_call"])


def _of(kind: Any, *places: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, *places, **fields, extra=objects, state=st.none() | states)


plain: Final = st.one_of(
    _of(domain.Text, texts, st.lists(citations, max_size=2).map(tuple)),
    _of(domain.Image, media, st.sampled_from([None, "low", "high"])),
    _of(domain.Audio, media | st.just(domain.Media()), texts, texts, st.none() | st.integers(0, 2**40)),
    _of(domain.Video, media),
    _of(domain.Document, media, st.none() | texts, st.none() | texts),
    _of(domain.Thinking, texts, st.sampled_from(["", "reasoning", "summary_text"])),
    _of(domain.RedactedThinking),
    _of(domain.ToolCall, texts, texts, texts, types),
    _of(domain.ServerToolCall, texts, texts, texts, st.none() | texts),
    _of(domain.ServerToolResult, texts, texts, st.booleans()),
    _of(domain.Refusal, texts),
    _of(domain.Compaction, st.none() | texts),
    _of(domain.Opaque, some),
    st.builds(domain.Opaque, state=states),
)
blocks: Final = plain | _of(domain.ToolResult, texts, st.lists(plain, max_size=2).map(tuple), st.booleans(), types)
"""Every type of block, with any content."""

messages: Final = st.builds(
    domain.Message,
    st.sampled_from(domain.Role),
    st.lists(blocks, max_size=4).map(tuple),
    st.none() | texts,
    objects,
    st.booleans(),
    st.none() | origins,
    objects,
)

counts: Final = st.integers(0, 2**40)
large: Final = st.dictionaries(names, st.integers() | values, max_size=2)
"""As `objects`, with whole numbers of any size."""
usage_parts: Final = st.builds(domain.UsagePart, texts, texts, counts, counts, counts, counts)
usages: Final = st.builds(
    domain.Usage,
    *(counts, counts, counts),
    *[st.none() | counts] * 8,
    server_tools=st.dictionaries(texts, counts, max_size=2),
    parts=st.lists(usage_parts, max_size=2).map(tuple),
    extra=large,
    estimated=st.booleans(),
)
"""Tokens in every form."""

ORIGIN: Final = Origin("openai-chat", "up", "m", "up.eu")
STATE: Final = State("sig", {"n": 2**60 + 1, "x": None, "f": 1.0}, 0, Origin("responses", "else", "n", "else.us"))
CITATION: Final = domain.Citation("https://a.test/", "A", "word", "s1", 0, 4, {"n": 2**60 + 1})
_FILLED: Final[dict[str, Any]] = {"extra": {"k": 1}, "state": STATE}
_WITHIN: Final = (
    domain.Text("t", (CITATION,), **_FILLED),
    domain.Image(domain.Media("https://a.test/i"), "low", **_FILLED),
    domain.Audio(domain.Media(file_id="file-a"), "a1", "la", 9, **_FILLED),
    domain.Video(domain.Media("https://a.test/v"), **_FILLED),
    domain.Document(domain.Media(file_id="file-1"), "a.pdf", "A", **_FILLED),
    domain.Opaque({"type": "odd", "n": 2**60 + 1}, **_FILLED),
)
EVERY: Final = domain.Message(
    domain.Role.ASSISTANT,
    (
        *_WITHIN,
        domain.Thinking("hm", "summary_text", **_FILLED),
        domain.RedactedThinking(**_FILLED),
        domain.ToolCall("c1", "f", "{}", CUSTOM, **_FILLED),
        domain.ToolResult("c1", _WITHIN, True, CUSTOM, **_FILLED),
        domain.ServerToolCall("s1", "web_search", "find", "", **_FILLED),
        domain.ServerToolResult("s1", "web_search", True, **_FILLED),
        domain.Refusal("no", **_FILLED),
        domain.Compaction("", **_FILLED),
    ),
    "Al",
    {"k": 1},
    True,
    ORIGIN,
    {"n": 2**60 + 1},
)
"""Every kind of block, with every field that it has: what is drawn at random may lack one for many a run."""
