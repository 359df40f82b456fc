"""Media as parts of a Gemini request."""

from typing import Any

import pytest

from antiphon.domain.content import Audio, Document, Image, Media, Video
from antiphon.domain.errors import Unsupported
from antiphon.providers.gemini.media import media_part


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (Image(Media("data:image/png;base64,AA==")), {"inlineData": {"mimeType": "image/png", "data": "AA=="}}),
        (Audio(Media("data:audio/WAV;codecs=1;base64,AA==")), {"inlineData": {"mimeType": "audio/wav", "data": "AA=="}}),
        (Document(Media("data:text/plain,a%20b")), {"inlineData": {"mimeType": "text/plain", "data": "YSBi"}}),
        (Document(Media("data:;base64,AA=="), filename="a.pdf"), {"inlineData": {"mimeType": "application/pdf", "data": "AA=="}}),
        (Document(Media("data:;base64,AA==")), {"inlineData": {"mimeType": "text/plain", "data": "AA=="}}),
        (Image(Media("https://x/y.jpg?z=1")), {"fileData": {"fileUri": "https://x/y.jpg?z=1", "mimeType": "image/jpeg"}}),
        (Video(Media("https://youtu.be/x")), {"fileData": {"fileUri": "https://youtu.be/x"}}),
        (Document(Media("https://x/y"), filename="z.pdf"), {"fileData": {"fileUri": "https://x/y", "mimeType": "application/pdf"}}),
        (
            Document(Media(file_id="files/abc")),
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
        ),
        (Document(Media(file_id="gs://b/c")), {"fileData": {"fileUri": "gs://b/c"}}),
        (
            Video(Media("https://x"), extra={"videoMetadata": {"fps": 5}, "cache_control": {}}),
            {"fileData": {"fileUri": "https://x"}, "videoMetadata": {"fps": 5}},
        ),
    ],
)
def test_parts(block: Any, part: dict[str, Any]) -> None:
    """Bytes stand in the part, all else is an address; the type is that of the bytes, or of the name."""
    assert media_part(block, "acme") == part


@pytest.mark.parametrize("media", [Media(file_id="file-abc"), Media()])
def test_files_of_others(media: Media) -> None:
    """A file that another provider holds is refused."""
    with pytest.raises(Unsupported):
        media_part(Document(media), "acme")
