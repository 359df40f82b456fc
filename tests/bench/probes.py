"""Probes that count what Python does in this process between `start` and `stop`: what runs, and what is allocated."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import inspect
import io
import json
import os
import re
import stat
import sys
import tracemalloc
from collections import Counter
from collections.abc import Coroutine
from functools import cache
from multiprocessing import connection
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from pydantic import BaseModel
from sqlalchemy import Engine, event

import antiphon

PACKAGE: Final = str(Path(antiphon.__file__).parent)

ROOTS: Final = tuple(f"{Path(package.__file__).parent.parent}/" for package in (antiphon, grpc, asyncio))
"""The folders of the gateway's code, of other packages, and of Python's library."""

BENCH: Final = (str(Path(__file__).parent), str(Path(connection.__file__).parent), tracemalloc.__file__)
"""Code of the benchmark itself, which is not counted."""

ASYNC: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

RESUMED_IN_AWAIT: Final = 3
"""The lower two bits of the argument of RESUME, the instruction that enters a frame, if the frame continues after an await."""

JSON_READ, JSON_WRITTEN, VALIDATED, REBUILT = "JSON read", "JSON written", "pydantic validations", "values rebuilt"
PARSED, SERIALISED = "protobuf parsed", "protobuf serialised"

IN_C: Final = {
    "orjson.loads": JSON_READ,
    "msgspec.decode": JSON_READ,
    "msgspec.json_decode": JSON_READ,
    "orjson.dumps": JSON_WRITTEN,
    "msgspec.encode": JSON_WRITTEN,
    "msgspec.json_encode": JSON_WRITTEN,
    "pydantic_core.validate_python": VALIDATED,
    "pydantic_core.validate_json": VALIDATED,
    "pydantic_core.to_python": REBUILT,
    "msgspec.replace": REBUILT,
    "msgspec.convert": REBUILT,
    "msgspec.to_builtins": REBUILT,
    "msgspec.asdict": REBUILT,
    "protobuf.FromString": PARSED,
    "protobuf.ParseFromString": PARSED,
    "protobuf.MergeFromString": PARSED,
    "protobuf.SerializeToString": SERIALISED,
}
"""Conversions by functions in C, by library and name."""

IN_PYTHON: Final = {
    json.loads.__code__: JSON_READ,
    json.dumps.__code__: JSON_WRITTEN,
    BaseModel.model_copy.__code__: REBUILT,
}


CALLS: Final = "Python calls"
SQL: Final = "SQL statements"
LOG: Final = "log writes"
GRPC: Final = "gRPC operations"
BATCHES: Final = "gRPC batches"
"""The batches of operations: what wakes gRPC's thread and the event loop."""

GRPC_LOGGED: Final = {"GRPC_TRACE": "api", "GRPC_VERBOSITY": "debug"}
"""The environment in which gRPC's core logs each operation on standard error. It reads it when `grpc` is imported."""

_OPERATION: Final = re.compile(rb"\] ops\[(\d+)\]: (\w+)")


class Trace:
    """Counts what runs: frames, functions called, tasks, conversions, SQL statements, lines of the log and gRPC operations.

    Frames and functions are counted by a profiling function: calls of types that are written in C cannot be. gRPC operations are
    counted if gRPC logs them (`GRPC_LOGGED`) and standard error is a file.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        titles = (CALLS, "async hops", "awaits woken", "tasks", "conversions", SQL, GRPC)
        self.lists: dict[str, Counter[str]] = {title: Counter() for title in titles}
        """The counts by place in the code, by statement, and by kind of operation."""
        self._logged = 0

    def start(self) -> None:
        self._logged = _standard_error_size()
        event.listen(Engine, "before_cursor_execute", self._see_sql)
        asyncio.get_running_loop().set_task_factory(self._make_task)
        sys.setprofile(self._see)

    def stop(self) -> None:
        sys.setprofile(None)
        asyncio.get_running_loop().set_task_factory(None)
        event.remove(Engine, "before_cursor_execute", self._see_sql)
        logged = os.pread(2, size - self._logged, self._logged) if (size := _standard_error_size()) else b""
        for number, kind in _OPERATION.findall(logged):
            self._count(GRPC, GRPC, kind.decode())
            self.counts[BATCHES] += number == b"0"

    def _see_sql(self, _connection: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool) -> None:
        self._count(SQL, SQL, " ".join(statement.split()))

    def _count(self, title: str, name: str, entry: str) -> None:
        self.counts[name] += 1
        self.lists[title][entry] += 1

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        self._count("tasks", "tasks", getattr(work, "__qualname__", repr(work)))
        return asyncio.Task(work, loop=loop, **options)

    def _see(self, frame: FrameType, what: str, function: Any) -> None:
        code = frame.f_code
        if what == "call":
            if code.co_filename.startswith(BENCH):
                return
            self._count(CALLS, CALLS, place(code))
            if code.co_flags & ASYNC:
                title = "awaits woken" if _bytecode(code)[frame.f_lasti + 1] & 3 == RESUMED_IN_AWAIT else "async hops"
                whose = "antiphon" if code.co_filename.startswith(PACKAGE) else "libraries"
                self._count(title, f"{title}, {whose}", place(code))
            elif code in IN_PYTHON:
                self._count("conversions", IN_PYTHON[code], f"{code.co_qualname} called by {_caller(frame.f_back)}")
        elif what == "c_call":
            self.counts[LOG] += function.__name__ == "write" and isinstance(function.__self__, io.FileIO)
            self.counts["C calls"] += not code.co_filename.startswith(BENCH)
            name = f"{_library(function)}.{function.__name__}"
            if name in IN_C:
                self._count("conversions", IN_C[name], f"{name} called by {_caller(frame)}")


class _Allocator(ctypes.Structure):
    """`PyMemAllocatorEx` of Python's C API."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free"))


