"""The guest's scheduler: one event at a time from the host wakes calls, coroutines, timers and fibers.

The order of events is the only thing that comes from outside, so a program that is given the same events goes the same
way. Coroutines run on an asyncio loop whose selector is the host. Functions handed to a thread pool run as fibers
(greenlets): a guest may not create threads, and fibers switch at the same place in every replay.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import greenlet

from toolchord_guest import wire
from toolchord_guest.link import Clock, Link

_SPINS = 200
"""Rounds of a loop that never rests while calls are out, before it is made to wait for an event."""

_serial = itertools.count(1)


class Future(asyncio.Future):  # type: ignore[type-arg]
    """A future that hashes by its number, so that sets of futures iterate alike in every replay."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(loop=loop)
        self._number = next(_serial)

    def __hash__(self) -> int:
        return self._number

    def report(self) -> None:
        _report_unobserved(self)


class Task(asyncio.Task):  # type: ignore[type-arg]
    """A task that hashes by its number."""

    def __init__(self, coro: Any, **options: Any) -> None:
        self._number = next(_serial)
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number

    def report(self) -> None:
        _report_unobserved(self)


def _report_unobserved(future: Any) -> None:
    """Tell of a failure that nobody has looked at, once."""
    if future._log_traceback:
        future._log_traceback = False
        future.get_loop().call_exception_handler(
            {"message": f"{type(future).__name__} exception was never retrieved", "exception": future.exception()}
        )


class Deadlock(RuntimeError):
    """The program waits for something that can't happen any more."""


