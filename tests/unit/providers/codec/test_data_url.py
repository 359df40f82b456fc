"""Tests of the media types of pictures."""

import base64
import json

import pytest

from antiphon.domain.content import Document, Image, Media, Message, Role
from antiphon.domain.errors import Unsupported
from antiphon.domain.request import ChatRequest
from antiphon.providers.anthropic.request import encode as encode_anthropic
from antiphon.providers.bedrock.request import encode as encode_bedrock
from antiphon.providers.codec.data_url import picture_type
from antiphon.providers.gemini.request import encode as encode_gemini

PNG, JPEG = b"\x89PNG\r\n\x1a\n" + bytes(8), b"\xff\xd8\xff\xe0" + bytes(8)
GIF, WEBP = b"GIF89a" + bytes(8), b"RIFF\x0a\x00\x00\x00WEBPVP8 "
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("named", "data", "expected"),
    [
        ("image/png", PNG, "image/png"),
        ("image/jpeg", PNG, "image/png"),
        ("image/png", JPEG, "image/jpeg"),
        ("", GIF, "image/gif"),
        ("image/png", WEBP, "image/webp"),
        ("image/jpg", b"unknown", "image/jpeg"),
        ("image/png", b"", "image/png"),
        ("audio/wav", b"RIFF\x0a\x00\x00\x00WAVEfmt ", "audio/wav"),
    ],
)
def test_a_picture_has_the_type_of_its_data(named: str, data: bytes, expected: str) -> None:
    """Whatever the caller calls it. Data of no known kind has the type that it was given."""
    assert picture_type(named, b64(data)) == expected


def test_what_is_not_base64_has_the_type_that_it_was_given() -> None:
    """The API says what is wrong with it."""
    assert picture_type("image/png", "é") == picture_type("image/png", "a") == "image/png"


def test_every_protocol_names_the_type_of_the_data() -> None:
    """The APIs compare it with the data."""
    message = Message(Role.USER, (Image(Media(f"data:image/jpeg;base64,{b64(PNG)}")),))
    anthropic = json.loads(encode_anthropic(ChatRequest("claude-opus-5", (message,), stream=True), "acme"))
    assert anthropic["messages"][0]["content"][0]["source"]["media_type"] == "image/png"
    bedrock = json.loads(encode_bedrock(ChatRequest(CLAUDE, (message,), stream=True), "acme"))
    assert bedrock["messages"][0]["content"][0]["image"]["format"] == "png"
    gemini = json.loads(encode_gemini(ChatRequest("gemini-3-flash", (message,), stream=True), "acme"))
    assert gemini["contents"][0]["parts"][0]["inlineData"]["mimeType"] == "image/png"


@pytest.mark.parametrize("url", [f"data:image/bmp;base64,{b64(b'BM')}", "gs://bucket/a.png"])
def test_pictures_that_claude_cannot_read(url: str) -> None:
    """The error says what it can."""
    request = ChatRequest("claude-opus-5", (Message(Role.USER, (Image(Media(url)),)),), stream=True)
    with pytest.raises(Unsupported, match="acme accepts images as "):
        encode_anthropic(request, "acme")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (Document(Media("JVBERi0="), "x.pdf"), "application/pdf"),
        (Document(Media("JVBERi0=")), "application/pdf"),
        (Document(Media("data:application/octet-stream;base64,JVBERi0="), "x.pdf"), "application/pdf"),
        (Document(Media("aGk="), "x.csv"), "text/csv"),
        (Document(Media("data:;base64,aGk=")), "text/plain"),
    ],
)
def test_documents_for_gemini(document: Document, expected: str) -> None:
    """They may be base64 alone, and their type may only show in the name or the data."""
    made = json.loads(encode_gemini(ChatRequest("gemini-3-flash", (Message(Role.USER, (document,)),), stream=True), "acme"))
    part = made["contents"][0]["parts"][0]["inlineData"]
    assert part["mimeType"] == expected
    assert part["data"] in ("JVBERi0=", "aGk=")
