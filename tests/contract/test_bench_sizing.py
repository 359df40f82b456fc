"""The calculation of the tables in docs/guide/sizing.md."""

from pathlib import Path

import pytest

from tests.bench import sizing
from tests.bench.sizing import Cost, Figures, Memory, Plan

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "sizing.md"

FIGURES = Figures(
    machine="2 cores",
    json=Cost(1, 0.25),
    grpc=Cost(1, 0.25),
    direct=Cost(1, 0),
    burst=Cost(0.01, 0.002),
    paced=Cost(0.1, 0.03),
    waiting=Cost(10, 5),
    sqlite=Cost(1, 0),
    postgres=Cost(2, 0, 3),
    kept=Cost(0.5, 0, 1),
    redis=Cost(0.5, 0, 0, 0.2),
    statements=7,
    commits=3,
    stored=4000,
    logged=5000,
    asked=2,
    database_connections=10,
    redis_connections=32,
    at_rest=Memory(100e6, 80e6),
    at_work=Memory(120e6, 150e6),
    waiting_streams=Memory(50e6, 60e6),
    paced_streams=Memory(60e6, 70e6),
)
PLAN = Plan(price=0.036, busy=0.5, tokens=100, pace=50)


def test_the_page_is_made_of_the_figures_that_it_has() -> None:
    """The page's tables follow from its figures; `python -m tests.bench.capacity --reckon` generates them."""
    page = PAGE.read_text(encoding="utf-8")
    assert sizing.replace(page, sizing.block(*sizing.read(page))) == page


def test_a_block_can_be_read_and_replaced() -> None:
    """A written block reads back to the same figures, and replacing it keeps the text around it."""
    made = sizing.block(FIGURES, PLAN)
    assert sizing.read(made) == (FIGURES, PLAN)
    assert sizing.replace(f"before\n{sizing.BEGIN} -->\nold\n{sizing.END}\nafter\n", made) == f"before\n{made}\nafter\n"
    with pytest.raises(ValueError, match="has no"):
        sizing.replace("a page without one", made)


def test_a_streamed_answer_costs_all_of_its_parts() -> None:
    """The cost of a streamed answer includes the call, limits, a turn, each token, and each recorded second."""
    cost = sizing.streamed(FIGURES, PLAN)
    assert cost == Cost(*(pytest.approx(part) for part in (1 + 0.5 + 2 + 100 * 0.1 + 2 * 0.5, 0.25 + 100 * 0.03, 3 + 2 * 1, 0.2)))
    # Half a core is used: 22.95 s of CPU for a thousand are 45.9 core seconds, of 0.036 / 3600 USD each.
    assert sizing.usd(cost, PLAN) == pytest.approx(1e3 * 45.9 * 0.036 / 3600)


@pytest.mark.parametrize(
    ("rate", "streams", "wanted"),
    [(1, 1, sizing.LEAST), (1000, 10, 200), (1000, 500_000, 500)],
    ids=["three at the least", "by CPU", "by streams"],
)
def test_there_are_replicas_enough(rate: float, streams: float, wanted: int) -> None:
    """The number of replicas covers CPU use, streams, and a failure."""
    assert sizing.replicas(Cost(100, 0), rate, streams, PLAN) == wanted


def test_a_cost_is_never_negative() -> None:
    """If something measures cheaper with a feature than without, the feature's cost is zero, not negative."""
    assert Cost(1, 2).above(Cost(0.5, 3)) == Cost(0.5, 0)
