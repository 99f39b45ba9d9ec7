"""Owns the questions that a program's calls have for a person, and what the answers do.

A question is an `InputRequiredEvent`, an answer a `HumanResponseEvent`: LlamaIndex's own events with plain data in
them, so that they cross any transport. Each question bears the digest of its call's tool and arguments, and so does its
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from llama_index.core.workflow import HumanResponseEvent, InputRequiredEvent
from pydantic_core import to_jsonable_python

from toolchord import (
    ApprovalRequest,
    CallRecord,
    Catalogue,
    Decision,
    Journal,
    Policy,
    Tool,
    Unclear,
    current_call,
)
from toolchord import ask as asking
from toolchord.errors import CallDenied, ConfigurationError, ProgramError
from toolchord.policy import Rule

Choice: TypeAlias = Literal["approve", "edit", "reject", "respond"]
Ask: TypeAlias = Iterable[str] | Callable[[Tool, Mapping[str, Any]], bool]
"""Full names of the tools whose calls need a person's yes, or what decides it for one call and its arguments."""

_CHOICES: tuple[Choice, ...] = ("approve", "edit", "reject", "respond")
_WORDS = {
    "approval": "Run {tool}({arguments})?",
    "unclear": "{tool}({arguments}) began before the program was cut off, and may have taken effect. Run it again?",
    "waiting": "{tool}({arguments}) waits for something outside. Call it again?",
}


@dataclass(frozen=True, kw_only=True)
class _Asks(Rule):
    """A rule whose predicate is told of the tool too."""

    decides: Callable[[Tool, Mapping[str, Any]], bool]

    def matches(self, tool: Tool, caller: str, arguments: Mapping[str, Any]) -> bool:
        """See `Rule`."""
        return bool(self.decides(tool, arguments))


def policy_of(ask: Ask) -> Policy:
    """The policy that asks about some calls, and lets all others run."""
    if callable(ask):
        return Policy(_Asks(verdict="ask", decides=ask), otherwise="allow")
    return Policy(*map(asking, ask), otherwise="allow")


class NobodyToAsk(Journal):
    """The journal of a run in which nobody can be asked: what needs a yes is refused."""

    async def decide(self, request: ApprovalRequest | Unclear) -> Decision | None:
        """See `Journal.decide`."""
        decision = await super().decide(request)
        if decision is None:
            decision = Decision.reject("it needs a person's approval, and nobody can be asked here")
            self.decisions[request.id] = decision
        return decision


class Waits:
    """Why a call waits whose tool paused it: something outside must happen first."""


def answer(
    question: Mapping[str, Any] | InputRequiredEvent,
    choice: Choice = "approve",
    *,
    arguments: Mapping[str, Any] | None = None,
    message: str | None = None,
    value: Any = None,
) -> HumanResponseEvent:
    """Make the answer to a program's question; send it with ``handler.ctx.send_event``.

    Args:
        question: the `InputRequiredEvent`, or its fields.
        choice: ``approve`` runs the call, ``edit`` runs it with other arguments, ``reject`` makes it fail in the
            program with CallDenied, ``respond`` gives the program a value instead of running it.
        arguments: all arguments of the call, for ``edit``.
        message: why, for ``reject``.
        value: plain JSON data, for ``respond``.

    Raises:
        ConfigurationError: it is no question of a program, or the choice lacks what it needs.
    """
    fields = {name: question.get(name, None) for name in ("request_id", "digest")}
    if not all(isinstance(text, str) for text in fields.values()):
        raise ConfigurationError("this is no question of a program: it has no request_id and digest")
    if choice not in _CHOICES:
        raise ConfigurationError(f"unknown choice {choice!r}; use one of {', '.join(_CHOICES)}")
    if (choice == "edit") != (arguments is not None):
        raise ConfigurationError("arguments= and the choice 'edit' go together")
    return HumanResponseEvent(
        response=choice,
        **fields,
        arguments=None if arguments is None else dict(arguments),
        message=message,
        value=to_jsonable_python(value),
    )


def resumed(tool: Tool, answer: Mapping[str, Any] | None) -> tuple[bool, Any]:
    """What becomes of the call that is served now, if its tool had paused it.

    Args:
        tool: the tool.
        answer: what is kept of the answer to that call's last question.

    Returns:
        False and None if the tool is to run, or True and the value that the program gets.

    Raises:
        CallDenied: it must not be called again.
    """
    call = current_call()
    assert call is not None
    if answer is None or answer["kind"] != "waiting" or answer["digest"] != call.digest:
        return False, None
    if answer["choice"] == "reject":
        raise CallDenied(": ".join(filter(None, (f"{tool.full_name} was refused", answer["message"]))), tool=tool.name)
    return answer["choice"] == "respond", answer["value"]


