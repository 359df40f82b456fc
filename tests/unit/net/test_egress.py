"""Tests of which targets and addresses the proxy may reach."""

import ipaddress
from collections.abc import Sequence

import pytest

from antiphon.config import ConfigError, ProxyConfig
from antiphon.domain.errors import AntiphonError, InvalidRequest, PermissionDenied
from antiphon.net.egress import AddressKind, EgressPolicy, PinnedResolver, classify

POLICY = EgressPolicy(
    ProxyConfig(
        allow=(
            "https://api.openai.com",
            "https://generativelanguage.googleapis.com",
            "https://openrouter.ai/api/v1",
            "http://models.internal:8000/v1",
            "https://public.example:443",
            "http://127.0.0.1:9000",
            "https://[::1]:9443",
            "https://10.0.0.5",
            "https://xn--bcher-kva.example",
        ),
        aliases={"default": "https://api.openai.com/v1", "local": "http://llm.internal:9001/v1"},
    )
)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com", "https://api.openai.com"),
        ("https://api.openai.com/", "https://api.openai.com"),
        ("https://api.openai.com:443/v1/", "https://api.openai.com/v1"),
        ("HTTPS://API.OpenAI.com/v1", "https://api.openai.com/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("https://openrouter.ai/api/v1/more", "https://openrouter.ai/api/v1/more"),
        ("http://models.internal:8000/v1", "http://models.internal:8000/v1"),
        ("http://127.0.0.1:9000/v1", "http://127.0.0.1:9000/v1"),
        ("https://[::1]:9443/v1", "https://[::1]:9443/v1"),
        ("https://10.0.0.5/v1", "https://10.0.0.5/v1"),
        ("https://xn--bcher-kva.example/v1", "https://xn--bcher-kva.example/v1"),
        # A host alone gets scheme, port and path from the list, or else from the dialect.
        ("api.openai.com", "https://api.openai.com/base"),
        ("api.openai.com:443", "https://api.openai.com/base"),
        ("api.openai.com/v2", "https://api.openai.com/v2"),
        ("openrouter.ai", "https://openrouter.ai/api/v1"),
        ("models.internal", "http://models.internal:8000/v1"),
        ("models.internal:8000", "http://models.internal:8000/v1"),
        ("127.0.0.1:9000", "http://127.0.0.1:9000/base"),
        ("[::1]", "https://[::1]:9443/base"),
        # Aliases.
        ("default", "https://api.openai.com/v1"),
        ("local", "http://llm.internal:9001/v1"),
        ("http://llm.internal:9001/v1", "http://llm.internal:9001/v1"),
    ],
)
def test_what_is_on_the_list_is_reached(written: str, url: str) -> None:
    """An allowed target or an alias gives one normal form of URL, however it is written."""
    assert POLICY.target(written, default_path="/base").url == url


