"""An upstream that speaks the Converse API over a real socket, and refuses what AWS's own description of the API does not allow.

Every request is checked by botocore's validator against the input of `Converse` or `ConverseStream`, and against the rules on turns
that the API states in words. It answers with what a test scripts, else with the last text of the user, word by word.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from threading import Thread
from typing import Any, Self
from urllib.parse import unquote

from botocore.model import ServiceModel
from botocore.session import get_session
from botocore.validate import ParamValidator

from tests.eventstream import stream
from tests.odd_upstream import HANG, LAST, OddUpstream, Step, answer, chunk, head

CONTENT_TYPE = "application/vnd.amazon.eventstream"
USAGE = {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}


@cache
def service() -> ServiceModel:
    """Return AWS's description of the API."""
    model: ServiceModel = get_session().get_service_model("bedrock-runtime")
    return model


def problems(model: str, body: dict[str, Any], operation: str = "ConverseStream") -> str:
    """Return what is wrong with a request; empty if nothing is."""
    shape = service().operation_model(operation).input_shape
    report = ParamValidator().validate({"modelId": model, **body}, shape)
    return "\n".join((report.generate_report(), *unknown(body, shape), *patterns(body, shape), *turns(body))).strip()


def unknown(value: Any, shape: Any, path: str = "") -> list[str]:
    """Return the fields that the description does not have."""
    match shape.type_name:
        case "structure" if not getattr(shape, "is_document_type", False):
            found = [f"{path}.{name} is unknown" for name in value if name not in shape.members]
            known = [name for name in value if name in shape.members]
            return found + [one for name in known for one in unknown(value[name], shape.members[name], f"{path}.{name}")]
        case "list":
            return [one for at, inner in enumerate(value) for one in unknown(inner, shape.member, f"{path}[{at}]")]
        case _:
            return []


def patterns(value: Any, shape: Any, path: str = "") -> list[str]:
    """Return the texts that do not follow their patterns and enumerations, which botocore's validator leaves to the server."""
    match shape.type_name:
        case "structure" if not getattr(shape, "is_document_type", False):
            known = [name for name in value if name in shape.members]
            return [one for name in known for one in patterns(value[name], shape.members[name], f"{path}.{name}")]
        case "list":
            return [one for at, inner in enumerate(value) for one in patterns(inner, shape.member, f"{path}[{at}]")]
        case "string":
            pattern, most = shape.metadata.get("pattern"), shape.metadata.get("max", len(value))
            is_good = (pattern is None or re.fullmatch(pattern, value)) and len(value) <= most
            return [] if is_good and (not shape.enum or value in shape.enum) else [f"{path} is {value!r}"]
        case _:
            return []


def turns(body: dict[str, Any]) -> list[str]:
    """Return what is wrong with the order of messages, and with what stands in them."""
    messages = body["messages"]
    roles = [message["role"] for message in messages if message["role"] != "system"]
    found = [] if not roles or roles[0] == "user" else ["the first message is not the user's"]
    if any(before == after for before, after in pairwise(roles)):
        found.append("roles do not alternate")
    names = [part["document"]["name"] for message in messages for part in message["content"] if "document" in part]
    if len(names) > len(set(names)):
        found.append("two documents have one name")
    parts = [part for message in messages for part in message["content"]]
    if "toolConfig" not in body and any("toolUse" in part or "toolResult" in part for part in parts):
        found.append("toolConfig must be defined when using toolUse and toolResult content blocks")
    parts += [*body.get("system", ()), *body.get("toolConfig", {}).get("tools", ())]
    if sum("cachePoint" in part for part in parts) > 4:
        found.append("more than four cache points")
    return [*found, *(one for message in messages for one in content(message)), *calls(messages)]


def content(message: dict[str, Any]) -> list[str]:
    """Return what is wrong with the parts of a message."""
    parts, found = message["content"], []
    documents = [part["document"] for part in parts if "document" in part]
    if not parts:
        found.append("a message is empty")
    if any("text" in part and not part["text"].strip() for part in parts):
        found.append("a text is blank")
    if documents and not any("text" in part for part in parts):
        found.append("a document has no text beside it")
    if any(re.search(r"[^0-9A-Za-z\s\-()\[\]]|\s\s", document["name"]) for document in documents):
        found.append("the name of a document is not allowed")
    if message["role"] != "user" and any(kind in part for part in parts for kind in ("image", "document", "video")):
        found.append("only the user may send pictures")
    return found


