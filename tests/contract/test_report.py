"""The usage report, on SQLite and on a real PostgreSQL."""

from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime

import pytest
import pytest_asyncio

from antiphon.auth.api_keys.store import Grants, KeyStore
from antiphon.auth.audit import CallOrigin
from antiphon.database.base import Database
from antiphon.database.open import open_database
from antiphon.domain.errors import InvalidRequest
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal, Scope
from antiphon.limits.ledger import MODELS, OTHER, Ledger
from antiphon.limits.report import DailyUse, Dimension, UsageReport

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 3)


@pytest_asyncio.fixture
async def database(url: str) -> AsyncGenerator[Database, None]:
    """Yield a database with usage of three days and the day before, by two owners, one of them with two keys."""
    opened = open_database(url)
    for day in (datetime(2026, 10, 31, tzinfo=UTC), *(datetime(2026, 11, number, 12, tzinfo=UTC) for number in (1, 2, 3))):
        ledger = Ledger(opened, day.timestamp)
        for owner, key in (("acme", "key:1"), ("acme", "key:2"), ("Zoë & co", "key:3")):
            ledger.add(Principal(key, owner=owner, id=key), Usage(10, 5, 15), 0.25)
        ledger.add(Principal("key:1", owner="acme", id="key:1"), Usage(1, 1, 2), None)
        await ledger.write()
    yield opened
    await opened.close()


async def test_it_reports_by_day_and_owner(database: Database) -> None:
    """The report is by day and owner, the newest day first, and only for days in the range."""
    page = await UsageReport(database).page(FIRST, LAST, size=50)
    assert page.next_token == ""
    assert [(use.day.day, use.owner) for use in page.uses if use.owner == "acme"] == [(3, "acme"), (2, "acme"), (1, "acme")]
    assert len(page.uses) == 6
    assert DailyUse(LAST, "acme", 3, 21, 11, 0.5, 1) in page.uses
    assert DailyUse(LAST, "Zoë & co", 1, 10, 5, 0.25, 0) in page.uses


@pytest.mark.parametrize("size", [1, 2, 4, 5])
async def test_pages_are_the_whole(database: Database, size: int) -> None:
    """The pages together have each entry once and in order."""
    report = UsageReport(database)
    whole = (await report.page(FIRST, LAST, size=50)).uses
    found: list[DailyUse] = []
    token = ""
    while True:
        page = await report.page(FIRST, LAST, size=size, token=token)
        assert len(page.uses) <= size
        found += page.uses
        token = page.next_token
        if not token:
            break
    assert tuple(found) == whole


async def test_of_one_owner(database: Database) -> None:
    """A report of one owner has only its entries."""
    report = UsageReport(database)
    page = await report.page(FIRST, LAST, size=50, owner="Zoë & co")
    assert {use.owner for use in page.uses} == {"Zoë & co"}
    assert len(page.uses) == 3
    for nobody in ("ACME", "acm", "a%", "a\0b", "' OR 1=1 --"):
        assert (await report.page(FIRST, LAST, size=50, owner=nobody)).uses == ()


async def test_a_token_is_for_the_list_that_gave_it(database: Database) -> None:
    """A page token is refused with other filters, and if it is forged."""
    report = UsageReport(database)
    token = (await report.page(FIRST, LAST, size=1)).next_token
    with pytest.raises(InvalidRequest):
        await report.page(FIRST, LAST, size=1, token=token, owner="acme")
    with pytest.raises(InvalidRequest):
        await report.page(date(2026, 10, 1), LAST, size=1, token=token)
    for forged in ("x", "W10", "é", token[:-4]):
        with pytest.raises(InvalidRequest):
            await report.page(FIRST, LAST, size=1, token=forged)


MODELLED = [("azure", "gpt-4o", 2.0), ("openai", "gpt-4o", 1.0), ("openai", "gpt-4o-mini", 0.5)]
"""Provider, model, and the cost of one call in USD."""


