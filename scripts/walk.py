"""Follows start pages like a new user: a clean environment, the built wheel, the page's commands and snippets.

``python -m scripts.walk [page.md ...]`` builds the wheel, follows each page of docs/start to its end in an environment
of its own, and prints the time that each took. What it makes of a page's blocks:

- ``console``: commands after ``$``. `pip install toolchord[...]` installs the wheel with these extras. What a command
  prints must be what stands below it; ``...`` and ``…`` are any text. `make` needs the repository and is left out.
- ``python`` whose first line is ``# name.py`` is saved as that file, and is read by the interpreter that runs the
  page's other snippets, all in one namespace. A block that returns at its top level is a model's program: not run here.
- ``output``: what the command or snippet before it printed.

A snippet that needs a model (an API key, a server) is left out with all snippets after it, and the walk says so. Such
snippets are run against real SDKs and local servers by the tests of the pages.
"""

from __future__ import annotations

import argparse
import ast
import doctest
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_FILE = re.compile(r"# ([\w/]+\.py)\b")
_COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
_NEEDS_A_MODEL = re.compile(r"\b[A-Z]+_API_KEY\b|\binit_chat_model\b|base_url=")
_WHEEL = re.compile(r"toolchord(\[[\w,-]+\])?")
_SAME = doctest.OutputChecker().check_output

# Runs in the reader's environment: a snippet a line, as JSON; the answer is what it printed, or its error.
_TYPIST = """
import ast, asyncio, contextlib, io, json, sys, traceback, types
sys.path.insert(0, "")
page = sys.modules["page"] = types.ModuleType("page")
names, runner = page.__dict__, asyncio.Runner()
async def waited(value):
    return await value
for told in sys.stdin:
    line, text = json.loads(told)
    out, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(out):
            code = compile("\\n" * (line - 1) + text, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            value = eval(code, names)
            if value is not None:
                runner.run(waited(value))
    except BaseException:
        error = traceback.format_exc()
    print(json.dumps([out.getvalue(), error]), flush=True)
"""


class Failed(Exception):
    """A page could not be followed to its end; says where and why."""


class Block(NamedTuple):
    """A fenced block of a page: its language, text and line, and whether it needs a model to answer."""

    language: str
    text: str
    line: int
    needs_a_model: bool


@dataclass
class Walked:
    """How a page was followed.

    Attributes:
        page: its path.
        extras: what was installed beside the core, such as "[mcp]".
        install: seconds that the environment and the installation took.
        follow: seconds that everything else took.
        done: how many commands and snippets were run.
        left_out: lines of the page whose snippets need a model.
    """

    page: str
    extras: str = ""
    install: float = 0.0
    follow: float = 0.0
    done: int = 0
    left_out: list[int] = field(default_factory=list)


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in _BLOCK.finditer(text):
        section = text.rfind("\n## ", 0, found.start())
        about = text[max(section, 0) : found.end()]
        inside = found["text"]
        needs = found["language"] == "python" and not _FILE.match(inside) and bool(_NEEDS_A_MODEL.search(about))
        yield Block(found["language"], inside, text.count("\n", 0, found.start("text")) + 1, needs)