@pytest.mark.parametrize(
    "written",
    [
        "https://api.openai.com.evil.example",
        "https://evil.example",
        "https://openai.com",
        "http://api.openai.com",  # another scheme
        "http://api.openai.com:443",
        "https://api.openai.com:8443",  # another port
        "https://openrouter.ai",  # a parent of the allowed path
        "https://openrouter.ai/api",
        "https://openrouter.ai/api/v12",  # only part of a segment is equal
        "http://models.internal:8001/v1",
        "http://models.internal/v1",
        "http://127.0.0.1:9001",
        "http://127.0.0.1",
        "http://127.0.0.2:9000",
        "http://localhost:9000",  # the same address by another name
        "http://[::1]:9000",
        "http://[::]:9000",
        "http://0.0.0.0:9000",
        "http://255.255.255.255:9000",
        "http://224.0.0.1:9000",
        "http://[ff02::1]:9000",
        "http://[fd00:ec2::254]/latest",
        "http://[64:ff9b::a9fe:a9fe]/latest",
        "http://[2002:a9fe:a9fe::]/latest",
        "http://127.0.0.1.nip.io:9000",
        "http://169.254.169.254.nip.io",
        "http://localhost.localdomain:9000",
        "http://169.254.169.254/latest",
        "http://metadata.google.internal",
        "https://10.0.0.6",
        "https://bcher-kva.example",
        "openrouter.ai/api",
        "models.internal:8001",
        "evil.example",
        "169.254.169.254",
        "Default",  # aliases are case-sensitive
    ],
)
def test_what_is_not_on_the_list_is_refused(written: str) -> None:
    """A well-formed target that is not allowed raises `PermissionDenied`."""
    with pytest.raises(PermissionDenied):
        POLICY.target(written)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "https://",
        "https:///v1",
        "//api.openai.com/v1",
        "https:api.openai.com",
        "https:/api.openai.com/v1",
        "ftp://api.openai.com",
        "file:///etc/passwd",
        "gopher://127.0.0.1:9000/_x",
        "javascript:alert(1)",
        "unix:/run/docker.sock",
        "https+unix://api.openai.com",
        # User names, and text that some parsers read as one.
        "https://user@api.openai.com",
        "https://user:password@api.openai.com/v1",
        "https://api.openai.com@evil.example",
        "https://api.openai.com:443@evil.example",
        "https://evil.example#@api.openai.com",
        "https://evil.example?@api.openai.com",
        r"https://evil.example\@api.openai.com",
        r"https://api.openai.com\@evil.example",
        r"https:\\api.openai.com\v1",
        r"https://api.openai.com\v1",
        # Queries and fragments.
        "https://api.openai.com/v1?x=1",
        "https://api.openai.com/v1#x",
        "https://api.openai.com?",
        "https://api.openai.com#",
        # White space and control characters.
        " https://api.openai.com",
        "https://api.openai.com ",
        "https://api.openai.com/v1\n",
        "https://api.openai.com\r\nHost: evil.example",
        "https://api.openai.com/v1\r\nX: y",
        "https://api.open\tai.com",
        "https://api.openai.com\0.evil.example",
        "https://api.openai.com/v1\x7f",
        # Characters that are still encoded after one decoding.
        "https%3A%2F%2Fapi.openai.com",
        "https://api%2eopenai.com",
        "https://api.openai.com/%2e%2e/x",
        "https://api.openai.com/v1%2f..%2fx",
        "https://api.openai.com%2fv1",
        "https://api.openai.com%00.evil.example",
        "https://api.openai.com%40evil.example",
        # Paths that lead elsewhere.
        "https://openrouter.ai/api/v1/../..",
        "https://openrouter.ai/api/v1/..",
        "https://openrouter.ai/api/v1/../v2",
        "https://api.openai.com/./v1",
        "https://api.openai.com//v1",
        "https://api.openai.com/v1//",
        "https://api.openai.com/.../v1",
        "https://api.openai.com/v1;x=1",
        # Dots.
        "https://api.openai.com.",
        "https://api.openai.com./v1",
        "https://.api.openai.com",
        "https://api..openai.com",
        "https://.",
        "..",
        # Numbers that some parsers read as 127.0.0.1 or 169.254.169.254.
        "http://2130706433:9000",
        "http://0x7f000001:9000",
        "http://0x7f.0.0.1:9000",
        "http://0x7F.1:9000",
        "http://017700000001:9000",
        "http://0177.0.0.1:9000",
        "http://127.1:9000",
        "http://127.0.1:9000",
        "http://127.0.0.01:9000",
        "http://127.0.0.1.:9000",
        "http://0127.0.0.1:9000",
        "http://00000127.0.0.1:9000",
        "http://127.0.0.1.1:9000",
        "http://127.0.0.256:9000",
        "http://127.0.0.0x1:9000",
        "http://0:9000",
        "http://0x:9000",
        "http://0.0:9000",
        "http://0x0.0x0.0x0.0x0:9000",
        "http://0xa9fea9fe/latest",
        "http://0xA9.0xFE.0xA9.0xFE/latest",
        "http://025177524776/latest",
        "http://0251.0376.0251.0376/latest",
        "http://169.254.43518/latest",
        "http://169.16689662/latest",
        "http://2852039166/latest",
        "http://425.510.425.510/latest",
        "http://4294967296:9000",
        "http://-1:9000",
        "http://1e9:9000/../",
        "http://api.openai.0x7f",
        "2852039166",
        # IPv6 in other forms, with zones, and with an embedded IPv4 address.
        "https://[0:0:0:0:0:0:0:1]:9443",
        "https://[::01]:9443",
        "https://[::0001]:9443",
        "https://[::ffff:127.0.0.1]:9000",
        "https://[::ffff:7f00:1]:9000",
        "https://[::127.0.0.1]:9000",
        "http://[::ffff:169.254.169.254]/latest",
        "http://[::ffff:a9fe:a9fe]/latest",
        "http://[0:0:0:0:0:ffff:a9fe:a9fe]/latest",
        "http://[64:ff9b::169.254.169.254]/latest",
        "http://[::FFFF:A9FE:A9FE]/latest",
        "https://[FE80::1%25eth0]",
        "https://[::1%lo]:9443",
        "https://[::1%25lo]:9443",
        "https://[fe80::1%eth0]",
        "https://[::1",
        "https://::1",
        "https://[::1]x:9443",
        "https://[v1.x]",
        "https://[]",
        "https://[api.openai.com]",
        # Not ASCII: full-width and circled letters, dots of other scripts, homographs, soft hyphens.
        "https://api.openai\u3002com",
        "https://api\uff0eopenai\uff0ecom",
        "https://\uff41\uff50\uff49.openai.com",
        "https://api.openai.\u24d2om",
        "https://\u0430pi.openai.com",
        "https://api.open\u00adai.com",
        "https://b\u00fccher.example",
        "http://\uff11\uff12\uff17.0.0.1:9000",
        "http://\u2460\u2461\u2466.0.0.1:9000",
        "http://127\u30020\u30020\u30021:9000",
        "http://127\uff0e0\uff0e0\uff0e1:9000",
        "http://127\uff610\uff610\uff611:9000",
        "http://169\u2024254.169.254",
        "http://\u0661\u0662\u0667.0.0.1:9000",
        "http://\u3012.example",
        "https://api.openai.com\uff0fv1",
        "https://evil.example\uff20api.openai.com",
        "https\uff1a//api.openai.com",
        "https://api.openai.com\u200b",
        "https://api.openai.com\u2028",
        "https://api.openai.com/\uff56\uff11",
        # Ports.
        "https://api.openai.com:",
        "https://api.openai.com:0",
        "https://api.openai.com:0443",
        "https://api.openai.com:65536",
        "https://api.openai.com:99999",
        "https://api.openai.com:443443",
        "https://api.openai.com:-443",
        "https://api.openai.com:+443",
        "https://api.openai.com:4 43",
        "https://api.openai.com:https",
        "https://api.openai.com:443:80",
        "https://api.openai.com:\uff14\uff14\uff13",
        # Invalid names.
        "https://-api.openai.com",
        "https://api-.openai.com",
        "https://api_openai.com",
        "https://*.openai.com",
        "https://" + "a" * 64 + ".example",
        "https://" + "a." * 130 + "example",
        "https://api.openai.com/" + "a" * 3000,
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(written: str) -> None:
    """A target that parsers might read in different ways raises `InvalidRequest`, which does not repeat it.

    Nothing is corrected.
    """
    with pytest.raises(InvalidRequest) as caught:
        POLICY.target(written)
    assert written.strip() not in caught.value.message or len(written.strip()) < 3, "it may hold a secret"


