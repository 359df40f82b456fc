"""Property test of a reply that goes to a client of the chat API and comes back in its next request."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from antiphon import domain
from antiphon.domain.content import CUSTOM, FUNCTION, FUNCTION_CALL
from antiphon.rest.shared.content import MessageBody, message_of
from antiphon.rest.shared.message_json import message_json
from tests.unit.blocks import texts

ORIGIN: Final = domain.Origin("openai-chat", "up.eu", "m", "up.eu")
ELSEWHERE: Final = domain.Origin("openai-chat", "else", "m", "else")
"""Of a block whose client had it from another provider."""

words: Final = st.text("aé ", min_size=1, max_size=4)
signed: Final = st.none() | st.builds(domain.State, words, origin=st.sampled_from([None, ELSEWHERE]))
calls: Final = st.builds(domain.ToolCall, words, words, texts, st.sampled_from([FUNCTION, CUSTOM]), state=signed)
pictures: Final = st.builds(domain.Image, st.builds(domain.Media, words))
sounds: Final = st.builds(domain.Audio, st.just(domain.Media()), words, words.map("la{}".format), st.none() | st.integers(1, 2**40))


@st.composite
def replies(draw: st.DrawFn) -> domain.Message:
    """Draw a reply in the order that the API keeps, with at most one text, one thought and one refusal."""
    blocks: list[domain.Block] = []
    if draw(st.booleans()):
        blocks.append(domain.Thinking(draw(words), draw(st.sampled_from(["", "reasoning"])), state=draw(signed)))
    blocks += draw(st.lists(st.builds(domain.RedactedThinking, state=words.map(domain.State)), max_size=2))
    text = draw(st.none() | st.builds(domain.Text, words, state=signed))
    blocks += [] if text is None else [text]
    blocks += draw(st.lists(st.builds(domain.Refusal, words), max_size=1))
    blocks += draw(st.lists(sounds, max_size=1))
    blocks += draw(st.lists(pictures, max_size=2))
    blocks += draw(st.lists(calls, max_size=2))
    if draw(st.booleans()):
        blocks.append(domain.ToolCall("", draw(words), draw(texts), FUNCTION_CALL))
    return domain.Message(domain.Role.ASSISTANT, tuple(blocks), origin=ORIGIN)


def with_origin(block: domain.Block) -> domain.Block:
    """Return the block as it comes back, with the origin in its state."""
    if block.state is None:
        return block
    return replace(block, state=replace(block.state, origin=block.state.origin or ORIGIN))


def without_entry(block: domain.Block) -> domain.Block:
    """Return the block without the fields that the API's entry of a thought adds."""
    return block if block.state is None else replace(block, state=replace(block.state, fields={}))


@given(replies())
def test_a_reply_comes_back(reply: domain.Message) -> None:
    """Every block comes back unchanged, and its opaque values have their origin."""
    body = MessageBody.model_validate(message_json(reply))
    back = message_of(body, ())
    assert tuple(map(without_entry, back.blocks)) == tuple(map(with_origin, reply.blocks))
    assert (back.extra, back.listed) == ({}, False)
