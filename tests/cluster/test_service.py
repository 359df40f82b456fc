"""The Services in front of the pods."""

import socket

from tests.cluster.service import answer, rules

QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00"


def test_each_ready_pod_has_the_same_share() -> None:
    """The first rule of three takes a third of the connections, the second half of what is left, the last the rest."""
    lines = rules(["198.18.0.2", "198.18.0.3", "198.18.0.4"], 443, 8443).splitlines()
    shares = [(line.split("--probability ")[1].split()[0], line.rsplit(" ", 1)[1]) for line in lines if "DNAT" in line]
    assert shares == [("0.333333", "198.18.0.2:8443"), ("0.500000", "198.18.0.3:8443"), ("1.000000", "198.18.0.4:8443")]


def test_names_have_addresses_and_nothing_else() -> None:
    """A query for IPv4 addresses gets them. Other queries get an empty answer without an error."""
    response = answer(QUERY + b"\x00\x01\x00\x01", ["198.18.0.2", "198.18.0.3"])
    assert response[:8] == b"\x12\x34\x85\x80\x00\x01\x00\x02"
    assert [socket.inet_ntoa(response[end - 4 : end]) for end in (len(response) - 16, len(response))] == [
        "198.18.0.2",
        "198.18.0.3",
    ]
    assert answer(QUERY + b"\x00\x1c\x00\x01", ["198.18.0.2"])[6:8] == b"\x00\x00"
