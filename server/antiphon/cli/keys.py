"""The commands `antiphon keys ...`, for the API keys of a running gateway."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.markup import escape

from antiphon.cli import keys_client, keys_output
from antiphon.cli.console import ADDRESS, AddressOption, JsonOption, KeyOption, print_note, rpc_errors_reported
from antiphon.database.ids import is_id

keys = typer.Typer(
    no_args_is_help=True,
    help="Make, list, revoke and rotate the API keys of a running gateway. Needs an admin's key.",
)

_INT32: Final = 2**31 - 1

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME_OR_ID", help="The key's id, or its name where no other key that is in force has it.")
]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called.")],
    owner: Annotated[
        str, typer.Option(metavar="NAME", help="Who owns its conversations and its spending. Without it: the name.")
    ] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="chat, history, proxy, engine or admin; may be repeated. Without it: all but admin."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="A model, or a pattern with *; may be repeated. Without it: all models."),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0, max=36500, metavar="DAYS", help="Days until it expires. Without it: never.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=0, max=_INT32, metavar="N", help="The most requests a minute.")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=0, max=_INT32, metavar="N", help="The most tokens a minute, in and out.")
    ] = None,
    streams: Annotated[int | None, typer.Option(min=0, max=_INT32, metavar="N", help="The most calls at once.")] = None,
    daily_usd: Annotated[float | None, typer.Option(min=0, metavar="USD", help="The most USD a day (UTC).")] = None,
    monthly_usd: Annotated[float | None, typer.Option(min=0, metavar="USD", help="The most USD a month (UTC).")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="What its calls are for, as in team=search; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Make a key. Its secret is shown once, now.

    Example: antiphon keys create team-a --scope chat --model 'gpt-4o*' --days 90 --requests 600 --daily-usd 20
    """
    if unknown := sorted(set(scope or ()) - keys_client.SCOPES):
        raise typer.BadParameter(f"{unknown[0]} is not one of {', '.join(sorted(keys_client.SCOPES))}", param_hint="--scope")
    if any("=" not in each for each in tag or ()):
        raise typer.BadParameter("a tag is written as name=value", param_hint="--tag")
    tags = dict(each.split("=", 1) for each in tag or ())
    quota = {
        "requests_per_minute": requests,
        "tokens_per_minute": tokens,
        "concurrent_streams": streams,
        "daily_usd": daily_usd,
        "monthly_usd": monthly_usd,
    }
    with rpc_errors_reported(address):
        response = keys_client.create(address, key, name, owner, scope or [], model or [], days, quota, tags)
        keys_output.show_secret(response.key, response.secret, as_json=as_json)


@keys.command("list")
def list_(
    owner: Annotated[str, typer.Option(metavar="NAME", help="Only the keys of this owner.")] = "",
    revoked: Annotated[bool, typer.Option("--revoked", help="Revoked keys as well.")] = False,
    as_json: JsonOption = False,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """List the keys, newest first, with their limits and when each was last used (exact to a minute)."""
    with rpc_errors_reported(address):
        keys_output.show_keys(list(keys_client.list_keys(address, key, owner=owner, revoked=revoked)), as_json=as_json)


@keys.command()
def revoke(
    name: NameArgument,
    as_json: JsonOption = False,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """End a key for good. It is refused everywhere within two seconds."""
    with rpc_errors_reported(address):
        keys_output.show_revoked(keys_client.revoke(address, key, _resolve_id(address, key, name)), as_json=as_json)


@keys.command()
def rotate(
    name: NameArgument,
    overlap: Annotated[
        float, typer.Option(min=0, max=168, metavar="HOURS", help="Hours during which the old secret still works, at most 168.")
    ] = 0,
    as_json: JsonOption = False,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Give a key a new secret, which is shown once, now. Name, limits and owner stay.

    Example, with a day for everybody to change over: antiphon keys rotate team-a --overlap 24
    """
    with rpc_errors_reported(address):
        response = keys_client.rotate(address, key, _resolve_id(address, key, name), overlap)
        keys_output.show_secret(response.key, response.secret, as_json=as_json)


def _resolve_id(address: str, key: str, name: str) -> str:
    """Return the id of the one key with that name. An unknown name is returned unchanged; the gateway then reports it."""
    if not name:
        raise typer.BadParameter("it is empty", param_hint="NAME_OR_ID")  # an empty name would not filter, and list every key
    if is_id(name):
        return name
    found = list(keys_client.list_keys(address, key, name=name))
    if len(found) > 1:
        print_note(f"[bold red]error:[/] {len(found)} keys are called {escape(name)}. Give the id of the one that you mean:")
        for line in keys_output.lines_to_choose_from(found):
            print_note(escape(line))
        raise typer.Exit(1)
    return found[0].id if found else name
