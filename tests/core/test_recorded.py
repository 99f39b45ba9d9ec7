"""A run that was kept: replayed offline, compared with another, and made into a regression test."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from toolchord import CodeSandbox, ExecutionResult, Limits, Policy, Trace, ask, create_registry
from toolchord.comparing import compare
from toolchord.errors import ConfigurationError
from toolchord.results import shown
from toolchord.testing import load_run, misfits, regression_test, replayed

pytestmark = pytest.mark.asyncio(loop_scope="module")


class World:
    """Tools whose answers can be changed, and that count what they do."""

    def __init__(self) -> None:
        self.factor = 1
        self.ran = 0

    async def price(self, item: str) -> dict[str, Any]:
        """What an item costs."""
        self.ran += 1
        return {"item": item, "price": len(item) * self.factor}

    async def fail(self) -> None:
        """Fails."""
        raise ValueError("no")


@pytest.fixture
def world() -> World:
    return World()


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox(world: World) -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(tools=[world.price, world.fail]) as made:
        yield made


CODE = "rows = [await price(item) for item in ['tea', 'milk']]\nreturn sum(r['price'] for r in rows)"


def kept(result: ExecutionResult, path: Path) -> Path:
    result.trace().save(path)
    return path


async def test_a_kept_run_replays_without_its_tools(sandbox: CodeSandbox, world: World, tmp_path: Path) -> None:
    path = kept(await sandbox.execute(CODE), tmp_path / "run.json")
    assert world.ran == 2
    again = replayed(path)
    assert (again.value, world.ran) == (7, 2)


async def test_a_bare_record_is_a_run_too(sandbox: CodeSandbox, tmp_path: Path) -> None:
    result = await sandbox.execute(CODE)
    assert result.record is not None
    (tmp_path / "record.json").write_text(result.record.to_json())
    trace = load_run(tmp_path / "record.json")
    assert (trace.status, trace.value, trace.code) == ("ok", "7", CODE)
    assert [(call.line, call.tool) for call in trace.calls] == [(1, "default.price")] * 2
    assert not compare(result.trace(), trace)


@pytest.mark.parametrize(
    "code",
    [
        "raise KeyError('x')",
        "await fail()",
        "import os",
        "return (",
        "try:\n    await fail()\nexcept ValueError:\n    return 'caught'",
        "import random, uuid\nreturn [random.random(), str(uuid.uuid4())]",
        "import asyncio\nt = asyncio.create_task(price('x'))\nawait asyncio.sleep(0)\nreturn 1",  # nobody waits for it
        "return {1: (1, 2.5), 'a': {3}, 'n': None, 'b': b'x'}",
        "return float('nan')",
        "print('only printed')",
        "return {'tea', 'milk', 'bread', 'salt'}",
        "return 10 ** 5000",
    ],
)
async def test_every_kind_of_run_replays_to_the_same_end(sandbox: CodeSandbox, tmp_path: Path, code: str) -> None:
    result = await sandbox.execute(code)
    again = replayed(kept(result, tmp_path / "run.json"))
    assert shown(again.value) == shown(result.value)  # nan is not itself, and some integers are not written
    assert again.error == result.error


async def test_runs_that_were_cut_off_replay_as_far_as_they_went(sandbox: CodeSandbox, tmp_path: Path) -> None:
    code = f"a = await price('tea')\nb = await price('pie')\n{CODE}"
    policy = Policy(ask("price", when=lambda given: given["item"] == "pie"), otherwise="allow")
    paused = await sandbox.execute(code, policy=policy)
    assert paused.pending
    assert len(replayed(kept(paused, tmp_path / "paused.json")).calls) == 2
    changed = load_run(tmp_path / "paused.json")
    assert changed.record is not None
    changed.record.code = code.replace("tea", "pea", 1)
    changed.save(tmp_path / "changed.json")
    with pytest.raises(AssertionError, match="replays in another way"):
        replayed(tmp_path / "changed.json")
    sleeps = "await price('tea')\nimport asyncio\nawait asyncio.sleep(60)"
    cut = await sandbox.execute(sleeps, limits=Limits(wall_time=0.3))
    assert len(replayed(kept(cut, tmp_path / "cut.json")).calls) == 1


async def test_a_changed_record_is_found_out(sandbox: CodeSandbox, tmp_path: Path) -> None:
    trace = (await sandbox.execute(CODE)).trace()
    assert trace.record is not None
    for other in (
        msgspec.structs.replace(trace, value="8", end=""),
        msgspec.structs.replace(trace, stdout="more", end=""),
        msgspec.structs.replace(trace, end="of something else"),
        msgspec.structs.replace(trace, record=msgspec.structs.replace(trace.record, code=CODE.replace("milk", "salt"))),
        msgspec.structs.replace(trace, record=msgspec.structs.replace(trace.record, events=trace.record.events[:1])),
    ):
        other.save(tmp_path / "run.json")
        with pytest.raises(AssertionError, match="replays in another way"):
            replayed(tmp_path / "run.json")


async def test_the_difference_of_two_runs_says_what_and_where(sandbox: CodeSandbox, world: World) -> None:
    one = (await sandbox.execute(CODE)).trace()
    assert compare(one, (await sandbox.execute(CODE)).trace()).same
    world.factor = 2
    other = compare(one, (await sandbox.execute(CODE)).trace())
    assert other.program == ()
    changed = "{'item': 'tea', 'price': 3}, then {'item': 'tea', 'price': 6}"
    assert other.calls[0] == f"~ line 1: price(item='tea') -> {changed}"
    assert other.ending == ("value: '7', then '14'",)
    world.factor = 1
    longer = compare(one, (await sandbox.execute(CODE.replace("'milk'", "'salt', 'oil'"))).trace())
    assert [line[0] for line in longer.calls] == ["-", "+", "+"]
    assert any(line.startswith("+rows") for line in longer.program)
    assert "value" in str(longer)


async def test_what_a_trace_does_not_show_counts_too(sandbox: CodeSandbox) -> None:
    for one, other in (("return 1", "return '1'"), ("return None", "return 'null'")):
        assert compare((await sandbox.execute(one)).trace(), (await sandbox.execute(other)).trace()).ending
    text = "print('a' * 30_000 + {!r} + 'a' * 30_000)"
    first, second = [(await sandbox.execute(text.format(word))).trace() for word in ("x", "y")]
    assert compare(first, second).ending == (
        "value or output: they differ where this trace does not show them, or in their types",
    )


async def test_a_set_is_the_same_in_every_process(sandbox: CodeSandbox, tmp_path: Path) -> None:
    path = kept(await sandbox.execute("return {str(n) for n in range(50)}"), tmp_path / "run.json")
    code = f"from toolchord.testing import replayed; print(len(replayed({str(path)!r}).value))"
    for seed in "123":
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed}
        ended = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env
        )
        assert ended.stdout == "50\n", ended.stderr


async def test_the_difference_is_told_in_a_bounded_way(sandbox: CodeSandbox) -> None:
    one = (await sandbox.execute("for n in range(300):\n    await price(f'a{n}')")).trace()
    other = (await sandbox.execute("for n in range(300):\n    await price(f'b{n}')")).trace()
    text = str(compare(one, other))
    assert "and 550 more" in text
    assert text.count("\n") < 80


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"code": ""}', "\0"])
async def test_what_is_no_run_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigurationError, match="not a trace"):
        load_run(tmp_path / "run.json")
    with pytest.raises(ConfigurationError, match="can't be read"):
        load_run(tmp_path / "nothing.json")


async def test_a_trace_without_a_record_can_only_be_looked_at(sandbox: CodeSandbox, tmp_path: Path) -> None:
    (await sandbox.execute(CODE)).trace().save(tmp_path / "run.json", record=False)
    assert load_run(tmp_path / "run.json").value == "7"
    with pytest.raises(ConfigurationError, match="holds no record"):
        replayed(tmp_path / "run.json")


async def test_calls_that_todays_tools_would_not_take(sandbox: CodeSandbox) -> None:
    trace = (await sandbox.execute(f"await price(item='x')\n{CODE}")).trace()

    async def price(item: str, currency: str = "EUR") -> dict[str, Any]:
        """What an item costs."""
        return {}

    async def renamed(article: str) -> dict[str, Any]:
        """What an item costs."""
        return {}

    assert misfits(trace, [price]) == []
    registry = create_registry()
    registry.add(renamed, name="price")
    changed = misfits(trace, registry)
    assert changed[0].startswith("line 1: price:")
    assert "did you mean" in changed[0] or "missing argument 'article'" in changed[0]
    assert len(changed) == 1  # what is given by position still fits
    gone = misfits(trace, [renamed])
    assert "no tool named 'default.price'" in gone[0] or "no tool named 'price'" in gone[0]
    assert len(gone) == 3


@pytest.mark.parametrize("code", [CODE, "await fail()", "return float('nan')"])
async def test_the_regression_test_passes_and_fails_when_the_run_would_differ(
    sandbox: CodeSandbox, tmp_path: Path, code: str
) -> None:
    trace = (await sandbox.execute(code)).trace()
    trace.save(tmp_path / "test_bug.json")
    test = tmp_path / "test_bug.py"
    test.write_text(regression_test(trace, "test_bug.json", name="test_bug"))
    passed = await asyncio.to_thread(pytest_on, test)
    assert passed.returncode == 0, passed.stdout
    assert "1 passed" in passed.stdout
    changed = json.loads((tmp_path / "test_bug.json").read_text())
    changed["record"]["code"] = "return 'something else'"
    (tmp_path / "test_bug.json").write_text(json.dumps(changed))
    failed = await asyncio.to_thread(pytest_on, test)
    assert failed.returncode == 1
    assert "replays in another way" in failed.stdout


def pytest_on(test: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(test)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=test.parent, env=env)


async def test_the_text_of_a_regression_test(sandbox: CodeSandbox) -> None:
    trace = (await sandbox.execute(CODE)).trace()
    assert "    assert run.value == 7\n" in regression_test(trace, "run.json")
    named = regression_test(trace, "odd name.json", name="odd name!", tools="shop.tools:registry")
    assert "def test_odd_name() -> None:" in named
    assert "load_tools(['shop.tools:registry'])" in named
    compile(named, "test", "exec")
    assert isinstance(Trace.from_json(trace.to_json()), Trace)
