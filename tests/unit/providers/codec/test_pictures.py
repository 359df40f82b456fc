"""Pictures of replies, as pictures of the user."""

import pytest

from antiphon.domain.content import Document, Image, Media, State, Text, ToolResult
from antiphon.domain.errors import Unsupported
from antiphon.providers.codec.pictures import of_the_user, without_media

PICTURE = Image(Media("data:image/png;base64,AA=="), detail="low")


def test_a_picture_of_a_reply() -> None:
    """It is the same without what its provider says of it."""
    own = Image(PICTURE.media, PICTURE.detail, state=State("sig"))
    assert of_the_user(own, lambda _: None) == [PICTURE]


@pytest.mark.parametrize("url", [None, "s3://b/x.png", "sandbox:/x.png"])
def test_a_picture_that_cannot_be_read(url: str | None) -> None:
    """One that failed, or whose address only its provider reads, is left out."""
    assert of_the_user(Image(Media(url)), lambda _: None) == []


def test_a_picture_of_an_unknown_format() -> None:
    """One that the encoder refuses is left out."""

    def refuse(_: Image) -> None:
        raise Unsupported("no such format", "acme")

    assert of_the_user(PICTURE, refuse) == []


def test_the_media_of_a_result() -> None:
    """They are taken out of it, in order, and the rest stays."""
    pictures: list[object] = []
    other = Document(Media("https://x/y.pdf"))
    rest = without_media(ToolResult("c", (PICTURE, Text("t"), other), is_error=True), pictures)  # type: ignore[arg-type]
    assert rest == ToolResult("c", (Text("t"),), is_error=True)
    assert pictures == [PICTURE, other]
    assert without_media(rest, pictures) is rest  # type: ignore[arg-type]
