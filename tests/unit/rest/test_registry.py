"""Tests that the rows of the dialects agree with the protos, with Envoy's hand-written files and with each other.

The messages say what to add for a new dialect or method.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from antiphon.domain.principal import Scope
from antiphon.rest.registry import DIALECTS, Dialect, keys_in_body, renderers, scopes
from antiphon.rest.shared.paths import bindings, has_variables, query_of

GATEWAY = Path(__file__).parents[3] / "gateway"
ROWS = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def _rest_methods() -> dict[str, set[str]]:
    """Return the methods of each REST service in the descriptor set that Envoy reads."""
    files = descriptor_pb2.FileDescriptorSet.FromString((GATEWAY / "antiphon.pb").read_bytes())
    return {
        f"{file.package}.{service.name}": {method.name for method in service.method}
        for file in files.file
        if file.package.startswith("antiphon.rest.")
        for service in file.service
    }


def _lua(name: str) -> str:
    """Return the value of a hand-written text constant in `status.lua`."""
    (line,) = (line for line in (GATEWAY / "status.lua").read_text().splitlines() if line.startswith(f'local {name} = "'))
    return line.split('"')[1]


def test_every_rest_service_has_a_row() -> None:
    """Every REST service of the protos has a row; without one it would not be served."""
    missing = _rest_methods().keys() - {dialect.service.full_name for dialect in DIALECTS}
    assert not missing, f"add a row to DIALECTS in rest/registry.py for {sorted(missing)}, then run `make proto`"
    assert len({dialect.name for dialect in DIALECTS}) == len(DIALECTS) == len(_rest_methods())


@ROWS
def test_every_method_has_a_scope_and_a_shape_of_errors(dialect: Dialect) -> None:
    """Every method of the protos has its scope, statuses and error shape."""
    declared = _rest_methods()[dialect.service.full_name]
    missing = sorted(declared - dialect.methods.keys())
    assert not missing, f"add to METHODS in rest/{dialect.name}/methods.py: {missing}"
    extra = sorted(dialect.methods.keys() - declared)
    assert not extra, f"remove from METHODS in rest/{dialect.name}/methods.py: {extra}"
    full = {f"{dialect.service.full_name}/{name}" for name in declared}
    assert full <= scopes().keys()
    assert full <= renderers().keys()


def test_the_server_knows_what_differs_by_method() -> None:
    """The scope, the error shape and the place of the key are found by method."""
    assert scopes()["antiphon.rest.v1.AssistantService/Chat"] is Scope.CHAT
    assert scopes()["antiphon.rest.v1.AssistantService/ListChats"] is Scope.HISTORY
    assert [name for name, scope in scopes().items() if scope is None] == ["antiphon.rest.v1.EngineService/GetHealth"]
    assert keys_in_body() == {"antiphon.rest.v1.EngineService/CreateEngineChat"}
    proxies = [renderers()[f"antiphon.rest.v1.ProxyService/{name}"] for name in ("ProxyChatCompletion", "ProxyGemini")]
    assert proxies[0] is not proxies[1]


@ROWS
def test_shapes_have_names_of_their_own(dialect: Dialect) -> None:
    """Two error shapes may not have the same name, because they would be one in Envoy's files."""
    others = [other.errors_of(name) for other in DIALECTS for name in other.methods]
    for shape in map(dialect.errors_of, dialect.methods):
        assert all(other is shape for other in others if other.name == shape.name), f"rename the shape {shape.name!r}"


@ROWS
def test_no_query_could_override_a_path(dialect: Dialect) -> None:
    """A method with variables in its path has no query parameters, because `status.lua` drops the query."""
    for method in dialect.service.methods:
        names = {field.name for field in method.input_type.fields} - {"body"}
        if any(has_variables(path) for _, path in bindings(method)):
            in_paths = {name for name in names if any(f"{{{name}" in path for _, path in bindings(method))}
            assert names == in_paths, f"{method.full_name}: put {names - in_paths} in the body or in the path"
        else:
            assert names == {field.name for field in query_of(method)}


@ROWS
def test_envoy_holds_a_body_that_may_have_the_key(dialect: Dialect) -> None:
    """Envoy buffers exactly the bodies that may have the key, because the server could not hold them before it knows the caller."""
    for name, method in dialect.methods.items():
        for _, path in bindings(dialect.service.methods_by_name[name]):
            held = path.startswith(_lua("ENGINE_CHAT"))
            assert method.key_in_body == held, f"gateway/status.lua: let what is done for ENGINE_CHAT be done for {path}, or not"


@ROWS
def test_envoy_hands_on_the_query_of_what_is_passed_on(dialect: Dialect) -> None:
    """`status.lua` passes the query on as a header exactly for methods that pass it to the provider."""
    for name, method in dialect.methods.items():
        for _, path in bindings(dialect.service.methods_by_name[name]):
            handed_on = path.startswith(_lua("PROXY"))
            assert method.passes_on == handed_on, f"gateway/status.lua: let what is done for PROXY be done for {path}, or not"
