"""The pages on durable runs and policies: every block of Python runs."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import toolchord
from toolchord import CodeSandbox, DurableJournal, Journal, MemoryStore, create_registry

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


async def run(block: str, names: dict[str, Any]) -> None:
    """Run a block, which may await."""
    code = compile(block, "<page>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    given = eval(code, names)
    if inspect.isawaitable(given):
        await given


def test_the_first_steps_of_durable_runs(tmp_path: Path) -> None:
    first = blocks("durable.md")[0]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", first], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert ended.stdout == "['reminded 1', 'reminded 2']\n", ended.stderr


async def test_the_page_on_durable_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)

    async def transfer(amount: float, idempotency_key: str) -> str:
        return f"{amount} {len(idempotency_key)}"

    def order(what: str) -> dict[str, str]:
        """Order."""
        return {"id": what}

    cancelled: list[str] = []
    names: dict[str, Any] = {name: getattr(toolchord, name) for name in toolchord.__all__}
    store, registry = MemoryStore(), create_registry()
    names |= {"store": store, "registry": registry, "bank": SimpleNamespace(transfer=transfer), "order": order}
    names |= {"cancel_order": cancelled.append, "key": bytes(32), "repaired": "return await pay(5)"}
    _, unclear, keyed, repaired, cipher, undo = blocks("durable.md")
    await run(unclear, names)
    await run(keyed, names)
    async with CodeSandbox(registry) as sandbox:
        names["sandbox"] = sandbox
        journal = await DurableJournal.open(store, "run-1")
        names["result"] = await sandbox.execute("paid = await pay(5)\nboom", journal=journal)
        await run(repaired, names)
        assert names["result"].value == "5.0 32"
        assert names["result"].calls[0].replayed
        await run(cipher, names)
        await names["store"].put("r", "k", b"text")
        assert await names["store"].load("r") == {"k": b"text"}
        names["store"]._store.close()
        names["journal"] = Journal()
        again = undo.replace("for one in", "result = await sandbox.execute('order(1)', registry)\nfor one in")
        await run(again.replace("order(1)", "order(\\'x\\')"), names)
    assert cancelled == ["x"]
    assert capsys.readouterr().out == "default.order undone None\n"


def test_the_first_steps_of_sessions_that_last(tmp_path: Path) -> None:
    first = blocks("sessions.md")[0]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SESSION_SECRET": "5" * 64}
    for printed in ("fetched\n55.5\n", "55.5\n"):
        ended = subprocess.run(
            [sys.executable, "-c", first], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert ended.stdout == printed, ended.stderr


async def test_the_page_on_sessions_that_last() -> None:
    _, expiry = blocks("sessions.md")
    names: dict[str, Any] = {name: getattr(toolchord, name) for name in toolchord.__all__}
    names |= {"store": MemoryStore(), "secret": "5" * 64}
    async with CodeSandbox() as sandbox:
        names["sandbox"] = sandbox
        sessions = toolchord.LastingSessions(sandbox, names["store"], secret="5" * 64)
        await sessions.execute("ann", "def total(): return 55.5")
        await run(expiry, names)
        assert names["result"].value == 55.5
        assert (await sessions.variables("ann")).names == ()
        page = (DOCS / "sessions.md").read_text()
        endless = toolchord.Variables(definitions={"f": "def f(x=sum(iter(int, 1))): pass"})
        told = (await sandbox.execute("1", variables=endless)).for_model()
        assert re.search(r"```text\n(.*?)\n```", page, re.DOTALL)[1] == told.removeprefix("1\n\n")  # type: ignore[index]


async def test_the_page_on_policies(capsys: Any) -> None:
    did: list[float] = []
    registry, store = create_registry(), MemoryStore()

    async def pay(to: str, amount: float) -> None:
        """Pay."""
        did.append(amount)

    async def search(words: str) -> str:
        """Search."""
        return words

    async def append_row(row: str) -> None:
        """Append."""

    registry.add(pay, capabilities=["destructive"])
    names: dict[str, Any] = {name: getattr(toolchord, name) for name in toolchord.__all__}
    names |= {"registry": registry, "store": store, "search": search, "append_row": append_row}
    names["code"] = "await pay('a', 600)\nreturn 'done'"
    first, waiting, elsewhere, loop, dry, facts = blocks("policy.md")
    await run(first, names)
    async with names["sandbox"] as sandbox:
        await run(waiting, names)
        assert names["result"].value == "done"
        await sandbox.execute(names["code"], journal=await DurableJournal.open(store, "run-7"))
        await run(elsewhere, names)
        result = await sandbox.execute(names["code"], journal=await DurableJournal.open(store, "run-7"))
        assert result.value == "done"
        await run(loop, names)
        await run(dry, names)
        assert names["result"].value == "done"
        await run(facts, names)
        result = await sandbox.execute(
            "return await search('x'), await append_row('y')", policy=toolchord.Policy(otherwise="allow")
        )
        assert result.value == ("x", None)
    assert did == [600.0] * 3
    assert "default.pay {'to': 'a', 'amount': 600}" in capsys.readouterr().out
