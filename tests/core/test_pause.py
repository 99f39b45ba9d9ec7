"""Calls that wait for something outside: the run pauses, keeps what happened, and goes on where it was."""

from __future__ import annotations

import asyncio

import pytest

from toolchord import CallIdentity, CodeSandbox, ExecutionResult, Journal, Limits, create_registry, current_call
from toolchord.errors import CallPaused


class Desk:
    """Tools that leave a trace, one of which waits for a human."""

    def __init__(self) -> None:
        self.registry = create_registry()
        self.ran: list[str] = []
        self.answers: dict[str, str] = {}
        for function in (self.fetch, self.approve, self.slow, self.approve_blocking):
            self.registry.add(function)

    async def fetch(self, key: str) -> str:
        """Fetch something."""
        self.ran.append(key)
        return key.upper()

    async def approve(self, what: str) -> str:
        """Ask a human."""
        if what not in self.answers:
            raise CallPaused({"asks": what})
        self.ran.append(what)
        return self.answers[what]

    def approve_blocking(self, what: str) -> str:
        """Ask a human, in a thread."""
        if what not in self.answers:
            raise CallPaused(what)
        self.ran.append(what)
        return self.answers[what]

    async def slow(self, key: str) -> str:
        """End after a few turns of the loop."""
        for _ in range(20):
            await asyncio.sleep(0)
        self.ran.append(key)
        return key


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def execute(desk: Desk, code: str, journal: Journal | None = None) -> ExecutionResult:
    async with CodeSandbox(desk.registry, limits=Limits(wall_time=20.0)) as sandbox:
        return await sandbox.execute("import asyncio, time\n" + code, journal=journal)


def continued(result: ExecutionResult) -> Journal:
    assert result.record is not None
    return Journal(result.record.events, seed=result.record.seed, epoch=result.record.epoch)


GATHERED = "return await asyncio.gather(fetch('a'), approve('x'), slow('b'), approve('y'), return_exceptions=True)"


async def test_a_run_pauses_when_only_waiting_calls_are_left(desk: Desk) -> None:
    result = await execute(desk, GATHERED)
    assert not result.ok
    assert result.error is not None
    assert result.error.kind == "paused"
    assert [(call.id, call.tool, call.status) for call in result.pending] == [
        (2, "default.approve", "paused"),
        (4, "default.approve", "paused"),
    ]
    assert [call.pause.reason for call in result.pending if call.pause] == [{"asks": "x"}, {"asks": "y"}]
    assert sorted(desk.ran) == ["a", "b"]  # the others went on to their ends


async def test_a_paused_run_goes_on_and_repeats_nothing(desk: Desk) -> None:
    first = await execute(desk, GATHERED)
    desk.answers["y"] = "yes"
    second = await execute(desk, GATHERED, continued(first))
    assert [call.id for call in second.pending] == [2]
    assert sorted(desk.ran) == ["a", "b", "y"]
    desk.answers["x"] = "no"
    third = await execute(desk, GATHERED, continued(second))
    assert third.value == ["A", "no", "b", "yes"]
    assert sorted(desk.ran) == ["a", "b", "x", "y"]


async def test_a_blocking_tool_may_pause(desk: Desk) -> None:
    first = await execute(desk, "return approve_blocking('x')")
    assert [call.tool for call in first.pending] == ["default.approve_blocking"]
    desk.answers["x"] = "yes"
    assert (await execute(desk, "return approve_blocking('x')", continued(first))).value == "yes"


async def test_a_call_that_nobody_waits_for_holds_nothing_up(desk: Desk) -> None:
    code = """\
task = asyncio.create_task(approve('x'))
await fetch('a')
task.cancel()
return await fetch('b')
"""
    result = await execute(desk, code)
    assert result.value == "B"
    assert result.pending == []


async def test_a_program_ends_when_all_its_calls_have_ended(desk: Desk) -> None:
    code = "task = asyncio.create_task(approve('x'))\nreturn await fetch('a')"
    first = await execute(desk, code)
    assert [call.tool for call in first.pending] == ["default.approve"]
    desk.answers["x"] = "yes"
    assert (await execute(desk, code, continued(first))).value == "A"
    assert desk.ran == ["a", "x"]


async def test_a_program_can_not_catch_a_pause(desk: Desk) -> None:
    result = await execute(desk, "try:\n    await approve('x')\nexcept BaseException:\n    pass\nreturn 1")
    assert result.error is not None
    assert result.error.kind == "paused"


async def test_the_clock_stands_still_while_a_run_is_paused(desk: Desk) -> None:
    code = "return await asyncio.wait_for(approve('x'), 3600), time.monotonic() < 60"
    first = await execute(desk, code)
    assert [call.tool for call in first.pending] == ["default.approve"]
    desk.answers["x"] = "yes"
    assert (await execute(desk, code, continued(first))).value == ("yes", True)


async def test_time_goes_on_where_it_was(desk: Desk) -> None:
    code = "await asyncio.sleep(0.3)\na = time.monotonic()\nawait approve('x')\nreturn time.monotonic() - a"
    first = await execute(desk, code)
    desk.answers["x"] = "yes"
    result = await execute(desk, code, continued(first))
    assert 0 <= result.value < 20


async def test_tools_know_which_call_they_serve(desk: Desk) -> None:
    seen: list[CallIdentity | None] = []

    def pay(amount: int) -> int:
        """Pay."""
        seen.append(current_call())
        return amount

    async def ask(amount: int) -> int:
        """Ask."""
        seen.append(current_call())
        return amount

    desk.registry.add(pay)
    desk.registry.add(ask)
    code = "a = pay(1)\nreturn await asyncio.gather(ask(2), ask(3))"
    first = await execute(desk, code)
    assert first.ok
    told, seen[:] = list(seen), []
    assert [(one.number, one.tool, one.line) for one in told if one] == [
        (1, "default.pay", 2),
        (2, "default.ask", 3),
        (3, "default.ask", 3),
    ]
    assert len({one.digest for one in told if one}) == 3
    await execute(desk, code)
    assert seen == told  # the same on every run, so it serves as an idempotency key
    assert current_call() is None
