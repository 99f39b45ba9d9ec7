"""Owns the question whether a call may run: what is asked, and what each answer means.

Questions and answers have the shapes of LangChain's `HumanInTheLoopMiddleware` with ``interrupt_mode="per_call"``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypeAlias, Union

from langchain_core.tools import BaseTool, ToolException
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import interrupt
from pydantic import BaseModel, Discriminator, ValidatorFunctionWrapHandler, WrapValidator, create_model
from typing_extensions import TypedDict

from toolchord import ApprovalRequest, Decision
from toolchord.errors import ConfigurationError
from toolchord.results import shorten, shown
from toolchord.search import near

DECISIONS = ("approve", "edit", "reject", "respond")


class InterruptOn(TypedDict):
    """How calls of one tool are asked about.

    Attributes:
        allowed_decisions: some of approve, edit, reject, respond.
        description: what the reviewer is shown; a function of the request gives it.
        when: whether this call is asked about at all. It must say the same when the run is resumed.
    """

    allowed_decisions: list[Literal["approve", "edit", "reject", "respond"]]
    description: NotRequired[str | Callable[[ToolCallRequest], str]]
    when: NotRequired[Callable[[ToolCallRequest], bool]]


Asked: TypeAlias = Mapping[str, bool | InterruptOn | Mapping[str, Any]]
"""By tool name: True asks with every decision allowed, False does not ask."""


class RejectedError(ToolException):
    """A reviewer did not allow the call; a program can catch it."""


class Answered(NamedTuple):
    """The call was answered by a person instead of run."""

    value: Any


class Approvals:
    """Asks about calls before they run.

    Raises:
        ConfigurationError: a decision that is unknown, or none.
    """

    def __init__(self, interrupt_on: Asked | None) -> None:
        self._asked: dict[str, Mapping[str, Any]] = {}
        for name, asked in (interrupt_on or {}).items():
            if isinstance(asked, bool):
                if asked:
                    self._asked[name] = {"allowed_decisions": list(DECISIONS)}
                continue
            allowed = asked.get("allowed_decisions")
            if not allowed or not set(allowed) <= set(DECISIONS):
                raise ConfigurationError(
                    f"interrupt_on[{name!r}]: allowed_decisions must be some of {', '.join(DECISIONS)}, not {allowed!r}"
                )
            self._asked[name] = asked

    def check(self, names: set[str]) -> None:
        """ConfigurationError if a tool is to be asked about that there is not."""
        for name in self._asked.keys() - names:
            hint = "".join(f"; did you mean {other!r}?" for other in near(name, names, 1))
            raise ConfigurationError(f"interrupt_on names {name!r}, but there is no such tool{hint}")

    def ask(self, request: ToolCallRequest) -> ToolCallRequest | Answered:
        """The request to run, as a person may have edited it, or his own answer.

        Raises:
            GraphInterrupt: nobody has answered yet.
            RejectedError: the answer was no.
        """
        call = request.tool_call
        asked = self._asked.get(call["name"])
        if asked is None or (asked.get("when") is not None and not asked["when"](request)):
            return request
        question, answers = self._question(request, asked), _decision(asked["allowed_decisions"], request.tool)
        match interrupt(question, response_schema=answers):
            case {"type": "edit", "edited_action": {"args": args}}:
                return request.override(tool_call={**call, "args": args})
            case {"type": "reject", **rest}:
                reason = f": {rest['message']}" if rest.get("message") else ""
                raise RejectedError(f"a person did not allow this call of {call['name']}{reason}")
            case {"type": "respond", "message": message}:
                return Answered(message)
        return request

    @staticmethod
    def _question(request: ToolCallRequest, asked: Mapping[str, Any]) -> dict[str, Any]:
        call = request.tool_call
        description = asked.get("description")
        if callable(description):
            description = description(request)
        if description is None:
            description = f"A program wants to call {call['name']}{given(call['args'])}"
        return {
            "type": "tool_approval",
            "tool_call_id": call["id"],
            "name": call["name"],
            "args": call["args"],
            "description": description,
            "allowed_decisions": list(asked["allowed_decisions"]),
        }


def given(arguments: Mapping[str, Any]) -> str:
    """The arguments of a call, one in each line, as the end of a sentence."""
    lines = "".join(f"\n  {name} = {shorten(shown(value), 400)}" for name, value in arguments.items())
    return f":{lines}" if lines else "."


def ask_for_policy(request: ApprovalRequest, call_id: str) -> Decision:
    """Ask what a rule of a `Policy` wants to be asked; the answer as Toolchord's own.

    Raises:
        GraphInterrupt: nobody has answered yet.
    """
    question = {
        "type": "tool_approval",
        "tool_call_id": call_id,
        "name": request.tool.rpartition(".")[2],
        "args": request.arguments or {},
        "description": str(request),
        "allowed_decisions": list(DECISIONS),
    }
    match interrupt(question, response_schema=_decision(DECISIONS, None)):
        case {"type": "edit", "edited_action": {"args": args}}:
            return Decision.edit(args)
        case {"type": "reject", **rest}:
            return Decision.reject(str(rest.get("message") or ""))
        case {"type": "respond", "message": message}:
            return Decision.respond(message)
    return Decision.approve()


class Approve(TypedDict):
    """The call may run."""

    type: Literal["approve"]


class Reject(TypedDict):
    """The call may not run; the program gets an exception that says why."""

    type: Literal["reject"]
    message: NotRequired[str]


class Respond(TypedDict):
    """The call does not run; the program gets `message`, which may be any plain data."""

    type: Literal["respond"]
    message: Any


class Repeat(TypedDict):
    """It is not known whether the call took effect; it shall run again."""

    type: Literal["repeat"]


class GiveUp(TypedDict):
    """It is not known whether the call took effect; the program gets an exception."""

    type: Literal["give_up"]
    message: NotRequired[str]


def _decision(allowed: Iterable[str], tool: BaseTool | None) -> Any:
    """The type of an answer. langgraph checks the answer against it before it is saved."""
    kinds: dict[str, Any] = {"approve": Approve, "reject": Reject, "respond": Respond}
    if "edit" in allowed:
        kinds["edit"] = _edit(tool)
    members = tuple(kinds[kind] for kind in dict.fromkeys(allowed))
    return members[0] if len(members) == 1 else Annotated[Union[members], Discriminator("type")]  # noqa: UP007


def _edit(tool: BaseTool | None) -> Any:
    """The type of an edit: the tool stays the same, and the arguments fit what a program may give."""
    schema = None if tool is None else tool.tool_call_schema
    name: Any = str if tool is None else Literal[tool.name]
    arguments: Any = schema if isinstance(schema, type) and issubclass(schema, BaseModel) else dict[str, Any]
    action: Any = create_model("EditedAction", name=(name, ...), args=(arguments, ...))
    kind: Any = Literal["edit"]
    edit: Any = create_model("Edit", type=(kind, ...), edited_action=(action, ...))
    return Annotated[edit, WrapValidator(_as_sent)]


def _as_sent(answer: object, check: ValidatorFunctionWrapHandler) -> object:
    """Check an answer, but give it as it was sent: the tool checks and coerces its arguments once."""
    check(answer)
    return answer
