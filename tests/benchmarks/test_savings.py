"""The measured savings: figures are made again in part; page and picture show them; the counting is checked by hand."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.savings import bfcl, bfcl_backends, breakeven, expenses, fixed, flights, page, picture, tables
from benchmarks.savings.__main__ import main
from benchmarks.savings.figures import KEPT, WORKLOADS, Figures, chosen, measure
from benchmarks.savings.measure import Cost
from benchmarks.savings.ways import FAILED, ONE_A_TURN, PROGRAM, TOGETHER, WAYS, Attempt, Exchange, Task, breaking, run
from benchmarks.ways import CALLS, ROWS
from demo.recorded import Script, call
from demo.tokens import count
from toolchord import CodeSandbox, create_registry, format_tools_for_llm
from toolchord.instructions import PROGRAM_TOOL, instructions

STALE = "run `make savings ARGS=--write`, and look at what changed"


@pytest.fixture(scope="module")
def kept() -> Figures:
    return Figures.kept()


def some_tasks() -> list[tuple[str, Task]]:
    """All of the team expenses, and a part of the others, the losing ones among them."""
    picked = [("team expenses", task) for task in expenses.tasks()]
    picked += [("flights", task) for task in flights.tasks() if task.name in ("First stormy day", "One call is enough")]
    wanted = {f"multi_turn_base_{number}" for number in (0, 3, 40, 50, 90, 147, 199)}
    picked += [("BFCL multi-turn", task) for task in bfcl.tasks(wanted)]
    return picked + [(name, task) for name, task in chosen(["orders"]) if task.name.startswith("small")]


def test_the_figures_are_those_of_a_new_run(kept: Figures) -> None:
    picked = some_tasks()
    figures = asyncio.run(measure(picked))
    assert len(figures.costs) == 4 * len(picked) == 4 * (1 + 2 + 7 + 6)
    assert figures.wrong == []
    assert {key: kept.costs[key] for key in figures.costs} == figures.costs, STALE
    assert {key: kept.fixed[key] for key in figures.fixed} == figures.fixed, STALE


def test_the_figures_are_whole_and_right(kept: Figures) -> None:
    assert [len(kept.tasks(workload)) for workload in WORKLOADS] == [1, 7, 200, 18]
    assert len(kept.costs) == 226 * len(WAYS)
    assert kept.wrong == []
    assert Figures.loads(kept.dumps()) == kept
    assert kept.dumps() == KEPT.read_text()
    for workload, task in kept.fixed:  # every way makes the same calls
        calls = {kept.costs[workload, task, way].calls for way in (ONE_A_TURN, TOGETHER, PROGRAM)}
        assert len(calls) == 1, (workload, task)


def test_page_and_picture_show_the_figures(kept: Figures) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert {name for _, name, *_ in page.MARK.findall(text)} == set(page.BLOCKS)
    assert page.filled(text, kept) == text, STALE
    assert picture.digest(kept) in picture.FILE.read_text(encoding="utf-8"), STALE


def test_the_page_says_what_the_data_are(kept: Figures) -> None:
    text = " ".join(page.PAGE.read_text(encoding="utf-8").split())
    rows = [row for rows in expenses.accounts().values() for row in rows]
    characters = sum(len(json.dumps(rows, ensure_ascii=False)) for rows in expenses.accounts().values())
    assert f"{len(rows)} expense rows of {len(rows[0])} fields, {round(characters, -3):,} characters" in text
    turns = sum(kept.user_turns("BFCL multi-turn", task) for task in kept.tasks("BFCL multi-turn"))
    calls = kept.cost("BFCL multi-turn", ONE_A_TURN).calls
    assert f"200 conversations, {turns:,} things that the user says, {calls:,} ground-truth calls" in text
    results = [round(tables.sizes(kept, label, 5).result) for label in ROWS]
    assert f"results of {results[0]:,}, {results[1]:,} and {results[2]:,} tokens" in text


def test_the_picture_is_drawn(kept: Figures, tmp_path: Path) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    picture.draw(kept, first)
    picture.draw(kept, second)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text().startswith("<?xml")


def test_formulas_come_to_what_was_measured(kept: Figures) -> None:
    for label in ROWS:
        for calls in CALLS:
            sizes = tables.sizes(kept, label, calls)
            cost = {way: kept.costs["orders", f"{label}, {calls} calls", way] for way in WAYS}
            for again, out in ((1.0, 1.0), (0.1, 5.0)):
                price = {way: cost[way].priced(again, out) for way in WAYS}
                assert breakeven.together(sizes, calls, again, out) == pytest.approx(price[TOGETHER])
                assert breakeven.one_program(sizes, again, out) == pytest.approx(price[PROGRAM])
                # the results of the customers differ by a token or two
                assert breakeven.one_a_turn(sizes, calls, again, out) == pytest.approx(price[ONE_A_TURN], rel=0.01)
                more = calls > breakeven.break_even(sizes, again, out)
                assert more == (price[PROGRAM] < price[TOGETHER]), (label, calls)


def one_task(answer: str | None = None) -> Task:
    registry = create_registry()

    async def double(number: int) -> int:
        """Twice a number."""
        return 2 * number

    registry.add(double)

    def script() -> Script:
        [four] = yield [call("double", number=2)]
        eight, six = yield [call("double", number=four), call("double", number=3)]
        return eight + six

    program = "four = await double(number=2)\nreturn await double(number=four) + await double(number=3)"
    exchanges = [Exchange("Add.", script, program, answer), Exchange("And?", script, "", "Nothing more.")]
    return Task(
        "sum", "Be brief.", exchanges, lambda: Attempt(registry, lambda answers: answers[0] != (answer or "14"))
    )


async def test_tokens_are_counted_as_by_hand() -> None:
    task = one_task()
    tools = fixed.of_task(task)
    called = count("double") + count('{"number": 2}')
    words = {text: count(text) for text in ("Be brief.", "Add.", "14", "And?", "Nothing more.", "4", "8", "6")}
    told = words["Be brief."] + tools.definitions + words["Add."]
    first, second = called + words["4"], 2 * called + words["8"] + words["6"]
    async with CodeSandbox() as sandbox:
        together, program = [await run(task, way, sandbox) for way in (TOGETHER, PROGRAM)]
    last = told + first + second + words["14"] + words["And?"]
    assert together == Cost(
        requests=4,
        calls=3,
        fixed=told - words["Add."],
        tokens_in=told + (told + first) + (told + first + second) + last,
        tokens_out=3 * called + words["14"] + words["Nothing more."],
        again=told + (told + first) + (told + first + second),
    )
    registry = task.begin().registry
    rules = instructions(format_tools_for_llm(registry), tool=True, system="Be brief.")
    offered = count(rules) + count(json.dumps([PROGRAM_TOOL], separators=(",", ":")))
    written = count("run_code") + count(json.dumps({"code": task.exchanges[0].program}))
    assert program == Cost(
        requests=3,
        calls=3,
        programs=1,
        fixed=offered,
        tokens_in=3 * (offered + words["Add."]) + 2 * (written + words["14"]) + words["14"] + words["And?"],
        tokens_out=written + words["14"] + words["Nothing more."],
        again=2 * (offered + words["Add."]) + written + words["14"],
    )


async def test_a_failed_program_is_counted_and_calls_nothing_twice() -> None:
    async with CodeSandbox() as sandbox:
        once, twice = [await run(one_task(), way, sandbox) for way in (PROGRAM, FAILED)]
    assert (twice.programs, twice.calls, twice.requests) == (2, 3, once.requests + 1)
    assert twice.tokens > once.tokens


def test_a_mistake_stands_before_every_return_but_those_of_functions() -> None:
    program = "def f():\n    return 1\nfor x in [1]:\n    if x:\n        return f()\nreturn 2"
    assert breaking(program).split("\n") == [
        *("def f():", "    return 1", "for x in [1]:", "    if x:"),
        *('        {}["total"]', "        return f()", '{}["total"]', "return 2"),
    ]


async def test_wrong_answers_and_effects_are_noticed() -> None:
    [task] = bfcl.tasks(["multi_turn_base_0"])
    spoiled = [
        dataclasses.replace(exchange, program=exchange.program.replace("'temp'", "'tmp'"))
        for exchange in task.exchanges
    ]
    [team] = expenses.tasks()
    lax = dataclasses.replace(team.exchanges[0], program=team.exchanges[0].program.replace('"approved"', '"pending"'))
    async with CodeSandbox() as sandbox:
        assert (await run(dataclasses.replace(task, exchanges=spoiled), PROGRAM, sandbox)).wrong > 1
        assert (await run(dataclasses.replace(team, exchanges=[lax]), PROGRAM, sandbox)).wrong == 1
        fewer = dataclasses.replace(task, exchanges=task.exchanges[:-1])
        assert (await run(fewer, ONE_A_TURN, sandbox)).wrong > 1


def test_arguments_that_only_a_result_can_tell_are_read_from_it() -> None:
    results = [(1, {"user_id": "USR042", "status": True}), (2, {"found": [{"price": 150.75}]})]
    known = "send it to ann for 12 dollars; she has 1,200 of them\n"
    written = [
        ("USR042", "r1['user_id']", {1}),
        (150.75, "r2['found'][0]['price']", {2}),
        ("It costs $150.75.", "'It costs $' + str(r2['found'][0]['price']) + '.'", {2}),
        ("Ann", "'Ann'", set()),
        (12, "12", set()),
        (1200, "1200", set()),
        (True, "True", set()),
        (["USR042"], "['USR042']", set()),
    ]
    for value, text, needs in written:
        assert bfcl.written(value, known, results) == (text, needs)
    assert bfcl.written(1200, known, [(1, 1200)]) == ("1200", set())  # people write 1,200


def test_plain_calls_wait_for_what_they_need() -> None:
    step = bfcl.Step("look", {}, {"id": 7}, {}, False)
    needing = bfcl.Step("book", {"id": 7}, True, {"id": "r1['id']"}, True)
    script = bfcl.script([step, needing, step])
    assert [one.name for one in next(script)] == ["look"]
    assert [one.name for one in script.send([])] == ["book", "look"]
    names = {"look": "look", "book": "book_"}
    assert bfcl.program([step], names) == "return await look()"
    assert bfcl.program([step, needing], names).splitlines() == [
        *("r1 = await look()", "r2 = await book_(id=r1['id'])", "return [r1, r2]")
    ]


def told(*argv: str) -> tuple[int, str]:
    out = io.StringIO()
    return main(argv, Console(file=out, width=200)), out.getvalue()


def test_the_command_shows_the_figures_and_compares_them(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    code, text = told("--workload", "team expenses", "--json", str(file))
    assert code == 0
    assert re.search(r"one program +2 +11 +\d+ +[\d,]+ +\N{MINUS SIGN}99", text)
    assert "All figures are those that are kept." in text
    rows = json.loads(file.read_text())
    assert [row["way"] for row in rows] == list(WAYS)
    assert all(row["wrong"] == 0 and row["tools"]["tools"] == 3 for row in rows)


def test_figures_that_changed_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: Figures) -> None:
    kept = Figures.loads(kept.dumps())
    kept.costs["team expenses", "team expenses", PROGRAM].tokens_in += 1
    other = tmp_path / "kept.json"
    other.write_text(kept.dumps())
    monkeypatch.setattr("benchmarks.savings.figures.KEPT", other)
    code, text = told("--workload", "team expenses")
    assert code == 1
    assert "1 figures are not those that are kept" in text
    tokens = kept.costs["team expenses", "team expenses", PROGRAM].tokens
    assert f"team expenses / team expenses / one program: {tokens:,} kept, {tokens - 1:,} measured" in text


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--limit", "0"], "--limit must be at least 1"),
        (["--write", "--limit", "1"], "--write takes all workloads"),
        (["--workload", "chess"], "invalid choice: 'chess'"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert says in capsys.readouterr().err


def test_missing_data_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bfcl, "HOME", tmp_path)
    code, text = told("--workload", "BFCL multi-turn")
    assert code == 2
    assert "run `make savings`, which installs bfcl-eval there" in " ".join(text.split())
    monkeypatch.setattr(bfcl_backends, "PACKAGES", tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mpmath", raising=False)
    with pytest.raises(FileNotFoundError, match="mpmath"):
        bfcl_backends.backend.__wrapped__("MathAPI")
