"""Decides when a reply of the Gemini API has ended, and what its finish reasons mean. No I/O.

https://ai.google.dev/api/generate-content#FinishReason. The rules:

- There is no marker of the end: a reply is complete if each choice has a finish reason, or the prompt was blocked.
- The end of the body ends a reply, which may have fewer choices than requested: the API leaves out what it made none of.
- `WAIT` seconds of silence after the last finish reason end it, too, and so does a connection without any other end of the body, if
  all choices requested are there: it may have been cut between two choices.
- Output after a finish reason takes it back, unless a finish reason comes with it.
"""

from __future__ import annotations

from typing import Final

from antiphon.domain.events import FinishReason

WAIT: Final = 5.0
"""Seconds of silence that end a complete reply."""

UNSPECIFIED: Final = "FINISH_REASON_UNSPECIFIED"
"""The finish reason that means none."""

REASONS: Final = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "LANGUAGE",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "MODEL_ARMOR",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
        ),
        FinishReason.CONTENT_FILTER,
    ),
    "CONTINUATION": FinishReason.PAUSE,
    **dict.fromkeys(("OTHER", "IMAGE_OTHER", "NO_IMAGE", "ESCALATION", "PUP_LIMITED_DISABLED"), FinishReason.OTHER),
}

FAILURES: Final = {
    "MALFORMED_FUNCTION_CALL": True,
    "MALFORMED_RESPONSE": True,
    "UNEXPECTED_TOOL_CALL": True,
    "TOO_MANY_TOOL_CALLS": True,
    "MISSING_THOUGHT_SIGNATURE": False,
}
"""Finish reasons that are failures, and whether a retry may succeed."""


def is_failure(reason: str) -> bool:
    """Return whether a finish reason means a failure."""
    return reason in FAILURES or reason.startswith("MALFORMED")


class GeminiEnding:
    """What is known about the end of a reply."""

    def __init__(self, choices: int | None) -> None:
        """`choices` is the number requested; None means 1."""
        self.done = False
        """Always false: the API has no marker of the end."""
        self.changed = False
        """The time that `wait` returns starts again. The caller resets this flag."""
        self.is_object = False
        """The reply is one JSON object."""
        self.is_blocked = False
        """The prompt was blocked: there is no choice."""
        self.reasons: dict[int, str] = {}
        """The finish reason of each choice, as the provider sent it; empty while the choice continues."""
        self._asked = choices or 1

    def set(self, choice: int, reason: str) -> None:
        """Record the finish reason of a choice. Empty: the choice continues."""
        self.reasons[choice] = reason
        self.changed = True

    def block(self) -> None:
        """Record that the prompt was blocked."""
        self.is_blocked = self.changed = True

    def is_complete(self, *, silent: bool) -> bool:
        """Return whether the reply is complete if it ends now. `silent`: nothing marked the end of the body."""
        if not self.reasons:
            return self.is_blocked
        return all(self.reasons.values()) and (not silent or self.is_blocked or len(self.reasons) >= self._asked)

    def wait(self) -> float | None:
        """Return the seconds of silence that end the reply; None while it is unfinished."""
        return WAIT if self.is_complete(silent=True) else None
