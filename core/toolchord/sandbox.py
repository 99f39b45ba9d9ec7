"""The front door: run a model's program behind two walls, with the tools as ordinary functions."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

import msgspec

from toolchord.callsites import stubs_of
from toolchord.catalogue import Catalogue
from toolchord.channel import Channel
from toolchord.errors import ConfigurationError, SandboxClosed
from toolchord.gate import Gate
from toolchord.journal import Journal
from toolchord.limits import Limits
from toolchord.observed import ShapeStore
from toolchord.observing import RunNote, guest_wanted, seen
from toolchord.policy import Policy
from toolchord.pool import GuestLimits, Isolation, IsolationReport, Pool
from toolchord.preparation import MANY, Prepared, encoded, unreadable
from toolchord.recording import RunRecord
from toolchord.registry import ToolRegistry
from toolchord.results import ExecutionResult, RunError, Watch
from toolchord.tools import Tool
from toolchord.variables import Variables

Tools = ToolRegistry | Catalogue | Tool | Mapping[str, Any] | Iterable[Any] | None
Language = Literal["restricted", "unrestricted"]


class CodeSandbox:
    """Runs programs that call tools; each program in a fresh, confined process.

    Args:
        registry: where tools live; None for no tools but those of `tools`.
        tools: what programs may call: a registry, names in `registry`, Tool objects or plain callables. None: all of
            `registry` that is open to the sandbox.
        limits: what one run may spend.
        policy: which calls may run, for programs whose `execute` names no other; None: all of them.
        isolation: "auto" gives wall two in full or refuses; "process" is a separate process with limits and no
            boundary against hostile code.
        language: "restricted" is wall one; "unrestricted" drops it, to prove that wall two holds alone.
        shapes: learns what tools give that declare no result; `format_tools_for_llm` and `describe_tool` tell it.

    Raises:
        ConfigurationError: arguments that make no sense.

    Use it as an async context manager, or call `close`; a forgotten one is closed at exit.

    Examples:
        >>> def price(item: str) -> float:
        ...     return {"apple": 0.5, "pear": 0.8}[item]
        >>> with CodeSandbox(tools=[price]) as sandbox:
        ...     result = sandbox.execute_sync("return sorted(['pear', 'apple'], key=price)")
        >>> result.value, [call.tool for call in result.calls]
        (['apple', 'pear'], ['default.price', 'default.price'])
    """

    def __init__(
        self,
        registry: ToolRegistry | None = None,
        *,
        tools: Tools = None,
        limits: Limits | None = None,
        policy: Policy | None = None,
        isolation: Isolation = "auto",
        language: Language = "restricted",
        shapes: ShapeStore | None = None,
    ) -> None:
        if isolation not in ("auto", "process"):
            raise ConfigurationError(f'isolation must be "auto" or "process", not {isolation!r}')
        if language not in ("restricted", "unrestricted"):
            raise ConfigurationError(f'language must be "restricted" or "unrestricted", not {language!r}')
        if language == "unrestricted" and isolation != "auto":
            raise ConfigurationError('language="unrestricted" needs wall two in full: isolation="auto"')
        if registry is not None and not isinstance(registry, ToolRegistry):
            raise ConfigurationError(
                f"registry must be a ToolRegistry, not {type(registry).__name__}; pass tools=[...]"
            )
        self.limits = _limits(limits, Limits())
        self.policy = _policy(policy, None)
        self.shapes = shapes
        self._registry = registry
        self._tools: Tools = None
        self._tools = self._read_once(tools)
        self._language: Language = language
        self._isolation = isolation
        self._pool = Pool(isolation, unrestricted=language == "unrestricted", usual=_kernel_limits(self.limits))
        self._catalogue(None)  # a wrong tool is better told now

    async def execute(
        self,
        code: str,
        tools: Tools = None,
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        *,
        journal: Journal | None = None,
        watch: Watch | None = None,
        variables: Variables | None = None,
        policy: Policy | None = None,
        caller: str = "sandbox",
        dry_run: bool = False,
    ) -> ExecutionResult:
        """Run a program; whatever it does ends in a result.

        Args:
            code: Python text. Its value is the top-level `return`, else the last expression, else the last assigned
                name.
            tools: what this program may call, instead of the sandbox's own choice.
            inputs: variables it starts with; plain data.
            limits: what it may spend, instead of the sandbox's own.
            journal: what already happened, for a run that is continued.
            watch: a function that is told of each `Output`, and of each `CallRecord` whenever its status changes.
            variables: what the last program left, `Variables()` at first; then `result.variables` is what this one
                leaves. A program that was cut off leaves what it found. None: nothing is kept.
            policy: which calls may run, instead of the sandbox's own. A call that somebody is to be asked about pauses
                the run; see `ExecutionResult.pending`.
            caller: who calls, for the rules of the policy.
            dry_run: hold back the calls of tools that are not READ_ONLY: the program gets a stand-in of the declared
                shape, or None, and `ExecutionResult.held` says what would have run. What the policy denies is denied.

        Raises:
            ConfigurationError: arguments that make no sense.
            IsolationUnavailable: this machine can't give the isolation.
            JournalConflict: another attempt has taken over the journal's run.
            SandboxClosed: the sandbox was closed.
        """
        journal = journal or Journal()
        try:
            chosen = _limits(limits, self.limits)
            if dry_run and journal.lasts:
                raise ConfigurationError("a dry run leaves no journal; run it without, then for real with one")
            note = self._note(code, journal, chosen, caller=caller, dry_run=dry_run)
            with seen(note):
                prepared = await self._prepare(code, tools, inputs, chosen, journal, variables)
                if isinstance(prepared, RunError):
                    note.result = ExecutionResult(error=prepared)
                    return note.result
                prepared.gate = Gate(_policy(policy, self.policy), prepared.journal, caller=caller, dry_run=dry_run)
                note.result = await self._run(prepared, chosen, watch, variables)
                return note.result
        finally:
            await journal.end()

    def execute_sync(
        self,
        code: str,
        tools: Tools = None,
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        *,
        journal: Journal | None = None,
        watch: Watch | None = None,
        variables: Variables | None = None,
        policy: Policy | None = None,
        caller: str = "sandbox",
        dry_run: bool = False,
    ) -> ExecutionResult:
        """`execute` for code that is not asynchronous; works inside a running event loop too (and blocks it)."""

        def run() -> ExecutionResult:
            return asyncio.run(
                self.execute(
                    code,
                    tools,
                    inputs,
                    limits,
                    journal=journal,
                    watch=watch,
                    variables=variables,
                    policy=policy,
                    caller=caller,
                    dry_run=dry_run,
                )
            )

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return run()
        with ThreadPoolExecutor(1, thread_name_prefix="toolchord-sync") as thread:
            return thread.submit(contextvars.copy_context().run, run).result()

    async def replay(self, record: RunRecord, limits: Limits | None = None) -> ExecutionResult:
        """Run a recorded program again from its record alone: no tool runs, and the result is the same.

        The result's error is a ReplayDivergence if the program goes another way than the record says.
        """
        if not isinstance(record, RunRecord):
            raise ConfigurationError(f"replay takes a RunRecord, not {type(record).__name__}; see result.record")
        if record.language != self._language:
            raise ConfigurationError(f'the record was made with language="{record.language}"; use such a sandbox')
        chosen = _limits(limits, self.limits)
        journal = Journal(record.events, seed=record.seed, epoch=record.epoch)
        record = msgspec.structs.replace(record)
        prepared = Prepared(self._catalogue(None), journal, record, None, offline=True)
        note = self._note(record.code, journal, chosen, offline=True)
        with seen(note):
            async with self._guest(chosen) as channel:
                note.result = await prepared.run(channel, chosen)
            return note.result

    def catalogue(self) -> Catalogue:
        """What a program may call when `execute` is given no tools, as it is now."""
        return self._catalogue(None)

    def session(self, tools: Tools = None, limits: Limits | None = None) -> Session:
        """A sandbox for several programs that share their variables."""
        return Session(self, self._read_once(tools), _limits(limits, self.limits))

    async def isolation_report(self) -> IsolationReport:
        """Every layer of wall two on this machine; IsolationUnavailable if a mandatory one is missing."""
        return await asyncio.to_thread(self._pool.report)

    def close(self) -> None:
        """End every guest and free what the sandbox holds; harmless when repeated."""
        self._pool.close()

    async def __aenter__(self) -> CodeSandbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> CodeSandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # what a run is made of

    def _note(self, code: str, journal: Journal, limits: Limits, **more: Any) -> RunNote:
        """A run for those who look on."""
        return RunNote(code, journal, limits, self._isolation, self._language, **more)

    def _catalogue(self, tools: Tools) -> Catalogue:
        if tools is None:
            tools = self._registry if self._tools is None else self._tools
        return Catalogue.of(tools, registry=self._registry)

    def _read_once(self, tools: Tools) -> Tools:
        """A registry may grow, so it is asked at each run; anything else is read now (it may be an iterator)."""
        return tools if tools is None or isinstance(tools, ToolRegistry) else self._catalogue(tools)

    async def _prepare(
        self,
        code: str,
        tools: Tools,
        inputs: Mapping[str, Any] | None,
        limits: Limits,
        journal: Journal,
        variables: Variables | None = None,
    ) -> Prepared | RunError:
        """All that a run needs but a guest, or why the program is not even handed to one."""
        catalogue = self._catalogue(tools)
        given = await encoded(inputs, catalogue)
        if (refused := unreadable(code, limits)) is not None:
            return refused
        many = len(catalogue.tools) > MANY  # to look through thousands takes a while
        stubs = await asyncio.to_thread(stubs_of, catalogue, code) if many else stubs_of(catalogue, code)
        record = RunRecord(code, given, stubs, self._language, journal.seed, journal.epoch, journal.events)
        if variables is not None:
            record.variables, record.keep = variables.to_bytes(), limits.variables
        return Prepared(catalogue, journal, record, self.shapes)

    async def _run(
        self, prepared: Prepared, limits: Limits, watch: Watch | None, variables: Variables | None
    ) -> ExecutionResult:
        """Run a program in a guest; in another one if an earlier program's variables could not be restored."""
        if variables is not None:
            prepared.left = Variables(variables.data, variables.definitions)
        spent = 0.0
        while True:
            rest = replace(limits, wall_time=max(0.1, limits.wall_time - spent)) if spent else limits
            async with self._guest(rest) as channel:
                result = await prepared.run(channel, rest, watch)
            spent = result.duration = spent + result.duration
            if not prepared.let_go(result):
                break
        if variables is not None:
            prepared.told(result)
        return result

    async def _open(self, limits: GuestLimits) -> Channel:
        pool = self._pool
        with guest_wanted():
            guest = pool.take(limits) if pool.started else await asyncio.to_thread(pool.take, limits)
            try:
                return await Channel.open(guest)
            except BaseException:
                guest.kill()
                raise

    @asynccontextmanager
    async def _guest(self, limits: Limits) -> AsyncIterator[Channel]:
        """A guest for one program."""
        channel = await self._open(_kernel_limits(limits))
        try:
            yield channel
        finally:
            channel.close()
            self._pool.refill()


