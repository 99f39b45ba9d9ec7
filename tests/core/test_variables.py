"""Variables that outlive their process: what comes back is what it was, and what can't is named."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolchord import CodeSandbox, ExecutionResult, Limits, Variables
from toolchord.errors import ConfigurationError

pytestmark = pytest.mark.asyncio(loop_scope="module")

ran: list[int] = []


async def fetch(x: int) -> dict[str, list[int]]:
    """Fetch rows."""
    ran.append(x)
    return {"rows": [x]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(tools=[fetch], limits=Limits(wall_time=20)) as sandbox:
        yield sandbox


async def then(sandbox: CodeSandbox, *programs: str, **options: Any) -> ExecutionResult:
    """Programs one after another, each in a process of its own; the last one's result."""
    variables = Variables()
    for code in programs:
        result = await sandbox.execute(code, variables=variables, **options)
        assert result.error is None, result.error
        assert result.variables is not None
        variables = Variables.from_bytes(result.variables.to_bytes())
    return result


async def test_data_functions_classes_and_imports_come_back(sandbox: CodeSandbox) -> None:
    first = """\
import math, json as j
from dataclasses import dataclass
x = [1, {"a": (1, 2)}]
@dataclass
class Point:
    '''A point.'''
    a: int = 1
    def double(self):
        return 2 * self.a
def total(y=3):
    return math.floor(y) + len(x)
async def rows(i):
    return (await fetch(i)).rows
half = lambda n: n / 2
d = await fetch(1)
"""
    second = "x.append(3)\nreturn [total(2.5), j.dumps(d), Point(4).double(), x, d.rows, await rows(2), half(3)]"
    result = await then(sandbox, first, second)
    assert result.value == [5, '{"rows": [1]}', 8, [1, {"a": (1, 2)}, 3], [1], [2], 1.5]
    result = await then(sandbox, first, second, "return x, Point(5).double()")
    assert result.value == ([1, {"a": (1, 2)}, 3], 10)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=20)
        | st.binary(max_size=20)
        | st.datetimes(timezones=st.none() | st.just(dt.UTC))
        | st.dates()
        | st.timedeltas()
        | st.decimals(allow_nan=False)
        | st.uuids(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
            | st.frozensets(st.integers() | st.text(max_size=5), max_size=4)
        ),
        max_leaves=12,
    )
)
async def test_data_is_what_it_was(sandbox: CodeSandbox, value: Any) -> None:
    first = await sandbox.execute("kept = given", inputs={"given": value}, variables=Variables())
    assert first.variables is not None
    assert first.variables.lost == {}
    again = await sandbox.execute("return kept, given == kept", inputs={"given": value}, variables=first.variables)
    assert again.value == (value, True)


LOST = {
    "p = Thing()": ("p", "a Thing"),
    "g = total": ("g", "define it with def"),
    "c = Counter('aab')": ("c", "a Counter"),
    "f = (i for i in range(3))": ("f", "a generator"),
    "nest = [1, Thing()]": ("nest", "a list that holds more than plain data"),
    "loop = []\nloop.append(loop)": ("loop", "a list that holds more than plain data"),
    "big = 'x' * 300_000": ("big", "bytes; at most 262,144 are kept in all"),
}


@pytest.mark.parametrize("code", LOST)
async def test_what_can_not_be_kept_is_named(sandbox: CodeSandbox, code: str) -> None:
    name, reason = LOST[code]
    before = "from collections import Counter\nclass Thing: pass\ndef total(): return 1\nother = 5\n"
    result = await sandbox.execute(before + code, variables=Variables())
    assert result.variables is not None
    assert reason in result.variables.lost[name]
    assert f"Not kept for the next program, which keeps plain data: {name} (" in result.for_model()
    assert "other" in result.variables.data
    after = await sandbox.execute(f"return other, {name}", variables=result.variables)
    assert after.error is not None
    assert after.error.type == "NameError"