def test_no_target_is_allowed_by_default() -> None:
    """By default no target is allowed."""
    policy = EgressPolicy(ProxyConfig())
    for written in ("https://api.openai.com/v1", "api.openai.com", "default", "http://127.0.0.1:80"):
        with pytest.raises(PermissionDenied):
            policy.target(written)


@pytest.mark.parametrize(
    "entry",
    ["", "api.openai.com", "https://", "https://*.openai.com", "https://a@b.example", "https://b.example/?x", "http://0177.0.0.1",
     "http://0.0.0.0:80", "http://[::]:80", "http://224.0.0.1:80", "https://b.example:0", "https://b.example/../x"],
)  # fmt: skip
def test_an_entry_that_is_not_a_base_url_is_refused_at_start(entry: str) -> None:
    """An allowed entry or alias that is not a base URL is a `ConfigError` that names it."""
    with pytest.raises(ConfigError, match=r"^proxy\.allow\.0: "):
        EgressPolicy(ProxyConfig(allow=(entry,)))
    with pytest.raises(ConfigError, match=r"^proxy\.aliases\.mine: "):
        EgressPolicy(ProxyConfig(aliases={"mine": entry}))
    with pytest.raises(ConfigError, match="an alias is made of"):
        EgressPolicy(ProxyConfig(aliases={"a.b": "https://b.example"}))


