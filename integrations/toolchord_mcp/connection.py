"""Owns the connection to one server: opened, kept, made anew when it is lost, closed.

It lives on an event loop in a thread of its own. So its tools work from any event loop and any thread, from `execute`
and from `execute_sync`; nothing that a server does to its transport can cancel the host's tasks; and reading a large
answer does not hold the host's loop up.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from types import TracebackType
from typing import Any, TypeVar

import anyio
from mcp import ClientSession, McpError, types

from toolchord import ToolRegistry
from toolchord.errors import ConfigurationError, RegistrationError, ToolNotFoundError
from toolchord_mcp.answers import value_of
from toolchord_mcp.errors import ConnectFailed, ServerError, ServerLost, ServerTimeout
from toolchord_mcp.limits import Notes
from toolchord_mcp.private import is_unknown_session
from toolchord_mcp.requests import Progress, call_tool, list_tools
from toolchord_mcp.toolset import Toolset

log = logging.getLogger("toolchord_mcp")

T = TypeVar("T")

Transport = Callable[[Notes], AbstractAsyncContextManager[Any]]

_FALLS = 3
"""How often in a row a connection is made anew without a single answer over it."""


class _Life:
    """One session with the server, from its start until it is lost or closed."""

    def __init__(self, task: asyncio.Task[None], notes: Notes, closing: asyncio.Event) -> None:
        self.task = task
        self.notes = notes
        self.closing = closing
        self.session: ClientSession

    @property
    def over(self) -> bool:
        return self.closing.is_set() or self.task.done()


class Connection:
    """The tools of one MCP server, as long as the block lasts. Made by `connect`; an ordinary or async context manager.

    A server that was lost is started or reached again for the next call. The call under way is not repeated: it ends
    with `ServerLost`.

    Attributes:
        registry: where the tools are.
        info: how the server introduced itself; None before it is open.
    """

    def __init__(
        self,
        label: str,
        transport: Transport,
        *,
        namespace: str,
        registry: ToolRegistry | None,
        only: Iterable[str] | None,
        strict: bool,
        timeout: float | None,
        on_progress: Progress | None,
        on_change: Callable[[], None] | None,
        callbacks: Mapping[str, Any],
        metadata: dict[str, Any],
    ) -> None:
        self.info: types.InitializeResult | None = None
        self._label = label
        self._transport = transport
        self._strict = strict
        self._timeout = timeout
        self._on_progress = on_progress
        self._on_change = on_change
        self._callbacks = dict(callbacks)
        self._toolset = Toolset(
            self._call_from_anywhere, namespace=namespace, registry=registry, only=only, metadata=metadata
        )
        self._gate = threading.Lock()
        self._accepting = False
        self._thread: threading.Thread | None = None
        self._life: _Life | None = None
        self._falls = 0
        self._calls: set[asyncio.Task[Any]] = set()

    @property
    def registry(self) -> ToolRegistry:
        """Where the tools are."""
        return self._toolset.registry

    @property
    def refused(self) -> Mapping[str, RegistrationError]:
        """Tools that the server lists and that can't be used, with the reason."""
        return dict(self._toolset.refused)

    # opening and closing

    def open(self) -> Connection:
        """Connect and register the tools.

        Raises:
            ServerError: the server can't be started or reached, or gives no list of tools.
            RegistrationError: with ``strict=True``, a tool of it can't be registered.
            ToolNotFoundError: a name in `only` that the server does not have.
        """
        if self._thread is not None:
            raise ConfigurationError("a connection is opened once; call connect() again for another one")
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(started)), name=f"toolchord-mcp {self._label}", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)
        return self

    def close(self) -> None:
        """End the connection, and the server if it is a child; its tools leave the registry. Harmless when repeated."""
        atexit.unregister(self.close)
        self._stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._toolset.clear()

    def _stop(self) -> None:
        with self._gate:
            self._accepting = False
            if self._thread is not None and self._thread.is_alive() and hasattr(self, "_closing"):
                with contextlib.suppress(RuntimeError):  # its loop has just ended
                    self._loop.call_soon_threadsafe(self._closing.set)

    def __enter__(self) -> Connection:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Connection:
        opening = asyncio.get_running_loop().run_in_executor(None, self.open)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._stop()
            await asyncio.wait({opening})
            opening.exception()  # it was asked for
            await asyncio.to_thread(self.close)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    # from any thread

    async def refresh(self) -> None:
        """Ask the server for its tools again; done by itself when it says that they changed."""
        await self._there(self._refresh_now())

    async def _call_from_anywhere(self, tool: types.Tool, arguments: dict[str, Any]) -> Any:
        progress = None
        if self._on_progress is not None:
            loop, told = asyncio.get_running_loop(), self._on_progress

            def progress(name: str, done: float, total: float | None, message: str | None) -> None:
                with contextlib.suppress(RuntimeError):  # the caller's loop has ended
                    loop.call_soon_threadsafe(told, name, done, total, message)

        return await self._there(self._call(tool, arguments, progress))

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work on the connection's loop; a cancellation here is one there."""
        with self._gate:
            if not self._accepting:
                work.close()
                raise ServerLost("the connection is closed; connect again", server=self._label, begun=False)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return await asyncio.wrap_future(future)

    # on the connection's own loop

    async def _main(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._stale = asyncio.Event()
        self._closing = asyncio.Event()
        closing = asyncio.create_task(self._closing.wait())
        first = asyncio.create_task(self._first())
        refresher = asyncio.create_task(self._keep_fresh())
        try:
            await asyncio.wait({closing, first}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                first.cancel()
                await asyncio.wait({first})
            if first.cancelled():
                started.set_exception(ServerLost("the connection was closed while it was opened", server=self._label))
            elif (error := first.exception()) is not None:
                started.set_exception(error)
            else:
                self._accepting = True
                started.set_result(None)
                await closing
        finally:
            refresher.cancel()
            closing.cancel()
            await self._end_life()
            await asyncio.gather(*self._calls, refresher, closing, return_exceptions=True)

    async def _first(self) -> None:
        await self._living()
        if self._strict and self.refused:
            name, error = next(iter(self.refused.items()))
            raise RegistrationError(f"the tool {name!r} of {self._label}: {error}")
        if missing := self._toolset.missing():
            raise ToolNotFoundError(missing[0])

    async def _living(self) -> _Life:
        """The session, made anew if it was lost."""
        async with self._lock:
            if self._life is not None and not self._life.over:
                return self._life
            if self._closing.is_set():
                raise ServerLost("the connection is closed; connect again", server=self._label, begun=False)
            await self._end_life()
            if self._falls >= _FALLS:
                raise ConnectFailed(
                    f"the server was lost {_FALLS} times in a row without answering a call; "
                    f"see to it, then connect again",
                    server=self._label,
                )
            self._falls += 1
            self._life = life = await self._start()
            try:
                await self._refresh(life)
            except BaseException as error:
                await self._end_life()
                if isinstance(error, ServerLost):
                    _explain(error, life.notes)
                raise
            return life

    async def _start(self) -> _Life:
        notes, closing = Notes(), asyncio.Event()
        ready: asyncio.Future[ClientSession] = self._loop.create_future()
        life = _Life(asyncio.create_task(self._live(ready, closing, notes)), notes, closing)
        try:
            both: set[asyncio.Future[Any]] = {life.task, ready}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            life.task.cancel()
            await asyncio.wait({life.task})
            raise
        if not ready.done():
            raise self._unborn(life)
        life.session = ready.result()
        return life

    async def _live(self, ready: asyncio.Future[ClientSession], closing: asyncio.Event, notes: Notes) -> None:
        me = types.Implementation(name="toolchord", version=version("toolchord"))
        async with self._transport(notes) as streams:
            callbacks = {"message_handler": self._on_message, "client_info": me, **self._callbacks}
            async with ClientSession(streams[0], streams[1], **callbacks) as session:
                with anyio.fail_after(self._timeout):
                    self.info = await session.initialize()
                if self.info.capabilities.tools is None:
                    raise ConnectFailed("the server offers no tools", server=self._label)
                self._label = self.info.serverInfo.name[:100] or self._label
                ready.set_result(session)
                await closing.wait()

    async def _end_life(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            life.closing.set()
            await asyncio.wait({life.task})
            if not life.task.cancelled() and (error := life.task.exception()) is not None:
                log.debug("the connection to %s ended with %r", self._label, _cause(error))

    def _unborn(self, life: _Life) -> ServerError:
        """Why a server did not come to life."""
        cause = _cause(life.task.exception())
        seen = f"; {life.notes}" if str(life.notes) else ""
        if isinstance(cause, ServerError):
            cause.server = cause.server or self._label
            return cause
        if isinstance(cause, TimeoutError):
            return ServerTimeout(
                f"{self._label}: no answer to initialize within {self._timeout} s{seen}", server=self._label
            )
        if isinstance(cause, McpError) and is_unknown_session(cause):
            text = "HTTP 404: there is no MCP endpoint at that URL"
        else:
            text = str(cause) or type(cause).__name__
        return ConnectFailed(f"{self._label}: {text}{seen}", server=self._label)

    async def _call(self, tool: types.Tool, arguments: dict[str, Any], progress: Progress | None) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            for again in (True, False):
                life = await self._living()
                try:
                    result = await self._while(
                        life,
                        call_tool(
                            life.session,
                            tool.name,
                            arguments,
                            server=self._label,
                            timeout=self._timeout,
                            told=progress,
                        ),
                    )
                    break
                except ServerLost as error:
                    if error.over:
                        life.closing.set()
                    if error.begun or not again:
                        _explain(error, life.notes)
                        raise
                except ServerTimeout:
                    raise
                except ServerError:
                    self._falls = 0
                    raise
            self._falls = 0
            return value_of(tool.name, result, tool.outputSchema, server=self._label)
        finally:
            self._calls.discard(task)

    async def _while(self, life: _Life, work: Coroutine[Any, Any, T]) -> T:
        """Do work over a session, as long as there is one."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task, life.task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            return task.result()
        cause = None if life.task.cancelled() else life.task.exception()
        why = f": {_cause(cause)}" if cause is not None else ""
        raise ServerLost(f"the connection ended before the answer came{why}", server=self._label)

    # the list of tools

    async def _on_message(self, message: Any) -> None:
        if isinstance(message, types.ServerNotification) and isinstance(
            message.root, types.ToolListChangedNotification
        ):
            self._stale.set()

    async def _keep_fresh(self) -> None:
        """List the tools again whenever the server says so; not in `_on_message`, which no answer gets past."""
        while True:
            await self._stale.wait()
            try:
                await self._refresh_now()
            except ServerError as error:
                log.warning("the tools of %s can't be listed again: %s", self._label, error)

    async def _refresh_now(self) -> None:
        await self._refresh(await self._living())

    async def _refresh(self, life: _Life) -> None:
        self._stale.clear()
        entries = await self._while(life, list_tools(life.session, server=self._label, timeout=self._timeout))
        if self._toolset.update(entries, self._label) and self._on_change is not None and self._accepting:
            try:
                self._on_change()
            except Exception:  # the host's own code
                log.exception("on_change of the connection to %s failed", self._label)


def _explain(error: ServerLost, notes: Notes) -> None:
    """Say what the transport saw."""
    if seen := str(notes):
        error.args = (f"{error}; {seen}",)


def _cause(error: BaseException | None) -> BaseException | None:
    """The first error inside groups of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
