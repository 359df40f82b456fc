"""Tests of the paths of a method in its proto."""

from __future__ import annotations

import re

import pytest

from antiphon.rest.shared.paths import bindings, has_variables, pattern_of, query_of
from antiphon.rest.v1 import assistant_pb2, openai_pb2

CHATS = assistant_pb2.DESCRIPTOR.services_by_name["AssistantService"].methods_by_name
OPENAI = openai_pb2.DESCRIPTOR.services_by_name["OpenAIService"].methods_by_name


def test_every_binding_is_found() -> None:
    """The first HTTP rule of a method and its additional ones are found, in order."""
    assert list(bindings(OPENAI["CreateChatCompletion"])) == [
        ("post", "/api/v1/chat/completions"),
        ("post", "/v1/chat/completions"),
    ]


@pytest.mark.parametrize(
    ("template", "fits", "does_not"),
    [
        ("/a/{x}/b", "/a/1/b", "/a/1/2/b"),
        ("/a/{x}", "/a/1", "/a/1?b=c"),
        ("/a/{x=**}", "/a/1/2", "/b/1"),
        ("/a", "/a", "/a/"),
    ],
)
def test_a_template_fits_its_paths(template: str, fits: str, does_not: str) -> None:
    """A variable matches one segment, or with `**` all that follow."""
    assert re.fullmatch(pattern_of(template), fits)
    assert not re.fullmatch(pattern_of(template), does_not)
    assert has_variables(template) == ("{" in template)


def test_only_a_path_without_variables_has_a_query() -> None:
    """All fields but the body are query parameters, unless the path has variables, which they could override."""
    assert [field.name for field in query_of(CHATS["Generate"])] == ["chat_id", "username", "source", "title"]
    assert query_of(CHATS["FetchChat"]) == []
    assert query_of(OPENAI["ListModels"]) == []
