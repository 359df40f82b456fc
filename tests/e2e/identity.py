"""A third-party identity provider, nanoidp, in a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx2
import yaml

from tests.waiting import block_until

CLIENT = ("robot", "robot-secret")
PASSWORD = "user-password"  # noqa: S105 - of no server but the tests'


class IdentityProvider:
    """Has the users `ann` and `boss`, who is in the group `llm-admins`, and the client `robot`."""

    def __init__(self, folder: Path, port: int, audience: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.issued: list[str] = []
        """Every token that it gave, so that a test can look for them where they should not be."""
        client = dict(zip(("client_id", "client_secret"), CLIENT, strict=True))
        settings = {
            "config_version": 1,
            "server": {"host": "127.0.0.1", "port": port},
            "oauth": {"issuer": self.url, "audience": audience, "token_expiry_minutes": 5, "clients": [client]},
        }
        users = {"ann": {"password": PASSWORD}, "boss": {"password": PASSWORD, "groups": ["llm-admins"]}}
        folder.mkdir()
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
        (folder / "users.yaml").write_text(yaml.safe_dump({"config_version": 1, "users": users}))
        with (folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nanoidp", "--config", str(folder)],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": str(folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._http = httpx2.Client(base_url=self.url, trust_env=False, timeout=10)

    def wait(self) -> Self:
        """Wait until it answers, and return it."""

        def answers() -> bool:
            assert self._process.poll() is None, "it ended"
            with contextlib.suppress(httpx2.HTTPError):
                return self._http.get("/.well-known/openid-configuration").is_success
            return False

        block_until(answers)
        return self

    def tokens(self, user: str | None = None) -> dict[str, Any]:
        """Return the token endpoint's answer for a user, or for the client itself if `user` is None."""
        grant = {"grant_type": "client_credentials"}
        if user is not None:
            grant = {"grant_type": "password", "username": user, "password": PASSWORD, "scope": "openid email profile"}
        response = self._http.post("/token", data=grant, auth=CLIENT)
        found: dict[str, Any] = response.raise_for_status().json()
        self.issued += [value for name, value in found.items() if name.endswith("_token")]
        return found

    def access_token(self, user: str | None = None) -> str:
        token: str = self.tokens(user)["access_token"]
        return token

    def rotate(self) -> None:
        """Sign with a new key from now on. The previous key stays in the key set."""
        self._http.post("/api/keys/rotate").raise_for_status()

    def stop(self) -> None:
        """Kill it; its port then refuses connections."""
        self._http.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
