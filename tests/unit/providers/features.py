"""A request for each option of `antiphon.providers.support.OPTIONS`, for tests of the encoders."""

from typing import Any, Final

from msgspec.structs import replace

from antiphon.domain.content import Message, Role, Text
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
from antiphon.providers import support
from antiphon.providers.support import Option

SCHEMA: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}

BASE: Final = ChatRequest("m", (Message(Role.USER, (Text("hello"),)),), stream=True, tools=(Tool("f", "a tool", SCHEMA),))
"""A request without any option; it has a tool, as some options are about tools."""

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
    support.JSON_OBJECT: {"response_format": JsonObjectFormat()},
    support.JSON_SCHEMA: {"response_format": JsonSchemaFormat("n", SCHEMA)},
    support.STRICT_FORMAT: {"response_format": JsonSchemaFormat("n", SCHEMA, strict=True)},
    support.NATIVE_FORMAT: {"response_format": NativeFormat({"type": "grammar", "grammar": "root ::= x"})},
    support.EFFORT: {"reasoning": Reasoning("low")},
    support.MODALITIES: {"modalities": ("text", "audio")},
    support.AUDIO_OUTPUT: {"audio_output": AudioOutput("alloy", "pcm16")},
    support.END_USER: {"end_user": "user-1"},
    support.NAMES: {"messages": (Message(Role.USER, (Text("hello"),), name="ann"),)},
}


def asking(option: Option, model: str = "m") -> ChatRequest:
    """Return `BASE` for a model with one option set."""
    fields = {"sampling": Sampling(**_SAMPLING[option])} if option in _SAMPLING else _FIELDS[option]
    return replace(BASE, model=model, **fields)
