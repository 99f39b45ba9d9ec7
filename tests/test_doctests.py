"""The examples in docstrings run as they stand there."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import toolchord

ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = (
    "CodeSandbox Limits Orchestrator Policy RunRecord ShapeStore ToolRegistry Variables allow ask register_tool"
).split()


def modules() -> Iterator[str]:
    """Every module that ships, by its name; those that are run, not imported, excepted."""
    for root in ("core", "integrations"):
        for package in pkgutil.iter_modules([str(ROOT / root)]):
            yield package.name
            inside = [str(ROOT / root / package.name)]
            yield from (found.name for found in pkgutil.walk_packages(inside, f"{package.name}."))


EXAMPLES = [
    test
    for name in modules()
    if not name.endswith("__main__")
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    if test.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_example_of_a_docstring_runs(example: doctest.DocTest) -> None:
    said: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(example, out=said.append).failed
    assert not failed, "".join(said)


def test_names_that_everybody_uses_have_an_example() -> None:
    found = {example.name for example in EXAMPLES}
    for name in WITH_EXAMPLES:
        thing = getattr(toolchord, name)
        assert f"{thing.__module__}.{name}" in found, name
