"""Draws the trace in the guide: one streamed REST call through a whole gateway, from the spans that arrived.

    python -m tests.bench.trace_picture        # writes docs/images/trace.svg

The client is traced too, and the provider answers like a model: after a while, and then in pieces.
"""

from __future__ import annotations

import asyncio
import tempfile
from html import escape
from pathlib import Path
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import inject
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, use_span

from tests.e2e.conftest import READY, Gateway
from tests.odd_upstream import LAST, OddUpstream, Pause, Step, chunk, delta, head, sse
from tests.otlp import Received, Receiver
from tests.waiting import until

PICTURE: Final = Path(__file__).parents[2] / "docs" / "images" / "trace.svg"

MODEL: Final = "gpt-4o-mini"
WORDS: Final = ("An", "antiphon", "is", "sung", "call", "and", "response", ".")
USAGE: Final = {"prompt_tokens": 20, "completion_tokens": len(WORDS), "total_tokens": 20 + len(WORDS)}

UNSAMPLED: Final = {"traceparent": f"00-{1:032x}-{1:016x}-00"}

WIDTH, LEFT, RIGHT, TOP, ROW = 960, 24, 24, 56, 96
SMALL: Final = ' font-size="11"'
COLOURS: Final = {"app": "#7c8a9e", "antiphon": "#2f6fbb"}
ATTRIBUTES: Final = (
    *("antiphon.route", "antiphon.cost_usd", "rpc.response.status_code", "gen_ai.provider.name", "gen_ai.usage.input_tokens"),
    *("gen_ai.usage.output_tokens", "gen_ai.response.time_to_first_chunk", "error.type"),
)


async def spans() -> list[Received]:
    """Make the call, and return its spans in order."""
    steps: list[Step] = [Pause(0.3), head()]
    for word in WORDS:
        steps += [chunk(sse(delta(f"{word} "))), Pause(0.06)]
    steps += [chunk(sse(delta(finish="stop"), {**delta(), "choices": [], "usage": USAGE}, "[DONE]")), LAST]
    with Receiver() as receiver, tempfile.TemporaryDirectory() as folder:
        app = TracerProvider(resource=Resource({"service.name": "app"}), shutdown_on_exit=False)
        app.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
        async with OddUpstream() as upstream:
            upstream.script(MODEL, steps)
            config = {
                "traces": {"endpoint": receiver.url},
                "providers": {"openai": {"base_url": upstream.base_url, "models": [MODEL]}},
                "auth": {"keys": [{"name": "app", "key_env": "TEST_KEY"}]},
            }
            gateway = Gateway(Path(folder), config)
            try:
                await asyncio.to_thread(gateway.wait_for, READY)
                body = {"model": MODEL, "messages": [{"role": "user", "content": "What is an antiphon?"}], "stream": True}
                async with gateway.client() as http:

                    async def call(headers: dict[str, str]) -> None:
                        (await http.post("/chat/completions", json=body, headers=headers)).raise_for_status()

                    await call(UNSAMPLED)  # connections are open then, as they usually are
                    with use_span(app.get_tracer("app").start_span("POST", kind=SpanKind.CLIENT), end_on_exit=True):
                        inject(headers := dict[str, str]())
                        await call(headers)
            finally:
                await asyncio.to_thread(gateway.stop)
        app.force_flush()
        await until(lambda: len(receiver.spans()) == 3)
        return receiver.spans()


def svg(found: list[Received]) -> str:
    """Return the spans as bars over time, each with its attributes."""
    begin, end = found[0].begin, max(span.end for span in found)

    def x(time: float) -> float:
        return round(LEFT + (time - begin) / (end - begin) * (WIDTH - LEFT - RIGHT), 1)

    def text(at: float, y: float, words: str, style: str = "") -> str:
        return f'<text x="{at}" y="{y}"{style}>{escape(words)}</text>'

    height = TOP + ROW * len(found)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif" font-size="13" fill="#222">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for mark in range(0, int((end - begin) / 1e6) + 1, 200):
        at = x(begin + mark * 1e6)
        drawn.append(f'<line x1="{at}" y1="32" x2="{at}" y2="{height}" stroke="#e4e8ee"/>')
        drawn.append(text(at, 22, f"{mark} ms", f'{SMALL} fill="#667" text-anchor="{"middle" if mark else "start"}"'))
    for row, span in enumerate(found):
        y = TOP + ROW * row
        service = span.resource["service.name"]
        colour = COLOURS[service]
        kind = span.kind.lower()
        took = f"{(span.end - span.begin) / 1e6:.1f} ms"
        drawn.append(text(x(span.begin), y - 6, f"{service}: {span.name}  ({kind}, {took})", ' font-weight="600"'))
        wide = max(round(x(span.end) - x(span.begin), 1), 2)
        drawn.append(f'<rect x="{x(span.begin)}" y="{y}" width="{wide}" height="20" rx="3" fill="{colour}"/>')
        if first := span.attributes.get("gen_ai.response.time_to_first_chunk"):
            at = x(span.begin + first * 1e9)
            drawn.append(f'<line x1="{at}" y1="{y}" x2="{at}" y2="{y + 20}" stroke="#fff" stroke-width="2"/>')
            drawn.append(text(at + 6, y + 15, "first token", f'{SMALL} fill="#fff"'))
        attributes = [f"{name} = {_written(span.attributes[name])}" for name in ATTRIBUTES if name in span.attributes]
        ids = [f"span {span.span}", f"parent {span.parent}" if span.parent else f"trace {span.trace}"]
        for line, words in enumerate([ids, attributes[:3], attributes[3:]]):
            drawn.append(text(x(span.begin), y + 35 + 15 * line, ",  ".join(words), f'{SMALL} fill="#556"'))
    return "\n".join([*drawn, "</svg>", ""])


def _written(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(svg(asyncio.run(spans())), encoding="utf-8")
