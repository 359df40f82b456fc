"""Tests that the rows of the typed services agree with the protos."""

from __future__ import annotations

from google.protobuf import descriptor_pb2

from antiphon.app import App
from antiphon.config import AuthConfig, Config, KeyConfig
from antiphon.domain.principal import Scope
from antiphon.edge.files import gateway_files
from antiphon.limits.report import UsageReport
from antiphon.owners.data import Owners
from antiphon.providers.hosts import ECHO
from antiphon.rpc.registry import services


def test_every_typed_service_has_a_row() -> None:
    """Every typed service has a row with the scope that its callers need."""
    config = Config(providers={"echo": ECHO}, auth=AuthConfig(keys=(KeyConfig(name="test", key_env="K"),)))
    app = App(config, {"K": "sk-test"})
    rows = services(
        app._chat,
        app._catalog,
        app.router,
        app._store,
        app._key_store,
        app._audit,
        UsageReport(app._database),
        Owners(app._database),
        app._drains,
    )
    files = descriptor_pb2.FileDescriptorSet.FromString((gateway_files() / "antiphon.pb").read_bytes())
    declared = {
        f"{file.package}.{service.name}" for file in files.file if file.package == "antiphon.v1" for service in file.service
    }
    assert {row.name for row in rows} == declared
    assert {row.name: row.scope for row in rows if row.scope is not Scope.CHAT} == {
        "antiphon.v1.HistoryService": Scope.HISTORY,
        "antiphon.v1.AdminService": Scope.ADMIN,
    }
