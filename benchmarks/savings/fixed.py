"""What every request pays before anything happens: the definitions of tools, or instructions with their stubs."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from benchmarks.savings.measure import of_tools
from benchmarks.savings.ways import Task, without_results
from demo.tokens import count
from toolchord import ToolRegistry, format_tools_for_llm
from toolchord.catalogue import Catalogue
from toolchord.instructions import PROGRAM_TOOL, instructions
from toolchord.plaincalls import PlainCalls

__all__ = ["Fixed", "of_task"]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Tokens of what is told about the tools of a task.

    Attributes:
        tools: how many there are.
        definitions: for plain calls, without the shapes of results.
        stubs: for programs, with them.
        bare_stubs: for programs, without them.
        rules: the instructions for programs and the one tool that runs them.
    """

    tools: int
    definitions: int
    stubs: int
    bare_stubs: int
    rules: int

    def as_json(self) -> dict[str, int]:
        """Everything, as plain data."""
        return asdict(self)


def definitions(registry: ToolRegistry) -> int:
    """Tokens of all definitions for plain calls."""
    catalogue = Catalogue.of(registry, caller="direct")
    plain = PlainCalls(catalogue, [catalogue.path(exposed) for exposed in catalogue.tools], 1)
    try:
        return of_tools(plain.definitions)
    finally:
        plain.close()


def of_task(task: Task) -> Fixed:
    """Measure the tools of a task."""
    registry = task.begin().registry
    bare = without_results(registry)
    return Fixed(
        len(registry.tools()),
        definitions(bare),
        count(format_tools_for_llm(registry)),
        count(format_tools_for_llm(bare)),
        count(instructions("", tool=True)) + of_tools([PROGRAM_TOOL]),
    )
