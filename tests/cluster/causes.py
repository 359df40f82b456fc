"""Short texts for why calls failed. The same failure has the same text for every kind of client."""

import json

import aiohttp
import grpc
import httpx2
import openai
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

_LONGEST = 60


class NotWholeError(Exception):
    """A reply ended without an error, but is not complete."""


class HTTPFailureError(Exception):
    """A plain HTTP call was answered with an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ErrorEventError(Exception):
    """A gRPC stream has an error event."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(_reason(status) or status.message[:_LONGEST])


FAILURES = (
    httpx2.HTTPError,
    aiohttp.ClientError,
    openai.OpenAIError,
    grpc.aio.AioRpcError,
    HTTPFailureError,
    ErrorEventError,
    TimeoutError,
)
"""The exceptions that a call may raise."""


def cause_of(error: Exception) -> str:
    """Return a short text for why a call failed, such as "http 503: overloaded"."""
    match error:
        case grpc.aio.AioRpcError():
            status = rpc_status.from_call(error)
            reason = "" if status is None else _reason(status)
            return f"grpc {error.code().name}: {reason or (error.details() or '').split(';')[0][:_LONGEST]}"
        case HTTPFailureError():
            return f"http {error.status}: {_code(str(error))}"
        case openai.APIStatusError():
            return f"http {error.status_code}: {_code(error.response.text)}"
        case openai.APIConnectionError():
            return f"connection: {type(error.__cause__ or error).__name__}"
        case openai.APIError():
            return f"error event: {error.code or str(error)[:_LONGEST]}"
        case ErrorEventError():
            return f"error event: {error}"
        case _:
            return f"connection: {type(error).__name__}"


def _reason(status: status_pb2.Status) -> str:
    for detail in status.details:
        found = error_details_pb2.ErrorInfo()
        if detail.Unpack(found):
            return str(found.reason)
    return ""


def _code(text: str) -> str:
    """Return the code of an error in OpenAI's format, or else the beginning of the text."""
    try:
        return str(json.loads(text)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return text[:_LONGEST]
