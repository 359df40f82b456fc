"""A gateway whose providers take access tokens: Vertex AI by a service account, Azure by Microsoft Entra and a managed identity."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.e2e.conftest import READY, Gateway
from tests.odd_upstream import LAST, OddUpstream, answer, chunk, delta, head, sse
from tests.token_endpoint import CLIENT_ID, IDENTITY_HEADER, SECRET, TENANT, TokenEndpoint, pem
from tests.unit.providers.gemini.test_response import HELLO
from tests.unit.providers.vertex.test_provider import CLAUDE

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def test_calls_with_access_tokens(tmp_path: Path) -> None:
    """Each provider gets a token of its own kind, which many calls share, and no secret is in the log or an error."""
    async with OddUpstream() as google, OddUpstream() as azure, TokenEndpoint() as endpoint:
        google.default = [head(), chunk(sse(*HELLO)), LAST]
        azure.default = [answer(sse(delta("ha"), delta("ts", "stop"), "[DONE]"), "200 OK", "text/event-stream")]
        azure.script("expired", [answer({"error": {"code": "401", "message": "expired"}}, "401 Unauthorized")])
        broken = endpoint.service_account(tmp_path / "broken.json", client_email="other@acme.test")
        metadata = f"{endpoint.url}/metadata/identity/oauth2/token"
        config: dict[str, Any] = {
            "models": {"default": "gemini-2.5-flash"},
            "providers": {
                "vertex": {
                    "credentials": {"kind": "google"},
                    "base_url": google.base_url,
                    "protocol": "vertex",
                    "models": ["gemini-*", "claude-*"],
                },
                "azure": {"credentials": {"kind": "entra_secret", "authority": endpoint.url}, "models": ["gpt-*", "expired"]},
                "machine": {
                    "base_url": azure.base_url,
                    "credentials": {"kind": "entra_managed", "metadata_url": endpoint.url},
                    "models": ["mine"],
                },
                "broken": {
                    "base_url": azure.base_url,
                    "credentials": {"kind": "google", "file": str(broken)},
                    "models": ["broken"],
                },
            },
            "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
            "proxy": {"allow": ["http://example.test:80"]},
            "log": {"level": "debug"},
            "workers": 1,
        }
        environment = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(endpoint.service_account(tmp_path / "account.json")),
            "GOOGLE_CLOUD_PROJECT": "acme",
            "AZURE_OPENAI_ENDPOINT": azure.base_url.removesuffix("/v1"),
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT_ID,
            "AZURE_CLIENT_SECRET": SECRET,
        }
        gateway = Gateway(tmp_path, config, **environment)
        await asyncio.to_thread(gateway.wait_for, READY)
        async with gateway.client() as http:
            bodies = [{**CHAT, "model": model, "stream": True} for model in ["gemini-2.5-flash", "gpt-4o", "mine"] * 20]
            replies = await asyncio.gather(*(http.post("/chat/completions", json=body) for body in bodies))
            assert {reply.status_code for reply in replies} == {200}
            assert all(reply.text.endswith("data: [DONE]\n\n") for reply in replies)
            assert len(endpoint.requests) == 3, "one fetch for each identity"
            assert len(endpoint.issued) == 3

            google.default = [head(), chunk(sse(*CLAUDE)), LAST]
            claude = await http.post("/chat/completions", json={**CHAT, "model": "vertex/claude-sonnet-4-5"})
            assert claude.status_code == 200, claude.text
            assert claude.json()["choices"][0]["message"]["content"] == "Hello"

            refused = await http.post("/chat/completions", json={**CHAT, "model": "expired"})
            assert (refused.status_code, len(endpoint.requests)) == (502, 4)
            failed = await http.post("/chat/completions", json={**CHAT, "model": "broken"})
            assert failed.status_code == 502
            message = "This gateway's credentials for the provider broken were refused."
            assert failed.json()["error"]["message"] == message
            # What the gateway may ask for tokens, a caller may not reach.
            for target in (metadata, "http://169.254.169.254/metadata/identity/oauth2/token", endpoint.url):
                denied = await http.post(f"/proxy/{quote(target, safe='')}/sk-caller/chat/completions", json=CHAT)
                assert denied.status_code == 403, denied.text
            assert len(endpoint.requests) == 5
        assert {request.headers["authorization"] for request in google.requests} <= {f"Bearer {token}" for token in endpoint.issued}
        assert {request.path for request in google.requests} == {
            "/v1/v1beta1/projects/acme/locations/global/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            "/v1/v1beta1/projects/acme/locations/global/publishers/anthropic/models/claude-sonnet-4-5:streamRawPredict",
        }
        assert all(endpoint.accepts(request.headers["authorization"]) for request in azure.requests)
        assert not any("api-key" in request.headers for request in azure.requests)
        assert await asyncio.to_thread(gateway.stop) == 0
    lines = [json.loads(line) for line in gateway.output_text.splitlines() if line.startswith("{")]
    fetched = [line["provider"] for line in lines if line["event"] == "provider_token_fetched"]
    assert sorted(fetched) == ["azure", "azure", "machine", "vertex"]
    (failure,) = [line for line in lines if line["event"] == "provider_token_not_fetched"]
    assert (failure["provider"], failure["error"], failure["refused"]) == ("broken", "status 400, invalid_grant", True)
    for secret in (SECRET, "-secret", IDENTITY_HEADER, pem().splitlines()[1], "eyJ"):
        assert secret not in gateway.output_text, secret
