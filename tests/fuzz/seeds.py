"""The first inputs of the fuzzer for each target: whole inputs, and words for it to combine."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import orjson
from msgspec import Struct


class Seeds(Struct, frozen=True):
    """The inputs and words of one target."""

    inputs: Sequence[bytes]
    words: Sequence[str] = ()


def _chunk(**fields: Any) -> bytes:
    return b"data: " + orjson.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", **fields}) + b"\n\n"


_HELLO: Final = _chunk(choices=[{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}])
_CALL: Final = _chunk(
    choices=[{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}}]
)
_STOP: Final = _chunk(
    choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage={"prompt_tokens": 1, "completion_tokens": 2}
)
_MESSAGES: Final = (
    b'{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": '
    b'{"url": "u"}}]}, {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '
    b'"{}"}}]}, {"role": "tool", "tool_call_id": "c", "content": "y"}], "tools": [{"type": "function", "function": {"name": "f", '
    b'"parameters": {}}}], "tool_choice": "auto", "temperature": 0.5, "stop": ["x"], "response_format": {"type": "json_object"}}'
)
_CLAIMS: Final = orjson.dumps({"iss": "https://id.test", "aud": "antiphon", "sub": "ann", "exp": 1_700_000_060, "scope": "openid"})

SEEDS: Final = {
    "http answer": Seeds(
        (
            b"\x03HTTP/1.1 103 X\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: y\r\n z\r\n\r\nokHTTP/1.1 2",
            b"\x01HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n1\nd\r\n0\r\nx-t: y\r\n\r\nHTTP",
            b"\x05HTTP/1.0 404 Not Found\n\nabc",
            b"\x00HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nmore",
            b"\x02HTTP/1.1 204 X\r\nconnection: close\r\n\r\nmore",
        ),
        (
            "HTTP/1.1 ",
            "HTTP/1.0 200\r\n",
            "content-length: ",
            "transfer-encoding: chunked",
            "connection: close",
            "\r\n\r\n",
            "0\r\n\r\n",
        ),
    ),
    "sse": Seeds(
        (b"\x03data: a\r\n\r\nevent: x\ndata: b\ndata\n\n: c\n\n", b"\x00\xef\xbb\xbfdata: a\r\rdata: b"),
        ("data: ", "event", "\r\n", "\n\n", ":"),
    ),
    "reply stream": Seeds(
        (
            b"\x05" + _HELLO + _STOP + b"data: [DONE]\n\n",
            b"\x01" + _CALL + _STOP,
            b'\x02event: error\ndata: {"error": {"message": "x"}}\n\n',
        ),
        (
            "data: ",
            "[DONE]",
            '"choices":',
            '"delta":',
            '"content":',
            '"finish_reason":',
            '"tool_calls":',
            '"usage":',
            '"error":',
            '"index":',
            '"logprobs":',
            '"audio":',
        ),
    ),
    "anthropic stream": Seeds(
        (
            (
                b'\x05data: {"type": "message_start", "message": {"id": "r", "usage": {"input_tokens": 1}}}\n\n'
                b'data: {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}\n\n'
                b'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}\n\n'
                b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}\n\n'
                b'data: {"type": "message_stop"}\n\n'
            ),
            (
                b'\x01data: {"type": "content_block_start", "index": 0, '
                b'"content_block": {"type": "tool_use", "id": "c", "name": "f", "input": {}}}\n\n'
                b'data: {"type": "content_block_stop", "index": 0}\n\n'
                b'data: {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}\n\n'
                b'data: {"type": "message_stop"}\n\n'
            ),
        ),
        (
            "data: ",
            '"type":',
            '"content_block_delta"',
            '"signature_delta"',
            '"citations_delta"',
            '"input_json_delta"',
            '"compaction_delta"',
            '"compaction"',
            '"thinking"',
            '"web_search_tool_result"',
            '"iterations":',
            '"cache_creation":',
            '"error"',
        ),
    ),
    "anthropic json": Seeds(
        (
            (
                b'{"id": "r", "content": [{"type": "text", "text": "x", "citations": [{}]}, '
                b'{"type": "thinking", "signature": "s"}], "stop_reason": "end_turn", '
                b'"usage": {"input_tokens": 1, "iterations": [{"type": "compaction"}]}}'
            ),
        ),
        ('"content":', '"stop_reason":', '"usage":', '"citations":', '"redacted_thinking"', '"server_tool_use"', '"input":'),
    ),
    "event stream": Seeds(
        (b"\x03\x0f\x03abc\x07\x00\x04text\x01d\x04\x00\x00\x00\x01{}", b"\x01\x04\x01a\x00\x01b\x01", b"\x00\x00"),
        (":event-type", ":message-type"),
    ),
    "bedrock stream": Seeds(
        (
            (
                b'\x05messageStart {"role": "assistant"}\ncontentBlockDelta {"contentBlockIndex": 0, "delta": {"text": "xy"}}\n'
                b'contentBlockStop {"contentBlockIndex": 0}\nmessageStop {"stopReason": "end_turn"}\n'
                b'metadata {"usage": {"inputTokens": 1, "outputTokens": 2}}'
            ),
            (
                b'\x01contentBlockStart {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "c", "name": "f"}}}\n'
                b'contentBlockDelta {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "{}"}}}\n'
                b'contentBlockDelta {"contentBlockIndex": 1, "delta": {"reasoningContent": {"redactedContent": "AA=="}}}\n'
                b'contentBlockDelta {"contentBlockIndex": 1, "delta": {"image": {"source": {"bytes": "AA=="}}}}\n'
                b'messageStop {"stopReason": "tool_use"}'
            ),
            b'\x02throttlingException {"message": "x"}',
        ),
        ("contentBlockDelta ", '"delta":', '"reasoningContent":', '"toolResult":', '"citation":', '"image":', '"signature":'),
    ),
    "bedrock json": Seeds(
        (
            (
                b'{"output": {"message": {"content": [{"text": "x"}, {"reasoningContent": {"reasoningText": {"text": "y"}}}, '
                b'{"toolUse": {"toolUseId": "c", "name": "f", "input": {}}}]}}, "stopReason": "tool_use", '
                b'"usage": {"inputTokens": 1, "cacheDetails": [{"ttl": "1h", "inputTokens": 1}], "cacheWriteInputTokens": 1}}'
            ),
            b'{"message": "x"}',
        ),
        ('"output":', '"message":', '"content":', '"toolResult":', '"citationsContent":', '"image":', '"stopReason":', '"usage":'),
    ),
    "cohere stream": Seeds(
        (
            (
                b'\x05data: {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text"}}}}\n\n'
                b'data: {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {}}}}\n\n'
            ),
            (
                b'\x01data: {"type": "tool-call-start", "index": 0, '
                b'"delta": {"message": {"tool_calls": {"function": {"name": "f"}}}}}\n\n'
                b'data: {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}}\n\n'
            ),
        ),
        ("data: ", '"type":', '"content-delta"', '"citation-start"', '"index":', '"delta":', '"message":', '"thinking"', '"error"'),
    ),
    "cohere json": Seeds(
        (
            (
                b'{"id": "r", "message": {"tool_plan": "p", "content": [{"type": "text", "text": "x"}], "citations": [{}]}, '
                b'"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 1}}}'
            ),
        ),
        ('"message":', '"content":', '"tool_calls":', '"function":', '"finish_reason":', '"usage":', '"tokens":'),
    ),
    "gemini stream": Seeds(
        (
            (
                b'\x05data: {"candidates": [{"content": {"parts": [{"text": "x"}, {"text": "", "thoughtSignature": "s"}]}}]}\n\n'
                b'data: {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 1}}\n\n'
            ),
            (
                b'\x01data: {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "willContinue": true, '
                b'"partialArgs": [{"jsonPath": "$.a[0]", "stringValue": "x"}]}}]}, "finishReason": "STOP"}]}\n\n'
            ),
        ),
        (
            "data: ",
            '"candidates":',
            '"parts":',
            '"thought":',
            '"inlineData":',
            '"executableCode":',
            '"groundingMetadata":',
            '"error"',
        ),
    ),
    "gemini json": Seeds(
        (
            (
                b'{"candidates": [{"content": {"parts": [{"text": "xy"}, {"functionCall": {"name": "f", "args": {"a": 1}}}]}, '
                b'"groundingMetadata": {"groundingChunks": [{"web": {"uri": "u"}}], "groundingSupports": [{"segment": {}, '
                b'"groundingChunkIndices": [0]}]}, "logprobsResult": {"chosenCandidates": [{}]}, "finishReason": "STOP"}], '
                b'"usageMetadata": {"promptTokenCount": 1, "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 1}]}}'
            ),
            b'{"promptFeedback": {"blockReason": "SAFETY"}}',
        ),
        (
            '"candidates":',
            '"content":',
            '"parts":',
            '"functionCall":',
            '"finishReason":',
            '"usageMetadata":',
            '"citationMetadata":',
        ),
    ),
    "responses stream": Seeds(
        (
            (
                b'\x05data: {"type": "response.created", "response": {"id": "r"}}\n\n'
                b'data: {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "x"}\n\n'
                b'data: {"type": "response.output_item.done", "output_index": 0, '
                b'"item": {"type": "message", "content": [{"type": "output_text", "text": "xy", "annotations": [{}]}]}}\n\n'
                b'data: {"type": "response.completed", "response": {"usage": {"input_tokens": 1}}}\n\n'
            ),
            (
                b'\x01data: {"type": "response.output_item.added", "output_index": 1, '
                b'"item": {"type": "function_call", "name": "f"}}\n\n'
                b'data: {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"}\n\n'
                b'data: {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}\n\n'
            ),
        ),
        (
            "data: ",
            '"type":',
            '"response.',
            '"response.reasoning_summary_text.delta"',
            '"response.web_search_call.searching"',
            '"output_index":',
            '"summary_index":',
            '"item":',
            '"encrypted_content":',
            '"reasoning"',
            '"shell_call"',
            '"error"',
        ),
    ),
    "responses json": Seeds(
        (
            (
                b'{"id": "r", "status": "completed", "output": ['
                b'{"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]}, '
                b'{"type": "local_shell_call", "call_id": "c", "action": {}}], "usage": {"output_tokens": 1}}'
            ),
        ),
        (
            '"output":',
            '"type":',
            '"custom_tool_call"',
            '"image_generation_call"',
            '"content":',
            '"status":',
            '"usage":',
            '"error":',
        ),
    ),
    "reply json": Seeds(
        (
            (
                b'{"choices": [{"index": 0, "message": {"content": "x", "refusal": null}, "finish_reason": "stop"}], '
                b'"usage": {"prompt_tokens": 1}}'
            ),
            b'[{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "m"}}]',
        ),
        (
            '"choices":',
            '"message":',
            '"content":',
            '"finish_reason":',
            '"tool_calls":',
            '"usage":',
            '"error":',
            '"logprobs":',
            '"audio":',
        ),
    ),
    "model list": Seeds(
        tuple(
            orjson.dumps(page)
            for page in (
                {
                    "data": [
                        {
                            "id": "a/b",
                            "name": "B",
                            "created": 1_700_000_000,
                            "context_length": 8192,
                            "type": "chat",
                            "architecture": {"input_modalities": ["text", "image", "file"]},
                            "pricing": {"prompt": "0.000003", "completion": "0.1"},
                            "top_provider": {"max_completion_tokens": 64},
                            "capabilities": {"completion_chat": True, "vision": True},
                        }
                    ],
                    "has_more": True,
                    "last_id": "a/b",
                },
                [{"id": "m", "display_name": "M", "context_length": 8192, "pricing": {"input": 0.88, "output": 0.88}}],
                {
                    "data": [
                        {
                            "id": "c",
                            "display_name": "C",
                            "created_at": "2026-05-20T00:00:00Z",
                            "max_input_tokens": 9,
                            "max_tokens": 8,
                            "lifecycle": "active",
                            "capabilities": {"image_input": {"supported": True}},
                        }
                    ],
                    "has_more": False,
                },
                {"models": [{"name": "models/g", "inputTokenLimit": 9, "supportedGenerationMethods": ["generateContent"]}]},
                {"models": [{"name": "c", "endpoints": ["chat"], "features": ["vision"]}], "next_page_token": "t"},
            )
        ),
        ("null", "1e300", '"-1"', "[]", "{}", '"nan"', "true", "1970-01-01T00:00:00Z"),
    ),
    "refusal": Seeds(
        (b'\x1d{"error": {"code": "x", "type": "y", "message": "z"}}', b"\x1d120", b"\x1dWed, 21 Oct 2026 07:28:00 GMT")
    ),
    "body": Seeds(
        (
            b"\x00" + _MESSAGES,
            b'\x01{"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {}, "safetySettings": [{}]}',
            b'\x02{"generateContentRequest": {"contents": [{"parts": []}]}}',
            b"\x03" + _MESSAGES,
            b'\x04{"chat_history": [{"role": "user", "content": "x"}], "tools": {"f": {"description": "d"}}, "fastContext": ["x"]}',
            b'\x05{"chat_history": [{"role": "user", "content": "x"}], "persona": "x"}',
            b'\x06{"chatId": "x", "messageIndex": 1}',
            b'\x07{"pinned": true}',
            b'\x08{"title": "x", "pinned": true}',
            b'\x09{"title": "x", "messages": [{"role": "user", "content": "x"}]}',
            b"\x0a" + _MESSAGES,
            (
                b'\x0b{"model": "m", "chat_input": "x", "parameters": {"temperature": 1}, "is_stream": "False", '
                b'"functions": [{"name": "f"}]}'
            ),
        ),
        (
            '"role":',
            '"content":',
            '"type":',
            '"text"',
            '"image_url"',
            '"input_audio"',
            '"file"',
            '"function"',
            '"tool"',
            "null",
            "true",
            "[]",
            "{}",
            "\\ud800",
            "\\u0000",
            "1e999",
        ),
    ),
    "page token": Seeds((b'\x00[false,1,"x"]', b'\x01["x",1]', b"\x00" + base64.urlsafe_b64encode(b'{"a": 1}'))),
    "token": Seeds(
        (b'{"alg": "HS256", "typ": "JWT"}\n' + _CLAIMS, b'{"alg": "none"}\n' + _CLAIMS),
        ('"alg":', '"HS256"', '"kid":', '"crit":', '"exp":', '"nbf":', '"iat":', '"aud":', '"sub":', "1e400", "-1", "null", "[]"),
    ),
    "key set": Seeds(
        (
            b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "a"}]}',
            b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}',
        ),
        ('"kty":', '"RSA"', '"EC"', '"OKP"', '"use":', '"alg":', '"key_ops":', '"x":', '"n":', '"e":', '"d":'),
    ),
    "access token": Seeds(
        (
            b'{"access_token": "a-token-of-some-length", "expires_in": 3600, "token_type": "Bearer"}',
            b'{"access_token": "a-token-of-some-length", "expires_on": "4102444800", "token_type": "Bearer"}',
            b'{"accessToken": "a-token-of-some-length", "expireTime": "2099-01-01T00:00:00Z"}',
            b'{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}',
            b'{"error": {"code": 403, "status": "PERMISSION_DENIED"}}',
        ),
        (
            '"access_token":',
            '"expires_in":',
            '"expires_on":',
            '"expireTime":',
            '"9999-12-31T23:59:59"',
            "1e308",
            "-1",
            "null",
            '"1"',
        ),
    ),
    "header": Seeds((b"Bearer sk-x", b"bearer  x ", b"x-ratelimit-limit-requests: 7", b"retry-after:1\r\n")),
    "target": Seeds(
        (
            b"https://api.openai.com/v1",
            b"default",
            b"10.1.2.3:8000",
            b"https://[2001:db8::1]:8443/x",
            b"https://api.openai.com/v1/../x",
            b"http://api.openai.com:443@evil",
        ),
        (
            "https://",
            "http://",
            "api.openai.com",
            "10.1.2.3",
            "[2001:db8::1]",
            ":8000",
            ":443",
            "/v1",
            "@",
            "\\",
            "%2f",
            "..",
            "#",
            "?",
        ),
    ),
    "guard": Seeds(
        (
            b"\x00\x03me@example.com, +49 30 123456, 4111 1111 1111 1111",
            b"\x01\x02the secret  plan, abbb, a1c",
            b"\x02\x01my catfish\ny",
        ),
        ("@", ".com", "+49", "4111", "DE89", "secret", "plan", "abb", "cat", "fish", "192.168.0.1", "::1", "\n"),
    ),
    "guarded json": Seeds(
        (
            rb'3{"a": "x", "a": "\u0061bb", "n": NaN}',
            rb'1{"abb": [1.10, -Infinity, "\ud83d\ude00 abb \ud800"], "\u0061bb": null}',
            rb'2[12345678901234567890, "\q", {}] abb "abb',
        ),
        (
            "abb",
            r"\u0061",
            r"\u0062",
            r"\ud83d",
            r"\ude00",
            r"\n",
            r"\\",
            '"',
            ":",
            ",",
            "{",
            "}",
            "[",
            "]",
            "NaN",
            "null",
            "1e9",
            "-",
        ),
    ),
}
"""The seeds by name of the target."""
