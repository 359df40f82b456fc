"""Tests of reading the tokens used, as different hosts count them, also of replies that break off."""

from typing import Any

import pytest

from antiphon.domain.events import Event, Usage
from antiphon.domain.request import ChatRequest
from antiphon.providers.openai.response import OpenAIReader
from antiphon.providers.openai.usage import read_usage
from tests.odd_upstream import delta, sse

PLAIN = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}

COUNTED: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "DeepSeek, nothing cached": ({"prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": 9}, {"cached_tokens": 0}),
    "DeepSeek": ({"prompt_cache_hit_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}}, {"cached_tokens": 3}),
    "Moonshot": ({"cached_tokens": 5}, {"cached_tokens": 5}),
    "Perplexity, Azure": ({"reasoning_tokens": 2, "citation_tokens": 7}, {"reasoning_tokens": 2}),
    "LiteLLM": (
        {
            "prompt_tokens_details": {"cached_tokens": 2, "cache_creation_tokens": 6},
            "cache_creation_input_tokens": 6,
            "cache_read_input_tokens": 2,
        },
        {"cached_tokens": 2, "cache_write_tokens": 6},
    ),
    "Alibaba": (
        {"prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 8}},
        {"cached_tokens": 0, "cache_write_tokens": 8},
    ),
    "Databricks": (
        {"cache_creation_input_tokens": 1, "cache_read_input_tokens": 3},
        {"cached_tokens": 3, "cache_write_tokens": 1},
    ),
    "xAI": (
        {"prompt_tokens_details": {"text_tokens": 5, "image_tokens": 4}, "completion_tokens_details": {"image_tokens": 0}},
        {"image_input_tokens": 4, "image_output_tokens": 0},
    ),
}
COUNTS = ("cached_tokens", "cache_write_tokens", "reasoning_tokens", "image_input_tokens", "image_output_tokens")


@pytest.mark.parametrize(("more", "expected"), COUNTED.values(), ids=COUNTED)
def test_counts_under_other_names(more: dict[str, Any], expected: dict[str, int]) -> None:
    """A count of 0 is 0, and one that is missing None. Fields that the API does not have are kept as they are."""
    usage = read_usage({**PLAIN, **more})
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (9, 4, 13)
    found = {name: count for name in COUNTS if (count := getattr(usage, name)) is not None}
    assert found == expected
    for name, value in more.items():
        if not isinstance(value, dict):
            assert usage.extra[name] == value


def test_the_names_of_other_apis() -> None:
    assert read_usage({"input_tokens": 9, "output_tokens": 4}) == Usage(9, 4, 13, extra={"input_tokens": 9, "output_tokens": 4})


def used(events: list[Event]) -> list[Usage]:
    return [event for event in events if isinstance(event, Usage)]


def test_usage_in_every_chunk() -> None:
    """It is told as it comes, so that a caller who leaves pays for it; the last word is that of the end."""
    reader = OpenAIReader(ChatRequest("m", (), stream=True), "acme")
    first = reader.feed(sse({**delta("a"), "usage": {**PLAIN, "completion_tokens": 1}}))
    assert used(first) == [Usage(9, 1, 13, estimated=True)]
    assert used(reader.feed(sse({**delta("b"), "usage": None}))) == []
    last = reader.feed(sse({**delta(finish="stop"), "usage": PLAIN}, "[DONE]"))
    assert used(last) == []
    end = reader.end()
    assert used(end) == [Usage(9, 4, 13)]


@pytest.mark.parametrize(
    "failure",
    [
        {"error": {"message": "overloaded"}, "usage": PLAIN},
        {**delta("", finish="error"), "usage": PLAIN},
        {**delta("", finish="abort"), "usage": PLAIN},
    ],
)
def test_a_failure_that_says_what_was_used(failure: dict[str, Any]) -> None:
    reader = OpenAIReader(ChatRequest("m", (), stream=True), "acme")
    events = reader.feed(sse(delta("a"), failure))
    assert reader.failure is not None
    assert used([*events, *reader.break_off()]) == [Usage(9, 4, 13, estimated=True)]


def test_a_reply_that_breaks_off_before_its_end() -> None:
    """The usage of the chunk before is told once."""
    reader = OpenAIReader(ChatRequest("m", (), stream=True), "acme")
    events = reader.feed(sse({**delta("a"), "usage": PLAIN}))
    assert used([*events, *reader.break_off()]) == [Usage(9, 4, 13, estimated=True)]
