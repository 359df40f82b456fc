"""The policy for parameters that a provider or model does not have (`providers.<name>.unsupported`). No I/O.

A request encoder states each such parameter in one line:

    parameters.dropped(("sampling", "seed"), "the API has no seed")
    if parameters.mapped(("reasoning", "effort"), "thinking.budget_tokens", "the model is told a number of tokens"):
        body["thinking"] = ...

Most are data, which `support` applies. Content that a provider cannot express is `Unsupported` whatever the policy: a conversation
without part of it would be another one.
"""

from __future__ import annotations

from msgspec import Struct

from antiphon.config import UnsupportedPolicy
from antiphon.domain.errors import Unsupported, Violation
from antiphon.domain.warnings import ParameterWarning, Treatment, Warnings


class Parameters(Struct):
    """The unsupported parameters of one request."""

    _provider: str
    _policy: UnsupportedPolicy = "map"
    warnings: Warnings = ()
    """The warnings so far, in order."""

    def dropped(self, path: tuple[str, ...], reason: str) -> None:
        """Report that a parameter is left out.

        `path` is its path in `ChatRequest`, `reason` ASCII text. Raises `Unsupported` if the policy is to refuse.
        """
        self._check(path, reason)
        self._warn(ParameterWarning(path, Treatment.DROPPED, reason))

    def mapped(self, path: tuple[str, ...], to: str, reason: str) -> bool:
        """Report that a parameter is sent as its nearest equivalent `to`; return False if it has to be left out instead.

        The arguments and the errors are those of `dropped`.
        """
        self._check(path, reason)
        if self._policy == "drop":
            self._warn(ParameterWarning(path, Treatment.DROPPED, reason))
            return False
        self._warn(ParameterWarning(path, Treatment.MAPPED, reason, to))
        return True

    def _warn(self, warning: ParameterWarning) -> None:
        """Add a warning, once for all entries of a list."""
        if warning not in self.warnings:
            self.warnings += (warning,)

    def _check(self, path: tuple[str, ...], reason: str) -> None:
        if self._policy == "refuse":
            raise Unsupported(
                f"The provider {self._provider} does not support {'.'.join(path)}: {reason}.",
                self._provider,
                (Violation(path, f"is not supported by the provider {self._provider}: {reason}", "unsupported"),),
            )
