"""Property test of converting a message to the typed API and back."""

from hypothesis import assume, example, given
from msgspec.structs import replace

from antiphon import domain
from antiphon.domain.content import FUNCTION_CALL
from antiphon.rpc.convert.blocks import message_to_proto, origin_to_proto
from antiphon.rpc.convert.request import messages_from_proto
from antiphon.v1 import message_pb2
from tests.unit.blocks import EVERY, messages, texts


def _taken(block: domain.Block) -> bool:
    """Return whether a client may send this block: calls need an id and a name."""
    match block:
        case domain.ToolCall():
            return bool((block.id or block.type == FUNCTION_CALL) and block.name)
        case domain.ToolResult():
            return bool(block.tool_call_id or block.type == FUNCTION_CALL) and all(map(_taken, block.blocks))
        case domain.Audio():
            return block.media != domain.Media() or bool(block.id or block.transcript)
        case _:
            return True


def _origin(origin: domain.Origin | None) -> domain.Origin | None:
    """Return the origin with the name of a deployment in its own field alone."""
    if origin is None or "/" not in origin.provider:
        return origin
    return replace(origin, provider=origin.provider_name, deployment=origin.deployment or origin.provider)


def _as_told(block: domain.Block) -> domain.Block:
    """Return the block with None for empty texts, because protobuf does not tell unset from empty."""
    if block.state is not None:
        state = replace(block.state, opaque=block.state.opaque or None, origin=_origin(block.state.origin))
        block = replace(block, state=state)
    match block:
        case domain.Document():
            return replace(block, filename=block.filename or None, title=block.title or None)
        case domain.ToolResult():
            return replace(block, blocks=tuple(map(_as_told, block.blocks)))
        case _:
            return block


@example(EVERY)
@given(messages)
def test_a_message_comes_back(message: domain.Message) -> None:
    """Any message comes back unchanged, but for `listed`, which only the OpenAI API has."""
    assume(all(map(_taken, message.blocks)))
    sent = message_pb2.Message.FromString(message_to_proto(message).SerializeToString())
    expected = replace(message, blocks=tuple(map(_as_told, message.blocks)), name=message.name or None, listed=False)
    assert messages_from_proto([sent]) == (replace(expected, origin=_origin(expected.origin)),)


@example("p", "p/east", "p/east")
@example("p/east", "", "p/west")
@given(texts, texts, texts)
def test_an_origin_that_came_back_is_the_same_place(provider: str, deployment: str, other: str) -> None:
    """`provider` is the provider's name alone, and the deployment is what it was: state goes back there, and to no other."""
    made = domain.Origin("openai-chat", provider, "m", deployment)
    sent = origin_to_proto(made)
    assert "/" not in sent.provider
    back = domain.Origin(sent.protocol, sent.provider, sent.model, sent.deployment)
    there = domain.Origin("openai-chat", other, "m", other)
    assert back.is_at(made) or provider.startswith("/")
    assert back.is_at(there) == made.is_at(there) or provider.startswith("/")
