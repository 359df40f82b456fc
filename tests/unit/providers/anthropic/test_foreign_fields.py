"""Fields that chat completions and Anthropic's API have both, with other values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.request import ChatRequest
from antiphon.providers.anthropic.request import encode
from antiphon.providers.parameters import Parameters


@pytest.mark.parametrize(
    ("extra", "sent", "warned"),
    [
        ({"metadata": {"session": "x"}}, {}, ["metadata"]),
        ({"metadata": {"user_id": "u", "session": "x"}}, {"metadata": {"user_id": "u"}}, ["metadata"]),
        ({"metadata": {"user_id": "u"}}, {"metadata": {"user_id": "u"}}, []),
        ({"service_tier": "flex"}, {}, ["service_tier"]),
        ({"service_tier": "default"}, {}, []),
        ({"service_tier": "standard_only"}, {"service_tier": "standard_only"}, []),
    ],
)
def test_only_values_that_the_api_has_are_sent(extra: dict[str, Any], sent: dict[str, Any], warned: list[str]) -> None:
    parameters = Parameters("p")
    request = ChatRequest("claude-sonnet-4-5", (Message(Role.USER, (Text("Hi"),)),), stream=False, extra=extra)
    body = json.loads(encode(request, "p", parameters))
    assert {name: body[name] for name in ("metadata", "service_tier") if name in body} == sent
    assert [warning.path[-1] for warning in parameters.warnings] == warned