def calls(messages: list[dict[str, Any]]) -> list[str]:
    """Return which calls have no result in the next message of the user, and which results no call."""
    found: list[str] = []
    open_calls: list[str] = []
    for message in messages:
        if message["role"] == "user":
            results = [part["toolResult"]["toolUseId"] for part in message["content"] if "toolResult" in part]
            if sorted(results) != sorted(open_calls):
                found.append(f"results {results} do not answer the calls {open_calls}")
            open_calls = []
        made = [part["toolUse"] for part in message["content"] if "toolUse" in part]
        open_calls += [call["toolUseId"] for call in made if "type" not in call]  # the provider answers its own
    return found


class ConverseUpstream(OddUpstream):
    """The server, as an async context manager.

    `reply` returns the content blocks and the stop reason for a request, if a test sets it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reply: Callable[[dict[str, Any]], tuple[list[dict[str, Any]], str]] = echo
        self.stalls = False
        """Send the beginning of a stream, and nothing more."""
        self.refused: list[str] = []

    async def __aenter__(self) -> Self:
        return await self.start()

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"http://127.0.0.1:{self.port}"

    def steps(self, body: bytes) -> Sequence[Step]:
        """Answer a request."""
        path = self.requests[-1].path
        found = re.fullmatch(r"/model/([^/?]+)/(converse|converse-stream)", path)
        if found is None:
            return [answer({"message": "no such path"}, "404 Not Found")]
        is_stream = found[2] == "converse-stream"
        request = json.loads(body)
        wrong = problems(unquote(found[1]), request, "ConverseStream" if is_stream else "Converse")
        if wrong:
            self.refused.append(wrong)
            kind = "x-amzn-errortype: ValidationException:http://internal.amazon.com/coral/"
            return [answer({"message": wrong}, "400 Bad Request", "application/json", kind)]
        content, reason = self.reply(request)
        if not is_stream:
            message = {"role": "assistant", "content": content}
            return [answer({"output": {"message": message}, "stopReason": reason, "usage": USAGE, "metrics": {"latencyMs": 1}})]
        pieces = [stream(one) for one in streamed(content, reason)]
        if self.stalls:
            return [head(content_type=CONTENT_TYPE), chunk(b"".join(pieces[:3])), HANG]
        return [head(content_type=CONTENT_TYPE), *map(chunk, pieces), LAST]


@contextmanager
def in_thread(upstream: ConverseUpstream) -> Iterator[ConverseUpstream]:
    """Run an upstream in an event loop of its own, so that its tasks are not among those of the test."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(upstream.start(), loop).result()
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(upstream.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def echo(request: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Repeat the last text of the user, or call the first tool if a call is demanded."""
    config = request.get("toolConfig", {})
    if not {"any", "tool"}.isdisjoint(config.get("toolChoice", {})):
        name = config["tools"][0]["toolSpec"]["name"]
        return [{"toolUse": {"toolUseId": "tooluse_1", "name": name, "input": {"q": "x"}}}], "tool_use"
    return [{"text": request["messages"][-1]["content"][-1]["text"]}], "end_turn"


def streamed(content: list[dict[str, Any]], reason: str) -> list[dict[str, Any]]:
    """Return the events of a reply."""
    events: list[dict[str, Any]] = [{"messageStart": {"role": "assistant"}}]
    for index, block in enumerate(content):
        ((kind, value),) = block.items()
        deltas: list[dict[str, Any]] = []
        match kind, value:
            case "text", str():
                deltas = [{"text": piece} for piece in re.findall(r"\S*\s*", value) if piece]
            case "toolUse", _:
                start = {name: field for name, field in value.items() if name != "input"}
                events.append({"contentBlockStart": {"contentBlockIndex": index, "start": {"toolUse": start}}})
                text = json.dumps(value["input"])
                deltas = [{"toolUse": {"input": piece}} for piece in (text[:3], text[3:])]
            case "reasoningContent", {"redactedContent": data}:
                deltas = [{kind: {"redactedContent": data}}]
            case "reasoningContent", {"reasoningText": inner}:
                deltas = [{kind: {"text": inner["text"]}}] if inner["text"] else []
                deltas += [{kind: {"signature": inner["signature"]}}] if "signature" in inner else []
        events += [{"contentBlockDelta": {"contentBlockIndex": index, "delta": one}} for one in deltas]
        events.append({"contentBlockStop": {"contentBlockIndex": index}})
    return [*events, {"messageStop": {"stopReason": reason}}, {"metadata": {"usage": USAGE, "metrics": {"latencyMs": 1}}}]
