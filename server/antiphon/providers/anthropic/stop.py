"""Writes the stop sequences that Claude models accept. No I/O."""

from __future__ import annotations

from antiphon.domain.request import Sampling
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import STOP


def stop_sequences(sampling: Sampling, parameters: Parameters) -> list[str]:
    """Return the stop sequences. The API refuses those of white space alone, such as a line's end, which are left out.

    Raises `Unsupported` if the policy is to refuse.
    """
    wanted = [sampling.stop] if isinstance(sampling.stop, str) else list(sampling.stop or ())
    kept = [one for one in wanted if one.strip()]
    if any(one and not one.strip() for one in wanted):
        parameters.dropped(STOP.path, "the API has no stop sequences of white space alone")
    return kept
