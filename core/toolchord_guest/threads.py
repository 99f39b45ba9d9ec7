"""Thread pools, threads and locks for programs, made of fibers: what is started together waits together.

A guest may not create threads. A fiber stops only where it waits (a tool call, a sleep, a lock, a result), which is one
of the schedules that real threads could have had, and the same one in every replay.
"""

from __future__ import annotations

import concurrent.futures as real
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from toolchord_guest.calls import START, ToolFunction, settled
from toolchord_guest.hub import Hub

hub: Hub = None  # type: ignore[assignment]
"""Set by the worker."""


def _wait(done: Callable[[], bool], timeout: float | None = None) -> bool:
    hub.block(done, None if timeout is None else hub.clock.now + max(timeout, 0))
    return done()


class Future(real.Future):  # type: ignore[type-arg]
    """A concurrent.futures.Future that waits by letting other fibers run."""

    def result(self, timeout: float | None = None) -> Any:
        if not _wait(self.done, timeout):
            raise TimeoutError
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not _wait(self.done, timeout):
            raise TimeoutError
        return super().exception(0)


class ThreadPoolExecutor(real.Executor):
    """Runs functions as fibers, `max_workers` at a time; tools are simply started."""

    def __init__(
        self, max_workers: int | None = None, thread_name_prefix: str = "", initializer: Any = None, initargs: Any = ()
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._free = max_workers or 32
        self._waiting: deque[Callable[[], None]] = deque()
        self._unfinished = 0
        self._closed = False
        if initializer is not None:
            initializer(*initargs)

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = Future()
        self._unfinished += 1

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(settled(function(*args, **kwargs)))
                except BaseException as error:
                    future.set_exception(error)
            self._unfinished -= 1
            self._free += 1
            self._next()

        self._waiting.append(work)
        self._next()
        return future

    def _next(self) -> None:
        if self._waiting and self._free > 0:
            self._free -= 1
            hub.spawn(self._waiting.popleft())

    def map(self, function: Any, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1) -> Any:
        futures = [self.submit(function, *args) for args in zip(*iterables)]  # noqa: B905 (as the original)

        def results() -> Iterator[Any]:
            for future in futures:
                yield future.result(timeout)

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed = True
        if cancel_futures:
            self._unfinished -= len(self._waiting)
            self._waiting.clear()
        if wait:
            _wait(lambda: self._unfinished == 0)

    def __enter__(self) -> ThreadPoolExecutor:
        return self

    def __exit__(self, *error: object) -> bool | None:
        self.shutdown()
        return None


def as_completed(futures: Iterable[Future], timeout: float | None = None) -> Iterator[Future]:
    """Yield futures as they end, as concurrent.futures.as_completed does."""
    waiting = list(dict.fromkeys(futures))
    while waiting:
        if not _wait(lambda left=waiting: any(future.done() for future in left), timeout):  # type: ignore[misc]
            raise TimeoutError(f"{len(waiting)} futures unfinished")
        done = [future for future in waiting if future.done()]
        waiting = [future for future in waiting if not future.done()]
        yield from done


def wait(futures: Iterable[Future], timeout: float | None = None, return_when: str = real.ALL_COMPLETED) -> Any:
    """As concurrent.futures.wait."""
    from concurrent.futures import _base

    every = list(futures)

    def enough() -> bool:
        done = [future for future in every if future.done()]
        if return_when == real.FIRST_COMPLETED and done:
            return True
        if return_when == real.FIRST_EXCEPTION and any(future.exception() for future in done):
            return True
        return len(done) == len(every)

    _wait(enough, timeout)
    return _base.DoneAndNotDoneFutures({f for f in every if f.done()}, {f for f in every if not f.done()})


class Thread:
    """threading.Thread, as a fiber."""

    _names = itertools.count(1)

    def __init__(
        self,
        group: None = None,
        target: Any = None,
        name: str | None = None,
        args: Any = (),
        kwargs: Any = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name = name or f"Thread-{next(self._names)}"
        self.daemon = bool(daemon)
        self._target, self._args, self._kwargs = target, args, kwargs or {}
        self._state = "new"

    def run(self) -> None:
        if self._target is not None:
            settled(self._target(*self._args, **self._kwargs))

    def start(self) -> None:
        if self._state != "new":
            raise RuntimeError("threads can only be started once")
        self._state = "alive"

        def work() -> None:
            import sys
            import traceback

            try:
                self.run()
            except BaseException as error:
                line = traceback.format_exception_only(error)[-1]
                print(f"Exception in thread {self.name}: {line}", end="", file=sys.stderr)
            finally:
                self._state = "ended"

        hub.spawn(work, daemon=self.daemon)

    def join(self, timeout: float | None = None) -> None:
        if self._state == "new":
            raise RuntimeError("cannot join thread before it is started")
        _wait(lambda: self._state == "ended", timeout)

    def is_alive(self) -> bool:
        return self._state == "alive"


class Semaphore:
    """threading.Semaphore, also the base of the locks."""

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        if not self._value and blocking:
            _wait(lambda: self._value > 0, None if timeout is None or timeout < 0 else timeout)
        if not self._value:
            return False
        self._value -= 1
        return True

    def release(self, n: int = 1) -> None:
        self._value += n

    def __enter__(self) -> Any:
        self.acquire()
        return True

    def __exit__(self, *error: object) -> None:
        self.release()


class Lock(Semaphore):
    """threading.Lock."""

    def __init__(self) -> None:
        super().__init__(1)

    def release(self, n: int = 1) -> None:
        if self._value:
            raise RuntimeError("release unlocked lock")
        super().release()

    def locked(self) -> bool:
        return not self._value


class RLock:
    """threading.RLock."""

    def __init__(self) -> None:
        self._owner: object = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        import greenlet

        me = greenlet.getcurrent()
        taken = self._owner is not me and self._count > 0
        if taken and not (blocking and _wait(lambda: not self._count, None if timeout < 0 else timeout)):
            return False
        self._owner = me
        self._count += 1
        return True

    def release(self) -> None:
        if not self._count:
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class Event:
    """threading.Event."""

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        return _wait(lambda: self._set, timeout)


class Empty(Exception):
    """queue.Empty."""


class Full(Exception):
    """queue.Full."""


class Queue:
    """queue.Queue."""

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self._items: deque[Any] = deque()
        self._unfinished = 0

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if self.full() and not (block and _wait(lambda: not self.full(), timeout)):
            raise Full
        self._items.append(item)
        self._unfinished += 1

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not self._items and not (block and _wait(lambda: bool(self._items), timeout)):
            raise Empty
        return self._items.popleft()

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def task_done(self) -> None:
        self._unfinished -= 1

    def join(self) -> None:
        _wait(lambda: self._unfinished <= 0)

    def empty(self) -> bool:
        return not self._items

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self._items)

    def qsize(self) -> int:
        return len(self._items)


def sleep(seconds: float) -> None:
    """time.sleep: other fibers and the host go on meanwhile."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    hub.block(bool, hub.clock.now + seconds)


async def in_thread(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """asyncio.to_thread: a tool is started and awaited, any other function runs as a fiber."""
    if isinstance(function, ToolFunction):
        return await function.__dict__[START](args, kwargs)
    future = hub.loop.create_future()

    def work() -> None:
        try:
            value = settled(function(*args, **kwargs))
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(value)

    hub.spawn(work)
    return await future
