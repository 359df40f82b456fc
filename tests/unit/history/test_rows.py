"""What stands beside a message in its row."""

from hypothesis import given

from antiphon import domain
from antiphon.domain import Message, Role
from antiphon.history import rows
from tests.unit.blocks import usages


@given(usages)
def test_tokens_are_read_as_they_were_written(usage: domain.Usage) -> None:
    """What was not told and what was told to be none are two things."""
    body = rows.reply(Message(Role.ASSISTANT, (domain.Text("Hi"),)))
    row = ("m", None, body, "complete", 0, None, "gpt", "openai", rows.usage(usage), "stop", "")
    assert rows.stored(row).usage == usage


def test_tokens_are_stored_by_the_names_that_the_version_before_knows() -> None:
    """The form is a contract: rows are never written again, and that version reads those of this one."""
    usage = domain.Usage(1, 2, 3, 4, 5, None, 6, 7, 8, extra={"cost": 0.5}, estimated=True)
    assert rows.usage(usage) == (
        '{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"cached_prompt_tokens":4,"cache_write_tokens":5,'
        '"reasoning_tokens":6,"audio_prompt_tokens":7,"audio_completion_tokens":8,"extra":{"cost":0.5},"estimated":true}'
    )
