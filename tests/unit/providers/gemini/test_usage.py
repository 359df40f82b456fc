"""Tokens as the Gemini API counts them."""

from antiphon.domain.events import Usage
from antiphon.providers.gemini.usage import read


def test_all_classes() -> None:
    """Input has the results of the provider's tools, output the thoughts; the rest is kept."""
    details = {
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 60},
            {"modality": "IMAGE", "tokenCount": 30},
            {"modality": "AUDIO", "tokenCount": 10},
        ],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 5}, {"modality": "AUDIO", "tokenCount": 2}],
        "trafficType": "ON_DEMAND",
    }
    raw = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 50,
        "toolUsePromptTokenCount": 7,
        "candidatesTokenCount": 10,
        "thoughtsTokenCount": 20,
        "totalTokenCount": 137,
        **details,
    }
    assert read(raw) == Usage(
        107,
        30,
        137,
        cached_tokens=50,
        reasoning_tokens=20,
        audio_input_tokens=10,
        audio_output_tokens=2,
        image_input_tokens=30,
        image_output_tokens=5,
        extra={"toolUsePromptTokenCount": 7, **details},
    )


def test_thoughts_that_are_candidates() -> None:
    """Where the total says that the candidates include the thoughts, they are not counted twice."""
    used = read({"promptTokenCount": 10, "candidatesTokenCount": 30, "thoughtsTokenCount": 20, "totalTokenCount": 40})
    assert used == Usage(10, 30, 40, reasoning_tokens=20)


def test_what_is_not_told() -> None:
    """No count is no usage, and a wrong one is none."""
    assert read({}) is None
    assert read({"trafficType": "ON_DEMAND"}) is None
    assert read({"promptTokenCount": "9", "candidatesTokenCount": -1}) is None
    assert read({"promptTokenCount": 3}) == Usage(3, 0, 3)
    assert read({"promptTokenCount": 3, "promptTokensDetails": 1, "thoughtsTokenCount": 0}) == Usage(
        3, 0, 3, reasoning_tokens=0, extra={"promptTokensDetails": 1}
    )


def test_the_service_that_a_call_got() -> None:
    """The Gemini API and Vertex AI name it differently. The usual one, and the way of payment, are none."""

    def tier(**fields: str) -> str:
        used = read({"promptTokenCount": 1, "totalTokenCount": 1, **fields})
        assert used is not None
        return used.service_tier

    assert [tier(serviceTier=word) for word in ("flex", "PRIORITY", "standard", "unspecified")] == ["flex", "priority", "", ""]
    assert [tier(trafficType=word) for word in ("ON_DEMAND_FLEX", "ON_DEMAND_PRIORITY", "ON_DEMAND")] == ["flex", "priority", ""]
    assert tier(trafficType="PROVISIONED_THROUGHPUT") == "provisioned_throughput"
    assert tier() == ""
