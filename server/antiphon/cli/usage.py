"""The command `antiphon usage`: requests, tokens and cost at a running gateway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from antiphon.cli.client import metadata_of
from antiphon.cli.console import ADDRESS, AddressOption, JsonOption, KeyOption, out, print_json, print_table, rpc_errors_reported
from antiphon.cli.keys_client import call_admin
from antiphon.v1 import admin_pb2

DIMENSIONS: Final = ("day", "owner", "key", "provider", "model", "tag", "deployment")
"""The dimensions by which usage can be grouped, as written on the command line."""

BY_OWNER: Final = ("day", "owner")

_PAGE: Final = 1000
_COLUMNS: Final = {
    "requests": "requests",
    "tokens in": "prompt_tokens",
    "tokens out": "completion_tokens",
    "USD": "cost_usd",
    "unpriced": "unpriced_requests",
}


def usage(
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT", help="day, owner, key, provider, deployment, model, tag; several with commas. Else: day,owner."
        ),
    ] = None,
    since: Annotated[
        str,
        typer.Option("--since", "--from", metavar="DAY", help="The first day, as in 2026-11-01. Without it: the month's first."),
    ] = "",
    until: Annotated[
        str, typer.Option("--until", "--to", metavar="DAY", help="The last day. Without it: today. Days are UTC's.")
    ] = "",
    owner: Annotated[str, typer.Option(metavar="NAME", help="Only the usage of this owner.")] = "",
    as_json: JsonOption = False,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Show requests, tokens and cost. Needs an admin's key.

    Without a day in --by, what cost most comes first. "unpriced" counts requests whose model has no known price, if there are any.

    Example: antiphon usage --by model,key --since 2026-11-01 --until 2026-11-07
    """
    wanted = [dimension.strip() for part in by or () for dimension in part.split(",")]
    if unknown := [dimension for dimension in wanted if dimension not in DIMENSIONS]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(DIMENSIONS)}", param_hint="--by")
    with rpc_errors_reported(address):
        _show(address, key, (since, until), owner, list(dict.fromkeys(wanted)), as_json=as_json)


def _show(address: str, key: str, days: tuple[str, str], owner: str, by: Sequence[str], *, as_json: bool) -> None:
    first, last = days
    dimensions = [admin_pb2.UsageDimension.Value(f"USAGE_DIMENSION_{dimension.upper()}") for dimension in by]
    request = admin_pb2.GetUsageRequest(first_day=first, last_day=last, owner=owner, page_size=_PAGE, group_by=dimensions)
    rows = list(_read(address, key, request))
    by = by or BY_OWNER
    if "day" not in by:
        rows.sort(key=lambda row: (row.cost_usd, row.requests), reverse=True)
    if as_json:
        print_json({"days" if tuple(by) == BY_OWNER else "usage": [_fields(row, by) for row in rows]})
        return
    if not rows and out.is_terminal:
        out.print("No usage on these days. The usage of the last five seconds is not included yet.")
        return
    narrow = _table(rows, [(" · ".join(by), by)])
    print_table(_table(rows, [(dimension, (dimension,)) for dimension in by]), lambda: print_table(narrow))


def _table(rows: Sequence[admin_pb2.DailyUsage], columns: Sequence[tuple[str, Sequence[str]]]) -> Table:
    """Return a table of the rows with their sum. `columns` has the title of each column and the dimensions that it shows."""
    table = Table(show_footer=True)
    for number, (title, _) in enumerate(columns):
        table.add_column(title, footer="" if number else "total", overflow="fold")
    unpriced = any(row.unpriced_requests for row in rows)
    figures = {title: field for title, field in _COLUMNS.items() if unpriced or field != "unpriced_requests"}
    for title, field in figures.items():
        table.add_column(title, footer=_figure(sum(getattr(row, field) for row in rows)), justify="right", no_wrap=True)
    for row in rows:
        names = (" · ".join(_name(row, dimension) for dimension in dimensions) for _, dimensions in columns)
        table.add_row(*map(escape, names), *(_figure(getattr(row, field)) for field in figures.values()))
    return table


def _read(address: str, key: str, request: admin_pb2.GetUsageRequest) -> Iterator[admin_pb2.DailyUsage]:
    while True:
        page: admin_pb2.GetUsageResponse = call_admin(address, lambda stub: stub.GetUsage(request, metadata=metadata_of(key)))
        yield from page.days
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _fields(row: admin_pb2.DailyUsage, by: Sequence[str]) -> dict[str, Any]:
    """Return the JSON form of a row. A key is its id, with its name in `key_name`."""
    names = [name for dimension in by for name in ((dimension, "key_name") if dimension == "key" else (dimension,))]
    return {name: getattr(row, name) for name in (*names, *_COLUMNS.values())}


def _name(row: admin_pb2.DailyUsage, dimension: str) -> str:
    if dimension == "key":
        return row.key_name or row.key or "no key"
    name: str = getattr(row, dimension)
    return name or ("not known" if dimension in {"provider", "model"} else "")


def _figure(figure: float) -> str:
    return f"{figure:,.4f}" if isinstance(figure, float) else f"{figure:,}"
