"""Owns the loop around any model: it writes a program, the program runs, its result or its repair goes back.

A model is a function of messages (`toolchord.chat`). What it is told never changes from turn to turn, messages are only
added. A program that fails is sent back with what is wrong and what already happened; its corrected version gets the
calls that it makes again from the record, so nothing runs twice.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from toolchord.approvals import Decision
from toolchord.catalogue import Catalogue, Source
from toolchord.chat import Message, ModelFunction, Reply, ToolRequest, ask, offers_tools
from toolchord.choice import Choice, Way, choose
from toolchord.errors import ConfigurationError
from toolchord.extraction import extract_program, program_in_arguments
from toolchord.identity import CallIdentity
from toolchord.instructions import PROGRAM_TOOL, RUN_CODE, instructions
from toolchord.journal import Journal
from toolchord.ledger import RunLedger
from toolchord.limits import Limits
from toolchord.native.results import ModelRun, TokenUsage, count
from toolchord.observing import TaskNote, seen
from toolchord.plaincalls import PlainCalls
from toolchord.prompt import format_tools_for_llm
from toolchord.results import CallRecord, ExecutionResult, Watch
from toolchord.sandbox import CodeSandbox
from toolchord.tools import waited
from toolchord.trace import Trace

__all__ = ["Attempt", "OrchestratedRun", "Orchestrator"]

Native = Callable[[list[Message]], Awaitable[ModelRun]]

Stop = Literal["answered", "value", "turns", "repairs", "paused"]

_NO_PROGRAM = (
    "There is no program in what you sent. Call run_code with one argument, code: the text of a Python program."
)
_EMPTY = "Your answer was empty. Write a program, or give the answer in plain words."
_AGAIN = (
    "Send the whole program again, corrected. Calls that it makes again with the same arguments are answered from the "
    "record and do not run twice."
)


@dataclass(frozen=True)
class Attempt:
    """A program that the model wrote, and what came of it."""

    code: str
    result: ExecutionResult


@dataclass
class OrchestratedRun:
    """What came of a task.

    Attributes:
        text: the model's answer; with ``stop="value"`` the program's value as text.
        stop: ``"answered"``, ``"value"`` (the last program's value was all that was wanted), ``"repairs"`` (too many
            programs failed in a row), ``"turns"`` (too many turns), ``"paused"`` (a call waits for something outside).
        choice: which way was taken, and why.
        attempts: every program, in order.
        plain_calls: every call that the model made without a program.
        messages: the conversation; give it to another `run` to go on with it.
        turns: how often the model was asked.
        usage: tokens of all turns, None if the model never told.
        native: with ``choice.way == "native"``, all that the provider's loop left.
    """

    choice: Choice
    messages: list[Message]
    text: str = ""
    stop: Stop = "answered"
    attempts: list[Attempt] = field(default_factory=list)
    plain_calls: list[CallRecord] = field(default_factory=list)
    turns: int = 0
    usage: TokenUsage | None = None
    native: ModelRun | None = field(default=None, repr=False)
    _waiting: list[ToolRequest] = field(default_factory=list, repr=False)  # not answered yet, the paused one first
    _journal: Journal | None = field(default=None, repr=False)
    _paused: list[ExecutionResult] = field(default_factory=list, repr=False)  # what a later attempt went on with

    @property
    def ok(self) -> bool:
        """Whether there is an answer, and the last program, if any, came to its end."""
        done = self.stop in ("answered", "value")
        return done and (not self.attempts or self.attempts[-1].result.ok)

    @property
    def result(self) -> ExecutionResult | None:
        """What the last program left, None if there was none."""
        return self.attempts[-1].result if self.attempts else None

    @property
    def value(self) -> Any:
        """The value of the last program that came to its end; None if there is none."""
        done = [attempt.result.value for attempt in self.attempts if attempt.result.ok]
        return done[-1] if done else None

    def traces(self, *, count: Callable[[str], int] | None = None) -> list[Trace]:
        """Its programs as a person sees them, see `ExecutionResult.trace`; `toolchord.timeline.page` shows them all."""
        return [attempt.result.trace(count=count) for attempt in self.attempts]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from toolchord.notebook import bundle

        return bundle(self.traces(), answer=self.text)

    def ledger(self, *, count: Callable[[str], int] | None = None) -> RunLedger:
        """What its programs came to together, see `ExecutionResult.ledger`; `turns` and `usage` are the model's.

        A model that calls tools itself, and makes no mistake, makes the calls of a corrected program only.
        """
        ledgers = [attempt.result.ledger(count=count) for attempt in self.attempts]
        for attempt, ledger in list(zip(self.attempts, ledgers, strict=True))[:-1]:
            if not attempt.result.ok:
                ledger.plain_tokens = ledger.plain_turns = 0
                for one in ledger.tools:
                    one.tokens = 0
        whole = RunLedger.total(ledgers)
        whole.finished = self.result is None or self.result.ok
        whole.money += math.fsum(result.ledger(count=count).money for result in self._paused)
        return whole

    @property
    def pending(self) -> list[CallRecord]:
        """The calls that wait for something outside."""
        return self.result.pending if self.stop == "paused" and self.result is not None else []


class Orchestrator:
    """Runs tasks with a model and tools.

    Args:
        model: a function of messages; see `toolchord.chat`.
        sandbox: where programs run.
        tools: what there is to call; None: all that the sandbox has.
        system: your own instructions for the model; they come first.
        model_name: helps to choose a way; by default the model's own ``name``.
        way: the way to go, instead of the choice that `toolchord.choice.choose` makes.
        native: runs a conversation with programs at the model's provider, such as ``lambda messages:
            run_anthropic(client, tools, messages, model="...")``; without it that way is not taken.
        local_only: results of tools must not reach the model before a program has worked on them.
        finish: ``"answer"``: the model has the last word. ``"value"``: the value of the first program that comes to its
            end is the answer, which saves a turn.
        max_turns: how often the model is asked in one run, at most.
        max_repairs: how many programs may fail in a row before the run gives up, the first one not counted.
        max_prompt_tokens: an approximate bound for the description of the tools.
        max_chars: the length of one result as the model reads it, at most.
        limits: what one program may spend; None: the sandbox's own.
        repeat_failed: see `Journal`.

    Raises:
        ConfigurationError: arguments that make no sense, or a way that is not possible.

    Examples:
        >>> def model(messages):  # yours asks a language model
        ...     return "```python\\nreturn price('pear') * 3\\n```" if len(messages) == 2 else "That is 2.4 euros."
        >>> def price(item: str) -> float:
        ...     return {"apple": 0.5, "pear": 0.8}[item]
        >>> with CodeSandbox(tools=[price]) as sandbox:
        ...     run = Orchestrator(model, sandbox).run_sync("What do three pears cost?")
        >>> run.text, run.turns
        ('That is 2.4 euros.', 2)
    """

    def __init__(
        self,
        model: ModelFunction,
        sandbox: CodeSandbox,
        tools: Source = None,
        *,
        system: str = "",
        model_name: str = "",
        way: Way | None = None,
        native: Native | None = None,
        local_only: bool = False,
        finish: Literal["answer", "value"] = "answer",
        max_turns: int = 12,
        max_repairs: int = 3,
        max_prompt_tokens: int | None = None,
        max_chars: int = 20_000,
        limits: Limits | None = None,
        repeat_failed: bool = False,
    ) -> None:
        if not callable(model):
            raise ConfigurationError(f"model must be a function of messages, not {type(model).__name__}")
        if finish not in ("answer", "value"):
            raise ConfigurationError(f'finish must be "answer" or "value", not {finish!r}')
        if max_turns < 1 or max_repairs < 0 or max_chars < 1:
            raise ConfigurationError("max_turns and max_chars must be positive, max_repairs must not be negative")
        self._model = model
        self._sandbox = sandbox
        self._tools = sandbox.catalogue() if tools is None else tools
        self._system = system
        self._offers = offers_tools(model)
        self._finish = finish
        self._max_turns, self._max_repairs, self._max_chars = max_turns, max_repairs, max_chars
        self._max_prompt_tokens = max_prompt_tokens
        self._limits = limits
        self._repeat_failed = repeat_failed
        self._name = name = model_name or getattr(model, "name", "")
        self._native = native
        self.choice = choose(
            self._tools,
            model=name,
            calls_tools=self._offers,
            native=native is not None,
            local_only=local_only,
            way=way,
        )

    async def run(self, task: str | Sequence[Message], *, watch: Watch | None = None) -> OrchestratedRun:
        """Do a task.

        Args:
            task: the user's words, or a conversation to go on with (an earlier run's `messages` and a new one).
            watch: told of each program's output and calls while it runs.

        Raises:
            Exception: whatever the model raises; it should retry what can be retried.
        """
        note = self._note()
        with seen(note), self._conversation(watch) as conversation:
            begin = conversation.native if self.choice.way == "native" else conversation.begin
            note.run = await begin(task)
            return note.run

    async def resume(
        self, run: OrchestratedRun, decisions: Mapping[str, Decision] | None = None, *, watch: Watch | None = None
    ) -> OrchestratedRun:
        """Go on with a run that is paused: its program runs again, and gets what already happened from the record.

        Args:
            run: the paused run.
            decisions: what was answered to the requests of a policy, by their id: the ``pause.reason.id`` of the calls
                in `OrchestratedRun.pending`. A stale one does nothing.
            watch: see `run`.

        Raises:
            ConfigurationError: the run is not paused.
        """
        if run.stop != "paused" or run._journal is None:
            raise ConfigurationError(f'only a paused run is resumed; this one ended with stop="{run.stop}"')
        usage = run.usage or TokenUsage()
        note = self._note(run.turns, usage.input_tokens, usage.output_tokens)
        with seen(note), self._conversation(watch) as conversation:
            note.run = await conversation.resume(run, decisions or {})
            return note.run

    def _note(self, turns: int = 0, read: int = 0, written: int = 0) -> TaskNote:
        """A task for those who look on."""
        return TaskNote(self._name, self.choice.way, (turns, read, written))

    @contextmanager
    def _conversation(self, watch: Watch | None) -> Iterator[_Conversation]:
        direct = Catalogue.of(self._tools, caller="direct")
        plain = PlainCalls(direct, self.choice.plain_tools, self._sandbox.limits.concurrency)
        try:
            yield _Conversation(self, plain, watch)
        finally:
            plain.close()

    def run_sync(self, task: str | Sequence[Message], *, watch: Watch | None = None) -> OrchestratedRun:
        """`run` for code that is not asynchronous; works inside a running event loop too (and blocks it)."""

        run: OrchestratedRun = waited(self.run(task, watch=watch))
        return run


class _Conversation:
    """One run."""

    def __init__(self, owner: Orchestrator, plain: PlainCalls, watch: Watch | None) -> None:
        self._owner = owner
        self._catalogue = Catalogue.of(owner._tools)
        self._plain = plain
        self._programs = owner.choice.way == "sandbox"
        self._watch = watch
        self._before: Journal | None = None  # of the version of the program that failed
        self._failed = 0
        self._told_empty = False
        offered = [*([PROGRAM_TOOL] if self._programs else []), *plain.definitions]
        self._offered = offered if owner._offers else None

    def _opening(self, task: str | Sequence[Message]) -> list[Message]:
        owner = self._owner
        if isinstance(task, str):
            given: list[Message] = [{"role": "user", "content": task}]
        else:
            given = [dict(message) for message in task]
            if not given or not all("role" in message for message in given):
                raise ConfigurationError("a conversation is a list of messages with a role; give at least one")
            if given[0]["role"] == "system":
                return given  # it is gone on with: what was told before must stay as it was
        system = owner._system
        if self._programs:
            stubs = format_tools_for_llm(
                self._catalogue, max_tokens=owner._max_prompt_tokens, shapes=owner._sandbox.shapes
            )
            system = instructions(stubs, tool=owner._offers, plain=bool(owner.choice.plain_tools), system=system)
        return [*([{"role": "system", "content": system}] if system else []), *given]

    async def begin(self, task: str | Sequence[Message]) -> OrchestratedRun:
        run = OrchestratedRun(self._owner.choice, self._opening(task), plain_calls=self._plain.calls)
        return await self._go(run)

    async def native(self, task: str | Sequence[Message]) -> OrchestratedRun:
        """Let the provider's own loop do it."""
        given = self._opening(task)
        assert self._owner._native is not None
        done = await self._owner._native([message for message in given if message["role"] != "system"])
        return OrchestratedRun(
            self._owner.choice,
            [*given, {"role": "assistant", "content": done.text}],
            text=done.text,
            stop="paused" if done.stop_reason == "paused" else "answered",
            turns=done.requests,
            usage=done.usage,
            native=done,
        )

    async def resume(self, run: OrchestratedRun, decisions: Mapping[str, Decision]) -> OrchestratedRun:
        assert run._journal is not None
        journal = Journal.continuing(run._journal, **self._rules())
        for name, decision in decisions.items():
            journal.answer(name, decision)
        self._plain.calls = run.plain_calls
        paused = run.attempts.pop()
        run._paused.append(paused.result)
        waiting = run._waiting
        text, stop = await self._execute(run, paused.code, journal)
        if stop != "paused":
            run.messages.append(_told(text, waiting[0] if waiting else None))
            stop = stop or await self._serve_all(run, waiting[1:])
        run.stop = stop or run.stop
        return run if stop is not None else await self._go(run)

    async def _go(self, run: OrchestratedRun) -> OrchestratedRun:
        owner = self._owner
        while run.turns < owner._max_turns:
            reply = await ask(owner._model, run.messages, self._offered)
            run.turns += 1
            if reply.usage is not None:
                run.usage = run.usage or TokenUsage()
                count(run.usage, **asdict(reply.usage))
            run.messages.append(reply.as_message())
            stop = await self._answer(run, reply)
            if stop is not None:
                run.stop = stop
                return run
        run.stop = "turns"
        return run

    async def _answer(self, run: OrchestratedRun, reply: Reply) -> Stop | None:
        """Do what a reply asks for; why the run ends, or None."""
        if reply.calls:
            return await self._serve_all(run, list(reply.calls))
        run.text = reply.text
        code = extract_program(reply.text) if self._programs else None
        if code is None or (run.attempts and run.attempts[-1].result.ok and code == run.attempts[-1].code):
            if reply.text.strip() or self._told_empty:
                return "answered"  # a program that is shown once more, for explanation, does not run once more
            self._told_empty = True
            run.messages.append({"role": "user", "content": _EMPTY})
            return None
        text, stop = await self._execute(run, code)
        if stop == "paused":
            run._waiting = []
        else:
            run.messages.append(_told(text, None))
        return stop

    async def _serve_all(self, run: OrchestratedRun, requests: list[ToolRequest]) -> Stop | None:
        """Answer every call that a reply asks for; why the run ends with them, or None."""
        stop: Stop | None = None
        for position, request in enumerate(requests):
            text, ended = await self._serve(run, request)
            if ended == "paused":
                run._waiting = requests[position:]
                return ended
            run.messages.append(_told(text, request))
            stop = stop or ended
        return stop

    async def _serve(self, run: OrchestratedRun, request: ToolRequest) -> tuple[str, Stop | None]:
        if request.name == RUN_CODE and self._programs:
            code = program_in_arguments(request.arguments)
            return (_NO_PROGRAM, None) if code is None else await self._execute(run, code)
        if self._programs and request.name not in self._plain and self._catalogue.resolve(request.name) is not None:
            return f"{request.name} is called from a program only: send one to run_code that calls it.", None
        return await self._plain.serve(request, self._owner._max_chars), None

    def _rules(self) -> dict[str, Any]:
        return {"unclear": _not_again, "repeat_failed": self._owner._repeat_failed}

    def _next_journal(self) -> Journal:
        """The next program's: a corrected one repeats nothing that its failed version did."""
        before = self._before
        return Journal(**self._rules()) if before is None else Journal.repairing(before, **self._rules())

    async def _execute(
        self, run: OrchestratedRun, code: str, journal: Journal | None = None
    ) -> tuple[str, Stop | None]:
        """Run a program; what the model is told, and why the run ends with it, if it does."""
        owner = self._owner
        run._journal = self._before = journal = journal or self._next_journal()
        result = await owner._sandbox.execute(
            code, self._catalogue, limits=owner._limits, journal=journal, watch=self._watch
        )
        run.attempts.append(Attempt(code, result))
        text = result.for_model(owner._max_chars)
        if result.ok:
            self._before = None  # what comes next is new work
            self._failed = 0
            if owner._finish == "value":
                run.text = text
                return text, "value"
            return (text if owner._offers else f"The program returned:\n{text}"), None
        assert result.error is not None
        if result.error.kind == "paused":
            return text, "paused"
        self._failed += 1
        if self._failed > owner._max_repairs:
            return text, "repairs"
        return f"{text}\n\n{_AGAIN}", None


async def _not_again(call: CallIdentity) -> Decision:
    """Of a call that began in an earlier version of a program, and left no outcome."""
    return Decision.reject(
        "the same call began in an earlier version of this program, and it is not known how it ended. It is not "
        "repeated; find out by other means what happened, or go on without it"
    )


def _told(text: str, request: ToolRequest | None) -> Message:
    """A message to the model: the answer to its call, or words."""
    if request is None:
        return {"role": "user", "content": text}
    return {"role": "tool", "tool_call_id": request.id, "content": text}
