"""The commands `antiphon keys ...`: the API keys of a running gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from antiphon.cli import keys_client
from antiphon.cli.console import ADDRESS, AddressOption, KeyOption, rpc_told

keys = typer.Typer(no_args_is_help=True, help="API keys of a running gateway. Asks for an admin's key.")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `list` shows it.")]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is called.")],
    owner: Annotated[str, typer.Option(help="Whose the conversations and the spending are. None: the name.")] = "",
    scope: Annotated[list[str] | None, typer.Option(help="chat, history, proxy, engine, admin. None: all but admin.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model, or a pattern with *. None: all.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="Days that it is good for. None: for ever.")] = None,
    requests: Annotated[int | None, typer.Option(min=0, help="Requests a minute.")] = None,
    tokens: Annotated[int | None, typer.Option(min=0, help="Tokens a minute.")] = None,
    streams: Annotated[int | None, typer.Option(min=0, help="Calls at once.")] = None,
    daily_usd: Annotated[float | None, typer.Option(min=0, help="What may be spent in a day.")] = None,
    monthly_usd: Annotated[float | None, typer.Option(min=0, help="What may be spent in a month.")] = None,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Make a key. Its secret is shown now, and never again."""
    if unknown := sorted(set(scope or ()) - keys_client.SCOPES):
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(sorted(keys_client.SCOPES))}", param_hint="--scope")
    quota = {
        "requests_per_minute": requests,
        "tokens_per_minute": tokens,
        "concurrent_streams": streams,
        "daily_usd": daily_usd,
        "monthly_usd": monthly_usd,
    }
    with rpc_told(address):
        keys_client.create(address, key, name, owner, scope or [], model or [], days, quota)


@keys.command("list")
def list_(
    owner: Annotated[str, typer.Option(help="Only those of this owner.")] = "",
    revoked: Annotated[bool, typer.Option("--revoked", help="Those that are revoked as well.")] = False,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """List the keys, the newest first."""
    with rpc_told(address):
        keys_client.show(address, key, owner, revoked=revoked)


@keys.command()
def revoke(id_: IdArgument, address: AddressOption = ADDRESS, key: KeyOption = "") -> None:
    """End a key for good: in force everywhere within two seconds."""
    with rpc_told(address):
        keys_client.revoke(address, key, id_)


@keys.command()
def rotate(
    id_: IdArgument,
    overlap: Annotated[float, typer.Option(min=0, help="Hours for which the old secret is still good, at most 168.")] = 0,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Give a key another secret. It is shown now, and never again."""
    with rpc_told(address):
        keys_client.rotate(address, key, id_, overlap)
