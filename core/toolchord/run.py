"""One run: the host's half of the conversation with a guest, from its start to its result.

The guest is hostile: every frame is bounded and checked, and whatever it does ends in a result. Calls start as they are
asked for, at most `Limits.concurrency` at a time; what has ended is handed over when the guest waits for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import hashlib
import signal
from dataclasses import replace
from typing import Any

from toolchord.callbook import Call, CallBook
from toolchord.channel import Channel, cause_of_death, error_of
from toolchord.dispatch import Dispatcher
from toolchord.errors import CallPaused, LimitExceeded, ReplayDivergence
from toolchord.gate import Gate
from toolchord.identity import CallIdentity, current
from toolchord.journal import Journal
from toolchord.limits import Limits
from toolchord.recording import Event, Outcome
from toolchord.restoring import Restoring
from toolchord.results import CallRecord, ExecutionResult, Output, RunError, Usage, Watch
from toolchord.variables import Variables
from toolchord_guest import wire
from toolchord_guest.values import Decoder


class Run:
    """Drives one program. `go` gives the result, whatever happens.

    Args:
        channel: the guest.
        dispatcher: serves its calls.
        journal: what already happened, and where new events go.
        limits: what it may spend.
        gate: decides which calls may run; all of them if None.
        offline: nothing may be produced: the journal must hold the whole run.
        watch: told of what is printed, and of each call whenever its status changes.
    """

    def __init__(
        self,
        channel: Channel,
        dispatcher: Dispatcher,
        journal: Journal,
        limits: Limits,
        *,
        gate: Gate | None = None,
        offline: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.limits = limits
        self.bytes_in = self.bytes_out = 0
        self._channel = channel
        self._dispatcher = dispatcher
        self._journal = journal
        self._gate = gate or Gate(None, journal)
        self._offline = offline
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # calls start in a callback of the socket's, which has another one
        self._outcome: asyncio.Future[ExecutionResult | RunError] = self._loop.create_future()
        self._decoder = Decoder(limit=limits.result)
        self._made = hashlib.sha256()
        self._book = CallBook()
        self._wait: wire.Wait | None = None
        self._wait_arrived = self._loop.create_future()
        self._woken = self._loop.create_future()
        self._output: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._output_bytes = 0
        self._host_time = 0.0
        self._variables: Variables | None = None
        self.restoring = Restoring(limits, self._cpu_time, self.exceed)
        self._readied = False
        self._produced = False

    @property
    def ended(self) -> bool:
        """Whether the result is decided."""
        return self._outcome.done()

    def _elapsed(self) -> float:
        return self._loop.time() - self._started

    async def go(self, start: wire.Start, parts: list[wire.Part]) -> ExecutionResult:
        """Start the program and stay with it to its end."""
        self._started = self._loop.time()
        self._cpu_before = self._channel.guest.cpu_time()
        self._channel.run = self
        wall = self._loop.call_later(self.limits.wall_time, self._wall_time_over)
        self._cpu_timer = self._loop.call_later(self.limits.cpu_time, self._watch_cpu)
        driver = self._loop.create_task(self._drive(start, parts))
        driver.add_done_callback(self._task_ended)
        try:
            if self._channel.lost:
                self.on_lost()
            elif self._channel.spoke:
                self.break_off(wire.WireError("it spoke out of turn, after the last program's end"))
            outcome = await self._outcome
        finally:
            wall.cancel()
            self._cpu_timer.cancel()
            self.restoring.stop()
            driver.cancel()
            self._channel.run = None
            self._channel.spoke = self._channel.spoke or self._channel.left_over
            self._book.stop(self._elapsed())
        return self._complete(outcome if isinstance(outcome, ExecutionResult) else ExecutionResult(error=outcome))

    def _complete(self, result: ExecutionResult) -> ExecutionResult:
        result.stdout, result.stderr = ("".join(self._output[name]) for name in ("stdout", "stderr"))
        result.calls = [call.record for call in self._book.calls.values()]
        result.duration = self._elapsed()
        if result.error is None or result.error.kind not in ("limit", "died", "protocol"):  # it was not cut off
            result.variables = self._variables
        cpu = max(0.0, self._cpu_time())
        result.usage = Usage(cpu, self._host_time, len(result.calls), self.bytes_in, self.bytes_out)
        return result

    def _tell(self, news: Output | CallRecord) -> None:
        if self._watch is None:
            return
        try:
            self._context.run(self._watch, news)
        except Exception as error:  # the host's own code
            self.crash(error)

    # ends

    def end(self, outcome: ExecutionResult | RunError) -> None:
        """Decide the result; the first one counts."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def break_off(self, error: Exception) -> None:
        """The guest said what no guest of ours says."""
        what = str(error) if isinstance(error, wire.WireError | ValueError) else f"{type(error).__name__}: {error}"
        self.end(RunError("GuestDied", f"the guest broke the protocol: {what}", kind="protocol"))

    def crash(self, error: BaseException) -> None:
        """A defect of ours or of a journal: raised from `go`."""
        if not self._outcome.done():
            self._outcome.set_exception(error)

    def exceed(self, limit: str, message: str) -> None:
        """A limit was reached."""
        self.end(RunError("LimitExceeded", f"{limit}: {message}", kind="limit", limit=limit))

    def _wall_time_over(self) -> None:
        waiting = [c.record.tool for c in self._book.calls.values() if c.record.status == "running"]
        note = f" while it waited for {', '.join(waiting[:5])}" if waiting and self._wait is not None else ""
        self.exceed("wall_time", f"the program ran longer than {self.limits.wall_time:g} s{note}")

    def _cpu_time(self) -> float:
        return self._channel.guest.cpu_time() - self._cpu_before

    def _watch_cpu(self) -> None:
        left = self.limits.cpu_time - self._cpu_time()
        if left <= 0:
            self.exceed("cpu_time", f"the program used more than {self.limits.cpu_time:g} s of CPU")
        else:
            self._cpu_timer = self._loop.call_later(max(left, 0.01), self._watch_cpu)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """What the driver or a call's journal raised; a tool's errors never get here."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, wire.WireError):
            self.break_off(error)
        elif isinstance(error, LimitExceeded):
            self.exceed(error.limit, error.message)
        elif isinstance(error, ReplayDivergence):
            self._diverge(error.message)
        else:
            self.crash(error)

    def on_lost(self) -> None:
        """The guest closed its end or died."""
        if not self.ended:
            task = self._loop.create_task(self._post_mortem())
            self._post_mortem_task = task  # a task that nothing refers to may be collected

    async def _post_mortem(self) -> None:
        code = await self._loop.run_in_executor(None, self._channel.guest.exit_code)
        if code == -signal.SIGXCPU:
            self.exceed("cpu_time", "the program used all its CPU time")
        else:
            self.end(RunError("GuestDied", cause_of_death(code, self._channel.guest.failure), kind="died"))

    # frames

    def on_frame(self, frame: Any) -> None:
        """One frame of the guest."""
        match frame:
            case wire.Call():
                self.restoring.check_over()
                self._on_call(frame)
            case wire.Wait():
                self.restoring.check_over()
                if self._wait is not None:
                    raise wire.WireError("it waits twice")
                self._wait = frame
                self._wait_arrived.set_result(None)
            case wire.Part():
                self._decoder.add(frame)
                self._made.update(b"%d %s %d %s" % (frame.ref, frame.kind.encode(), len(frame.data), frame.data))
            case wire.Out():
                self._on_output(frame)
            case wire.Cancel():
                self._on_cancel(frame.id)
            case wire.Kept():
                self._variables = Variables.of(self._decoder.decode(frame.body), self.limits.variables)
            case wire.Restoring():
                self.restoring.on_frame(frame.name)
            case wire.Done():
                self._on_done(frame)
            case wire.Ready():
                if self._readied:
                    raise wire.WireError("it says twice that it is ready")
                self._readied = True

    def _on_output(self, frame: wire.Out) -> None:
        room = self.limits.output - self._output_bytes
        size = len(frame.text.encode()) or 1  # a flood of nothing must end too
        self._output_bytes += size
        text = frame.text if size <= room else frame.text.encode()[:room].decode(errors="ignore")
        self._output[frame.stream].append(text)
        self._tell(Output(frame.stream, text))
        if size > room:
            self.exceed("output", f"the program printed more than {self.limits.output:,} bytes")

    def _on_call(self, frame: wire.Call) -> None:
        number = len(self._book.calls) + 1
        if frame.id != number:
            raise wire.WireError(f"call {frame.id} out of turn")
        size = self._decoder.size + len(frame.body)
        pair = self._decoder.decode(frame.body)
        match pair:
            case [list() as args, dict() as kwargs] if all(isinstance(key, str) for key in kwargs):
                pass
            case _:
                raise wire.WireError("a call without arguments")
        if number > self.limits.tool_calls:
            return self.exceed("tool_calls", f"the program made more than {self.limits.tool_calls:,} tool calls")
        self._made.update(b"%d %s %s" % (len(frame.tool), frame.tool.encode(), frame.body))
        made, self._made = self._made.hexdigest(), hashlib.sha256()
        prepared = self._dispatcher.prepare(frame.tool, args, kwargs, made, size)
        call = self._book.add(prepared, frame.line, size, self._elapsed(), self._journal.position)
        if self._gate.counts and self._journal.began(identity := self._identity(number, call)):
            self._gate.count(identity, prepared)  # even if the program has cancelled it since
        self._listen()
        self._start_calls()

    def _listen(self) -> None:
        self._channel.listen(not self._book.overloaded)

    def _on_cancel(self, number: int) -> None:
        call = self._book.calls.get(number)
        if call is None:
            raise wire.WireError(f"it cancels call {number}, which it has not made")
        if not call.delivered and self._book.cancel(number):
            self._tell(call.record)
        self._listen()

    def _on_done(self, frame: wire.Done) -> None:
        failure = frame.failure
        if failure is None:
            value = self._decoder.decode(frame.body)
            left = len(self._journal.events) - self._journal.position
            if not left:
                return self.end(ExecutionResult(value=value, returned=frame.returned))
            self._diverge(f"the program ended, but the record holds {left} more events")
            return
        self.end(error_of(failure, self.limits))

    # calls

    def _start_calls(self) -> None:
        if self.ended or not self._journal.live or self._offline:
            return
        while (started := self._book.start(self.limits.concurrency)) is not None:
            number, call = started
            call.record.started = self._elapsed()
            identity = call.identity = self._identity(number, call)
            context = self._context.copy()
            context.run(current.set, identity)
            self._tell(call.record)
            call.task = self._loop.create_task(self._serve(identity, call), context=context)
            call.task.add_done_callback(functools.partial(self._served, number))

    def _served(self, number: int, task: asyncio.Task[None]) -> None:
        """A call's task has ended, even one that was cancelled before it began."""
        self._book.stopped(number)
        self._task_ended(task)
        if not self.ended:
            self._listen()
        self._start_calls()
        if self._book.paused:
            self._wake()  # it may have been the last one to wait for

    def _identity(self, number: int, call: Call) -> CallIdentity:
        one = call.prepared
        made = CallIdentity(number, one.name, one.digest, call.record.line, call.occurrence, same=one.same)
        return replace(made, arguments=one.arguments, key=self._journal.key(made))

    async def _serve(self, identity: CallIdentity, call: Call) -> None:
        number, prepared = identity.number, call.prepared
        produced = False

        async def starting() -> None:
            if not prepared.repeatable:
                await self._journal.starting(identity)

        async def produce() -> Outcome:
            nonlocal produced
            produced = True
            return await self._dispatcher.serve(prepared, identity, self._gate, starting)

        try:
            outcome = await self._journal.call(identity, produce, repeatable=prepared.repeatable)
            call.record.duration = self._elapsed() - call.record.started
            if outcome.digest != prepared.digest:
                self._diverge_call(number, call)
                return
            if not produced:
                self._count(number, call, outcome)
            if call.settle(outcome, replayed=not produced):
                self._tell(call.record)
            if not call.delivered:
                self._book.complete(outcome)
                self._wake()
        except CallPaused as pause:
            call.record.duration = self._elapsed() - call.record.started
            if not call.delivered:
                call.record.status, call.record.pause = "paused", pause
                self._book.paused.add(number)
                self._tell(call.record)

    def _count(self, number: int, call: Call, outcome: Outcome) -> None:
        """A recorded call counts for the policy if it ran."""
        if self._gate.counts and outcome.ran:
            self._gate.count(self._identity(number, call), call.prepared)
        else:
            self._gate.forget(number)

    def _wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)

    # events

    async def _drive(self, start: wire.Start, parts: list[wire.Part]) -> None:
        """Send the program, then one event each time it waits."""
        for part in parts:
            await self._channel.send(part)
        await self._channel.send(start)
        while True:
            await self._wait_arrived
            self._wait_arrived = self._loop.create_future()
            arrived = self._elapsed()
            if self._offline and self._journal.live:
                self._diverge("the record ends here, but the program waits for more")
                return
            self._produced = False
            event = await self._journal.next(self._produce)
            if not self._produced:
                if not self._matches(event):
                    return
                if any(outcome.missing for outcome in event.outcomes):
                    event = await self._refilled(event)
                self._started = min(self._started, self._loop.time() - event.now)  # time goes on where it was
            self._wait = None
            self._host_time += self._elapsed() - arrived
            await self._deliver(event)
            self._start_calls()

    async def _produce(self) -> Event:
        """Wait for the first thing to happen: calls that end, or the time that the guest waits for."""
        assert self._wait is not None
        self._produced = True
        self._start_calls()
        until = self._wait.until
        due = until is not None and until <= self._elapsed()
        timer = None

        def ring() -> None:
            nonlocal due
            due = True
            self._wake()

        if until is not None:
            timer = self._loop.call_later(min(max(0.0, until - self._elapsed()), self.limits.wall_time), ring)
        elif self._book.idle and not self._book.completed and not self._book.paused:
            raise wire.WireError("the guest waits for nothing")
        try:
            while not self._book.completed and not due:
                self._pause_if_stuck()
                self._woken = self._loop.create_future()
                await self._woken
        finally:
            if timer is not None:
                timer.cancel()
        return Event(self._elapsed(), self._book.take())

    def _pause_if_stuck(self) -> None:
        """End the run as paused if only calls that wait for something outside could go on.

        Its clock stands still with it: a sleep or a timeout of the program's goes on when the run is continued.
        """
        if self._book.paused and self._book.idle:
            tools = sorted({self._book.calls[number].record.tool for number in self._book.paused})
            self.end(RunError("Paused", f"the program waits for an answer to {', '.join(tools)}", kind="paused"))

    def _matches(self, event: Event) -> bool:
        """Check a recorded event against what the program did; mark its calls as answered."""
        for outcome in event.outcomes:
            call = self._book.calls.get(outcome.call)
            if call is None or call.delivered:
                what = "has not made" if call is None else "no longer waits for"
                return self._diverge(f"the record answers call {outcome.call}, which the program {what}")
            if call.prepared.digest != outcome.digest:
                return self._diverge_call(outcome.call, call)
            self._count(outcome.call, call, outcome)
            self._book.withdraw(outcome.call, keep=outcome.missing)
            if call.settle(outcome, replayed=True):
                self._tell(call.record)
        return True

    async def _refilled(self, event: Event) -> Event:
        """The event with the values that were not kept: their tools run again."""
        if self._offline:
            raise ReplayDivergence("the record leaves out what a tool gave; it can only be continued", position=0)

        async def filled(one: Outcome) -> Outcome:
            call = self._book.calls[one.call]
            return await self._dispatcher.again(call.prepared, self._identity(one.call, call), one, self._journal)

        return Event(event.now, list(await asyncio.gather(*map(filled, event.outcomes))))

    def _diverge_call(self, number: int, call: Call) -> bool:
        message = f"call {number} is {call.prepared.name} with other arguments than the record's"
        return self._diverge(message, call.record.line)

    def _diverge(self, message: str, line: int | None = None) -> bool:
        position = self._journal.position
        self.end(RunError("ReplayDivergence", f"event {position}: {message}", line, "divergence", position=position))
        return False

    async def _deliver(self, event: Event) -> None:
        for outcome in event.outcomes:
            self._book.deliver(outcome)
            for part in outcome.parts:
                await self._channel.send(wire.Part(part.ref, part.kind, part.data))
        outcomes = [wire.Outcome(outcome.call, outcome.ok, outcome.body) for outcome in event.outcomes]
        await self._channel.send(wire.Event(event.now, outcomes))
