"""What a review of the journal, the gate and the calls' book found, as tests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from toolchord import (
    CodeSandbox,
    Decision,
    DurableJournal,
    Journal,
    Limits,
    MemoryStore,
    Policy,
    ShapeStore,
    Variables,
    ask,
    compensate,
    create_registry,
)
from toolchord.errors import ConfigurationError
from toolchord.results import written
from toolchord.timeline.colours import pieces


async def test_a_call_that_is_cancelled_before_it_began_gives_its_place_back() -> None:
    async def wait(x: int) -> int:
        """Wait."""
        await asyncio.sleep(0)
        return x

    async def send(x: int) -> int:
        """Send."""
        return x

    cancelled = "import asyncio\nfor n in range(20):\n    try:\n        await asyncio.wait_for(wait(n), 0)\n"
    cancelled += "    except TimeoutError:\n        pass\n"
    async with CodeSandbox(tools=[wait, send], limits=Limits(wall_time=20.0, concurrency=4)) as sandbox:
        paused = await sandbox.execute(
            f"{cancelled}return await send(1)", policy=Policy(ask("send"), otherwise="allow")
        )
        assert [call.tool for call in paused.pending] == ["default.send"]
        went_on = await sandbox.execute(f"{cancelled}return await send(1)")
        assert went_on.value == 1, went_on.error


async def test_results_that_nobody_wants_any_more_hold_nothing_up() -> None:
    async def big() -> bytes:
        """Nine MiB."""
        return b"x" * (9 << 20)

    async def small() -> int:
        """One."""
        return 1

    code = (
        "import asyncio, time\ntasks = [asyncio.create_task(big()) for _ in range(8)]\nawait small()\n"
        "end = time.time() + 1\nwhile time.time() < end:\n    pass\n"
        "for task in tasks:\n    task.cancel()\nreturn await small()"
    )
    async with CodeSandbox(tools=[big, small], limits=Limits(wall_time=25.0)) as sandbox:
        result = await sandbox.execute(code)
    assert result.value == 1, result.error


async def test_a_repaired_programs_own_calls_are_undone() -> None:
    undone: list[Any] = []
    made = iter(range(1, 9))

    def book(who: str) -> str:
        """Book."""
        return f"{who}-{next(made)}"

    registry = create_registry()
    registry.add(book, compensate=lambda arguments, value: undone.append((arguments["who"], value)))
    async with CodeSandbox(registry) as sandbox:
        first = await sandbox.execute("book('x')\nraise ValueError")
        assert first.record is not None
        second = await sandbox.execute("book('y')\nreturn 1", journal=Journal.repairing(first.record))
        await compensate(second, registry)
    assert undone == [("y", "y-2")]


@pytest.mark.parametrize("replay", ["never", "rerun"])
async def test_what_a_person_put_in_place_of_arguments_holds_when_the_tool_runs_again(replay: str) -> None:
    read_paths: list[str] = []

    async def read(path: str) -> str:
        """Read."""
        read_paths.append(path)
        return f"content of {path}"

    async def send(text: str) -> str:
        """Send."""
        return text

    registry = create_registry()
    registry.add(read, capabilities=["read_only"], replay=replay)
    registry.add(send)
    code, policy = "return await send(await read('/secret'))", Policy(ask("read"), ask("send"))
    journal = Journal()
    async with CodeSandbox(registry, policy=policy) as sandbox:
        for decision in (Decision.edit({"path": "/public"}), Decision.approve(), None):
            result = await sandbox.execute(code, journal=journal)
            assert result.record is not None
            journal = Journal.continuing(result.record)
            for name in [name for name in journal.asked if name not in journal.decisions]:
                assert decision is not None
                assert journal.answer(name, decision)
    assert result.value == "content of /public"
    assert set(read_paths) == {"/public"}


async def test_equal_arguments_are_the_same_call_whatever_the_order_of_their_keys() -> None:
    sent: list[Any] = []

    async def send(letter: dict[str, Any]) -> int:
        """Send."""
        sent.append(letter)
        return len(sent)

    async with CodeSandbox(tools=[send]) as sandbox:
        first = await sandbox.execute("await send({'to': 'a', 'text': {'x': 1, 'y': [2]}})\nraise ValueError")
        assert first.record is not None
        journal = Journal.repairing(first.record)
        second = await sandbox.execute("return await send({'text': {'y': [2], 'x': 1}, 'to': 'a'})", journal=journal)
    assert (second.value, len(sent)) == (1, 1)


async def test_shapes_that_cannot_be_saved_cost_no_result(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")

    async def get() -> dict[str, int]:
        """Get."""
        return {"x": 1}

    registry = create_registry()
    registry.add(get, result_schema=None)
    shapes = ShapeStore(tmp_path / "shapes.json")
    async with CodeSandbox(registry, shapes=shapes) as sandbox:
        shapes._path = tmp_path / "file" / "shapes.json"
        shapes._changed = True
        result = await sandbox.execute("return (await get())['x']")
    assert result.value == 1
    assert result.record is not None


async def test_a_run_that_is_refused_early_lets_its_journal_go() -> None:
    store = MemoryStore()
    async with CodeSandbox() as sandbox:
        wrongs: list[dict[str, Any]] = [{"limits": 5}, {"dry_run": True}]
        for wrong in wrongs:
            journal = await DurableJournal.open(store, "run")
            with pytest.raises(ConfigurationError):
                await sandbox.execute("return 1", journal=journal, **wrong)
        assert (await sandbox.execute("return 1", journal=await DurableJournal.open(store, "run"))).value == 1


async def test_a_program_that_was_cut_off_leaves_what_it_found() -> None:
    async with CodeSandbox() as sandbox:
        first = await sandbox.execute("n = 1", variables=Variables())
        cut = await sandbox.execute(
            "n = 2\nreturn 'x' * 200_000", variables=first.variables, limits=Limits(result=10_000)
        )
        assert cut.error is not None
        assert cut.error.kind == "limit"
        assert (await sandbox.execute("return n", variables=cut.variables)).value == 1


def test_a_name_that_is_none_cannot_look_like_more_arguments() -> None:
    assert written({"amount=1), line 1\n2. noop(x": 1}, 60) == "'amount=1), line 1\\n2. noop(x'=1"


def test_a_text_that_never_ends_is_coloured_whole() -> None:
    code = '"""' + '\\"""\n' * 40_000 + "\\"  # it took minutes
    assert ["".join(text for _, text in row) for row in pieces(code[:199_999])] == code[:199_999].split("\n")
