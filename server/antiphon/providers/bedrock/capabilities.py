"""What the models of each maker accept on Bedrock, as rows of data. No I/O.

https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html and
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html. Claude models have rows of their own, in
`antiphon.providers.anthropic.capabilities`. A model whose maker is not known, such as one behind an ARN, is `UNKNOWN`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from msgspec import Struct

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
    named_tool: bool = False
    """Whether the call of a certain tool can be demanded."""
    one_call: bool = False
    """Whether parallel calls can be turned off."""
    media_beside_results: bool = True
    """Whether documents and videos may stand beside the results of tools."""
    text_beside_results: bool = True
    """Whether anything may stand beside them."""
    unsigned_thoughts: bool = False
    """Whether reasoning without a signature may be sent back."""
    result_status: bool = True
    """Whether a result may say that it is an error."""


UNKNOWN: Final = ModelFamily()

_FAMILIES: Final = {
    "ai21": UNKNOWN,
    "amazon": ModelFamily(top_k=("inferenceConfig", "topK"), named_tool=True, unsigned_thoughts=True),
    CLAUDE: ModelFamily(top_k=("top_k",), effort=Effort.CLAUDE, named_tool=True, one_call=True, media_beside_results=False),
    "cohere": ModelFamily(top_k=("k",)),
    "deepseek": UNKNOWN,
    "google": UNKNOWN,
    "meta": ModelFamily(text_beside_results=False),
    "minimax": UNKNOWN,
    "mistral": ModelFamily(top_k=("top_k",), text_beside_results=False),
    "moonshot": UNKNOWN,
    "moonshotai": UNKNOWN,
    "nvidia": UNKNOWN,
    "openai": ModelFamily(effort=Effort.OPENAI),
    "qwen": ModelFamily(effort=Effort.QWEN),
    "stability": UNKNOWN,
    "twelvelabs": UNKNOWN,
    "writer": ModelFamily(result_status=False),
    "zai": UNKNOWN,
}
"""By maker, as model ids name them: `us.anthropic.claude-...`, `meta.llama...`."""

_NOVA_THINKS: Final = ModelFamily(top_k=("inferenceConfig", "topK"), effort=Effort.NOVA, named_tool=True, unsigned_thoughts=True)


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
