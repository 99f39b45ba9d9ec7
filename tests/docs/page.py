"""Runs a page of the documentation from top to bottom, as a reader would who types it in.

The blocks of a page share one namespace, one event loop and one folder:

- ``python`` runs. A comment at a ``print``, or in the lines below it, is what it prints. A block whose first line is
  ``# name.py`` is a file as well. One that returns at its top level is a program: it runs in the page's `registry`, and
  where the page has none yet, a model of the page writes it.
- ``output`` is what the block before it printed, or what a model is told of the program.
- ``console`` has commands after ``$``, and what they print. Installing is not done, but what is installed must exist.
  A command fails only where ``|| true`` stands behind it.
- ``json`` is read, ``text`` is a picture.

``...`` and ``…`` stand for any text. A block below ``<!-- not run: why -->`` is left out.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from toolchord import CodeSandbox

ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT / "core"), str(ROOT / "integrations")]
_DOCS = ROOT / "docs"
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]*) -->\n\n?)?(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_PRINTS = re.compile(r"^ *print\(.*\)(?:  # (.*)|((?:\n *# .*)*))$", re.MULTILINE)
_FILE = re.compile(r"# ([\w/]+\.py)\b")
_SAME = doctest.OutputChecker().check_output


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        kind: its language; of Python a "snippet" of the reader's own code, a "program" that a model writes, or the
            "shape" of some value.
        text: what stands there.
        line: where, in the page.
        why: why it is not run; empty if it is.
    """

    kind: str
    text: str
    line: int
    why: str = ""


def pages() -> list[str]:
    """All pages, as paths below docs; and the front page of the repository."""
    return [*sorted(str(path.relative_to(_DOCS)) for path in _DOCS.rglob("*.md")), "../README.md"]


def blocks(name: str) -> list[Block]:
    """The blocks of a page."""
    page = (_DOCS / name).read_text()
    return [
        _block(found["language"], found["text"], page[: found.start("text")].count("\n") + 1, found["why"] or "")
        for found in _BLOCK.finditer(page)
    ]


def _block(language: str, text: str, line: int, why: str) -> Block:
    text = textwrap.dedent(text)
    if language != "python":
        return Block(language, text, line, why)
    tree = ast.parse(text)
    if any(isinstance(statement, ast.Return) for statement in _own(tree.body)):
        return Block("program", text, line, why)
    match tree.body:
        case [ast.Expr(ast.Dict())]:
            return Block("shape", text, line, why)
    return Block("snippet", text, line, why)


