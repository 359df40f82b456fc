"""Tests of the fields of deltas."""

import pytest

from antiphon import domain
from antiphon.rest.openai.delta import DeltaFields
from antiphon.rest.openai.reply import completion
from antiphon.rest.shared.message_json import message_json
from tests.unit.framing import folded

FIELDS: domain.JsonObject = {"container": {"id": "c1"}}


@pytest.mark.parametrize(("protocol", "is_written"), [("openai-chat", True), ("", True), ("anthropic", False), ("gemini", False)])
def test_fields_of_a_message_stay_with_their_protocol(protocol: str, is_written: bool) -> None:
    """Fields that a provider adds to the message are written if its API is this one: a caller might send them to another."""
    origin = domain.Origin(protocol, "acme")
    started, fields = domain.Started("id", "m", origin, 1), domain.ExtraFields(0, FIELDS)
    deltas = DeltaFields()
    deltas.set_origin(origin)
    assert deltas.fields_of(fields) == (FIELDS if is_written else None)
    reply = folded(started, fields, domain.Finished(0, domain.FinishReason.STOP, "stop"))
    assert ("container" in completion(reply)["choices"][0]["message"]) is is_written
    stored = reply.message()
    assert stored.fields == FIELDS
    assert ("container" in message_json(stored)) is is_written
