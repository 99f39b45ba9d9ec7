"""What a tool says of itself holds under any program: places, rate, order, time, circuit, retries, keys, undoing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.machines import wait_until
from toolchord import (
    CodeSandbox,
    Decision,
    DurableJournal,
    ExecutionResult,
    Journal,
    Limits,
    MemoryStore,
    Policy,
    ToolRegistry,
    ask,
    call_cancelled,
    compensate,
    create_registry,
    current_call,
    tool_from,
)
from toolchord.errors import CircuitOpen, ConfigurationError, RegistrationError
from toolchord.lanes import Lane

SANDBOX = CodeSandbox(limits=Limits(wall_time=30.0))


@pytest.fixture(autouse=True, scope="module")
def closed() -> Iterator[None]:
    with SANDBOX:
        yield


async def execute(registry: ToolRegistry, code: str, **options: Any) -> ExecutionResult:
    return await SANDBOX.execute("import asyncio\n" + code, registry, **options)


@pytest.fixture
def registry() -> ToolRegistry:
    return create_registry()


class Crowd:
    """Counts how many are inside at a time."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.inside -= 1


# places


async def test_a_tool_has_so_many_places_and_others_pass(registry: ToolRegistry) -> None:
    crowd, passed = Crowd(), asyncio.Event()

    async def narrow(n: int) -> int:
        """Two at a time; waits for one that was made later."""
        with crowd:
            await passed.wait()
            return n

    async def wide() -> None:
        """Is made last."""
        passed.set()

    registry.add(narrow, concurrency_limit=2)
    registry.add(wide)
    code = "return await asyncio.gather(*(narrow(n) for n in range(100)), wide())"
    result = await execute(registry, code, limits=Limits(concurrency=3))
    assert result.value == [*range(100), None]
    assert crowd.most == 2


def test_places_hold_over_runs_threads_and_loops(registry: ToolRegistry) -> None:
    crowd = Crowd()

    def narrow(n: int) -> int:
        """Three at a time, in a thread."""
        with crowd:
            time.sleep(0.001)
            return n

    registry.add(narrow, concurrency_limit=3)
    code = "return sum(await asyncio.gather(*(narrow(n) for n in range(20))))"

    def run(_: int) -> Any:
        return asyncio.run(execute(registry, code)).value

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [190] * 4
    assert crowd.most == 3


