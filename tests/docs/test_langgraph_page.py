"""Every Python block of docs/langgraph.md runs as it stands there, one after another."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.cut_off import THREAD
from tests.docs.page import Reader, blocks, following

PAGE = blocks("langgraph.md")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Somebody who has read nothing yet, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    with Reader("langgraph.md") as reader:
        yield reader


def same_shape(text: str, value: Any) -> None:
    """The value has the keys that stand there, and what is said of them is so; ``...`` says nothing."""
    [statement] = ast.parse(text).body
    assert isinstance(statement, ast.Expr)
    said = ast.literal_eval(statement.value)
    assert list(value) == list(said)
    for key, part in said.items():
        assert part in ("...", value[key]), key


def test_the_page_runs_from_top_to_bottom(reader: Reader) -> None:
    asked: list[Any] = []
    for block in PAGE:
        if block.kind == "shape":
            same_shape(block.text, asked.pop(0))
            continue
        if "careful.invoke(None" in block.text:
            cut_off_in(Path.cwd())
            reader.names["thread"] = THREAD
        reader.read(block)
        if stopped := reader.names.get("stopped"):
            asked = [question.value for question in stopped.get("__interrupt__", ())]
    names = reader.names
    assert not names["careful"].get_state(names["thread"]).next  # what was asked about is answered
    calls = names["ended"]["messages"][2].artifact["calls"]
    assert [(call["args"].get("order"), call["replayed"]) for call in calls[:2]] == [(None, True), (1, True)]
    assert len(calls) == 3
    events = [line.split()[0] + " " + line.split()[-1] for line in reader.printed]
    assert sorted(events) == ["c1:1 ok", "c1:1 running", "c1:2 ok", "c1:2 running", "c1:3 ok", "c1:3 running"]


def test_each_way_of_the_page_runs_the_program(reader: Reader) -> None:
    paid: list[int] = []
    for block in PAGE:
        reader.read(block)
        if refund := reader.names.get("refund"):
            refund.func = lambda order: paid.append(order)
        if any(f"{name}.invoke(question" in block.text for name in ("graph", "agent", "deep")):
            assert sorted(paid) == [1, 3]
            paid.clear()
        if "deep.invoke" in block.text:  # its own tools are in the programs' reach
            [told] = [tool.description for tool in reader.models[0].told if tool.name == "run_code"]
            assert all(f"async def {name}(" in told for name in ("refund", "read_file", "task"))
        if "unaided" in block.text:
            assert sorted(paid) == [1, 1, 3, 3]  # with tool calling, and without
            return


def test_what_the_page_says_of_answers_is_so(reader: Reader) -> None:
    """The table of decisions: what the program gets for each; and that a wrong answer changes nothing."""
    from langgraph.types import Command
    from pydantic import ValidationError

    for block in PAGE:
        reader.read(block)
        if "careful" in reader.names:
            break
    reader.program = (
        "try:\n    got = refund(order=1)\nexcept Exception as error:\n    got = [type(error).__name__, str(error)]\n"
        "return got"
    )
    careful, question = reader.names["careful"], reader.names["question"]
    answers: list[tuple[dict[str, Any], str]] = [
        ({"type": "approve"}, "order 1 is paid back"),
        ({"type": "edit", "edited_action": {"name": "refund", "args": {"order": 2}}}, "order 2 is paid back"),
        ({"type": "reject", "message": "no"}, '["RejectedError", "a person did not allow this call of refund: no"]'),
        ({"type": "respond", "message": {"paid": 5}}, '{"paid": 5}'),
    ]
    for number, (answer, got) in enumerate(answers):
        thread = {"configurable": {"thread_id": str(number)}}
        careful.invoke(question, thread)
        with pytest.raises(ValidationError):
            careful.invoke(Command(resume={"type": "yes"}), thread)
        assert careful.invoke(Command(resume=answer), thread)["messages"][2].content == got


def test_a_block_that_needs_others_does_not_run_without_them(reader: Reader) -> None:
    with pytest.raises(NameError):
        reader.read(next(following(PAGE, "CodeOrchestrator(")))


def cut_off_in(folder: Path) -> None:
    """Let another process die in the middle of a call."""
    paths = os.pathsep.join(map(os.path.abspath, (ROOT, ROOT / "core", ROOT / "integrations")))
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.cut_off"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
