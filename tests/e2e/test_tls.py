"""TLS on both ports, with many kinds of callers and with attackers."""

import asyncio
import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import openai
import pytest
import pytest_asyncio
from cryptography import x509

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.certificates import Authority, Pair, replace
from tests.e2e.conftest import KEY, READY, Gateway
from tests.ports import free_port
from tests.waiting import until

ECHO: dict[str, Any] = {
    "providers": {
        "echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0},
        "slow": {"protocol": "echo", "models": ["slow"], "token_delay": 0.2},
    },
    "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
}
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
NAMES = ("localhost", "127.0.0.1")
PORTS = ("grpc", "rest")
METADATA = (("authorization", f"Bearer {KEY}"),)


class Secured:
    """A gateway with TLS on both ports, each with its own certificate, and what its callers need."""

    def __init__(self, folder: Path, *, mutual: bool) -> None:
        self.folder = folder
        self.authority = Authority()
        self.ca = self.authority.write(folder / "ca.crt")
        self.client = self.authority.issue("client")
        self.client_files = self.client.write(folder, "client")
        self.pairs: dict[str, Pair] = {}
        config = dict(ECHO)
        ports = {}
        for port in PORTS:
            self.renew(port)
            tls: dict[str, str] = {"certificate": f"{port}.crt", "key": f"{port}.key"}
            if mutual:
                tls["client_ca"] = "ca.crt"
            ports[port] = {"tls": tls, "listen": f"127.0.0.1:{free_port()}"}
        self.gateway = Gateway(folder, {**config, **ports})
        self.addresses = {port: str(ports[port]["listen"]) for port in PORTS}
        self.url = f"https://{self.addresses['rest']}/api/v1"
        self.mutual = mutual

    def renew(self, port: str, *names: str) -> Pair:
        self.pairs[port] = self.authority.issue(*(names or NAMES))
        self.pairs[port].write(self.folder, port)
        return self.pairs[port]

    def context(self, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self.ca))
        if client or self.mutual:
            made.load_cert_chain(*(client or self.client_files))
        return made

    def http(self, **options: Any) -> httpx2.AsyncClient:
        headers = {"authorization": f"Bearer {KEY}"}
        return httpx2.AsyncClient(
            **{"base_url": self.url, "headers": headers, "verify": self.context(), "timeout": 20, "trust_env": False, **options}
        )

    def channel(self, port: str) -> grpc.aio.Channel:
        pair = (self.client.key, self.client.certificate) if self.mutual else (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.pem, *pair)
        return grpc.aio.secure_channel(self.addresses[port], credentials)

    def handshake(
        self, port: str, context: ssl.SSLContext | None = None, name: str = "localhost", alpn: tuple[str, ...] = ("h2", "http/1.1")
    ) -> tuple[int, str | None]:
        """Return the serial number of the server's certificate, and the negotiated protocol.

        With HTTP/2 it waits for a byte, because TLS 1.3 refuses a client certificate only after the handshake.
        """
        context = context or self.context()
        context.check_hostname = False
        context.set_alpn_protocols(list(alpn))
        host, number = self.addresses[port].split(":")
        with socket.create_connection((host, int(number)), 10) as plain, context.wrap_socket(plain, server_hostname=name) as made:
            der = made.getpeercert(binary_form=True)
            assert der is not None
            if made.selected_alpn_protocol() == "h2":
                made.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
                assert made.recv(1), "closed"
            return x509.load_der_x509_certificate(der).serial_number, made.selected_alpn_protocol()

    async def wait_for_certificate(self, port: str, pair: Pair) -> None:
        """Wait until a new connection gets this certificate."""

        async def is_in_use() -> bool:
            return (await asyncio.to_thread(self.handshake, port))[0] == pair.serial

        await until(is_in_use)


async def _up(folder: Path, *, mutual: bool) -> AsyncGenerator[Secured, None]:
    made = Secured(folder, mutual=mutual)
    await asyncio.to_thread(made.gateway.wait_for, READY)
    yield made
    assert await asyncio.to_thread(made.gateway.stop) == 0
    assert "call_failed" not in made.gateway.output_text
    assert KEY not in made.gateway.output_text
    assert "PRIVATE" not in made.gateway.output_text
    assert "Handshake failed" not in made.gateway.output_text, "anybody could fill the log"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def one_way(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Secured, None]:
    async for made in _up(tmp_path_factory.mktemp("tls"), mutual=False):
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mutual(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Secured, None]:
    async for made in _up(tmp_path_factory.mktemp("mtls"), mutual=True):
        yield made


