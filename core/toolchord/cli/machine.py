"""`toolchord doctor`: what this machine gives."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import typer

from toolchord.cli.options import AsJson
from toolchord.errors import IsolationUnavailable


def doctor(
    as_json: AsJson = False,
) -> None:
    """Say which walls stand between a program and this machine; exit code 1 if it is not all of them."""
    from toolchord import CodeSandbox

    with CodeSandbox() as sandbox:
        try:
            report = asyncio.run(sandbox.isolation_report())
        except IsolationUnavailable as error:
            if as_json:
                typer.echo(json.dumps({"complete": False, "missing": error.missing, "weaker": error.weaker}))
            else:
                typer.echo(str(error))
            raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps({"complete": report.complete, **dataclasses.asdict(report)}))
    else:
        typer.echo(f"isolation: {report.isolation}, {'complete' if report.complete else 'incomplete'}")
        typer.echo(f"language: {report.language}")
        for layer, state in report.layers.items():
            typer.echo(f"  {layer}: {state}")
    if not report.complete:
        raise typer.Exit(1)
