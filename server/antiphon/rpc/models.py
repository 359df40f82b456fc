"""The servicer of ModelService."""

from __future__ import annotations

import base64
import binascii

from google.protobuf.timestamp_pb2 import Timestamp

from antiphon.chat.catalog import Catalog, CatalogEntry
from antiphon.domain.call import current
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.domain.models import Modality, TokenPrices
from antiphon.rpc.context import Context
from antiphon.v1 import models_pb2, models_pb2_grpc

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

_MODALITIES = {
    Modality.TEXT: models_pb2.MODALITY_TEXT,
    Modality.IMAGE: models_pb2.MODALITY_IMAGE,
    Modality.AUDIO: models_pb2.MODALITY_AUDIO,
    Modality.VIDEO: models_pb2.MODALITY_VIDEO,
    Modality.DOCUMENT: models_pb2.MODALITY_DOCUMENT,
}


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Implements ModelService: lists the models that the caller may use."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def ListModels(self, request: models_pb2.ListModelsRequest, context: Context) -> models_pb2.ListModelsResponse:
        """Return one page of models, sorted by name. A page token encodes the last name of the previous page."""
        if request.page_size < 0:
            raise InvalidRequest("The page size is negative.", (Violation(("page_size",), "must not be negative"),))
        size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = _decode(request.page_token)
        call = current()
        entries = [entry for entry in await self._catalog.models(call.caller, call.time_left) if entry.name > after]
        page, more = entries[:size], len(entries) > size
        return models_pb2.ListModelsResponse(
            models=[_model(entry) for entry in page], next_page_token=_encode(page[-1].name) if more else ""
        )

    async def GetModel(self, request: models_pb2.GetModelRequest, context: Context) -> models_pb2.GetModelResponse:
        """Return one model. A model that the caller may not use is reported as not found."""
        call = current()
        return models_pb2.GetModelResponse(model=_model(await self._catalog.model(request.name, call.caller, call.time_left)))


def _model(entry: CatalogEntry) -> models_pb2.Model:
    info = entry.info
    return models_pb2.Model(
        name=entry.name,
        provider=entry.provider,
        is_default=entry.is_default,
        provider_model=info.name,
        title=info.title,
        create_time=None if info.created is None else Timestamp(seconds=info.created),
        context_tokens=info.context_tokens,
        max_output_tokens=info.max_output_tokens,
        input_modalities=[_MODALITIES[modality] for modality in info.input_modalities],
        output_modalities=[_MODALITIES[modality] for modality in info.output_modalities],
        prices=None if info.prices is None else _prices(info.prices),
    )


def _prices(prices: TokenPrices) -> models_pb2.ModelPrices:
    return models_pb2.ModelPrices(
        input=prices.input,
        cached_input=prices.cached_input,
        cache_write=prices.cache_write,
        cache_write_1h=prices.cache_write_1h,
        audio_input=prices.audio_input,
        output=prices.output,
        audio_output=prices.audio_output,
        tiers=[models_pb2.PriceTier(above_tokens=tier.above, prices=_prices(tier.prices)) for tier in prices.tiers],
    )


def _encode(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _decode(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise InvalidRequest(
            "The page token is not one of ours.", (Violation(("page_token",), "must be a next_page_token"),)
        ) from None
