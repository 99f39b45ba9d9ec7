"""Owns a conversation over Chat Completions on the wire: messages, calls in pieces, and programs in our sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import openai

from toolchord.errors import ConfigurationError
from toolchord.native import Answer, Asked, Conversation, ModelRun, Reply, StreamEnded, called, count, items_of, opened
from toolchord_openai.request import unforced, whole


class ChatConversation(Conversation):
    """Messages.

    Args:
        client: an SDK client, asynchronous or not, of OpenAI or of a server that copies it.
        run: to be filled.
        request: the parameters that are the same in each request, `tools` among them.
        messages: the conversation so far.
    """

    def __init__(self, client: Any, run: ModelRun, request: dict[str, Any], messages: list[dict[str, Any]]) -> None:
        self.run = run
        self.retries = int(getattr(client, "max_retries", 2))
        self._client = client
        self._request = request
        run.messages = messages

    def opening(self) -> list[Asked]:
        """The calls of the last message that has some, as far as they have no result."""
        messages = self.run.messages
        if not messages:
            raise ConfigurationError("messages is empty; give at least one of the user")
        answered = set()
        for number in range(len(messages) - 1, -1, -1):
            if messages[number].get("role") != "tool":
                return [one for one in self._asked(number) if one.id.partition("/")[2] not in answered]
            answered.add(messages[number].get("tool_call_id"))
        return []

    async def send(self, *, stream: bool) -> AsyncIterator[Any]:
        """One request."""
        given = {**self._request, "messages": self.run.messages}
        create = self._client.chat.completions.create
        if not stream:
            response = await called(self._client, create, **given)
            yield Reply(response.to_dict(mode="json", warnings=False))
            return
        given.setdefault("stream_options", {"include_usage": True})
        completion = _Whole()
        async with opened(await called(self._client, create, stream=True, **given)) as chunks:
            async for chunk in whole(items_of(chunks)):
                completion.add(chunk.to_dict(mode="json", warnings=False))
                yield chunk
        if completion.finish_reason is None:
            raise StreamEnded("the stream ended before the message was complete")
        yield Reply(completion.put_together())

    def accept(self, response: Any) -> list[Asked] | None:
        """Take a completion in."""
        run = self.run
        run.response_id = response.get("id")
        if used := response.get("usage"):
            details = used.get("prompt_tokens_details") or {}
            count(
                run.usage,
                input_tokens=used.get("prompt_tokens"),
                output_tokens=used.get("completion_tokens"),
                cache_read_tokens=details.get("cached_tokens"),
            )
        if "tool_choice" in self._request:
            self._request["tool_choice"] = unforced(self._request["tool_choice"])
        choice = response["choices"][0]
        run.stop_reason = str(choice["finish_reason"])
        message = choice["message"]
        run.text = message.get("content") or message.get("refusal") or ""
        kept = {"role": "assistant", "content": message.get("content")}
        if calls := message.get("tool_calls"):
            kept["tool_calls"] = [
                {"id": one["id"], "type": "function", "function": _only(one["function"], "name", "arguments")}
                for one in calls
                if one.get("function")
            ]
        if message.get("refusal"):
            kept["refusal"] = message["refusal"]
        run.messages.append(kept)
        if run.stop_reason == "length":
            return None  # the last call may be cut short
        return self._asked(len(run.messages) - 1) or None

    def _asked(self, number: int) -> list[Asked]:
        """The calls of a message. Some servers count ids from 0 in each one, so its place is part of the id here."""
        calls = self.run.messages[number].get("tool_calls") or []
        return [Asked(f"{number}/{one['id']}", one["function"]["name"], one["function"]["arguments"]) for one in calls]

    def answer(self, answers: Sequence[Answer]) -> None:
        """A message for each call."""
        for one in answers:
            id = one.asked.id.partition("/")[2]
            self.run.messages.append({"role": "tool", "tool_call_id": id, "content": one.text})

    def failed(self, error: Exception) -> bool:
        """Whether an error is the API's."""
        return isinstance(error, openai.APIError)


class _Whole:
    """A completion, put together from its chunks."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._id: Any = None
        self._usage: Any = None
        self._texts: dict[str, str] = {}
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, chunk: Mapping[str, Any]) -> None:
        self._id = chunk.get("id") or self._id
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            delta = choice.get("delta") or {}
            for name in ("content", "refusal"):
                if delta.get(name):
                    self._texts[name] = self._texts.get(name, "") + delta[name]
            for piece in delta.get("tool_calls") or ():
                call = self._calls.setdefault(piece["index"], {"id": "", "function": {"name": "", "arguments": ""}})
                call["id"] = piece.get("id") or call["id"]
                for name, text in (piece.get("function") or {}).items():
                    if name in ("name", "arguments"):
                        call["function"][name] += text or ""

    def put_together(self) -> dict[str, Any]:
        calls = [self._calls[index] for index in sorted(self._calls)]
        message = {**self._texts, "tool_calls": calls}
        choice = {"finish_reason": self.finish_reason, "message": message}
        return {"id": self._id, "usage": self._usage, "choices": [choice]}


def _only(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: mapping[name] for name in names}
