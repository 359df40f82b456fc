"""Write the table of features by provider protocol, which asks the encoders themselves.

    python docs/features.py            # writes docs/reference/providers.md

Each cell is what an encoder does with a request that has one feature: it warns, refuses, or sends it. A test holds the committed
page to what this writes, and checks against the bodies that every cell says the truth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from antiphon.domain.content import Audio, Block, Document, Image, Media, Message, Role, Text, ToolCall, ToolResult, Video
from antiphon.domain.errors import Unsupported
from antiphon.domain.request import (
    AudioOutput,
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NativeFormat,
    Reasoning,
    Sampling,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from antiphon.domain.warnings import Treatment
from antiphon.providers import support
from antiphon.providers.anthropic.request import encode as encode_anthropic
from antiphon.providers.bedrock.request import encode as encode_bedrock
from antiphon.providers.cohere.request import encode as encode_cohere
from antiphon.providers.gemini.request import encode as encode_gemini
from antiphon.providers.openai.capabilities import UNKNOWN, capabilities_of
from antiphon.providers.openai.request import encode as encode_openai
from antiphon.providers.parameters import Parameters
from antiphon.providers.responses.request import encode as encode_responses
from antiphon.providers.support import Option
from antiphon.providers.vertex.request import encode as encode_vertex

_PROVIDER: Final = re.compile(r"^The provider \S+ ")

PAGE: Final = Path(__file__).parent / "reference" / "providers.md"

SCHEMA: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}

BASE: Final = ChatRequest("m", (Message(Role.USER, (Text("hello"),)),), stream=True, tools=(Tool("f", "a tool", SCHEMA),))
"""A request without any option; it has a tool, as some options are about tools."""

_DATA: Final = "data:image/png;base64,iVBORw0KGgo="
"""A picture as data, as some APIs fetch none."""

_SAMPLING: Final[dict[Option, dict[str, Any]]] = {
    support.TEMPERATURE: {"temperature": 0.3},
    support.TOP_P: {"top_p": 0.4},
    support.TOP_K: {"top_k": 5},
    support.MAX_TOKENS: {"max_tokens": 4321},
    support.MAX_COMPLETION_TOKENS: {"max_completion_tokens": 4321},
    support.STOP: {"stop": ("END",)},
    support.PRESENCE_PENALTY: {"presence_penalty": 0.5},
    support.FREQUENCY_PENALTY: {"frequency_penalty": 0.5},
    support.SEED: {"seed": 42},
    support.CHOICES: {"choices": 2},
    support.LOGPROBS: {"logprobs": True},
    support.TOP_LOGPROBS: {"top_logprobs": 3},
    support.LOGIT_BIAS: {"logit_bias": {"50256": -100}},
}

_FIELDS: Final[dict[Option, dict[str, Any]]] = {
    support.STRICT_TOOLS: {"tools": (Tool("f", "a tool", SCHEMA, strict=True),)},
    support.NO_TOOL: {"tool_choice": ToolChoice(ToolChoiceMode.NONE)},
    support.ANY_TOOL: {"tool_choice": ToolChoice(ToolChoiceMode.REQUIRED)},
    support.ONE_TOOL: {"tool_choice": ToolChoice(ToolChoiceMode.TOOL, "f"), "tools": (*BASE.tools, Tool("g"))},
    support.ONE_CALL: {"parallel_tool_calls": False},
    support.JSON_OBJECT: {"response_format": JsonObjectFormat(), "tools": ()},
    support.JSON_SCHEMA: {"response_format": JsonSchemaFormat("n", SCHEMA), "tools": ()},
    support.STRICT_FORMAT: {"response_format": JsonSchemaFormat("n", SCHEMA, strict=True), "tools": ()},
    support.NATIVE_FORMAT: {"response_format": NativeFormat({"type": "grammar", "grammar": "root ::= x"})},
    support.EFFORT: {"reasoning": Reasoning("high")},
    support.MODALITIES: {"modalities": ("text", "audio")},
    support.AUDIO_OUTPUT: {"audio_output": AudioOutput("alloy", "pcm16")},
    support.END_USER: {"end_user": "user-1"},
    support.PARTICIPANTS: {"messages": (Message(Role.USER, (Text("hello"),), name="ann"),)},
    support.IMAGE_DETAIL: {"messages": (Message(Role.USER, (Image(Media(_DATA), detail="low"),)),)},
}


def asking(option: Option, model: str = "m") -> ChatRequest:
    """Return `BASE` for a model with one option set."""
    fields = {"sampling": Sampling(**_SAMPLING[option])} if option in _SAMPLING else _FIELDS[option]
    return replace(BASE, model=model, **fields)


class Feature(NamedTuple):
    """One row: a request with the feature, and the same without it."""

    title: str
    asked: ChatRequest
    bare: ChatRequest


class Column(NamedTuple):
    """One encoder with a model."""

    title: str
    model: str
    encode: Callable[[ChatRequest, Parameters], bytes]


class Cell(NamedTuple):
    """What an encoder does with a feature."""

    level: str
    """yes, mapped or no."""
    reason: str = ""

    def __str__(self) -> str:
        """Return the text of the table."""
        return f"{self.level}: {self.reason}" if self.reason else self.level


def _with_result(*blocks: Block, is_error: bool = False) -> tuple[Message, ...]:
    """Return a conversation in which a tool was called; its result has these blocks."""
    call = Message(Role.ASSISTANT, (ToolCall("call_1", "f", '{"city":"Rome"}'),))
    return (*BASE.messages, call, Message(Role.USER, (ToolResult("call_1", blocks, is_error=is_error),)))


_PNG: Final = Image(Media(_DATA))
_TEXT: Final = Text("hello")
_FAILED: Final = Text("it failed")


def _content(title: str, block: Block) -> Feature:
    return Feature(title, replace(BASE, messages=(Message(Role.USER, (_TEXT, block)),)), BASE)


CONTENT: Final = (
    Feature("instructions", replace(BASE, messages=(Message(Role.SYSTEM, (Text("be brief"),)), *BASE.messages)), BASE),
    _content("a picture as data", _PNG),
    _content("a picture by its URL", Image(Media("https://example.com/a.png"))),
    _content("a recording as data", Audio(Media("data:audio/wav;base64,UklGRg=="))),
    _content("a video as data", Video(Media("data:video/mp4;base64,AAAA"))),
    _content("a PDF as data", Document(Media("data:application/pdf;base64,JVBERi0="), filename="a.pdf")),
    _content("a file by its id", Document(Media(file_id="file-1"))),
    Feature("calls and results of tools", replace(BASE, messages=_with_result(_TEXT)), BASE),
    Feature(
        "the result of a tool that failed",
        replace(BASE, messages=_with_result(_FAILED, is_error=True)),
        replace(BASE, messages=_with_result(_FAILED)),
    ),
    Feature(
        "a picture in the result of a tool",
        replace(BASE, messages=_with_result(_TEXT, _PNG)),
        replace(BASE, messages=_with_result(_TEXT)),
    ),
)

OPTIONS: Final = tuple(Feature(option.title, asking(option), option.without(asking(option))) for option in support.OPTIONS)

EFFORTS: Final = tuple(
    Feature(f"reasoning effort `{effort}`", replace(BASE, reasoning=Reasoning(effort)), BASE)
    for effort in ("none", "minimal", "max")
)
"""Efforts that few models have by these names."""


def _host(name: str) -> Callable[[ChatRequest, Parameters], bytes]:
    """Return the encoder of chat completions for a known host."""
    capabilities = capabilities_of(name, None)
    return lambda request, parameters: encode_openai(request, name, parameters, stream_usage=True, host=capabilities)


def _anthropic(request: ChatRequest, parameters: Parameters) -> bytes:
    return encode_anthropic(request, "anthropic", parameters)


def _responses(request: ChatRequest, parameters: Parameters) -> bytes:
    return encode_responses(request, "openai", parameters)


def _gemini(request: ChatRequest, parameters: Parameters) -> bytes:
    return encode_gemini(request, "gemini", parameters)


def _vertex(request: ChatRequest, parameters: Parameters) -> bytes:
    return encode_vertex(request, "vertex", parameters)


def _bedrock(request: ChatRequest, parameters: Parameters) -> bytes:
    return encode_bedrock(request, "bedrock", parameters)


def _cohere(request: ChatRequest, parameters: Parameters) -> bytes:
    return encode_cohere(request, "cohere", parameters)


def _openai(request: ChatRequest, parameters: Parameters) -> bytes:
    return encode_openai(request, "openai", parameters, stream_usage=True, host=UNKNOWN)


COLUMNS: Final = (
    Column("`openai`", "m", _openai),
    Column("`openai-responses`", "gpt-999", _responses),
    Column("`anthropic`", "claude-999", _anthropic),
    Column("`gemini`", "gemini-999", _gemini),
    Column("`vertex`", "gemini-999", _vertex),
    Column("`bedrock`", "anthropic.claude-999", _bedrock),
    Column("`cohere`", "command-999", _cohere),
)
"""Each protocol with a model that is not known, and so counts as the newest."""

MODELS: Final = (
    *(Column("openai", model, _host("openai")) for model in ("gpt-4.1", "o1", "o3", "gpt-5", "gpt-5.1")),
    *(Column("openai, by `openai-responses`", model, _responses) for model in ("gpt-4.1", "gpt-5")),
    *(
        Column("anthropic", model, _anthropic)
        for model in (
            "claude-3-5-haiku",
            "claude-sonnet-4",
            "claude-sonnet-4-5",
            "claude-opus-4-5",
            "claude-opus-4-6",
            "claude-opus-4-8",
            "claude-sonnet-5-5",
            "claude-opus-5-5",
        )
    ),
    Column("anthropic, by `openai`", "claude-opus-4-8", _host("anthropic")),
    *(Column("gemini", model, _gemini) for model in ("gemini-2.0-flash", "gemini-2.5-pro", "gemini-2.5-flash", "gemini-3-pro")),
    *(Column("vertex", model, _vertex) for model in ("gemini-2.5-flash", "claude-sonnet-4-5@20250929", "claude-opus-4-8")),
    *(
        Column("bedrock", model, _bedrock)
        for model in (
            "anthropic.claude-sonnet-4-v1:0",
            "anthropic.claude-sonnet-4-5-v1:0",
            "anthropic.claude-opus-4-6-v1",
            "amazon.nova-pro-v1:0",
            "amazon.nova-2-lite-v1:0",
            "cohere.command-r-v1:0",
            "deepseek.v3-v1:0",
            "meta.llama3-3-70b-instruct-v1:0",
            "mistral.mistral-large-2407-v1:0",
            "openai.gpt-oss-120b-1:0",
            "qwen.qwen3-32b-v1:0",
        )
    ),
    Column("cohere", "command-a-reasoning-08-2025", _cohere),
    Column("mistral", "mistral-large-latest", _host("mistral")),
    *(Column("deepseek", model, _host("deepseek")) for model in ("deepseek-reasoner", "deepseek-v4-flash")),
    *(Column("xai", model, _host("xai")) for model in ("grok-3-mini", "grok-4", "grok-4-fast-non-reasoning", "grok-5")),
    Column("groq", "llama-3.3-70b-versatile", _host("groq")),
    Column("cerebras", "gpt-oss-120b", _host("cerebras")),
)
"""Hosts and models that have less than the newest model of their protocol, or more."""


def cell(column: Column, feature: Feature) -> Cell:
    """Return what an encoder does with a feature."""
    asked, bare = (replace(request, model=column.model) for request in (feature.asked, feature.bare))
    parameters = Parameters("it")
    try:
        body = column.encode(asked, parameters)
    except Unsupported as error:
        return Cell("no", _PROVIDER.sub("it ", error.message).removesuffix("."))
    for warning in parameters.warnings:
        if warning.treatment is Treatment.MAPPED:
            return Cell("mapped", f"`{warning.replacement}`, as {warning.reason}")
        return Cell("no", warning.reason)
    if body != column.encode(bare, Parameters("it")):
        return Cell("yes")
    return Cell("yes", "always") if feature not in CONTENT else Cell("no", "it is not sent")


_HEAD: Final = """# Features by provider