_DOMAINS: Final = (1, 2)
"""`PYMEM_DOMAIN_MEM` and `PYMEM_DOMAIN_OBJ`."""

_FREE_NOTHING: Final = ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p).value
"""A C function that is used in place of `free`: it takes no arguments, and has no effect."""


class Allocations:
    """Counts the blocks that Python allocates, with tracemalloc.

    Nothing is freed between `start` and `stop`, so that every block can be counted at the end. Not counted are objects from a free
    list of Python, such as small tuples, and memory of C libraries.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lists: dict[str, Counter[str]] = {"allocations": Counter()}
        self._allocators = {domain: _Allocator() for domain in _DOMAINS}

    def start(self) -> None:
        gc.collect()
        gc.disable()
        tracemalloc.start()
        for domain, used in self._allocators.items():
            ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(used))
            keeping = _Allocator(used.context, used.malloc, used.calloc, used.realloc, _FREE_NOTHING)
            ctypes.pythonapi.PyMem_SetAllocator(domain, ctypes.byref(keeping))
        tracemalloc.clear_traces()

    def stop(self) -> None:
        for domain, used in self._allocators.items():
            ctypes.pythonapi.PyMem_SetAllocator(domain, ctypes.byref(used))
        snapshot = tracemalloc.take_snapshot()
        tracemalloc.stop()
        gc.enable()
        for line in snapshot.statistics("lineno"):
            frame = line.traceback[0]
            if not frame.filename.startswith(BENCH):
                self.counts["allocations"] += line.count
                self.lists["allocations"][f"{_short(frame.filename)}:{frame.lineno}"] += line.count


def expose_serialisation() -> None:
    """Let gRPC serialise messages through Python: otherwise C calls C, which `Trace` cannot see.

    Call it before a server is created.
    """

    def exposing(make: Any) -> Any:
        def made(behaviour: Any, *args: Any, response_serializer: Any, **options: Any) -> Any:
            def serialise(message: Any) -> bytes:
                return response_serializer(message)

            return make(behaviour, *args, response_serializer=serialise, **options)

        return made

    for name in ("unary_unary_rpc_method_handler", "unary_stream_rpc_method_handler"):
        setattr(grpc, name, exposing(getattr(grpc, name)))


def _standard_error_size() -> int:
    """Return the size of the file that standard error goes to, or 0 if it is no file."""
    found = os.fstat(2)
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


@cache
def _bytecode(code: CodeType) -> bytes:
    return code.co_code


@cache
def place(code: CodeType) -> str:
    """Return the file of a code object, without the folders before its package, and its function's name."""
    return f"{_short(code.co_filename)}:{code.co_qualname}"


def _short(path: str) -> str:
    return next((path.removeprefix(root) for root in ROOTS if path.startswith(root)), path)


def _caller(frame: FrameType | None) -> str:
    return "C" if frame is None or frame.f_code.co_filename.startswith(BENCH) else place(frame.f_code)


def _library(function: Any) -> str:
    """Return the library of a C function, or of the object whose method it is."""
    owner = function.__self__
    if isinstance(owner, Message) or (isinstance(owner, type) and issubclass(owner, Message)):
        return "protobuf"
    return str(function.__module__ or type(owner).__module__).partition(".")[0]