def build(folder: Path) -> Path:
    """The wheel of this tree."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


class Walk:
    """One page, one environment, one folder.

    Args:
        page: the page's file.
        folder: an empty one, for what the reader makes.
        wheel: what `pip install toolchord` installs.
        python: an interpreter whose environment takes the place of a new one; nothing is installed into it then.
    """

    def __init__(self, page: Path, folder: Path, wheel: Path, python: Path | None = None) -> None:
        self.page = page
        self.folder = folder
        self.wheel = wheel
        self.python = python
        name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name
        self.walked = Walked(name)
        self._typist: subprocess.Popen[str] | None = None
        self._printed = ""

    def to_its_end(self) -> Walked:
        """Follow the page.

        Raises:
            Failed: a command or snippet did not do what the page says.
        """
        begun = time.monotonic()
        found = list(blocks(self.page.read_text()))
        if self.python is None:
            self._make_environment()
            if not any("pip install" in block.text for block in found):
                self._install(["toolchord"])
        self.walked.install = time.monotonic() - begun
        begun, installed = time.monotonic(), self.walked.install
        try:
            for block in found:
                self._read(block)
        finally:
            self._stop()
        self.walked.follow = time.monotonic() - begun - (self.walked.install - installed)
        return self.walked

    def _read(self, block: Block) -> None:
        if block.language == "console":
            for command, expected in _COMMAND.findall(block.text):
                self._carry_out(shlex.split(command, comments=True), block.line)
                if expected.strip():
                    self._compare(expected, block.line)
        elif block.language == "output":
            self._compare(block.text, block.line)
        elif block.language == "python" and not _is_program(block.text):
            if named := _FILE.match(block.text):
                path = self.folder / named[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            if block.needs_a_model or self.walked.left_out:
                self.walked.left_out.append(block.line)
            else:
                self._type(block)

    def _carry_out(self, command: list[str], line: int) -> None:
        match command:
            case ["pip", "install", *what]:
                begun = time.monotonic()
                self._install(what)
                self.walked.install += time.monotonic() - begun
                return
            case ["make", *_]:
                return
            case ["python", *rest]:
                command = [str(self._python), *rest]
            case ["toolchord", *rest]:
                command = [str(self._python.with_name("toolchord")), *rest]
            case _:
                raise Failed(f"{self.walked.page}:{line}: no reader is told to run {command[0]!r} here")
        self._printed = self._run(command, line)
        self.walked.done += 1

    def _make_environment(self) -> None:
        # Beside the folder, not in it: the reader's folder is theirs.
        home = self.folder.with_name(self.folder.name + "-env")
        venv.create(home, with_pip=True)
        self.python = home / "bin" / "python"

    @property
    def _python(self) -> Path:
        assert self.python is not None
        return self.python

    def _install(self, what: Sequence[str]) -> None:
        """What a `pip install` line says, the wheel in place of `toolchord`."""
        extras = [found[1] or "" for part in what if (found := _WHEEL.fullmatch(part))]
        self.walked.extras = ", ".join(filter(None, [self.walked.extras, *extras]))
        parts = [_WHEEL.sub(rf"toolchord\1 @ {self.wheel.as_uri()}", part) for part in what]
        if self._python.parent.parent == self.folder.with_name(self.folder.name + "-env"):
            self._run([str(self._python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *parts], 0)

    def _run(self, command: list[str], line: int) -> str:
        ran = subprocess.run(
            command, cwd=self.folder, env=_environment(), text=True, capture_output=True, timeout=600, check=False
        )
        if ran.returncode:
            raise Failed(f"{self.walked.page}:{line}: {shlex.join(command)} ended with {ran.returncode}:\n{ran.stderr}")
        return ran.stdout

    def _type(self, block: Block) -> None:
        if self._typist is None:
            self._typist = subprocess.Popen(
                [str(self._python), "-c", _TYPIST],
                cwd=self.folder,
                env=_environment(),
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self._typist.stdin is not None
        assert self._typist.stdout is not None
        self._typist.stdin.write(json.dumps([block.line, block.text]) + "\n")
        self._typist.stdin.flush()
        answer = self._typist.stdout.readline()
        if not answer:
            raise Failed(f"{self.walked.page}:{block.line}: the interpreter ended")
        self._printed, error = json.loads(answer)
        if error is not None:
            raise Failed(f"{self.walked.page}:{block.line}:\n{error}")
        self.walked.done += 1

    def _compare(self, expected: str, line: int) -> None:
        printed = "".join(each.rstrip() + "\n" for each in self._printed.strip().splitlines())
        if not _SAME(expected.replace("…", "...").strip() + "\n", printed, doctest.ELLIPSIS):
            raise Failed(f"{self.walked.page}:{line}: the page says\n{expected}\nbut this was printed:\n{printed}")

    def _stop(self) -> None:
        if self._typist is not None:
            self._typist.communicate()


def _is_program(text: str) -> bool:
    """Whether a block is a program that a model writes: it returns, but in no function."""
    try:
        compile(text, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        return "'return' outside function" in str(error)
    return False


def _environment() -> dict[str, str]:
    """A new user's: no key, nothing of this tree."""
    hidden = re.compile(r"_API_KEY$|^PYTHON(?!UNBUFFERED)|^VIRTUAL_ENV$")
    return {name: value for name, value in os.environ.items() if not hidden.search(name)}


def pages() -> list[Path]:
    """The start pages; the repository's front page while there are none."""
    found = [page for page in sorted((ROOT / "docs" / "start").glob("*.md")) if page.name != "index.md"]
    return found or [ROOT / "README.md"]


def main(arguments: Sequence[str]) -> int:
    """Follow the pages named, else all; prints a line for each. 0 if each was followed to its end."""
    parser = argparse.ArgumentParser(prog="scripts.walk", description="Follow start pages like a new user.")
    parser.add_argument("pages", nargs="*", type=Path, help="Markdown files; those of docs/start if none is named")
    parser.add_argument("--wheel", type=Path, help="the wheel to install; built from this tree if it is not named")
    given = parser.parse_args(arguments)
    failed = 0
    print(f"{'page':<32} {'extras':<16} {'install':>8} {'follow':>8}   done")
    with tempfile.TemporaryDirectory(prefix="walk-") as scratch:
        wheel = given.wheel.resolve() if given.wheel else build(Path(scratch))
        for number, page in enumerate([page.resolve() for page in given.pages] or pages()):
            folder = Path(scratch) / f"reader-{number}"
            folder.mkdir()
            walk = Walk(page, folder, wheel)
            try:
                walked = walk.to_its_end()
            except Failed as error:
                failed += 1
                print(f"{walk.walked.page:<32} not followed to its end\n{error}")
                continue
            times = f"{walked.install:>6.1f} s {walked.follow:>6.1f} s"
            rest = f", without a model: all but line {', '.join(map(str, walked.left_out))}" if walked.left_out else ""
            print(f"{walked.page:<32} {walked.extras or '-':<16} {times}   {walked.done}{rest}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
