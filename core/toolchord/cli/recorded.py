"""`toolchord view`, `replay`, `diff` and `record`: what can be done with a run that was kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from toolchord.cli.options import AsJson, note, say, write
from toolchord.cli.running import summary
from toolchord.errors import ConfigurationError

if TYPE_CHECKING:
    from toolchord.recording import RunRecord
    from toolchord.trace import Trace

Run = Annotated[Path, typer.Argument(help="A run that was kept, by `toolchord run --record` or Trace.save.")]
WallTime = Annotated[float, typer.Option("--wall-time", help="Seconds that the replay may take.", min=0.001)]


def view(
    run: Run,
    html: Annotated[Path | None, typer.Option(help="Write a page that shows it, instead of printing it.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser; with --html.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at a run: its program, calls on a time axis, outcomes, output, and what it saved."""
    from toolchord.testing import load_run

    trace = load_run(run)
    if html is not None:
        write(html, trace.to_html())
        note(f"wrote {html}")
        if show:
            typer.launch(html.resolve().as_uri())
    elif show:
        raise ConfigurationError("--open needs --html FILE")
    elif as_json:
        typer.echo(trace.to_json(record=False))
    else:
        _print(trace)


def _print(trace: Trace) -> None:
    try:
        import rich
    except ModuleNotFoundError:  # typer without rich
        typer.echo(f"{trace.code}\n{summary(trace)}")
    else:
        rich.print(trace)


def replay(run: Run, wall_time: WallTime = 30.0, as_json: AsJson = False) -> None:
    """Run a recorded program again from its record: no tool runs. Exit code 1 if it goes another way now."""
    from toolchord.comparing import compare
    from toolchord.limits import Limits
    from toolchord.testing import load_run, went_on_to_its_record
    from toolchord.testing import replay as replaying

    kept = load_run(run)
    record = _record(kept, run)
    result = replaying(record, Limits(wall_time=wall_time))
    again = result.trace()
    if went_on_to_its_record(kept, result):
        say(
            {"same": True, "complete": False}, as_json, "The same as far as the record goes; the run was cut off there."
        )
        return
    difference = compare(kept, again)
    told = {"same": difference.same, "complete": True, **{name: getattr(difference, name) for name in _PARTS}}
    say(told, as_json, f"{again.value or str(again.error or '')}\n\n{difference}".strip())
    if difference:
        raise typer.Exit(1)


_PARTS = ("program", "calls", "ending")


def diff(first: Run, second: Run, as_json: AsJson = False) -> None:
    """Say what is different about a second run: program, calls, what they gave, the end. Exit code 1 if anything is."""
    from toolchord.comparing import compare
    from toolchord.testing import load_run

    difference = compare(load_run(first), load_run(second))
    say({"same": difference.same, **{name: getattr(difference, name) for name in _PARTS}}, as_json, str(difference))
    if difference:
        raise typer.Exit(1)


def record(
    run: Run,
    as_test: Annotated[
        Path | None, typer.Option("--as-test", metavar="FILE", help="Write a regression test: a .py file for pytest.")
    ] = None,
    tools: Annotated[
        str | None, typer.Option(help="module:attribute. The recorded calls must fit these tools as well.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is in a record; or make a regression test of it, with a copy of the record beside it."""
    from toolchord.loading import load_tools
    from toolchord.testing import load_run, misfits, regression_test

    kept = load_run(run)
    held = _record(kept, run)
    wrong = misfits(kept, load_tools([tools])) if tools is not None else []
    if as_test is None:
        events = len(held.events)
        told = {"status": kept.status, "calls": len(kept.calls) + kept.more_calls, "events": events, "misfits": wrong}
        say(told, as_json, "\n".join([f"{summary(kept)} {events} events.", *wrong]))
    elif as_test.suffix != ".py":
        raise ConfigurationError(f"--as-test {as_test} must end in .py")
    else:
        data = as_test.with_suffix(".json")
        text = regression_test(kept, data.name, name=as_test.stem, tools=tools)
        _write({as_test: text, data: kept.to_json()}, force)
        files = {"test": str(as_test), "record": str(data), "misfits": wrong}
        say(files, as_json, "\n".join([f"wrote {as_test}", *wrong]))
    if wrong:
        raise typer.Exit(1)


def _write(files: dict[Path, str], force: bool) -> None:
    if there := [str(path) for path in files if path.exists() and not force]:
        raise ConfigurationError(
            f"{' and '.join(there)} {'are' if len(there) > 1 else 'is'} there already; give another name, or --force"
        )
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{path} can't be written: {error.strerror}") from None
        write(path, text)


def _record(trace: Trace, path: Path) -> RunRecord:
    if trace.record is None:
        raise ConfigurationError(f"{path} holds no record, only a trace to look at; keep it with Trace.save(path)")
    return msgspec.structs.replace(trace.record)
