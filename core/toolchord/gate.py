"""Owns the gate that every call of one run passes before its tool runs: policy, decisions, and the dry run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from toolchord.approvals import ApprovalRequest, Decision
from toolchord.errors import CallPaused, InvalidArguments
from toolchord.identity import CallIdentity
from toolchord.journal import Journal, request_id
from toolchord.policy import Judge, Policy, Rule
from toolchord.recording import Outcome, refusal
from toolchord.tools import Tool, ToolCapability
from toolchord_guest.values import Encoder


class Made(Protocol):
    """What the gate looks at of a call that was made: `dispatch.Prepared`."""

    @property
    def tool(self) -> Tool | None: ...
    @property
    def arguments(self) -> dict[str, Any]: ...
    @property
    def own(self) -> bool: ...


class Gate:
    """Lets calls through, keeps them waiting, or answers them itself.

    Args:
        policy: the rules; None lets everything through.
        journal: where requests and decisions are.
        caller: who calls, for the rules.
        dry_run: calls that may change something are held back and answered with a stand-in.
    """

    def __init__(
        self, policy: Policy | None, journal: Journal, *, caller: str = "sandbox", dry_run: bool = False
    ) -> None:
        self._judge = None if policy is None else Judge(policy, caller)
        self._journal = journal
        self._dry_run = dry_run
        if self._judge is not None:
            for request, decision in journal.answered():
                if decision.within is not None:
                    self._judge.grant_line(request.tool, request.line, decision.within)

    @property
    def counts(self) -> bool:
        """Whether there is a policy, which may look at all calls together."""
        return self._judge is not None

    def count(self, call: CallIdentity, made: Made) -> None:
        """A call has run, or may have: it counts, whatever the policy would say today."""
        tool, arguments = made.tool, made.arguments
        if self._judge is None or tool is None or made.own:
            return
        decision = self._journal.decision_about(call)
        try:
            if decision is not None and decision.kind == "edit":
                arguments = tool.bind((), decision.value)
            checked = tool.validate(dict(arguments))
        except InvalidArguments:
            return
        self._judge.judge(call, tool, _whole(tool, checked), decided=decision is not None)

    def forget(self, number: int) -> None:
        """A call did not run after all."""
        if self._judge is not None:
            self._judge.forget(number)

    async def admit(
        self, call: CallIdentity, tool: Tool, sent: dict[str, Any], arguments: dict[str, Any]
    ) -> dict[str, Any] | Outcome:
        """The arguments with which a call may run, or what it gives without running.

        Args:
            call: which one.
            tool: its tool.
            sent: the arguments as the program sent them, by parameter name.
            arguments: the same, checked and coerced.

        Raises:
            CallPaused: somebody must be asked.
            InvalidArguments: edited arguments don't fit the tool.
        """
        if self._judge is not None:
            verdict, why, rule = self._judge.judge(
                call, tool, _whole(tool, arguments), decided=self._journal.decision_about(call) is not None
            )
            if verdict == "deny":
                return self._refused(call, why)
            if verdict == "ask" and not self._holds(tool):
                decision = await self._journal.decide(_request(call, tool, sent, why, rule))
                if decision is None:
                    raise CallPaused(self._journal.asked_about(call))
                answer = self._decided(call, tool, arguments, decision)
                if isinstance(answer, Outcome):
                    return answer
                arguments = answer
        if self._holds(tool):
            return _held(call, tool)
        return arguments

    def _holds(self, tool: Tool) -> bool:
        return self._dry_run and ToolCapability.READ_ONLY not in tool.metadata.capabilities

    def _decided(
        self, call: CallIdentity, tool: Tool, arguments: dict[str, Any], decision: Decision
    ) -> dict[str, Any] | Outcome:
        if decision.kind == "approve":
            return arguments
        if decision.kind == "edit":
            edited = tool.validate(tool.bind((), decision.value))
            assert self._judge is not None
            verdict, why, _ = self._judge.judge(call, tool, _whole(tool, edited), decided=True)
            return self._refused(call, f"as edited: {why}") if verdict == "deny" else edited
        if decision.kind == "respond":
            self.forget(call.number)
            return Outcome(call.number, call.digest, True, decision.body, occurrence=call.occurrence, ran=False)
        return self._refused(call, decision.message)

    def _refused(self, call: CallIdentity, why: str) -> Outcome:
        self.forget(call.number)
        return refusal(call, why)


def _whole(tool: Tool, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments with the declared defaults of those that were left out, for rules to look at."""
    properties = (tool.metadata.argument_schema or {}).get("properties", {})
    defaults = {name: sub["default"] for name, sub in properties.items() if isinstance(sub, dict) and "default" in sub}
    return {**defaults, **arguments}


def _request(call: CallIdentity, tool: Tool, sent: dict[str, Any], why: str, rule: Rule | None) -> ApprovalRequest:
    now = time.time()
    return ApprovalRequest(
        id=request_id(call),
        number=call.number,
        tool=tool.full_name,
        line=call.line,
        why=why,
        asked=now,
        expires=None if rule is None or rule.expires is None else now + rule.expires,
        body=b"" if tool.metadata.replay == "never" else Encoder().encode(sent),
    )


def _held(call: CallIdentity, tool: Tool) -> Outcome:
    """The answer to a write in a dry run: the smallest value of the declared shape, else None."""
    body = Encoder().encode(_sample(tool.metadata.result_schema or {}))
    return Outcome(call.number, call.digest, True, body, occurrence=call.occurrence, ran=False, held=True)


def _sample(schema: Mapping[str, Any], depth: int = 0) -> Any:
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" and depth < 10:
        properties = schema.get("properties") or {}
        wanted = schema.get("required") or ()
        return {name: _sample(sub, depth + 1) for name, sub in properties.items() if name in wanted}
    return {"string": "", "integer": 0, "number": 0.0, "boolean": False, "array": []}.get(str(kind))
