"""Tests of the addresses to listen on: which cannot be used, and what is said of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from antiphon.config import Config
from antiphon.up.addresses import unusable_addresses
from tests.ports import free_port


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def config(**settings: object) -> Config:
    return Config.model_validate(
        {"grpc": {"listen": f"127.0.0.1:{free_port()}"}, "rest": {"listen": f"127.0.0.1:{free_port()}"}, **settings}
    )


@pytest.mark.parametrize(
    ("setting", "variable"),
    [
        ("grpc", "ANTIPHON_GRPC__LISTEN=127.0.0.1:"),
        ("rest", "ANTIPHON_REST__LISTEN=127.0.0.1:"),
        ("metrics", "ANTIPHON_METRICS__LISTEN=127.0.0.1:"),
    ],
)
def test_a_taken_address_is_reported_by_its_setting(taken: int, setting: str, variable: str) -> None:
    """A taken address is reported with its setting, and with the variable and a free port to change it."""
    (line,) = unusable_addresses(config(**{setting: {"listen": f"127.0.0.1:{taken}"}}))
    assert line.startswith(f"{setting}.listen: 127.0.0.1:{taken} is taken")
    proposed = int(line.partition(variable)[2])
    with socket.socket() as free:
        free.bind(("127.0.0.1", proposed))


def test_an_address_taken_with_reuseport_is_taken() -> None:
    """An address that another gateway's workers share by SO_REUSEPORT counts as taken."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = config(grpc={"listen": f"127.0.0.1:{other.getsockname()[1]}"})
        assert len(unusable_addresses(settings)) == 1


def test_what_is_proposed_is_free() -> None:
    """The proposed port is free and not that of the other setting."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        first.listen()
        port = first.getsockname()[1]
        try:
            second.bind(("127.0.0.1", port + 1))
            second.listen()
        except OSError:
            pass  # another process has the port, which serves the test as well
        settings = config(grpc={"listen": f"127.0.0.1:{port}"}, rest={"listen": f"127.0.0.1:{port + 2}"})
        line = unusable_addresses(settings)[0]
        assert int(line.rpartition(":")[2]) not in (port, port + 1, port + 2)


def test_both_settings_cannot_have_one_address() -> None:
    """If two settings name the same address, the second one is reported."""
    port = free_port()
    (line,) = unusable_addresses(config(grpc={"listen": f"127.0.0.1:{port}"}, rest={"listen": f"localhost:{port}"}))
    assert line.startswith("rest.listen")


def test_an_address_of_another_machine_is_reported() -> None:
    """An address that this machine does not have is reported with the system's reason."""
    (line,) = unusable_addresses(config(rest={"listen": "203.0.113.1:8080"}))
    assert line.startswith("rest.listen: 203.0.113.1:8080 cannot be listened on: ")
    assert line.endswith(". Change rest.listen or ANTIPHON_REST__LISTEN.")


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label empty or too long")])
def test_an_unknown_host_is_reported(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A host without an address, or with an invalid name, is reported."""

    def fail(*_: object, **__: object) -> None:
        raise error

    settings = config()
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    lines = unusable_addresses(settings)
    assert [line.split(":")[0] for line in lines] == ["grpc.listen", "rest.listen"]
    assert not any("None" in line for line in lines)
