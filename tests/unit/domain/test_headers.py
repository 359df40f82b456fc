"""The place for the headers of a response."""

import asyncio

from antiphon.domain import headers


async def test_each_call_has_headers_of_its_own() -> None:
    """What is added belongs to the call that is going on, and the last word holds."""

    async def call(value: str) -> dict[str, str]:
        told = headers.begin()
        headers.add("x-one", "before")
        await asyncio.sleep(0)
        headers.add("x-one", value)
        return told

    assert await asyncio.gather(*(asyncio.create_task(call(str(number))) for number in range(3))) == [
        {"x-one": str(number)} for number in range(3)
    ]


def test_headers_are_taken_back_by_how_their_names_begin() -> None:
    """The others stay; outside a call there are none."""
    headers.drop("x-")
    told = headers.begin()
    for name in ("x-one-a", "x-two", "x-one-b"):
        headers.add(name, "1")
    headers.drop("x-one-")
    assert told == {"x-two": "1"}


def test_outside_a_call_nothing_is_kept() -> None:
    """There is nobody to send it to."""
    headers.add("x-one", "1")
    assert headers.begin() == {}
