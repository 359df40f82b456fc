"""The paths of Vertex AI at an upstream that has the Gemini API."""

from typing import Any


class VertexPaths:
    """Makes llmock, which has the Gemini API, answer at the paths of Vertex AI."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "").replace("/vertex/v1beta1/publishers/google/models/", "/gemini/v1beta/models/")
        await self._app(scope | {"path": path} if "path" in scope else scope, receive, send)
