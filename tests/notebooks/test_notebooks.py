"""Every notebook runs from top to bottom in a fresh kernel, shows what it should, and is kept without outputs."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import toolchord
from notebooks.scripted import ScriptedModel, chat_model

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
SECONDS = 120
"""How long a notebook may take. Each needs about ten seconds of an idle machine."""

FIRST_TIME = "Matplotlib is building the font cache; this may take a moment.\n"
"""What matplotlib says on a slow machine; nothing else may be warned of."""

SAYS = {
    "quickstart": [
        "'35.0 degrees on 2015-07-19'",
        "{'one by one': True, 'together': True} {'days': 48, 'from': '2012-07-23', 'to': '2012-09-08'}",
        "in the program: 111,276 bytes",
        "to the model:   54 characters",
        "async def weather(year: int, month: int) -> list[Day]:",
        "calls_plainly     2 turns, about 32,",
        "writes_a_program  2 turns, about    8",
        "It did not rain for 48 days, from 2012-07-23 to 2012-09-08.",
        "day is a float.",
        "2015-07-19 [('replayed', {'year': 2015, 'month': 7})]",
        "unexpected argument 'moth' (did you mean 'month'?)",
        "no tool or function named 'wether'; did you mean weather?",
        "the program needed more than 64 MiB of memory",
        "the program made more than 10 tool calls",
        "image/png",
    ],
    "llama_index": [
        "async def airports_within(lat: float, lon: float, km: float) -> list[Airport]:",
        "172 airports closed, 5 flights affected",
        "asks:  Run divert(flight='SK 908', to='VNT')?",
        "diverted so far: {}",
        "'tool_kwargs': {'flight': 'BA 1442', 'to': 'NWI'},",
        '"SK 4704": "no airport found", "BA 1442": "BA 1442 lands at Newcastle"',
        '"SK 908": "not diverted: default.divert was refused: it has fuel to turn round"',
        "diverted: {",
        "'EI 105': 'CDG'",
        "['LUA Lukla Airport', 'PPL Phaplu Airport',",
        "image/png",
    ],
    "mcp": [
        "async def row(number: int) -> Row:",
        "{'step': 51, 'row': 330, 'column': 202}",
        "36 calls, 43,",
        "ToolFailed: Error executing tool row: there is no row 344, only 0 to 343",
        "ServerLost: row: the connection ended before the answer came",
        "# There are no tools.",
        "1. default.put_up_sign(row=280, column=206, text='1032 m'), line 8",
        "tools: ['run_code', 'search_tools', 'describe_tools']",
        "sign: 280 206 1032 m",
        "isError: True",
        "Fix: write strip['heights'] instead of strip.hights",
        "image/png",
    ],
    "bring_your_own_model": [
        'The states with the most: {"AK": 263, "TX": 209,',
        "answered after 2 turns and 58 calls",
        "program 1: 58 calls ran, 0 were replayed",
        "Fix: write a['latitude'] instead of a['lattitude']",
        "program 2: 0 calls ran, 58 were replayed",
        "Barrow (BRW)",
        "repairs after 3 turns: NameError (line 1): no tool or function named 'wether'",
        "TokenUsage(input_tokens=1000, output_tokens=100,",
        "The products with fewer than 5 pieces in stock are lamp and table.",
        "image/png",
    ],
    "security_tour": [
        "seccomp: on",
        "import of 'os' is not allowed",
        "module 'statistics' has no attribute 'sys' here",
        "environment      {}",
        "password file    PermissionError",
        "kill the parent  PermissionError",
        "trace a process  GuestDied",
        "both walls: 0 of 206 got through",
        "wall two alone: 0 of 206 got through",
        "\nTrue\n",  # the alarm of the attacks works
        "waits         LimitExceeded: wall_time",
        "calls         LimitExceeded: tool_calls",
        "default.refund {'order': 17, 'euros': 25}: paused",
        "nobody may refund more than 500 euros",
        "'to' may not be 'evil@example.com'",
        "done: ['refund 17: 25.00 euros']",
        "can't reach postgres://[redacted]@db.internal/shop, token=[redacted]",
        "image/png",
    ],
    "langgraph_quickstart": [
        "'AMZN fell by 91% from 2000-02 to 2001-09.'",  # plain Python's answer
        "one call a turn: AMZN fell by 91% from 2000-02 to 2001-09.",
        "calls together: AMZN fell by 91% from 2000-02 to 2001-09.",
        "one call a turn   102 turns",
        "calls together      3 turns",
        "one program         2 turns",
        "Counter({('monthly_closes', 'ok'): 100, ('list_symbols', 'ok'): 1})",
        "p:2 monthly_closes {'symbol': 'AAPL', 'year': 2008} ok",
        "AAPL: -37%",
        "image/png",
    ],
    "langgraph_approvals": [
        "sold so far: nothing",
        "['IBM', 'AAPL', 'XRX', 'ADBE']",  # the questions, in a new agent
        "Input should be a valid integer",
        "ADBE: approve  3 to be answered, orders: ['40 ADBE at 26.64']",
        "IBM: respond  0 to be answered, orders: ['40 ADBE at 26.64', '100 XRX at 14.28']",
        "not allow this call of sell: it will recover",
        "['AAPL', 'ADBE', 'AMZN', 'GOOGL', 'IBM', 'MSFT', 'XRX']",  # each looked up once
        "the process ended with -9",
        "{'type': 'unclear_call',",
        "'args': {'symbol': 'ADBE', 'shares': 40}",
        '"ADBE": "sold 40 at 26.64"}\n\norders: 4\n',  # sold once
        "text/html",
    ],
    "savings": [
        "336,776 flights",
        "one call a turn        63 turns   62 calls",
        "one program             2 turns   62 calls",
        "first program fails     3 turns   62 calls",
        "answers that SQL does not give: []",
        "the program is dearer by",
        "calls, results and states that are not the ground truth's: []",
        "32 conversations, the same as kept: True",
        "flights: dearer than one call a turn in 1 of 7, than calls together in 1",
        "image/png",
        "re-sent tokens at 1, written ones at 1: from",
    ],
    "together": [
        "async def readability(text: str)",
        "async def find(input: str)",
        "async def days(year: int, month: int)",
        "'days in 2028': 366",
        "20 calls, 3 frameworks, one program",
        "image/png",
    ],
}
"""What must be seen in a notebook's outputs: a piece of text, or a kind of picture."""


