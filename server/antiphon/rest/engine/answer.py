"""Replies of the engine dialect: one object, plain text, or chunk objects.

The specification is the one that `antiphon.rest.engine.servicer` names.
"""

from __future__ import annotations

import time
from typing import Any, Final

from antiphon import domain
from antiphon.domain.content import FUNCTION_CALL
from antiphon.domain.reply import Reply
from antiphon.rest.engine.request import EngineChat
from antiphon.rest.openai import reply as openai_reply
from antiphon.rest.openai.delta import DeltaFields, merged
from antiphon.rest.shared.json import JSON, dumps
from antiphon.rest.shared.reply_text import ReplyTextStream, reply_text_or_arguments

TEXT: Final = "text/plain; charset=utf-8"

MAX_REPEATED_BYTES: Final = 256 * 1024
"""The most bytes of a request that the last chunk repeats. It repeats them twice, and LLMstudio 1.0 cannot read a chunk of about
1 MiB."""

_END_TOKEN_FORMATS: Final = {
    "input_tokens": "",
    "output_tokens": "",
    "cost_usd": "",
    "latency_s": ".5f",
    "time_to_first_token_s": ".5f",
    "inter_token_latency_s": ".5f",
    "tokens_per_second": ".2f",
}
"""The metrics that LLMstudio 0.3 writes after its end token, and their formats."""


def completion(reply: Reply, chat: EngineChat) -> dict[str, Any]:
    """Return the documented JSON object of a whole reply, with the documented nulls and order.

    `chat` has the parts of the request that the answer repeats, such as its id and parameters.
    """
    assert reply.started is not None, "a stream that ended well has started"
    written = openai_reply.completion(reply)["choices"]
    choices = [
        _choice(choice, _reason(ended.reason, ended.provider_reason, function_call=openai_reply.has_function_call(ended)), chat)
        for choice, ended in zip(written, reply.choices, strict=True)
    ]
    return {
        "id": chat.id,
        "choices": choices,
        "created": reply.started.created,
        "model": chat.model_name(reply.started),
        "object": "chat.completion",
        "system_fingerprint": None,
        "usage": None,
        "session_id": chat.session_id,
        "chat_input": chat.chat_input,
        "chat_output": reply_text_or_arguments(reply.choices[0]),
        "context": chat.context,
        "provider": chat.provider,
        "timestamp": time.time(),
        "parameters": chat.parameters,
        "metrics": metrics(reply.usage, reply.metrics),
    }


def _choice(choice: dict[str, Any], reason: str, chat: EngineChat) -> dict[str, Any]:
    written = choice["message"]
    calls = {name: written.get(name) for name in ("function_call", "tool_calls")}
    message = {"content": written["content"], "role": "assistant", **calls}
    message |= {name: value for name, value in written.items() if name not in message and value is not None}
    if chat.has_functions and message["tool_calls"]:  # the caller uses the function API of 2023
        message |= {"function_call": message["tool_calls"][0]["function"], "tool_calls": None}
        reason = FUNCTION_CALL if reason == "tool_calls" else reason
    return {"finish_reason": reason, "index": choice["index"], "logprobs": choice["logprobs"], "message": message}


def _reason(reason: domain.FinishReason, provider_reason: str, *, function_call: bool) -> str:
    """Return why a choice ended, in a word of the OpenAI API: the clients refuse a reply with another word, or none."""
    if reason is domain.FinishReason.OTHER:
        return domain.FinishReason.STOP.value
    return openai_reply.finish_reason(reason, provider_reason, function_call=function_call) or domain.FinishReason.STOP.value


def metrics(usage: domain.Usage | None, measured: domain.Metrics | None) -> dict[str, Any]:
    """Return the metrics of a call: tokens, cost in USD, and times in seconds."""
    assert usage is not None, "the chat service sends the usage of every call"
    assert measured is not None, "and its metrics"
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "cost_usd": measured.cost_usd,
        "latency_s": measured.latency,
        "time_to_first_token_s": measured.time_to_first_token,
        "inter_token_latency_s": measured.inter_token_latency,
        "tokens_per_second": measured.chunks / measured.latency if measured.latency > 0 else None,
    }