def _own(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module that are in no function or class."""
    for statement in body:
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from _own(getattr(statement, part, ()))


def _said(text: str) -> tuple[list[str], bool]:
    """What a block prints, as its comments have it; and whether they have all of it."""
    told: list[str] = []
    whole = True
    for beside, below in _PRINTS.findall(text):
        lines = [beside] if beside else [line.strip().removeprefix("# ") for line in below.splitlines()[1:]]
        whole = whole and bool(lines)
        told += lines
    return told, whole and len(_PRINTS.findall(text)) == text.count("print(")


def agrees(expected: str, printed: str) -> bool:
    """Whether a text is what stands on the page, where ``...`` may be anything."""
    lines = "".join(line.rstrip() + "\n" for line in printed.strip().splitlines())
    return _SAME(expected.replace("…", "...").strip() + "\n", lines, doctest.ELLIPSIS)


class Reader:
    """Types in one block after another. Whatever model the page asks for is one that runs the page's program.

    Attributes:
        page: its name.
        names: the namespace.
        replace: texts of the page to texts that stand in for them here: addresses, mostly.
        before: a text to what happens in the world before a block that holds it is run.
        printed: what the last block printed, in lines.
    """

    def __init__(self, page: str = "") -> None:
        self.page = page
        self.module = ModuleType("page")
        self.names: dict[str, Any] = self.module.__dict__
        self.replace: dict[str, str] = {}
        self.before: dict[str, Callable[[Reader], Any]] = {}
        self.printed: list[str] = []
        self.program = ""
        self.models: list[Follower] = []
        self.untried: set[str] = set()
        self._runner = asyncio.Runner()

    def __enter__(self) -> Reader:
        sys.modules["page"] = self.module  # dataclasses look for theirs
        return self

    def __exit__(self, *_error: object) -> None:
        """End the page's event loop."""
        del sys.modules["page"]
        self._runner.close()

    def read(self, block: Block) -> None:
        """Run a snippet, run or learn a program, carry out commands, compare an output.

        Raises:
            AssertionError: it printed something else than the page says.
        """
        for text, instead in self.replace.items():
            block = block._replace(text=block.text.replace(text, instead))
        for text in [text for text in self.before if text in block.text]:
            self.wait(self.before.pop(text)(self))
        reading = getattr(self, f"_{block.kind}", None)
        assert reading, f"line {block.line}: a block needs one of the languages that page.py lists"
        if not block.why:
            reading(block)

    def wait(self, value: Any) -> Any:
        """The value of an awaitable, in the page's event loop; any other value as it is."""
        return self._runner.run(_awaited(value)) if inspect.isawaitable(value) else value

    def _snippet(self, block: Block) -> None:
        if named := _FILE.match(block.text):
            Path(named[1]).write_text(block.text)
        code = compile("\n" * (block.line - 1) + block.text, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        out = io.StringIO()
        with contextlib.redirect_stdout(out), self._modelled(block.text):
            self.wait(eval(code, self.names))
        self.printed = out.getvalue().splitlines()
        expected, whole = _said(block.text)
        if whole and expected:
            assert agrees("\n".join(expected), out.getvalue()), f"printed {self.printed}"
        else:
            lines = iter(self.printed)
            for said in expected:
                assert any(agrees(said, line) for line in lines), f"{said!r} is not among {self.printed}"

    def _program(self, block: Block) -> None:
        self.program = block.text
        if (registry := self.names.get("registry")) is None:
            self.untried.add(block.text)
            return

        async def run() -> str:
            async with CodeSandbox(registry) as sandbox:
                return (await sandbox.execute(block.text)).for_model()

        self.printed = self._runner.run(run()).splitlines()

    def _output(self, block: Block) -> None:
        assert agrees(block.text, "\n".join(self.printed)), f"printed {self.printed}"

    def _console(self, block: Block) -> None:
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
            may_fail = command.endswith(" || true")
            words = shlex.split(command.removesuffix(" || true"), comments=True)
            self.printed = _carried_out(words, may_fail).splitlines()
            assert not expected.strip() or agrees(expected, "\n".join(self.printed)), f"printed {self.printed}"

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _text(self, block: Block) -> None:
        """There is nothing to do in a picture."""

    def _shape(self, block: Block) -> None:
        """A dict, for the test of its page."""

    def _modelled(self, text: str) -> contextlib.AbstractContextManager[object]:
        if "init_chat_model" not in text:
            return contextlib.nullcontext()
        return mock.patch("langchain.chat_models.init_chat_model", self._model)

    def _model(self, name: str) -> Follower:
        provider, _, model = name.partition(":")
        assert provider
        assert model
        self.models.append(Follower(program=self._followed))
        return self.models[-1]

    def _followed(self) -> str:
        self.untried.discard(self.program)
        return self.program


async def _awaited(value: Any) -> Any:
    return await value


def environment() -> dict[str, str]:
    """For a process of its own: the sources of this tree come first."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*PATHS, *sys.path])}


def _carried_out(command: list[str], may_fail: bool) -> str:
    match command:
        case ["pip", "install", *what]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            for found in re.findall(r"^(?:toolchord|\.)\[(.*)\]$", "\n".join(what), re.MULTILINE):
                assert set(found.split(",")) <= set(extras), f"no such extra: {found}"
        case ["make", target, *_]:
            assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE), target
        case ["toolchord", *arguments]:
            return _printed([sys.executable, "-m", "toolchord", *arguments], may_fail)
        case ["python", *arguments]:
            return _printed([sys.executable, *arguments], may_fail)
        case _:
            raise AssertionError(f"what is {command}?")
    return ""


def _printed(command: list[str], may_fail: bool) -> str:
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert may_fail or ended.returncode == 0, ended.stderr
    return ended.stdout


class Follower(BaseChatModel):
    """A model that answers every question with one program, and what that returns with "done"."""

    program: Callable[[], str]
    told: list[Any] = []  # noqa: RUF012 - pydantic gives each model its own

    @property
    def _llm_type(self) -> str:
        return "follower"

    def bind_tools(self, tools: Sequence[Any], **_options: Any) -> Any:
        self.told[:] = tools
        return self.bind(tools=[tool.name for tool in tools])

    def _generate(self, messages: list[BaseMessage], *_args: Any, tools: Any = (), **_options: Any) -> ChatResult:
        if any(isinstance(message, AIMessage) for message in messages):
            said = AIMessage("done")
        elif "run_code" in tools:
            call = {"type": "tool_call", "id": "c1", "name": "run_code", "args": {"code": self.program()}}
            said = AIMessage("", tool_calls=[call])
        else:
            said = AIMessage(f"I'll run this:\n```python\n{self.program()}```")
        return ChatResult(generations=[ChatGeneration(message=said)])


def following(found: Sequence[Block], start: str) -> Iterator[Block]:
    """The blocks from the one on that holds some text."""
    seen = False
    for block in found:
        seen = seen or start in block.text
        if seen:
            yield block
    assert seen, f"no block holds {start!r}"
