"""The commands `antiphon owners ...`: export and removal of all data of one owner."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from rich.markup import escape

from antiphon.cli.client import connect, metadata_of
from antiphon.cli.console import ADDRESS, AddressOption, JsonOption, KeyOption, out, print_json, rpc_errors_reported
from antiphon.cli.keys_client import call_admin
from antiphon.v1 import admin_pb2, admin_pb2_grpc

owners = typer.Typer(no_args_is_help=True, help="Export or erase all that a gateway keeps of an owner. Needs an admin's key.")

OwnerArgument = Annotated[
    str, typer.Argument(metavar="OWNER", help="The owner, as `antiphon keys list` and `antiphon usage` show it.")
]


@owners.command()
def export(owner: OwnerArgument, address: AddressOption = ADDRESS, key: KeyOption = "") -> None:
    """Print all that is kept of an owner, as JSON Lines: conversations, messages, keys, usage, audit events.

    Example: antiphon owners export team-a > team-a.jsonl
    """

    async def copy() -> None:
        async with connect(address) as channel:
            request = admin_pb2.ExportOwnerRequest(owner=owner)
            async for part in admin_pb2_grpc.AdminServiceStub(channel).ExportOwner(request, metadata=metadata_of(key)):
                sys.stdout.buffer.write(part.lines)

    with rpc_errors_reported(address):
        asyncio.run(copy())
        sys.stdout.buffer.flush()


@owners.command()
def erase(
    owner: OwnerArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    as_json: JsonOption = False,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Remove all that is kept of an owner, its keys first. Cannot be undone."""
    if not yes:
        typer.confirm(f"Remove all that is kept of {owner!r}, and end its keys?", abort=True, err=True)
    with rpc_errors_reported(address):
        request = admin_pb2.EraseOwnerRequest(owner=owner)
        answer: admin_pb2.EraseOwnerResponse = call_admin(address, lambda stub: stub.EraseOwner(request, metadata=metadata_of(key)))
        if as_json:
            print_json({field.name: getattr(answer, field.name) for field in answer.DESCRIPTOR.fields})
            return
        counts = (f"{getattr(answer, field.name)} {field.name.replace('_', ' ')}" for field in answer.DESCRIPTOR.fields)
        out.print(f"Removed what was kept of {escape(owner)}: {', '.join(counts)}.", soft_wrap=True)