async def test_a_place_is_given_back_whatever_happens() -> None:
    lane = Lane(tool_from(lambda: None, name="f", concurrency_limit=1))
    await lane.enter()
    waiting = [asyncio.create_task(lane.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    lane.leave()
    waiting[1].cancel()  # just as it is given the place
    await asyncio.gather(waiting[1], return_exceptions=True)
    await waiting[2]
    lane.leave()
    await lane.enter()


async def test_a_place_of_a_blocking_tool_is_free_when_its_thread_ends(registry: ToolRegistry) -> None:
    crowd, go_on = Crowd(), threading.Event()

    def stuck(wait: bool) -> str:
        """Does not listen."""
        with crowd:
            if wait:
                go_on.wait(20)
            return "done"

    def release() -> None:
        go_on.set()

    registry.add(stuck, concurrency_limit=1, timeout=0.05)
    registry.add(release)
    code = """\
try:
    stuck(True)
except TimeoutError:
    pass
second, _ = await asyncio.gather(stuck(False), release())
return second
"""
    assert (await execute(registry, code)).value == "done"
    assert crowd.most == 1


# rate


class Time:
    """A clock that only goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def read(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@given(st.integers(1, 5), st.floats(0.1, 100), st.lists(st.floats(0, 50), max_size=40))
def test_no_period_sees_more_starts_than_the_rate(requests: int, period: float, gaps: list[float]) -> None:
    clock = Time()
    tool = tool_from(lambda: None, name="f", rate_limit={"requests": requests, "period": period})
    lane = Lane(tool, clock=clock.read, sleep=clock.sleep)

    async def go() -> list[float]:
        started = []
        for gap in gaps:
            clock.now += gap
            await lane.pace()
            started.append(clock.now)
        return started

    started = asyncio.run(go())
    for earlier, later in zip(started, started[requests:], strict=False):
        assert later - earlier >= period * (1 - 1e-9)


async def test_a_rate_holds_over_runs(registry: ToolRegistry) -> None:
    started = 0

    async def limited() -> None:
        """At most five in a long while."""
        nonlocal started
        started += 1

    registry.add(limited, rate_limit={"requests": 5, "period": 1000})
    code = "await asyncio.wait([asyncio.create_task(limited()) for _ in range(4)], timeout=0.3)\nreturn 1"
    limits = Limits(wall_time=3.0)
    results = await asyncio.gather(*(execute(registry, code, limits=limits) for _ in range(2)))
    assert started == 5
    assert sum(call.status == "ok" for result in results for call in result.calls) == 5


# order


async def test_calls_of_an_ordering_class_run_in_the_programs_order(registry: ToolRegistry) -> None:
    crowd, did = Crowd(), []

    async def write(n: int) -> int:
        """Later ones are faster."""
        with crowd:
            for _ in range(20 - n):
                await asyncio.sleep(0)
            did.append(n)
            return n

    async def append(n: int) -> int:
        """Another tool of the same class."""
        return await write(n)

    registry.add(write, order="file")
    registry.add(append, order="file")
    code = "return await asyncio.gather(*((append if n % 3 else write)(n) for n in range(20)))"
    assert (await execute(registry, code)).value == list(range(20))
    assert did == list(range(20))
    assert crowd.most == 1


async def test_the_order_stays_when_one_waits_for_an_answer(registry: ToolRegistry) -> None:
    did = []

    async def write(n: int) -> int:
        """Write."""
        did.append(n)
        return n

    registry.add(write, order="file")
    policy = Policy(ask("write", when=lambda a: a["n"] == 1), otherwise="allow")
    code = "return await asyncio.gather(*(write(n) for n in range(3)))"
    result = await execute(registry, code, policy=policy)
    assert [call.arguments["n"] for call in result.pending] == [1]
    assert did == [0]
    assert result.record is not None
    journal = Journal.continuing(result.record)
    assert journal.answer(next(iter(journal.asked)), Decision.approve())
    assert (await execute(registry, code, policy=policy, journal=journal)).value == [0, 1, 2]
    assert did == [0, 1, 2]


async def test_a_cancelled_call_lets_the_next_one_of_its_class_go(registry: ToolRegistry) -> None:
    async def write(n: int) -> int:
        """The first never ends by itself."""
        if n == 0:
            await asyncio.Event().wait()
        return n

    registry.add(write, order="file")
    code = """\
tasks = [asyncio.create_task(write(n)) for n in range(4)]
await asyncio.sleep(0.01)
tasks[2].cancel()
tasks[0].cancel()
return await asyncio.gather(tasks[1], tasks[3])
"""
    assert (await execute(registry, code)).value == [1, 3]


# time and cancellation


async def test_a_cancellation_reaches_the_tool(registry: ToolRegistry) -> None:
    ended: list[str] = []

    async def slow(n: int) -> None:
        """Is told by a CancelledError."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(f"async {n}")

    def blocking(n: int) -> None:
        """Asks."""
        wait_until(call_cancelled)
        ended.append(f"thread {n}")

    registry.add(slow)
    registry.add(blocking)
    registry.add(blocking, "impatient", timeout=0.05)
    code = """\
async with asyncio.TaskGroup() as group:
    tasks = [group.create_task(slow(1)), group.create_task(blocking(2))]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
try:
    await impatient(3)
except TimeoutError as error:
    return str(error)
"""
    result = await execute(registry, code)
    assert result.value == "the tool default.impatient took too long"
    await asyncio.to_thread(wait_until, lambda: len(ended) == 3)
    assert sorted(ended) == ["async 1", "thread 2", "thread 3"]
    assert not call_cancelled()


# retries and circuit


class Weather:
    """Fails for a while."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left = failures
        self.error = error
        self.made = 0
        self.cancelled: list[bool] = []

    async def __call__(self, n: int = 0) -> str:
        """Look out of the window."""
        self.made += 1
        self.cancelled.append(call_cancelled())
        if self.left > 0:
            self.left -= 1
            raise self.error
        return "sunny"


class Throttled(Exception):
    """A service's own error, which says that it passes."""

    retryable = True


@pytest.mark.parametrize("error", [ConnectionError("gone"), TimeoutError(), Throttled("slow down")])
async def test_a_passing_failure_is_tried_again(registry: ToolRegistry, error: Exception) -> None:
    weather = Weather(2, error)
    registry.add(weather, "weather", capabilities=["read_only"], retry={"attempts": 3, "wait": 0})
    result = await execute(registry, "return await weather()")
    assert (result.value, weather.made, len(result.calls)) == ("sunny", 3, 1)
    assert weather.cancelled == [False] * 3
    weather.left, weather.made = 3, 0
    code = "try:\n    await weather()\nexcept Exception as error:\n    return type(error).__name__"
    assert (await execute(registry, code)).value == type(error).__name__
    assert weather.made == 3


async def test_what_does_not_pass_is_not_tried_again(registry: ToolRegistry) -> None:
    weather = Weather(1, ValueError("no window"))
    registry.add(weather, "weather", capabilities=["idempotent"], retry={"attempts": 5, "wait": 0})
    assert not (await execute(registry, "return await weather()")).ok
    assert weather.made == 1


@pytest.mark.parametrize("metadata", [{"retry": {"attempts": 2}}, {"replay": "rerun"}, {"replay": "never"}])
def test_only_a_harmless_tool_may_be_run_again(registry: ToolRegistry, metadata: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError, match="needs the capability read_only or idempotent"):
        registry.add(Weather(0, ValueError()), "weather", capabilities=["destructive"], **metadata)


async def test_a_tool_that_keeps_failing_is_left_alone(registry: ToolRegistry) -> None:
    weather = Weather(4, ConnectionError("gone"))
    registry.add(weather, "weather", breaker={"failures": 3, "rest": 1000})
    code = """\
said = []
for n in range(6):
    try:
        said.append(await weather(n))
    except ConnectionError as error:
        said.append(type(error).__name__)
return said
"""
    assert (await execute(registry, code)).value == ["ConnectionError"] * 3 + ["CircuitOpen"] * 3
    assert weather.made == 3


def test_after_its_rest_one_call_is_let_through() -> None:
    clock = Time()
    lane = Lane(tool_from(lambda: None, name="f", breaker={"failures": 2, "rest": 30}), clock=clock.read)

    def call(error: BaseException | None = None) -> None:
        with pytest.raises(type(error)) if error else nullcontext(), lane.checked():
            if error:
                raise error

    def refused() -> None:
        with pytest.raises(CircuitOpen, match=r"default\.f failed . times in a row and rests; try again in "):
            call()

    for error in (ConnectionError(), ValueError(), ConnectionError(), TimeoutError()):
        call(error)
    refused()
    clock.now += 31
    with lane.checked():
        refused()  # one at a time
    call(ConnectionError())
    call(TimeoutError())
    refused()
    clock.now += 31
    call(asyncio.CancelledError())  # it says nothing about the tool: the next one tries
    call(ConnectionError())
    refused()
    clock.now += 31
    call()
    call()


async def test_a_failure_of_the_callers_own_opens_no_circuit(registry: ToolRegistry) -> None:
    weather = Weather(10, ValueError("no such place"))
    registry.add(weather, "weather", breaker={"failures": 2, "rest": 1000})
    code = """\
for _ in range(10):
    try:
        await weather()
    except ValueError:
        pass
return await weather()
"""
    assert (await execute(registry, code)).value == "sunny"


# keys


async def test_a_tool_gets_its_key_and_a_program_can_not_set_it(registry: ToolRegistry) -> None:
    seen: list[str] = []

    async def pay(amount: int, *, key: str) -> int:
        """Pay."""
        seen.append(key)
        return amount

    def pay_blocking(key: str, amount: int) -> int:
        """Pay."""
        seen.append(key)
        return amount

    registry.add(pay, idempotency_key="key")
    registry.add(pay_blocking, idempotency_key="key")
    tool = registry.find("pay")
    assert tool is not None
    assert tool.signature == "pay(amount: int)"
    assert "key" not in (tool.metadata.argument_schema or {})["properties"]
    code = "return [await pay(1), await pay(1), pay_blocking(2)]"
    store = MemoryStore()
    result = await execute(registry, code, journal=await DurableJournal.open(store, "r"))
    assert result.value == [1, 1, 2]
    assert len(set(seen)) == 3
    assert all(len(key) == 32 for key in seen)
    await execute(registry, code)
    assert len(set(seen)) == 6  # another run pays again
    for forged in ("pay(1, key='mine')", "pay({'amount': 1, 'key': 'mine'})", "pay_blocking('mine', 1)"):
        assert not (await execute(registry, f"return await {forged}")).ok
    assert len(seen) == 6
    assert await tool.execute(amount=1) == 1  # outside of a run each call has one of its own
    assert len(set(seen)) == 7
    with pytest.raises(RegistrationError, match="no parameter 'token'"):
        registry.add(pay, "other", idempotency_key="token")


# undoing


class Shop:
    """Orders that can be taken back."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.keys: list[str] = []
        self.registry = create_registry()
        self.registry.add(self.order, compensate=self.cancel)
        self.registry.add(self.charge, compensate=self.refund)
        self.registry.add(self.look, capabilities=["read_only"])

    async def order(self, what: str, count: int = 1) -> dict[str, Any]:
        """Order."""
        self.did.append(f"order {what}")
        return {"id": f"o-{what}", "note": "n" * (200_000 if what == "big" else 1)}

    async def cancel(self, arguments: dict[str, Any], value: Any) -> None:
        call = current_call()
        assert call is not None
        self.keys.append(call.key)
        self.did.append(f"cancel {value['id']} {arguments['what']} {len(value['note'])}")

    def charge(self, amount: int) -> int:
        """Charge."""
        if amount > 100:
            raise ValueError("too much")
        self.did.append(f"charge {amount}")
        return amount

    def refund(self, arguments: dict[str, Any], value: Any) -> None:
        if arguments["amount"] == 13:
            raise RuntimeError("no refunds for 13")
        self.did.append(f"refund {value}")

    def look(self) -> str:
        """Look."""
        return "fine"


ORDERS = "look()\nawait order('big')\nfor n in (5, 13, 7):\n    charge(n)\nawait order('b')\ncharge(500)"


async def test_calls_are_undone_in_reverse() -> None:
    shop = Shop()
    result = await execute(shop.registry, ORDERS)
    assert not result.ok
    shop.did.clear()
    undone = await compensate(result, shop.registry)
    assert [(one.call.arguments.get("what") or one.call.arguments["amount"], one.status) for one in undone] == [
        ("b", "undone"), (7, "undone"), (13, "failed"), (5, "undone"), ("big", "undone"),
    ]  # fmt: skip
    assert shop.did == ["cancel o-b b 1", "refund 7", "refund 5", "cancel o-big big 200000"]
    assert str(undone[2].error) == "no refunds for 13"
    assert len(set(shop.keys)) == 2
    assert all(key.endswith("-undo") for key in shop.keys)


async def test_a_run_in_a_store_is_undone_once() -> None:
    shop, store = Shop(), MemoryStore()
    result = await execute(shop.registry, ORDERS, journal=await DurableJournal.open(store, "r"))
    assert len(await compensate(result, shop.registry, journal=await DurableJournal.open(store, "r"))) == 5
    did = list(shop.did)
    again = await compensate(result, shop.registry, journal=await DurableJournal.open(store, "r"))
    assert {one.status for one in again} == {"unclear"}
    assert shop.did == did


async def test_what_can_not_be_undone_is_told() -> None:
    shop = Shop()
    with pytest.raises(ConfigurationError, match="no record"):
        await compensate(ExecutionResult(), shop.registry)
    result = await execute(shop.registry, "await order('a')")
    with pytest.raises(ConfigurationError, match=r"default\.order is not among the tools"):
        await compensate(result, create_registry())
