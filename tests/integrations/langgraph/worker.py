"""A process that runs a graph once and says what it waits for; the tests start it and kill it.

Called with a JSON object: saver, path, postgres, ledger, how, kind, code, give ("go", "on", or answers by question),
die ("" or "paused": kill this process as soon as two calls wait for a person and three have ended, before the graph
has stopped).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from langgraph.types import Command

from tests.integrations.langgraph.apps import graph
from tests.integrations.langgraph.graphs import GO, program, thread, tool_messages
from tests.integrations.langgraph.savers import saver


def question(value: dict[str, Any]) -> str:
    """A short name of what is asked."""
    if value.get("type") in ("tool_approval", "unclear_call"):
        return f"{value['type']} {value['tool_call_id']}"
    return str(value["what"])


async def main(task: dict[str, Any]) -> None:
    async with saver(task["saver"], task["how"], path=Path(task["path"]), postgres=task["postgres"]) as kept:
        app = graph(task["kind"], Path(task["ledger"]), kept, program(task["code"]))
        here = thread(task["ledger"])
        given: Any = GO if task["give"] == "go" else None
        if isinstance(task["give"], dict):
            state = await app.aget_state(here) if task["how"] == "async" else await _get(app, here)
            ids = {question(one.value): one.id for one in state.interrupts}
            given = Command(resume={ids[name]: said for name, said in task["give"].items()})
        events = app.astream(given, here, stream_mode=["custom"]) if task["how"] == "async" else None
        seen: dict[str, str] = {}
        if events is not None:
            async for _, event in events:
                _watch(event, seen, task["die"])
            state = await app.aget_state(here)
        else:
            await asyncio.to_thread(_stream, app, given, here, seen, task["die"])
            state = await _get(app, here)
        texts = [message.text for message in tool_messages(state.values)]
        print(json.dumps({"asks": sorted(question(one.value) for one in state.interrupts), "texts": texts}))


def _stream(app: Any, given: Any, here: Any, seen: dict[str, str], die: str) -> None:
    for _, event in app.stream(given, here, stream_mode=["custom"]):
        _watch(event, seen, die)


async def _get(app: Any, here: Any) -> Any:
    return await asyncio.to_thread(app.get_state, here)


def _watch(event: dict[str, Any], seen: dict[str, str], die: str) -> None:
    if "status" in event:
        seen[event["tool_call_id"]] = event["status"]
    statuses = sorted(seen.values())
    if die == "paused" and statuses == ["ok", "ok", "ok", "paused", "paused"]:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
