"""Every block of every page runs, in order, and prints what the page says; what does not run is listed here."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.page import ROOT, Block, Reader, agrees, blocks, environment, pages
from tests.docs.settings import SETTINGS

# docs/langgraph.md asks a person and loses a process half-way: test_langgraph_page.py reads it.
PAGES = [page for page in pages() if page != "langgraph.md"]

# It sets what a process can set but once.
ALONE = {"telemetry.md"}

NOT_RUN = {
    ("migrate/chuk.md", "it needs chuk-tool-processor 0.26.1"): 1,
    ("migrate/langgraph-codeact.md", "it needs langgraph-codeact 0.1.3, which needs LangGraph before 0.4"): 1,
    ("migrate/smolagents.md", "it needs smolagents 1.26.0"): 1,
    ("timeline.md", "it needs a notebook"): 1,
    ("notebooks.md", "it clones the repository, and starts Jupyter"): 1,
}
"""Page and reason of the blocks that are left out, and how many there are."""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Somebody who has read nothing yet, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Reader()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page: str, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    if page in ALONE:
        return alone(page)
    reader.page = page
    setting = SETTINGS[page](reader, monkeypatch) if page in SETTINGS else contextlib.nullcontext()
    with reader, setting:
        for block in blocks(page):
            try:
                reader.read(block)
            except Exception as error:
                error.add_note(f"{page}, line {block.line}")
                raise
    assert not reader.before, "nothing on the page waits for this"
    assert not reader.untried, "no model of the page has written this program"


def alone(page: str) -> None:
    """Read a page in a process of its own."""
    code = "import sys\nfrom tests.docs.page import Reader, blocks\n"
    code += "with Reader() as reader:\n    for block in blocks(sys.argv[1]):\n        reader.read(block)"
    paths = os.pathsep.join([str(ROOT), environment()["PYTHONPATH"]])
    ended = subprocess.run(
        [sys.executable, "-c", code, page],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_what_is_not_run_is_known_and_says_why() -> None:
    left_out: dict[tuple[str, str], int] = {}
    for page in pages():
        for block in blocks(page):
            if block.why:
                left_out[page, block.why] = left_out.get((page, block.why), 0) + 1
    assert left_out == NOT_RUN


@pytest.mark.parametrize("page", pages())
def test_no_block_of_a_page_is_overlooked(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    assert 2 * len(blocks(page)) == len(re.findall(r"^ *```", text, re.MULTILINE))
    assert text.count("<!-- not run") == sum(bool(block.why) for block in blocks(page))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("snippet", "print(1 + 1)  # 3"),
        ("snippet", "for n in 1, 2:\n    print(n)\n    # 1\n    # 3"),
        ("snippet", "print('no', end=' ')\nprint(2)  # 3"),
        ("snippet", "unknown"),
        ("output", "3"),
        ("console", "$ pip install 'toolchord[unknown]'"),
        ("console", "$ make unknown\n"),
        ("console", "$ python -c 'print(2)'\n3\n"),
        ("console", "$ python -c 'raise SystemExit(2)'\n"),
        ("console", "$ unknown\n"),
        ("json", "{"),
        ("", "text of no language"),
    ],
)
def test_a_block_that_is_not_so_is_noticed(kind: str, text: str, reader: Reader) -> None:
    with reader:
        reader.read(Block("snippet", "print(1 + 1)  # 2", 1))
        with pytest.raises((AssertionError, NameError, ValueError)):
            reader.read(Block(kind, text + "\n", 1))


def test_a_program_runs_in_the_pages_registry_and_its_output_is_what_a_model_is_told(reader: Reader) -> None:
    with reader:
        reader.read(Block("snippet", "from toolchord import create_registry\nregistry = create_registry()", 1))
        reader.read(Block("program", "return 1 + 1", 4))
        reader.read(Block("output", "2\n", 6))
        with pytest.raises(AssertionError):
            reader.read(Block("output", "3\n", 6))


def test_three_dots_stand_for_any_text() -> None:
    assert agrees("a … c\n", "a b c\n")
    assert agrees("a\n...\nd", "a  \nb\nc\nd\n\n")
    assert not agrees("a ... d", "a b c")