@pytest_asyncio.fixture
async def modelled(database: Database) -> UsageReport:
    """Return a report with usage by model on two days, by two keys of different owners."""
    for day in (2, 3):
        ledger = Ledger(database, datetime(2026, 11, day, 13, tzinfo=UTC).timestamp)
        for provider, model, cost in MODELLED:
            ledger.add(Principal("m", owner="modern", id="key:m"), Usage(100, 10, 110), cost, provider, model)
        ledger.add(Principal("n", owner="new", id="static:n"), Usage(100, 10, 110), 2.0, "azure", "gpt-4o")
        ledger.add(Principal("n", owner="new", id="static:n"), None, None, "gemini.test")
        await ledger.write()
    return UsageReport(database)


async def test_it_reports_by_model_and_provider(modelled: UsageReport) -> None:
    """Usage without a model, as an earlier version wrote it, has an empty model, and the total equals that by day."""
    by_model = (await modelled.page(FIRST, LAST, size=50, by={Dimension.MODEL, Dimension.PROVIDER})).uses
    assert [(use.provider, use.model, use.requests, use.cost_usd) for use in by_model] == [
        ("", "", 12, 3 * 3 * 0.25),
        ("azure", "gpt-4o", 4, 8.0),
        ("gemini.test", "", 2, 0.0),
        ("openai", "gpt-4o", 2, 2.0),
        ("openai", "gpt-4o-mini", 2, 1.0),
    ]
    assert {(use.day, use.owner, use.key) for use in by_model} == {(None, "", "")}
    by_day = (await modelled.page(FIRST, LAST, size=50, by={Dimension.DAY})).uses
    assert [use.day for use in by_day] == [LAST, date(2026, 11, 2), FIRST]
    for field in ("requests", "prompt_tokens", "completion_tokens", "cost_usd", "unpriced"):
        assert sum(getattr(use, field) for use in by_day) == sum(getattr(use, field) for use in by_model)


async def test_it_reports_by_deployment(database: Database) -> None:
    """A deployment has its own usage, and its provider has that of all its deployments."""
    ledger = Ledger(database, datetime(2026, 11, 2, 13, tzinfo=UTC).timestamp)
    for deployment, cost in (("openai/east", 1.0), ("openai/west", 2.0), ("openai/open-ai", 3.0), ("azure", 4.0)):
        ledger.add(Principal("m", owner="by-deployment", id="key:m"), Usage(1, 1, 2), cost, deployment, "m")
    await ledger.write()
    report = UsageReport(database)
    by = {Dimension.PROVIDER, Dimension.DEPLOYMENT}
    both = (await report.page(FIRST, LAST, size=50, owner="by-deployment", by=by)).uses
    assert [(use.provider, use.deployment, use.cost_usd) for use in both] == [
        ("azure", "azure", 4.0),
        ("openai", "openai/east", 1.0),
        ("openai", "openai/open-ai", 3.0),
        ("openai", "openai/west", 2.0),
    ]
    whole = (await report.page(FIRST, LAST, size=50, owner="by-deployment", by={Dimension.PROVIDER})).uses
    assert [(use.provider, use.deployment, use.requests, use.cost_usd) for use in whole] == [
        ("azure", "", 1, 4.0),
        ("openai", "", 3, 6.0),
    ]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    "by",
    [set(Dimension) - {Dimension.TAG}, {Dimension.MODEL}, {Dimension.DAY}, {Dimension.KEY, Dimension.MODEL}],
    ids=lambda by: "-".join(sorted(by)),
)
async def test_pages_are_the_whole_for_any_grouping(modelled: UsageReport, by: set[Dimension], size: int) -> None:
    """For any grouping, the pages together have each entry once and in order."""
    whole = (await modelled.page(FIRST, LAST, size=50, by=by)).uses
    found: list[DailyUse] = []
    token = ""
    while len(found) < 50:
        page = await modelled.page(FIRST, LAST, size=size, token=token, by=by)
        found += page.uses
        token = page.next_token
        if not token:
            break
    assert tuple(found) == whole
    names = [(use.owner, use.key, use.provider, use.model) for use in whole if use.day == whole[0].day]
    assert names == sorted(names)


