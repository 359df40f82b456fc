"""Tests of which host's capabilities a provider has."""

import pytest

from antiphon.providers.hosts import HOSTS
from antiphon.providers.openai import capabilities
from antiphon.providers.openai.capabilities import UNKNOWN, Thoughts, capabilities_of


@pytest.mark.parametrize(
    ("name", "base_url", "takes"),
    [
        ("mistral", None, Thoughts.PARTS),
        ("mistral", "https://proxy.test/v1", Thoughts.PARTS),
        ("mine", "https://api.mistral.ai/v1", Thoughts.PARTS),
        ("mine", "https://api.deepseek.com/beta", Thoughts.REASONING_CONTENT),
        ("mine", "https://proxy.test/v1", Thoughts.AS_RECEIVED),
        ("mine", "http://127.0.0.1:8000/v1", Thoughts.AS_RECEIVED),
        ("openai", "http://127.0.0.1:8000/v1", Thoughts.NONE),
        ("gemini", "https://proxy.test/v1", Thoughts.NONE),
        ("mine", "https://generativelanguage.googleapis.com/v1beta/openai", Thoughts.NONE),
    ],
)
def test_capabilities_are_found_by_url_or_name(name: str, base_url: str | None, takes: Thoughts) -> None:
    """A host's capabilities are found by the base URL, whatever the provider is called, and else by name."""
    assert capabilities_of(name, base_url).thoughts is takes


def test_rows_belong_to_hosts() -> None:
    """Each row is that of a host with this protocol, and a host without the protocol counts as unknown."""
    names = {host.name for host in HOSTS if host.protocol == "openai" or host.openai_url}
    assert capabilities._BY_HOST.keys() <= names
    assert capabilities_of("cohere", None) is UNKNOWN
