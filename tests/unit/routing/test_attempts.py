"""Tests of one attempt at a provider."""

import asyncio

import pytest

from antiphon.domain.call import Call
from antiphon.domain.errors import DeadlineExceeded, ProviderUnavailable, ShuttingDown
from antiphon.routing.attempts import Attempting
from tests.unit.listener import Listener


@pytest.mark.parametrize(
    ("error", "cancelled"),
    [
        (None, False),
        (ProviderUnavailable("x", provider="p"), False),
        (DeadlineExceeded(), True),
        (ShuttingDown(), True),
        (asyncio.CancelledError(), True),
        (GeneratorExit(), True),
    ],
)
async def test_an_attempt_is_closed_and_reported_however_it_ends(error: BaseException | None, cancelled: bool) -> None:
    """An attempt is closed and reported however it ends. The time to close it is reported if the call was cancelled."""
    listener = Listener()
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    async def attempt() -> None:
        async with Attempting(Call(observer=listener), close):
            if error is not None:
                raise error

    if error is None:
        await attempt()
    else:
        with pytest.raises(type(error)):
            await attempt()
    assert closed == [True]
    assert listener.events == ["attempt_started", *(["cancelled_upstream"] if cancelled else []), "attempt_ended"]
    assert listener.errors == [error]
