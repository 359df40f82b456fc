"""gRPC's thread does not wait for a busy event loop."""

import asyncio
import contextlib
import os
import socket
import sys
from threading import Event
from typing import Any

import grpc

from antiphon.rpc import wake_ups
from antiphon.rpc.acceptor import aio_server
from tests.waiting import until

CALLS = 600
"""More than twice as many operations as find room in the socket that gRPC makes."""

ECHO = "/test.Echo/Echo"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of HTTP/2 sends first, with empty settings."""


class Handlers(grpc.GenericRpcHandler):
    """Answers all calls at the same time."""

    def __init__(self) -> None:
        self.calls = 0
        self.answering = asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self.answer)

    async def answer(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        await self.answering.wait()
        return request


def connect(port: int, done: Event) -> bytes:
    """Connect and return the first frame that the server sends; set `done` in any case."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(PREFACE)
            return connection.recv(9)
    finally:
        done.set()


async def serve() -> None:
    """Serve a new connection while the event loop does nothing for the operations of many calls that have ended."""
    handlers, done = Handlers(), Event()
    server = aio_server([handlers], [], [])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo: Any = channel.unary_unary(ECHO)
        replies = [asyncio.ensure_future(echo(b"%d" % number)) for number in range(CALLS)]
        await until(lambda: handlers.calls == CALLS)
        handlers.answering.set()
        connecting = asyncio.ensure_future(asyncio.to_thread(connect, port, done))
        await asyncio.sleep(0)  # all handlers return, and the thread begins
        done.wait()
        frame = await connecting
        assert frame[3:4] == b"\x04", f"no settings, but {frame!r}"
        async with asyncio.timeout(30):
            assert await asyncio.gather(*replies) == [b"%d" % number for number in range(CALLS)]
    await server.stop(None)


async def test_a_busy_event_loop_does_not_stop_the_thread_of_grpc() -> None:
    """In a process of its own, as gRPC makes its sockets once in a process, and without the help that its clients give each 5 s."""
    environment = {**os.environ, "GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS": "0"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, env=environment, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(90):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, errors.decode()


def test_a_socket_that_wakes_the_event_loop_takes_a_few_bytes_and_does_not_block() -> None:
    """Each byte in it takes a turn of the event loop. Other sockets are as always."""
    with wake_ups.unblocked():
        pairs = [socket.socketpair()]
    pairs.append(socket.socketpair())
    taken = []
    for reader, writer in pairs:
        with reader, writer:
            blocks = writer.gettimeout() is None
            writer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    writer.send(b"1")
            taken.append((blocks, len(reader.recv(10_000))))
    (few_block, few), (usual_block, usual) = taken
    assert (few_block, usual_block) == (False, True)
    assert 0 < few <= 16 < usual


if __name__ == "__main__":
    asyncio.run(serve())
