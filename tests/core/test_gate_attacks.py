"""Programs and guests that try to get past the gate: races, grants used twice, forged identities."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from tests.core.test_frames_fuzz import HostileGuest, frame
from toolchord import (
    Bounds,
    CodeSandbox,
    Decision,
    DurableJournal,
    ExecutionResult,
    Journal,
    Limits,
    MemoryStore,
    Policy,
    ToolRegistry,
    allow,
    ask,
    create_registry,
)
from toolchord.catalogue import Catalogue
from toolchord.channel import Channel
from toolchord.dispatch import Dispatcher
from toolchord.gate import Gate
from toolchord.run import Run
from toolchord_guest import wire
from toolchord_guest.values import Encoder

SANDBOX = CodeSandbox(limits=Limits(wall_time=30.0))


@pytest.fixture(autouse=True, scope="module")
def closed() -> Iterator[None]:
    with SANDBOX:
        yield


class Till:
    """A tool that takes effect at once, and then takes its time."""

    def __init__(self) -> None:
        self.paid: list[tuple[str, int]] = []
        self.registry: ToolRegistry = create_registry()
        self.registry.add(self.pay)
        self.registry.add(self.slow_pay)
        self.registry.add(self.pay_blocking)

    async def pay(self, to: str, amount: int) -> str:
        """Pay."""
        self.paid.append((to, amount))
        return "paid"

    async def slow_pay(self, to: str, amount: int) -> str:
        """Pay, and wait for a receipt that never comes."""
        self.paid.append((to, amount))
        await asyncio.Event().wait()
        return "paid"

    def pay_blocking(self, to: str, amount: int) -> str:
        """Pay, in a thread."""
        self.paid.append((to, amount))
        return "paid"


@pytest.fixture
def till() -> Till:
    return Till()


async def execute(till: Till, code: str, policy: Policy, **options: Any) -> ExecutionResult:
    head = "import asyncio\nfrom concurrent.futures import ThreadPoolExecutor\n"
    return await SANDBOX.execute(head + code, till.registry, policy=policy, **options)


CAP = Bounds(count=5, total={"amount": 50})
CAPPED = Policy(*(allow(name, within=CAP) for name in ("pay", "slow_pay", "pay_blocking")), otherwise="deny")

RACES = {
    "gather": "await asyncio.gather(*(pay('e', 10) for _ in range(200)), return_exceptions=True)",
    "threads": """\
def one(n):
    try:
        return pay_blocking('e', 10)
    except PermissionError:
        return None
with ThreadPoolExecutor(32) as pool:
    return list(pool.map(one, range(200)))
""",
    "cancelled at once": """\
for n in range(50):
    task = asyncio.create_task(slow_pay('e', 10))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
""",
    "cancelled when it has begun": """\
for n in range(50):
    try:
        await asyncio.wait_for(slow_pay('e', 10), 0.001)
    except (TimeoutError, PermissionError):
        pass
""",
    "failing and trying again": """\
for n in range(50):
    try:
        await pay('e', 10 if n % 2 else 'ten')
    except (TypeError, PermissionError):
        pass
""",
    "as one dict, by name, by helper": """\
for n in range(50):
    ways = [
        lambda: pay({'to': 'e', 'amount': 10}),
        lambda: pay(to='e', amount='10'),
        lambda: call_tool('pay', to='e', amount=10),
    ]
    for call in ways:
        try:
            await call()
        except PermissionError:
            pass
""",
}


@pytest.mark.parametrize("race", RACES)
async def test_a_cap_can_not_be_raced(till: Till, race: str) -> None:
    await execute(till, RACES[race], CAPPED)
    assert len(till.paid) <= 5
    assert till.paid or race == "cancelled at once"
    assert sum(amount for _, amount in till.paid) <= 50


@pytest.mark.parametrize("race", RACES)
async def test_a_cap_can_not_be_raced_with_a_store_and_restarts(till: Till, race: str) -> None:
    store = MemoryStore()
    for wall_time in (0.3, 0.6, 20.0):
        limits = Limits(wall_time=wall_time, tool_calls=10_000)
        await execute(till, RACES[race], CAPPED, journal=await DurableJournal.open(store, "r"), limits=limits)
    assert len(till.paid) <= 5
    assert till.paid or race == "cancelled at once"


async def test_one_yes_is_for_one_call(till: Till) -> None:
    policy = Policy(ask(), otherwise="deny")
    code = "return await asyncio.gather(*(pay('e', 1) for _ in range(3)), pay('e', 1000), pay_blocking('e', 1))"
    result = await execute(till, code, policy)
    assert len(result.pending) == 5
    assert result.record is not None
    journal = Journal.continuing(result.record)
    assert journal.answer(result.pending[0].pause.reason.id, Decision.approve())  # type: ignore[union-attr]
    assert len((await execute(till, code, policy, journal=journal)).pending) == 4
    assert till.paid == [("e", 1)]


async def test_an_approved_call_that_is_cancelled_and_made_again_is_asked_again(till: Till) -> None:
    policy = Policy(ask(), otherwise="deny")
    code = """\
