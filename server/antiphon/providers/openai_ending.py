"""What ends a reply of the OpenAI chat-completions API, and how it ended. No I/O.

The rules:

- `[DONE]` ends a reply, and so does the end of the body. The reply is whole if every choice has a finish reason by then.
- Where neither comes, silence ends it: `WAIT` seconds after every choice has a finish reason and nothing more was said.
- A host that goes on after its finish reasons has contradicted itself. Its silence is not an end any more: after `DOUBTED_WAIT`
  seconds it is a cut. Where nothing was said at all, silence ends nothing: the model may be thinking.
- A choice has one finish reason. Of several the last counts, but `stop` never takes the place of another one.
- A finish reason that means a failure (`abort`, `error`, ...) is one: it ends no choice.
- A host may give fewer choices than were asked for, or one finish reason for all of them, if it says `[DONE]`.
- One JSON object is a whole reply, whether its choices have a finish reason or not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from antiphon.messages import FinishReason

WAIT: Final = 5.0
"""Seconds of silence after the finish reasons that end a reply."""

DOUBTED_WAIT: Final = 30.0
"""Seconds of silence after the finish reasons of a host that has gone on after one: then the reply is cut."""

_MEANINGS: Final = {
    FinishReason.STOP: (
        "stop stopped stop_sequence stop_token stop_string eos eos_token end end_turn complete completed finished normal"
    ),
    FinishReason.LENGTH: (
        "length max_tokens max_length max_output_tokens max_completion_tokens max_new_tokens token_limit model_length "
        "context_length context_window context_length_exceeded model_context_window_exceeded error_limit "
        "incomplete pause_turn compaction continuation"
    ),
    FinishReason.TOOL_CALLS: "tool_calls tool_call tool_use",
    FinishReason.FUNCTION_CALL: "function_call",
    FinishReason.CONTENT_FILTER: (
        "content_filter content_filtered content_policy content_policy_violation moderation blocked filtered safety sensitive "
        "recitation blocklist prohibited_content spii model_armor language image_safety image_prohibited_content "
        "image_recitation refusal guardrail_intervened error_toxic"
    ),
}
_BY_WORD: Final = {word: reason for reason, words in _MEANINGS.items() for word in words.split()}
"""By the words of OpenAI, and of hosts that hand on those of Anthropic, Google, Cohere, Mistral, Together, Zhipu and others."""

_FAILURE: Final = re.compile(
    r"abort|cancel|crash|disconnect|error|exception|fail|insufficient|interrupt|killed|malformed|missing|overload|preempt|shutdown"
    r"|time_?out|timed_out|too_many|unavailable|unexpected|unload"
)
"""Stems of the words for a failure: vLLM's and SGLang's `abort`, DeepSeek's `insufficient_system_resource`, Zhipu's
`network_error`, Google's `MALFORMED_FUNCTION_CALL`, Cohere's `TIMEOUT`, `error` of Mistral and OpenRouter, and their like."""

_NO_REASON: Final = frozenset({"", "null", "none", "unspecified"})
"""Words that hosts write for null, as long as a choice goes on."""


class Ending:
    """Decides when a reply has ended, and whether it is whole."""

    def __init__(self, choices: int | None) -> None:
        """`choices` is how many were asked for."""
        self.done = False
        """The host said `[DONE]`."""
        self.is_object = False
        """The reply is one JSON object."""
        self.changed = False
        """What `wait` returns counts from now; it is for the caller to reset."""
        self.reasons: dict[int, str | None] = {}
        """The finish reason of each choice that has begun, in the host's own words."""
        self._asked = choices or 1
        self._finished = False
        self._doubted = False
        self._spoke = False

    def begin(self, choice: int) -> None:
        """A choice has begun."""
        self.reasons.setdefault(choice, None)

    def speak(self) -> None:
        """Something was said."""
        self._spoke = True
        if self._finished:
            self._finished = False
            self._doubted = self.changed = True

    def finish(self, choice: int, reason: str) -> bool:
        """A choice has a finish reason. Returns False, and does nothing, if that means a failure."""
        meaning = meaning_of(reason)
        if meaning is None:
            return normal_word(reason) in _NO_REASON
        known = self.reasons.get(choice)
        if known is None or meaning is not FinishReason.STOP:
            self.reasons[choice] = reason
        if len(self.reasons) >= self._asked and None not in self.reasons.values():
            self._finished = self.changed = True
        return True

    @property
    def is_finished(self) -> bool:
        """Whether every choice is finished after something was said, and nothing was said since."""
        return self._finished and self._spoke

    def wait(self) -> float | None:
        """Seconds of silence that end the reply; None: more must come."""
        if not self.is_finished:
            return None
        return DOUBTED_WAIT if self._doubted else WAIT

    def is_whole(self, *, silent: bool) -> bool:
        """Whether the reply is whole, now that it has ended. `silent`: by silence, if there was no [DONE]."""
        reasons = self.reasons
        if not reasons or self.is_object:
            return bool(reasons)
        if silent and self._doubted and not self.done:
            return False
        if self.done and self._asked > 1:
            finished = any(reasons.values()) if len(reasons) >= self._asked else None not in reasons.values()
            return finished and reasons.keys() == set(range(len(reasons)))
        return len(reasons) >= self._asked and None not in reasons.values()


@lru_cache(maxsize=256)
def meaning_of(reason: str) -> FinishReason | None:
    """What a host's word for the end of a choice means. None: no end, but a failure or nothing yet."""
    word = normal_word(reason)
    if word in _NO_REASON:
        return None
    known = _BY_WORD.get(word)
    if known is None and _FAILURE.search(word):
        return None
    return known or FinishReason.OTHER


@lru_cache(maxsize=256)
def normal_word(reason: str) -> str:
    """A reason as the table has it: `MAX_TOKENS`, `max-tokens`, `maxTokens` and `FINISH_REASON_MAX_TOKENS` are `max_tokens`.

    Google's hosts write what it is about before it, as in `content_filter: SAFETY`.
    """
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", reason.rpartition(":")[2].strip())
    return re.sub(r"[^a-z]+", "_", word.lower()).removeprefix("finish_reason_").strip("_")
