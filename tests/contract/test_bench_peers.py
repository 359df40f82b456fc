"""The other gateways of the benchmark."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bench.peers import DIRECT, KEY, PEERS, Peer, Place, port_printed


def _place(folder: Path) -> Place:
    upstream: Any = SimpleNamespace(port=1234, base_url="http://127.0.0.1:1234/v1", pid=os.getpid())
    return Place(folder, 4321, (4322, 4323), upstream)


@pytest.mark.parametrize("peer", [peer for peer in PEERS.values() if peer is not DIRECT], ids=lambda peer: peer.name)
def test_each_is_told_where_its_provider_is(peer: Peer, tmp_path: Path) -> None:
    """By its command, by a file that it is given, or by a header; and it listens where it should, unless it chooses a port."""
    place = _place(tmp_path)
    command = [str(word) for word in peer.command(place)]
    told = "\n".join([*command, *peer.headers(place), *(path.read_text() for path in tmp_path.iterdir())])
    assert "1234" in told
    assert ("4321" in told) == (not peer.listens_at)
    assert "0.0.0.0" not in told


def test_versions_are_pinned() -> None:
    """Those that pip and npm install."""
    installed = [peer for peer in PEERS.values() if peer.packages or peer.node]
    assert installed
    for peer in installed:
        assert peer.version
        assert all(f"=={peer.version}" in package for package in peer.packages)
        assert not peer.node or peer.version in json.dumps(peer.node["dependencies"])


def test_a_port_is_found_in_what_is_printed() -> None:
    """Once it is printed."""
    tensorzero = PEERS["tensorzero"]
    assert port_printed(tensorzero, "") is None
    assert port_printed(tensorzero, f"{KEY}\nhttp://127.0.0.1:40123\n") == 40123


def test_one_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves nothing behind."""
    monkeypatch.setattr("tests.bench.peers.FOLDER", tmp_path)
    monkeypatch.setattr("tests.bench.peers.shutil.which", lambda _name: None)
    assert PEERS["portkey"].install() == "there is no npm"
    missing = Peer("missing", lambda _place: [], packages=(f"{tmp_path}/nowhere.whl",))
    assert "nowhere.whl" in missing.install()
    assert not missing.folder.exists()
