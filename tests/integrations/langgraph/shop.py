"""Tools that act on the world, which is a file: each line is something that happened."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, tool
from langgraph.types import interrupt


def tools_of(ledger: Path) -> list[BaseTool]:
    """The shop's tools. An amount or key that ends in 99 kills the process in the middle of the call, once."""

    def note(what: str) -> None:
        with ledger.open("a") as file:
            file.write(what + "\n")
            file.flush()
            os.fsync(file.fileno())

    def die_once(what: str) -> None:
        if what.endswith("99") and not ledger.with_suffix(".died").exists():
            ledger.with_suffix(".died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    @tool(extras={"capabilities": ["read_only"]})
    async def look(key: str) -> dict[str, str]:
        """Look something up."""
        note(f"look {key}")
        die_once(key)
        await asyncio.sleep(0)
        return {"key": key}

    @tool
    def pay(amount: int) -> str:
        """Pay an amount."""
        note(f"pay {amount}")
        die_once(str(amount))
        return f"paid {amount}"

    @tool
    def ask(what: str) -> str:
        """Ask a person."""
        answer = interrupt({"what": what})
        note(f"ask {what} {answer}")
        return str(answer)

    return [look, pay, ask]


def happened(ledger: Path) -> list[str]:
    """What happened, sorted."""
    return sorted(ledger.read_text().splitlines()) if ledger.exists() else []


def forget(ledger: Path) -> list[str]:
    """What happened since the last time."""
    found = happened(ledger)
    ledger.write_text("")
    return found


def answer(value: Any) -> Any:
    """What a person says: yes to every approval, and to a question its own name."""
    return {"type": "approve"} if value.get("type") == "tool_approval" else f"yes-{value['what']}"
