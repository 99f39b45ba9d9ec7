"""The commands of `toolchord`, one module for each kind. What a command needs it imports itself, so that one missing
extra takes away one command.

Exit codes: 0 all is well; 1 no (the program failed, the runs differ, a trick got through, a wall is missing); 2 wrong
use, or something is not there; 3 the program waits for somebody's answer.
"""

from __future__ import annotations

from toolchord.errors import MissingExtraError

try:
    import typer
except ModuleNotFoundError as error:
    if error.name != "typer":
        raise
    raise MissingExtraError("the command toolchord", "cli") from None

from typing import Annotated

from toolchord.cli import attack, bench, demo, machine, recorded, running, serving, tools

app = typer.Typer(name="toolchord", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"toolchord {version('toolchord')}")
        raise typer.Exit


@app.callback()
def toolchord(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Many tools, one gesture: a model's Python program calls your tools inside a sandbox."""


app.command("demo")(demo.demo)
app.command("run")(running.run)
app.command("tools")(tools.tools)
app.command("stubs")(tools.stubs)
app.command("view")(recorded.view)
app.command("replay")(recorded.replay)
app.command("diff")(recorded.diff)
app.command("record")(recorded.record)
app.command("doctor")(machine.doctor)
app.command("attack")(attack.attack)
app.command("bench")(bench.bench)
app.command("mcp")(serving.mcp)
