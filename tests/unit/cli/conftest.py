"""Fixtures that undo what a command changes in the test process."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def default_log() -> Iterator[None]:
    """Reset structlog after each test, because a command configures it for the whole process."""
    yield
    structlog.reset_defaults()
