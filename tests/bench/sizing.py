"""Computes the size of an installation for a load from the figures of `capacity`: the tables of docs/guide/sizing.md. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

MB: Final = 1e6
RATES: Final = (100, 1_000, 10_000, 100_000)
STREAMS: Final = (1_000, 10_000, 100_000, 1_000_000)
LEAST: Final = 3
"""The fewest replicas of any installation, so that one may fail while another is replaced."""

BEGIN: Final = "<!-- measured: begin"
END: Final = "<!-- measured: end -->"


class Cost(msgspec.Struct, frozen=True):
    """Milliseconds of CPU time, by process."""

    worker: float
    edge: float
    database: float = 0.0
    redis: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Return the sum."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Cost(*(one + two for one, two in pairs))

    def __mul__(self, count: float) -> Cost:
        """Return the cost times `count`."""
        return Cost(*(one * count for one in msgspec.structs.astuple(self)))

    def above(self, other: Cost) -> Cost:
        """Return the difference to another cost, at least 0."""
        return Cost(*(max(0.0, one) for one in msgspec.structs.astuple(self + other * -1)))

    @property
    def total(self) -> float:
        """Return the sum of all processes."""
        return self.worker + self.edge + self.database + self.redis


class Memory(msgspec.Struct, frozen=True):
    """Bytes."""

    worker: float
    edge: float

    @property
    def total(self) -> float:
        """Return the memory of a replica."""
        return self.worker + self.edge


class Figures(msgspec.Struct, frozen=True):
    """The figures measured of one replica."""

    machine: str
    json: Cost
    """A call that neither streams nor is recorded."""
    grpc: Cost
    direct: Cost
    """A gRPC call without the edge."""
    burst: Cost
    """A token of a stream without pauses."""
    paced: Cost
    """A token that arrives alone."""
    waiting: Cost
    """One second of a thousand streams whose provider is silent."""
    sqlite: Cost
    """The additional cost of a recorded turn."""
    postgres: Cost
    kept: Cost
    """The additional cost of one second of a stream recorded in PostgreSQL."""
    redis: Cost
    """The additional cost of limits in Redis, for each call."""
    statements: float
    """Statements of a turn in PostgreSQL; the next three are of a turn too."""
    commits: float
    stored: float
    """Bytes of tables and indexes."""
    logged: float
    """Bytes of the write-ahead log."""
    asked: float
    """Requests to Redis of a call with limits."""
    database_connections: int
    redis_connections: int
    at_rest: Memory
    at_work: Memory
    """After thousands of calls and streams: memory is kept for later ones."""
    waiting_streams: Memory
    """The additional memory of a thousand silent streams; `paced_streams`: of a thousand with a token a second."""
    paced_streams: Memory


class Plan(msgspec.Struct, frozen=True):
    """The requirements on an installation."""

    price: float = 0.04
    """USD for an hour of one core, with its memory."""
    busy: float = 0.5
    """The share of a core in use at the peak of a day."""
    tokens: int = 300
    """Tokens of a reply."""
    pace: float = 50.0
    """Tokens per second of a stream."""
    connections: int = 10
    """Connections of a replica to PostgreSQL: `database.connections`."""
    streams: int = 1_000
    """Streams of a replica at the same time: half of `limits.calls_per_worker`."""

    @property
    def seconds(self) -> float:
        """Return the duration of a streamed reply."""
        return self.tokens / self.pace


def streamed(figures: Figures, plan: Plan) -> Cost:
    """Return the cost of a streamed reply, recorded in PostgreSQL, with limits in Redis."""
    return figures.json + figures.redis + figures.postgres + figures.paced * plan.tokens + figures.kept * plan.seconds


def plain(figures: Figures) -> Cost:
    """Return the cost of a JSON call with limits in Redis that is not recorded."""
    return figures.json + figures.redis


def replicas(cost: Cost, rate: float, streams: float, plan: Plan) -> int:
    """Return the number of replicas needed, each with one core for its worker."""
    return max(LEAST, math.ceil(rate * cost.worker / 1000 / plan.busy), math.ceil(streams / plan.streams))


def usd(cost: Cost, plan: Plan) -> float:
    """Return the price of a million requests."""
    return 1e6 * cost.total / 1000 / 3600 / plan.busy * plan.price


def block(figures: Figures, plan: Plan) -> str:
    """Return the generated part of the page, with its marks."""
    figures, plan = (msgspec.convert(msgspec.to_builtins(each), type(each)) for each in (figures, plan))  # 1 becomes 1.0
    lines = [
        f"{BEGIN} {msgspec.json.encode({'figures': figures, 'plan': plan}).decode()} -->",
        f"Measured on {figures.machine}, by `python -m tests.bench.capacity`.",
        "",
        *_costs(figures),
        "",
        *_others(figures),
        "",
        f"**One replica**, whose worker uses {plan.busy:.0%} of its core, and what stands behind it, used as much:",
        "",
        *_capacity(figures, plan),
        "",
        f"**Streamed, recorded, limited.** Each request streams {plan.tokens} tokens at {plan.pace:g} a second, is recorded in",
        f"PostgreSQL, and has limits in Redis. Cores are used to {plan.busy:.0%}; a core hour costs {plan.price:g} USD.",
        "",
        *_rates(figures, plan),
        "",
        "**JSON calls**, limited in Redis, not recorded:",
        "",
        *_plain(figures, plan),
        "",
        f"**Streams at once**, not recorded: {plan.pace:g} tokens a second each, or silent while they wait for the model.",
        "",
        *_streams(figures, plan),
        END,
    ]
    return "\n".join(lines)


def read(text: str) -> tuple[Figures, Plan]:
    """Return the figures and the plan that a page was generated from. Raises `ValueError` for a text without them."""
    encoded = text.partition(BEGIN)[2].partition(" -->\n")[0]
    found = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    return msgspec.json.decode(found["figures"], type=Figures), msgspec.json.decode(found["plan"], type=Plan)


def replace(text: str, made: str) -> str:
    """Return the page with its generated part replaced."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"has no {BEGIN} … {END}")
    return before + made + after


