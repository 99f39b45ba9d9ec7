"""A strict stand-in for OpenAI's Responses API and Chat Completions: every request is checked, a script is played.

A script is a generator: it yields what the model says next, and is sent the outputs that it asked for. Error texts are
those of the API where one is on record (the SDKs' issues); others follow its form.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)

from tests.integrations.providers.checking import misfits
from tests.integrations.providers.loopback import Loopback, Refused, Sent, ending

Item = dict[str, Any]


@dataclass
class Turn:
    """One response: its items (or, for Chat Completions, one message), and how it ends."""

    items: list[Item]
    status: str = "completed"
    reason: str | None = None


Script = Callable[[], Generator[Turn, list[str], None]]


def message(words: str) -> Item:
    part = {"type": "output_text", "text": words, "annotations": []}
    return {"type": "message", "role": "assistant", "status": "completed", "content": [part]}


def reasoning(words: str) -> Item:
    return {"type": "reasoning", "summary": [], "encrypted_content": f"secret {words}"}


def program(id: str, code: str) -> Item:
    return {"type": "program", "call_id": id, "code": code, "fingerprint": f"fp:{hash(code) & 0xFFFF}:{id}"}


def call(name: str, arguments: Any, by: str | None = None, **more: Any) -> Item:
    caller = {"type": "program", "caller_id": by} if by else {"type": "direct"}
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"type": "function_call", "name": name, "arguments": text, "caller": caller, "status": "completed", **more}


def output(id: str, result: str, status: str = "completed") -> Item:
    return {"type": "program_output", "call_id": id, "result": result, "status": status}


def said(content: str | None = None, *calls: tuple[str, str, Any]) -> Item:
    """A message of Chat Completions; a call is its id, name and arguments."""
    made = [
        {
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": a if isinstance(a, str) else json.dumps(a)},
        }
        for id, name, a in calls
    ]
    return {"role": "assistant", "content": content, "refusal": None, **({"tool_calls": made} if made else {})}


def invalid(text: str, param: str | None = "input", code: str | None = None) -> Refused:
    error = {"message": text, "type": "invalid_request_error", "param": param, "code": code}
    return Refused(404 if code == "model_not_found" else 400, {"error": error})


@dataclass
class FakeOpenAI:
    """The server. `scripts` are played one after another: the next one begins with a conversation that has no answer.

    Attributes:
        accidents: request number, from 0, to what happens to its answer: "drop", a number of events after which the
            connection breaks off, or "end 3": the stream ends after three, as if it were complete.
    """

    scripts: list[Script]
    accidents: dict[int, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loopback = Loopback(self._answer)
        self._waiting = list(self.scripts)
        self._script: Generator[Turn, list[str], None] | None = None
        self._sent: dict[str, Item] = {}
        self._stored: dict[str, list[Item]] = {}
        self._numbers = {"item": 0, "call": 0, "response": 0, "request": 0}
        self._last: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._replied: tuple[list[Item], dict[str, Any]] | None = None

    def __enter__(self) -> FakeOpenAI:
        self.loopback.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.loopback.__exit__()

    @property
    def url(self) -> str:
        return self.loopback.url + "/v1"

    @property
    def requests(self) -> list[dict[str, Any]]:
        return self.loopback.requests

    @property
    def done(self) -> bool:
        """Whether all that was to be said has been said."""
        return not self._waiting and self._script is not None and next(self._script, None) is None

    def _count(self, name: str) -> int:
        self._numbers[name] += 1
        return self._numbers[name]

    def _answer(self, path: str, headers: dict[str, str], body: dict[str, Any] | None) -> Sent:
        if body is None or "authorization" not in headers:
            raise invalid(f"Invalid URL ({path})", None)
        chat = path == "/v1/chat/completions"
        assert chat or path == "/v1/responses", path
        accident = self.accidents.get(self._count("request") - 1)
        if self._last is not None and {**self._last[0], "stream": 0} == {**body, "stream": 0}:
            reply = self._last[1]
        else:
            reply = self._completion(body) if chat else self._response(body)
            self._last = (copy.deepcopy(body), reply)
        if accident == "drop":
            return Sent(drop=True)
        if not body.get("stream"):
            return Sent(body=reply)
        events = chunks_of(reply) if chat else events_of(reply)
        return Sent(events=events, cut=accident if isinstance(accident, int) else None, end=ending(accident))

    def _next(self, outputs: list[str], *, new: bool) -> Turn:
        if new or self._script is None:
            assert self._waiting, "the script has ended"
            self._script = self._waiting.pop(0)()
            return next(self._script)
        return self._script.send(outputs)

    # the Responses API

    def _response(self, body: dict[str, Any]) -> dict[str, Any]:
        history = self.check(body)
        if self._replied is not None and self._replied[0] == history:
            return self._replied[1]
        outputs: list[str] = []
        for item in reversed(history):
            if item.get("type") != "function_call_output":
                break
            outputs.insert(0, item["output"])
        new = not any(item.get("id") in self._sent for item in history)
        turn = self._next(outputs, new=new)
        items = []
        for given in turn.items:
            item = {"id": f"{given['type'][:2]}_{self._count('item')}", **copy.deepcopy(given)}
            if item["type"] == "function_call":
                item.setdefault("call_id", f"call_{self._count('call')}")
            if item["type"] == "reasoning" and "reasoning.encrypted_content" not in body.get("include", []):
                del item["encrypted_content"]
            self._sent[item["id"]] = copy.deepcopy(item)
            items.append(item)
        id = f"resp_{self._count('response')}"
        if body.get("store", True):
            self._stored[id] = [*history, *copy.deepcopy(items)]
        reply = self._reply(id, body, turn, items)
        self._replied = (history, reply)
        return reply

    def _reply(self, id: str, body: dict[str, Any], turn: Turn, items: list[Item]) -> dict[str, Any]:
        failed = {"code": "server_error", "message": "It broke."} if turn.status == "failed" else None
        return {
            "id": id,
            "object": "response",
            "created_at": 1,
            "model": body["model"],
            "status": turn.status,
            "error": failed,
            "incomplete_details": turn.reason and {"reason": turn.reason},
            "output": items,
            "parallel_tool_calls": True,
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools", []),
            "usage": {
                "input_tokens": 50,
                "input_tokens_details": {"cached_tokens": 5},
                "output_tokens": 20,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 70,
            },
        }

    def check(self, body: dict[str, Any]) -> list[Item]:
        """Refuse what the API refuses; the whole conversation."""
        for problem in misfits(body, ResponseCreateParamsStreaming if body.get("stream") else _RESPONSES):
            raise invalid(problem.lstrip("."), problem.split(":")[0].lstrip("."))
        self._check_tools(body)
        given = body.get("input", [])
        items: list[Item] = [{"role": "user", "content": given}] if isinstance(given, str) else given
        previous = body.get("previous_response_id")
        if previous is not None and previous not in self._stored:
            text = f"Previous response with id '{previous}' not found."
            raise invalid(text, "previous_response_id", "previous_response_not_found")
        history = [*self._stored.get(previous or "", []), *items]
        if not history:
            raise invalid("One of 'input' or 'previous_response_id' must be provided.")
        self._check_items(history, by_name=body.get("store", True))
        return history

    def _check_tools(self, body: dict[str, Any]) -> None:
        tools = body.get("tools", [])
        kinds = {tool["type"] for tool in tools}
        names = [tool["name"] for tool in tools if tool["type"] == "function"]
        if len(set(names)) < len(names):
            raise invalid("Duplicate function name", "tools")
        for tool in tools:
            callers = tool.get("allowed_callers") or []
            if "programmatic" in callers and "programmatic_tool_calling" not in kinds:
                raise invalid("allowed_callers 'programmatic' requires the programmatic_tool_calling tool", "tools")
            if tool.get("defer_loading") and "tool_search" not in kinds:
                raise invalid("defer_loading requires the tool_search tool", "tools")
            if tool["type"] == "function":
                check_strict(tool)
        choice = body.get("tool_choice")
        if isinstance(choice, dict) and choice["type"] == "programmatic_tool_calling" and choice["type"] not in kinds:
            raise invalid("Tool choice 'programmatic_tool_calling' not found in 'tools' parameter.", "tool_choice")

    def _check_items(self, history: list[Item], *, by_name: bool) -> None:
        calls = {item["call_id"]: item for item in history if item.get("type") == "function_call"}
        outputs = {item["call_id"]: item for item in history if item.get("type") == "function_call_output"}
        programs = {item["call_id"] for item in history if item.get("type") == "program"}
        for id, item in outputs.items():
            if id not in calls:
                raise invalid(f"No tool call found for function call output with call_id {id}.")
            if item.get("caller") != calls[id].get("caller"):
                raise invalid(f"The caller of the output with call_id {id} does not match its function call.")
        for id, item in calls.items():
            if id not in outputs:
                raise invalid(f"No tool output found for function call {id}.")
            caller = item.get("caller") or {}
            if caller.get("type") == "program" and caller["caller_id"] not in programs:
                raise invalid(f"No program found for function call {id} with caller_id {caller['caller_id']}.")
        for item in history:
            original = self._sent.get(item.get("id", ""))
            if original is None:
                continue
            if item.get("fingerprint") != original.get("fingerprint"):
                raise invalid(f"The fingerprint of program {item['call_id']} does not match.")
            if item["type"] == "reasoning" and not by_name and not item.get("encrypted_content"):
                raise invalid(
                    f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false. Try "
                    f"again with `store` set to true, or remove this item from your input."
                )
            if item != original:
                raise invalid(f"Item '{item['id']}' was changed.")

    # Chat Completions

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        hint = CompletionCreateParamsStreaming if body.get("stream") else CompletionCreateParamsNonStreaming
        for problem in misfits(body, hint):
            raise invalid(problem.lstrip("."), problem.split(":")[0].lstrip("."))
        for tool in body.get("tools", []):
            check_strict(tool["function"])
        messages = body["messages"]
        waiting: list[str] = []
        outputs: list[str] = []
        for number, one in enumerate(messages):
            if one["role"] == "tool":
                if one["tool_call_id"] not in waiting:
                    raise invalid(
                        "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                        "'tool_calls'.",
                        f"messages.[{number}].role",
                    )
                waiting.remove(one["tool_call_id"])
                outputs.append(one["content"])
                continue
            _all_answered(waiting)
            waiting, outputs = [each["id"] for each in one.get("tool_calls", [])], []
        _all_answered(waiting)
        new = not any(one["role"] == "assistant" for one in messages)
        turn = self._next(outputs, new=new)
        reply = copy.deepcopy(turn.items[0])
        finish = turn.reason or ("tool_calls" if reply.get("tool_calls") else "stop")
        return {
            "id": f"chatcmpl-{self._count('response')}",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": finish, "logprobs": None, "message": reply}],
            "usage": {
                "prompt_tokens": 40,
                "completion_tokens": 10,
                "total_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
        }


_RESPONSES = ResponseCreateParamsNonStreaming


def _all_answered(waiting: list[str]) -> None:
    if waiting:
        raise invalid(
            f"An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(waiting)}",
            "messages",
        )


def check_strict(function: dict[str, Any]) -> None:
    """A strict schema says all and allows nothing else. Left out, strict means True at the Responses API."""
    if not function.get("strict", "parameters" in function and "type" in function):
        return
    schema = function["parameters"]
    where = f"Invalid schema for function '{function['name']}': In context=(), "
    if schema.get("additionalProperties") is not False:
        raise invalid(f"{where}'additionalProperties' is required to be supplied and to be false.", "tools")
    if missing := set(schema["properties"]) - set(schema.get("required", [])):
        raise invalid(
            f"{where}'required' is required to be supplied and to be an array including every key in properties. "
            f"Missing '{min(missing)}'.",
            "tools",
        )


def events_of(response: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A response as the Responses API streams it."""
    number = 0

    def event(kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
        nonlocal number
        number += 1
        return kind, {"type": kind, "sequence_number": number, **fields}

    started = {**response, "status": "in_progress", "output": [], "usage": None, "error": None}
    yield event("response.created", response=started)
    for index, item in enumerate(response["output"]):
        yield event("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            text = item["content"][0]["text"]
            place["content_index"] = 0
            for part in (text[: len(text) // 2], text[len(text) // 2 :]):
                yield event("response.output_text.delta", delta=part, logprobs=[], **place)
        if item["type"] == "function_call":
            yield event("response.function_call_arguments.delta", delta=item["arguments"], **place)
        yield event("response.output_item.done", output_index=index, item=item)
    yield event(f"response.{response['status']}", response=response)


def chunks_of(completion: dict[str, Any]) -> Iterator[tuple[None, dict[str, Any] | str]]:
    """A completion as Chat Completions streams it: calls in pieces, usage in a chunk of its own."""
    (choice,) = completion["choices"]
    base = {**{name: completion[name] for name in ("id", "created", "model")}, "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> tuple[None, dict[str, Any]]:
        return None, {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    message = choice["message"]
    yield chunk({"role": "assistant", "content": ""})
    for letter in message["content"] or "":
        yield chunk({"content": letter})
    for index, call in enumerate(message.get("tool_calls", [])):
        function = call["function"]
        head = {
            "index": index,
            "id": call["id"],
            "type": "function",
            "function": {"name": function["name"], "arguments": ""},
        }
        yield chunk({"tool_calls": [head]})
        for start in range(0, len(function["arguments"]), 7):
            piece = function["arguments"][start : start + 7]
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, choice["finish_reason"])
    yield None, {**base, "choices": [], "usage": completion["usage"]}
    yield None, "[DONE]"
