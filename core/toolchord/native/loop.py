"""The loop around a provider's model: ask, serve its calls, answer, until it is done. One for all providers."""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from toolchord.errors import ModelRunError
from toolchord.native.calls import Answer, Asked, CallDesk, by_status
from toolchord.native.results import ModelRun, Restarted


@dataclass(frozen=True)
class Reply:
    """A complete response of the SDK, the last item of `Conversation.send`."""

    response: Any


class Conversation(abc.ABC):
    """One provider's form of a conversation. `run` is filled as it goes on.

    Attributes:
        run: what happened so far.
        retries: how often a stream that broke off is asked for again.
    """

    run: ModelRun
    retries: int = 2

    async def prepare(self) -> None:  # noqa: B027  (most have nothing to do)
        """Look at what must be known before the first request."""

    @abc.abstractmethod
    def opening(self) -> list[Asked]:
        """The calls that the given messages leave open."""

    @abc.abstractmethod
    def send(self, *, stream: bool) -> AsyncIterator[Any]:
        """Make the next request: the SDK's events if it is a stream, then a `Reply`."""

    @abc.abstractmethod
    def accept(self, response: Any) -> list[Asked] | None:
        """Take a response in: the calls that it asks for, none if the model is to go on, None if it is done."""

    @abc.abstractmethod
    def answer(self, answers: Sequence[Answer]) -> None:
        """Add the answers to the conversation."""

    @abc.abstractmethod
    def failed(self, error: Exception) -> bool:
        """Whether an error is the API's, and not one of the host's code."""

    def recover(self, error: Exception) -> bool:
        """Change what is to be sent so that an error goes away; False if nothing can be done."""
        return False

    def deadline(self, asked: Sequence[Asked]) -> float | None:
        """Seconds in which calls must be answered."""
        return None


async def drive(
    conversation: Conversation, desk: CallDesk, *, stream: bool, max_requests: int
) -> AsyncGenerator[Any, None]:
    """Go on until the model is done.

    Yields:
        The SDK's events if `stream`, a `Restarted` where a stream broke off, each call as it has been answered, and
        last the `ModelRun`.

    Raises:
        ModelRunError: the API failed, or the model was not done after `max_requests`.
    """
    run = conversation.run
    run.calls, run.ledger = desk.calls, desk.ledger
    try:
        await conversation.prepare()
        asked: list[Asked] | None = conversation.opening()
        while asked is not None:
            answers: list[Answer] = []
            if asked:
                answers = await desk.serve(asked, conversation.deadline(asked))
                for answer in answers:
                    yield answer.call
                if any(by_status(answers, "paused")):
                    run.stop_reason = "paused"
                    break
                conversation.answer(answers)
            if run.requests >= max_requests:
                raise ModelRunError(
                    f"the model was not done after {max_requests} requests; go on with error.run.messages and "
                    f"ledger=error.run.ledger, or allow more with max_requests",
                    run,
                )
            async with aclosing(_asked_for(conversation, stream)) as items:
                async for item in items:
                    if isinstance(item, Reply):
                        run.response = item.response
                    else:
                        yield item
            desk.received(answers)
            asked = conversation.accept(run.response)
    finally:
        await desk.close()
    yield run


async def _asked_for(conversation: Conversation, stream: bool) -> AsyncGenerator[Any, None]:
    """One response, whatever it takes."""
    run = conversation.run
    left = conversation.retries
    while True:
        begun = False
        run.requests += 1
        try:
            async for item in conversation.send(stream=stream):
                yield item
                begun = True
            return
        except Exception as error:
            # What breaks before the first event, the SDK has tried again itself.
            if left > 0 and _broke_off(error) and (begun or not conversation.failed(error)):
                left -= 1
                yield Restarted(f"{type(error).__name__}: {error}")
                continue
            if not (conversation.failed(error) or _broke_off(error)):
                raise
            if conversation.recover(error):
                continue
            raise ModelRunError(
                f"request {run.requests} failed: {error}; go on with error.run.messages and ledger=error.run.ledger",
                run,
            ) from error


class StreamEnded(Exception):
    """A stream ended before its response was complete."""


def _broke_off(error: Exception) -> bool:
    """Whether a connection ended in the middle; the SDKs hand on such errors of whichever httpx they use."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"StreamEnded", "TransportError", "APIConnectionError"})


async def last(items: AsyncGenerator[Any, None]) -> ModelRun:
    """The run that ends a drive."""
    run = None
    async with aclosing(items):
        async for item in items:
            run = item
    assert isinstance(run, ModelRun)
    return run
