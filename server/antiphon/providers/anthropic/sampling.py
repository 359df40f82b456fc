"""Reduces the sampling of a request to what Claude models accept. No I/O."""

from __future__ import annotations

from antiphon.domain.request import Sampling
from antiphon.providers.anthropic.capabilities import ModelCapabilities
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import STOP, TOP_P, stop_texts


def stop_sequences(sampling: Sampling, parameters: Parameters) -> list[str]:
    """Return the stop sequences. The API refuses those of white space alone, such as a line's end, which are left out.

    Raises `Unsupported` if the policy is to refuse.
    """
    wanted = stop_texts(sampling, parameters)
    kept = [one for one in wanted if one.strip()]
    if len(kept) < len(wanted):
        parameters.dropped(STOP.path, "the API has no stop sequences of white space alone")
    return kept


def may_have_top_p(top_p: float, temperature: float | None, model: ModelCapabilities | None, parameters: Parameters) -> bool:
    """Return whether top_p is sent. Newer models refuse it beside a temperature, where 1 changes nothing.

    `model` is None for models of other makers. Raises `Unsupported` if the policy is to refuse.
    """
    if temperature is None:
        return True
    if top_p == 1:
        return False
    if model is None or model.top_p_beside_temperature:
        return True
    parameters.dropped(TOP_P.path, "the model does not accept it beside a temperature")
    return False
