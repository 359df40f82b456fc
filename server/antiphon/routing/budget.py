"""The retry budget of a deployment: how many calls may be sent to it again. No I/O.

Each first try deposits a part of a retry, and each retry withdraws a whole one. So the calls that a failing deployment receives are
bounded to 1 + `rate` times those that callers make, apart from `START` at the beginning.
"""

from __future__ import annotations

from typing import Final

START: Final = 10.0
"""The retries that are allowed before any call was made."""

CAP: Final = 100.0
"""The most retries that are saved up."""


class RetryBudget:
    """The budget of one deployment. `rate` is the retries per first try."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.left = START if rate else 0.0
        """The retries that may be made now."""

    def deposit(self) -> None:
        """Note a first try. Runs for every call."""
        left = self.left + self.rate
        self.left = min(CAP, left)

    def withdraw(self) -> bool:
        """Take one retry, and return True; or return False if there is none."""
        if self.left < 1:
            return False
        self.left -= 1
        return True
