"""Owns a conversation with Claude on the wire: what is sent, what a response means, what if a container is lost."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anthropic

from toolchord.errors import ConfigurationError
from toolchord.native import (
    Answer,
    Asked,
    CallDesk,
    Conversation,
    ModelRun,
    Program,
    Reply,
    StreamEnded,
    called,
    count,
    items_of,
    opened,
)

_TIMED_OUT = re.compile(r"Calling tool \[([^\]]*)\] timed out")


class ClaudeConversation(Conversation):
    """Messages, container and pending calls.

    Args:
        client: an SDK client, asynchronous or not.
        run: to be filled.
        desk: serves the calls.
        request: the parameters that are the same in each request, `tools` among them.
        messages: the conversation so far.
        container: the container to go on in, an id or ``{"id": ..., "skills": [...]}``.
        code: whether code may call a tool.
        call_deadline: seconds in which a program's calls must be answered.
        check_model: ask the API whether the model's code can call tools.
    """

    def __init__(
        self,
        client: Any,
        run: ModelRun,
        desk: CallDesk,
        request: dict[str, Any],
        messages: list[dict[str, Any]],
        container: str | Mapping[str, Any] | None,
        *,
        code: bool,
        call_deadline: float | None,
        check_model: bool,
    ) -> None:
        self.run = run
        self.retries = int(getattr(client, "max_retries", 2))
        self._client = client
        self._desk = desk
        self._request = request
        self._code = code
        self._call_deadline = call_deadline
        self._check_model = check_model
        self._skills = {} if container is None or isinstance(container, str) else dict(container)
        self._recovered = 0
        self._confirmed = False
        self._answered: set[str] = set()
        run.messages = messages
        run.container = container if isinstance(container, str) else self._skills.pop("id", None)

    async def prepare(self) -> None:
        """Refuse a model whose code can't call tools, if the API says so."""
        if not (self._check_model and self._code):
            return
        try:
            asking = self._client.with_options(max_retries=0)
            info = await called(asking, asking.models.retrieve, model_id=self._request["model"])
        except anthropic.APIError:
            return  # a gateway without that list; the first request will tell
        supported = getattr(getattr(info.capabilities, "code_execution", None), "supported", None)
        if supported is False:
            raise ConfigurationError(
                f"the code of {self._request['model']} can't call tools; choose another model, run its programs in a "
                f"CodeSandbox, or give the tools allowed_callers=['direct']"
            )

    def opening(self) -> list[Asked]:
        """The calls that the last message asks for, if it is the assistant's."""
        messages = self.run.messages
        if not messages:
            raise ConfigurationError("messages is empty; give at least one message of the user")
        for message, following in zip(messages, [*messages[1:], None], strict=True):
            open_calls = {block["id"] for block in _blocks(message) if block.get("type") == "tool_use"}
            if message.get("role") != "assistant" or not open_calls or following is None:
                continue
            results = {block.get("tool_use_id") for block in _blocks(following)}
            if missing := sorted(open_calls - results):
                raise ConfigurationError(
                    f"messages has no result for the call {missing[0]}; end it with the assistant's message that makes "
                    f"the call, and it will be answered"
                )
        return _asked(_blocks(messages[-1])) if messages[-1].get("role") == "assistant" else []

    async def send(self, *, stream: bool) -> AsyncIterator[Any]:
        """One request."""
        given = {**self._request, "messages": self.run.messages, **self._container()}
        if not stream:
            yield Reply(await called(self._client, self._client.messages.create, **given))
            return
        complete = False
        async with opened(self._client.messages.stream(**given)) as events:
            async for event in items_of(events):
                complete = complete or event.type == "message_stop"
                yield event
            if not complete:
                raise StreamEnded("the stream ended before the message was complete")
            yield Reply(events.current_message_snapshot)

    def _container(self) -> dict[str, Any]:
        if self._skills:
            return {"container": {**self._skills, **({"id": self.run.container} if self.run.container else {})}}
        return {"container": self.run.container} if self.run.container else {}

    def accept(self, response: Any) -> list[Asked] | None:
        """Take a message in."""
        run = self.run
        run.response_id, run.stop_reason = response.id, str(response.stop_reason)
        if response.container is not None:
            self._confirmed = True
            run.container, run.container_expires = response.container.id, response.container.expires_at
        used = response.usage
        cached, written = used.cache_read_input_tokens or 0, used.cache_creation_input_tokens or 0
        count(
            run.usage,
            input_tokens=used.input_tokens + cached + written,
            output_tokens=used.output_tokens,
            cache_read_tokens=cached,
            cache_write_tokens=written,
        )
        # A forced choice made again and again would never let the model answer.
        if (self._request.get("tool_choice") or {}).get("type") in ("any", "tool"):
            self._request["tool_choice"] = {"type": "auto"}
        content = [block.to_dict(mode="json", warnings=False) for block in response.content]
        self._note_programs(content)
        if run.messages[-1]["role"] != "assistant":
            run.text = ""
        run.text += "".join(block["text"] for block in content if block["type"] == "text")
        if content:  # an empty message is not taken back
            run.messages.append({"role": "assistant", "content": content})
        asked = _asked(content)
        if run.stop_reason in ("tool_use", "pause_turn") and asked:
            return asked
        return [] if run.stop_reason == "pause_turn" else None

    def _note_programs(self, content: Sequence[Mapping[str, Any]]) -> None:
        for block in content:
            if block["type"] == "server_tool_use" and block["name"] == "code_execution":
                self.run.program(block["id"], str(block["input"].get("code", "")))
            elif block["type"] == "code_execution_tool_result":
                program = self.run.program(block["tool_use_id"])
                result = block["content"]
                program.ok = result.get("return_code") == 0
                output = result.get("stdout", "") if "return_code" in result else f"Error: {result.get('error_code')}"
                program.output = "\n".join(text for text in (output, result.get("stderr", "")) if text)
                self._note_failure(program, str(result.get("stderr", "")))

    def _note_failure(self, program: Program, stderr: str) -> None:
        """A program that failed will be written again. What it had done, and what it did not wait for, is not repeated:
        the outcomes answer the same calls of the next one."""
        names = {name for found in _TIMED_OUT.finditer(stderr) for name in re.findall(r"[\w-]+", found.group(1))}
        if program.ok and not names:
            return
        late = {self._desk.tools[name].full_name for name in names if name in self._desk.tools}
        for call in self.run.calls:
            if call.program != program.id:
                continue
            if (call.id in self._answered and call.tool in late) or not self._desk.repeatable(call):
                self._desk.ledger.lose(call)
        if names:
            self.run.note(f"program {program.id} did not wait for {', '.join(sorted(names))}: the answer came too late")

    def answer(self, answers: Sequence[Answer]) -> None:
        """One message of the user with nothing but results: the API takes no other."""
        content = []
        for one in answers:
            block: dict[str, Any] = {"type": "tool_result", "tool_use_id": one.asked.id, "content": one.text}
            if not one.ok and not one.asked.by_code:  # code gets a text, whatever happened
                block["is_error"] = True
            content.append(block)
        self._answered = {one.asked.id for one in answers}
        self.run.messages.append({"role": "user", "content": content})

    def deadline(self, asked: Sequence[Asked]) -> float | None:
        """A program waits for its calls for about 270 seconds."""
        return self._call_deadline if any(one.by_code for one in asked) else None

    def failed(self, error: Exception) -> bool:
        """Whether an error is the API's."""
        return isinstance(error, anthropic.APIError)

    def recover(self, error: Exception) -> bool:
        """Go on without a container that is gone; a program that waited in it starts anew."""
        if self.run.container is None or self._recovered >= 2 or not isinstance(error, anthropic.APIStatusError):
            return False
        waiting = self._waiting_programs()
        told = "container" in error.message.lower() and "container_id is required" not in error.message
        gone = (error.status_code in (400, 404, 410) and told) or (error.status_code == 500 and not self._confirmed)
        if not gone:
            return False
        self._recovered += 1
        note = f"container {self.run.container} is gone ({error.status_code}); a new one is used"
        self.run.container = self.run.container_expires = None
        if waiting:
            self._roll_back(waiting)
            note += ", in which the program that waited starts anew"
        self.run.note(note)
        return True

    def _waiting_programs(self) -> set[str]:
        """The programs that wait for the results at the end of the conversation."""
        messages = self.run.messages
        results = {block.get("tool_use_id") for block in _blocks(messages[-1]) if block.get("type") == "tool_result"}
        if not results or len(messages) < 2:
            return set()
        return {one.program for one in _asked(_blocks(messages[-2])) if one.program and one.id in results}

    def _roll_back(self, programs: set[str]) -> None:
        """Back to before the programs began. The calls since then answer those that will be made again."""
        messages = self.run.messages
        began = next(
            n for n, message in enumerate(messages) if programs & {block.get("id") for block in _blocks(message)}
        )
        while began > 1 and messages[began - 1].get("role") == "assistant":
            began -= 1
        undone = messages[began:]
        del messages[began:]
        ledger = self._desk.ledger
        ledger.lose(*ledger.named(one.id for message in undone for one in _asked(_blocks(message))))
        self.run.text = ""


def _blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [] if content is None or isinstance(content, str) else [block for block in content if "type" in block]


def _asked(content: Sequence[Mapping[str, Any]]) -> list[Asked]:
    """The calls among blocks, each with its caller, by the type it has on the wire: the SDK makes of a caller that it
    doesn't know a direct one."""
    found = []
    for block in content:
        if block.get("type") == "tool_use":
            caller: Mapping[str, Any] = block.get("caller") or {"type": "direct"}
            found.append(Asked(block["id"], block["name"], block["input"], caller["type"], caller.get("tool_id")))
    return found
