"""What the two transports share: their type, what they note down, and the error that stands for an answer we refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import ErrorData, JSONRPCError, JSONRPCMessage

Messages: TypeAlias = tuple[
    MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]
]
"""What a transport gives: messages from the server, and to it."""

REFUSED = -32950
"""The JSON-RPC code of an answer that we refused ourselves; outside of the ranges that servers use."""

UNREACHED = -32951
"""The code of a request that did not come through to an answer."""


@dataclass
class Notes:
    """What a transport saw that helps to explain a failure."""

    stderr: str = ""
    stray: str = ""
    exit_code: int | None = None

    def __str__(self) -> str:
        parts = []
        if self.exit_code is not None:
            how = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
            parts.append(f"the server ended with {how}")
        if self.stray:
            parts.append(f"it wrote what is no message: {self.stray!r}")
        if self.stderr:
            parts.append(f"its stderr ends with:\n{self.stderr}")
        return "; ".join(parts)


def refusal(request: int | str, reason: str, code: int = REFUSED) -> JSONRPCMessage:
    """A message that ends a request with an error of ours."""
    return JSONRPCMessage(JSONRPCError(jsonrpc="2.0", id=request, error=ErrorData(code=code, message=reason)))


def too_large(max_bytes: int) -> str:
    """Why an answer was refused."""
    return f"the answer is larger than {max_bytes:,} bytes; ask for less, or connect with a larger max_bytes"
