"""Random calls: random bytes, messages of any content, metadata of any size. The server stays healthy."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from antiphon.app import App
from antiphon.config import AuthConfig, Config, DatabaseConfig, GrpcConfig, KeyConfig, SessionsConfig
from antiphon.database.migrate import migrate
from antiphon.edge.files import gateway_files
from antiphon.providers.hosts import ECHO
from tests.e2e.conftest import KEY
from tests.ports import free_port
from tests.waiting import until

METHODS: Final[Mapping[str, MethodDescriptor]] = {
    f"/{service.full_name}/{method.name}": method
    for file in descriptor_pb2.FileDescriptorSet.FromString((gateway_files() / "antiphon.pb").read_bytes()).file
    if file.package.startswith("antiphon.") and file.service
    for service in descriptor_pool.Default().FindFileByName(file.name).services_by_name.values()
    for method in service.methods
}
"""All methods of the protos."""
SERVER_FAULTS: Final = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNIMPLEMENTED}
"""The codes that would mean a fault of the server."""

WORDS: Final = (
    "echo",
    "user",
    "title",
    "pinned",
    '{"model": "echo", "messages": [{"role": "user", "content": "x"}]}',
    "default",
    "\0",
    "\ud7ff",
)
TEXT: Final = st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
SCALARS: Final[Mapping[int, st.SearchStrategy[Any]]] = {
    FieldDescriptor.CPPTYPE_STRING: TEXT,
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: st.one_of(st.integers(-2, 3), st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.CPPTYPE_INT64: st.one_of(st.integers(-2, 3), st.integers(-(2**63), 2**63 - 1)),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
}
NAMES: Final = st.one_of(
    st.sampled_from(
        ["authorization", "accept", "x-request-id", "x-antiphon-query", "x-forwarded-for", "user-agent", "x-goog-api-key"]
    ),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=20).filter(lambda name: not name.endswith("-bin")),
)
METADATA: Final = st.lists(
    st.one_of(
        st.tuples(NAMES, st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=50)),
        st.tuples(NAMES, st.integers(0, 100_000).map("x".__mul__)),
        st.tuples(NAMES.map("{}-bin".format), st.binary(max_size=50)),
    ),
    max_size=5,
)


@st.composite
def filled(draw: st.DrawFn, kind: Descriptor, depth: int = 4) -> Any:
    """Draw a message of a type, with some of its fields set to any valid value."""
    made = message_factory.GetMessageClass(kind)()
    for field in (
        draw(st.lists(st.sampled_from(list(kind.fields)), max_size=6, unique_by=lambda field: field.name)) if kind.fields else ()
    ):
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            entry = field.message_type
            if depth == 0 or entry.GetOptions().map_entry:
                continue
            values = draw(st.lists(filled(entry, depth - 1), min_size=1, max_size=3 if field.is_repeated else 1))
            if field.is_repeated:
                getattr(made, field.name).extend(values)
            else:
                getattr(made, field.name).CopyFrom(values[0])
            continue
        one = SCALARS.get(field.cpp_type, st.integers(0, 9))
        if field.type == FieldDescriptor.TYPE_BYTES:
            one = st.one_of(st.binary(max_size=50), TEXT.map(str.encode))
        if field.is_repeated:
            getattr(made, field.name).extend(draw(st.lists(one, max_size=3)))
        else:
            setattr(made, field.name, draw(one))
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def server(tmp_path: Path) -> AsyncGenerator[str, None]:
    """Yield the address of a server in this process, with SQLite."""
    config = Config(
        grpc=GrpcConfig(listen=f"127.0.0.1:{free_port()}"),
        database=DatabaseConfig(url=f"sqlite:///{tmp_path}/anything.db"),
        providers={"echo": ECHO},
        auth=AuthConfig(keys=(KeyConfig(name="test", key_env="K", admin=True),)),
        sessions=SessionsConfig(automatic=True),
    )
    await migrate(config.database.url or "", 5)
    stop = asyncio.Event()
    serving = asyncio.create_task(App(config, {"K": KEY}).serve([config.grpc.listen], stop))
    async with grpc.aio.insecure_channel(config.grpc.listen) as channel:
        await channel.channel_ready()
    yield config.grpc.listen
    stop.set()
    await serving


def call(channel: grpc.Channel, path: str, data: bytes, metadata: list[tuple[str, Any]]) -> grpc.StatusCode:
    """Make one call, and return the code with which it ends."""
    kind: Callable[..., Any] = channel.unary_stream if METHODS[path].server_streaming else channel.unary_unary
    method = kind(path, request_serializer=None, response_deserializer=None)
    try:
        answer = method(data, metadata=[("authorization", f"Bearer {KEY}"), *metadata], timeout=20)
        if METHODS[path].server_streaming:
            for _ in answer:
                pass
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


async def check_health(server: str) -> None:
    """Check over a new connection that the server is healthy."""
    async with grpc.aio.insecure_channel(server) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING


async def our_objects() -> int:
    """Return the number of live objects of our own classes."""
    for _ in range(1000):  # so that the loop drops its cancelled timers; each keeps a call alive until it is due
        asyncio.get_running_loop().call_later(60, int).cancel()
    await asyncio.sleep(0)
    gc.collect()
    return sum(str(type(found).__module__).startswith("antiphon.") for found in gc.get_objects())


@pytest.mark.slow
async def test_anything_at_all_is_answered(server: str) -> None:
    """No method, message or metadata causes a fault of the server, and no call leaves objects or tasks behind."""
    paths = st.sampled_from(sorted(METHODS))
    anything = paths.flatmap(
        lambda path: st.tuples(
            st.just(path),
            st.one_of(st.binary(max_size=200), filled(METHODS[path].input_type).map(lambda made: made.SerializeToString())),
            METADATA,
        )
    )
    seen: dict[grpc.StatusCode, int] = {}

    with grpc.insecure_channel(
        server, options=[("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)]
    ) as channel:

        @settings(max_examples=3 * settings.default.max_examples)
        @given(anything)
        def every(random_call: tuple[str, bytes, list[tuple[str, Any]]]) -> None:
            code = call(channel, *random_call)
            seen[code] = seen.get(code, 0) + 1
            assert code not in SERVER_FAULTS

        for path in METHODS:  # fill what is made once per method
            await asyncio.to_thread(call, channel, path, b"", [])
        await check_health(server)
        tasks, kept = len(asyncio.all_tasks()), await our_objects()
        with capture_logs() as logs:
            await asyncio.to_thread(every)
        assert not [entry for entry in logs if entry["event"] == "call_failed"]
    await check_health(server)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    print(f"{sum(seen.values())} calls: {', '.join(f'{code.name} {count}' for code, count in seen.items())}")  # noqa: T201 - shown when fuzzing
    assert await our_objects() - kept < sum(seen.values()) // 10, "each call leaves objects behind"
    assert grpc.StatusCode.OK in seen
    assert grpc.StatusCode.INVALID_ARGUMENT in seen


async def test_invalid_bytes_without_a_key_do_not_fill_the_log(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A method without a key ignores invalid bytes in its request, and does not log a failure."""
    async with grpc.aio.insecure_channel(server) as channel:
        stream = channel.unary_stream("/antiphon.rest.v1.EngineService/GetHealth")
        assert len([piece async for piece in stream(b"\xff\xff\xff")]) == 1
    assert "Traceback" not in capfd.readouterr().err
