"""What ends a reply of the OpenAI chat-completions API, and how it ended. No I/O.

The rules:

- `[DONE]` ends a reply, and so does the end of the body. The reply is complete if every choice has a finish reason by then.
- Where neither comes, silence ends it: `WAIT` seconds after the chunk with which every choice has a finish reason.
- A host that sends more output after its finish reasons has contradicted itself. Its silence is not an end any more: after
  `LONG_WAIT` seconds it is a cut. Silence before any output ends nothing: the model may be thinking.
- A choice has one finish reason. Of several the last counts, but `stop` never takes the place of another one.
- A finish reason that means a failure (`abort`, `error`, ...) is one: it ends no choice.
- A host may give fewer choices than were asked for, or one finish reason for all of them, if it says `[DONE]`.
- One JSON object is a whole reply, whether its choices have a finish reason or not.
"""

from __future__ import annotations

import re
from typing import Final

from antiphon.domain.events import FinishReason

WAIT: Final = 5.0
"""Seconds of silence that end a reply all of whose choices have a finish reason."""

LONG_WAIT: Final = 30.0
"""Seconds of silence after which the reply of a host that has contradicted itself counts as cut."""

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
_BY_WORD: Final = {word: reason for reason, words in _MEANINGS.items() for word in words.split()}
"""By the words of OpenAI, and of hosts that hand on those of Anthropic, Google, Cohere, Mistral, Together, Zhipu and others."""

_FAILURE: Final = re.compile(
    r"abort|cancel|crash|disconnect|error|exception|fail|insufficient|internal|interrupt|killed|malformed|missing"
    r"|out_of_memory|overload|preempt|quota|rate_limit|resource_exhausted|shutdown|throttl|time_?out|timed_out|too_many"
    r"|unavailable|unexpected|unload"
)
"""Stems of the words for a failure: vLLM's and SGLang's `abort`, DeepSeek's `insufficient_system_resource`, Zhipu's
`network_error`, Google's `MALFORMED_FUNCTION_CALL`, Cohere's `TIMEOUT`, `error` of Mistral and OpenRouter, and their like."""

_NO_REASON: Final = frozenset({"", "null", "none", "not_finished", "finish_reason_unspecified"})
"""Words that hosts write in place of null while a choice goes on, in lower case."""


class Ending:
    """Decides when a reply has ended, and whether it is complete."""

    def __init__(self, choices: int | None) -> None:
        """`choices` is how many were asked for."""
        self.done = False
        """The host said `[DONE]`."""
        self.is_object = False
        """The reply is one JSON object."""
        self.changed = False
        """The time that `wait` returns starts anew. The caller resets this flag."""
        self.reasons: dict[int, str | None] = {}
        """The finish reason of each choice that has begun, in the host's own words."""
        self.is_finished = False
        """There was output, every choice has a finish reason, and no output came after them."""
        self._asked = choices or 1
        self._has_reasons = False  # every choice has one, and no output came after them
        self._contradicted = False
        self._has_output = False

    def begin(self, choice: int) -> None:
        """Note that a choice has begun."""
        self.reasons.setdefault(choice, None)

    def note_output(self) -> None:
        """Note that the host sent output."""
        self._has_output = True
        if self._has_reasons:
            self._has_reasons = self.is_finished = False
            self._contradicted = self.changed = True

    def finish(self, choice: int, reason: str) -> bool:
        """Note the finish reason of a choice. Returns False, and keeps nothing, if it means a failure."""
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
        """Seconds of silence that end the reply; None: it is not finished."""
        if not self.is_finished:
            return None
        return LONG_WAIT if self._contradicted else WAIT

    def is_complete(self, *, silent: bool) -> bool:
        """Whether the reply is complete, now that it has ended. `silent`: neither `[DONE]` nor the end of the body came."""
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
    """What a host's word for the end of a choice means; None if that is a failure.

    Case and separators do not matter: `MAX_TOKENS`, `max-tokens`, `maxTokens` and `FINISH_REASON_MAX_TOKENS` are the same. Google's
    OpenAI endpoint writes a kind before the word, as in `function_call_filter: MALFORMED_FUNCTION_CALL`.
    """
    known = _BY_WORD.get(reason)
    if known is not None:
        return known
    for part in reason.split(":"):
        word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", part.strip())
        word = re.sub(r"[^a-z]+", "_", word.lower()).removeprefix("finish_reason_").strip("_")
        meaning = _BY_WORD.get(word)
        if meaning is None and _FAILURE.search(word):
            return None
        known = known or meaning
    return known or FinishReason.OTHER
