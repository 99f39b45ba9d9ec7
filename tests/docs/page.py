"""Runs the Python of a page of the documentation, top to bottom, as a reader would who types it in."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest import mock

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

_DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PRINTS = re.compile(r"^ *print\(.*\)(?:  # (.*)|((?:\n *# .*)*))$", re.MULTILINE)


class Block(NamedTuple):
    """A block of Python.

    Attributes:
        kind: a snippet of the reader's own code, a program that a model writes, or the shape of some value.
        text: what stands there.
        line: where, in the page.
    """

    kind: Literal["snippet", "program", "shape"]
    text: str
    line: int


def blocks(name: str) -> list[Block]:
    """The blocks of a page."""
    page = (_DOCS / name).read_text()
    return [_block(found[1], page[: found.start(1)].count("\n") + 1) for found in _BLOCK.finditer(page)]


def _block(text: str, line: int) -> Block:
    tree = ast.parse(text)
    if any(isinstance(statement, ast.Return) for statement in tree.body):
        return Block("program", text, line)
    match tree.body:
        case [ast.Expr(ast.Dict())]:
            return Block("shape", text, line)
    return Block("snippet", text, line)


def _said(text: str) -> Iterator[str]:
    """What a block prints, as the comments at its prints, or in the lines after them, have it."""
    for beside, below in _PRINTS.findall(text):
        yield from [beside] if beside else (line.strip().removeprefix("# ") for line in below.splitlines()[1:])


class Reader:
    """Types in one block after another. Whatever model the page asks for is one that runs the page's program."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed: list[str] = []
        self.program = ""
        self.models: list[Follower] = []

    def read(self, block: Block) -> None:
        """Run a snippet, or learn a program.

        Raises:
            AssertionError: it printed something else than its comments say.
        """
        if block.kind == "program":
            self.program = block.text
        elif block.kind == "snippet":
            out = io.StringIO()
            with mock.patch("langchain.chat_models.init_chat_model", self._model), contextlib.redirect_stdout(out):
                exec(compile("\n" * (block.line - 1) + block.text, "page", "exec"), self.names)
            self.printed = out.getvalue().splitlines()
            if expected := list(_said(block.text)):
                assert self.printed == expected

    def _model(self, name: str) -> Follower:
        provider, _, model = name.partition(":")
        assert provider
        assert model
        self.models.append(Follower(program=lambda: self.program))
        return self.models[-1]


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