@pytest.fixture(params=["one_way", "mutual"])
def secured(request: pytest.FixtureRequest, one_way: Secured, mutual: Secured) -> Secured:
    return one_way if request.param == "one_way" else mutual


def chat(channel: grpc.aio.Channel, model: str = "echo", text: str = "Hello", metadata: Any = METADATA) -> Any:
    message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=text))])
    request = chat_pb2.GenerateRequest(model=model, messages=[message])
    return chat_pb2_grpc.ChatServiceStub(channel).StreamGenerate(request, metadata=metadata)


# Callers


async def test_the_sdk_over_tls(secured: Secured) -> None:
    """The OpenAI SDK works with the authority, and with a client certificate where one is required."""
    http = httpx2.AsyncClient(verify=secured.context(), trust_env=False)
    async with openai.AsyncOpenAI(base_url=secured.url, api_key=KEY, max_retries=0, http_client=http) as sdk:
        whole = await sdk.chat.completions.create(**HELLO)  # type: ignore[call-overload]
        assert "Hello" in whole.choices[0].message.content
        stream = await sdk.chat.completions.create(stream=True, **HELLO)  # type: ignore[call-overload]
        assert "Hello" in "".join([part.choices[0].delta.content or "" async for part in stream if part.choices])


@pytest.mark.parametrize("port", PORTS)
async def test_grpc_over_tls(secured: Secured, port: str) -> None:
    """A gRPC call works directly to the server and through Envoy."""
    async with secured.channel(port) as channel:
        events = [event async for answer in chat(channel) for event in answer.events]
    assert events[-1].WhichOneof("event") == "finished"


@pytest.mark.parametrize("port", PORTS)
async def test_a_certificate_is_no_key(mutual: Secured, port: str) -> None:
    """A client certificate permits the connection only. A call without a key is still refused."""
    async with mutual.channel(port) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await chat(channel, metadata=None).read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    async with mutual.http(headers={}) as http:
        assert (await http.post("/chat/completions", json=HELLO)).status_code == 401


@pytest.mark.parametrize(("version", "http_version"), [("--http1.1", "1.1"), ("--http2", "2")])
async def test_curl_over_tls(secured: Secured, version: str, http_version: str) -> None:
    """The caller chooses between HTTP/2 and HTTP/1.1."""
    certificate = ["--cert", str(secured.client_files[0]), "--key", str(secured.client_files[1])] if secured.mutual else []
    process = await asyncio.create_subprocess_exec(
        *(
            "curl",
            "-sS",
            version,
            "--noproxy",
            "*",
            "--cacert",
            str(secured.ca),
            *certificate,
            "-w",
            " %{http_code} %{http_version}",
        ),
        *("-H", f"Authorization: Bearer {KEY}", f"{secured.url}/models"),
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert output.decode().endswith(f" 200 {http_version}")


@pytest.mark.slow
async def test_the_terminal_over_tls(secured: Secured) -> None:
    """`antiphon chat` takes authority and certificate from the environment, and fails with a clear error without them."""
    for port in PORTS:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(secured.folder),
            "ANTIPHON_KEY": KEY,
            "ANTIPHON_CA": str(secured.ca),
            "ANTIPHON_ADDRESS": f"https://{secured.addresses[port]}",
        }
        if secured.mutual:
            environment["ANTIPHON_CLIENT_CERTIFICATE"], environment["ANTIPHON_CLIENT_KEY"] = map(str, secured.client_files)
        for given, code, words in (
            (environment, 0, "Hello"),
            ({**environment, "ANTIPHON_CA": ""}, 1, "no gateway answers"),
            ({**environment, "ANTIPHON_CA": "/nowhere.crt"}, 1, "ANTIPHON_CA: /nowhere.crt: No such file or directory"),
        ):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "antiphon", "chat", "-m", "echo", "Hello"),
                env=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            assert process.returncode == code, output
            assert words in output.decode()


