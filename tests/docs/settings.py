"""What some pages presuppose: a provider at the other end, names that are the reader's own, the state of the world."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import warnings
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.workflow import Context
from workflows.errors import WorkflowCancelledByUser
from workflows.events import WorkflowIdleEvent

from tests.docs.page import Reader
from tests.integrations.llama_script import ScriptedLLM
from tests.integrations.providers import claude, openai_api
from tests.integrations.test_mcp_public import TIME, node, python
from toolchord_llama_index import CodeOrchestratorToolSpec

Setting = Callable[[Reader, pytest.MonkeyPatch], "contextlib.AbstractContextManager[object]"]
SETTINGS: dict[str, Setting] = {}


def setting(*pages: str) -> Callable[[Callable[[Reader, pytest.MonkeyPatch], Iterator[None]]], Setting]:
    """Register what these pages need."""

    def register(function: Callable[[Reader, pytest.MonkeyPatch], Iterator[None]]) -> Setting:
        made = contextlib.contextmanager(function)
        SETTINGS.update(dict.fromkeys(pages, made))
        return made

    return register


@setting("anthropic.md", "start/anthropic.md")
def with_claude(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Anthropic's SDK finds a strict server; Claude writes a program, which calls a tool, for every question."""

    def says() -> Generator[claude.Turn, list[str], None]:
        for number in itertools.count():
            id = f"srvtoolu_{number}"
            asked = claude.call("get_orders", {"customer": "ann"}, by=id)
            [got] = yield claude.Turn([claude.program(id, "…"), asked])
            euros = sum(order["euros"] for order in json.loads(got))
            yield claude.Turn([claude.output(id, f"{euros}\n"), claude.text(f"Ann spent {euros} euros.")])

    with claude.FakeClaude([says] * 4) as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        yield
        _closed(reader)


