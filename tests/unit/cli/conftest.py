"""What commands leave behind in the process of the tests."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def default_log() -> Iterator[None]:
    """The log as it was: a command configures it for its process, and other tests read what is logged."""
    yield
    structlog.reset_defaults()
