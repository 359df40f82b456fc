"""Tests of certificates in files: messages for unusable ones, and what a port shows when the files change."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from antiphon.auth.api_keys.static import KeyRing
from antiphon.config import Config, ConfigError, TlsConfig
from antiphon.net import certificates as tls
from antiphon.net.certificates import Certificates
from antiphon.rpc.handlers import CallHandlers
from antiphon.rpc.server import Server
from tests.certificates import DAY, Authority, Pair, replace
from tests.ports import free_port

CHECK = health_pb2.HealthCheckRequest()


class Files:
    """A certificate and an authority in files of a folder."""

    def __init__(self, folder: Path, *, mutual: bool = False) -> None:
        self.folder = folder
        self.authority = Authority()
        self.write(self.pair())
        client_ca = self.authority.write(folder / "ca.crt") if mutual else None
        self.config = TlsConfig(certificate=folder / "tls.crt", key=folder / "tls.key", client_ca=client_ca)

    def pair(self, *names: str, **options: Any) -> Pair:
        return self.authority.issue(*(names or ("localhost", "127.0.0.1")), **options)

    def write(self, pair: Pair) -> Pair:
        pair.write(self.folder, "tls")
        return pair

    def channel(self, port: int, client: Pair | None = None, authority: Authority | None = None) -> grpc.aio.Channel:
        """Return a gRPC channel to the port that shares no connection with others."""
        ca = (authority or self.authority).pem
        credentials = grpc.ssl_channel_credentials(ca, client and client.key, client and client.certificate)
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=[("grpc.use_local_subchannel_pool", 1)])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@asynccontextmanager
async def serving(certificates: Certificates) -> AsyncIterator[int]:
    port = free_port()
    server = Server(CallHandlers(KeyRing([]), {}, {}), [])
    server.listen(f"127.0.0.1:{port}", certificates.credentials())
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0, lambda: None)


def served_serial(port: int, name: str = "localhost") -> int:
    """Return the serial number of the certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as made,
    ):
        der = made.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


async def healthy(channel: grpc.aio.Channel) -> bool:
    async with channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(CHECK, timeout=10)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


# Unusable files


def _encrypted(pair: Pair) -> bytes:
    key = serialization.load_pem_private_key(pair.key, None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


@pytest.mark.parametrize(
    ("setting", "file", "damage", "words"),
    [
        ("certificate", "tls.crt", None, "No such file or directory"),
        ("certificate", "tls.crt", lambda _: b"", "holds no certificate in PEM"),
        ("certificate", "tls.crt", lambda pair: pair.certificate[:200], "holds no certificate in PEM"),
        ("certificate", "tls.crt", lambda pair: pair.key, "holds no certificate in PEM"),
        ("key", "tls.key", None, "No such file or directory"),
        ("key", "tls.key", lambda pair: pair.key[:100], "is not a private key in PEM"),
        ("key", "tls.key", lambda pair: pair.certificate, "is not a private key in PEM"),
        ("key", "tls.key", _encrypted, "needs a password"),
        ("key", "tls.key", lambda _: Authority().issue("x").key, "is not the key of the first certificate in"),
        ("client_ca", "ca.crt", None, "No such file or directory"),
        ("client_ca", "ca.crt", lambda _: b"none", "holds no certificate in PEM"),
    ],
)
def test_an_unusable_file_is_refused_by_name(
    tmp_path: Path, setting: str, file: str, damage: Callable[[Pair], bytes] | None, words: str
) -> None:
    """An unusable file is a `ConfigError` of one line with the setting and the file, and without its content."""
    files = Files(tmp_path, mutual=True)
    path = tmp_path / file
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(files.write(files.pair())))
    with pytest.raises(ConfigError) as caught:
        tls.check(Config(grpc={"tls": files.config.model_dump()}))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"grpc.tls.{setting}: {path}: {words}")
    assert "BEGIN" not in line


def test_all_that_is_named_is_checked(files: Files) -> None:
    """All configured files are checked: those of the edge, and those for its upstream."""
    pair = files.config.model_dump(include={"certificate", "key"})
    ca = files.authority.write(files.folder / "ca.crt")
    upstream = {"address": "server:1", "tls": {"ca": ca, "server_name": "server", **pair}}
    tls.check(Config(rest={"tls": pair, "upstream": upstream}))
    ca.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"^rest.upstream.tls.ca: "):
        tls.check(Config(rest={"tls": pair, "upstream": upstream}))
    (files.folder / "tls.key").unlink()
    with pytest.raises(ConfigError, match=r"^rest.tls.key: "):
        tls.check(Config(rest={"tls": pair, "upstream": upstream}))


# Certificates of a port


async def test_a_new_certificate_is_shown_to_new_connections(files: Files) -> None:
    """A new certificate is used from the next handshake on, without a restart. Open streams go on."""
    first = files.write(files.pair())
    async with serving(Certificates("grpc.tls", files.config)) as port, files.channel(port) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(CHECK)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert await asyncio.to_thread(served_serial, port) == first.serial
        second = files.write(files.pair())
        assert await asyncio.to_thread(served_serial, port) == second.serial
        assert await healthy(files.channel(port))
        assert not watch.done()
        assert await health_pb2_grpc.HealthStub(channel).Check(CHECK)