class TextWriter:
    """Writes the text of the first choice only. Its pieces add up to the `chat_output` of a whole reply."""

    content_type = TEXT
    comment = b""

    def __init__(self, *, end_token: bool) -> None:
        self._end_token = end_token
        self._reply = Reply()
        self._text_stream = ReplyTextStream()
        self._first_choice_blocks: set[int] = set()
        """The numbers of the first choice's blocks."""

    def write(self, batch: domain.Batch) -> bytes:
        pieces: list[str] = []
        for event in batch:
            match event:
                case domain.Usage() | domain.Metrics():
                    self._reply.add(event)
                case domain.BlockStarted(choice=0):
                    self._first_choice_blocks.add(event.block)
                    pieces.append(self._text_stream.text_or_arguments(event))
                case domain.TextDelta() | domain.RefusalDelta() | domain.MediaDelta() | domain.InputDelta():
                    if event.block in self._first_choice_blocks:
                        pieces.append(self._text_stream.text_or_arguments(event))
                case _:
                    pass
        return "".join(pieces).encode()

    def end(self) -> bytes:
        if not self._end_token:
            return b""
        found = metrics(self._reply.usage, self._reply.metrics)
        return b",".join(
            (b"<END_TOKEN>", *(f"{name}={_end_token_value(name, found[name])}".encode() for name in _END_TOKEN_FORMATS))
        )


class EngineChunkWriter:
    """Writes one `chat.completion.chunk` object for each batch: the 1.x clients read each piece of the transfer as one object."""

    content_type = JSON
    comment = b""

    def __init__(self, chat: EngineChat) -> None:
        self._chat = chat
        self._reply = Reply()
        self._text_stream = ReplyTextStream()
        self._deltas = DeltaFields()
        self._choices: dict[int, int] = {}
        """The choice of each block, by the number of the block."""

    def write(self, batch: domain.Batch) -> bytes:
        choices: dict[int, dict[str, Any]] = {}
        texts: list[str] = []
        if self._deltas.has_places:
            self._deltas.count(batch)
        for event in batch:
            self._reply.add(event)
            match event:
                case domain.Started():
                    self._deltas.set_origin(event.origin)
                    if self._deltas.has_places:
                        self._deltas.count(batch)
                    continue
                case domain.BlockStarted():
                    index = self._choices[event.block] = event.choice
                case domain.Finished():
                    index = event.choice
                case domain.ExtraFields() if event.choice is not None:
                    index = event.choice
                case domain.ExtraFields() | domain.DeltaGroup() | domain.Usage() | domain.Metrics():
                    continue
                case _:
                    index = self._choices[event.block]
            choice = choices.get(index)
            if choice is None:
                delta: dict[str, Any] = {"role": "assistant", "content": None}
                choice = choices[index] = {"delta": delta, "finish_reason": None, "index": index, "logprobs": None}
            if index == 0:
                texts.append(self._text_stream.text(event))
            self._write(event, choice)
        return self._chunk([choices[index] for index in sorted(choices)], "".join(texts)) if choices else b""

    def _write(self, event: domain.Event, choice: dict[str, Any]) -> None:
        """Add an event to its choice. The clients know only text, refusals and tool calls."""
        delta = choice["delta"]
        match event:
            case domain.TextDelta():
                delta["content"] = (delta["content"] or "") + event.text
            case domain.RefusalDelta():
                delta["refusal"] = delta.get("refusal", "") + event.text
            case domain.BlockStarted() | domain.InputDelta() | domain.BlockFinished():
                calls = (self._deltas.fields_of(event) or {}).get("tool_calls")
                if calls:
                    delta |= merged({"tool_calls": delta.get("tool_calls", [])}, {"tool_calls": calls})
            case domain.Finished():
                function_call = event.choice in self._deltas.function_call_choices
                choice["finish_reason"] = _reason(event.reason, event.provider_reason, function_call=function_call)
            case _:
                pass

    def end(self) -> bytes:
        return b""

    def _chunk(self, choices: list[dict[str, Any]], text: str) -> bytes:
        """Return a chunk. Only the last one repeats the request, and only if the request is not long."""
        started = self._reply.started
        assert started is not None, "it is the first event"
        chat = self._chat
        last = self._reply.metrics is not None
        repeats = last and len(dumps(chat.context)) <= MAX_REPEATED_BYTES
        return dumps(
            {
                "id": chat.id,
                "choices": choices,
                "created": started.created,
                "model": chat.model_name(started),
                "object": "chat.completion.chunk",
                "system_fingerprint": None,
                "chat_input": chat.chat_input if repeats else None,
                "chat_output": reply_text_or_arguments(self._reply.choices[0]) if last else None,
                "chat_output_stream": text,
                "context": chat.context if repeats else None,
                "provider": chat.provider,
                "timestamp": time.time(),
                "parameters": chat.parameters if last else None,
                "metrics": metrics(self._reply.usage, self._reply.metrics) if last else None,
            }
        )


def _end_token_value(name: str, value: float | None) -> str:
    return "null" if value is None else format(value, _END_TOKEN_FORMATS[name])
