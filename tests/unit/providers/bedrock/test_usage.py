"""Tokens as the Converse API counts them."""

from typing import Any

import pytest

from antiphon.domain.events import Usage
from antiphon.providers.bedrock.usage import read_usage


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, Usage(0, 0, 0)),
        ({"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}, Usage(3, 4, 7)),
        (
            {
                "inputTokens": 3,
                "outputTokens": 4,
                "totalTokens": 307,
                "cacheReadInputTokens": 100,
                "cacheWriteInputTokens": 200,
                "cacheReadInputTokenCount": 100,
                "cacheWriteInputTokenCount": 200,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 150}, {"ttl": "5m", "inputTokens": 50}],
                "serverToolUsage": {"web_search": 2, "other": 0},
                "new": 1,
            },
            Usage(
                303,
                4,
                307,
                cached_tokens=100,
                cache_write_tokens=200,
                cache_write_1h_tokens=150,
                server_tools={"web_search": 2},
                extra={"new": 1},
            ),
        ),
        (
            {"inputTokens": 1, "cacheReadInputTokens": 0, "cacheWriteInputTokens": 5, "cacheDetails": []},
            Usage(6, 0, 6, cached_tokens=0, cache_write_tokens=5),
        ),
        (
            {"cacheWriteInputTokens": 5, "cacheDetails": [{"ttl": "1h", "inputTokens": 9}, 1]},
            Usage(5, 0, 5, cache_write_tokens=5, cache_write_1h_tokens=5),
        ),
        ({"inputTokens": -1, "outputTokens": "x", "cacheReadInputTokens": None}, Usage(0, 0, 0)),
    ],
)
def test_counts(raw: dict[str, Any], expected: Usage) -> None:
    """The input includes what was read from a cache and written to it; what is written for an hour is a part of that."""
    assert read_usage(raw) == expected