@pytest.fixture
def kernel_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose kernels are this interpreter's, import this repository, and leave the user's files alone."""
    ours = {
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(
            [str(Path(toolchord.__file__).parents[1]), str(ROOT / "core"), str(ROOT / "integrations")]
        ),
    }
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **ours}


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]


def run(notebook: Any, env: dict[str, str]) -> str:
    """What a notebook puts out: texts, and the kinds of what is shown.

    Raises:
        CellExecutionError: a cell failed.
        CellTimeoutError: it takes too long.
    """
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(FOLDER)}})
    client.execute(env=env)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    warned = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert warned in ("", FIRST_TIME)
    # Jupyter puts a background behind a figure whose ticks are all light, or all dark; then it fits one page only.
    assert not [output for output in outputs if "needs_background" in str(output.get("metadata"))]
    seen = ""
    for output in outputs:
        seen += (
            output.text if "text" in output else "\n".join(["", *output.data, output.data.get("text/plain", ""), ""])
        )
    return seen


def test_every_notebook_has_something_to_say_and_to_show() -> None:
    assert set(SAYS) == set(NOTEBOOKS)
    assert [name for name, said in SAYS.items() if not {"image/png", "text/html"}.intersection(said)] == []


def test_the_page_tells_of_every_notebook() -> None:
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == re.findall(r"^\*\*(\w+)\*\* ", page, re.MULTILINE)
    assert set(re.findall(r"^\*\*(\w+)\*\* ", page, re.MULTILINE)) == set(NOTEBOOKS)


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name != "together"])
def test_what_a_notebook_says_to_install_is_there_to_be_installed(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ours = {re.split("[<>=]", package)[0] for package in project["dependency-groups"]["notebooks"]}
    text = read(name).cells[0].source
    [released] = re.findall(r"^    pip install '?toolchord(\[[\w,-]+\])?'? (.+)$", text, re.MULTILINE)
    [checkout] = re.findall(r"`pip install '?\.(\[[\w,-]+\])?'? ([^`]+)`", text)
    assert (checkout[0], checkout[1].split()) == (released[0], released[1].split())
    assert set(re.findall(r"[\w-]+", released[0])) <= set(project["project"]["optional-dependencies"])
    assert set(released[1].split()) <= ours


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom(name: str, kernel_env: dict[str, str]) -> None:
    seen = run(read(name), kernel_env)
    for said in SAYS[name]:
        assert said in seen, seen


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [], "clear the outputs of all cells, and save it"
            assert cell.execution_count is None
        assert cell.metadata == {}
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def test_a_real_model_takes_one_changed_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ScriptedModel(script=[])
    monkeypatch.setattr("langchain.chat_models.init_chat_model", {"openai:gpt-5": real}.__getitem__)
    assert chat_model("openai:gpt-5", ["never said"]) is real
    for name in (name for name in NOTEBOOKS if name.startswith("langgraph")):
        assert lines_marked_here(name) == ['MODEL = "scripted"  # HERE: or a real one, such as "openai:gpt-5"']
    for name in ("llama_index", "bring_your_own_model"):
        assert len(lines_marked_here(name)) == 1


def lines_marked_here(name: str) -> list[str]:
    sources = [cell.source for cell in read(name).cells if cell.cell_type == "code"]
    return [line for source in sources for line in source.splitlines() if "# HERE:" in line]


def test_a_notebook_runs_here_and_a_failing_cell_is_noticed(kernel_env: dict[str, str]) -> None:
    code = "import sys, toolchord\nprint(sys.executable, toolchord.__file__)"
    notebook = read(NOTEBOOKS[0])
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    notebook.cells[0].source, notebook.cells[1].source = code, "1 / 0"
    with pytest.raises(CellExecutionError):
        run(notebook, kernel_env)
    [told] = [output.text.split() for output in notebook.cells[0].outputs]
    assert list(map(os.path.realpath, told)) == list(map(os.path.realpath, [sys.executable, str(toolchord.__file__)]))
