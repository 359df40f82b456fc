"""What grpc.aio hands to a servicer, as types: its classes take parameters for type checkers alone."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""A call: its metadata, its messages, and how it ends."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""A method of a servicer, with how its messages are read and written."""