What becomes of each feature of a request in each provider protocol, with the newest model: that of Google for `vertex`, and of
Anthropic for `bedrock`. This page is made by `python docs/features.py`, which asks the encoders.

- yes: it is sent as the provider's own, or the provider does it anyway ("always").
- mapped: the nearest equivalent is sent, and the reply has a warning.
- no: an option is left out, and the reply has a warning. A request with content that the provider cannot express is refused with
  400, as a conversation without a part of it would be another one. "It is not sent" is about a mark beside content that is sent.

`providers.NAME.unsupported` ([settings](settings.md#providers)) is `map` by default. With `drop` nothing is mapped, and with
`refuse` a request with an option that is not "yes" is refused with 400. The warnings are the field `warnings` of the typed reply
and of its `started` event, and over REST the [header `x-antiphon-warnings`](rest.md#warnings).

"""

_MODELS_HEAD: Final = """
## Hosts and models

What hosts and models have differently from the newest model of their protocol, above. A model that is not known counts as the
newest of its family. Hosts that are not here get whatever a request has. "With an effort" is what is left out if the request has a
reasoning effort other than `none`.

| provider | model | left out | mapped | with an effort |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the text of the page."""
    titles = [column.title for column in COLUMNS]
    pieces = [_HEAD]
    for title, features in (("Options", (*OPTIONS, *EFFORTS)), ("Content", CONTENT)):
        pieces.append(f"## {title}\n\n| | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}\n")
        for feature in features:
            cells = (str(cell(column, feature)) for column in COLUMNS)
            pieces.append(f"| {feature.title} | {' | '.join(cells)} |\n")
        pieces.append("\n")
    pieces[-1] = _MODELS_HEAD
    pieces += (f"| {' | '.join(row)} |\n" for row in _model_rows())
    return "".join(pieces)


def _model_rows() -> Iterator[tuple[str, ...]]:
    newest = {column.encode: column for column in COLUMNS}
    for column in MODELS:
        usual = newest.get(column.encode, COLUMNS[0])
        plain = {option: cell(column, feature) for option, feature in zip(support.OPTIONS, OPTIONS, strict=True)}
        differs = {option: found for option, found in plain.items() if found != cell(usual, _feature(option))}
        thinking = [option for option in support.OPTIONS if plain[option].level == "yes" and _is_lost_by_effort(column, option)]
        yield (
            column.title,
            f"`{column.model}`",
            _list(option for option, found in differs.items() if found.level == "no"),
            "; ".join(f"{_name(option)}: {found.reason}" for option, found in differs.items() if found.level == "mapped"),
            _list(thinking),
        )


def _feature(option: Option) -> Feature:
    return OPTIONS[support.OPTIONS.index(option)]


def _is_lost_by_effort(column: Column, option: Option) -> bool:
    """Return whether a model loses an option if it is told to think."""
    if option is support.EFFORT:
        return False
    parameters = Parameters("it")
    column.encode(replace(asking(option, column.model), reasoning=Reasoning("high")), parameters)
    return any(warning.path == option.path for warning in parameters.warnings)


def _name(option: Option) -> str:
    return option.title


def _list(options: Iterator[Option] | list[Option]) -> str:
    return ", ".join(map(_name, options))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