async def test_forged_headers_about_certificates_are_dropped(mutual: Secured) -> None:
    """A forged header about the client certificate has no effect."""
    forged = {"x-forwarded-client-cert": 'By=spiffe://x;Hash=00;Subject="CN=admin"'}
    async with mutual.http() as http:
        assert (await http.post("/chat/completions", json=HELLO, headers=forged)).status_code == 200
    async with mutual.http(headers=forged) as http:
        assert (await http.post("/chat/completions", json=HELLO)).status_code == 401


# Attackers


@pytest.mark.parametrize("port", PORTS)
async def test_plain_text_is_not_answered(secured: Secured, port: str) -> None:
    """Plain HTTP and gRPC without TLS get no answer, and the gateway keeps working."""
    with pytest.raises(httpx2.TransportError):
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
            await http.get(f"http://{secured.addresses[port]}/api/v1/models", headers={"authorization": f"Bearer {KEY}"})
    async with grpc.aio.insecure_channel(secured.addresses[port]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await chat(channel).read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    async with secured.channel(port) as channel:
        assert await chat(channel).read()


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(("version", "good"), [("tls1", False), ("tls1_1", False), ("tls1_2", True), ("tls1_3", True)])
async def test_old_versions_are_refused(one_way: Secured, port: str, version: str, good: bool) -> None:
    """TLS 1.0 and 1.1 are refused, even if the caller accepts any cipher."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", f"-{version}", "-connect", one_way.addresses[port], "-cipher", "DEFAULT:@SECLEVEL=0"),
        *("-alpn", "h2", "-CAfile", str(one_way.ca)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode(errors="replace")  # it includes the server's binary HTTP/2 preface
    assert ("Cipher is (NONE)" not in output) is good
    assert ("Verify return code: 0 (ok)" in output and "ALPN protocol: h2" in output) is good
    if not good:
        assert re.search("alert protocol version|unexpected eof", output)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("client", ["none", "stranger", "expired", "early", "good"])
async def test_only_a_good_certificate_connects(mutual: Secured, tmp_path: Path, port: str, client: str) -> None:
    """Without a certificate, or with one that is untrusted, expired or not valid yet, no connection is made."""
    pairs = {
        "stranger": Authority().issue("client"),
        "expired": mutual.authority.issue("client", days=-1, age=2),
        "early": mutual.authority.issue("client", age=-1),
        "good": mutual.client,
    }
    context = ssl.create_default_context(cafile=str(mutual.ca))
    if client != "none":
        context.load_cert_chain(*pairs[client].write(tmp_path, "client"))
    if client == "good":
        assert (await asyncio.to_thread(mutual.handshake, port, context))[1] == "h2"
    else:
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError), match=r"alert|ALERT|reset|closed|EOF"):
            await asyncio.to_thread(mutual.handshake, port, context)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("name", ["x" * 63 + ".test", "*.*.test", "127.0.0.1", "xn--nxasmq6b.test", "a_b.test"])
async def test_any_name_gets_the_one_certificate(one_way: Secured, port: str, name: str) -> None:
    """Any server name gets the same certificate, as nothing is looked up by the name."""
    serial, _ = await asyncio.to_thread(one_way.handshake, port, None, name)
    assert serial == one_way.pairs[port].serial


@pytest.mark.parametrize("port", PORTS)
async def test_garbage_in_a_handshake_does_no_harm(one_way: Secured, port: str) -> None:
    """Garbage in a handshake, or an incomplete one, does not harm the gateway."""
    host, number = one_way.addresses[port].split(":")
    hello = _client_hello(b"\x00\xff\r\n../../etc/passwd")
    for sent in (hello, hello[:40], b"\x16\x03\x01\xff\xff" + b"\x01" * 100, os.urandom(1000)):
        with (
            socket.create_connection((host, int(number)), 10) as made,
            contextlib.suppress(OSError),
        ):  # the connection may be closed at any moment
            made.sendall(sent)
            made.shutdown(socket.SHUT_WR)
            while made.recv(65536):
                pass
    async with one_way.channel(port) as channel:
        assert await chat(channel).read()


def _client_hello(name: bytes) -> bytes:
    """Return a real client hello with its server name replaced by these bytes."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    stand_in = "n" * len(name)
    made = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=stand_in)
    with contextlib.suppress(ssl.SSLWantReadError):
        made.do_handshake()
    hello = outgoing.read()
    assert stand_in.encode() in hello
    return hello.replace(stand_in.encode(), name)


