"""The servicer of ModelService."""

from __future__ import annotations

import base64
import binascii

from antiphon.domain.call import current
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.routing.router import ModelEntry, Router
from antiphon.rpc.context import Context
from antiphon.v1 import models_pb2, models_pb2_grpc

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Implements ModelService: lists the models that the caller may use."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def ListModels(self, request: models_pb2.ListModelsRequest, context: Context) -> models_pb2.ListModelsResponse:
        """Return one page of models, sorted by name. A page token encodes the last name of the previous page."""
        if request.page_size < 0:
            raise InvalidRequest("The page size is negative.", (Violation(("page_size",), "must not be negative"),))
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = _decode(request.page_token)
        entries = [
            entry for entry in self._router.models() if entry.name > after and current().caller.may_use(entry.name, entry.provider)
        ]
        page, more = entries[:size], len(entries) > size
        return models_pb2.ListModelsResponse(
            models=[_model(entry) for entry in page], next_page_token=_encode(page[-1].name) if more else ""
        )

    async def GetModel(self, request: models_pb2.GetModelRequest, context: Context) -> models_pb2.GetModelResponse:
        """Return one model. A model that the caller may not use is reported as not found."""
        return models_pb2.GetModelResponse(model=_model(self._router.model(request.name, current().caller)))


def _model(entry: ModelEntry) -> models_pb2.Model:
    return models_pb2.Model(name=entry.name, provider=entry.provider, is_default=entry.is_default)


def _encode(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _decode(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise InvalidRequest(
            "The page token is not one of ours.", (Violation(("page_token",), "must be a next_page_token"),)
        ) from None
