"""Processes that are killed while a graph runs, and others that go on: a file tells what really happened."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.langgraph.shop import forget

ROOT = Path(__file__).parents[3]
HOW = ("async", "sync")

TWO = """\
import asyncio
first = await pay(1)
rest = await asyncio.gather(ask("x"), pay(3), look("b"), ask("y"))
return [first, *rest, await pay(4)]
"""


class Threads:
    """Starts a process for each step of a thread."""

    def __init__(self, **task: Any) -> None:
        self._task = task

    async def step(self, give: Any, *, die: str = "") -> dict[str, Any]:
        """Run a process to its end; what it said."""
        code, out, errors = await self._run({**self._task, "give": give, "die": die})
        assert code == 0, errors
        said: dict[str, Any] = json.loads(out.splitlines()[-1])
        return said

    async def dies(self, give: Any, *, die: str = "") -> None:
        """Run a process that must be killed on its way."""
        code, out, errors = await self._run({**self._task, "give": give, "die": die})
        assert code == -signal.SIGKILL, (code, out, errors)

    async def _run(self, task: dict[str, Any]) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integrations.langgraph.worker",
            json.dumps(task),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate()
        return process.returncode, out.decode(), errors.decode()


@pytest.fixture
def task(tmp_path: Path, ledger: Path, postgres: str) -> dict[str, Any]:
    return {"path": str(tmp_path / "threads.db"), "ledger": str(ledger), "postgres": postgres}


@pytest.mark.parametrize(
    ("saver", "kind", "how"),
    [
        ("sqlite", "node", "async"),
        ("sqlite", "agent", "sync"),
        ("postgres", "node", "sync"),
        ("postgres", "agent", "async"),
    ],
)
async def test_killed_while_two_approvals_wait(
    saver: str, kind: str, how: str, task: dict[str, Any], ledger: Path
) -> None:
    threads = Threads(**task, saver=saver, kind=kind, how=how, code=TWO)
    await threads.dies("go", die="paused")
    assert forget(ledger) == ["look b", "pay 1", "pay 3"]
    asked = await threads.step("on")
    assert asked["asks"] == ["x", "y"]
    assert forget(ledger) == []
    asked = await threads.step({"y": "yes-y"})  # in reverse order, each in a process of its own
    assert asked["asks"] == ["x"]
    assert forget(ledger) == ["ask y yes-y"]
    ended = await threads.step({"x": "yes-x"})
    assert forget(ledger) == ["ask x yes-x", "pay 4"]
    assert ended["texts"] == ['["paid 1", "yes-x", "paid 3", {"key": "b"}, "yes-y", "paid 4"]']


MIDDLE = "a = [await pay(1), await pay(3), await look('a')]\nreturn [*a, await pay(199), await pay(5)]"


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("saver", ["sqlite", "postgres"])
async def test_killed_in_the_middle_of_a_call_that_acts(
    saver: str, how: str, task: dict[str, Any], ledger: Path
) -> None:
    """The newest result is not lost, and the call that was cut off is not repeated unless somebody says so."""
    threads = Threads(**task, saver=saver, kind="node", how=how, code=MIDDLE)
    await threads.dies("go")
    assert forget(ledger) == ["look a", "pay 1", "pay 199", "pay 3"]
    asked = await threads.step("on")
    assert asked["asks"] == ["unclear_call c1:4"]
    assert forget(ledger) == []
    ended = await threads.step({"unclear_call c1:4": {"type": "respond", "message": "it was paid"}})
    assert forget(ledger) == ["pay 5"]
    assert ended["texts"] == ['["paid 1", "paid 3", {"key": "a"}, "it was paid", "paid 5"]']


@pytest.mark.parametrize(
    ("said", "gave", "did"),
    [
        ({"type": "repeat"}, '"paid 199", "paid 5"', ["pay 199", "pay 5"]),
        ({"type": "give_up", "message": "stop"}, "CallDenied", []),
    ],
)
async def test_what_became_of_a_call_is_for_a_person_to_say(
    said: Any, gave: str, did: list[str], task: dict[str, Any], ledger: Path
) -> None:
    threads = Threads(**task, saver="sqlite", kind="node", how="async", code=MIDDLE)
    await threads.dies("go")
    await threads.step("on")
    forget(ledger)
    ended = await threads.step({"unclear_call c1:4": said})
    assert gave in ended["texts"][0]
    assert forget(ledger) == did


@pytest.mark.parametrize("how", HOW)
async def test_killed_in_the_middle_of_a_call_that_only_reads(how: str, task: dict[str, Any], ledger: Path) -> None:
    code = "return [await pay(1), await look('99'), await pay(5)]"
    threads = Threads(**task, saver="sqlite", kind="node", how=how, code=code)
    await threads.dies("go")
    ended = await threads.step("on")
    assert forget(ledger) == ["look 99", "look 99", "pay 1", "pay 5"]
    assert ended["texts"] == ['["paid 1", {"key": "99"}, "paid 5"]']


@pytest.mark.parametrize("how", HOW)
async def test_an_approval_is_no_answer_to_what_became_of_a_call(how: str, task: dict[str, Any], ledger: Path) -> None:
    """The call was approved, began, and was cut off: the old yes must not start it again."""
    threads = Threads(**task, saver="sqlite", kind="node", how=how, code="return await pay(299)")
    asked = await threads.step("go")
    assert asked["asks"] == ["tool_approval c1:1"]
    await threads.dies({"tool_approval c1:1": {"type": "approve"}})
    assert forget(ledger) == ["pay 299"]
    asked = await threads.step("on")
    assert asked["asks"] == ["unclear_call c1:1"]
    assert forget(ledger) == []


@pytest.mark.parametrize("how", HOW)
async def test_a_call_that_nobody_has_approved_is_never_unclear(how: str, task: dict[str, Any], ledger: Path) -> None:
    """It is written down when its tool is about to run, not when it is asked about."""
    code = "import asyncio\nreturn await asyncio.gather(pay(2), pay(299))"
    threads = Threads(**task, saver="sqlite", kind="node", how=how, code=code)
    asked = await threads.step("go")
    assert asked["asks"] == ["tool_approval c1:1", "tool_approval c1:2"]
    await threads.dies({"tool_approval c1:2": {"type": "approve"}})
    assert forget(ledger) == ["pay 299"]
    asked = await threads.step("on")
    assert asked["asks"] == ["tool_approval c1:1", "unclear_call c1:2"]
    assert forget(ledger) == []
