"""Decides when a reply of the OpenAI chat-completions API has ended, and whether it is complete. No I/O.

The rules:

- `[DONE]` ends a reply, and so does the end of the body. The reply is complete if every choice has a finish reason by then.
- Without either, silence ends it: `WAIT` seconds after the chunk with which every choice has a finish reason.
- A host that sends more output after all finish reasons has contradicted itself. Its silence does not complete the reply any more:
  after `LONG_WAIT` seconds the reply counts as cut. Silence before any output ends nothing, because the model may be reasoning.
- A choice has one finish reason. The last one counts, but `stop` never replaces another.
- A finish reason that means a failure (`abort`, `error`, ...) is a failure: it does not end the choice.
- A host that sends `[DONE]` may return fewer choices than requested, or one finish reason for all of them.
- A single JSON object is always a complete reply, even if its choices have no finish reason.
"""

from __future__ import annotations

import re
from typing import Final

from antiphon.domain.events import FinishReason

WAIT: Final = 5.0
"""Seconds of silence that end a reply in which every choice has a finish reason."""

LONG_WAIT: Final = 30.0
"""Seconds of silence after which a reply counts as cut, if its host sent output after the finish reasons."""

_MEANINGS: Final = {
    FinishReason.STOP: (
        "stop stopped stop_sequence stop_token stop_string eos eos_token end end_turn complete completed finished normal"
    ),
    FinishReason.LENGTH: (
        "length max_tokens max_length max_output_tokens max_completion_tokens max_new_tokens token_limit model_length "
        "error_limit incomplete"
    ),
    FinishReason.TOOL_CALLS: "tool_calls tool_call tool_use function_call",
    FinishReason.CONTENT_FILTER: (
        "content_filter content_filtered content_policy content_policy_violation moderation blocked filtered safety sensitive "
        "recitation blocklist prohibited_content spii model_armor language image_safety image_prohibited_content "
        "image_recitation guardrail_intervened error_toxic"
    ),
    FinishReason.REFUSAL: "refusal",
    FinishReason.PAUSE: "pause_turn compaction continuation",
    FinishReason.CONTEXT_WINDOW: ("context_length context_window context_length_exceeded model_context_window_exceeded"),
}
BY_WORD: Final = {word: reason for reason, words in _MEANINGS.items() for word in words.split()}
"""The finish reasons of OpenAI, and of hosts that pass on those of Anthropic, Google, Cohere, Mistral, Together, Zhipu and
others."""

_FAILURE: Final = re.compile(
    r"abort|cancel|crash|disconnect|error|exception|fail|insufficient|internal|interrupt|killed|malformed|missing"
    r"|out_of_memory|overload|preempt|quota|rate_limit|resource_exhausted|shutdown|throttl|time_?out|timed_out|too_many"
    r"|unavailable|unexpected|unload"
)
"""Stems of finish reasons that mean a failure: vLLM's and SGLang's `abort`, DeepSeek's `insufficient_system_resource`, Zhipu's
`network_error`, Google's `MALFORMED_FUNCTION_CALL`, Cohere's `TIMEOUT`, `error` of Mistral and OpenRouter, and others."""

_NO_REASON: Final = frozenset({"", "null", "none", "not_finished", "finish_reason_unspecified"})
"""Words that some hosts send instead of null while a choice continues, in lower case."""


class OpenAIEnding:
    """Decides when a reply has ended, and whether it is complete."""

    def __init__(self, choices: int | None) -> None:
        """`choices` is the number requested; None means 1."""
        self.done = False
        """The host sent `[DONE]`."""
        self.is_object = False
        """The reply is one JSON object."""
        self.changed = False
        """The time that `wait` returns starts again. The caller resets this flag."""
        self.reasons: dict[int, str | None] = {}
        """The finish reason of each choice so far, as the host sent it; None while the choice continues."""
        self.is_finished = False
        """There was output, every choice has a finish reason, and no output came after them."""
        self._asked = choices or 1
        self._has_reasons = False  # every choice has a finish reason, and no output came after them
        self._contradicted = False
        self._has_output = False

    def begin(self, choice: int) -> None:
        """Record that a choice has started."""
        self.reasons.setdefault(choice, None)

    def note_output(self) -> None:
        """Record that the host sent output."""
        self._has_output = True
        if self._has_reasons:
            self._has_reasons = self.is_finished = False
            self._contradicted = self.changed = True

    def finish(self, choice: int, reason: str) -> bool:
        """Record the finish reason of a choice. Returns False, and records nothing, if it means a failure."""
        meaning = meaning_of(reason)
        if meaning is None:
            return False
        if reason.strip().lower() in _NO_REASON:
            return True
        known = self.reasons.get(choice)
        if known is None or meaning is not FinishReason.STOP:
            self.reasons[choice] = reason
        if len(self.reasons) >= self._asked and None not in self.reasons.values():
            self._has_reasons = self.changed = True
            self.is_finished = self._has_output
        return True

    def wait(self) -> float | None:
        """Return the seconds of silence that end the reply; None while it is unfinished."""
        if not self.is_finished:
            return None
        return LONG_WAIT if self._contradicted else WAIT

    def is_complete(self, *, silent: bool) -> bool:
        """Return whether a reply that has ended is complete. `silent`: neither `[DONE]` nor the end of the body arrived."""
        reasons = self.reasons
        if not reasons or self.is_object:
            return bool(reasons)
        if silent and self._contradicted and not self.done:
            return False
        has_all, is_finished = len(reasons) >= self._asked, None not in reasons.values()
        if has_all and is_finished:
            return True
        may_lack = self.done and self._asked > 1 and (any(reasons.values()) if has_all else is_finished)
        return may_lack and reasons.keys() == set(range(len(reasons)))


def meaning_of(reason: str) -> FinishReason | None:
    """Return the meaning of a host's finish reason; None if it means a failure. Unknown words mean `OTHER`.

    Case and separators are ignored: `MAX_TOKENS`, `max-tokens`, `maxTokens` and `FINISH_REASON_MAX_TOKENS` are equal. Google's
    OpenAI endpoint puts a kind in front, as in `function_call_filter: MALFORMED_FUNCTION_CALL`.
    """
    known = BY_WORD.get(reason)
    if known is not None:
        return known
    for part in reason.split(":"):
        word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", part.strip())
        word = re.sub(r"[^a-z]+", "_", word.lower()).removeprefix("finish_reason_").strip("_")
        meaning = BY_WORD.get(word)
        if meaning is None and _FAILURE.search(word):
            return None
        known = known or meaning
    return known or FinishReason.OTHER
