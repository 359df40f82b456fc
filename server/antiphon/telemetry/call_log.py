"""The log line of each call, written once, when the call ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import structlog

from antiphon.domain.call import Call, Observer
from antiphon.domain.errors import AntiphonError
from antiphon.domain.events import AttemptReport


class CallLog(Observer):
    """The observer that writes the log line of each call."""

    def __init__(self) -> None:
        self._log = structlog.get_logger(__name__).bind()  # a logger that is not bound is bound for each line

    def ended(self, call: Call, code: str, error: AntiphonError | None) -> None:
        """Write the line of `call`, with every field that is known. `code` is the name of its gRPC status.

        Request id, key, provider and model are not set here: they are on every log line of a call anyway.
        """
        fields: dict[str, Any] = {}
        if error is not None:
            fields["reason"] = error.reason
        if call.caller.owner:
            fields["owner"] = call.caller.owner
        if call.tags:
            fields["tags"] = call.tags
        if call.route:
            fields["route"] = call.route
        if call.attempts:
            _add_attempts(call.attempts, fields, call.provider)
        usage, cost = (call.total_usage, call.total_cost_usd) if call.failed_uses else (call.usage, call.cost_usd)
        if usage is not None:
            fields["prompt_tokens"] = usage.input_tokens
            fields["completion_tokens"] = usage.output_tokens
            fields["cost_usd"] = cost
        if call.warnings:
            fields["warnings"] = len(call.warnings)
        if call.first_token is not None:
            fields["first_token_ms"] = round(call.first_token * 1000, 1)
        if call.trace is not None:
            fields["trace_id"] = call.trace.trace_id
        duration = round((time.monotonic() - call.started_at) * 1000, 1)
        self._log.info("call", method=call.method, code=code, duration_ms=duration, **fields)


def _add_attempts(attempts: Sequence[AttemptReport], fields: dict[str, Any], provider: str) -> None:
    """Add what was tried: the deployment, if its provider has several, and all attempts, if there was more than one."""
    last = attempts[-1]
    if last.deployment != provider:
        fields["deployment"] = last.deployment
    waited = last.waited
    if len(attempts) > 1:
        fields["attempts"] = [f"{attempt.deployment}: {attempt.outcome}" for attempt in attempts]
        waited = sum(attempt.waited for attempt in attempts)
    if waited:
        fields["waited_ms"] = round(waited * 1000, 1)
