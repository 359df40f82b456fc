"""Settings of the property-based tests, and fixtures that several kinds of tests share.

The profile `ci`, the default, tries the same few inputs each time, so that a test fails only for a change of the code. Use
`--hypothesis-profile=fuzz` to look for new failures. With one test process for each core, each has its own fixtures.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.ports import free_port
from tests.postgres import Postgres

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]

settings.register_profile("ci", max_examples=100, derandomize=True, deadline=None, database=None, suppress_health_check=SLOW)
settings.register_profile("fuzz", max_examples=5000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile("ci")


def pytest_configure() -> None:
    """Have gRPC read connections as it does in a worker (`antiphon.up.launch`). It looks at this when it is imported."""
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Yield a PostgreSQL server for these tests alone, which they may stop."""
    with Postgres() as server:
        yield server


@pytest.fixture
def unused_tcp_port() -> int:
    """Return a port that no connection takes before its server does, unlike that of pytest-asyncio."""
    return free_port()
