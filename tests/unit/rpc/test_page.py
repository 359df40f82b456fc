"""Tests of pages of lists that every client can receive."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.history.base import MAX_SOURCE, MAX_TITLE
from antiphon.rpc.page import MAX_ANSWER_BYTES, fit_page
from antiphon.rpc.request import MAX_PAGE_SIZE
from antiphon.v1 import admin_pb2, history_pb2


def reading(keys: list[admin_pb2.Key], sizes: list[int]) -> Any:
    async def read(size: int) -> tuple[list[admin_pb2.Key], admin_pb2.ListKeysResponse]:
        sizes.append(size)
        token = "more" if size < len(keys) else ""
        return keys[:size], admin_pb2.ListKeysResponse(keys=keys[:size], next_page_token=token)

    return read


@given(st.lists(st.integers(0, MAX_ANSWER_BYTES * 5 // 4), min_size=1, max_size=8), st.integers(1, 10))
@pytest.mark.asyncio
async def test_a_page_is_as_large_as_can_be_received(lengths: list[int], size: int) -> None:
    """A page has at most MAX_ANSWER_BYTES, unless one entry alone is larger, and a token if more follow.

    A page that fits is read once.
    """
    sizes: list[int] = []
    answer = await fit_page(size, reading([admin_pb2.Key(name="x" * length) for length in lengths], sizes))
    assert 1 <= len(answer.keys) <= size
    assert len(answer.keys) == 1 or answer.ByteSize() <= MAX_ANSWER_BYTES
    assert bool(answer.next_page_token) == (len(answer.keys) < len(lengths))
    assert len(sizes) == 1 or sum(lengths[: sizes[-2]]) > MAX_ANSWER_BYTES - 1000
    assert sizes == sorted(set(sizes), reverse=True)


async def test_the_largest_page_of_conversations_fits() -> None:
    """The largest possible page of conversations fits into an answer."""
    one = history_pb2.Conversation(id="i" * 36, title="🎉" * MAX_TITLE, source="🎉" * MAX_SOURCE, forked_from="i" * 36)
    assert history_pb2.ListConversationsResponse(conversations=[one] * MAX_PAGE_SIZE).ByteSize() < MAX_ANSWER_BYTES
