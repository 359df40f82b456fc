"""What the models of each maker accept."""

import pytest

from antiphon.providers.bedrock.capabilities import UNKNOWN, Effort, family, maker


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic"),
        ("us.anthropic.claude-opus-5-v1:0", "anthropic"),
        ("us-gov.amazon.nova-pro-v1:0", "amazon"),
        ("global.amazon.nova-2-lite-v1:0", "amazon"),
        ("meta.llama3-3-70b-instruct-v1:0", "meta"),
        ("arn:aws:bedrock:us-east-1::foundation-model/mistral.mistral-large-2407-v1:0", "mistral"),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.deepseek.r1-v1:0", "deepseek"),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc", ""),
        ("somebody.model-v1:0", ""),
        ("amazon", ""),
    ],
)
def test_makers(model: str, expected: str) -> None:
    """A model's id names its maker, also within an ARN and after the name of a group of regions."""
    assert maker(model) == expected


def test_families() -> None:
    """A maker that is not known accepts what all do."""
    assert family("somebody.model-v1:0") == UNKNOWN
    assert family("us.amazon.nova-2-lite-v1:0").effort is Effort.NOVA
    assert family("us.amazon.nova-pro-v1:0").effort is Effort.NONE
    assert not family("meta.llama3-3-70b-instruct-v1:0").text_beside_results
