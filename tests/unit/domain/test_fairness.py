"""Tests of yielding to other calls."""

import asyncio
import socket
import time

from antiphon.domain.fairness import yield_to_other_calls


async def test_tasks_waiting_for_a_socket_or_timer_have_a_turn() -> None:
    """`yield_to_other_calls` lets tasks run whose socket or timer became ready while the caller was working."""
    loop = asyncio.get_running_loop()
    done: list[str] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)

        async def reading() -> None:
            await loop.sock_recv(theirs, 1)
            done.append("socket")

        async def sleeping() -> None:
            await asyncio.sleep(0.001)
            done.append("clock")

        waiting = [asyncio.create_task(reading()), asyncio.create_task(sleeping())]
        await asyncio.sleep(0)
        ours.send(b"x")
        end = time.monotonic() + 0.01
        while time.monotonic() < end:  # work that does not yield
            pass
        await yield_to_other_calls()
        assert sorted(done) == ["clock", "socket"]
        await asyncio.gather(*waiting)
