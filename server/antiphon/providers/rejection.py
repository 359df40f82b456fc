"""Why a provider rejected a request, by its error words. No I/O.

Codes are compared as whole words. Hosts that send no code for a reason are recognised by the start of their message, and only by
that: what follows may quote the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.errors import Rejection

_CODES: Final[Mapping[str, Rejection]] = {
    # OpenAI and hosts that follow it; Azure's content filter.
    "context_length_exceeded": Rejection.TOO_LONG,
    "context_window_exceeded": Rejection.TOO_LONG,
    "model_context_window_exceeded": Rejection.TOO_LONG,
    "max_context_length_exceeded": Rejection.TOO_LONG,
    "content_filter": Rejection.REFUSED,
    "content_policy_violation": Rejection.REFUSED,
    "image_content_policy_violation": Rejection.REFUSED,
    "responsibleaipolicyviolation": Rejection.REFUSED,
    "data_inspection_failed": Rejection.REFUSED,
    "bio_policy": Rejection.REFUSED,
    "cyber_policy": Rejection.REFUSED,
    "misalignment_policy_violation": Rejection.REFUSED,
    "invalid_encrypted_content": Rejection.STATE,
    "invalid_thinking_signature": Rejection.STATE,
    "thinking_signature_invalid": Rejection.STATE,
}

_TOO_LONG: Final = re.compile(
    r"(?:prompt is too long\b"  # Anthropic
    r"|input length and `?max_tokens`? exceed context limit"  # Anthropic
    r"|the input token count\b.{0,40}\bexceeds the maximum"  # Gemini
    r"|input is too long for requested model"  # Bedrock
    r"|too many tokens\b"  # Cohere, Bedrock
    r"|this model'?s maximum context length is\b"  # vLLM, and OpenAI without its code
    r"|prompt contains \d+ tokens\b.{0,60}\btoo large for model"  # Mistral
    r"|(?:the )?request exceeds the available context size"  # llama.cpp
    r"|this request exceeds the model'?s context\b)",
    re.IGNORECASE,
)

_REFUSED: Final = re.compile(r"blocked (?:input|output)\b", re.IGNORECASE)  # Cohere

_STATE: Final = re.compile(
    r"(?:messages[.\[\]\w]*:? )?"
    r"(?:invalid [`'\"]?signature[`'\"]? in [`'\"]?thinking"  # Anthropic: "messages.1.content.0: Invalid `signature` in ..."
    r"|[`'\"]?thinking[`'\"]? or [`'\"]?redacted_thinking[`'\"]? blocks in the latest assistant message cannot be modified"
    r"|the encrypted content\b.{0,80}\bcould not be (?:verified|decrypted)"  # OpenAI Responses
    r"|(?:unable to submit request because )?(?:the )?thought[_ ]signature\b.{0,60}\bnot valid"  # Gemini
    r"|corrupted thought signature)",
    re.IGNORECASE,
)


def rejection_of(fields: Mapping[str, Any], explanation: str) -> Rejection:
    """Return why a request was rejected. `fields` are those of the error object, `explanation` is its message."""
    inner = fields.get("innererror")  # Azure's
    for word in (fields.get("code"), fields.get("type"), inner.get("code") if isinstance(inner, dict) else None):
        if isinstance(word, str) and (found := _CODES.get(word.lower())) is not None:
            return found
    if _TOO_LONG.match(explanation):
        return Rejection.TOO_LONG
    if _REFUSED.match(explanation):
        return Rejection.REFUSED
    return Rejection.STATE if _STATE.match(explanation) else Rejection.INVALID