class Hub:
    """What a running program waits with. One for each guest."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self.link = link
        self.clock = clock
        self.calls: dict[int, Any] = {}
        self.loop = Loop(self)
        self._ids = itertools.count(1)
        self._main = greenlet.getcurrent()
        self._ready: deque[Fiber] = deque()
        self._blocked: list[Fiber] = []
        self.closed = False

    def reset(self) -> None:
        """Before a program: call ids count from one, whatever the last one left is forgotten."""
        self.calls.clear()
        self._ids = itertools.count(1)
        self._ready.clear()
        self._blocked.clear()
        self.closed = False
        self.loop.forget()

    # calls

    def start(self, tool: str, line: int, arguments: Any, resolve: Any, finish: Any) -> int:
        """Tell the host to run a tool; `finish(ok, value)` is called when it has ended."""
        if self.closed:
            raise RuntimeError("no tool can be called while an earlier program's definitions are restored")
        body = self.link.encode(arguments, resolve)
        number = next(self._ids)
        self.calls[number] = finish
        self.link.hold(wire.Call(number, tool, line, body))
        return number

    def cancel(self, number: int) -> None:
        """Nobody waits for this call any more."""
        if self.calls.pop(number, None) is not None:
            self.link.send(wire.Cancel(number))

    # waiting

    def pump(self, until: float | None) -> None:
        """Wait for one event and hand its outcomes out."""
        if self.closed:
            raise RuntimeError("nothing can be waited for while an earlier program's definitions are restored")
        self.link.send(wire.Wait(until))
        event, decoder = self.link.receive()
        self.clock.advance(event.now)
        if until is not None and not event.outcomes:
            self.clock.advance(until)
        last = event.outcomes[-1] if event.outcomes else None
        for outcome in event.outcomes:
            value = decoder.decode(outcome.body, more=outcome is not last)
            finish = self.calls.pop(outcome.id, None)
            if finish is not None:
                finish(outcome.ok, value)

    def block(self, done: Callable[[], bool], until: float | None = None) -> None:
        """Return when `done()` or at `until`; everything else that can run, runs meanwhile."""
        current = greenlet.getcurrent()
        if isinstance(current, Fiber):
            while not done() and (until is None or self.clock.now < until):
                current.wait(done, until)
            return
        while not done() and (until is None or self.clock.now < until):
            if not self.run_fibers():
                self._rest(until)

    def _rest(self, until: float | None) -> None:
        """Nothing is runnable: wait for the host, at most until the first deadline of all who wait."""
        deadlines = [d for d in (until, *(fiber.until for fiber in self._blocked)) if d is not None]
        if not deadlines and not self.calls:
            raise Deadlock(
                "the program waits for something that can never happen: no call is running and no timer is set"
            )
        self.pump(min(deadlines, default=None))

    # fibers

    def spawn(self, function: Callable[[], None], *, daemon: bool = False) -> None:
        """Run a function as a fiber, at once as far as it goes. Nobody waits for a daemon at the end."""
        fiber = Fiber(function, self._main, daemon)
        fiber.gr_context = contextvars.copy_context()
        if greenlet.getcurrent() is self._main:
            self._switch(fiber)
        else:
            self._ready.append(fiber)

    def _switch(self, fiber: Fiber) -> None:
        with self.loop.aside():
            fiber.switch()
        if not fiber.dead:
            self._blocked.append(fiber)

    def run_fibers(self) -> bool:
        """Let one fiber that can go on do so; whether there was one."""
        for fiber in self._blocked:
            if fiber.may_run(self.clock.now):
                self._blocked.remove(fiber)
                self._ready.append(fiber)
                break
        if not self._ready:
            return False
        self._switch(self._ready.popleft())
        return True

    def drain(self) -> None:
        """Wait until every started call has ended; nothing else runs meanwhile."""
        while self.calls:
            self.pump(None)

    def join(self) -> None:
        """Return when every fiber has ended, daemons excepted."""
        self.block(lambda: all(fiber.daemon for fiber in (*self._ready, *self._blocked)))


class Fiber(greenlet.greenlet):
    """A function that can stop in the middle until something is done."""

    def __init__(self, function: Callable[[], None], parent: greenlet.greenlet, daemon: bool) -> None:
        super().__init__(function, parent)
        self.daemon = daemon
        self.done: Callable[[], bool] = bool
        self.until: float | None = None

    def wait(self, done: Callable[[], bool], until: float | None) -> None:
        self.done, self.until = done, until
        assert self.parent is not None
        self.parent.switch()

    def may_run(self, now: float) -> bool:
        return self.done() or (self.until is not None and now >= self.until)


class Loop(asyncio.BaseEventLoop):
    """An event loop whose only input is the host."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._selector = self  # BaseEventLoop asks it for events
        self._spins = 0
        self.set_task_factory(lambda loop, coro, **options: Task(coro, loop=loop, **options))
        self.set_exception_handler(_report)

    # what BaseEventLoop asks of a concrete loop

    def select(self, timeout: float | None) -> list[Any]:
        """Called by the loop between rounds: wait for the host when nothing else can run."""
        hub = self._hub
        if hub.run_fibers():
            return []
        if timeout is not None and timeout <= 0:
            self._spins = self._spins + 1 if hub.calls else 0
            if self._spins < _SPINS:
                return []
        self._spins = 0
        until = None if timeout is None else hub.clock.now + max(timeout, 0)
        if self._scheduled:  # type: ignore[attr-defined]
            until = self._scheduled[0].when()  # type: ignore[attr-defined]
        hub._rest(until)
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def time(self) -> float:
        return self._hub.clock.read()

    def create_future(self) -> Future:
        return Future(loop=self)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self.call_soon(callback, *args, context=context)

    # running

    def disown(self) -> None:
        """End every task without asking it: one that refuses to be cancelled would be waited for at the end."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            asyncio._unregister_task(task)
            with contextlib.suppress(BaseException):
                task.get_coro().close()

    def forget(self) -> None:
        """Drop callbacks and timers that a program left behind."""
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Step out of the task that is running, so that others may run inside it."""
        task = asyncio.tasks.current_task(self) if asyncio._get_running_loop() is self else None
        if task is not None:
            asyncio.tasks._leave_task(self, task)
        try:
            yield
        finally:
            if task is not None:
                asyncio.tasks._enter_task(self, task)

    def complete(self, awaitable: Any) -> Any:
        """Run until `awaitable` is done, also from inside a running task; its result."""
        future = asyncio.ensure_future(awaitable, loop=self)
        if not self.is_running():
            return self.run_until_complete(future)
        with self.aside():
            while not future.done():
                self._run_once()  # type: ignore[attr-defined]
        return future.result()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    detail = f": {type(error).__name__}: {error}" if error is not None else ""
    print(f"{context.get('message', 'error in a callback')}{detail}", file=sys.stderr)
