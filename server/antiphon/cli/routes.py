"""The commands `antiphon routes ...`: the deployments of a running gateway, and taking one out of use or tripping it."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Any, Literal

import typer
from google.protobuf import duration_pb2
from rich.markup import escape
from rich.table import Table

from antiphon.cli.client import metadata_of
from antiphon.cli.console import ADDRESS, AddressOption, JsonOption, KeyOption, out, print_json, print_table, rpc_errors_reported
from antiphon.cli.keys_client import call_admin
from antiphon.v1 import admin_pb2

routes = typer.Typer(no_args_is_help=True, help="Show the deployments of providers, drain one, or trip it. Needs an admin's key.")

DeploymentArgument = Annotated[
    str, typer.Argument(metavar="DEPLOYMENT", help="The deployment, as `antiphon routes list` shows it, such as openai/east.")
]


@routes.command("list")
def list_(as_json: JsonOption = False, address: AddressOption = ADDRESS, key: KeyOption = "") -> None:
    """Show each deployment and model as one worker sees it: the breaker, calls in flight, waits, the time to the first token."""
    with rpc_errors_reported(address):
        request = admin_pb2.ListDeploymentsRequest()
        answer: admin_pb2.ListDeploymentsResponse = call_admin(
            address, lambda stub: stub.ListDeployments(request, metadata=metadata_of(key))
        )
    if as_json:
        print_json({"deployments": [_fields(found) for found in answer.deployments]})
        return
    table = Table("deployment", "in use", "in flight", "queued", "model", "breaker", "wait s", "first token s", "failed %")
    for found in answer.deployments:
        head = [escape(found.name), _use(found), str(found.in_flight), str(found.queued)]
        for model in found.models or [admin_pb2.Deployment.Model()]:
            first = f"{model.first_token_seconds:.2f}" if model.HasField("first_token_seconds") else ""
            wait = f"{model.wait_seconds:.1f}" if model.wait_seconds else ""
            table.add_row(*head, escape(model.model), model.breaker, wait, first, f"{100 * model.failed_share:.0f}")
            head = ["", "", "", ""]
    print_table(table)


@routes.command()
def drain(
    deployment: DeploymentArgument,
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", min=1, help="For how long. Without it: until it is restored.")
    ] = None,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Take a deployment out of use, on every worker and replica within two seconds. Calls in flight go on.

    Example: antiphon routes drain openai/east --for 600
    """
    request = admin_pb2.DrainDeploymentRequest(name=deployment, duration=_duration(seconds))
    with rpc_errors_reported(address):
        call_admin(address, lambda stub: stub.DrainDeployment(request, metadata=metadata_of(key)))
    out.print(f"{escape(deployment)} is out of use{_how_long(seconds)}.", soft_wrap=True)


@routes.command()
def trip(
    deployment: DeploymentArgument,
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", min=1, help="For how long. Without it: a minute.")
    ] = None,
    address: AddressOption = ADDRESS,
    key: KeyOption = "",
) -> None:
    """Open the breakers of a deployment, as if it had failed, on every worker and replica within two seconds.

    Calls in flight go on. After that time a call probes it, and if it works, it comes back slowly.

    Example: antiphon routes trip openai/east --for 30
    """
    request = admin_pb2.TripDeploymentRequest(name=deployment, duration=_duration(seconds))
    with rpc_errors_reported(address):
        call_admin(address, lambda stub: stub.TripDeployment(request, metadata=metadata_of(key)))
    out.print(f"{escape(deployment)} is tripped{_how_long(seconds)}.", soft_wrap=True)


@routes.command()
def restore(deployment: DeploymentArgument, address: AddressOption = ADDRESS, key: KeyOption = "") -> None:
    """Take a deployment into use again: end a drain or a trip."""
    request = admin_pb2.RestoreDeploymentRequest(name=deployment)
    with rpc_errors_reported(address):
        call_admin(address, lambda stub: stub.RestoreDeployment(request, metadata=metadata_of(key)))
    out.print(f"{escape(deployment)} is in use.", soft_wrap=True)


def _duration(seconds: float | None) -> duration_pb2.Duration | None:
    return None if seconds is None else duration_pb2.Duration(seconds=round(seconds))


def _how_long(seconds: float | None) -> str:
    return "" if seconds is None else f" for {round(seconds)} s"


def _use(found: admin_pb2.Deployment) -> str:
    """Return whether a deployment is in use, and what an admin did to it."""
    drained, tripped = _time(found, "drained_until"), _time(found, "tripped_until")
    use = "yes" if not found.drained else "no" if drained is None else f"no until {drained}"
    return use if tripped is None else f"{use}, tripped until {tripped}"


def _time(found: admin_pb2.Deployment, field: Literal["drained_until", "tripped_until"]) -> str | None:
    return getattr(found, field).ToDatetime(UTC).isoformat(timespec="seconds") if found.HasField(field) else None


def _fields(found: admin_pb2.Deployment) -> dict[str, Any]:
    models = [
        {
            "model": model.model,
            "breaker": model.breaker,
            "wait_seconds": model.wait_seconds,
            "first_token_seconds": model.first_token_seconds if model.HasField("first_token_seconds") else None,
            "failed_share": model.failed_share,
        }
        for model in found.models
    ]
    return {
        "name": found.name,
        "in_flight": found.in_flight,
        "queued": found.queued,
        "drained": found.drained,
        "drained_until": _time(found, "drained_until"),
        "tripped_until": _time(found, "tripped_until"),
        "models": models,
    }
