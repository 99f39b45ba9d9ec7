"""Owns the question to a person before a tool runs: which policy asks, what is asked, what the answer means.

A call that needs a yes pauses its run; all calls that wait are asked for in one elicitation, and the run goes on from
its journal. So the program's time stands still while a person thinks, and nothing that is done is done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Self

from mcp import McpError, types
from mcp.server.session import ServerSession

from toolchord import (
    ApprovalRequest,
    CallRecord,
    Catalogue,
    Decision,
    Journal,
    Policy,
    RunRecord,
    Tool,
    ToolCapability,
    Unclear,
    allow,
    ask,
)
from toolchord.errors import ConfigurationError
from toolchord.results import written

_LONGEST_ARGUMENT = 2_000
_ONCE, _ALWAYS, _NO = "once", "always", "no"
_CHOICES = {
    _ONCE: "Run it",
    _ALWAYS: "Run it, and every later call of this tool in this program",
    _NO: "Don't run it",
}
_UNCLEAR_CHOICES = {_ONCE: "Run it again", _NO: "Don't run it again"}


class Rules:
    """The policy of a server that has none of its own: tools that are DESTRUCTIVE ask, and those that are named.

    Args:
        asking: names of tools, or patterns such as ``files.*``, that ask too.
        allowing: names or patterns of tools that never ask.
    """

    def __init__(self, asking: Iterable[str], allowing: Iterable[str]) -> None:
        self._ask = _patterns("ask", asking)
        self._allow = _patterns("allow", allowing)

    def __bool__(self) -> bool:
        return bool(self._ask or self._allow)

    def check(self, catalogue: Catalogue) -> None:
        """A pattern that fits no tool is most likely a slip, and one that matters: ConfigurationError."""
        for pattern in (*self._ask, *self._allow):
            if not any(_fits(exposed.tool, pattern) for exposed in catalogue.tools):
                raise ConfigurationError(f"{pattern!r} fits no tool; a name is written as in {_some(catalogue)}")

    def policy(self) -> Policy:
        """The same as a policy."""
        return Policy(
            *(allow(pattern) for pattern in self._allow),
            ask(capability=ToolCapability.DESTRUCTIVE, why=_ASKS),
            *(ask(pattern, why=_ASKS) for pattern in self._ask),
            otherwise="allow",
        )


_ASKS = "it needs the user's yes"


def _patterns(what: str, patterns: Iterable[str]) -> tuple[str, ...]:
    found = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if wrong := [pattern for pattern in found if not isinstance(pattern, str) or not pattern]:
        raise ConfigurationError(f"{what} takes names of tools or patterns, not {wrong[0]!r}")
    return found


def _fits(tool: Tool, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (tool.full_name, tool.name, *tool.aliases))


def _some(catalogue: Catalogue) -> str:
    return ", ".join(repr(exposed.tool.full_name) for exposed in catalogue.tools[:3]) or "'namespace.tool'"


class Client:
    """Whom one program asks.

    Args:
        session: the session with the client.
        request: the id of the request that runs the program.

    Attributes:
        always: the full names of tools whose calls need no more answers, in this program.
        unable: why nobody can be asked, or None.
    """

    def __init__(self, session: ServerSession, request: types.RequestId) -> None:
        self._session = session
        self._request = request
        self.always: set[str] = set()
        elicitation = types.ClientCapabilities(elicitation=types.ElicitationCapability())
        able = session.check_client_capability(elicitation)
        self.unable = None if able else "this client can't ask for it (it has no elicitation)"

    def known(self, request: ApprovalRequest | Unclear) -> Decision | None:
        """The answer to a request that nobody needs to be asked about any more."""
        if isinstance(request, ApprovalRequest) and request.tool in self.always:
            return Decision.approve(by=_ALWAYS)
        if self.unable is None:
            return None
        return Decision.reject(
            f"it needs the user's yes, and {self.unable}; use a client with elicitation, or have the server started "
            f"with --allow {request.tool}"
        )

    async def ask(self, waiting: Sequence[CallRecord]) -> dict[str, Decision]:
        """Ask for all calls that wait, in one form.

        Args:
            waiting: calls that wait for an ApprovalRequest or Unclear.

        Returns:
            A decision for each request's id; what gets no yes is refused. None at all if nobody could be asked.
        """
        lines, properties = [], {}
        for place, call in enumerate(waiting, 1):
            lines.append(f"{place}. {_written(call)}")
            choices = _UNCLEAR_CHOICES if isinstance(_request(call), Unclear) else _CHOICES
            properties[f"call_{place}"] = {
                "type": "string",
                "title": f"{place}. {call.tool}",
                "enum": list(choices),
                "enumNames": list(choices.values()),
                "default": _NO if isinstance(_request(call), Unclear) else _ONCE,
            }
        what = "this call" if len(waiting) == 1 else f"these {len(waiting)} calls"
        message = f"The program waits for your yes to {what}:\n" + "\n".join(lines)
        try:
            answer = await self._session.elicit_form(
                message, {"type": "object", "properties": properties}, related_request_id=self._request
            )
        except McpError as error:
            self.unable = f"the client could not ask for it: {error.error.message}"
            return {}
        content = (answer.content or {}) if answer.action == "accept" else None
        decisions = {}
        for place, call in enumerate(waiting, 1):
            field = f"call_{place}"
            chosen = _NO if content is None else content.get(field, properties[field]["default"])
            yes = chosen in properties[field]["enum"] and chosen != _NO
            if yes and chosen == _ALWAYS:
                self.always.add(call.tool)
            decisions[_request(call).id] = (
                Decision.approve() if yes else Decision.reject("the user said no to this call")
            )
        return decisions


class ClientJournal(Journal):
    """The journal of a program of a client, which knows what needs no question."""

    client: Client

    @classmethod
    def of(cls, client: Client, record: RunRecord | None = None) -> Self:
        """The journal of a new run, or of one that goes on."""
        journal = cls() if record is None else cls.continuing(record)
        journal.client = client
        return journal

    async def decide(self, request: ApprovalRequest | Unclear) -> Decision | None:
        """See `Journal.decide`."""
        decision = await super().decide(request)
        if decision is None and (decision := self.client.known(request)) is not None:
            self.decisions[request.id] = decision
        return decision


def asking(calls: Iterable[CallRecord], record: RunRecord) -> list[CallRecord]:
    """Those of the calls that wait for a decision, and for nothing else outside."""
    asked = {request.id for request in record.asked}
    reasons = ((call, call.pause.reason) for call in calls if call.pause is not None)
    return [call for call, why in reasons if isinstance(why, ApprovalRequest | Unclear) and why.id in asked]


def _request(call: CallRecord) -> ApprovalRequest | Unclear:
    assert call.pause is not None
    reason = call.pause.reason
    assert isinstance(reason, ApprovalRequest | Unclear)
    return reason


def _written(call: CallRecord) -> str:
    """A call as a person reads it, with all that it is about to do."""
    request = _request(call)
    arguments, why = call.arguments, "it began before, and may have taken effect"
    if isinstance(request, ApprovalRequest):
        arguments, why = request.arguments or call.arguments, request.why
    made = f"{call.tool}({written(arguments, _LONGEST_ARGUMENT)}), line {call.line}"
    return made if why == _ASKS else f"{made}: {why}"
