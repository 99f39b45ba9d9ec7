"""Owns the question to a person before a tool runs: which tools ask, what is asked, what the answer means.

A call that needs a yes pauses its run; all calls that wait are asked for in one elicitation, and the run goes on from
its journal. So the program's time stands still while a person thinks, and nothing that is done is done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mcp import McpError, types
from mcp.server.session import ServerSession

from toolchord import CallIdentity, Catalogue, Tool, ToolCapability, current_call
from toolchord.errors import CallPaused, ConfigurationError, ToolchordError
from toolchord.results import shorten, shown

_LONGEST_ARGUMENT = 2_000
_ONCE, _ALWAYS, _NO = "once", "always", "no"
_CHOICES = {
    _ONCE: "Run it",
    _ALWAYS: "Run it, and every later call of this tool in this program",
    _NO: "Don't run it",
}


class ApprovalRefused(ToolchordError, PermissionError):
    """A person said no to the call.

    Attributes:
        tool: the tool's full name.
    """

    def __init__(self, message: str, *, tool: str) -> None:
        self.tool = tool
        super().__init__(message)


class ApprovalUnavailable(ApprovalRefused):
    """The call needs a person's yes, and the client can't ask for it."""


@dataclass(frozen=True)
class Approval:
    """What a paused call waits for: the call, its tool and what the tool would run with."""

    call: CallIdentity
    tool: Tool
    arguments: dict[str, Any]


class Rules:
    """Which tools ask before they run.

    Args:
        ask: names of tools, or patterns such as ``files.*``, besides those with the capability DESTRUCTIVE.
        allow: names or patterns of tools that never ask.
    """

    def __init__(self, ask: Iterable[str], allow: Iterable[str]) -> None:
        self._ask = _patterns("ask", ask)
        self._allow = _patterns("allow", allow)

    def check(self, catalogue: Catalogue) -> None:
        """A pattern that fits no tool is most likely a slip, and one that matters: ConfigurationError."""
        for pattern in (*self._ask, *self._allow):
            if not any(_fits(exposed.tool, [pattern]) for exposed in catalogue.tools):
                raise ConfigurationError(f"{pattern!r} fits no tool; a name is written as in {_some(catalogue)}")

    def asks(self, tool: Tool) -> bool:
        """Whether the tool asks."""
        if _fits(tool, self._allow):
            return False
        return tool.metadata.has_capability(ToolCapability.DESTRUCTIVE) or _fits(tool, self._ask)


def _patterns(what: str, patterns: Iterable[str]) -> tuple[str, ...]:
    found = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if wrong := [pattern for pattern in found if not isinstance(pattern, str) or not pattern]:
        raise ConfigurationError(f"{what} takes names of tools or patterns, not {wrong[0]!r}")
    return found


def _fits(tool: Tool, patterns: Iterable[str]) -> bool:
    names = (tool.full_name, tool.name, *tool.aliases)
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _some(catalogue: Catalogue) -> str:
    return ", ".join(repr(exposed.tool.full_name) for exposed in catalogue.tools[:3]) or "'namespace.tool'"


class Approvals:
    """The answers that one program's client has given.

    Args:
        session: the session with the client.
        request: the id of the request that runs the program.
    """

    def __init__(self, session: ServerSession, request: types.RequestId) -> None:
        self._session = session
        self._request = request
        self._answers: dict[CallIdentity, str] = {}  # bound to number and digest: to the very call that was shown
        self._always: set[str] = set()
        elicitation = types.ClientCapabilities(elicitation=types.ElicitationCapability())
        able = session.check_client_capability(elicitation)
        self._unable = None if able else "this client can't ask for it (it has no elicitation)"

    def pass_or_pause(self, call: CallIdentity, tool: Tool, arguments: dict[str, Any]) -> None:
        """Let a call pass, pause it until somebody has answered, or refuse it."""
        answer = _ALWAYS if tool.full_name in self._always else self._answers.get(call)
        if answer == _NO:
            raise ApprovalRefused(f"{tool.full_name}: the user said no to this call", tool=tool.full_name)
        if answer is None and self._unable:
            raise ApprovalUnavailable(
                f"{tool.full_name} needs the user's yes, and {self._unable}; use a client with elicitation, "
                f"or have the server started with --allow {tool.full_name}",
                tool=tool.full_name,
            )
        if answer is None:
            raise CallPaused(Approval(call, tool, arguments))

    async def ask(self, waiting: Sequence[Approval]) -> None:
        """Ask for all calls that wait, in one form; what gets no yes is refused."""
        lines, properties = [], {}
        for place, approval in enumerate(waiting, 1):
            lines.append(f"{place}. {_written(approval)}")
            properties[f"call_{place}"] = {
                "type": "string",
                "title": f"{place}. {approval.tool.full_name}",
                "enum": list(_CHOICES),
                "enumNames": list(_CHOICES.values()),
                "default": _ONCE,
            }
        what = "this call" if len(waiting) == 1 else f"these {len(waiting)} calls"
        message = f"The program waits for your yes to {what}:\n" + "\n".join(lines)
        try:
            answer = await self._session.elicit_form(
                message, {"type": "object", "properties": properties}, related_request_id=self._request
            )
        except McpError as error:
            self._unable = f"the client could not ask for it: {error.error.message}"
            return
        content = (answer.content or {}) if answer.action == "accept" else None
        for place, approval in enumerate(waiting, 1):
            chosen = _NO if content is None else content.get(f"call_{place}", _ONCE)
            self._answers[approval.call] = str(chosen) if chosen in (_ONCE, _ALWAYS) else _NO
            if chosen == _ALWAYS:
                self._always.add(approval.tool.full_name)


current: ContextVar[Approvals] = ContextVar("toolchord_mcp_approvals")


async def gate(tool: Tool, arguments: dict[str, Any]) -> None:
    """What stands before each tool that asks; see `Tool.gated`."""
    call = current_call()
    assert call is not None  # it is only called inside a run
    current.get().pass_or_pause(call, tool, arguments)


def _written(approval: Approval) -> str:
    """A call as a person reads it, with all that it is about to do."""
    given = (f"{name}={shorten(shown(value), _LONGEST_ARGUMENT)}" for name, value in approval.arguments.items())
    return f"{approval.tool.full_name}({', '.join(given)}), line {approval.call.line}"
