"""The methods of the proxies: what each needs. Their responses are the provider's."""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.principal import Scope
from antiphon.rest.proxy.errors import GEMINI
from antiphon.rest.shared.body import Fields
from antiphon.rest.shared.dialect import Method


class ProxiedChat(Fields):
    """A chat completion. Only these fields are checked; all others are passed on."""

    model: str
    messages: list[Any]


class ProxiedPart(Fields):
    """A part of a content."""

    text: str | None = None


class ProxiedContent(Fields):
    """A content: the parts of one message."""

    parts: list[ProxiedPart]
    role: str | None = None


class ProxiedSetting(Fields):
    """The threshold from which a category of harm is blocked."""

    category: str
    threshold: str


class ProxiedContents(Fields):
    """A call of a Gemini model. Only these fields are checked; all others are passed on. countTokens may have other fields.

    The known fields of `generationConfig` have the types that the Gemini API documents.
    """

    contents: list[ProxiedContent]
    generationConfig: dict[str, Any] | None = None
    safetySettings: list[ProxiedSetting] | None = None


METHODS: Final = {
    "ProxyChatCompletion": Method(Scope.PROXY, passes_on=True, body=ProxiedChat),
    "ProxyGemini": Method(Scope.PROXY, passes_on=True, body=ProxiedContents, errors=GEMINI),
}
