"""The private names of the `mcp` SDK that this adapter needs, checked when it is imported.

A request's number is what a cancellation names, and version 1 of the SDK does not tell it. Read against mcp 1.27 to
1.30.
"""

from __future__ import annotations

from importlib.metadata import version

from mcp import ClientSession, McpError
from mcp.shared.session import BaseSession
from mcp.types import CONNECTION_CLOSED, ErrorData

from toolchord.errors import ConfigurationError

VERSION = version("mcp")

if "_request_id" not in BaseSession.__annotations__:
    raise ConfigurationError(
        f"mcp {VERSION} numbers its requests in another way than toolchord_mcp knows; "
        f"use version 1.27 to 1.30, or a newer toolchord"
    )

SESSION_TERMINATED = ErrorData(code=32600, message="Session terminated")
"""What the HTTP transport says when the server does not know the session (any more): the request did not run."""


def next_request(session: ClientSession) -> int:
    """The number of the request that is sent next; right until control goes back to the event loop."""
    return session._request_id


def is_closed(error: McpError) -> bool:
    """Whether it is the SDK's word that the connection has ended, rather than the server's own."""
    return error.error.code == CONNECTION_CLOSED and error.error.message == "Connection closed"


def is_unknown_session(error: McpError) -> bool:
    """Whether the server did not know the session."""
    return error.error == SESSION_TERMINATED
