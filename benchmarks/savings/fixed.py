"""What every request pays before anything happens: the definitions of tools, or instructions with their stubs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.savings.measure import of_tools
from benchmarks.savings.ways import Task, without_results
from demo.tokens import count
from toolchord import ToolRegistry, format_tools_for_llm
from toolchord.catalogue import Catalogue
from toolchord.choice import choose
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
        both: all of it, where the orchestrator offers plain calls beside programs (its choice for few tools); else 0.
    """

    tools: int
    definitions: int
    stubs: int
    bare_stubs: int
    rules: int
    both: int

    def as_json(self) -> dict[str, int]:
        """Everything, as plain data."""
        return asdict(self)


def _offered(registry: ToolRegistry) -> list[dict[str, Any]]:
    """The definitions of all tools for plain calls."""
    catalogue = Catalogue.of(registry, caller="direct")
    plain = PlainCalls(catalogue, [catalogue.path(exposed) for exposed in catalogue.tools], 1)
    try:
        return plain.definitions
    finally:
        plain.close()


def both(registry: ToolRegistry) -> int:
    """Tokens of what the orchestrator tells by default; 0 if that is programs alone."""
    if not choose(registry).plain_tools:
        return 0
    return count(instructions(format_tools_for_llm(registry), tool=True, plain=True)) + of_tools(
        [PROGRAM_TOOL, *_offered(registry)]
    )


def of_task(task: Task) -> Fixed:
    """Measure the tools of a task."""
    registry = task.begin().registry
    bare = without_results(registry)
    return Fixed(
        len(registry.tools()),
        of_tools(_offered(bare)),
        count(format_tools_for_llm(registry)),
        count(format_tools_for_llm(bare)),
        count(instructions("", tool=True)) + of_tools([PROGRAM_TOOL]),
        both(registry),
    )
