"""Why a provider rejected a request, by its error words. No I/O.

Codes are compared as whole words. Hosts that send no code for a reason are recognised by the start of their message, and only by
that: what follows may quote the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.errors import Rejection
from antiphon.providers.error_fields import error_fields, explanation

_CODES: Final[Mapping[str, Rejection]] = {
    # OpenAI and hosts that follow it; Azure's content filter.
    "context_length_exceeded": Rejection.TOO_LONG,
    "context_window_exceeded": Rejection.TOO_LONG,
    "model_context_window_exceeded": Rejection.TOO_LONG,
    "max_context_length_exceeded": Rejection.TOO_LONG,
    "token_limit_exceeded": Rejection.TOO_LONG,  # OpenRouter
    "exceed_context_size_error": Rejection.TOO_LONG,  # llama.cpp
    "model_max_prompt_tokens_exceeded": Rejection.TOO_LONG,  # GitHub
    "content_filter": Rejection.REFUSED,
    "content_policy_violation": Rejection.REFUSED,
    "moderation_blocked": Rejection.REFUSED,
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
    r"(?:(?:the )?prompt is too long\b"  # Anthropic, Fireworks
    r"|input length and `?max_tokens`? exceed context limit"  # Anthropic
    r"|your input exceeds the context window\b"  # OpenAI Responses
    r"|please reduce the length of the messages\b"  # Groq, Cerebras
    r"|(?:unable to submit request because )?the input token count\b"  # Gemini; Vertex AI
    r".{0,40}\b(?:exceeds the maximum|model only supports up to)\b"
    r"|input is too long for requested model"  # Bedrock
    r"|too many tokens\b"  # Cohere, Bedrock
    r"|(?:this|the) (?:model|endpoint)'?s maximum (?:context|prompt) length is\b"  # vLLM, OpenAI without its code, OpenRouter, xAI
    r"|'max_tokens' or 'max_completion_tokens' is too large: \d+\. this model'?s maximum context length is\b"  # vLLM
    r"|you passed \d+ input tokens\b.{0,80}\bcontext length is only\b"  # vLLM
    r"|the (?:decoder )?prompt \(length \d+\) is longer than the maximum model length\b"  # vLLM
    r"|the input \(\d+ tokens\) is longer than the model'?s context length\b"  # SGLang, Together
    r"|(?:input length \(\d+\)|requested token count) exceeds (?:the )?model'?s maximum context length\b"  # SGLang
    r"|input validation error: `inputs` (?:must have less than \d+ tokens|tokens \+ `max_new_tokens` must be <=)"  # TGI, Together
    r"|prompt contains \d+ tokens\b.{0,60}\btoo large for model"  # Mistral
    r"|(?:the )?request (?:\(\d+ tokens\) )?exceeds the available context size"  # llama.cpp
    r"|the number of tokens to keep from the initial prompt is greater than the context length"  # LM Studio
    r"|trying to keep the first \d+ tokens when context the overflows"  # LM Studio
    r"|(?:the )?(?:prompt too long; exceeded (?:max )?context length|input length exceeds the context length)"  # Ollama
    r"|(?:<400> internalerror\.algo\.invalidparameter: )?range of input length should be\b"  # Alibaba
    r"|(?:invalid request: )?your request exceeded model token limit\b"  # Moonshot
    r"|(?:invalid params, )?context window exceeds limit\b"  # MiniMax
    r"|prompt token count of \d+ exceeds the limit of\b"  # GitHub
    r"|this request exceeds the model'?s context\b)",
    re.IGNORECASE,
)

_REFUSED: Final = re.compile(
    r"(?:invalid prompt: your prompt was flagged\b"  # OpenAI, Azure
    r"|your request was rejected (?:as a result of|by) (?:our|the) safety system\b"  # OpenAI, Azure
    r"|output blocked by content filtering policy\b"  # Anthropic
    r"|blocked (?:input|output)\b"  # Cohere
    r"|content violates usage guidelines\b"  # xAI
    r"|content exists risk\b"  # DeepSeek
    r"|input data may contain inappropriate content\b"  # Alibaba
    r"|system detected potentially unsafe or sensitive content\b)",  # Z.ai
    re.IGNORECASE,
)

_UNSUPPORTED: Final = re.compile(r"no endpoints found that support\b", re.IGNORECASE)
"""OpenRouter, with 404: "No endpoints found that support image input". The next request may be one that they support."""

_STATE: Final = re.compile(
    r"(?:messages[.\[\]\w]*:? )?"
    r"(?:invalid [`'\"]?signature[`'\"]? in [`'\"]?thinking"  # Anthropic: "messages.1.content.0: Invalid `signature` in ..."
    r"|[`'\"]?thinking[`'\"]? or [`'\"]?redacted_thinking[`'\"]? blocks in the latest assistant message cannot be modified"
    r"|the encrypted content\b.{0,80}\bcould not be (?:verified|decrypted)"  # OpenAI Responses
    r"|(?:unable to submit request because )?(?:the )?thought[_ ]signature\b.{0,60}\bnot valid"  # Gemini
    r"|corrupted thought signature"
    r"|invalid [`'\"]?data[`'\"]? in [`'\"]?redacted_thinking"  # Anthropic
    r"|item with id '[^']{1,128}' not found\. items are not persisted\b)",  # OpenAI Responses, with 404 or 400
    re.IGNORECASE,
)

_BY_MESSAGE: Final = (
    (_TOO_LONG, Rejection.TOO_LONG),
    (_REFUSED, Rejection.REFUSED),
    (_STATE, Rejection.STATE),
    (_UNSUPPORTED, Rejection.UNSUPPORTED),
)


_PREFIX: Final = re.compile(r"the model returned the following errors: ", re.IGNORECASE)
"""What Bedrock writes before the message of a model's own host."""


def rejection_of(fields: Mapping[str, Any], text: str) -> Rejection:
    """Return why a request was rejected. `fields` are those of the error object, `text` is its message."""
    inner = fields.get("innererror")  # Azure's
    for word in (fields.get("code"), fields.get("type"), inner.get("code") if isinstance(inner, dict) else None):
        if isinstance(word, str) and (found := _CODES.get(word.lower())) is not None:
            return found
    metadata = fields.get("metadata")  # OpenRouter's
    if isinstance(metadata, dict):
        if "flagged_input" in metadata:
            return Rejection.REFUSED
        raw = metadata.get("raw")  # the answer of the host that it asked
        if isinstance(raw, str):
            answer = {name: value for name, value in error_fields(raw.encode()).items() if name != "metadata"}
            return rejection_of(answer, explanation(answer) or raw)
    prefix = _PREFIX.match(text)
    text = text[prefix.end() :] if prefix else text
    return next((found for pattern, found in _BY_MESSAGE if pattern.match(text)), Rejection.INVALID)
