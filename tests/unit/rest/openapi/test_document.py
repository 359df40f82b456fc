"""Tests that the OpenAPI document is valid and has every path and every error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from openapi_spec_validator import validate

from antiphon.rest.openapi import document as openapi
from antiphon.rest.registry import DIALECTS
from tests.unit.domain.test_errors import leaves

GATEWAY = Path(__file__).parents[4] / "gateway"
MODEL_METHODS = {
    name: (method.statuses, dialect.errors_of(name).render)
    for dialect in DIALECTS
    for name, method in dialect.methods.items()
    if 402 in method.statuses
}
"""Methods that ask a model: their documented statuses, and the function that renders their errors."""
DOCUMENT = openapi.document()
OPERATIONS = {operation["operationId"]: operation for methods in DOCUMENT["paths"].values() for operation in methods.values()}


def transcoded() -> set[tuple[str, str]]:
    """Return the verb and path of all that Envoy transcodes, without the names of variables."""
    text = (GATEWAY / "listeners.yaml").read_text()
    services = set(re.findall(r"^ +- (antiphon\.rest\.v1\.\w+)$", text, re.MULTILINE))
    files = descriptor_pb2.FileDescriptorSet.FromString((GATEWAY / "antiphon.pb").read_bytes())
    found = set()
    for file in files.file:
        for service in file.service:
            if f"{file.package}.{service.name}" not in services:
                continue
            for method in service.method:
                rule = method.options.Extensions[annotations_pb2.http]
                for binding in (rule, *rule.additional_bindings):
                    verb = binding.WhichOneof("pattern")
                    found.add((verb, re.sub(r"\{[^}]*\}", "{}", getattr(binding, verb))))
    return found


def test_it_is_an_openapi_document() -> None:
    """The document is valid by the specification's schema, can be written as JSON, and has unique operation ids."""
    validate(DOCUMENT)
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    assert len(OPERATIONS) == sum(len(methods) for methods in DOCUMENT["paths"].values())


def test_every_transcoded_path_is_in_it() -> None:
    """The document has exactly the paths that Envoy transcodes."""
    assert len(transcoded()) > 20
    written = {(verb, re.sub(r"\{[^}]*\}", "{}", path)) for path, methods in DOCUMENT["paths"].items() for verb in methods}
    assert written == transcoded()


def test_every_method_is_in_it() -> None:
    """Every method of the protos has a row in its dialect."""
    for dialect in DIALECTS:
        assert set(dialect.methods) == set(dialect.service.methods_by_name)


def test_the_comments_of_the_protos_are_in_it() -> None:
    """The document has the comments of the protos and the parameters with their types."""
    assert "one JSON object, or server-sent events" in OPERATIONS["CreateChatCompletion"]["description"]
    assert all(operation["description"] for operation in OPERATIONS.values())
    assert {"name": "pageSize", "in": "query", "required": False, "schema": {"type": "integer", "format": "int32"}} in OPERATIONS[
        "ListChats"
    ]["parameters"]
    assert [parameter["required"] for parameter in OPERATIONS["ListEngineParameters"]["parameters"]] == [True, False]


@pytest.mark.parametrize("method", MODEL_METHODS)
def test_every_error_is_documented(method: str) -> None:
    """Every error that a method which asks a model can raise has a documented status and body."""
    statuses, render = MODEL_METHODS[method]
    elsewhere = {"MessageNotFound", "KeyNotFound", "KeyRevoked"}
    if 409 not in statuses:  # methods that record nothing
        elsewhere |= {"ConversationChanged", "TurnNotComplete", "TurnInProgress", "RequestIdReused"}
    for error in leaves():
        if type(error).__name__ not in elsewhere:
            status, _, body = render(error)
            check(method, status, json.loads(body))


def check(operation: str, status: int, body: Any) -> None:
    """Raise unless the answer of the operation is documented."""
    schema = OPERATIONS[operation]["responses"][str(status)]["content"]["application/json"]["schema"]
    jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]}).validate(body)
