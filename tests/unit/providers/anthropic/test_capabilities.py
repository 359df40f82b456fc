"""What each Claude model accepts."""

import pytest

from antiphon.providers.anthropic.capabilities import ThinkingControl, ThinkingOff, capabilities


@pytest.mark.parametrize(
    ("model", "max_output", "thinking", "off", "others"),
    [
        ("claude-future-9", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.DISABLED, (False, True, True, True)),
        ("claude-opus-5-20260901", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.DISABLED, (False, True, True, True)),
        ("us.anthropic.claude-opus-4-8-v1:0", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.DISABLED, (False, True, True, True)),
        ("claude-sonnet-5@20260701", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.DISABLED, (False, True, True, False)),
        ("claude-sonnet-5.5", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.BETWEEN_TOOLS, (False, False, True, True)),
        ("claude-haiku-5-5", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.DISABLED, (False, True, True, True)),
        ("claude-opus-4-9", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.LOW_EFFORT, (False, False, True, True)),
        ("claude-opus-4-10", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.LOW_EFFORT, (False, False, True, True)),
        (
            "us.anthropic.claude-sonnet-4-7-v1:0",
            128_000,
            ThinkingControl.ADAPTIVE,
            ThinkingOff.BETWEEN_TOOLS,
            (False, False, True, True),
        ),
        ("claude-opus-4-0", 32_000, ThinkingControl.BUDGET, ThinkingOff.DISABLED, (True, True, False, False)),
        ("claude-sonnet-4-6-1m", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.DISABLED, (True, True, True, False)),
        ("anthropic.claude-v2:1", 4096, ThinkingControl.NONE, ThinkingOff.DISABLED, (True, True, False, False)),
        ("claude-2.1", 4096, ThinkingControl.NONE, ThinkingOff.DISABLED, (True, True, False, False)),
        ("claude-opus-5-5", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.LOW_EFFORT, (False, False, True, True)),
        ("claude-fable-5-20260901", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.LOW_EFFORT, (False, True, True, True)),
        ("claude-fable-5-1-20260901", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.LOW_EFFORT, (False, False, True, True)),
        ("claude-mythos-preview", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.LOW_EFFORT, (False, True, True, True)),
        ("anthropic/claude-opus-4.6", 128_000, ThinkingControl.ADAPTIVE, ThinkingOff.DISABLED, (True, True, True, False)),
        ("claude-haiku-4-5", 64_000, ThinkingControl.BUDGET, ThinkingOff.DISABLED, (True, True, True, False)),
        ("claude-opus-4-20250514", 32_000, ThinkingControl.BUDGET, ThinkingOff.DISABLED, (True, True, False, False)),
        ("claude-opus-4-1-20250805", 32_000, ThinkingControl.BUDGET, ThinkingOff.DISABLED, (True, True, True, False)),
        ("claude-3-5-haiku-latest", 8192, ThinkingControl.NONE, ThinkingOff.DISABLED, (True, True, False, False)),
        ("kimi-k3", 8192, ThinkingControl.BUDGET, ThinkingOff.DISABLED, (True, True, True, False)),
    ],
)
def test_models(
    model: str, max_output: int, thinking: ThinkingControl, off: ThinkingOff, others: tuple[bool, bool, bool, bool]
) -> None:
    """Prefixes and dates do not matter, and a new model is like the newest."""
    row = capabilities(model)
    assert (row.max_output, row.thinking, row.off) == (max_output, thinking, off)
    assert (row.sampling, row.forced_tools, row.structured_output, row.system_turns) == others
