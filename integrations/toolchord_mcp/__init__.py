"""The tools of MCP servers in programs, and programs for every MCP client.

`connect` registers the tools of a server, `registry_from` those of a session that is there; `code_server` is a server
with which any MCP client runs programs, and ``toolchord mcp`` serves it.
"""

from __future__ import annotations

from toolchord.errors import MissingExtraError

try:
    import mcp  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "mcp":
        raise
    raise MissingExtraError("toolchord_mcp", "mcp") from None

import toolchord_mcp.private  # noqa: F401 - first: it says so where the version does not fit
from toolchord_mcp.connecting import connect, registry_from
from toolchord_mcp.connection import Connection
from toolchord_mcp.errors import (
    BadAnswer,
    ConnectFailed,
    RequestFailed,
    ServerError,
    ServerLost,
    ServerTimeout,
    ToolFailed,
)
from toolchord_mcp.outbound import code_server
from toolchord_mcp.serving import serve_http, serve_stdio

__all__ = [
    "BadAnswer",
    "ConnectFailed",
    "Connection",
    "RequestFailed",
    "ServerError",
    "ServerLost",
    "ServerTimeout",
    "ToolFailed",
    "code_server",
    "connect",
    "registry_from",
    "serve_http",
    "serve_stdio",
]
