"""Blocks of thinking in replies that LiteLLM passes on."""

from typing import Any

from antiphon.domain.reply import Reply
from antiphon.domain.request import ChatRequest
from antiphon.providers.openai.litellm import UnsignedThinking
from antiphon.providers.openai.response import OpenAIReader
from tests.odd_upstream import delta, sse


def piece(text: str, signature: str | None) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, **({} if signature is None else {"signature": signature})}


def test_a_block_of_thinking_continues_until_its_signature() -> None:
    """Its pieces have no index: all up to a signature are one block."""
    pieces = [("H", ""), ("m", ""), ("", "sig"), ("Oh", ""), ("", "sig2")]
    chunks = [delta(None, thinking_blocks=[piece(*one)]) for one in pieces]
    reader = OpenAIReader(ChatRequest("m", (), stream=True), "acme")
    reply = Reply()
    for event in [*reader.feed(sse(*chunks, delta("Hello", "stop"), "[DONE]")), *reader.end()]:
        reply.add(event)
    assert reply.message().fields == {"thinking_blocks": [piece("Hm", "sig"), piece("Oh", "sig2")]}


def test_other_lists_are_left_alone() -> None:
    """What has no signature field, or an index, is no such block; each field is read by itself."""
    open_blocks = UnsignedThinking()
    assert open_blocks.read({"a": [piece("x", None)], "b": [{**piece("x", ""), "index": 0}], "c": [piece("x", "")]}) == frozenset()
    again = {"a": [piece("y", None)], "b": [{**piece("y", ""), "index": 0}], "c": [piece("y", "s")], "d": [piece("y", "")]}
    assert open_blocks.read(again) == {"c"}
    assert open_blocks.read({"c": [piece("z", "")], "d": [], "e": "text"}) == frozenset()
