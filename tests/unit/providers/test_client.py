"""Tests of the credentials of a provider's call."""

import pytest
from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from antiphon.providers.client import HeaderAuth

SENT = (URL("https://x.test/"), b"{}")


@pytest.mark.parametrize(("header", "value"), [("Authorization", "Bearer {}"), ("api-key", "{}")])
async def test_a_key_in_a_header(header: str, value: str) -> None:
    """The caller's own key replaces the gateway's for that call only. Both are listed as secrets to be hidden in the log."""
    auth = HeaderAuth(header, "ours", CIMultiDict({"accept": "*/*"}), {"X-Org": "acme"}, ("of-the-url",))
    ours = await auth.credentials(*SENT, None)
    assert dict(ours.headers) == {"accept": "*/*", header.lower(): value.format("ours"), "x-org": "acme"}
    assert set(ours.secrets) == {"ours", "acme", "of-the-url"}
    theirs = await auth.credentials(*SENT, SecretStr("theirs"))
    assert theirs.headers[header] == value.format("theirs")
    assert set(theirs.secrets) == {"ours", "acme", "of-the-url", "theirs"}
    assert (await auth.credentials(*SENT, None)).headers[header] == value.format("ours")


async def test_without_a_key() -> None:
    """Without a key no header is sent for it. A configured header replaces any other of its name."""
    auth = HeaderAuth("authorization", None, CIMultiDict({"accept": "*/*"}), {"Accept": "text/plain"}, ())
    assert dict((await auth.credentials(*SENT, None)).headers) == {"accept": "text/plain"}
