"""Toolkits that others wrote, wrapped as they are and used together in one program of a graph."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.tools import BaseTool, StructuredTool, create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_mcp_adapters.client import MultiServerMCPClient
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field

from tests.integrations.langgraph.bench import HOW
from tests.integrations.langgraph.graphs import GO, Script, graph_of, invoke, program, thread, tool_messages
from toolchord import CodeSandbox, Limits
from toolchord_langgraph import CodeOrchestrator

SERVER = '''\
"""Prices, over stdio."""

from mcp.server.fastmcp import FastMCP
from pydantic import BaseModel

server = FastMCP("prices")


class Price(BaseModel):
    item: str
    cents: int


@server.tool()
def price(item: str) -> Price:
    """The price of a kilogram."""
    return Price(item=item, cents={"rye": 190, "wheat": 120}[item])


@server.tool()
def currency() -> str:
    """What prices are in."""
    return "EUR"


server.run()
'''


def community() -> SimpleNamespace:
    """What is used of langchain-community, which warns of its end when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return SimpleNamespace(
            SQLDatabase=import_module("langchain_community.utilities").SQLDatabase,
            SQLDatabaseToolkit=import_module("langchain_community.agent_toolkits").SQLDatabaseToolkit,
            FileManagementToolkit=import_module("langchain_community.agent_toolkits").FileManagementToolkit,
            RequestsToolkit=import_module("langchain_community.agent_toolkits.openapi.toolkit").RequestsToolkit,
            RequestsWrapper=import_module("langchain_community.utilities.requests").TextRequestsWrapper,
            JsonToolkit=import_module("langchain_community.agent_toolkits").JsonToolkit,
            JsonSpec=import_module("langchain_community.tools.json.tool").JsonSpec,
        )


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox(limits=Limits(wall_time=120)) as sandbox:
        yield sandbox


class Site(ThreadingHTTPServer):
    """Says what the weather is, and takes orders."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append((self.path, None))
        self._send({"sky": "clear", "path": self.path})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        self._send({"taken": body})

    def _send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    served = threading.Thread(target=site.serve_forever, daemon=True)
    served.start()
    yield site
    site.shutdown()
    site.server_close()
    served.join()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Any]:
    file = tmp_path / "mill.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("create table flour (name text, grams integer)")
        connection.executemany("insert into flour values (?, ?)", [("rye", 500), ("wheat", 250)])
    connection.close()
    database = community().SQLDatabase.from_uri(f"sqlite:///{file}")
    yield database
    database._engine.dispose()


class Order(BaseModel):
    grams: dict[str, int] = Field(description="by flour")
    cents: dict[str, int] = Field(description="per kilogram, by flour")


def total(grams: dict[str, int], cents: dict[str, int]) -> float:
    """What an order costs."""
    return sum(grams[name] * cents[name] for name in grams) / 1000


async def prices(tmp_path: Path) -> list[BaseTool]:
    """The tools of a server that is a process of its own."""
    (tmp_path / "server.py").write_text(SERVER)
    connection: Any = {"transport": "stdio", "command": sys.executable, "args": [str(tmp_path / "server.py")]}
    return await MultiServerMCPClient({"prices": connection}).get_tools()


def recipes() -> BaseTool:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=32))
    store.add_documents([Document("bread: rye, water, salt"), Document("cake: wheat, sugar, eggs")])
    return create_retriever_tool(store.as_retriever(search_kwargs={"k": 1}), "find_recipe", "Find a recipe.")


PROGRAM = """
import asyncio, json, re

# Seven toolkits at once: SQL, files, requests, MCP, a retriever, JSON, and a Python function below.
tables, files, page, unit, recipe, keys = await asyncio.gather(
    sql_db_list_tables(""),
    list_directory(dir_path="."),
    requests_get(url="{url}/weather"),
    currency(),
    find_recipe(query="bread: rye, water, salt"),
    json_spec_list_keys("data"),
)
rows = await sql_db_query(query="select name, grams from flour order by name")
grams = {{name: int(number) for name, number in re.findall(r"'(\\w+)', (\\d+)", rows)}}
made = await asyncio.gather(*[price(item=name) for name in grams])
cost = await total(grams=grams, cents={{one["item"]: one["cents"] for one in made}})
await write_file(file_path="order.txt", text=f"{{cost}} {{unit['result']}}")
read = await read_file(file_path="order.txt")
taken = json.loads(await requests_post(text=json.dumps({{"url": "{url}/orders", "data": {{"order": read}}}})))
outside = await read_file(file_path="../outside.txt")
wrong = await sql_db_query(query="select nothing from nowhere")
return {{
    "tables": tables, "files": files, "sky": json.loads(page)["sky"], "recipe": recipe, "keys": keys,
    "cost": cost, "read": read, "taken": taken, "wrong": wrong[:5], "grams": grams,
    "outside": "Access denied" in outside,
}}
"""


@pytest.mark.parametrize("how", HOW)
async def test_seven_toolkits_work_together_in_one_program(
    sandbox: CodeSandbox, site: Site, database: Any, tmp_path: Path, how: str
) -> None:
    kits = community()
    root = tmp_path / "root"
    root.mkdir()
    (root / "notes.txt").write_text("a note")
    model = Script(turns=[program(PROGRAM.format(url=site.url)), "done"])
    tools = [
        kits.SQLDatabaseToolkit(db=database, llm=model),
        kits.FileManagementToolkit(root_dir=str(root)),
        kits.RequestsToolkit(requests_wrapper=kits.RequestsWrapper(), allow_dangerous_requests=True),
        kits.JsonToolkit(spec=kits.JsonSpec(dict_={"mill": 1, "baker": 2})),
        StructuredTool.from_function(func=total, args_schema=Order),
        await prices(tmp_path),
        recipes(),
    ]
    node = CodeOrchestrator(tools, sandbox=sandbox, exclusive=True)
    assert [tool.name for tool in node.model_tools] == ["run_code"]
    result = await invoke(graph_of(node, model, InMemorySaver()), GO, thread(), how)
    [answer] = tool_messages(result)
    assert answer.status == "success", answer.text
    value = answer.artifact["value"]
    assert value == {
        "tables": "flour",
        "files": "notes.txt",
        "sky": "clear",
        "recipe": "bread: rye, water, salt",
        "keys": "['mill', 'baker']",
        "cost": 125.0,
        "read": "125.0 EUR",
        "taken": {"taken": {"order": "125.0 EUR"}},
        "wrong": "Error",
        "grams": {"rye": 500, "wheat": 250},
        "outside": True,
    }
    assert (root / "order.txt").read_text() == "125.0 EUR"
    assert site.asked == [("/weather", None), ("/orders", {"order": "125.0 EUR"})]
    statuses = {call["name"]: call["status"] for call in answer.artifact["calls"]}
    assert set(statuses.values()) <= {"ok"}, statuses
    assert len(answer.artifact["calls"]) == 15
