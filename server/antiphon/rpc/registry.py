"""The typed services: one row for each, with its servicer and its scope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from msgspec import Struct

from antiphon.auth.api_keys.store import KeyStore
from antiphon.auth.audit import AuditLog
from antiphon.chat.catalog import Catalog
from antiphon.chat.service import ChatService
from antiphon.domain.principal import Scope
from antiphon.history.base import Conversations
from antiphon.limits.report import UsageReport
from antiphon.owners.data import Owners
from antiphon.routing.drains import Drains
from antiphon.routing.router import Router
from antiphon.rpc.admin import AdminServicer
from antiphon.rpc.chat import ChatServicer
from antiphon.rpc.history import HistoryServicer
from antiphon.rpc.models import ModelServicer
from antiphon.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    chat_pb2,
    chat_pb2_grpc,
    history_pb2,
    history_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)


class Service(Struct, frozen=True):
    """A typed service. A caller needs `scope` for all of its methods."""

    descriptor: ServiceDescriptor
    add: Callable[[Any, grpc.aio.Server], None]
    """The generated function that adds a servicer to a server."""
    servicer: Any
    scope: Scope

    @property
    def name(self) -> str:
        """The full name, as in "antiphon.v1.ChatService"."""
        return self.descriptor.full_name

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a gRPC server."""
        self.add(self.servicer, server)


def services(
    chat: ChatService,
    catalog: Catalog,
    router: Router,
    conversations: Conversations,
    keys: KeyStore,
    audit: AuditLog,
    usage: UsageReport,
    owners: Owners,
    drains: Drains,
) -> tuple[Service, ...]:
    """Return the typed services, with servicers that use the given parts of the application."""
    return (
        Service(
            chat_pb2.DESCRIPTOR.services_by_name["ChatService"],
            chat_pb2_grpc.add_ChatServiceServicer_to_server,
            ChatServicer(chat),
            Scope.CHAT,
        ),
        Service(
            models_pb2.DESCRIPTOR.services_by_name["ModelService"],
            models_pb2_grpc.add_ModelServiceServicer_to_server,
            ModelServicer(catalog),
            Scope.CHAT,
        ),
        Service(
            history_pb2.DESCRIPTOR.services_by_name["HistoryService"],
            history_pb2_grpc.add_HistoryServiceServicer_to_server,
            HistoryServicer(conversations),
            Scope.HISTORY,
        ),
        Service(
            admin_pb2.DESCRIPTOR.services_by_name["AdminService"],
            admin_pb2_grpc.add_AdminServiceServicer_to_server,
            AdminServicer(keys, audit, usage, owners, router, drains),
            Scope.ADMIN,
        ),
    )