task = asyncio.create_task(slow_pay('e', 1))
await asyncio.wait([task], timeout=0.2)
task.cancel()
return await pay('e', 1), await slow_pay('e', 1)
"""
    result = await execute(till, code, policy)
    assert result.record is not None
    journal = Journal.continuing(result.record)
    assert journal.answer(result.pending[0].pause.reason.id, Decision.approve())  # type: ignore[union-attr]
    result = await execute(till, code, policy, journal=journal)
    assert [(call.id, call.tool) for call in result.pending] == [(2, "default.pay")]
    assert till.paid == [("e", 1)]


# a guest that speaks for itself


def call(number: int, tool: str, args: list[Any], line: int = 1) -> bytes:
    return frame(msgpack.packb([1, number, tool, line, Encoder().encode([args, {}])]))


READY, WAIT = frame(msgpack.packb([6])), frame(msgpack.packb([4, None]))


async def say(till: Till, policy: Policy, journal: Journal, *said: bytes) -> ExecutionResult:
    """Play a guest that says all this at once, and listens no more."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    dispatcher = Dispatcher(Catalogue.of(till.registry), {}, 4)
    channel = await Channel.open(HostileGuest(ours, -9))  # type: ignore[arg-type]
    limits = Limits(wall_time=1.0)
    run = Run(channel, dispatcher, journal, limits, gate=Gate(policy, journal))
    loop = asyncio.get_running_loop()
    speaker = asyncio.create_task(loop.sock_sendall(theirs, READY + b"".join(said)))
    try:
        return await run.go(wire.Start(b"\xc0"), [])
    finally:
        channel.close()
        speaker.cancel()
        await asyncio.gather(speaker, return_exceptions=True)
        theirs.close()
        dispatcher.close()


async def approved(till: Till, policy: Policy, within: Bounds | None = None) -> Journal:
    """A journal in which somebody approved the first call, pay('a', 1)."""
    journal = Journal(seed=1, epoch=1.0)
    result = await say(till, policy, journal, call(1, "pay", ["a", 1]), WAIT)
    assert [one.status for one in result.calls] == ["paused"]
    assert till.paid == []
    assert journal.answer(next(iter(journal.asked)), Decision.approve(within=within))
    journal.position = 0
    return journal


ASKED = Policy(ask("pay"), otherwise="deny")

FORGED = {
    "other arguments under the same number": [call(1, "pay", ["a", 1000])],
    "another number": [call(1, "pay", ["b", 1]), call(2, "pay", ["a", 1])],
    "another tool": [call(1, "slow_pay", ["a", 1])],
    "the number twice": [call(1, "pay", ["a", 1000]), call(1, "pay", ["a", 1])],
    "a number of its own": [call(7, "pay", ["a", 1])],
    "number nought": [call(0, "pay", ["a", 1])],
    "a full name that is none": [call(1, "default.pay\x00", ["a", 1])],
    "cancelled and again": [call(1, "pay", ["a", 1000]), frame(msgpack.packb([2, 1])), call(1, "pay", ["a", 1])],
    "a part that is nobody's": [frame(msgpack.packb([0, 9, "str", b"x"])), call(1, "pay", ["a", 1])],
}


@pytest.mark.parametrize("forgery", FORGED)
async def test_a_guest_can_not_use_an_approval_for_anything_else(till: Till, forgery: str) -> None:
    journal = await approved(till, ASKED)
    result = await say(till, ASKED, journal, *FORGED[forgery], WAIT)
    assert till.paid == []
    assert not result.ok


async def test_the_call_itself_may_run_once(till: Till) -> None:
    journal = await approved(till, ASKED)
    await say(till, ASKED, journal, call(1, "pay", ["a", 1]), call(2, "pay", ["a", 1]), WAIT)
    assert till.paid == [("a", 1)]


async def test_a_guest_that_forges_lines_stays_within_what_was_granted(till: Till) -> None:
    journal = await approved(till, ASKED, Bounds(count=3, total={"amount": 30}))
    calls = [call(n, "pay", ["a", amount], 1) for n, amount in enumerate([1, 10, 40, 10, 10, 10, 10], 1)]
    await say(till, ASKED, journal, *calls, call(8, "slow_pay", ["a", 1], 1), WAIT)
    assert till.paid == [("a", 1), ("a", 10), ("a", 10), ("a", 10)]