@setting("openai.md", "start/openai.md")
def with_openai(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """OpenAI's SDK finds a strict server, at OpenAI and at localhost; the model asks for two stocks each time."""

    def says() -> Generator[openai_api.Turn, list[str], None]:
        for number in itertools.count():
            id = f"prog_{number}"
            asked = [openai_api.call("get_stock", {"sku": sku}, by=id) for sku in ("bolt", "nut")]
            got = yield openai_api.Turn([openai_api.program(id, "…"), *asked])
            answer = openai_api.message(f"There are {sum(map(int, got))}.")
            yield openai_api.Turn([openai_api.output(id, json.dumps(sum(map(int, got)))), answer])

    def writes() -> Generator[openai_api.Turn, list[str], None]:
        code = "return get_stock('bolt') + get_stock('nut')"
        [got] = yield openai_api.Turn([openai_api.said(None, ("c", "run_code", {"code": code}))])
        yield openai_api.Turn([openai_api.said(f"There are {got}.")])

    with openai_api.FakeOpenAI([says] * 3) as server, openai_api.FakeOpenAI([writes]) as local:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        reader.replace["http://localhost:8000/v1"] = local.url
        yield
        _closed(reader)


@setting("orchestrator.md")
def with_clients(reader: Reader, _monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clients are made and never asked."""
    reader.before["Journal.repairing(first.record)"] = _sandboxed
    yield
    for name in ("client", "claude"):
        reader.wait(reader.names[name].close())
    reader.names["sandbox"].close()


def _sandboxed(reader: Reader) -> None:
    reader.names["sandbox"] = reader.names["CodeSandbox"](tools=[reader.names["list_orders"]])


@setting("durable.md")
def with_a_bank(reader: Reader, _monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run was cut off in a call; a program has failed; a bank takes keys."""
    from toolchord import CodeSandbox, DurableJournal, MemoryStore, SQLiteStore

    async def transfer(amount: float, idempotency_key: str) -> str:
        return f"{amount} {len(idempotency_key)}"

    async def cut_off(reader: Reader) -> None:
        """The second call of the run that the page began has begun, and that is all."""
        run, store = "reminders-2026-08", reader.names["store"]
        async with SQLiteStore("runs.db") as whole:
            rows = await whole.load(run)
        for key in ("header", "attempt/1", "start/1/1", "call/1", "event/0", "start/2/1"):
            await store.put(run, key, rows[key])
        journal = await DurableJournal.open(store, run)
        async with CodeSandbox(reader.names["registry"]) as sandbox:
            result = await sandbox.execute(reader.names["PROGRAM"], journal=journal)
        _check(len(result.pending) == 1)

    async def failed(reader: Reader) -> None:
        reader.names["sandbox"] = CodeSandbox(reader.names["registry"])
        reader.names["journal"] = await DurableJournal.open(reader.names["store"], "run-1")
        reader.names["result"] = await reader.names["sandbox"].execute(
            "paid = await pay(5)\nboom", journal=reader.names["journal"]
        )

    cancelled: list[str] = []
    reader.names |= {"store": MemoryStore(), "bank": SimpleNamespace(transfer=transfer), "key": bytes(32)}
    reader.names |= {"cancel_order": cancelled.append, "repaired": "return await pay(5)"}
    reader.before["desk = Approvals"] = cut_off
    reader.before["Journal.repairing"] = failed
    reader.before["class Cipher"] = lambda reader: _check(reader.names["result"].value == "5.0 32")
    yield
    assert cancelled == ["order of tea"]
    reader.names["store"]._store.close()
    reader.names["sandbox"].close()


@setting("policy.md")
def with_a_store(reader: Reader, _monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another process left a question in a store."""
    from toolchord import DurableJournal, MemoryStore

    async def asked(reader: Reader) -> None:
        _check(reader.names["result"].value == "done")
        journal = await DurableJournal.open(reader.names["store"], "run-7")
        await reader.names["sandbox"].execute(reader.names["code"], journal=journal)

    async def answered(reader: Reader) -> None:
        journal = await DurableJournal.open(reader.names["store"], "run-7")
        result = await reader.names["sandbox"].execute(reader.names["code"], journal=journal)
        _check(result.value == "done")

    reader.names["store"] = MemoryStore()
    reader.before["desk = Approvals"] = asked
    reader.before["Bounds(count=100"] = answered
    yield
    reader.names["sandbox"].close()


@setting("sessions.md")
def with_a_secret(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reader keeps a secret; the second block goes on with what the first one closed."""
    from toolchord import CodeSandbox, SQLiteStore

    async def opened(reader: Reader) -> None:
        reader.names["store"] = SQLiteStore("sessions.db")
        await reader.names["store"].__aenter__()
        reader.names["sandbox"] = CodeSandbox(tools=[reader.names["fetch_orders"]])

    reader.names["secret"] = "00" * 32
    monkeypatch.setenv("SESSION_SECRET", reader.names["secret"])
    reader.before["expires=7"] = opened
    yield
    assert reader.names["result"].value == 55.5
    reader.names["sandbox"].close()
    reader.wait(reader.names["store"].__aexit__(None, None, None))


@setting("timeline.md")
def with_a_run(reader: Reader, _monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A sandbox is open; later an orchestrator has run."""
    from toolchord import CodeSandbox, Orchestrator

    def opened(reader: Reader) -> None:
        reader.names["sandbox"] = CodeSandbox(tools=[reader.names["get_price"]])
        reader.names["program"] = reader.names["PROGRAM"]

    async def asked(reader: Reader) -> None:
        said = iter(["```python\nreturn get_price('pear')\n```", "0.80 euros."])
        model = Orchestrator(lambda messages: next(said), reader.names["sandbox"])
        reader.names["run"] = await model.run("What does a pear cost?")

    reader.before["terminal.watching"] = opened
    reader.before["page(run.traces())"] = asked
    yield
    reader.names["sandbox"].close()


@setting("replay.md")
def with_a_sandbox(reader: Reader, _monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A sandbox is open."""
    from toolchord import CodeSandbox

    with CodeSandbox() as sandbox:
        reader.names["sandbox"] = sandbox
        yield


@setting("langchain.md")
def with_toolkits(reader: Reader, _monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reader has toolkits."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*langchain-community. is being sunset", DeprecationWarning)
        from langchain_community.agent_toolkits import FileManagementToolkit, SQLDatabaseToolkit
        from langchain_community.utilities import SQLDatabase
    from langchain_core.language_models import FakeListLLM

    from toolchord import CodeSandbox

    sqlite3.connect("shop.db").close()
    database = SQLDatabase.from_uri("sqlite:///shop.db")
    reader.names["sql_toolkit"] = SQLDatabaseToolkit(db=database, llm=FakeListLLM(responses=[]))
    reader.names["files"] = FileManagementToolkit(root_dir=".")
    yield
    database._engine.dispose()
    assert isinstance(reader.names["sandbox"], CodeSandbox)


@setting("mcp.md")
def with_servers(reader: Reader, _monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The snippets' servers live in folders of their own, where ``make test`` puts them."""
    reader.replace['[sys.executable, "-m", "mcp_server_time"]'] = repr(python("time", TIME))
    reader.replace['["npx", "-y", "@modelcontextprotocol/server-filesystem", "."]'] = repr(node("filesystem", "."))
    yield
    reader.names["files"].close()


@setting("llama-index.md", "start/llama-index.md")
def with_an_agent(reader: Reader, _monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reader has an agent, whose model writes a program that pays."""

    def agent(reader: Reader) -> None:
        code = "return await pay(to='ann', amount=20)"
        model = ScriptedLLM([[("c1", "run_code", {"code": code})], "Paid."])
        spec = CodeOrchestratorToolSpec(reader.names["sandbox"], reader.names["registry"], ask=["pay"])
        reader.names["agent"] = FunctionAgent(tools=spec.to_tool_list(), llm=model)
        reader.names["ctx"] = Context(reader.names["agent"])

    async def waiting(reader: Reader) -> None:
        agent(reader)
        begun.append(reader.names["agent"].run(user_msg="Pay the bills", ctx=reader.names["ctx"]))
        async for event in begun[0].stream_events(expose_internal=True):
            if isinstance(event, WorkflowIdleEvent):
                break
        reader.names["handler"] = begun[0]

    async def ended() -> None:
        for handler in begun:
            await handler.cancel_run()
            with contextlib.suppress(WorkflowCancelledByUser):
                await handler

    begun: list[Any] = []
    reader.before["agent.run(user_msg"] = agent
    reader.before["ctx.to_dict()"] = waiting
    if reader.page != "llama-index.md":
        reader.before.clear()
    with warnings.catch_warnings():
        # LlamaIndex's own: it looks at deprecated attributes of pydantic's, and does not serialise an agent's memory.
        for message in (".*deprecated", "Skipping serialization of known unserializable key. memory"):
            warnings.filterwarnings("ignore", message)
        yield
        reader.wait(ended())


def _check(true: bool) -> None:
    assert true


def _closed(reader: Reader) -> None:
    for name in ("client", "local"):
        if name in reader.names:
            reader.names[name].close()