async def test_restoring_calls_no_tool(sandbox: CodeSandbox) -> None:
    ran.clear()
    first = await sandbox.execute("def f(x=fetch(7)):\n    return x\nreturn f()", variables=Variables())
    assert ran == [7]
    second = await sandbox.execute("return 'f' in dir() if False else 1", variables=first.variables)
    assert ran == [7]
    assert "f of an earlier program could not be restored: RuntimeError: no tool can be called" in second.stderr


async def test_a_program_that_is_cut_off_leaves_what_it_found(sandbox: CodeSandbox) -> None:
    first = await sandbox.execute("a = 1", variables=Variables())
    cut = await sandbox.execute(
        "a = 2\nwhile True: pass", variables=first.variables, limits=Limits(wall_time=20, cpu_time=0.3)
    )
    assert cut.error is not None
    assert cut.error.kind == "limit"
    assert (await sandbox.execute("return a", variables=cut.variables)).value == 1
    failed = await sandbox.execute("a = 3\n1 / 0", variables=first.variables)
    assert (await sandbox.execute("return a", variables=failed.variables)).value == 3


async def test_definitions_are_restored_behind_the_language_policy(sandbox: CodeSandbox) -> None:
    forged = Variables(definitions={"f": "def f():\n    return ().__class__.__base__.__subclasses__()"})
    result = await sandbox.execute("return 1", variables=forged)
    assert result.value == 1
    assert "could not be restored" in result.stderr
    assert (await sandbox.execute("return f()", variables=forged)).error is not None
    endless = Variables(definitions={"f": "def f(x=[i for i in iter(int, 1)]): pass"})
    limits = Limits(wall_time=20, cpu_time=0.3)
    result = await sandbox.execute("return 1", variables=endless, limits=limits)
    assert result.value == 1
    assert "The variable f of an earlier program could not be restored: LimitExceeded: " in result.for_model()
    assert result.variables == Variables()
    cut = await sandbox.execute("while True: pass", variables=endless, limits=limits)
    assert cut.error is not None
    assert cut.error.limit == "cpu_time"
    assert cut.variables == Variables()
    assert "could not be restored" in cut.for_model()


async def test_too_little_time_costs_no_definition(sandbox: CodeSandbox) -> None:
    """That is the run's own limit: the machine may just be busy."""
    busy = Variables({"n": b"\x01"}, {"f": "def f(x=sum(range(50_000_000))): return 1"})
    cut = await sandbox.execute("return f()", variables=busy, limits=Limits(wall_time=0.05))
    assert cut.error is not None
    assert cut.error.limit == "wall_time"
    assert cut.variables == busy
    assert "could not be restored" not in cut.for_model()


async def test_what_hangs_without_working_is_given_up_too() -> None:
    """Nothing that wall one lets through can do that; behind wall two alone a guest reads what never comes."""
    hung = Variables({"n": b"\x01"}, {"F": "class F:\n    import os\n    os.read(3, 1)"})
    with CodeSandbox(language="unrestricted", limits=Limits(wall_time=11)) as sandbox:
        result = await sandbox.execute("return n", variables=hung)
    assert result.value == 1
    assert "F of an earlier program could not be restored: LimitExceeded: wall_time: restoring" in result.stderr


async def test_bytes_that_are_no_variables_are_refused(sandbox: CodeSandbox) -> None:
    with pytest.raises(ConfigurationError, match="hold no variables"):
        Variables.from_bytes(b"nonsense")
    broken = await sandbox.execute("return 1", variables=Variables(data={"x": b"\xc1"}))
    assert broken.value == 1
    assert "The variable x of an earlier program could not be restored" in broken.stderr
    assert broken.variables == Variables()


async def test_nothing_is_kept_unless_it_is_asked_for(sandbox: CodeSandbox) -> None:
    assert (await sandbox.execute("x = 1")).variables is None


async def test_a_program_with_variables_replays(sandbox: CodeSandbox) -> None:
    result = await then(sandbox, "import math\ndef f(x): return math.floor(x)\ny = 2.5", "return f(y)")
    assert result.record is not None
    assert (await sandbox.replay(result.record)).value == 2
