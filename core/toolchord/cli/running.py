"""`toolchord run`: a program from a file, with your tools."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from toolchord.cli.options import AsJson, Tools, WallTime, note, show, write
from toolchord.errors import ConfigurationError
from toolchord.limits import Limits

if TYPE_CHECKING:
    from toolchord.approvals import Decision, Request
    from toolchord.journal import Journal
    from toolchord.policy import Rule
    from toolchord.results import ExecutionResult, Watch
    from toolchord.trace import Trace


def run(
    program: Annotated[str, typer.Argument(help="A file with the program; - reads it from stdin.")],
    tools: Tools = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=JSON", help="A variable the program starts with. May be given again."),
    ] = None,
    ask: Annotated[
        list[str] | None, typer.Option(help="A tool, such as 'pay' or 'shop.*', whose calls wait for your yes.")
    ] = None,
    deny: Annotated[list[str] | None, typer.Option(help="A tool that may not be called.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Hold back what is not read-only, and list it.")] = False,
    wall_time: WallTime = 30.0,
    record: Annotated[
        Path | None, typer.Option(help="Keep the run in this file, for view, replay, diff and record.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the run as an HTML page.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Show the run on stderr while it goes on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a program with your tools. What a model would read of it goes to stdout, a summary to stderr.

    Exit code 1: the program failed. 3: it waits for an answer that nobody here can give.
    """
    source = _program(program)
    inputs = dict(map(_input, given or ()))
    if live and ask:
        raise ConfigurationError("--live draws where --ask would ask; use one of them")
    if dry_run and ask:
        raise ConfigurationError("a dry run asks nobody, for nothing that acts runs; leave out --ask")
    for file in (record, html):
        _check(file)  # before anything happens that would be worth keeping
    settings = _Settings(tools or [], inputs, _rules(ask or [], deny or []), dry_run, Limits(wall_time=wall_time))
    with _displayed(live) as watch:
        result = _to_its_end(source, settings, watch)
    trace = result.trace()
    _tell(trace, result, as_json, summed_up=live)
    if record is not None:
        _written(record, trace.to_json())
    if html is not None:
        _written(html, trace.to_html())
    if result.error is not None:
        raise typer.Exit(3 if result.error.kind == "paused" else 1)


@contextmanager
def _displayed(live: bool) -> Iterator[Watch | None]:
    """Somebody sees how far the run is."""
    if not live:
        yield None
        return
    from toolchord.terminal import watching  # first: it says what to install where rich is missing

    from rich.console import Console  # isort: skip

    with watching(console=Console(stderr=True)) as watch:
        yield watch


def _tell(trace: Trace, result: ExecutionResult, as_json: bool, *, summed_up: bool) -> None:
    if as_json:
        typer.echo(trace.to_json(record=False))
        return
    from toolchord.results import made

    show(result.for_model())
    for call in result.held:
        note(f"held back: {made(call, 60)}")
    if not summed_up:
        note(summary(trace))
    if result.pending:
        note("Run it at a terminal to be asked; in Python, go on with Journal.continuing(result.record).")


def summary(trace: Trace) -> str:
    """One line about a run."""
    calls = len(trace.calls) + trace.more_calls
    parts = [f"{trace.status} in {trace.duration:.2f} s", f"{calls} call{'s' * (calls != 1)}"]
    if trace.ledger is not None and trace.ledger.money:
        parts.append(f"{trace.ledger.money:g} spent")
    verdict = f" {trace.ledger.verdict()}" if trace.ledger is not None and trace.status == "ok" and calls else ""
    return f"{', '.join(parts)}.{verdict}"


class _Settings(NamedTuple):
    """What a program is run with."""

    names: list[str]
    inputs: dict[str, Any]
    rules: list[Rule]
    dry_run: bool
    limits: Limits


def _to_its_end(code: str, settings: _Settings, watch: Watch | None) -> ExecutionResult:
    """Run it; where it waits for somebody, ask, and go on. Nothing runs while somebody thinks."""
    from toolchord import Journal

    result = asyncio.run(_run(code, settings, None, watch))
    while result.pending and sys.stdin.isatty() and result.record is not None:
        journal = Journal.continuing(result.record)
        waiting = [request for request in journal.asked.values() if request.id not in journal.decisions]
        if not waiting:
            break  # for something else than an approval
        for request in waiting:
            journal.answer(request.id, _asked(request))
        result = asyncio.run(_run(code, settings, journal, None))
    return result


async def _run(code: str, settings: _Settings, journal: Journal | None, watch: Watch | None) -> ExecutionResult:
    from toolchord import Catalogue, CodeSandbox, Policy
    from toolchord.loading import load_tools

    tools = await asyncio.to_thread(load_tools, settings.names) if settings.names else None
    policy = Policy(*settings.rules, otherwise="allow") if settings.rules else None
    for rule in settings.rules:  # a name that fits nothing is most likely a slip, and one that matters
        known = [exposed.tool for exposed in Catalogue.of(tools).tools]
        if not any(rule.matches(tool, "sandbox", {}) for tool in known):
            listed = ", ".join(tool.full_name for tool in known[:5]) or "no tools: give --tools"
            raise ConfigurationError(f"--{rule.verdict} {rule.tool} fits no tool; there are {listed}")
    async with CodeSandbox(tools=tools, limits=settings.limits, policy=policy) as sandbox:
        return await sandbox.execute(
            code, inputs=settings.inputs, dry_run=settings.dry_run, journal=journal, watch=watch
        )


def _asked(request: Request) -> Decision:
    from toolchord.approvals import ApprovalRequest, Decision
    from toolchord.results import written

    note(str(request))
    if isinstance(request, ApprovalRequest):
        note(f"  {written(request.arguments or {}, 500)}")
    if typer.confirm("Let it run?", default=False, err=True):
        return Decision.approve(by="terminal")
    return Decision.reject("refused at the terminal", by="terminal")


def _program(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"the program {path} can't be read: {reason}") from None


def _input(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ConfigurationError(f"--input takes NAME=JSON, such as --input limit=5, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise ConfigurationError(
            f"--input {name}: {value!r} is no JSON ({error}); text is written --input '{name}=\"text\"'"
        ) from None


def _rules(ask: list[str], deny: list[str]) -> list[Rule]:
    from toolchord.policy import ask as asking
    from toolchord.policy import deny as denying

    return [*map(denying, deny), *map(asking, ask)]


def _check(path: Path | None) -> None:
    """Raise ConfigurationError if a file can't be written."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise ConfigurationError(f"{path} can't be written: {'it is' if path.is_dir() else 'there is no such'} folder")


def _written(path: Path, text: str) -> None:
    write(path, text)
    note(f"wrote {path}")
