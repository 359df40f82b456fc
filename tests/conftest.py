"""How much the property-based tests try: `--hypothesis-profile=fuzz` for a run that is meant to find something new.

`ci`, which is the default, tries the same few inputs each time, so that a test fails for a change of the code alone.

And what tests of several kinds share; with one process a core, each has its own.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.ports import free_port
from tests.postgres import Postgres

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]

settings.register_profile("ci", max_examples=100, derandomize=True, deadline=None, database=None, suppress_health_check=SLOW)
settings.register_profile("fuzz", max_examples=5000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server of our own, which may be stopped."""
    with Postgres() as server:
        yield server


@pytest.fixture
def unused_tcp_port() -> int:
    """A port that no connection takes before its server does, other than that of pytest-asyncio."""
    return free_port()
