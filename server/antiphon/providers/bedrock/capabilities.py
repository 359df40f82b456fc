"""What the models of each maker accept on Bedrock, as rows of data. No I/O.

https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html and
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html. Which models can be held to a schema is in
https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html, which take a choice of tools in
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolChoice.html, and which cache in
https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html. Claude models have rows of their own, in
`antiphon.providers.anthropic.capabilities`. A model whose maker is not known, such as one behind an ARN, is `UNKNOWN`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

CLAUDE: Final = "anthropic"


class Effort(Enum):
    """How a model is told how much to think."""

    NONE = auto()
    """It is not told."""
    CLAUDE = auto()
    """By `thinking`, and `outputConfig.effort`."""
    NOVA = auto()
    """By `reasoningConfig`, with an effort."""
    OPENAI = auto()
    """By `reasoning_effort`."""
    QWEN = auto()
    """By `reasoning_config`, which is low or high."""


class ModelFamily(Struct, frozen=True, kw_only=True):
    """What the models of one maker accept."""

    top_k: tuple[str, ...] = ()
    """The path of top_k in `additionalModelRequestFields`; empty if there is none."""
    effort: Effort = Effort.NONE
    any_tool: bool = True
    """Whether a tool call can be demanded."""
    named_tool: bool = False
    """Whether the call of a certain tool can be demanded."""
    one_call: bool = False
    """Whether parallel calls can be turned off."""
    structured_output: bool = True
    """Whether replies and arguments of tools can be held to a schema."""
    media_beside_results: bool = True
    """Whether documents and videos may stand beside the results of tools."""
    text_beside_results: bool = True
    """Whether anything may stand beside them."""
    unsigned_thoughts: bool = False
    """Whether reasoning without a signature may be sent back."""
    result_status: bool = True
    """Whether a result may say that it is an error."""
    caches: bool = False
    """Whether marks of what is to be cached are accepted."""
    caches_tools: bool = False
    """Whether they are accepted among the tools, too."""


UNKNOWN: Final = ModelFamily(caches=True, caches_tools=True)
_PLAIN: Final = ModelFamily()
_UNSTRUCTURED: Final = ModelFamily(structured_output=False)

_NOVA: Final = ModelFamily(
    top_k=("inferenceConfig", "topK"), named_tool=True, structured_output=False, unsigned_thoughts=True, caches=True
)
_NOVA_THINKS: Final = replace(_NOVA, effort=Effort.NOVA)

_FAMILIES: Final = {
    "ai21": _UNSTRUCTURED,
    "amazon": _NOVA,
    CLAUDE: ModelFamily(
        top_k=("top_k",),
        effort=Effort.CLAUDE,
        named_tool=True,
        one_call=True,
        media_beside_results=False,
        caches=True,
        caches_tools=True,
    ),
    "cohere": ModelFamily(top_k=("k",), structured_output=False),
    "deepseek": _PLAIN,
    "google": _PLAIN,
    # It knows "auto" alone: https://github.com/langchain-ai/langchain-aws/issues/620
    "meta": ModelFamily(any_tool=False, structured_output=False, text_beside_results=False),
    "minimax": _PLAIN,
    "mistral": ModelFamily(top_k=("top_k",), text_beside_results=False),
    "moonshot": _PLAIN,
    "moonshotai": _PLAIN,
    "nvidia": _PLAIN,
    "openai": ModelFamily(effort=Effort.OPENAI),
    "qwen": ModelFamily(effort=Effort.QWEN),
    "stability": _UNSTRUCTURED,
    "twelvelabs": _UNSTRUCTURED,
    "writer": ModelFamily(structured_output=False, result_status=False),
    "zai": _PLAIN,
}
"""By maker, as model ids name them: `us.anthropic.claude-...`, `meta.llama...`."""


def maker(model: str) -> str:
    """Return the maker of a model; empty if its id does not name one. The id may be within an ARN."""
    name = model.rpartition("/")[2].lower()
    if "claude" in name:
        return CLAUDE
    return next((part for part in name.split(".")[:-1] if part in _FAMILIES), "")


def family(model: str) -> ModelFamily:
    """Return what a model accepts."""
    if "nova-2" in model:
        return _NOVA_THINKS
    return _FAMILIES.get(maker(model), UNKNOWN)
