"""`toolchord mcp`: tools for any MCP client."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from toolchord.errors import ConfigurationError


def mcp(
    tools: Annotated[
        list[str],
        typer.Option(
            help="What programs may call: module:attribute (a registry, tools, or a function that gives them), or a "
            "module that registers its tools. May be given several times."
        ),
    ],
    http: Annotated[bool, typer.Option("--http", help="Serve streamable HTTP instead of stdin and stdout.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen at, with --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at, 0 for a free one.", min=0, max=65535)] = 8000,
    token_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the token which clients must send.")
    ] = None,
    ask: Annotated[
        list[str] | None, typer.Option(help="A tool, or a pattern such as 'files.*', that asks before it runs.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="A tool, or a pattern, that never asks, though it is destructive.")
    ] = None,
    wall_time: Annotated[float, typer.Option(help="Seconds that one program may take.")] = 30.0,
) -> None:
    """Serve tools to any MCP client as run_code, search_tools and describe_tools."""
    import os

    from toolchord import CodeSandbox, Limits
    from toolchord.loading import load_tools
    from toolchord_mcp import code_server, serve_http, serve_stdio

    token = None
    if token_env is not None and not (token := os.environ.get(token_env)):
        raise ConfigurationError(f"the environment variable {token_env} is not set, or empty")
    source = load_tools(tools)
    with CodeSandbox(limits=Limits(wall_time=wall_time)) as sandbox:
        server = code_server(sandbox, source, ask=ask or (), allow=allow or ())
        if http:
            serving = serve_http(
                server, host=host, port=port, token=token, on_start=lambda url: typer.echo(f"serving MCP at {url}")
            )
        else:
            serving = serve_stdio(server, on_stop=sandbox.close)
        asyncio.run(serving)
