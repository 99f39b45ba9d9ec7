"""Bridges between blocking and asynchronous code, in both directions, inside a running event loop too."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


def iterate(make: Callable[[], AsyncGenerator[T, None]]) -> Iterator[T]:
    """The items of an asynchronous generator, one by one; it is closed when the iteration is given up."""
    context = contextvars.copy_context()
    # A thread of its own: this one may have an event loop that runs.
    with ThreadPoolExecutor(1, thread_name_prefix="toolchord-sync") as thread:
        runner = asyncio.Runner()

        def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
            return thread.submit(context.run, runner.run, coroutine).result()

        async def one(items: AsyncGenerator[T, None]) -> tuple[T] | None:
            async for item in items:
                return (item,)
            return None

        generator = make()
        try:
            while (item := run(one(generator))) is not None:
                yield item[0]
        finally:
            run(_closed(generator))
            thread.submit(runner.close).result()


async def _closed(generator: AsyncGenerator[Any, None]) -> None:
    await generator.aclose()


def is_async(client: object) -> bool:
    """Whether an SDK's client is the asynchronous one."""
    return hasattr(client, "__aenter__")


async def called(client: object, function: Callable[..., Any], **given: Any) -> Any:
    """What a method of an SDK's client gives; a blocking one is run in a thread."""
    return await function(**given) if is_async(client) else await asyncio.to_thread(function, **given)


@asynccontextmanager
async def opened(manager: Any) -> AsyncGenerator[Any, None]:
    """Enter a context manager of either kind."""
    if hasattr(manager, "__aenter__"):
        async with manager as entered:
            yield entered
        return
    entered = await asyncio.to_thread(manager.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def items_of(iterable: Any) -> AsyncGenerator[Any, None]:
    """The items of an iterable of either kind."""
    if hasattr(iterable, "__aiter__"):
        async for item in iterable:
            yield item
        return
    iterator = iter(iterable)
    while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield item


_END: Any = object()
