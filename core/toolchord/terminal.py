"""A run as a person sees it in a terminal; needs rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from toolchord.results import ExecutionResult


_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def _text(text: str, style: str = "") -> Text:
    """Text without what would steer the terminal or can't be written to it."""
    return Text(text.encode("utf-8", "backslashreplace").decode().translate(_CONTROLS), style=style)


def view(result: ExecutionResult) -> RenderableType:
    """The run as a panel: state, value or error, calls, output."""
    from toolchord.results import render, shorten

    parts: list[RenderableType] = []
    if result.error is not None:
        parts.append(_text(str(result.error), style="bold red"))
        if result.error.traceback:
            parts.append(_text(result.error.traceback.rstrip(), style="dim"))
    else:
        parts.append(_text(shorten(render(result.value), 2000)))
    if result.calls:
        parts.append(_calls(result))
    if result.stdout:
        parts.append(Panel(_text(shorten(result.stdout.rstrip(), 4000)), title="printed", border_style="dim"))
    state = "[green]ok[/]" if result.ok else "[red]failed[/]"
    used = result.usage
    title = f"{state} in {result.duration:.3f} s, {used.tool_calls} calls, {used.cpu_time:.3f} s CPU"
    return Panel(Group(*parts), title=title, title_align="left")


def _calls(result: ExecutionResult) -> Table:
    from toolchord.results import shorten, shown

    table = Table(box=None, pad_edge=False)
    for heading in ("#", "line", "tool", "arguments", "outcome", "ms"):
        table.add_column(heading, justify="right" if heading in ("#", "line", "ms") else "left", overflow="fold")
    for call in result.calls[:50]:
        arguments = ", ".join(f"{name}={shorten(shown(value), 40)}" for name, value in call.arguments.items())
        outcome = f"{call.error[0]}: {shorten(call.error[1], 80)}" if call.error else call.status
        style = "red" if call.status == "error" else None
        cells = (str(call.id), str(call.line or ""), call.tool, arguments, outcome, f"{call.duration * 1000:.1f}")
        table.add_row(*map(_text, cells), style=style)
    if len(result.calls) > 50:
        table.add_row("", "", Text(f"and {len(result.calls) - 50} more"), "", "", "")
    return table
