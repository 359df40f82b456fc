"""Type aliases for what grpc.aio passes to a servicer. Its own classes are generic for type checkers only, not at run time."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""One call: its metadata, its messages, and its status."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""A servicer's method, with its deserializer and serializer."""
