"""The addresses to listen on: whether they can be used, and what to do if not."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Sequence

from antiphon.config import Config, split_address
from antiphon.up.acceptor import listen


def unusable_addresses(config: Config, settings: Sequence[str] = ("grpc.listen", "rest.listen", "metrics.listen")) -> list[str]:
    """Return a line for each listening address that cannot be used, with the reason and what to do."""
    lines = []
    addresses = {"grpc.listen": config.grpc.listen, "rest.listen": config.rest.listen}
    if config.metrics.listen is not None:
        addresses["metrics.listen"] = config.metrics.listen
    ports = {split_address(address)[1] for address in addresses.values()}
    with contextlib.ExitStack() as held:
        for setting in filter(addresses.get, settings):
            address = addresses[setting]
            host, port = split_address(address)
            variable = f"ANTIPHON_{setting.upper().replace('.', '__')}"
            try:
                held.enter_context(listen(host, port, 1))
            except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
                if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                    other = _free_port(host, port, ports)
                    ports.add(other)
                    lines.append(
                        f"{setting}: {address} is taken by another program. Stop that one, or choose another address: {setting} in "
                        f"the configuration file, or {variable}={address.rpartition(':')[0]}:{other}"
                    )
                else:
                    reason = error.strerror if isinstance(error, OSError) else error
                    lines.append(f"{setting}: {address} cannot be listened on: {reason}. Change {setting} or {variable}.")
    return lines


def _free_port(host: str, taken: int, reserved: Collection[int]) -> int:
    """Return the next port that can be listened on, or one that the system chooses; `taken` itself if there is none."""
    for port in (*range(taken + 1, min(taken + 100, 65536)), 0):
        if port not in reserved:
            with contextlib.suppress(OSError), listen(host, port, 1) as listener:
                found: int = listener.getsockname()[1]
                return found
    return taken  # no port is free
