"""Writes deployments as protobuf."""

from __future__ import annotations

from datetime import datetime

from antiphon.routing.candidate import Candidate
from antiphon.routing.deployment import Deployment
from antiphon.rpc.convert.reply import time_to_proto
from antiphon.v1 import admin_pb2


def deployment_to_proto(deployment: Deployment, until: datetime | None, now: float) -> admin_pb2.Deployment:
    """Return the state of a deployment. `until` is when it is in use again, `now` is the time of the monotonic clock."""
    return admin_pb2.Deployment(
        name=deployment.name,
        in_flight=deployment.in_flight,
        queued=deployment.queued,
        drained=deployment.drained,
        drained_until=None if until is None else time_to_proto(until),
        tripped_until=None if deployment.tripped is None or not deployment.is_tripped else time_to_proto(deployment.tripped),
        models=[_model(candidate, now) for candidate in deployment.candidates()],
    )


def _model(candidate: Candidate, now: float) -> admin_pb2.Deployment.Model:
    return admin_pb2.Deployment.Model(
        model=candidate.model,
        breaker=candidate.breaker.refresh(now),
        wait_seconds=candidate.wait(now),
        first_token_seconds=candidate.first_token.value,
        failed_share=candidate.failures.at(now),
    )
