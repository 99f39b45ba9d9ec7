"""What a review found in runs that outlive their process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from toolchord import CallIdentity, CodeSandbox, DurableJournal, MemoryStore, Unclear, Variables
from toolchord.errors import CallPaused
from toolchord.recording import Outcome

CALL = CallIdentity(1, "default.pay", "0" * 64, 1)


async def test_an_attempt_that_could_not_be_opened_is_not_going_on() -> None:
    class Store(MemoryStore):
        loads = 0

        async def load(self, run: str) -> Mapping[str, bytes]:
            self.loads += 1
            if self.loads == 4:  # after the claim
                raise OSError("no connection")
            return await super().load(run)

    store = Store()
    await (await DurableJournal.open(store, "run")).end()
    with pytest.raises(OSError, match="no connection"):
        await DurableJournal.open(store, "run")
    assert (await DurableJournal.open(store, "run")).attempt == 3


async def test_a_call_that_paused_began_again_and_was_cut_off_is_not_repeated() -> None:
    """An adapter that gets an answer within the attempt calls again; the first pause says nothing of the second try."""
    store = MemoryStore()
    journal = await DurableJournal.open(store, "run")
    tries: list[str] = []

    async def produce() -> Outcome:
        await journal.starting(CALL)
        tries.append("pay")
        if len(tries) == 1:
            raise CallPaused("wait")
        raise KeyboardInterrupt  # the process ends in the middle of it

    with pytest.raises(CallPaused):
        await journal.call(CALL, produce, repeatable=False)
    with pytest.raises(KeyboardInterrupt):
        await journal.call(CALL, produce, repeatable=False)
    await journal.end()
    journal = await DurableJournal.open(store, "run")
    with pytest.raises(CallPaused) as paused:
        await journal.call(CALL, produce, repeatable=False)
    assert isinstance(paused.value.reason, Unclear)
    assert tries == ["pay", "pay"]


paid: list[int] = []


async def pay(amount: int) -> str:
    """Pay."""
    paid.append(amount)
    return f"paid {amount}"


@pytest.fixture
def sandbox() -> Iterator[CodeSandbox]:
    paid.clear()
    with CodeSandbox(tools=[pay]) as made:
        yield made


DEF = "def f():\n    return 1\n"


@pytest.mark.parametrize(
    "programs",
    [
        [f"{DEF}if True:\n    def f():\n        return 2\nreturn f()"],
        [f"{DEF}def change():\n    global f\n    f = lambda: 2\nchange()\nreturn f()"],
        [f"{DEF}for f in [lambda: 2]:\n    pass\nreturn f()"],
        [f"{DEF}return f()", "def twice(g):\n    return lambda: g() * 2\nf = twice(f)\nreturn f()"],
        ["import json as f\nclass F:\n    def __call__(self):\n        return 2\nf = F()\nreturn f()"],
    ],
)
async def test_a_name_does_not_come_back_as_something_that_it_no_longer_was(
    programs: list[str], sandbox: CodeSandbox
) -> None:
    variables = Variables()
    for code in programs:
        result = await sandbox.execute(code, variables=variables)
        assert result.variables is not None
        variables = result.variables
    assert result.value == 2
    assert "f" in variables.lost
    assert "f" not in variables.names


async def test_a_function_that_is_defined_again_comes_back_as_it_is_now(sandbox: CodeSandbox) -> None:
    first = await sandbox.execute(f"{DEF}f = lambda: 2\nreturn f()", variables=Variables())
    assert (await sandbox.execute("return f()", variables=first.variables)).value == 2


BEGINS = """\
import asyncio, threading, time
async def later(amount):
    await pay(amount=amount)
def sleeps(amount):
    time.sleep(0.01)
    pay(amount=amount)
class Base:
    def __init_subclass__(cls):
        if armed:
            asyncio.ensure_future(later(1))
            asyncio.get_event_loop().call_soon(lambda: asyncio.ensure_future(later(2)))
            threading.Thread(target=sleeps, args=(3,)).start()
armed = False
class Derived(Base):
    pass
armed = True
"""


async def test_definitions_that_come_back_call_nothing_later_either(sandbox: CodeSandbox) -> None:
    first = await sandbox.execute(BEGINS, variables=Variables())
    assert first.error is None
    second = await sandbox.execute("await asyncio.sleep(0.1)\nreturn Derived.__name__", variables=first.variables)
    assert (second.value, second.calls, paid) == ("Derived", [], [])


async def test_a_guest_can_not_leave_more_than_it_may() -> None:
    """The bound is the host's: a guest behind no wall one says what it likes."""
    code = """\
from toolchord_guest import wire, worker
link = worker._guest.link
link.send(wire.Kept(link.encode({"data": {"x": b"x" * 300_000}, "definitions": {}, "lost": {}})))
"""
    with CodeSandbox(language="unrestricted") as sandbox:
        result = await sandbox.execute(code, variables=Variables())
    assert result.error is not None
    assert result.error.kind == "protocol"
    assert "300,000 bytes of variables" in result.error.message
    assert result.variables == Variables()
