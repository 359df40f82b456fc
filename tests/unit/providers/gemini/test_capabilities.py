"""What Gemini's models accept."""

import pytest

from antiphon.providers.gemini.capabilities import capabilities_of


@pytest.mark.parametrize(
    ("model", "none", "low", "high", "signs"),
    [
        ("gemini-2.5-flash", 0, 1024, 24576, False),
        ("models/gemini-2.5-flash-lite-preview", 0, 1024, 24576, False),
        ("gemini-2.5-pro", 128, 1024, 24576, False),
        ("gemini-3-flash-preview", "MINIMAL", "LOW", "HIGH", True),
        ("gemini-3-pro-preview", "LOW", "LOW", "HIGH", True),
        ("gemini-3.1-pro-preview", "LOW", "LOW", "HIGH", True),
        ("gemini-3.1-flash-lite", "MINIMAL", "LOW", "HIGH", True),
        ("gemini-3.1-flash-image-preview", "MINIMAL", "MINIMAL", "HIGH", True),
        ("gemini-3.5-flash", "MINIMAL", "LOW", "HIGH", True),
        ("gemini-3.6-flash", "MINIMAL", "LOW", "HIGH", True),
        ("gemini-3.7-flash", "LOW", "LOW", "HIGH", True),
        ("publishers/google/models/gemini-3.8-flash-001", "LOW", "LOW", "HIGH", True),
        ("gemini-3.9-flash-lite", "MINIMAL", "LOW", "HIGH", True),
        ("gemini-flash-lite-latest", "MINIMAL", "LOW", "HIGH", True),
        ("gemini-flash-latest", "LOW", "LOW", "HIGH", True),
        ("gemini-9", "LOW", "LOW", "HIGH", True),
        ("gemini-2.0-flash", None, None, None, False),
        ("gemma-3-27b-it", None, None, None, False),
        ("gemini-2.5-flash-image", None, None, None, False),
        ("gemini-3-pro-image-preview", None, None, None, True),
    ],
)
def test_rows(model: str, none: int | str | None, low: int | str | None, high: int | str | None, signs: bool) -> None:
    """Budgets before version 3, levels from then on, and a model that is not known is one of the newest."""
    found = capabilities_of(model)
    assert [found.levels.get(effort, found.budgets.get(effort)) for effort in ("none", "low", "high")] == [none, low, high]
    assert found.signs_calls is signs
    assert not (found.levels and found.budgets)
