"""What authorises a call."""

import pytest
from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from antiphon.providers.client import HeaderAuth

SENT = (URL("https://x.test/"), b"{}")


@pytest.mark.parametrize(("header", "value"), [("Authorization", "Bearer {}"), ("api-key", "{}")])
async def test_a_key_in_a_header(header: str, value: str) -> None:
    """A caller's own takes the place of the gateway's, for that call alone; no log shows either."""
    auth = HeaderAuth(header, "ours", CIMultiDict({"accept": "*/*"}), {"X-Org": "acme"}, ("of-the-url",))
    ours = await auth.credentials(*SENT, None)
    assert dict(ours.headers) == {"accept": "*/*", header.lower(): value.format("ours"), "x-org": "acme"}
    assert set(ours.secrets) == {"ours", "acme", "of-the-url"}
    theirs = await auth.credentials(*SENT, SecretStr("theirs"))
    assert theirs.headers[header] == value.format("theirs")
    assert set(theirs.secrets) == {"ours", "acme", "of-the-url", "theirs"}
    assert (await auth.credentials(*SENT, None)).headers[header] == value.format("ours")


async def test_without_a_key() -> None:
    """A host of one's own asks for none; a header of the configuration takes the place of any other."""
    auth = HeaderAuth("authorization", None, CIMultiDict({"accept": "*/*"}), {"Accept": "text/plain"}, ())
    assert dict((await auth.credentials(*SENT, None)).headers) == {"accept": "text/plain"}
