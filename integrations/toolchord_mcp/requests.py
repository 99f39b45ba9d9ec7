"""Owns one call over a session: sent, waited for, timed out, cancelled; and the typed errors of all that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import anyio
from mcp import ClientSession, McpError, types
from pydantic import BaseModel, ValidationError

from toolchord.observing import outgoing
from toolchord_mcp.errors import BadAnswer, ConnectFailed, RequestFailed, ServerError, ServerLost, ServerTimeout
from toolchord_mcp.limits import REFUSED, UNREACHED
from toolchord_mcp.private import is_closed, is_unknown_session, next_request

Progress: TypeAlias = Callable[[str, float, float | None, str | None], None]
"""Told of a call's progress: the tool's name, how far it is, of how much, and a word on it."""

T = TypeVar("T")

_COURTESY = 1.0
"""Seconds to tell a server that nobody waits for its answer."""

_PAGES = 200


class Listing(BaseModel):
    """A page of ``tools/list``; each entry is checked by itself, so that a wrong one does not hide the others."""

    tools: list[Any]
    nextCursor: str | None = None


async def call_tool(
    session: ClientSession,
    name: str,
    arguments: dict[str, Any],
    *,
    server: str,
    timeout: float | None,
    told: Progress | None = None,
) -> types.CallToolResult:
    """Call a tool.

    Args:
        session: an initialised session of this event loop.
        name: the tool's.
        arguments: JSON.
        server: for errors.
        timeout: seconds that the server may be silent; its progress notifications count as signs of life.
        told: of these notifications.

    Raises:
        ServerError: one of its kinds.
    """
    carried = outgoing()  # W3C Trace Context, as the protocol's SEP-414 has it
    meta = {"_meta": types.RequestParams.Meta(**carried)} if carried else {}
    request = types.ClientRequest(
        types.CallToolRequest(params=types.CallToolRequestParams(name=name, arguments=arguments, **meta))
    )
    with anyio.CancelScope() as scope:

        def alive() -> None:
            scope.deadline = anyio.current_time() + timeout if timeout is not None else float("inf")

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            alive()
            if told is not None:
                told(name, progress, total, message)

        alive()
        number = next_request(session)
        try:
            # Not session.call_tool: it raises bare RuntimeErrors, and runs the patterns of a server's schema.
            return await _errors(
                session.send_request(request, types.CallToolResult, progress_callback=on_progress), name, server
            )
        except asyncio.CancelledError:
            await _cancel(session, number, "timed out" if scope.cancel_called else "nobody waits for it any more")
            raise
    raise ServerTimeout(f"{name}: no sign of life from the server for {timeout} s", server=server)


async def list_tools(session: ClientSession, *, server: str, timeout: float | None) -> list[Any]:
    """Every entry of the server's list, as it sent it.

    Raises:
        ServerError: it gives no list.
    """
    entries: list[Any] = []
    cursor: str | None = None
    for _ in range(_PAGES):
        params = types.PaginatedRequestParams(cursor=cursor) if cursor is not None else None
        request = types.ClientRequest(types.ListToolsRequest(params=params))
        with anyio.CancelScope() as scope:
            if timeout is not None:
                scope.deadline = anyio.current_time() + timeout
            page = await _errors(session.send_request(request, Listing), "tools/list", server)
        if scope.cancelled_caught:
            raise ServerTimeout(f"tools/list: no answer from the server within {timeout} s", server=server)
        entries += page.tools
        cursor = page.nextCursor
        if not cursor:
            return entries
    raise BadAnswer(f"tools/list: the server has no end of pages (more than {_PAGES})", server=server)


async def _errors(sent: Awaitable[T], what: str, server: str) -> T:
    """What was asked for, or an error of ours."""
    try:
        return await sent
    except McpError as error:
        raise _translated(error, what, server) from error
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()[:3])
        raise BadAnswer(f"{what}: the answer is not of the protocol's form: {lines}", server=server) from None
    except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
        raise ServerLost(f"{what}: the connection has ended", server=server, begun=False) from error


def _translated(error: McpError, what: str, server: str) -> ServerError:
    code, message = error.error.code, error.error.message
    if is_unknown_session(error):
        return ServerLost(f"{what}: the server has ended the session", server=server, begun=False)
    if is_closed(error):
        return ServerLost(f"{what}: the connection ended before the answer came", server=server)
    if code == REFUSED:
        return BadAnswer(f"{what}: {message}", server=server)
    if code == UNREACHED:
        if message.startswith("Connect"):  # httpx's ConnectError and ConnectTimeout
            return ConnectFailed(f"{what}: {message}", server=server)
        return ServerLost(f"{what}: {message}", server=server, over=False)
    return RequestFailed(f"{what}: {message}", code=code, server=server)


async def _cancel(session: ClientSession, number: int, reason: str) -> None:
    """Tell the server that a request is given up, though this task is cancelled; a server that takes none is let be."""
    note = types.CancelledNotification(params=types.CancelledNotificationParams(requestId=number, reason=reason))
    with anyio.move_on_after(_COURTESY, shield=True):
        try:
            await session.send_notification(types.ClientNotification(note))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass
