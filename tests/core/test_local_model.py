# ruff: noqa: E501  (a program is kept as it was written)
"""What real small models wrote, word for word: its programs are found, and its conversations go the same way again.

The transcripts are of benchmarks/local_model.py; what each text's program is was checked by eye.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.local_model import TASKS, Task, do, outcomes
from toolchord import CodeSandbox, extract_program

CORPUS = json.loads((Path(__file__).parents[1] / "corpora" / "local_model.json").read_text())
TRANSCRIPTS: dict[str, dict[str, Any]] = {
    f"{run['run']}-{one['task']}": one for run in CORPUS for one in run["transcripts"]
}
REPLIES = [
    pytest.param(reply["text"], reply["program"], id=f"{name}-{turn}")
    for name, one in TRANSCRIPTS.items()
    for turn, reply in enumerate(one["replies"], 1)
]
each = pytest.mark.parametrize("one", TRANSCRIPTS.values(), ids=list(TRANSCRIPTS))


def says_again(one: dict[str, Any]) -> Callable[..., Any]:
    """The model, from its transcript; asked once more than it was then, it has nothing to say and fails the test."""
    texts: Iterator[str] = iter([reply["text"] for reply in one["replies"]])

    async def model(messages: list[dict[str, Any]]) -> str:
        return next(texts)

    return model


def task_of(one: dict[str, Any]) -> Task:
    (task,) = [task for task in TASKS if task.name == one["task"]]
    assert task.question == one["question"]
    return task


@pytest.mark.parametrize(("text", "program"), REPLIES)
def test_the_program_is_found_in_what_the_model_wrote(text: str, program: str | None) -> None:
    assert extract_program(text) == program


@each
async def test_its_conversation_goes_the_same_way_again(one: dict[str, Any]) -> None:
    task = task_of(one)
    run, shop = await do(task, says_again(one))
    assert outcomes(run) == one["results"]
    assert (run.stop, run.turns) == (one["stop"], one["turns"])
    assert json.loads(json.dumps(shop.done)) == one["done"]
    assert task.right(run, shop) is one["right"]


# Claude's programs for Anthropic's container: a tool takes one dict and gives JSON text, only what is printed comes back.

CONTAINER_STYLE = """\
import asyncio
import json

regions = ["West", "East", "Central"]
raw = await asyncio.gather(*[query_database({"sql": f"SELECT * FROM sales WHERE region = '{region}'"}) for region in regions])

results = {}
for region, text in zip(regions, raw):
    rows = json.loads(text)
    results[region] = sum(row["revenue"] for row in rows)

budget = json.loads(await get_budget({"quarter": "Q1", "unit": "EUR"}))
top_region, revenue = max(results.items(), key=lambda item: item[1])
print(f"Top region: {top_region} with {revenue:,} in revenue")
print(json.dumps({"over_budget": [r for r, amount in results.items() if amount > budget["limit"]]}))
"""
REVENUE = {"West": [1200, 300], "East": [4000, 250], "Central": [900]}


def rows_of(sql: str) -> list[dict[str, Any]]:
    region = sql.split("'")[1]
    return [{"region": region, "revenue": revenue} for revenue in REVENUE[region]]


async def get_budget(quarter: str, unit: str) -> str:
    """The budget of a quarter, as JSON text."""
    return json.dumps({"quarter": quarter, "unit": unit, "limit": 1000})


async def test_a_program_in_the_style_of_anthropics_container_runs_unchanged() -> None:
    async def query_database(sql: str) -> str:
        """Rows, as JSON text."""
        return json.dumps(rows_of(sql))

    async with CodeSandbox(tools=[query_database, get_budget]) as sandbox:
        result = await sandbox.execute(CONTAINER_STYLE)
    assert result.ok, result.error
    assert result.value is None
    assert result.stdout == 'Top region: East with 4,250 in revenue\n{"over_budget": ["West", "East"]}\n'
    assert [call.arguments for call in result.calls][-1] == {"quarter": "Q1", "unit": "EUR"}
    assert "Top region: East" in result.for_model()


async def test_one_whose_tool_gives_values_is_told_to_leave_json_loads_out() -> None:
    async def query_database(sql: str) -> list[dict[str, Any]]:
        """Rows."""
        return rows_of(sql)

    async with CodeSandbox(tools=[query_database, get_budget]) as sandbox:
        result = await sandbox.execute(CONTAINER_STYLE)
        assert not result.ok
        assert "Fix: it is data already: use text without json.loads" in result.for_model()
        mended = CONTAINER_STYLE.replace("json.loads(text)", "text")
        assert (await sandbox.execute(mended)).stdout.startswith("Top region: East with 4,250")