def _costs(figures: Figures) -> Iterator[str]:
    rows = [
        ("JSON call", figures.json, 1, "ms"),
        ("gRPC call through Envoy", figures.grpc, 1, "ms"),
        ("gRPC call past Envoy", figures.direct, 1, "ms"),
        ("token of a stream without a pause", figures.burst, 1000, "us"),
        (f"token of one of many streams, {PACE:g} a second each", figures.paced, 1000, "us"),
        ("1,000 streams that wait for a model, a second", figures.waiting, 1, "ms"),
        ("turn in SQLite: on top of its call", figures.sqlite, 1, "ms"),
        ("turn in PostgreSQL: on top", figures.postgres, 1, "ms"),
        ("second of a stream recorded in PostgreSQL: on top", figures.kept, 1000, "us"),
        ("limits in Redis: on top", figures.redis, 1000, "us"),
    ]
    yield from _table(
        ["CPU of a", "worker", "Envoy", "PostgreSQL", "Redis"],
        [[name, *(f"{_round(part * by)} {unit}" for part in msgspec.structs.astuple(cost))] for name, cost, by, unit in rows],
    )


PACE: Final = 50.0
"""Tokens per second of the measured streams."""


def _others(figures: Figures) -> Iterator[str]:
    memory = [
        ("at rest", figures.at_rest),
        ("after 1,000 streams at once and thousands of calls", figures.at_work),
        ("on top for 1,000 streams that wait", figures.waiting_streams),
        ("on top for 1,000 streams with a token a second", figures.paced_streams),
    ]
    yield from _table(
        ["memory (PSS)", "worker", "Envoy"], [[n, f"{m.worker / MB:.0f} MB", f"{m.edge / MB:.0f} MB"] for n, m in memory]
    )
    yield ""
    yield from _table(
        ["a turn in PostgreSQL", "", "a replica under load", ""],
        [
            ["statements", f"{figures.statements:.1f}", "connections to PostgreSQL", str(figures.database_connections)],
            ["commits", f"{figures.commits:.1f}", "connections to Redis", str(figures.redis_connections)],
            ["tables and indexes", f"{figures.stored / 1000:.1f} kB", "round trips to Redis of a call", f"{figures.asked:.1f}"],
            ["write-ahead log", f"{figures.logged / 1000:.1f} kB", "", ""],
        ],
    )


