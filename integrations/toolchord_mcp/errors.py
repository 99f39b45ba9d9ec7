"""What can go wrong with an MCP server, as one small tree; a program sees each under its own name.

ServerError                 anything below; `server` names it
├── ConnectFailed           it can't be started or reached, or is no MCP server      (a ConnectionError)
├── ServerLost              the connection ended while a call was under way          (a ConnectionError)
├── ServerTimeout           it was silent for too long                               (a TimeoutError)
├── BadAnswer               its answer can't be used: unreadable, too large, not what its schema says (a ValueError)
├── RequestFailed           it answered with a protocol or HTTP error; `code` says which
└── ToolFailed              the tool ran and says that it failed (`isError`)
"""

from __future__ import annotations

from typing import Any

from toolchord.errors import ToolchordError

__all__ = [
    "BadAnswer",
    "ConnectFailed",
    "RequestFailed",
    "ServerError",
    "ServerLost",
    "ServerTimeout",
    "ToolFailed",
]


class ServerError(ToolchordError):
    """An MCP server did not do what it was asked.

    Attributes:
        server: the server, as `connect` was told of it or as it calls itself.
    """

    def __init__(self, message: str, *, server: str = "") -> None:
        self.server = server
        super().__init__(message)


class ConnectFailed(ServerError, ConnectionError):
    """The server can't be started or reached, or what answers is no MCP server."""


class ServerLost(ServerError, ConnectionError):
    """The connection ended while a call was under way; whether the call took effect is not known.

    Attributes:
        begun: False if the request is known not to have reached the server.
        over: the connection as a whole has ended; it is made anew for the next call.
    """

    def __init__(self, message: str, *, server: str = "", begun: bool = True, over: bool = True) -> None:
        self.begun = begun
        self.over = over
        super().__init__(message, server=server)


class ServerTimeout(ServerError, TimeoutError):
    """The server was silent for longer than `timeout`."""


class BadAnswer(ServerError, ValueError):
    """The server answered with something that can't be used."""


class RequestFailed(ServerError):
    """The server answered with a protocol error.

    Attributes:
        code: JSON-RPC's error code, or the status of an HTTP answer that is none, such as 500.
    """

    def __init__(self, message: str, *, code: int, server: str = "") -> None:
        self.code = code
        super().__init__(message, server=server)


class ToolFailed(ServerError, RuntimeError):
    """The tool says that it failed.

    Attributes:
        details: what it says of it as data (`structuredContent`), or None.
    """

    def __init__(self, message: str, *, server: str = "", details: Any = None) -> None:
        self.details = details
        super().__init__(message, server=server)