PUBLIC = ["93.184.216.34", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001:81c::200a"]
PRIVATE = ["127.0.0.1", "127.255.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "::1", "fd12::1"]
NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "168.63.129.16",
    "192.0.0.192",
    "100.100.100.200",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd00:42::42",
    "::ffff:169.254.169.254",
    "::a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2001:0:5601:5601::1",
    "fe80::a9fe:a9fe",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.1.1.1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "::",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2001:0:53aa:64c::1",
    "2001:db8::1",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
    "100::1",
    "3fff::1",
    "5f00::1",
    "2001:2::1",
    "2001:20::1",
    "ff0e::1",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:7f00:1",
    "fd12::5efe:7f00:1",
]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *((a, AddressKind.PUBLIC) for a in PUBLIC),
        *((a, AddressKind.PRIVATE) for a in PRIVATE),
        *((a, AddressKind.FORBIDDEN) for a in NEVER),
    ],
)
def test_every_kind_of_address_is_known(address: str, expected: AddressKind) -> None:
    """Each address is classified as public, private or forbidden."""
    assert classify(ipaddress.ip_address(address)) is expected


def scripted(*answers: Sequence[str]) -> tuple[PinnedResolver, list[tuple[str, int]]]:
    """Return a resolver with these answers, one for each look-up, and the list of its look-ups."""
    lookups: list[tuple[str, int]] = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        lookups.append((host, port))
        return answers[len(lookups) - 1]

    return PinnedResolver(POLICY, lookup), lookups


async def test_the_addresses_that_were_checked_are_the_ones_handed_out() -> None:
    """The resolver returns the checked addresses as numbers, in order, after one look-up."""
    resolver, lookups = scripted(["93.184.216.34", "2606:4700::1111"])
    assert await resolver.resolve("api.openai.com", 443) == ["93.184.216.34", "2606:4700::1111"]
    assert lookups == [("api.openai.com", 443)]


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER])
async def test_a_name_with_a_private_address_is_refused(address: str) -> None:
    """A name is refused if any of its addresses is private or forbidden."""
    for answer in ([address], ["93.184.216.34", address], [address, "93.184.216.34"]):
        resolver, _ = scripted(answer)
        with pytest.raises(PermissionDenied) as caught:
            await resolver.resolve("api.openai.com", 443)
        assert address not in caught.value.message


@pytest.mark.parametrize(("host", "port"), [("models.internal", 8000), ("public.example", 443), ("llm.internal", 9001)])
async def test_a_name_with_its_port_on_the_list_may_be_inside(host: str, port: int) -> None:
    """A name that is allowed with its port may have private addresses at that port, but never forbidden ones."""
    for address in (*PRIVATE, *PUBLIC):
        resolver, _ = scripted([address])
        assert await resolver.resolve(host, port) == [address]
        resolver, _ = scripted([address])
        if address in PRIVATE:
            with pytest.raises(PermissionDenied):
                await resolver.resolve(host, port + 1)
    for address in NEVER:
        resolver, _ = scripted([address])
        with pytest.raises(PermissionDenied):
            await resolver.resolve(host, port)


async def test_every_look_up_is_checked_by_itself() -> None:
    """Every look-up is checked by itself, so that DNS rebinding has no effect."""
    resolver, lookups = scripted(["93.184.216.34"], ["169.254.169.254"], ["127.0.0.1"], ["93.184.216.34"])
    assert await resolver.resolve("api.openai.com", 443) == ["93.184.216.34"]
    for _ in range(2):
        with pytest.raises(PermissionDenied):
            await resolver.resolve("api.openai.com", 443)
    assert await resolver.resolve("api.openai.com", 443) == ["93.184.216.34"]
    assert len(lookups) == 4


async def test_a_name_without_an_address_is_an_error_of_the_network() -> None:
    """A name without an address raises `OSError`."""
    resolver, _ = scripted([])
    with pytest.raises(OSError, match="no address"):
        await resolver.resolve("api.openai.com", 443)


async def test_the_system_is_asked_by_default() -> None:
    """By default the system resolves names; `localhost` is private and allowed only with its port."""
    resolver = PinnedResolver(EgressPolicy(ProxyConfig(allow=("http://localhost:9000",))))
    assert set(await resolver.resolve("localhost", 9000)) <= {"127.0.0.1", "::1"}
    with pytest.raises(AntiphonError):
        await resolver.resolve("localhost", 9001)