def _capacity(figures: Figures, plan: Plan) -> Iterator[str]:
    def of(milliseconds: float, digits: int = 2) -> str:
        return f"{float(f'{plan.busy * 1000 / milliseconds:.{digits}g}'):,.0f}" if milliseconds > 0 else "-"

    yield from _table(
        ["one of", "a second", "of what"],
        [
            ["replica", of(figures.json.worker), "JSON calls"],
            ["replica", of(figures.grpc.worker), "gRPC calls"],
            ["replica", of(figures.paced.worker), f"tokens, {PACE:g} a second in each stream"],
            ["replica", of(figures.burst.worker), "tokens that come as fast as they can"],
            ["replica", of((figures.json + figures.postgres).worker), "JSON calls recorded in PostgreSQL"],
            ["replica", of(streamed(figures, plan).worker), f"streams of {plan.tokens} tokens, recorded and limited"],
            ["core of PostgreSQL", of(figures.postgres.database), "turns"],
            ["Redis, which uses one core", of(figures.redis.redis), "calls with limits"],
        ],
    )


def _rates(figures: Figures, plan: Plan) -> Iterator[str]:
    cost = streamed(figures, plan)
    rows = []
    for rate in RATES:
        streams = rate * plan.seconds
        count = replicas(cost, rate, streams, plan)
        memory = count * figures.at_rest.total + streams / 1000 * figures.paced_streams.total
        rows.append(
            [
                f"{rate:,}",
                f"{streams:,.0f}",
                f"{count:,}",
                _cores(rate * (cost.worker + cost.edge), plan),
                _gigabytes(memory),
                f"{count * plan.connections:,}",
                _cores(rate * cost.database, plan),
                _gigabytes(1e6 * figures.stored),
                _cores(rate * cost.redis, plan),
                f"{usd(cost, plan):.2f}",
            ]
        )
    yield from _table(
        [
            "requests/s",
            "streams at once",
            "replicas",
            "cores, with Envoy",
            "memory",
            "connections to PgBouncer",
            "PostgreSQL's cores",
            "its disk a million turns",
            "Redis' cores",
            "USD a million requests",
        ],
        rows,
    )


def _plain(figures: Figures, plan: Plan) -> Iterator[str]:
    cost = plain(figures)
    rows = [
        [
            f"{rate:,}",
            f"{replicas(cost, rate, 0, plan):,}",
            _cores(rate * (cost.worker + cost.edge), plan),
            _gigabytes(replicas(cost, rate, 0, plan) * figures.at_work.total),
            _cores(rate * cost.redis, plan),
            f"{usd(cost, plan):.2f}",
        ]
        for rate in RATES
    ]
    yield from _table(
        ["requests/s", "replicas", "cores, with Envoy", "memory", "Redis' cores", "USD a million requests"],
        rows,
    )


def _streams(figures: Figures, plan: Plan) -> Iterator[str]:
    rows = []
    for count in STREAMS:
        row = [f"{count:,}"]
        for cost, held in (
            (figures.paced * plan.pace, figures.paced_streams),
            (figures.waiting * (1 / 1000), figures.waiting_streams),
        ):
            needed = replicas(cost, count, count, plan)
            memory = needed * figures.at_rest.total + count / 1000 * held.total
            row += [f"{needed:,}", _cores(count * (cost.worker + cost.edge), plan), _gigabytes(memory)]
        rows.append(row)
    yield from _table(["streams", "replicas", "cores", "memory", "silent: replicas", "cores", "memory"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _cores(milliseconds: float, plan: Plan) -> str:
    """Return the cores needed for so many milliseconds of CPU time per second."""
    return f"{_round(milliseconds / 1000 / plan.busy)}"


def _gigabytes(size: float) -> str:
    return f"{_round(size / 1e9)} GB"


def _round(value: float) -> str:
    """Return a figure with its reliable digits: two, or a whole number."""
    if value <= 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(value)))
    return f"{round(value, digits):,.{digits}f}" if value < 100 else f"{float(f'{value:.2g}'):,.0f}"
