"""Owns a conversation over the Responses API on the wire: items, programs, and how the next request refers to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import openai

from toolchord.errors import ConfigurationError, ModelRunError
from toolchord.native import (
    Answer,
    Asked,
    CallDesk,
    Conversation,
    ModelRun,
    Reply,
    StreamEnded,
    called,
    count,
    items_of,
    opened,
)
from toolchord_openai.request import unforced, whole

_YOURS = (
    "mcp_approval_request",
    "custom_tool_call",
    "computer_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
)
"""Items that want an answer which only the user can give."""

_ENDS = ("response.completed", "response.incomplete", "response.failed")


class ResponsesConversation(Conversation):
    """Items, and those that the server does not know yet.

    Args:
        client: an SDK client, asynchronous or not.
        run: to be filled.
        desk: serves the calls.
        request: the parameters that are the same in each request, `tools` among them.
        items: the conversation so far.
        previous_response_id: the response that it continues.
        store: whether the server keeps responses, so that the next request names the last one; else each request
            carries every item, programs with their fingerprints and encrypted reasoning among them.
        call_deadline: seconds in which a program's calls must be answered.
    """

    def __init__(
        self,
        client: Any,
        run: ModelRun,
        desk: CallDesk,
        request: dict[str, Any],
        items: list[dict[str, Any]],
        *,
        previous_response_id: str | None,
        store: bool,
        call_deadline: float | None,
    ) -> None:
        self.run = run
        self.retries = int(getattr(client, "max_retries", 2))
        self._client = client
        self._desk = desk
        self._request = request
        self._store = store
        self._call_deadline = call_deadline
        self._new = list(items)
        run.messages = items
        run.response_id = previous_response_id
        if not store and self._request.get("include") is None:
            self._request["include"] = ["reasoning.encrypted_content"]

    def opening(self) -> list[Asked]:
        """The calls without an output."""
        if not self.run.messages and self.run.response_id is None:
            raise ConfigurationError("messages is empty; give at least one of the user")
        return _asked(self.run.messages)

    async def send(self, *, stream: bool) -> AsyncIterator[Any]:
        """One request."""
        given = {**self._request, "store": self._store}
        if self._store and self.run.response_id is not None:
            given |= {"input": self._new, "previous_response_id": self.run.response_id}
        else:
            given["input"] = self.run.messages
        create = self._client.responses.create
        if not stream:
            yield Reply(await called(self._client, create, **given))
            return
        async with opened(await called(self._client, create, stream=True, **given)) as events:
            async for event in whole(items_of(events)):
                yield event
                if event.type in _ENDS:
                    yield Reply(event.response)
                    return
                if event.type == "error":
                    raise ModelRunError(f"the stream failed: {event.code}: {event.message}", self.run)
        raise StreamEnded("the stream ended before the response was complete")

    def accept(self, response: Any) -> list[Asked] | None:
        """Take a response in."""
        run = self.run
        run.response_id = response.id
        if (used := response.usage) is not None:
            cached = getattr(used.input_tokens_details, "cached_tokens", 0)
            written = getattr(used.input_tokens_details, "cache_write_tokens", 0)
            count(
                run.usage,
                input_tokens=used.input_tokens,
                output_tokens=used.output_tokens,
                cache_read_tokens=cached,
                cache_write_tokens=written,
            )
        if "tool_choice" in self._request:
            self._request["tool_choice"] = unforced(self._request["tool_choice"])
        items = [item.to_dict(mode="json", warnings=False) for item in response.output]
        run.messages.extend(items)
        self._new = []
        self._note_programs(items)
        details = response.incomplete_details
        run.stop_reason = str((details and details.reason) or response.status)
        if response.status == "failed":
            reason = response.error and f"{response.error.code}: {response.error.message}"
            raise ModelRunError(f"response {response.id} failed: {reason}; go on with error.run.messages", run)
        told = [item for item in items if item["type"] == "message"]
        if told:
            run.text = "".join(
                part["text"] for item in told for part in item["content"] if part["type"] == "output_text"
            )
        if response.status != "completed":
            return None
        if asked := _asked(items):
            return asked
        if yours := next((item["type"] for item in items if item["type"] in _YOURS), None):
            run.stop_reason = yours
            return None
        return None if told else []  # a program's output alone is no answer yet

    def _note_programs(self, items: Sequence[Mapping[str, Any]]) -> None:
        for item in items:
            if item["type"] == "program":
                self.run.program(item["call_id"], item["code"])
            elif item["type"] == "program_output":
                program = self.run.program(item["call_id"])
                program.output, program.ok = item["result"], item["status"] == "completed"
                if not program.ok:
                    # It will be written again; what it had done is not done again.
                    made = [call for call in self.run.calls if call.program == program.id]
                    self._desk.ledger.lose(*(call for call in made if not self._desk.repeatable(call)))

    def answer(self, answers: Sequence[Answer]) -> None:
        """An output for each call, with its caller as it came."""
        callers = {
            item["call_id"]: item.get("caller") for item in self.run.messages if item.get("type") == "function_call"
        }
        for one in answers:
            item: dict[str, Any] = {"type": "function_call_output", "call_id": one.asked.id, "output": one.text}
            if (caller := callers.get(one.asked.id)) is not None:
                item["caller"] = caller
            self.run.messages.append(item)
            self._new.append(item)

    def deadline(self, asked: Sequence[Asked]) -> float | None:
        """How long a program waits is not published."""
        return self._call_deadline if any(one.by_code for one in asked) else None

    def failed(self, error: Exception) -> bool:
        """Whether an error is the API's."""
        return isinstance(error, openai.APIError)


def _asked(items: Sequence[Mapping[str, Any]]) -> list[Asked]:
    """The complete calls without an output, each with its caller."""
    answered = {item.get("call_id") for item in items if item.get("type") == "function_call_output"}
    found = []
    for item in items:
        if item.get("type") != "function_call" or item["call_id"] in answered or item.get("status") == "incomplete":
            continue
        caller: Mapping[str, Any] = item.get("caller") or {"type": "direct"}
        kind = "programmatic" if caller["type"] == "program" else str(caller["type"])
        found.append(Asked(item["call_id"], item["name"], item["arguments"], kind, caller.get("caller_id")))
    return found