class Session:
    """Programs that share their variables, one after another. An async context manager.

    A program that reaches a limit, or pauses, ends its guest: the next one starts anew, and the result says so.
    """

    def __init__(self, sandbox: CodeSandbox, tools: Tools, limits: Limits) -> None:
        self._sandbox = sandbox
        self._tools = tools
        self._limits = limits
        self._channel: Channel | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def execute(
        self,
        code: str,
        tools: Tools = None,
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        *,
        watch: Watch | None = None,
    ) -> ExecutionResult:
        """Run the next program; see `CodeSandbox.execute`. Memory is limited for the session as a whole."""
        if self._closed:
            raise SandboxClosed("the session is closed; open a new one with sandbox.session()")
        sandbox = self._sandbox
        chosen, journal = _limits(limits, self._limits), Journal()
        note = sandbox._note(code, journal, chosen)
        with seen(note):
            tools = self._tools if tools is None else tools
            prepared = await sandbox._prepare(code, tools, inputs, chosen, journal)
            note.result = ExecutionResult(error=prepared) if isinstance(prepared, RunError) else None
            if isinstance(prepared, Prepared):
                prepared.gate = Gate(sandbox.policy, journal)
                note.result = await self._run(prepared, chosen, watch)
            assert note.result is not None
            return note.result

    async def _run(self, prepared: Prepared, chosen: Limits, watch: Watch | None) -> ExecutionResult:
        sandbox = self._sandbox
        async with self._turn:
            if self._channel is None:
                self._channel = await sandbox._open(GuestLimits(chosen.memory, None))
            try:
                result = await prepared.run(self._channel, chosen, watch)
            except BaseException:
                self._drop()
                raise
            if result.error is not None and result.error.kind in ("limit", "died", "protocol", "paused"):
                self._drop()
                result.stderr += "The session's variables are gone; the next program starts anew.\n"
            return result

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """End the session's guest."""
        self._closed = True
        self._drop()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()


def _limits(limits: Limits | None, default: Limits) -> Limits:
    if limits is None:
        return default
    if not isinstance(limits, Limits):
        raise ConfigurationError(f"limits must be Limits, not {type(limits).__name__}; write Limits(wall_time=5.0)")
    return limits


def _policy(policy: Policy | None, default: Policy | None) -> Policy | None:
    if policy is not None and not isinstance(policy, Policy):
        raise ConfigurationError(f"policy must be a Policy, not {type(policy).__name__}; write Policy(ask('pay'))")
    return default if policy is None else policy


def _kernel_limits(limits: Limits) -> GuestLimits:
    return GuestLimits(limits.memory, int(limits.cpu_time) + 2)