@pytest.mark.parametrize("port", PORTS)
async def test_nobody_renegotiates(one_way: Secured, port: str) -> None:
    """A caller that renegotiates within TLS 1.2 loses the connection."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-tls1_2", "-connect", one_way.addresses[port], "-alpn", "h2"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    output = b""
    while b"Extended master secret" not in output:
        output += await process.stdout.readline()
    process.stdin.write(b"R\n")
    async with asyncio.timeout(20):
        rest = await process.stdout.read()
        await process.wait()
    assert b"RENEGOTIATING" in rest
    assert re.search(rb"no renegotiation|unexpected message|error:|closed", rest.split(b"RENEGOTIATING")[1])


@pytest.mark.parametrize("port", PORTS)
async def test_a_caller_does_not_take_a_stranger_for_the_gateway(one_way: Secured, port: str) -> None:
    """A client does not call a server with another authority or name, so its key is not revealed."""
    strange = grpc.ssl_channel_credentials(Authority().pem)
    options = [("grpc.ssl_target_name_override", "gateway.test")]
    named = grpc.ssl_channel_credentials(one_way.authority.pem)
    for channel in (
        grpc.aio.secure_channel(one_way.addresses[port], strange),
        grpc.aio.secure_channel(one_way.addresses[port], named, options=options),
    ):
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await chat(channel).read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# Change


@pytest.mark.parametrize("port", PORTS)
async def test_a_new_certificate_breaks_nothing(secured: Secured, port: str) -> None:
    """When a certificate is replaced, streams go on to their end, and new connections get the new one."""
    text = " ".join(f"word{number}" for number in range(20))
    async with secured.channel(port) as channel:
        call = chat(channel, "slow", text)
        answers = aiter(call)
        events = list((await anext(answers)).events)
        await secured.wait_for_certificate(port, secured.renew(port))
        assert not call.done(), "the stream was over before the change"
        events += [event async for answer in answers for event in answer.events]
        assert events[-1].WhichOneof("event") == "finished"
        assert text in "".join(event.text.text for event in events)
        assert await chat(channel).read()
    async with secured.channel(port) as channel:
        assert await chat(channel).read()


@pytest.mark.slow
@pytest.mark.parametrize("port", PORTS)
async def test_a_broken_certificate_keeps_the_one_before(one_way: Secured, port: str) -> None:
    """A broken certificate, or a key that does not match, is logged, and the old pair stays until a valid one comes."""
    before = one_way.pairs[port]
    certificate, key = (one_way.folder / f"{port}.{kind}" for kind in ("crt", "key"))
    lines = one_way.gateway.output_text.count("certificate_not_read")
    for number, (path, data) in enumerate(
        ((certificate, before.certificate[:200]), (certificate, before.certificate), (key, Authority().issue("x").key))
    ):
        replace(path, data)
        if number != 1:
            lines += 1
            await asyncio.to_thread(one_way.gateway.wait_for, "certificate_not_read", lines)
        for _ in range(5):
            assert (await asyncio.to_thread(one_way.handshake, port))[0] == before.serial
    assert f"{port}.tls.key: {port}.key: is not the key of the first certificate in {port}.crt" in one_way.gateway.output_text
    await one_way.wait_for_certificate(port, one_way.renew(port))


@pytest.mark.parametrize("kind", ["a mounted secret", pytest.param("two folders", marks=pytest.mark.slow)])
async def test_the_edge_sees_every_kind_of_change(tmp_path: Path, kind: str) -> None:
    """The edge notices a replaced link, as Kubernetes replaces a Secret, and changed files in separate folders."""
    authority = Authority()
    first, second = authority.issue(*NAMES), authority.issue(*NAMES)
    if kind == "two folders":
        for name in ("public", "private"):
            (tmp_path / name).mkdir()
        tls = {"certificate": "public/tls.crt", "key": "private/tls.key"}
        (tmp_path / tls["certificate"]).write_bytes(first.certificate)
        (tmp_path / tls["key"]).write_bytes(first.key)
    else:
        for name, pair in (("..1", first), ("..2", second)):
            (tmp_path / name).mkdir()
            pair.write(tmp_path / name, "tls")
        (tmp_path / "..data").symlink_to("..1")
        tls = {"certificate": "tls.crt", "key": "tls.key"}
        for name in tls.values():
            (tmp_path / name).symlink_to(f"..data/{name}")
    port = free_port()
    gateway = Gateway(tmp_path, {**ECHO, "rest": {"listen": f"127.0.0.1:{port}", "tls": tls}})
    try:
        await asyncio.to_thread(gateway.wait_for, READY)
        assert await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port)) == first.certificate.decode()
        if kind == "two folders":
            replace(tmp_path / tls["key"], second.key)
            replace(tmp_path / tls["certificate"], second.certificate)
        else:
            (tmp_path / "..new").symlink_to("..2")
            (tmp_path / "..new").replace(tmp_path / "..data")

        async def is_in_use() -> bool:
            return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port)) == second.certificate.decode()

        await until(is_in_use)
    finally:
        assert await asyncio.to_thread(gateway.stop) == 0


async def test_another_authority_of_callers_is_taken_up(tmp_path: Path) -> None:
    """A changed client authority is used on both ports without a restart. Clients of the old one no longer connect."""
    async for made in _up(tmp_path, mutual=True):
        other = Authority()
        files = other.issue("client").write(tmp_path, "other")
        made.authority.write(tmp_path / "server-ca.crt")
        replace(tmp_path / "ca.crt", other.pem)
        made.ca = tmp_path / "server-ca.crt"
        for port in PORTS:

            async def taken() -> bool:
                with contextlib.suppress(ssl.SSLError, ConnectionError, AssertionError):
                    await asyncio.to_thread(made.handshake, port, made.context(files))  # noqa: B023
                    return True
                return False

            await until(taken)
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                await asyncio.to_thread(made.handshake, port, made.context(made.client_files))


# Messages for operators


def _antiphon(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "antiphon", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["check-config", "up", "serve"])
def test_a_file_that_is_not_usable_ends_a_start(command: str, tmp_path: Path) -> None:
    """An unusable file ends the start with one line that names the setting and the file."""
    Authority().issue(*NAMES).write(tmp_path, "tls")
    (tmp_path / "tls.key").write_text("none")
    names = {"ANTIPHON_GRPC__TLS__CERTIFICATE": "tls.crt", "ANTIPHON_GRPC__TLS__KEY": "tls.key", "ANTIPHON_KEY": KEY}
    done = _antiphon(command, folder=tmp_path, **names)
    assert done.returncode == 2
    assert done.stderr == "configuration: grpc.tls.key: tls.key: is not a private key in PEM\n"


async def test_plain_text_beyond_this_machine_is_warned_of(tmp_path: Path) -> None:
    """A port without TLS that other machines can reach gives one warning at the start."""
    rest, number = f"0.0.0.0:{free_port()}", free_port()
    gateway = Gateway(tmp_path, {**ECHO, "rest": {"listen": rest}, "grpc": {"listen": f"127.0.0.1:{number}"}})
    await asyncio.to_thread(gateway.wait_for, READY)
    assert gateway.output_text.count("warning:") == 1
    assert f"warning: rest.listen ({rest}): other machines can connect" in gateway.output_text
    assert await asyncio.to_thread(gateway.stop) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_nobody_else_reaches_a_worker(one_way: Secured) -> None:
    """Only this user can connect to the sockets between Envoy and the workers, even if their folder were open."""
    listed = Path("/proc/net/unix").read_text()
    children = Path(f"/proc/{one_way.gateway.process.pid}/task/{one_way.gateway.process.pid}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") for child in children]
    (path,) = [Path(command[command.index(b"--socket") + 1].decode()) for command in commands if b"--socket" in command]
    assert str(path) in listed
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    program = "import os, socket, sys; os.setuid(65534); socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr
    # Not even if the folder were open.
    path.parent.chmod(0o755)
    try:
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    finally:
        path.parent.chmod(0o700)
    assert "PermissionError" in done.stderr
