"""A gRPC client for a running gateway, used by the commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import grpc

from antiphon.v1 import models_pb2, models_pb2_grpc


def target(address: str) -> str:
    """Return the gRPC target "host:port" of an address, which may also be the URL that a start prints."""
    return address.partition("://")[2].partition("/")[0] if "://" in address else address


CA_VARIABLE: Final = "ANTIPHON_CA"
"""The variable with the path of the authorities to trust for a gateway with TLS. If unset, the usual public ones."""

CERTIFICATE_VARIABLE: Final = "ANTIPHON_CLIENT_CERTIFICATE"
CLIENT_KEY_VARIABLE: Final = "ANTIPHON_CLIENT_KEY"
"""The two variables with the paths of the client certificate and its key, for a gateway that asks for one."""


def connect(address: str) -> grpc.aio.Channel:
    """Return a channel to a gateway, with TLS if the address begins with https:// or grpcs://.

    Raises `OSError` if a file named by a variable cannot be read, or if only one of certificate and key is set.
    """
    if not address.lower().startswith(("https://", "grpcs://")):
        return grpc.aio.insecure_channel(target(address))
    key, certificate = _file(CLIENT_KEY_VARIABLE), _file(CERTIFICATE_VARIABLE)
    if (key is None) != (certificate is None):
        lacking = CLIENT_KEY_VARIABLE if key is None else CERTIFICATE_VARIABLE
        raise OSError(f"{lacking} is not set: a certificate and its key belong together")
    return grpc.aio.secure_channel(target(address), grpc.ssl_channel_credentials(_file(CA_VARIABLE), key, certificate))


def _file(variable: str) -> bytes | None:
    path = os.environ.get(variable)
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise OSError(f"{variable}: {path}: {error.strerror}") from None


async def models(address: str, key: str) -> list[models_pb2.Model]:
    """Return every model of the gateway at `address`. Raises `grpc.aio.AioRpcError`."""
    async with connect(address) as channel:
        return await list_models(models_pb2_grpc.ModelServiceStub(channel), key)


_PAGE: Final = 1000
"""Models to ask for at once: the most that a page may have."""


async def list_models(stub: models_pb2_grpc.ModelServiceStub, key: str) -> list[models_pb2.Model]:
    """Return every model that `stub` lists, from all pages. Raises `grpc.aio.AioRpcError`."""
    found: list[models_pb2.Model] = []
    token = ""
    while True:
        page = await stub.ListModels(models_pb2.ListModelsRequest(page_size=_PAGE, page_token=token), metadata=metadata_of(key))
        found.extend(page.models)
        token = page.next_page_token
        if not token:
            return found


def metadata_of(key: str) -> list[tuple[str, str]]:
    """Return the call metadata that carries the key."""
    return [("authorization", f"Bearer {key}")] if key else []
