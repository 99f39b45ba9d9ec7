"""Options that several commands share, and how a command says something."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from toolchord.errors import ConfigurationError
from toolchord.timeline.layout import visible

AsJson = Annotated[bool, typer.Option("--json", help="As one JSON value, for other programs.")]
Tools = Annotated[
    list[str] | None,
    typer.Option(
        "--tools",
        help="What programs may call: module:attribute (a registry, tools, or a function that gives them), or a module "
        "that registers its tools. May be given several times.",
    ),
]
WallTime = Annotated[float, typer.Option("--wall-time", help="Seconds that one program may take.", min=0.001)]


def say(value: Any, as_json: bool, text: str) -> None:
    """Print a value as JSON, or its text."""
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False, default=str))
    else:
        show(text)


def show(text: str) -> None:
    """Print a text that a program may have written: at a terminal without what would steer that."""
    typer.echo(visible(text) if sys.stdout.isatty() else text)


def write(path: Path, text: str) -> None:
    """Write a file; ConfigurationError if it can't be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}") from None


def note(text: str) -> None:
    """Say something that is not the result: on stderr, so that what goes into a pipe stays clean."""
    print(visible(text), file=sys.stderr)
