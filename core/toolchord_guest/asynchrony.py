"""asyncio as a program sees it: one loop, the guest's own, and started calls wherever a coroutine may be."""

from __future__ import annotations

import asyncio
from typing import Any

from toolchord_guest import threads
from toolchord_guest.calls import future_of
from toolchord_guest.hub import Hub

hub: Hub = None  # type: ignore[assignment]


def _run(main: Any, *, debug: bool | None = None, loop_factory: Any = None) -> Any:
    """asyncio.run, also where a loop is running: tasks that `main` leaves behind are cancelled."""
    before = asyncio.all_tasks(hub.loop)
    try:
        return hub.loop.complete(_coroutine(main))
    finally:
        for task in asyncio.all_tasks(hub.loop) - before:
            task.cancel()


async def _coroutine(value: Any) -> Any:
    return await future_of(value)


def _ensure(value: Any) -> Any:
    value = future_of(value)
    return value if asyncio.isfuture(value) else asyncio.ensure_future(value, loop=hub.loop)


async def _nothing(value: Any) -> Any:
    return value


def _lenient(value: Any) -> Any:
    """What gather and friends take: a blocking tool's value counts as a call that is already done."""
    value = future_of(value)
    if asyncio.isfuture(value) or hasattr(value, "__await__") or asyncio.iscoroutine(value):
        return value
    return _nothing(value)


def _coro(value: Any) -> Any:
    """A coroutine of anything that may be awaited."""
    value = _lenient(value)  # first of all: to ask a started call for its type is to wait for it
    return value if asyncio.iscoroutine(value) else _coroutine(value)


def _gather(*values: Any, return_exceptions: bool = False) -> Any:
    return asyncio.gather(*map(_lenient, values), return_exceptions=return_exceptions)


def _create_task(coro: Any, *, name: str | None = None, context: Any = None) -> Any:
    return asyncio.create_task(_coro(coro), name=name, context=context)


class TaskGroup(asyncio.TaskGroup):
    """asyncio.TaskGroup that also takes started calls."""

    def create_task(self, coro: Any, **options: Any) -> Any:
        return super().create_task(_coro(coro), **options)


def _wait_for(value: Any, timeout: float | None) -> Any:
    return asyncio.wait_for(_lenient(value), timeout)


def _wait(values: Any, *, timeout: float | None = None, return_when: str = asyncio.ALL_COMPLETED) -> Any:
    return asyncio.wait([_ensure(v) for v in values], timeout=timeout, return_when=return_when)


def _as_completed(values: Any, *, timeout: float | None = None) -> Any:
    return asyncio.as_completed([_ensure(_lenient(v)) for v in values], timeout=timeout)


class _LoopFace:
    """The loop as a program may use it."""

    def run_until_complete(self, value: Any) -> Any:
        return hub.loop.complete(_coroutine(_lenient(value)))

    def create_task(self, coro: Any, *, name: str | None = None) -> Any:
        return hub.loop.create_task(_coro(coro), name=name)

    def run_in_executor(self, executor: Any, function: Any, *args: Any) -> Any:
        return hub.loop.create_task(threads.in_thread(function, *args))

    def create_future(self) -> Any:
        return hub.loop.create_future()

    def time(self) -> float:
        return hub.clock.read()

    def call_soon(self, callback: Any, *args: Any) -> Any:
        return hub.loop.call_soon(callback, *args)

    def call_later(self, delay: float, callback: Any, *args: Any) -> Any:
        return hub.loop.call_later(delay, callback, *args)

    def is_running(self) -> bool:
        return hub.loop.is_running()

    def is_closed(self) -> bool:
        return False

    def close(self) -> None:
        pass


_loop_face = _LoopFace()


def _running_loop() -> _LoopFace:
    if not hub.loop.is_running():
        raise RuntimeError("no running event loop")
    return _loop_face


def names(of: Hub) -> dict[str, Any]:
    """What the facade lists, for programs that wait with this hub."""
    global hub
    hub = of
    kept = (
        "ALL_COMPLETED BoundedSemaphore CancelledError Condition Event FIRST_COMPLETED FIRST_EXCEPTION Future "
        "InvalidStateError Lock LifoQueue PriorityQueue Queue QueueEmpty QueueFull Semaphore Task TimeoutError "
        "Barrier current_task iscoroutine iscoroutinefunction isfuture sleep timeout timeout_at Timeout all_tasks"
    ).split()
    return {name: getattr(asyncio, name) for name in kept if hasattr(asyncio, name)} | {
        "TaskGroup": TaskGroup,
        "as_completed": _as_completed,
        "create_task": _create_task,
        "ensure_future": lambda value, *, loop=None: _ensure(_lenient(value)),
        "gather": _gather,
        "get_event_loop": lambda: _loop_face,
        "get_running_loop": _running_loop,
        "new_event_loop": lambda: _loop_face,
        "run": _run,
        "set_event_loop": lambda loop: None,
        "shield": lambda value: asyncio.shield(_lenient(value)),
        "to_thread": threads.in_thread,
        "wait": _wait,
        "wait_for": _wait_for,
    }
