"""Tests of one server process."""

import asyncio
import socket
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from antiphon import app
from antiphon.app import App
from antiphon.config import Config
from antiphon.database import contact
from antiphon.database.base import Database
from antiphon.database.migrate import migrate
from tests.ports import free_port


async def test_a_server_is_ready_after_its_first_contact_with_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is ready after its first contact with the database, and reports that it is alive before and after.

    It stays ready if the database is lost, because otherwise all servers would become unready.
    """
    monkeypatch.setattr(contact, "PAUSE", 0.01)
    database = tmp_path / "a.db"
    address = f"127.0.0.1:{free_port()}"
    settings = {"grpc": {"listen": address}, "database": {"url": f"sqlite:///{database}"}}
    config = Config.model_validate({**settings, "providers": {"echo": {"protocol": "echo", "models": ["echo"]}}})
    stop = asyncio.Event()
    serving = asyncio.create_task(App(config, {"ANTIPHON_KEY": "sk-test"}).serve([address], stop))
    async with grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=20)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        alive = await health.Check(health_pb2.HealthCheckRequest(service="grpc.health.v1.Health"))
        assert alive.status == health_pb2.HealthCheckResponse.SERVING
        await migrate(f"sqlite:///{database}")
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        database.unlink()
        found = await health.Check(health_pb2.HealthCheckRequest(service="antiphon.v1.ChatService"))
        assert found.status == health_pb2.HealthCheckResponse.SERVING
        stop.set()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await serving


async def test_a_server_opens_its_port_when_it_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the database is there, a server opens its port only when it is ready.

    In a reload the old and the new server share the port.
    """
    tried, reached, port = asyncio.Event(), asyncio.Event(), free_port()

    async def first_contact(database: Database) -> None:
        tried.set()
        await reached.wait()

    monkeypatch.setattr(app, "first_contact", first_contact)
    monkeypatch.setattr(app, "OPENING", 20)
    url = f"sqlite:///{tmp_path}/a.db"
    await migrate(url)
    config = Config.model_validate({"database": {"url": url}, "providers": {"echo": {"protocol": "echo", "models": ["echo"]}}})
    stop = asyncio.Event()
    serving = asyncio.create_task(App(config, {"ANTIPHON_KEY": "sk-test"}).serve([f"127.0.0.1:{port}"], stop))
    await tried.wait()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    reached.set()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=20)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stop.set()
        await serving
