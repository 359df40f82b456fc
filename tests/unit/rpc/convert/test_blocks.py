"""Property test of converting a message to the typed API and back."""

from hypothesis import assume, example, given
from msgspec.structs import replace

from antiphon import domain
from antiphon.domain.content import FUNCTION_CALL
from antiphon.rpc.convert.blocks import message_to_proto
from antiphon.rpc.convert.request import messages_from_proto
from antiphon.v1 import message_pb2
from tests.unit.blocks import EVERY, messages


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


def _as_told(block: domain.Block) -> domain.Block:
    """Return the block with None for empty texts, because protobuf does not tell unset from empty."""
    if block.state is not None and block.state.opaque == "":
        block = replace(block, state=replace(block.state, opaque=None))
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
    assert messages_from_proto([sent]) == (expected,)
