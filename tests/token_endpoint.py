"""An endpoint that issues access tokens as Google, Microsoft Entra and the metadata services of both do, on a free port.

It checks each grant as the real ones do: signatures by Google's own library, audience, issuer, scope, times, secrets and headers.
What is wrong is refused with the real ones' error. `issued` has every token, so that an upstream can check what it is sent.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions
from google.auth import jwt as google_jwt

GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"

EMAIL = "gateway@acme.iam.gserviceaccount.com"
AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/cluster"
CLIENT_ID, SECRET, REFRESH_TOKEN, TENANT = "client-1", "the-client-secret", "the-refresh-token", "tenant-1"
IDENTITY_HEADER = "the-identity-header"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)

_JWT = "urn:ietf:params:oauth:token-type:jwt"


def pem(key: rsa.RSAPrivateKey = KEY) -> str:
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()).decode()


def _public(key: rsa.RSAPrivateKey = KEY) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def workload_token(audience: str, key: rsa.RSAPrivateKey = KEY, lifetime: int = 600) -> str:
    """Return the token that a cluster projects into a pod."""
    from google.auth import crypt

    now = int(time.time())
    claims = {"iss": "https://cluster.test", "sub": "system:serviceaccount:antiphon:antiphon", "aud": audience}
    signed: bytes = google_jwt.encode(crypt.RSASigner.from_string(pem(key), "k"), {**claims, "iat": now, "exp": now + lifetime})
    return signed.decode()


class TokenEndpoint:
    """The endpoint. Its fields say how it behaves."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        """The paths of all requests."""
        self.issued: dict[str, float] = {}
        """The end of each token that was issued, in seconds since 1970."""
        self.lifetime = 3600
        self.failures: list[tuple[int, Mapping[str, str]]] = []
        """Statuses, with headers, that the next requests are answered with."""
        self.gate = asyncio.Event()
        """Requests wait until it is set."""
        self.gate.set()
        self.flavor: Mapping[str, str] = {"metadata-flavor": "Google"}
        """The headers by which the metadata server is known."""
        self.same = False
        """Whether the same token is issued again, as by a cache."""
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._counted])
        app.router.add_post("/token", self._google)
        app.router.add_post("/sts", self._sts)
        app.router.add_post("/impersonate/{email}:generateAccessToken", self._impersonate)
        app.router.add_get("/computeMetadata/v1/instance/service-accounts/{account}/token", self._google_metadata)
        app.router.add_post("/{tenant}/oauth2/v2.0/token", self._entra)
        app.router.add_get("/metadata/identity/oauth2/token", self._imds)
        app.router.add_get("/msi/token", self._app_service)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        self.gate.set()
        await self._runner.cleanup()

    def accepts(self, authorization: str) -> bool:
        """Return whether a call with this header would be let in: it has a token from here that has not ended."""
        return self.issued.get(authorization.removeprefix("Bearer "), 0) > time.time()

    def service_account(self, path: Path, **changes: Any) -> Path:
        fields = {
            "type": "service_account",
            "project_id": "acme",
            "private_key_id": "key-1",
            "private_key": pem(),
            "client_email": EMAIL,
            "token_uri": f"{self.url}/token",
            "universe_domain": "googleapis.com",
        }
        return _write(path, fields | changes)

    def user(self, path: Path, **changes: Any) -> Path:
        fields = {
            "type": "authorized_user",
            "client_id": CLIENT_ID,
            "client_secret": SECRET,
            "refresh_token": REFRESH_TOKEN,
            "token_uri": f"{self.url}/token",
            "quota_project_id": "quota",
        }
        return _write(path, fields | changes)

    def federated(self, path: Path, token_file: Path, **changes: Any) -> Path:
        fields = {
            "type": "external_account",
            "audience": AUDIENCE,
            "subject_token_type": _JWT,
            "token_url": f"{self.url}/sts",
            "credential_source": {"file": str(token_file)},
            "service_account_impersonation_url": f"{self.url}/impersonate/{EMAIL}:generateAccessToken",
        }
        return _write(path, {name: value for name, value in (fields | changes).items() if value is not None})

    @web.middleware
    async def _counted(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(request.path_qs)
        await self.gate.wait()
        if self.failures:
            status, headers = self.failures.pop(0)
            return web.json_response({"error": "temporarily_unavailable"}, status=status, headers=headers)
        return await handler(request)

    def _issue(self) -> str:
        if not self.same or not self.issued:
            self.issued[f"token-{len(self.issued) + 1}-secret"] = time.time() + self.lifetime
        return list(self.issued)[-1]

    async def _google(self, request: web.Request) -> web.Response:
        form = await request.post()
        match form.get("grant_type"):
            case "urn:ietf:params:oauth:grant-type:jwt-bearer":
                # Google's own library names Google's address as the audience, whatever `token_uri` says.
                audience = [f"{self.url}/token", "https://oauth2.googleapis.com/token"]
                try:
                    claims = google_jwt.decode(str(form["assertion"]), certs=_public(), audience=audience)
                except (exceptions.GoogleAuthError, ValueError):
                    return _error(400, "invalid_grant", "Invalid JWT Signature.")
                if claims.get("iss") != EMAIL or claims["exp"] - claims["iat"] > 3600:
                    return _error(400, "invalid_grant", f"Invalid JWT: {form['assertion']}")
                if claims.get("scope") != GOOGLE_SCOPE:
                    return _error(400, "invalid_scope", "no such scope")
            case "refresh_token":
                if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, SECRET):
                    return _error(401, "invalid_client", "The OAuth client was not found.")
                if form.get("refresh_token") != REFRESH_TOKEN:
                    return _error(400, "invalid_grant", "Token has been expired or revoked.")
            case _:
                return _error(400, "unsupported_grant_type", "")
        return web.json_response({"access_token": self._issue(), "expires_in": self.lifetime, "token_type": "Bearer"})

    async def _sts(self, request: web.Request) -> web.Response:
        form = await request.post()
        wanted = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": AUDIENCE,
            "scope": GOOGLE_SCOPE,
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": _JWT,
        }
        if any(form.get(name) != value for name, value in wanted.items()):
            return _error(400, "invalid_request", "Invalid value")
        if not _is_workload(str(form.get("subject_token")), AUDIENCE):
            return _error(400, "invalid_grant", "Error connecting to the given credential's issuer.")
        kind = "urn:ietf:params:oauth:token-type:access_token"
        answer = {"access_token": self._issue(), "issued_token_type": kind, "token_type": "Bearer", "expires_in": self.lifetime}
        return web.json_response(answer)

    async def _impersonate(self, request: web.Request) -> web.Response:
        if not self.accepts(request.headers.get("authorization", "")):
            return web.json_response({"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "no"}}, status=401)
        body = await request.json()
        if request.match_info["email"] != EMAIL or body.get("scope") != [GOOGLE_SCOPE] or body.get("lifetime") != "3600s":
            return web.json_response({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}, status=403)
        end = datetime.fromtimestamp(int(time.time() + self.lifetime), UTC)
        return web.json_response({"accessToken": self._issue(), "expireTime": end.strftime("%Y-%m-%dT%H:%M:%SZ")})

    async def _google_metadata(self, request: web.Request) -> web.Response:
        if request.headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in request.headers:
            return web.Response(status=403, text="Missing Metadata-Flavor:Google header.")
        if request.match_info["account"] != "default" or request.query.get("scopes") != GOOGLE_SCOPE:
            return web.Response(status=404, headers=self.flavor)
        answer = {"access_token": self._issue(), "expires_in": self.lifetime, "token_type": "Bearer"}
        return web.json_response(answer, headers=self.flavor)

    async def _entra(self, request: web.Request) -> web.Response:
        form = await request.post()
        if request.match_info["tenant"] != TENANT:
            return _error(400, "invalid_request", f"AADSTS90002: Tenant '{request.match_info['tenant']}' not found.")
        if form.get("client_id") != CLIENT_ID:
            return _error(400, "unauthorized_client", "AADSTS700016: Application not found.")
        if form.get("grant_type") != "client_credentials" or form.get("scope") != ENTRA_SCOPE:
            return _error(400, "invalid_scope", "AADSTS70011: The provided value for 'scope' is not valid.")
        if "client_assertion" in form:
            kind = form.get("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            if not kind or not _is_workload(str(form["client_assertion"]), "api://AzureADTokenExchange"):
                return _error(401, "invalid_client", "AADSTS700213: No matching federated identity record found.")
        elif form.get("client_secret") != SECRET:
            return _error(401, "invalid_client", f"AADSTS7000215: Invalid client secret provided: {form.get('client_secret')}")
        answer = {
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "ext_expires_in": self.lifetime,
            "access_token": self._issue(),
        }
        return web.json_response(answer)

    async def _imds(self, request: web.Request) -> web.Response:
        if request.headers.get("metadata") != "true":
            return _error(400, "bad_request_102", "Required metadata header not specified")
        wanted = {"api-version": "2018-02-01", "resource": "https://cognitiveservices.azure.com"}
        if dict(request.query) not in (wanted, wanted | {"client_id": CLIENT_ID}):
            return _error(400, "invalid_resource", "AADSTS500011: The resource principal was not found.")
        answer = {"access_token": self._issue(), "expires_on": str(int(time.time()) + self.lifetime), "token_type": "Bearer"}
        return web.json_response(answer | {"expires_in": str(self.lifetime), "not_before": "0", "resource": wanted["resource"]})

    async def _app_service(self, request: web.Request) -> web.Response:
        if request.headers.get("x-identity-header") != IDENTITY_HEADER:
            return web.Response(status=403)
        if dict(request.query) != {"api-version": "2019-08-01", "resource": "https://cognitiveservices.azure.com"}:
            return web.Response(status=400)
        answer = {"access_token": self._issue(), "expires_on": str(int(time.time()) + self.lifetime), "token_type": "Bearer"}
        return web.json_response(answer | {"resource": request.query["resource"]})


def _is_workload(token: str, audience: str) -> bool:
    try:
        claims = google_jwt.decode(token, certs=_public(), audience=audience)
    except (exceptions.GoogleAuthError, ValueError):
        return False
    return bool(claims.get("iss") == "https://cluster.test")


def _error(status: int, word: str, text: str) -> web.Response:
    return web.json_response({"error": word, "error_description": text}, status=status)


def _write(path: Path, fields: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(fields), encoding="utf-8")
    return path
