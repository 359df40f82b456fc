"""The certificates of a port: read from files, checked, and read again when the files change, with every connection kept.

A new pair is used from the next handshake on. One that is half written, or whose key is not of its certificate, is told in the log
and keeps the one before in force. A certificate that is about to end is told too. Knows nothing of Envoy, which reads its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import msgspec
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from antiphon.config import Config, ConfigError, TlsConfig

EARLY: Final = 30 * 86400.0
"""Seconds before its end from which a certificate is told to end soon; of one that is short-lived, the last fifth of its time."""

REMINDER: Final = 86400.0
"""Seconds between two such lines."""

Clock: TypeAlias = Callable[[], float]

_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]
"""What of the files changes with them; empty where one is not there."""

_log = structlog.get_logger(__name__)


class Material(msgspec.Struct, frozen=True):
    """What the files of one port hold, in PEM."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    begins: float
    """When the certificate is good, in seconds since 1970."""
    ends: float

    @property
    def last_day(self) -> str:
        """When it ends, to read."""
        return datetime.fromtimestamp(self.ends, UTC).strftime("%Y-%m-%d %H:%M UTC")


def read(where: str, config: TlsConfig) -> Material:
    """What the files hold, checked. `where` is the path of the setting. Raises `ConfigError`, which names setting and file.

    A certificate that has ended is none of its errors: who asks for it will be told, and all else goes on.
    """
    certificate, key = _bytes(f"{where}.certificate", config.certificate), _bytes(f"{where}.key", config.key)
    chain = _certificates(f"{where}.certificate", config.certificate, certificate)
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError:
        raise ConfigError(f"{where}.key: {config.key}: needs a password, which nothing here could give") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}.key: {config.key}: is no private key in PEM") from None
    try:
        matches = _public(private.public_key()) == _public(chain[0].public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}.certificate: {config.certificate}: has a key of an unknown kind") from None
    if not matches:
        raise ConfigError(f"{where}.key: {config.key}: is not the key of the first certificate in {config.certificate}")
    clients = None
    if config.client_ca is not None:
        clients = _bytes(f"{where}.client_ca", config.client_ca)
        _certificates(f"{where}.client_ca", config.client_ca, clients)
    return Material(certificate, key, clients, chain[0].not_valid_before_utc.timestamp(), chain[0].not_valid_after_utc.timestamp())


def check(config: Config) -> None:
    """Reads all that the configuration names for TLS. Raises `ConfigError` for the first that is not usable."""
    for where, tls in (("grpc.tls", config.grpc.tls), ("rest.tls", config.rest.tls)):
        if tls is not None:
            read(where, tls)
    upstream = config.rest.upstream
    if upstream is not None and upstream.tls is not None:
        where = "rest.upstream.tls"
        _certificates(f"{where}.ca", upstream.tls.ca, _bytes(f"{where}.ca", upstream.tls.ca))
        if upstream.tls.certificate is not None and upstream.tls.key is not None:
            read(where, TlsConfig(certificate=upstream.tls.certificate, key=upstream.tls.key))


class Certificates:
    """What one port shows, and whom it asks for what. Any thread may call it."""

    def __init__(self, where: str, config: TlsConfig, clock: Clock = time.time) -> None:
        """`where` is the path of the setting, for errors and logs. Reads nothing yet."""
        self._where = where
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._found: Material | None = None
        self._shown: Material | None = None
        """What gRPC was given last."""
        self._reminded: tuple[float, bool, float] | None = None
        """Of which end it was told last, whether it had come, and when."""

    def credentials(self) -> grpc.ServerCredentials:
        """What a gRPC port is opened with: it asks for the files' state at each handshake. Raises `ConfigError`."""
        with self._lock:
            self._stamp = self._stamped()
            self._found = self._shown = found = read(self._where, self._config)
        return grpc.dynamic_ssl_server_credentials(
            _configuration(found),
            self._renewed,  # type: ignore[arg-type]  # the stubs do not know of None, which is no change
            require_client_authentication=found.client_ca is not None,
        )

    def refresh(self) -> None:
        """Reads the files again if they have changed, and tells of a certificate that ends soon. Never raises."""
        with self._lock:
            self._refresh()
            self._remind()

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What is new since the last handshake. gRPC calls it before each, in a thread of its own."""
        with self._lock:
            self._refresh()
            if self._found is None or self._found == self._shown:
                return None
            self._shown = self._found
            return _configuration(self._found)

    def _refresh(self) -> None:
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            found = read(self._where, self._config)
        except ConfigError as error:
            _log.error("certificate_not_read", error=str(error), older_one_used=self._found is not None)
        else:
            if found != self._found:
                _log.info("certificate_read", setting=self._where, ends=found.last_day)
            self._found = found

    def _stamped(self) -> _Stamp:
        paths = filter(None, (self._config.certificate, self._config.key, self._config.client_ca))
        try:
            found = [path.stat() for path in paths]
        except OSError:
            return ()
        return tuple((status.st_ctime_ns, status.st_ino, status.st_size) for status in found)

    def _remind(self) -> None:
        if self._found is None:
            return
        now, ends = self._clock(), self._found.ends
        if ends - now > min(EARLY, (ends - self._found.begins) / 5):
            return
        ended = ends <= now
        if self._reminded is not None and self._reminded[:2] == (ends, ended) and now - self._reminded[2] < REMINDER:
            return
        self._reminded = (ends, ended, now)
        tell = _log.error if ended else _log.warning
        what = "certificate_has_ended" if ended else "certificate_ends_soon"
        tell(what, setting=self._where, file=str(self._config.certificate), ends=self._found.last_day)


def _configuration(found: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(found.key, found.certificate)], root_certificates=found.client_ca)


def _bytes(where: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{where}: {path}: {error.strerror}") from None


def _certificates(where: str, path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ConfigError(f"{where}: {path}: holds no certificate in PEM") from None


def _public(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
