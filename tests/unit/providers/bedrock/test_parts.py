"""Parts of user messages for the Converse API."""

from typing import Any

import pytest

from antiphon.domain.content import Audio, Block, Document, Image, Media, Opaque, Refusal, Text, Thinking, Video
from antiphon.domain.errors import InvalidRequest, Unsupported
from antiphon.providers.bedrock.parts import DocumentNames, cache_point, native, part_of

PDF = "data:application/pdf;base64,AA=="


def part(block: Block) -> Any:
    return part_of(block, "acme", DocumentNames())


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (Text("a"), {"text": "a"}),
        (Text(" \n"), None),
        (Text(""), None),
        (Refusal("a"), {"text": "a"}),
        (Image(Media("data:image/jpg;base64,AA==")), {"image": {"format": "jpeg", "source": {"bytes": "AA=="}}}),
        (Image(Media("data:image/webp,a%20b")), {"image": {"format": "webp", "source": {"bytes": "YSBi"}}}),
        (Image(Media("s3://bucket/x.JPG")), {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/x.JPG"}}}}),
        (Audio(Media("data:audio/mpeg;base64,AA==")), {"audio": {"format": "mp3", "source": {"bytes": "AA=="}}}),
        (Video(Media("data:video/quicktime;base64,AA==")), {"video": {"format": "mov", "source": {"bytes": "AA=="}}}),
        (
            Video(Media("s3://bucket/x.3gp")),
            {"video": {"format": "three_gp", "source": {"s3Location": {"uri": "s3://bucket/x.3gp"}}}},
        ),
        (Opaque({"guardContent": {"text": {"text": "x"}}}), {"guardContent": {"text": {"text": "x"}}}),
        (Opaque({"type": "cachePoint", "cachePoint": {"type": "default"}}), {"cachePoint": {"type": "default"}}),
    ],
)
def test_parts(block: Block, expected: Any) -> None:
    """Each kind has the API's form; blank text has none."""
    assert part(block) == expected


@pytest.mark.parametrize(
    ("url", "filename", "expected"),
    [
        (PDF, None, "pdf"),
        ("AA==", "x.docx", "docx"),
        ("AA==", None, "pdf"),
        ("data:application/octet-stream;base64,AA==", "x.XLSX", "xlsx"),
        ("data:text/markdown;base64,AA==", "x.txt", "md"),
        ("data:application/json;base64,AA==", "x.json", "txt"),
        ("data:text/x-python;base64,AA==", None, "txt"),
        ("s3://bucket/a/x.csv", None, "csv"),
    ],
)
def test_formats_of_documents(url: str, filename: str | None, expected: str) -> None:
    """A media type counts more than the end of a name; any text is one."""
    assert part(Document(Media(url), filename))["document"]["format"] == expected


def test_documents() -> None:
    """Names have the characters that the API accepts, and none occurs twice; callers may ask for citations."""
    names = DocumentNames()
    wanted = ["a/b_c: d  (1) [2].pdf", "b c d (1) [2]", "b c d (1) [2].pdf", "", "ü", "v1.2 notes", "x" * 300, "x" * 250]
    made = [part_of(Document(Media(PDF), filename=name), "acme", names) for name in wanted]
    assert [one["document"]["name"] for one in made if one is not None] == [
        "b c d (1) [2]",
        "b c d (1) [2] 2",
        "b c d (1) [2] 3",
        "document",
        "document 2",
        "v1 2 notes",
        "x" * 200,
        "x" * 198 + " 2",
    ]
    extra = {"file": {"citations": {"enabled": True}}, "context": "c", "other": 1}
    assert part(Document(Media(PDF), title="t", extra=extra)) == {
        "document": {"format": "pdf", "name": "t", "source": {"bytes": "AA=="}, "citations": {"enabled": True}, "context": "c"}
    }


@pytest.mark.parametrize(
    "block",
    [
        Image(Media("https://x.test/y.png")),
        Image(Media(file_id="f")),
        Image(Media("data:image/tiff;base64,AA==")),
        Image(Media("s3://bucket/x")),
        Document(Media("https://x.test/y.pdf")),
        Document(Media(file_id="f")),
        Document(Media("data:application/zip;base64,AA==")),
        Audio(Media("https://x.test/y.wav")),
        Video(Media("data:video/avi;base64,AA==")),
        Thinking("t"),
    ],
)
def test_what_is_refused(block: Block) -> None:
    """What the API cannot fetch, or does not read, is refused with the provider's name."""
    with pytest.raises(Unsupported, match="The provider acme"):
        part(block)


def test_a_wrong_data_url() -> None:
    """It is the caller's mistake."""
    with pytest.raises(InvalidRequest):
        part(Image(Media("data:image/png;base64")))


def test_marks() -> None:
    """A mark may be that of Anthropic's API or of this one, and may be within the part."""
    assert cache_point({}) == []
    assert cache_point({"cache_control": {"type": "ephemeral"}}) == [{"cachePoint": {"type": "default"}}]
    assert cache_point({"file": {"cache_control": {"type": "ephemeral", "ttl": "5m"}}}) == [
        {"cachePoint": {"type": "default", "ttl": "5m"}}
    ]
    assert cache_point({"cachePoint": {"type": "default"}, "cache_control": {}}) == [{"cachePoint": {"type": "default"}}]
    assert cache_point({"cache_control": "x"}) == []


def test_native_forms() -> None:
    """A `type` that names a member goes; any other stays."""
    assert native({"type": "systemTool", "systemTool": {"name": "x"}}) == {"systemTool": {"name": "x"}}
    assert native({"type": "x", "systemTool": {"name": "x"}}) == {"type": "x", "systemTool": {"name": "x"}}
