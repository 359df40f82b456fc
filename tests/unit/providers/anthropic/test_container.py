"""The container that a conversation uses again."""

import pytest

from antiphon.domain.content import JsonObject, Message, Origin, Role, Text
from antiphon.domain.request import ChatRequest
from antiphon.providers.anthropic.container import container_of

OWN = Origin("anthropic", "acme", "claude", "acme")
LATER = {"id": "c2", "expires_at": "2999-01-01T00:00:00Z"}


def reply(container: object, origin: Origin | None = OWN) -> Message:
    fields: JsonObject = {} if container is None else {"container": container}
    return Message(Role.ASSISTANT, (Text("x"),), origin=origin, fields=fields)


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([], None),
        ([reply({"id": "c1"})], "c1"),
        ([reply({"id": "c1"}), reply(LATER), reply(None)], "c2"),
        ([reply(LATER), reply({"id": "c1", "expires_at": "2020-01-01T00:00:00Z"})], None),
        ([reply({"id": "c1", "expires_at": "some day"})], "c1"),
        ([reply({"id": "c1", "expires_at": "2020-01-01T00:00:00"})], "c1"),
        ([reply(LATER, Origin("anthropic", "other"))], None),
        ([reply(LATER, None)], None),
        ([reply("odd")], None),
        ([reply({"id": 1})], None),
    ],
)
def test_the_latest_one_is_used(replies: list[Message], expected: str | None) -> None:
    """It is that of this provider's latest reply that had one, unless it has expired."""
    assert container_of(ChatRequest("claude", tuple(replies), stream=True), "acme") == expected
