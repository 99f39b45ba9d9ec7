"""Owns the questions that a program's calls have for a person, and what the answers do.

A question is an `InputRequiredEvent`, an answer a `HumanResponseEvent`: LlamaIndex's own events with plain data in
them, so that they cross any transport. Each question bears the digest of its call's tool and arguments, and so does its
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

from llama_index.core.workflow import HumanResponseEvent, InputRequiredEvent
from pydantic_core import to_jsonable_python

from toolchord import CallIdentity, CallRecord, Catalogue, Tool, current_call
from toolchord.errors import CallPaused, ConfigurationError, ProgramError

Choice: TypeAlias = Literal["approve", "edit", "reject", "respond"]
Ask: TypeAlias = Iterable[str] | Callable[[Tool, Mapping[str, Any]], bool]
"""Full names of the tools whose calls need a person's yes, or what decides it for one call and its arguments."""

_CHOICES: tuple[Choice, ...] = ("approve", "edit", "reject", "respond")
_WORDS = {
    "approval": "Run {tool}({arguments})?",
    "unclear": "{tool}({arguments}) began before the program was cut off, and may have taken effect. Run it again?",
    "waiting": "{tool}({arguments}) waits for something outside. Call it again?",
}


class CallRejected(PermissionError):
    """A person said no to a call, or there is nobody who could be asked."""


class Question:
    """Why a call waits.

    Attributes:
        kind: ``approval``, ``unclear`` (it began before a crash), or ``waiting`` (the tool itself paused).
        call: which call.
        arguments: what it was called with.
    """

    def __init__(self, kind: str, call: CallIdentity, arguments: Mapping[str, Any]) -> None:
        self.kind = kind
        self.call = call
        self.arguments = arguments


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
            program with CallRejected, ``respond`` gives the program a value instead of running it.
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


class Answers:
    """The answers that a run of a program has, by the number of the call.

    Args:
        ask: which calls need a person's yes.
        given: what was answered so far, as it is kept.
        possible: whether there is anybody to ask.
    """

    def __init__(self, ask: Ask | None, given: Mapping[str, Mapping[str, Any]], *, possible: bool) -> None:
        self._ask = ask
        self._given = dict(given)
        self._possible = possible

    def __contains__(self, number: int) -> bool:
        return str(number) in self._given

    def decide(self, tool: Tool, arguments: dict[str, Any]) -> tuple[bool, Any]:
        """What becomes of the call that is served now.

        Returns:
            True and the arguments to run it with, or False and the value that the program gets.

        Raises:
            CallPaused: a person has to be asked.
            CallRejected: the call must not run.
        """
        call = current_call()
        assert call is not None
        known = self._given.get(str(call.number))
        if known is None or known["digest"] != call.digest:
            if not self._needed(tool, arguments):
                return True, arguments
            if not self._possible:
                raise CallRejected(f"{tool.full_name} needs a person's approval, and nobody can be asked here")
            raise CallPaused(Question("approval", call, arguments))
        match known["choice"]:
            case "edit":
                return True, tool.validate(tool.bind((), known["arguments"]))
            case "reject":
                raise CallRejected(known["message"] or f"a person rejected this call of {tool.full_name}")
            case "respond":
                return False, known["value"]
        return True, arguments

    async def unclear(self, call: CallIdentity) -> None:
        """Let a call run that may have run before, if a person said so; else it waits. Said once, it counts once."""
        known = self._given.get(str(call.number))
        if known is None or known["kind"] != "unclear" or known["digest"] != call.digest or known.get("used"):
            raise CallPaused(Question("unclear", call, {}))

    def _needed(self, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        if self._ask is None:
            return False
        return self._ask(tool, arguments) if callable(self._ask) else tool.full_name in self._ask


def question_of(call: CallRecord) -> Question | None:
    """The question of a paused call; None if it waits for an event of the workflow."""
    reason = call.pause.reason if call.pause is not None else None
    if not isinstance(reason, Question):
        return None
    return Question("unclear", reason.call, call.arguments) if reason.kind == "unclear" else reason


def asked(
    question: Question, tool_id: str, round: int, edited: Mapping[str, Any] | None, paths: Mapping[str, str]
) -> dict[str, Any]:
    """A question as it is kept, and as its event's fields.

    Args:
        question: the question.
        tool_id: the id of the tool call that runs the program.
        round: how often this call has been asked about, with this time.
        edited: arguments that a person gave it before.
        paths: how the program writes a tool, by its full name.
    """
    call = question.call
    arguments = to_jsonable_python(
        dict(question.arguments if edited is None else edited), bytes_mode="base64", fallback=str
    )
    name = paths.get(call.tool, call.tool)
    shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return {
        "prefix": _WORDS[question.kind].format(tool=name, arguments=shown),
        "request_id": f"{tool_id}:{call.number}" + (f"/{round}" if round > 1 else ""),
        "tool_id": tool_id,
        "call": call.number,
        "kind": question.kind,
        "tool_name": name,
        "tool_kwargs": arguments,
        "line": call.line,
        "digest": call.digest,
        "choices": list(_CHOICES),
        "round": round,
        "edited": edited is not None,
    }


def read_answer(
    event: Mapping[str, Any], asked: Mapping[str, Mapping[str, Any]], answers: Mapping[str, Any], catalogue: Catalogue
) -> tuple[str, dict[str, Any]] | str:
    """Check an answer.

    Args:
        event: the answer's fields; its request_id is that of a question in `asked`.
        asked: the questions by the number of the call.
        answers: what was answered before.
        catalogue: the tools.

    Returns:
        The number of the call and what is kept of the answer; or why it is not taken, empty if it came twice.
    """
    request_id = event.get("request_id", None)
    number, question = next((n, one) for n, one in asked.items() if one["request_id"] == request_id)
    choice, arguments = event.get("response", None), event.get("arguments", None)
    if event.get("digest", None) != question["digest"]:
        return "it is not bound to the call that was asked about: copy the question's digest, or use answer()"
    if choice not in _CHOICES:
        return f"its response is {choice!r}; choose one of {', '.join(_CHOICES)}"
    if choice == "approve" and question["edited"]:
        choice, arguments = "edit", question["tool_kwargs"]
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
    return number, kept


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
