"""The tools that tests serve with `toolchord mcp`; they leave traces in a file, for they run in another process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from toolchord import ToolRegistry, create_registry, register_tool

registry = create_registry()


def trace(text: str) -> None:
    """One line in the file that the test reads."""
    with Path(os.environ["TRACES"]).open("a") as file:
        file.write(text + "\n")


def add(a: int, b: int) -> int:
    """Add two numbers.

    Their sum is given back.
    """
    trace(f"add {a} {b}")
    return a + b


async def wipe(path: str) -> str:
    """Wipe a path."""
    trace(f"wipe {path}")
    return f"wiped {path}"


def send(to: str) -> str:
    """Send a letter."""
    trace(f"send {to}")
    return f"sent to {to}"


def noisy() -> str:
    """Print in every way there is, and read what there is."""
    print("noise")
    print("noise", file=sys.__stdout__, flush=True)
    os.write(1, b"noise\n")
    subprocess.run(["echo", "noise"], check=True)
    return sys.stdin.read() + subprocess.run(["cat"], capture_output=True, text=True, check=True).stdout


async def wait_for(fifo: str) -> str:
    """Wait until somebody writes to a pipe."""
    return await asyncio.to_thread(lambda: Path(fifo).read_text())


async def hang(fifo: str) -> None:
    """Never end; tell a pipe of it when it is ended."""
    trace("hang")
    try:
        await asyncio.Event().wait()
    finally:
        with open(fifo, "w") as file:  # noqa: ASYNC230 - its reader waits for it
            file.write("ended")


def rows(count: int) -> list[dict[str, int]]:
    """Many rows."""
    return [{"n": n} for n in range(count)]


def text(size: int) -> str:
    """A long text."""
    return "x" * size


registry.add(add, capabilities=["read_only"])
registry.add(wipe, namespace="disk", capabilities=["destructive"])
for function in (send, noisy, wait_for, hang, rows, text):
    registry.add(function)
registry.add(add, "sum_up", defer_loading=True, search_keywords=["total"])


def made() -> ToolRegistry:
    """A function that gives a registry."""
    return registry


@register_tool
def registered() -> str:
    """Registered in the default registry."""
    return "registered"