async def test_an_owner_has_no_more_than_its_own_by_model(modelled: UsageReport) -> None:
    """A report of one owner by key and model has only its own."""
    page = await modelled.page(FIRST, LAST, size=50, owner="new", by={Dimension.KEY, Dimension.MODEL})
    assert [(use.key, use.model, use.requests) for use in page.uses] == [("static:n", "", 2), ("static:n", "gpt-4o", 2)]
    token = (await modelled.page(FIRST, LAST, size=1, owner="new", by={Dimension.MODEL})).next_token
    for other in ({"owner": "modern", "by": {Dimension.MODEL}}, {"owner": "new", "by": {Dimension.PROVIDER}}):
        with pytest.raises(InvalidRequest):
            await modelled.page(FIRST, LAST, size=1, token=token, **other)  # type: ignore[arg-type]


async def test_a_stored_key_has_its_name(database: Database) -> None:
    """A stored key is reported with its name while it exists."""
    key, _ = await KeyStore(database).create(
        name="web", owner="", grants=Grants((Scope.CHAT,)), expires=None, origin=CallOrigin("a", "b", "c")
    )
    ledger = Ledger(database, datetime(2026, 11, 3, tzinfo=UTC).timestamp)
    ledger.add(Principal("web", owner="web", id=f"key:{key.id}"), None, None, "p", "m")
    await ledger.write()
    uses = (await UsageReport(database).page(LAST, LAST, size=50, by={Dimension.KEY})).uses
    assert {use.key: use.key_name for use in uses} == {"key:1": "", "key:2": "", "key:3": "", f"key:{key.id}": "web"}


async def test_a_caller_does_not_fill_the_table_with_models(database: Database) -> None:
    """Beyond a maximum of models per key and day, calls are counted in one row for all others."""
    now = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
    ledger = Ledger(database, lambda: now)
    caller = Principal("x", owner="x", id="key:x")
    for number in range(3 * MODELS):
        ledger.add(caller, None, None, "any", f"made-up-{number}")
        if number % 50 == 0:
            await ledger.write()
    ledger.add(caller, None, None, "any", "made-up-7")
    await ledger.write()
    now += 86400
    ledger.add(caller, None, None, "any", "another")
    await ledger.write()
    first, second = date(2026, 11, 20), date(2026, 11, 21)
    report = UsageReport(database)
    found = {use.model: use.requests for use in (await report.page(first, first, size=500, by={Dimension.MODEL})).uses}
    assert len(found) == MODELS + 1
    assert (found[OTHER], found["made-up-7"]) == (2 * MODELS, 2)
    assert [use.model for use in (await report.page(second, second, size=500, by={Dimension.MODEL})).uses] == ["another"]


async def test_it_reports_by_tag(database: Database) -> None:
    """Usage by tag can be combined with day, owner and key, but not with models. Usage without tags is omitted."""
    ledger = Ledger(database, datetime(2026, 11, 2, 13, tzinfo=UTC).timestamp)
    for key, tags in (("key:1", {"team": "search", "feature": "x"}), ("key:2", {"team": "search"})):
        ledger.add(Principal(key, owner="acme", id=key), Usage(10, 5, 15), 0.25, tags=tags)
    await ledger.write()
    report = UsageReport(database)
    whole = await report.page(FIRST, LAST, size=50, by={Dimension.TAG})
    assert whole.uses == (
        DailyUse(None, "", 1, 10, 5, 0.25, 0, tag="feature=x"),
        DailyUse(None, "", 2, 20, 10, 0.5, 0, tag="team=search"),
    )
    first = await report.page(FIRST, LAST, size=1, by={Dimension.TAG})
    second = await report.page(FIRST, LAST, size=1, by={Dimension.TAG}, token=first.next_token)
    assert first.uses + second.uses == whole.uses
    page = await report.page(FIRST, LAST, size=50, owner="acme", by={Dimension.DAY, Dimension.KEY, Dimension.TAG})
    assert [(use.day and use.day.day, use.key, use.tag) for use in page.uses] == [
        (2, "key:1", "feature=x"),
        (2, "key:1", "team=search"),
        (2, "key:2", "team=search"),
    ]
    for other in (Dimension.MODEL, Dimension.PROVIDER):
        with pytest.raises(InvalidRequest):
            await report.page(FIRST, LAST, size=50, by={Dimension.TAG, other})
