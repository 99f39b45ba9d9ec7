"""Owns how a server meets its clients: over its own stdin and stdout, or over streamable HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from toolchord.errors import ConfigurationError

_GRACE = 2
"""Seconds that open streams have to end when the server is stopped."""


async def serve_stdio(server: Server[Any, Any], *, on_stop: Callable[[], None] = lambda: None) -> None:
    """Serve one client over this process's stdin and stdout, until it closes them.

    Whatever tools print goes to stderr meanwhile, and what they read is empty: the two pipes are the protocol's alone.

    Args:
        server: the server.
        on_stop: called before a SIGTERM or SIGINT ends the process.
    """
    loop = asyncio.get_running_loop()

    async def stop() -> None:
        await asyncio.to_thread(on_stop)
        os._exit(0)  # a thread that reads stdin can't be stopped in another way

    def stopped() -> None:
        tasks.append(loop.create_task(stop()))

    tasks: list[asyncio.Task[None]] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
            loop.add_signal_handler(number, stopped)
    with _own_pipes() as (stdin, stdout):
        async with stdio_server(stdin, stdout) as (read, write):
            await server.run(read, write, server.create_initialization_options())


@contextlib.contextmanager
def _own_pipes() -> Iterator[tuple[anyio.AsyncFile[str], anyio.AsyncFile[str]]]:
    """Descriptors 0 and 1 under other numbers; in their places nothing to read, and stderr."""
    pipes = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    stdin = open(pipes[0], encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    stdout = open(pipes[1], "w", encoding="utf-8", newline="\n", closefd=False)  # noqa: SIM115
    try:
        yield anyio.wrap_file(stdin), anyio.wrap_file(stdout)
    finally:
        sys.stdout.flush()  # what was printed meanwhile must not reach the client after all
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
            os.close(pipe)


async def serve_http(
    server: Server[Any, Any],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    on_start: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve any number of clients over streamable HTTP at ``/mcp``, until the process is told to stop.

    Args:
        server: the server.
        host: the address to listen at. One that is not this machine's own needs a `token`.
        port: the port; 0 for a free one.
        token: what clients must send as ``Authorization: Bearer ...``; None lets everybody in who reaches the port.
        on_start: called with the URL once clients are served.

    Raises:
        ConfigurationError: an address without a token that others can reach, or one that can't be listened at.
    """
    if token is not None and len(token) < 16:
        raise ConfigurationError("the token must have 16 characters at least")
    if token is None and not _is_loopback(host):
        raise ConfigurationError(f"{host} can be reached by others, who could run programs: set a token")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"can't listen at {host}:{port}: {error}") from error
    with sock:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{sock.getsockname()[1]}/mcp"
        app = _app(server, shown, token, lambda: on_start(url))
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE, ws="none")
        http = _HttpServer(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
                loop.add_signal_handler(number, functools.partial(setattr, http, "should_exit", True))
        await http.serve(sockets=[sock])


class _HttpServer(uvicorn.Server):
    """uvicorn's server without its own way with signals: it raises them again, which would skip our clean-up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _app(server: Server[Any, Any], host: str, token: str | None, started: Callable[[], None]) -> Starlette:
    security = None
    if token is None:
        # No page in a browser may reach it: neither by a name that was bound to this address, nor from its own origin.
        names = (host, "127.0.0.1", "localhost", "[::1]")
        security = TransportSecuritySettings(
            allowed_hosts=[f"{name}:*" for name in names], allowed_origins=[f"http://{name}:*" for name in names]
        )
    manager = StreamableHTTPSessionManager(server, security_settings=security)
    logging.getLogger("mcp.server.streamable_http").addFilter(_is_news)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with manager.run():
            started()
            yield

    return Starlette(routes=[Route("/mcp", _Endpoint(manager, token))], lifespan=lifespan)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the SDK's log says more than that a client has hung up, which it calls an error."""
    return not (record.exc_info and isinstance(record.exc_info[1], anyio.ClosedResourceError))


class _Endpoint:
    """The protocol's one path; a class, for Starlette hands functions a Request instead of the bare connection."""

    def __init__(self, manager: StreamableHTTPSessionManager, token: str | None) -> None:
        self._manager = manager
        self._wanted = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        if self._wanted is not None and not hmac.compare_digest(given, self._wanted):
            refusal = PlainTextResponse("a bearer token is needed", 401, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        await self._manager.handle_request(scope, receive, send)