def asked(
    call: CallRecord, tool_id: str, before: Mapping[str, Any] | None, used: Mapping[str, Any] | None, name: str
) -> dict[str, Any] | None:
    """The question that a paused call has for a person, as it is kept, and as its event's fields.

    Args:
        call: the call.
        tool_id: the id of the tool call that runs the program.
        before: the last question about this call.
        used: the answer to that, if this attempt knew of it.
        name: how the program writes the tool.

    Returns:
        None if that very question is open, or the call waits for no person.
    """
    reason = call.pause.reason if call.pause is not None else None
    edited = _edited(call, before, used)
    given, why, expires = edited or call.arguments, "", None
    match reason:
        case ApprovalRequest():
            kind, request, why, expires = "approval", reason.id, reason.why, reason.expires
            given, edited = reason.arguments or call.arguments, None
        case Unclear():
            kind, request = "unclear", reason.id
        case Waits():
            kind, request = "waiting", f"{call.id}:{call.digest}:waiting"
        case _:
            return None
    if before is not None and before["request"] == request and (kind != "waiting" or used is None):
        return None
    arguments = to_jsonable_python(dict(given), bytes_mode="base64", fallback=str)
    shown = ", ".join(f"{key if key.isidentifier() else repr(key)}={value!r}" for key, value in arguments.items())
    round = before["round"] + 1 if before is not None else 1
    return {
        "prefix": _WORDS[kind].format(tool=name, arguments=shown),
        "request_id": f"{tool_id}:{call.id}" + (f"/{round}" if round > 1 else ""),
        "tool_id": tool_id,
        "call": call.id,
        "kind": kind,
        "tool_name": name,
        "tool_kwargs": arguments,
        "line": call.line,
        "digest": call.digest,
        "choices": [choice for choice in _CHOICES if choice != "edit" or kind == "approval"],
        "why": why,
        "expires": expires,
        "request": request,
        "round": round,
        "edited": edited is not None,
    }


def _edited(
    call: CallRecord, before: Mapping[str, Any] | None, used: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The arguments that a person gave a call before it began."""
    if before is None or before["digest"] != call.digest:
        return None
    if used is not None and used["choice"] == "edit":
        arguments: Mapping[str, Any] = used["arguments"]
        return arguments
    return before["tool_kwargs"] if before["edited"] else None


def read_answer(
    event: Mapping[str, Any], asked: Mapping[str, Mapping[str, Any]], answers: Mapping[str, Any], catalogue: Catalogue
) -> tuple[str, dict[str, Any], Decision] | str:
    """Check an answer.

    Args:
        event: the answer's fields; its request_id is that of a question in `asked`.
        asked: the questions by the number of the call.
        answers: what was answered before.
        catalogue: the tools.

    Returns:
        The number of the call, what is kept of the answer, and the decision; or why it is not taken, empty if it came
        twice.
    """
    request_id = event.get("request_id", None)
    number, question = next((n, one) for n, one in asked.items() if one["request_id"] == request_id)
    choice, arguments = event.get("response", None), event.get("arguments", None)
    if event.get("digest", None) != question["digest"]:
        return "it is not bound to the call that was asked about: copy the question's digest, or use answer()"
    if choice not in question["choices"]:
        return f"its response is {choice!r}; choose one of {', '.join(question['choices'])}"
    kept = {
        "choice": choice,
        "arguments": arguments,
        "message": event.get("message", None),
        "value": event.get("value", None),
        "digest": question["digest"],
        "kind": question["kind"],
    }
    if number in answers:
        same = {name: answers[number][name] for name in kept} == kept
        return "" if same else "it was answered before, and that answer counts"
    if choice == "edit" and (wrong := _misfit(catalogue, question["tool_name"], arguments)):
        return wrong
    try:
        return number, kept, _decision(choice, kept)
    except ConfigurationError as error:
        return str(error)


def _decision(choice: Choice, kept: Mapping[str, Any]) -> Decision:
    match choice:
        case "edit":
            return Decision.edit(kept["arguments"])
        case "reject":
            return Decision.reject(str(kept["message"] or ""))
        case "respond":
            return Decision.respond(kept["value"])
    return Decision.approve()


def _misfit(catalogue: Catalogue, name: str, arguments: Any) -> str | None:
    """Why a call can't be made with these arguments."""
    if not isinstance(arguments, dict):
        return "an edit needs all arguments of the call, as a dict"
    exposed = catalogue.resolve(name)
    if exposed is None:
        return catalogue.explain(name)
    try:
        exposed.tool.validate(exposed.tool.bind((), arguments))
    except ProgramError as error:
        return f"the edited arguments don't fit: {error}"
    return None
