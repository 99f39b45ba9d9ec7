"""A strict stand-in for Anthropic's Messages API: it checks every request by the documented rules and plays a script.

A script is a generator: it yields what Claude says next, and is sent the texts of the results that it asked for. A
request that is made again gets the same message again. Error texts are those of the API where one is on record (docs of
July 2026, the SDKs' issues); others follow its form.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

from tests.integrations.providers.checking import misfits
from tests.integrations.providers.loopback import Loopback, Refused, Sent, ending
from toolchord.schema import problems, recursive_ref

Block = dict[str, Any]
CALLER = "code_execution_20260120"
_NO_FORCING = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1")
_PROGRAMMATIC = ("code_execution_20260120", "code_execution_20260521")


@dataclass
class Turn:
    """One message of Claude: its blocks, and why it stops; found out from the blocks if None."""

    blocks: list[Block]
    stop: str | None = None


Script = Callable[[], Generator[Turn, list[str], None]]


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def thinking(words: str) -> Block:
    return {"type": "thinking", "thinking": words, "signature": "sig-" + words}


def program(id: str, code: str) -> Block:
    return {"type": "server_tool_use", "id": id, "name": "code_execution", "input": {"code": code}}


def call(name: str, arguments: dict[str, Any], by: str | None = None) -> Block:
    caller = {"type": "direct"} if by is None else {"type": CALLER, "tool_id": by}
    return {"type": "tool_use", "id": "", "name": name, "input": arguments, "caller": caller}


def output(id: str, stdout: str = "", stderr: str = "", code: int = 0) -> Block:
    content = {"type": "code_execution_result", "stdout": stdout, "stderr": stderr, "return_code": code, "content": []}
    return {"type": "code_execution_tool_result", "tool_use_id": id, "content": content}


def invalid(message: str) -> Refused:
    return Refused(400, {"type": "error", "error": {"type": "invalid_request_error", "message": message}})


@dataclass
class FakeClaude:
    """The server. `scripts` are played one after another: the next one begins with a conversation that has no answer.

    Attributes:
        accidents: request number, from 0, to what happens to its answer: "drop", a number of events after which the
            connection breaks off, or "end 3": the stream ends after three, as if it were complete.
        gone: containers that are no more, with the status that says so.
        supported: what the models list says of code that calls tools; None: there is no such list.
    """

    scripts: list[Script]
    accidents: dict[int, str | int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    supported: bool | None = True
    expires_after: int | None = None

    def __post_init__(self) -> None:
        self.loopback = Loopback(self._answer)
        self._waiting = list(self.scripts)
        self._script: Generator[Turn, list[str], None] | None = None
        self._said: list[dict[str, Any]] = []
        self._calls = self._containers = self._answered = 0
        self._container: str | None = None
        self._last: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._owed: list[Block] = []
        self._paused = False

    def __enter__(self) -> FakeClaude:
        self.loopback.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.loopback.__exit__()

    @property
    def url(self) -> str:
        return self.loopback.url

    @property
    def requests(self) -> list[dict[str, Any]]:
        return self.loopback.requests

    @property
    def done(self) -> bool:
        """Whether all that was to be said has been said."""
        return not self._waiting and self._script is not None and next(self._script, None) is None

    # requests

    def _answer(self, path: str, headers: dict[str, str], body: dict[str, Any] | None) -> Sent:
        if body is None:
            return self._models(path)
        if path != "/v1/messages" or not {"x-api-key", "authorization"} & headers.keys():
            raise Refused(404, {"type": "error", "error": {"type": "not_found_error", "message": path}})
        if "advanced-tool-use" in headers.get("anthropic-beta", ""):
            raise invalid("advanced-tool-use is no beta any more")
        number = self._answered
        self._answered += 1
        if self._last is not None and {**self._last[0], "stream": 0} == {**body, "stream": 0}:
            message = self._last[1]
        else:
            self.check(body)
            message = self._next(body)
            self._last = (copy.deepcopy(body), message)
        accident = self.accidents.get(number)
        if accident == "drop":
            return Sent(drop=True)
        if not body.get("stream"):
            return Sent(body=message)
        return Sent(
            events=events_of(message), cut=accident if isinstance(accident, int) else None, end=ending(accident)
        )

    def _models(self, path: str) -> Sent:
        if self.supported is None:
            raise Refused(404, {"type": "error", "error": {"type": "not_found_error", "message": path}})
        return Sent(
            body={
                "type": "model",
                "id": path.rpartition("/")[2],
                "display_name": "A model",
                "created_at": "2026-07-01T00:00:00Z",
                "lifecycle": "active",
                "capabilities": {"code_execution": {"supported": self.supported}},
            }
        )

    def _next(self, body: dict[str, Any]) -> dict[str, Any]:
        results: list[str] | None = None
        if not any(message["role"] == "assistant" for message in body["messages"]) or self._script is None:
            assert self._waiting, "the script has ended"
            self._script, self._said = self._waiting.pop(0)(), []
            self._owed, self._paused = [], False
            turn = next(self._script)
        else:
            results = [_result_text(block) for block in body["messages"][-1]["content"]] if self._owed else []
            turn = self._script.send(results)
        return self._say(body, turn)

    def _say(self, body: dict[str, Any], turn: Turn) -> dict[str, Any]:
        blocks = copy.deepcopy(turn.blocks)
        for block in blocks:
            if block["type"] == "tool_use" and not block["id"]:
                self._calls += 1
                block["id"] = f"toolu_{self._calls:02}"
        given = body.get("container")
        container = given.get("id") if isinstance(given, dict) else given
        if container is None and any(block["type"] == "server_tool_use" for block in blocks):
            self._containers += 1
            container = f"container_{self._containers}"
        self._container = container
        self._owed = [block for block in blocks if block["type"] == "tool_use"]
        stop = turn.stop or ("tool_use" if self._owed else "end_turn")
        self._paused = stop == "pause_turn"
        self._said.append({"role": "assistant", "content": copy.deepcopy(blocks)})
        if self.expires_after == self._answered and container is not None:
            self.gone[container] = 400
        return {
            "id": f"msg_{self._answered:02}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": blocks,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 7},
            "container": container and {"id": container, "expires_at": "2026-11-24T12:00:00Z"},
        }

    # rules

    def check(self, body: dict[str, Any]) -> None:
        """Refuse what the API refuses."""
        hint = MessageCreateParamsStreaming if body.get("stream") else MessageCreateParamsNonStreaming
        for problem in misfits(body, hint):
            raise invalid(problem.lstrip("."))
        tools: list[dict[str, Any]] = body.get("tools", [])
        self._check_tools(tools)
        self._check_choice(body, tools)
        self._check_history(body["messages"])
        self._check_pending(body, tools)

    def _check_tools(self, tools: list[dict[str, Any]]) -> None:
        names = [tool["name"] for tool in tools]
        if len(set(names)) < len(names):
            raise invalid("tools: Tool names must be unique.")
        kinds = [tool.get("type", "custom") for tool in tools]
        if tools and all(tool.get("defer_loading") for tool in tools):
            raise invalid("At least one tool must have defer_loading=false. All tools cannot be deferred.")
        for number, tool in enumerate(tools):
            if "input_schema" not in tool:
                continue
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool["name"]):
                raise invalid(f"tools.{number}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
            if tool.get("defer_loading") and tool.get("cache_control"):
                raise invalid(f"tools.{number}.custom: Tools with defer_loading cannot have cache_control.")
            for example in tool.get("input_examples", []):
                for problem in problems(example, tool["input_schema"]):
                    raise invalid(f"tools.{number}.custom.input_examples: {problem}")
            if not for_code(tool):
                continue
            if not set(kinds) & set(_PROGRAMMATIC):
                raise invalid(f"tools.{number}.custom.allowed_callers: requires the {CALLER} tool or later")
            if tool.get("strict"):
                raise invalid(f"tools.{number}.custom: strict is not supported with programmatic tool calling")
            if ref := recursive_ref(tool["input_schema"]):
                raise invalid(f"tools.{number}.custom.input_schema: Circular $ref detected: {ref}")

    def _check_choice(self, body: dict[str, Any], tools: list[dict[str, Any]]) -> None:
        choice = body.get("tool_choice", {"type": "auto"})
        if choice.get("disable_parallel_tool_use") and any(map(for_code, tools)):
            raise invalid("tool_choice: disable_parallel_tool_use is not supported with programmatic tool calling")
        if choice["type"] in ("any", "tool") and body["model"].startswith(_NO_FORCING):
            raise invalid(f"tool_choice: type '{choice['type']}' is not supported for this model")
        if choice["type"] == "tool":
            named = next((tool for tool in tools if tool["name"] == choice["name"]), None)
            if named is None:
                raise invalid(f"tool_choice: Tool '{choice['name']}' not found in provided tools")
            if "direct" not in named.get("allowed_callers", ["direct"]):
                raise invalid(f"tool_choice: Tool '{choice['name']}' does not allow direct calls")

    def _check_history(self, messages: list[dict[str, Any]]) -> None:
        """What Claude said comes back unchanged."""
        for number, message in enumerate(messages[:-1]):
            if not message["content"]:
                raise invalid(
                    f"messages.{number}: all messages must have non-empty content except for the optional final "
                    f"assistant message"
                )
        said = [message for message in messages if message["role"] == "assistant"]
        if said and self._script is not None:
            expected = [one for one in self._said if one["content"]]
            if said[-len(expected) :] != expected:
                raise invalid("messages: assistant content must be sent back unchanged")

    def _check_pending(self, body: dict[str, Any], tools: list[dict[str, Any]]) -> None:
        messages = body["messages"]
        for number, message in enumerate(messages):
            uses = _of_type(message, "tool_use") if message["role"] == "assistant" else []
            following = messages[number + 1] if number + 1 < len(messages) else {"content": []}
            results = _of_type(following, "tool_result")
            found = [result["tool_use_id"] for result in results]
            if missing := [use["id"] for use in uses if use["id"] not in found]:
                raise invalid(
                    f"messages.{number + 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                    f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                    f"next message."
                )
            by_code = {use["id"] for use in uses if use["caller"]["type"] != "direct"}
            if by_code and len(results) != len(following["content"]):
                raise invalid(
                    f"messages.{number + 1}: responses to programmatic tool calls may only contain tool_result blocks"
                )
            for result in results:
                if result["tool_use_id"] not in {use["id"] for use in uses}:
                    raise invalid(
                        f"messages.{number + 1}: unexpected `tool_use_id` found in `tool_result` blocks: "
                        f"{result['tool_use_id']}. Each `tool_result` block must have a corresponding `tool_use` block "
                        f"in the previous message."
                    )
                content = result.get("content", "")
                kinds = set() if isinstance(content, str) else {block["type"] for block in content}
                if result["tool_use_id"] in by_code and kinds - {"text"}:
                    raise invalid(f"messages.{number + 1}: programmatic tool results must be text")
        self._check_container(body, tools)

    def _check_container(self, body: dict[str, Any], tools: list[dict[str, Any]]) -> None:
        messages = body["messages"]
        given = body.get("container")
        container = given.get("id") if isinstance(given, dict) else given
        blocks = [
            block for message in messages if not isinstance(message["content"], str) for block in message["content"]
        ]
        ended = {block["tool_use_id"] for block in blocks if block["type"] == "code_execution_tool_result"}
        begun = [b for b in blocks if b["type"] == "server_tool_use" and b["name"] == "code_execution"]
        waiting = [block["id"] for block in begun if block["id"] not in ended]
        if begun and not any(tool["name"] == "code_execution" for tool in tools):
            raise invalid("messages: `code_execution` blocks were found but no code_execution tool was provided")
        resumes = bool(_of_type(messages[-1], "tool_result")) or messages[-1]["role"] == "assistant"
        if waiting and not resumes:
            raise invalid(
                f"messages: `code_execution` tool use with id `{waiting[0]}` was found without a corresponding "
                f"`code_execution_tool_result` block"
            )
        if waiting and container is None:
            raise invalid(
                "container_id is required when there are pending tool uses generated by code execution with tools."
            )
        if container in self.gone:
            status = self.gone[str(container)]
            if status == 500:
                raise Refused(
                    500, {"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}
                )
            raise invalid(f"container: Container {container} has expired")


def for_code(tool: dict[str, Any]) -> bool:
    return any(name != "direct" for name in tool.get("allowed_callers", []))


def _of_type(message: dict[str, Any], kind: str) -> list[Block]:
    content = message["content"]
    return [] if isinstance(content, str) else [block for block in content if block["type"] == kind]


def _result_text(block: Block) -> str:
    content = block.get("content", "")
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def events_of(message: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A message as the API streams it: the container comes with the end, not with the start."""
    start = {**message, "content": [], "stop_reason": None, "container": None}
    yield "message_start", {"type": "message_start", "message": start}
    yield "ping", {"type": "ping"}
    for index, block in enumerate(message["content"]):
        opened, deltas = _pieces(block)
        yield "content_block_start", {"type": "content_block_start", "index": index, "content_block": opened}
        for delta in deltas:
            yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", "index": index}
    delta = {name: message[name] for name in ("stop_reason", "stop_sequence", "container")}
    yield "message_delta", {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 10}}
    yield "message_stop", {"type": "message_stop"}


def _pieces(block: Block) -> tuple[Block, list[dict[str, Any]]]:
    if block["type"] == "text":
        half = len(block["text"]) // 2
        parts = [block["text"][:half], block["text"][half:]]
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": part} for part in parts if part]
    if block["type"] == "thinking":
        deltas = [
            {"type": "thinking_delta", "thinking": block["thinking"]},
            {"type": "signature_delta", "signature": block["signature"]},
        ]
        return {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if "input" in block:
        written = json.dumps(block["input"])
        parts = [written[:5], written[5:]]
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]
    return block, []
