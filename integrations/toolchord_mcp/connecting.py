"""Owns the words of the way in: `connect` to a server, or take the tools of a session that is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import PurePath
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from mcp import ClientSession, StdioServerParameters, types
from pydantic import ValidationError

from toolchord import ToolRegistry
from toolchord.errors import ConfigurationError, RegistrationError, ToolNotFoundError
from toolchord_mcp.answers import value_of
from toolchord_mcp.connection import Connection, Transport
from toolchord_mcp.http import streamable_http
from toolchord_mcp.requests import Progress, call_tool, list_tools
from toolchord_mcp.stdio import stdio
from toolchord_mcp.toolset import Toolset

Server: TypeAlias = (
    "str | Sequence[str] | StdioServerParameters | Mapping[str, Any] | Callable[[], AbstractAsyncContextManager[Any]]"
)
"""A URL; a command with its arguments; an entry of an ``mcpServers`` file; what opens a transport of the SDK."""

_MiB = 1 << 20


def connect(
    server: Server,
    *,
    namespace: str = "default",
    registry: ToolRegistry | None = None,
    only: Iterable[str] | None = None,
    strict: bool = False,
    timeout: float | None = 60.0,
    max_bytes: int = 16 * _MiB,
    on_progress: Progress | None = None,
    on_change: Callable[[], None] | None = None,
    callbacks: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> Connection:
    """Connect to an MCP server and register its tools; a context manager, ordinary or async.

    Args:
        server: a URL (streamable HTTP); a command as a list; the SDK's `StdioServerParameters`; a mapping with
            ``command``, ``args``, ``env``, ``cwd`` or ``url``, ``headers``; or a function that gives one of the SDK's
            transports, such as ``lambda: streamable_http_client(url, http_client=client)``.
        namespace: where the tools go.
        registry: where to register; a new one when None.
        only: names of the tools to take; None: all.
        strict: a tool that can't be registered is an error; else it is left out, see `Connection.refused`.
        timeout: seconds that the server may be silent; progress counts as a sign of life. None: for ever.
        max_bytes: of one message of the server. A transport of the SDK's own is not bounded.
        on_progress: told of progress: tool, how far, of how much, a word on it. Called on the loop of the run.
        on_change: called when the registered tools have changed, in the connection's thread.
        callbacks: `elicitation_callback` and others of the SDK's `ClientSession`; they run in the connection's thread.
        **metadata: fields of `ToolMetadata` for each tool, instead of what the server says, such as `capabilities`.

    Raises:
        ConfigurationError: arguments that make no sense. What else can go wrong is raised when the block is entered,
            see `Connection.open`.
    """
    if timeout is not None and not timeout > 0:
        raise ConfigurationError(f"timeout must be positive seconds or None, not {timeout!r}")
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1024:
        raise ConfigurationError(f"max_bytes must be a whole number of at least 1024, not {max_bytes!r}")
    label, transport = _transport(server, max_bytes)
    return Connection(
        label,
        transport,
        namespace=namespace,
        registry=registry,
        only=only,
        strict=strict,
        timeout=timeout,
        on_progress=on_progress,
        on_change=on_change,
        callbacks=callbacks or {},
        metadata=metadata,
    )


async def registry_from(
    session: ClientSession,
    *,
    namespace: str = "default",
    registry: ToolRegistry | None = None,
    only: Iterable[str] | None = None,
    strict: bool = False,
    timeout: float | None = 60.0,
    on_progress: Progress | None = None,
    **metadata: Any,
) -> ToolRegistry:
    """Register the tools of a session that you keep yourself.

    Calls run on the session's event loop, which must not be blocked: use `execute`, not `execute_sync`. The tools are
    those of now; `connect` follows their changes and makes lost connections anew.

    Args:
        session: an initialised session of this event loop.
        namespace, registry, only, strict, timeout, on_progress, metadata: as for `connect`.

    Raises:
        ServerError: the server gives no list of tools.
        RegistrationError: with ``strict=True``, a tool can't be registered.
        ToolNotFoundError: a name in `only` that the server does not have.
    """
    loop = asyncio.get_running_loop()
    server = "the MCP server"

    async def there(tool: types.Tool, arguments: dict[str, Any]) -> Any:
        result = await call_tool(session, tool.name, arguments, server=server, timeout=timeout, told=on_progress)
        return await asyncio.to_thread(value_of, tool.name, result, tool.outputSchema, server=server)

    async def call(tool: types.Tool, arguments: dict[str, Any]) -> Any:
        if asyncio.get_running_loop() is loop:
            return await there(tool, arguments)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(tool, arguments), loop))

    tools = Toolset(call, namespace=namespace, registry=registry, only=only, metadata=metadata)
    tools.update(await list_tools(session, server=server, timeout=timeout), server)
    if strict and tools.refused:
        name, error = next(iter(tools.refused.items()))
        tools.clear()
        raise RegistrationError(f"the tool {name!r}: {error}")
    if missing := tools.missing():
        tools.clear()
        raise ToolNotFoundError(missing[0])
    return tools.registry


def _transport(server: Any, max_bytes: int) -> tuple[str, Transport]:
    """What to call a server before it has introduced itself, and how to talk to it."""
    if isinstance(server, str):
        server = {"url": server}
    elif isinstance(server, Sequence):
        if not server or not all(isinstance(part, str) for part in server):
            raise ConfigurationError(
                f"a command is a list of texts, such as ['npx', '-y', 'name'], not {server!r:.100}"
            )
        server = {"command": server[0], "args": list(server[1:])}
    if isinstance(server, Mapping):
        if "url" in server:
            return _http(server, max_bytes)
        try:
            server = StdioServerParameters(**{key: value for key, value in server.items() if key != "type"})
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ConfigurationError(f"a server has a command (and args, env, cwd) or a url: {wrong}") from None
    if isinstance(server, StdioServerParameters):
        parameters = server
        return PurePath(server.command).name, lambda notes: stdio(parameters, max_bytes, notes)
    if callable(server):
        return "the MCP server", lambda notes: server()
    raise ConfigurationError(f"{type(server).__name__} names no MCP server; give a URL, or a command as a list")


def _http(server: Mapping[str, Any], max_bytes: int) -> tuple[str, Transport]:
    url, headers = server["url"], server.get("headers") or {}
    if unknown := server.keys() - {"url", "headers", "type"}:
        raise ConfigurationError(f"a server with a url has headers besides, not {', '.join(sorted(unknown))}")
    if server.get("type", "http") not in ("http", "streamable-http", "streamable_http", "streamableHttp"):
        raise ConfigurationError(
            f"only streamable HTTP is spoken, not {server['type']!r}; give one of the SDK's transports"
        )
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{url!r:.200} is no http(s) URL; a command is given as a list: ['npx', '-y', 'name']")
    return parts.hostname, lambda notes: streamable_http(url, headers, max_bytes)
