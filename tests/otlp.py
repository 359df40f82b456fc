"""Receivers of traces for the tests: one of OTLP over HTTP, and a third-party collector that forwards to it."""

from __future__ import annotations

import gzip
import importlib.util
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.ports import free_port
from tests.waiting import block_until


class Received(NamedTuple):
    """A span. Ids are in hexadecimal digits; `parent` is empty for a root."""

    name: str
    kind: str
    trace: str
    span: str
    parent: str
    state: str
    attributes: dict[str, Any]
    error: bool
    begin: int
    """Nanoseconds since 1970."""
    end: int
    resource: dict[str, Any]


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def received(span: Span, resource: Resource | None = None) -> Received:
    """Return what a span's message says."""
    return Received(
        span.name,
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        _values(span.attributes),
        span.status.code == span.status.STATUS_CODE_ERROR,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        {} if resource is None else _values(resource.attributes),
    )


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield received(span, of_resource.resource)


class Receiver:
    """An OTLP receiver at `url`, as a context manager."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        """The status of its answers."""
        self.may_answer = threading.Event()
        """While this is clear, no request is answered."""
        self.may_answer.set()
        self.request_count = 0
        """The number of requests so far."""
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self._requests: list[ExportTraceServiceRequest] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                receiver.request_count += 1
                receiver.may_answer.wait()
                if receiver.status == 200:
                    receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                    receiver.bodies.append(body)
                    receiver._requests.append(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                with suppress(ConnectionError):  # the client has stopped waiting
                    self.send_response(receiver.status)
                    self.send_header("content-type", "application/x-protobuf")
                    self.send_header("content-length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self, trace: str | None = None) -> list[Received]:
        """Return the spans received, or those of one trace, ordered by start."""
        found = [span for request in list(self._requests) for span in _spans(request)]
        return sorted((span for span in found if trace in {None, span.trace}), key=lambda span: span.begin)


def collector_program() -> Path | None:
    """Return the path of the collector's program; None if it does not exist for this machine."""
    found = importlib.util.find_spec("rotel")
    return None if found is None or found.origin is None else Path(found.origin).with_name("rotel-agent")


@contextmanager
def collector(receiver: Receiver, folder: Path) -> Iterator[str]:
    """Run a third-party collector as a process, and yield its URL. It forwards everything to `receiver`."""
    program = collector_program()
    assert program is not None
    http, grpc = free_port(), free_port()
    log = folder / "collector.txt"
    command = [
        *(str(program), "start", "--otlp-http-endpoint", f"127.0.0.1:{http}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"),
        *("--otlp-exporter-endpoint", receiver.url, "--otlp-exporter-protocol", "http", "--batch-timeout", "100ms"),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
    try:
        block_until(lambda: _listens(http) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{http}"
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    return f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()
