"""Owns how calls share a tool, over all runs, threads and event loops of a process: places, rate, circuit, retries."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from toolchord.errors import CircuitOpen
from toolchord.tools import Breaker, Retry, Tool

T = TypeVar("T")

_PASSING = (TimeoutError, ConnectionError)

_locked = threading.Lock()
_lanes: weakref.WeakKeyDictionary[Tool, Lane] = weakref.WeakKeyDictionary()


def lane_of(tool: Tool) -> Lane:
    """The lane of a tool; the same one wherever it is called from."""
    with _locked:
        if (lane := _lanes.get(tool)) is None:
            lane = _lanes[tool] = Lane(tool)
        return lane


def is_passing(error: BaseException) -> bool:
    """Whether the same call may well succeed a little later."""
    return isinstance(error, _PASSING) or bool(getattr(error, "retryable", False))


class Lane:
    """What calls of one tool share. Its methods may be called from any thread.

    Args:
        tool: the tool.
        clock, sleep: the time, in seconds, and how to let it pass.
    """

    def __init__(
        self,
        tool: Tool,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        metadata = tool.metadata
        self._name = tool.full_name
        self._free = metadata.concurrency_limit
        self._rate = metadata.rate_limit
        self._breaker = metadata.breaker
        self._lock = threading.Lock()
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._starts: deque[float] = deque(maxlen=self._rate.requests if self._rate else 0)
        self._failures = 0
        self._opened = 0.0
        self._trying = False

    async def enter(self) -> None:
        """Take a place, when there is one; `leave` gives it back."""
        with self._lock:
            if self._free is None:
                return
            if self._free > 0:
                self._free -= 1
                return
            loop = asyncio.get_running_loop()
            turn = loop.create_future()
            self._waiting.append((loop, turn))
        try:
            await turn
        except asyncio.CancelledError:
            with self._lock:
                if (loop, turn) in self._waiting:
                    self._waiting.remove((loop, turn))
                    raise
            self.leave()  # the place was given while it was cancelled
            raise

    def leave(self) -> None:
        """Give a place to the one that waits longest."""
        with self._lock:
            if self._free is None:
                return
            while self._waiting:
                loop, turn = self._waiting.popleft()
                try:
                    loop.call_soon_threadsafe(_give, turn)
                except RuntimeError:  # that loop is closed
                    continue
                return
            self._free += 1

    async def pace(self) -> None:
        """Wait until a call may start without going over the rate."""
        if self._rate is None:
            return
        with self._lock:
            now = self._clock()
            full = len(self._starts) == self._rate.requests
            start = max(now, self._starts[0] + self._rate.period) if full else now
            self._starts.append(start)
        await self._sleep(start - now)

    @contextmanager
    def checked(self) -> Iterator[None]:
        """One call's stay with the tool, which tells how well the tool is.

        Raises:
            CircuitOpen: the tool rests. After its rest, one call is let through.
        """
        if self._breaker is None:
            yield
            return
        self._check(self._breaker)
        try:
            yield
        except BaseException as error:
            self._note(error)
            raise
        self._note(None)

    def _check(self, breaker: Breaker) -> None:
        with self._lock:
            if self._failures < breaker.failures:
                return
            left = self._opened + breaker.rest - self._clock()
            if left > 0 or self._trying:
                seconds = f"try again in {max(left, 1):.0f} s"
                raise CircuitOpen(
                    f"{self._name} failed {self._failures} times in a row and rests; {seconds}", tool=self._name
                )
            self._trying = True

    def _note(self, error: BaseException | None) -> None:
        with self._lock:
            self._trying = False
            if error is not None and is_passing(error):
                self._failures += 1
                self._opened = self._clock()
            elif error is None or isinstance(error, Exception):
                self._failures = 0  # the tool itself is well; a cancellation says nothing about it


def _give(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


async def retried(attempt: Callable[[], Awaitable[T]], retry: Retry | None) -> T:
    """What `attempt` gives, tried again as `retry` says."""
    if retry is None or retry.attempts == 1:
        return await attempt()
    # Imported where it is needed: most tools are not retried.
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    loop: Any = AsyncRetrying(
        stop=stop_after_attempt(retry.attempts),
        wait=wait_random_exponential(multiplier=retry.wait, max=retry.longest),
        retry=retry_if_exception(is_passing),
        reraise=True,
    )
    result: T = await loop(attempt)
    return result
