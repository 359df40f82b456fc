"""Estimates the tokens that a call will use, before it is made. No I/O."""

from __future__ import annotations

from typing import Final

from antiphon.domain.request import ChatRequest
from antiphon.domain.tokens import prompt_tokens

COMPLETION: Final = 512
"""The estimated tokens of a reply if the request sets no maximum."""

REPLY_DIVISOR: Final = 4
"""The reply's part of an estimate is at most the limit divided by this. Most replies end long before their maximum, and a call
with a generous maximum should not have to wait until the whole minute is free."""

_LONGEST: Final = 1 << 40
"""The most tokens of a reply in an estimate, however large the request's maximum."""


def estimated_tokens(request: ChatRequest) -> tuple[int, int]:
    """Return the tokens of the prompt, and the most that the reply may have."""
    sampling = request.sampling
    # The larger one, as it depends on the provider which of them counts.
    most = max(sampling.max_completion_tokens or 0, sampling.max_tokens or 0) or COMPLETION
    return prompt_tokens(request), min(most * (sampling.choices or 1), _LONGEST)


def tokens_to_take(prompt: int, completion: int, share: int) -> int:
    """Return the tokens to take for a call, from a limit of which this process has `share`; never more than that."""
    return min(prompt + min(completion, share // REPLY_DIVISOR), share)
