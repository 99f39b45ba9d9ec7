"""Two providers' APIs on loopback: scripted replies for real SDKs, and every request checked as the provider would."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from anthropic.types import MessageParam
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
from pydantic import TypeAdapter, ValidationError

_CHAT: TypeAdapter[Any] = TypeAdapter(ChatCompletionMessageParam)
_CHAT_TOOL: TypeAdapter[Any] = TypeAdapter(ChatCompletionToolUnionParam)
_MESSAGE: TypeAdapter[Any] = TypeAdapter(MessageParam)


class Provider:
    """A server with a script: each request takes the next reply, an object with ``text`` and ``code``."""

    def __init__(self, *replies: dict[str, Any]) -> None:
        self.replies = list(replies)
        self.requests: list[dict[str, Any]] = []
        self.url = ""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.requests.append(body)
        try:
            if path.endswith("/chat/completions"):
                _check_chat(body)
                return 200, _chat(self.replies.pop(0), len(self.requests))
            _check_messages(body)
            return 200, _message(self.replies.pop(0), len(self.requests))
        except (AssertionError, ValidationError, KeyError) as error:
            return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": str(error)[:2000]}}


@contextmanager
def served(*replies: dict[str, Any]) -> Iterator[Provider]:
    provider = Provider(*replies)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = provider.answer(self.path.partition("?")[0], body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# Chat Completions


def _check_chat(body: dict[str, Any]) -> None:
    pending: list[str] = []
    for number, message in enumerate(body["messages"]):
        _CHAT.validate_python(message)
        role = message["role"]
        assert role != "system" or number == 0, "a system message that is not the first"
        if role == "tool":
            assert message["tool_call_id"] in pending, "a tool message that answers no call"
            pending.remove(message["tool_call_id"])
        else:
            assert not pending, "an assistant message with 'tool_calls' must be followed by tool messages"
        pending += [call["id"] for call in message.get("tool_calls") or ()]
        for call in message.get("tool_calls") or ():
            assert isinstance(call["function"]["arguments"], str)
    assert not pending
    for tool in body.get("tools", ()):
        _CHAT_TOOL.validate_python(tool)
    assert body.get("tools") != [], "[] is too short - 'tools'"


def _chat(reply: dict[str, Any], number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.get("text")}
    if calls := _calls(reply):
        message["tool_calls"] = [
            {
                "id": f"call_{number}_{n}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
                },
            }
            for n, (name, arguments) in enumerate(calls)
        ]
    usage = {"prompt_tokens": 100 * number, "completion_tokens": 10, "total_tokens": 100 * number + 10,
             "prompt_tokens_details": {"cached_tokens": 50}}  # fmt: skip
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message}],
        "usage": usage,
    }


def _calls(reply: dict[str, Any]) -> list[tuple[str, Any]]:
    calls = [("run_code", {"code": code}) for code in reply.get("codes", [reply["code"]] if "code" in reply else [])]
    return calls + list(reply.get("calls", ()))


# Messages


def _check_messages(body: dict[str, Any]) -> None:
    assert body["max_tokens"] > 0
    wanted: set[str] = set()
    previous = ""
    for message in body["messages"]:
        _MESSAGE.validate_python(message)
        assert message["role"] in ("user", "assistant"), "a role that is not known"
        assert message["role"] != previous, "roles must alternate"
        previous = message["role"]
        blocks = message["content"] if isinstance(message["content"], list) else []
        given = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        assert given == wanted, (
            f"tool_use ids were found without tool_result blocks immediately after: {wanted - given}"
        )
        wanted = {block["id"] for block in blocks if block["type"] == "tool_use"}
        for block in blocks:
            assert block["type"] != "text" or block["text"], "text content blocks must be non-empty"
            if block["type"] == "thinking":
                assert block["signature"] == "signed", "thinking blocks can't be modified"
    assert not wanted
    for tool in body.get("tools", ()):
        assert tool["input_schema"]["type"] == "object"


def _message(reply: dict[str, Any], number: int) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if reply.get("thought"):
        content.append({"type": "thinking", "thinking": reply["thought"], "signature": "signed"})
    if reply.get("text"):
        content.append({"type": "text", "text": reply["text"]})
    calls = _calls(reply)
    content += [
        {"type": "tool_use", "id": f"toolu_{number}_{n}", "name": name, "input": arguments}
        for n, (name, arguments) in enumerate(calls)
    ]
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": content,
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 60 * number, "output_tokens": 10, "cache_read_input_tokens": 40},
    }
