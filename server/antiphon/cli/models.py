"""The command `antiphon models`: the models of a running gateway, with what is known of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import typer
from google.protobuf.message import Message
from rich.markup import escape
from rich.table import Table

from antiphon.cli import client
from antiphon.cli.console import ADDRESS, AddressOption, JsonOption, KeyOption, out, print_json, print_table, rpc_errors_reported
from antiphon.v1 import models_pb2

_PRICES: Final = ("input", "cached_input", "cache_write", "cache_write_1h", "audio_input", "output", "audio_output")


def models(
    provider: Annotated[str, typer.Option(metavar="NAME", help="Only the models of this provider.")] = "",
    as_json: JsonOption = False,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """List the models of a running gateway.

    "context" and "reply" are the most tokens of a prompt and of a reply, prices are in USD per million tokens. A "+" marks a price
    that is another one for long prompts; --json shows all prices.
    """
    with rpc_errors_reported(address):
        found = asyncio.run(client.models(address, key))
    found = [model for model in found if provider in ("", model.provider)]
    if as_json:
        print_json({"models": [_fields(model) for model in found]})
        return
    print_table(_table(found), lambda: _print_narrow(found))


def _table(found: Sequence[models_pb2.Model]) -> Table:
    """Return a table, without the columns for which nothing is known of any model."""
    columns = {
        "context": [_size(model, "context_tokens") for model in found],
        "reply": [_size(model, "max_output_tokens") for model in found],
        "reads": [" ".join(_words(model.input_modalities)) for model in found],
        "writes": [" ".join(_words(model.output_modalities)) for model in found],
        "USD in": [_price(model, "input") for model in found],
        "USD out": [_price(model, "output") for model in found],
    }
    known = {title: cells for title, cells in columns.items() if any(cells)}
    table = Table("model", "provider")
    for title in known:
        table.add_column(title, justify="left" if title in {"reads", "writes"} else "right", no_wrap=True)
    table.add_column("default")
    for number, model in enumerate(found):
        cells = (cells[number] for cells in known.values())
        table.add_row(escape(model.name), escape(model.provider), *cells, "yes" if model.is_default else "")
    return table


def _print_narrow(found: Iterable[models_pb2.Model]) -> None:
    """Print two lines for each model: its name, and what is known of it."""
    for model in found:
        out.print(f"[bold]{escape(model.name)}[/]" + ("  (default)" if model.is_default else ""), soft_wrap=True)
        prices = [_price(model, "input"), _price(model, "output")]
        facts = (
            model.provider,
            f"context {_size(model, 'context_tokens')}" if model.HasField("context_tokens") else "",
            f"reads {' '.join(_words(model.input_modalities))}" if model.input_modalities else "",
            f"USD {prices[0]} in, {prices[1]} out" if all(prices) else "",
        )
        out.print(f"  {escape(' · '.join(filter(None, facts)))}", soft_wrap=True)


def _size(model: models_pb2.Model, field: str) -> str:
    """Return a number of tokens as providers write it, such as 128K and 1M; empty if it is not known."""
    tokens: int | None = _known(model, field)
    if tokens is None:
        return ""
    for unit, size in (("M", 1_000_000), ("M", 1_048_576), ("K", 1_000), ("K", 1_024)):
        if tokens >= size and tokens % size == 0:
            return f"{tokens // size}{unit}"
    return f"{tokens / 1_000_000:.1f}M" if tokens >= 1_000_000 else f"{tokens / 1_000:.0f}K" if tokens >= 1_000 else str(tokens)


def _words(found: Iterable[int]) -> list[str]:
    return [_word(modality) for modality in found]


def _word(modality: int) -> str:
    """Return the word for a modality; "other" for one that a newer gateway knows."""
    try:
        return models_pb2.Modality.DESCRIPTOR.values_by_number[modality].name.removeprefix("MODALITY_").lower()
    except KeyError:
        return "other"


def _price(model: models_pb2.Model, field: str) -> str:
    price: float | None = _known(model.prices, field)
    if price is None:
        return ""
    differs = any(getattr(tier.prices, field) != price for tier in model.prices.tiers)
    return f"{price:.4f}".rstrip("0").rstrip(".") + ("+" if differs else "")


def _fields(model: models_pb2.Model) -> dict[str, Any]:
    """Return the JSON form of a model. What is not known is null."""
    created = model.create_time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ") if model.HasField("create_time") else None
    return {
        "name": model.name,
        "provider": model.provider,
        "is_default": model.is_default,
        "provider_model": model.provider_model,
        "title": model.title or None,
        "create_time": created,
        "context_tokens": _known(model, "context_tokens"),
        "max_output_tokens": _known(model, "max_output_tokens"),
        "input_modalities": _words(model.input_modalities) or None,
        "output_modalities": _words(model.output_modalities) or None,
        "prices": _price_fields(model.prices) if model.HasField("prices") else None,
    }


def _price_fields(prices: models_pb2.ModelPrices) -> dict[str, Any]:
    tiers = [{"above_tokens": tier.above_tokens, **_numbers(tier.prices)} for tier in prices.tiers]
    return {**_numbers(prices), "tiers": tiers}


def _numbers(prices: models_pb2.ModelPrices) -> dict[str, float | None]:
    return {field: _known(prices, field) for field in _PRICES}


def _known(message: Message, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None
