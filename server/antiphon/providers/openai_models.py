"""What OpenAI's models do not have, by either of its protocols, and the form of such data for any host. No I/O.

A model without a row of its own counts as the newest of its family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Final

from msgspec import Struct

from antiphon.domain import model_names
from antiphon.domain.request import ChatRequest
from antiphon.providers.support import (
    EFFORT,
    FREQUENCY_PENALTY,
    LOGIT_BIAS,
    LOGPROBS,
    PRESENCE_PENALTY,
    STOP,
    TEMPERATURE,
    TOP_K,
    TOP_LOGPROBS,
    TOP_P,
    Lacks,
    Support,
)

_NOTHING: Final[Lacks] = {}
_NO_NAMES: Final[Mapping[str, str]] = {}

_MOST_MODELS: Final = 256
"""The names of models, which callers choose, whose rows are remembered."""


class ModelRow(Struct, frozen=True):
    """What some models of a host do not have."""

    models: tuple[str, ...]
    """Patterns of their names."""
    lacks: Lacks = _NOTHING
    reasoning_lacks: Lacks = _NOTHING
    """What they do not have either if the request sets an effort other than "none"."""
    renames: Mapping[str, str] = _NO_NAMES
    """Names of parameters that have another name at these models: the API's, and theirs."""

    def lacks_of(self, request: ChatRequest) -> Lacks:
        """Return what is lacking for a request to one of them."""
        reasons = request.reasoning is not None and request.reasoning.effort not in (None, "none")
        return self.reasoning_lacks if reasons else self.lacks


class HostOptions:
    """What a host and its models do not have. The first row of `models` that fits counts, beside what the host as a whole lacks."""

    def __init__(self, lacks: Lacks = _NOTHING, renames: Mapping[str, str] = _NO_NAMES, models: tuple[ModelRow, ...] = ()) -> None:
        self.lacks = lacks
        whole = ModelRow((), lacks, lacks, renames)
        rows = (
            ModelRow(
                row.models,
                {**lacks, **row.lacks},
                {**lacks, **row.lacks, **row.reasoning_lacks},
                {**renames, **row.renames},
            )
            for row in models
        )
        self.row: Callable[[str], ModelRow] = lru_cache(_MOST_MODELS)(partial(_row_of, tuple(rows), whole))
        """Returns the row of a model, with what the host as a whole lacks. It is asked for every request."""


def _row_of(rows: tuple[ModelRow, ...], whole: ModelRow, model: str) -> ModelRow:
    """Return the first row that fits a model; `whole` if there is none."""
    name = model.lower()
    return next((row for row in rows if any(model_names.matches(name, pattern) for pattern in row.models)), whole)


_REASONS: Final = "the model does not accept it while it reasons"
_SAMPLING: Final[Lacks] = {
    option: Support(_REASONS)
    for option in (TEMPERATURE, TOP_P, PRESENCE_PENALTY, FREQUENCY_PENALTY, LOGPROBS, TOP_LOGPROBS, LOGIT_BIAS)
}
_NO_REASONING: Final[Lacks] = {EFFORT: Support("the model does not reason")}
_NEW_LIMIT: Final = {"max_tokens": "max_completion_tokens"}

# https://platform.openai.com/docs/guides/reasoning and https://platform.openai.com/docs/guides/latest-model (parameter
# compatibility): models before GPT-5.1 refuse sampling, later ones only with an effort.
# https://platform.openai.com/docs/api-reference/chat/create: `max_tokens` is refused by reasoning models, and `stop` by those since
# o3. The API has no `top_k`.
OPENAI: Final = HostOptions(
    {TOP_K: Support("the API has no top_k")},
    models=(
        ModelRow(("gpt-3*", "gpt-4*", "chatgpt-*", "gpt-audio*", "ft:gpt-3*", "ft:gpt-4*"), _NO_REASONING),
        ModelRow(("gpt-5*-chat*", "gpt-5-search*")),
        ModelRow(("o1*",), _SAMPLING, renames=_NEW_LIMIT),
        ModelRow(
            ("o3*", "o4*", "gpt-5", "gpt-5-*", "ft:o4*"),
            {**_SAMPLING, STOP: Support("the model does not accept it")},
            renames=_NEW_LIMIT,
        ),
        ModelRow(("gpt-*", "ft:gpt-*"), reasoning_lacks=_SAMPLING, renames=_NEW_LIMIT),
    ),
)
