"""Tests of the log line of a call."""

from structlog.testing import capture_logs

from antiphon.domain.call import Call
from antiphon.domain.errors import ProviderRateLimited
from antiphon.domain.events import Usage
from antiphon.domain.principal import Principal
from antiphon.domain.trace import TraceContext
from antiphon.telemetry.call_log import CallLog


def test_the_line_has_all_that_is_known_of_a_chat() -> None:
    """The line of a chat has owner, route, tokens, cost, time to first token and trace id."""
    call = Call(
        caller=Principal("ann", owner="acme"),
        method="ChatService/Generate",
        route="smart",
        usage=Usage(12, 3, 15),
        cost_usd=0.25,
        first_token=0.0421,
        trace=TraceContext("0a" * 16, "b7" * 8, 0),
    )
    with capture_logs() as lines:
        CallLog().ended(call, "OK", None)
    (line,) = lines
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "call",
        "log_level": "info",
        "method": "ChatService/Generate",
        "code": "OK",
        "owner": "acme",
        "route": "smart",
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "cost_usd": 0.25,
        "first_token_ms": 42.1,
        "trace_id": "0a" * 16,
    }


def test_the_line_of_a_refused_call_has_its_reason_and_no_empty_fields() -> None:
    """The line of a refused call has its reason, and no fields without a value."""
    with capture_logs() as lines:
        CallLog().ended(Call(method="m"), "RESOURCE_EXHAUSTED", ProviderRateLimited("Busy.", provider="p"))
    assert lines[0].keys() == {"event", "log_level", "method", "code", "reason", "duration_ms"}
