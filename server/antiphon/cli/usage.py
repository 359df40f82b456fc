"""What was used of a running gateway, as seen from a terminal: a client of its AdminService.

Raises `grpc.aio.AioRpcError`, and `UnicodeError` for a text that is not UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.markup import escape
from rich.table import Table

from antiphon.cli.client import metadata_of
from antiphon.cli.console import print_json, print_table
from antiphon.cli.keys_client import ask
from antiphon.v1 import admin_pb2

_PAGE: Final = 1000
_COLUMNS: Final = {
    "requests": "requests",
    "prompt tokens": "prompt_tokens",
    "completion tokens": "completion_tokens",
    "USD": "cost_usd",
    "without a price": "unpriced_requests",
}


def show(address: str, key: str, first: str, last: str, owner: str, *, as_json: bool) -> None:
    """Shows what was used from `first` to `last`, days as in 2026-11-25, of one owner or of all, and the sum."""
    days = list(_read(address, key, admin_pb2.GetUsageRequest(first_day=first, last_day=last, owner=owner, page_size=_PAGE)))
    if as_json:
        fields = admin_pb2.DailyUsage.DESCRIPTOR.fields
        found = [{field.name: getattr(day, field.name) for field in fields} for day in days]
        print_json({"days": found})
        return
    table = Table("day", "owner", show_footer=True)
    table.columns[0].footer = "total"
    for title, field in _COLUMNS.items():
        table.add_column(title, footer=_figure(sum(getattr(day, field) for day in days)), justify="right")
    for day in days:
        table.add_row(day.day, escape(day.owner), *(_figure(getattr(day, field)) for field in _COLUMNS.values()))
    print_table(table)


def _read(address: str, key: str, request: admin_pb2.GetUsageRequest) -> Iterator[admin_pb2.DailyUsage]:
    while True:
        page: admin_pb2.GetUsageResponse = ask(address, lambda stub: stub.GetUsage(request, metadata=metadata_of(key)))
        yield from page.days
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _figure(figure: float) -> str:
    return f"{figure:,.4f}" if isinstance(figure, float) else f"{figure:,}"
