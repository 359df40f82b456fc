"""The certificates of a port: read from files, checked, and read again when the files change, without closing connections.

A new pair is used from the next handshake on. If it is half written, or the key does not match the certificate, that is logged and
the previous pair stays in use. A certificate that expires soon is logged as well. Envoy is not involved: it reads its own.
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

WARN_BEFORE: Final = 30 * 86400.0
"""Seconds before its expiry from which a certificate is reported; for a short-lived one, the last fifth of its lifetime."""

WARN_INTERVAL: Final = 86400.0
"""Seconds between two such log lines."""

Clock: TypeAlias = Callable[[], float]

_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]
"""The properties of the files that change with them; empty if a file is missing."""

_log = structlog.get_logger(__name__)


class CertificateFiles(msgspec.Struct, frozen=True):
    """The contents of the files of one port, in PEM."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    begins: float
    """The start of the certificate's validity, in seconds since 1970; `ends` is its expiry."""
    ends: float

    @property
    def expiry_text(self) -> str:
        """Return the expiry for people to read."""
        return datetime.fromtimestamp(self.ends, UTC).strftime("%Y-%m-%d %H:%M UTC")


def read(where: str, config: TlsConfig) -> CertificateFiles:
    """Return the contents of the files that `config` names, checked.

    `where` is the setting's name, for messages. Raises `ConfigError`, which names the setting and the file.

    An expired certificate is not an error: the clients will see it, and everything else keeps working.
    """
    certificate, key = _bytes(f"{where}.certificate", config.certificate), _bytes(f"{where}.key", config.key)
    chain = _certificates(f"{where}.certificate", config.certificate, certificate)
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError:
        raise ConfigError(f"{where}.key: {config.key}: needs a password, which is not supported") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}.key: {config.key}: is not a private key in PEM") from None
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
    return CertificateFiles(
        certificate, key, clients, chain[0].not_valid_before_utc.timestamp(), chain[0].not_valid_after_utc.timestamp()
    )


def check(config: Config) -> None:
    """Read all TLS files of the configuration. Raises `ConfigError` for the first that is not usable."""
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
    """The certificate of one port, and the authority of its clients. Methods may be called from any thread."""

    def __init__(self, where: str, config: TlsConfig, clock: Clock = time.time) -> None:
        """Take the path of the setting, for errors and logs. Nothing is read yet."""
        self._where = where
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._found: CertificateFiles | None = None
        self._in_use: CertificateFiles | None = None
        """What gRPC uses."""
        self._warned: tuple[float, bool, float] | None = None
        """The last warning: the expiry, whether it had passed, and when the warning was logged."""

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials for a gRPC port, which checks the files at each handshake. Raises `ConfigError`."""
        with self._lock:
            self._stamp = self._current_stamp()
            self._found = self._in_use = found = read(self._where, self._config)
        return grpc.dynamic_ssl_server_credentials(
            _configuration(found),
            self._renewed,  # type: ignore[arg-type]  # the stubs lack None, which means no change
            require_client_authentication=found.client_ca is not None,
        )

    def refresh(self) -> None:
        """Read the files again if they changed, and warn about a certificate that expires soon. Never raises."""
        with self._lock:
            self._refresh()
            self._warn()

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new configuration, or None if it is unchanged.

        gRPC calls this before each handshake, in a thread of its own.
        """
        with self._lock:
            self._refresh()
            if self._found is None or self._found == self._in_use:
                return None
            self._in_use = self._found
            return _configuration(self._found)

    def _refresh(self) -> None:
        stamp = self._current_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            found = read(self._where, self._config)
        except ConfigError as error:
            _log.error("certificate_not_read", error=str(error), older_one_used=self._found is not None)
        else:
            if found != self._found:
                _log.info("certificate_read", setting=self._where, ends=found.expiry_text)
            self._found = found

    def _current_stamp(self) -> _Stamp:
        paths = filter(None, (self._config.certificate, self._config.key, self._config.client_ca))
        try:
            found = [path.stat() for path in paths]
        except OSError:
            return ()
        return tuple((status.st_ctime_ns, status.st_ino, status.st_size) for status in found)

    def _warn(self) -> None:
        if self._found is None:
            return
        now, ends = self._clock(), self._found.ends
        if ends - now > min(WARN_BEFORE, (ends - self._found.begins) / 5):
            return
        ended = ends <= now
        if self._warned is not None and self._warned[:2] == (ends, ended) and now - self._warned[2] < WARN_INTERVAL:
            return
        self._warned = (ends, ended, now)
        file, expiry = str(self._config.certificate), self._found.expiry_text
        if ended:
            _log.error("certificate_has_ended", setting=self._where, file=file, ends=expiry)
        else:
            _log.warning("certificate_ends_soon", setting=self._where, file=file, ends=expiry)


def _configuration(found: CertificateFiles) -> grpc.ServerCertificateConfiguration:
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
