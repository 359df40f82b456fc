"""Encodes a `ChatRequest` for Vertex AI: in the protocol of the model's publisher. No I/O.

Options are lacking as in the publisher's own API, of which `gemini.request` and `anthropic.lacks` have the tables: Vertex AI takes
the same fields, https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference and
https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/partner-models/claude/structured-outputs.
"""

from __future__ import annotations

from typing import Final

from antiphon.domain.errors import Unsupported
from antiphon.domain.request import ChatRequest
from antiphon.providers.anthropic.request import encode as encode_for_claude
from antiphon.providers.gemini.request import encode as encode_for_gemini
from antiphon.providers.parameters import Parameters
from antiphon.providers.vertex import resource
from antiphon.providers.vertex.resource import find_model

_CLAUDE_VERSION: Final = "vertex-2023-10-16"
"""The only value of `anthropic_version`: https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai."""


def encode(request: ChatRequest, provider: str, parameters: Parameters | None = None) -> bytes:
    """Return the JSON body. `parameters` gets the options that the API or the model does not have; None: nobody wants to know.

    Raises `Unsupported` for a model of another publisher, for content that the publisher's API cannot express and for refused
    options, and `InvalidRequest` for data that cannot be sent.
    """
    match find_model(request.model).publisher:
        case resource.GOOGLE:
            return encode_for_gemini(request, provider, parameters)
        case resource.ANTHROPIC:
            return encode_for_claude(request, provider, parameters, version=_CLAUDE_VERSION)
        case _:
            known = f"{resource.GOOGLE} and {resource.ANTHROPIC}"
            raise Unsupported(f"The provider {provider} has models of {known} only.", provider=provider)