async def test_a_mounted_secret_is_replaced_as_kubernetes_does(tmp_path: Path) -> None:
    """A certificate is noticed that Kubernetes replaces by changing a symbolic link to the folder, with the files unchanged."""
    authority = Authority()
    pairs = []
    for number in (1, 2):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        pairs.append(authority.issue("localhost"))
        pairs[-1].write(folder, "tls")
    (tmp_path / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    config = TlsConfig(certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key")
    async with serving(Certificates("grpc.tls", config)) as port:
        assert await asyncio.to_thread(served_serial, port) == pairs[0].serial
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        assert await asyncio.to_thread(served_serial, port) == pairs[1].serial


async def test_a_broken_pair_keeps_the_one_before(files: Files) -> None:
    """A broken or missing file, or a key of another certificate, keeps the previous pair and is logged once.

    The next valid pair is used.
    """
    first = files.write(files.pair())
    async with serving(Certificates("grpc.tls", files.config)) as port:
        with capture_logs() as lines:
            for path, data in (
                (files.config.certificate, first.certificate[:100]),
                (files.config.certificate, files.pair().certificate),
                (files.config.key, None),
            ):
                if data is None:
                    path.unlink()
                else:
                    replace(path, data)
                for _ in range(2):
                    assert await asyncio.to_thread(served_serial, port) == first.serial
            last = files.write(files.pair())
            assert await asyncio.to_thread(served_serial, port) == last.serial
    assert [line["event"] for line in lines][:3] == ["certificate_not_read"] * 3
    assert lines[-1]["event"] == "certificate_read"
    assert all(line["older_one_used"] for line in lines[:3])
    assert "is not the key of" in lines[1]["error"]


@pytest.mark.parametrize("client", ["none", "stranger", "expired", "good"])
async def test_only_a_caller_with_a_good_certificate_connects(tmp_path: Path, client: str) -> None:
    """With a client authority, only callers with a valid certificate of it connect. A changed authority holds at once."""
    files = Files(tmp_path, mutual=True)
    pairs = {
        "none": None,
        "stranger": Authority().issue("client"),
        "expired": files.pair("client", days=-1, age=2),
        "good": files.pair("client"),
    }
    async with serving(Certificates("grpc.tls", files.config)) as port:
        assert await healthy(files.channel(port, pairs[client])) is (client == "good")
        if client == "good":
            other = Authority()
            assert files.config.client_ca is not None
            replace(files.config.client_ca, other.pem)
            assert not await healthy(files.channel(port, pairs[client]))
            assert await healthy(files.channel(port, other.issue("client")))


async def test_a_caller_does_not_take_another_for_the_server(files: Files) -> None:
    """A caller refuses a server of an unknown authority or another name."""
    async with serving(Certificates("grpc.tls", files.config)) as port:
        assert not await healthy(files.channel(port, authority=Authority()))
        files.write(files.pair("other.test"))
        assert not await healthy(files.channel(port))


async def test_plain_text_is_refused(files: Files) -> None:
    """A port with TLS does not answer callers without it."""
    async with serving(Certificates("grpc.tls", files.config)) as port:
        assert not await healthy(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        assert await healthy(files.channel(port))


async def test_a_unix_socket_is_only_this_users(tmp_path: Path) -> None:
    """A unix socket has mode 0600, whatever the umask."""
    path = tmp_path / "server.sock"
    before = os.umask(0)
    server = Server(CallHandlers(KeyRing([]), {}, {}), [])
    try:
        server.listen(f"unix:{path}")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    await server.start()
    assert await healthy(grpc.aio.insecure_channel(f"unix:{path}"))
    await server.stop(0, lambda: None)


# Expiry


def test_the_expiry_of_a_certificate_is_logged_in_advance(files: Files) -> None:
    """A warning is logged once a day from thirty days before a certificate expires, and an error afterwards.

    A new certificate ends that.
    """
    now = 0.0
    certificates = Certificates("grpc.tls", files.config, clock=lambda: now)
    ends = tls.read("grpc.tls", files.config).ends
    day = DAY.total_seconds()

    def events_at(at: float) -> list[str]:
        nonlocal now
        now = at
        with capture_logs() as lines:
            certificates.refresh()
        return [f"{line['log_level']} {line['event']}" for line in lines if line["event"] != "certificate_read"]

    assert events_at(ends - 31 * day) == []
    assert events_at(ends - 29 * day) == ["warning certificate_ends_soon"]
    assert events_at(ends - 28.5 * day) == []
    assert events_at(ends - 27.9 * day) == ["warning certificate_ends_soon"]
    assert events_at(ends + 1) == ["error certificate_has_ended"]
    files.write(files.pair(days=4000))
    assert events_at(ends + 2) == []


def test_a_certificate_of_a_day_is_not_always_about_to_end(files: Files) -> None:
    """A short-lived certificate is reported only in the last fifth of its lifetime."""
    files.write(files.pair(days=1, age=0))
    ends = tls.read("grpc.tls", files.config).ends
    now = ends - 6 * 3600
    certificates = Certificates("grpc.tls", files.config, clock=lambda: now)
    with capture_logs() as lines:
        certificates.refresh()
        now = ends - 4 * 3600
        certificates.refresh()
    assert [line["event"] for line in lines] == ["certificate_read", "certificate_ends_soon"]


def test_missing_files_are_logged_once(files: Files) -> None:
    """Missing files are logged once by a process that only watches them, and are read when they appear."""
    files.config.key.unlink()
    certificates = Certificates("rest.tls", files.config)
    with capture_logs() as lines:
        certificates.refresh()
        certificates.refresh()
        files.write(files.pair())
        certificates.refresh()
    assert [line["event"] for line in lines] == ["certificate_not_read", "certificate_read"]
