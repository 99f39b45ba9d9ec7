# ruff: noqa: E501  (a program is kept on one line)
"""Tools of MCP servers in programs: a server that breaks every rule, over real pipes; each time a typed error, and a
connection that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.integrations import mcp_bad_server
from toolchord import (
    CodeSandbox,
    ExecutionResult,
    Limits,
    ToolCapability,
    ToolRegistry,
    create_registry,
    format_tools_for_llm,
)
from toolchord.errors import ConfigurationError, RegistrationError, ToolNotFoundError
from toolchord_mcp import (
    BadAnswer,
    ConnectFailed,
    Connection,
    RequestFailed,
    ServerError,
    ServerLost,
    ServerTimeout,
    ToolFailed,
    connect,
    registry_from,
)

BAD = str(Path(mcp_bad_server.__file__))


def bad(mode: str = "fine", starts: Path | None = None, **options: Any) -> Connection:
    command = [sys.executable, BAD, mode, *([str(starts)] if starts else [])]
    return connect(command, **{"timeout": 20.0, **options})


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox(limits=Limits(wall_time=60)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def server() -> Iterator[Connection]:
    """For what leaves the server as it was."""
    with bad() as connection:
        yield connection


async def value_of(sandbox: CodeSandbox, code: str, connection: Connection) -> Any:
    result = await sandbox.execute(code, connection.registry)
    assert result.ok, result.for_model()
    return result.value


async def failure_of(sandbox: CodeSandbox, code: str, connection: Connection) -> tuple[str, str]:
    """The type and message of what a program dies of."""
    result = await sandbox.execute(code, connection.registry)
    assert result.error is not None
    return result.error.type, result.error.message


async def assert_alive(sandbox: CodeSandbox, connection: Connection) -> None:
    """The connection serves the next program."""
    assert await value_of(sandbox, "return await answer()", connection) == '{"looks": "like JSON"}'


# What a program gets


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("answer()", '{"looks": "like JSON"}'),
        ("no_content()", None),
        ("rows(value={'rows': [1, 2]})", {"rows": [1, 2]}),
        ("wrapped()", [1, 2]),
        ("image()", [{"type": "text", "text": "look"}, {"type": "image", "data": b"\x00\x01\xff", "mimeType": "image/png"}]),
        (
            "blob()",
            [{"type": "resource", "resource": {"uri": "file:///x", "mimeType": "application/octet-stream", "blob": b"\x00\x01\xff"}}],
        ),
        ("recursive(n=1, child={'n': 2})", {"n": 1, "child": {"n": 2}}),
        ("empty(anything=[1], goes={'a': None})", '{"anything": [1], "goes": {"a": null}}'),
        ("many()", "in between"),
        ("garbage()", "after the garbage"),
    ],
)  # fmt: skip
async def test_a_program_gets_data_and_text_stays_text(
    sandbox: CodeSandbox, server: Connection, call: str, expected: Any
) -> None:
    assert await value_of(sandbox, f"return await {call}", server) == expected


async def test_arguments_are_checked_before_anything_is_sent_and_go_out_as_json(
    sandbox: CodeSandbox, server: Connection
) -> None:
    sent = "datetime.date(2024, 2, 29), {1}, (1, 2), b'\\xff', Decimal('1.5')"
    code = f"import datetime\nfrom decimal import Decimal\nreturn await given(x=[{sent}])"
    assert await value_of(sandbox, code, server) == {"x": ["2024-02-29", [1], [1, 2], "_w==", "1.5"]}
    for wrong, why in [
        ("given(x=float('nan'))", "JSON"),
        ("given(x='\\ud800')", "JSON"),
        ("given(y=1)", "unexpected argument 'y'"),
        ("recursive(n='one')", "expected integer"),
    ]:
        kind, message = await failure_of(sandbox, f"return await {wrong}", server)
        assert kind == "InvalidArguments"
        assert why in message


async def test_output_schemas_become_return_types_and_annotations_capabilities() -> None:
    tools = {
        "annotations": {"readOnlyHint": True, "destructiveHint": True, "idempotentHint": True, "openWorldHint": False},
    }
    from toolchord_mcp.inbound import capabilities, described

    entry = {"name": "look", "inputSchema": {"type": "object"}, **tools}
    assert capabilities(described(entry).annotations) == {ToolCapability.READ_ONLY, ToolCapability.IDEMPOTENT}
    entry["annotations"] = {"destructiveHint": True, "openWorldHint": True}
    assert capabilities(described(entry).annotations) == {ToolCapability.DESTRUCTIVE, ToolCapability.OPEN_WORLD}
    assert capabilities(described({**entry, "annotations": {"title": "Look"}}).annotations) == frozenset()
    assert capabilities(None) == frozenset()


def test_what_the_server_says_of_a_tool_is_metadata(server: Connection) -> None:
    tool = server.registry.find("rows")
    assert tool is not None
    assert (tool.metadata.source, tool.metadata.source_name) == ("mcp", "bad")
    assert tool.metadata.result_schema == mcp_bad_server.ROWS
    text = format_tools_for_llm(server.registry)
    assert "async def rows(value: Any = ...) -> RowsResult:" in text
    assert "rows: list[int]" in text
    assert "async def wrapped() -> list[int]:" in text


def test_metadata_of_the_host_wins(sandbox: CodeSandbox) -> None:
    with bad(namespace="odd", only=["answer"], capabilities=["read_only"], timeout=20.0) as connection:
        [tool] = connection.registry.tools()
        assert tool.full_name == "odd.answer"
        assert tool.metadata.capabilities == {ToolCapability.READ_ONLY}
        assert sandbox.execute_sync("return await odd.answer()", connection.registry).ok


# Errors of a tool and of the protocol


@pytest.mark.parametrize(
    ("call", "kind", "base", "why"),
    [
        ("no_structured()", "ToolFailed", "RuntimeError", "no"),
        ("protocol_error()", "RequestFailed", "Exception", "I don't like it"),
        ("odd_form()", "BadAnswer", "ValueError", "not of the protocol's form"),
        ("no_result()", "BadAnswer", "ValueError", "content"),
        ("broken_image()", "BadAnswer", "ValueError", "base64"),
        ("unstructured()", "BadAnswer", "ValueError", "promises structured content"),
        ("rows(value={'rows': ['a']})", "BadAnswer", "ValueError", "rows[0]: expected integer, got str 'a'"),
        ("rows(value={})", "BadAnswer", "ValueError", "rows: missing"),
        ("rows(value=[1])", "BadAnswer", "ValueError", "structuredContent"),
        ("big()", "BadAnswer", "ValueError", "larger than 16,777,216 bytes"),
        ("big(id_last=False)", "BadAnswer", "ValueError", "larger than 16,777,216 bytes"),
    ],
)
async def test_a_call_that_goes_wrong_raises_in_the_program_and_the_next_one_works(
    sandbox: CodeSandbox, server: Connection, call: str, kind: str, base: str, why: str
) -> None:
    code = f"try:\n    await {call}\nexcept {base} as error:\n    return type(error).__name__, str(error)"
    name, message = await value_of(sandbox, code, server)
    assert name == kind
    assert why in message
    await assert_alive(sandbox, server)


async def test_an_answer_of_50_mb_comes_through_if_it_may(sandbox: CodeSandbox) -> None:
    async with bad(max_bytes=64 << 20) as connection:
        assert await value_of(sandbox, "return len(await big())", connection) == 50_000_000


async def test_errors_carry_what_code_of_the_host_needs(server: Connection) -> None:
    async def error_of(name: str) -> ServerError:
        tool = server.registry.find(name)
        assert tool is not None
        with pytest.raises(ServerError) as caught:
            await tool.execute()
        assert caught.value.server == "bad"
        return caught.value

    failed = await error_of("no_structured")
    assert isinstance(failed, ToolFailed)
    assert failed.details == {"why": 7}
    refused = await error_of("protocol_error")
    assert isinstance(refused, RequestFailed)
    assert refused.code == -32602


# A server that dies, is late, or says nothing


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("die()", "the server ended with exit code 3; its stderr ends with:\nout of luck"),
        ("die_quietly()", "the server ended with exit code 0"),
        ("partial_death()", "the server ended with exit code 1"),
    ],
)
async def test_a_server_that_dies_mid_call_is_a_typed_error_and_is_started_for_the_next_call(
    sandbox: CodeSandbox, tmp_path: Path, call: str, why: str
) -> None:
    async with bad(starts=tmp_path / "starts") as connection:
        code = f"try:\n    await {call}\nexcept ConnectionError as error:\n    return type(error).__name__, str(error), await starts()"
        name, message, again = await value_of(sandbox, code, connection)
        assert name == "ServerLost"
        assert why in message
        assert again == {"starts": 2}


async def test_calls_beside_the_one_that_kills_the_server_fail_alike_and_none_is_repeated(
    sandbox: CodeSandbox, tmp_path: Path
) -> None:
    async with bad(starts=tmp_path / "starts") as connection:
        code = "import asyncio\nr = await asyncio.gather(silent(), silent(), die(), return_exceptions=True)\nreturn [type(e).__name__ for e in r], await starts()"
        assert await value_of(sandbox, code, connection) == (["ServerLost"] * 3, {"starts": 2})


async def test_a_server_that_always_dies_is_not_started_for_ever(sandbox: CodeSandbox, tmp_path: Path) -> None:
    async with bad(starts=tmp_path / "starts") as connection:
        code = "seen = []\nfor _ in range(6):\n    try:\n        await die()\n    except Exception as error:\n        seen.append(type(error).__name__)\nreturn seen"
        seen = await value_of(sandbox, code, connection)
        assert seen == ["ServerLost"] * 3 + ["ConnectFailed"] * 3
        assert (tmp_path / "starts").read_text() == "3"


async def test_silence_is_a_typed_error_and_a_late_answer_disturbs_nobody(sandbox: CodeSandbox) -> None:
    async with bad(timeout=3.0) as connection:
        code = (
            "try:\n    await late_then_on()\nexcept TimeoutError as error:\n    return type(error).__name__, str(error)"
        )
        name, message = await value_of(sandbox, code, connection)
        assert name == "ServerTimeout"
        assert "late_then_on: no sign of life from the server for 3.0 s" in message
        # The second call makes the server answer the first one too, which nobody waits for any more.
        assert await value_of(sandbox, "return await late_then_on()", connection) == "answer True"
        given_up = await value_of(sandbox, "return await cancelled()", connection)
        assert [reason for _, reason in given_up["given_up"]] == ["timed out"]


async def test_a_line_without_an_end_costs_no_memory_and_ends_the_call(sandbox: CodeSandbox) -> None:
    async with bad(timeout=3.0, max_bytes=1 << 20) as connection:
        assert (await failure_of(sandbox, "return await flood()", connection))[0] == "ServerTimeout"


async def test_a_call_that_the_program_gives_up_reaches_the_server(sandbox: CodeSandbox, server: Connection) -> None:
    code = """\
import asyncio
try:
    await asyncio.wait_for(silent(), 0.2)
except TimeoutError:
    pass
while not (given_up := (await cancelled())["given_up"]):
    pass
return [reason for _, reason in given_up]
"""
    assert await value_of(sandbox, code, server) == ["nobody waits for it any more"]


async def test_a_run_that_is_cancelled_reaches_the_server_and_progress_reaches_the_host(sandbox: CodeSandbox) -> None:
    begun = asyncio.Event()
    told: list[Any] = []

    def on_progress(*news: Any) -> None:
        told.append((*news, threading.current_thread() is threading.main_thread()))
        begun.set()

    async with bad(on_progress=on_progress) as connection:
        run = asyncio.create_task(sandbox.execute("await silent()", connection.registry))
        await begun.wait()
        assert told == [("silent", 1.0, None, "begun", True)]
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        code = "while not (g := (await cancelled())['given_up']):\n    pass\nreturn len(g)"
        assert await value_of(sandbox, code, connection) == 1


# A server that never gets that far


@pytest.mark.parametrize(
    ("mode", "kind", "why"),
    [
        ("exits", ConnectFailed, "exit code 7; its stderr ends with:\nModuleNotFoundError"),
        ("silent", ServerTimeout, "no answer to initialize within 3.0 s"),
        ("talks", ServerTimeout, "it wrote what is no message: 'Welcome to my server!'"),
        ("old", ConnectFailed, "1999-12-31"),
        ("no form", ConnectFailed, "protocolVersion"),
        ("no tools", ConnectFailed, "offers no tools"),
        ("list is silent", ServerTimeout, "tools/list: no answer"),
        ("list is odd", BadAnswer, "tools"),
        ("list is deep", BadAnswer, "can't be read"),
        ("list fails", RequestFailed, "no list today"),
        ("list has no end", BadAnswer, "no end of pages"),
    ],
)
async def test_a_server_that_can_not_be_used_is_a_typed_error(mode: str, kind: type[ServerError], why: str) -> None:
    slow = mode in ("silent", "talks", "list is silent")  # time enough to start, on a busy machine too
    with pytest.raises(kind, match=r"(?s).*") as caught:
        async with bad(mode, timeout=3.0 if slow else 20.0):
            pass
    assert why in str(caught.value)
    assert caught.value.server


async def test_a_command_that_is_not_there_is_a_typed_error() -> None:
    with pytest.raises(ConnectFailed, match="'no-such-command' can't be started"):
        async with connect(["no-such-command"]):
            pass


@pytest.mark.parametrize(
    ("server", "options", "why"),
    [
        (17, {}, "names no MCP server"),
        ([], {}, "a command is a list"),
        ("npx -y server", {}, "a command is given as a list"),
        ("ftp://host/", {}, "is no http"),
        ({"args": []}, {}, "command"),
        ({"url": "http://h/mcp", "cwd": "/"}, {}, "cwd"),
        ({"url": "http://h/sse", "type": "sse"}, {}, "only streamable HTTP"),
        (["x"], {"timeout": 0}, "timeout"),
        (["x"], {"max_bytes": 5}, "max_bytes"),
        (["x"], {"capabilites": []}, "capabilities"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(server: Any, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        connect(server, **options)


# Its list of tools


async def test_wrong_descriptions_are_left_out_with_a_reason_and_the_others_work(sandbox: CodeSandbox) -> None:
    async with bad("wrong tools") as connection:
        named = {
            str(tool["name"])[:200]
            for tool in mcp_bad_server.WRONG_TOOLS
            if isinstance(tool, dict) and tool.get("name")
        }
        assert named <= connection.refused.keys()
        assert len(connection.refused) == 18  # of two that bear one name, the first is a tool
        assert all(isinstance(error, RegistrationError) for error in connection.refused.values())
        assert {tool.name for tool in connection.registry.tools()} == {
            tool["name"] for tool in mcp_bad_server.TOOLS
        } | {"twice"}
        format_tools_for_llm(connection.registry)
        await assert_alive(sandbox, connection)


def test_a_schema_that_unfolds_without_end_is_described_with_an_end(server: Connection) -> None:
    [wide] = [tool for tool in server.registry.tools() if tool.name == "wide"]
    assert len(wide.signature) < 200_000
    assert "async def wide(" in format_tools_for_llm([wide])


async def test_with_strict_a_wrong_description_is_an_error() -> None:
    with pytest.raises(RegistrationError, match="no_schema"):
        async with bad("wrong tools", strict=True):
            pass


async def test_a_list_of_several_pages_is_read_to_its_end() -> None:
    async with bad("pages") as connection:
        assert len(connection.registry.tools()) == len(mcp_bad_server.TOOLS)


async def test_only_the_tools_that_were_asked_for_are_taken() -> None:
    registry = create_registry()
    async with bad(only=["rows", "answer"], registry=registry):
        assert [tool.name for tool in registry.tools()] == ["answer", "rows"]
    assert registry.tools() == ()
    with pytest.raises(ToolNotFoundError, match="no_such"):
        async with bad(only=["answer", "no_such"], registry=registry):
            pass
    assert registry.tools() == ()


async def test_a_list_that_changes_changes_the_registry(sandbox: CodeSandbox) -> None:
    changed = threading.Event()
    async with bad(on_change=changed.set) as connection:
        kept = connection.registry.find("rows")
        assert await value_of(sandbox, "return await add_tool()", connection) == "added"
        assert await asyncio.to_thread(changed.wait, 20)
        registry = connection.registry
        assert registry.find("new_one") is not None
        assert registry.find("given") is None
        assert registry.find("rows") is kept
        tool = registry.find("answer")
        assert tool is not None
        assert tool.metadata.description == "changed"
        assert await value_of(sandbox, "return await new_one(a=1)", connection) == '{"a": 1}'


async def test_servers_share_a_registry_and_names_that_are_taken_are_left_out(sandbox: CodeSandbox) -> None:
    registry = create_registry()

    def answer() -> str:
        """Ours."""
        return "ours"

    registry.add(answer)
    async with bad(namespace="bad", registry=registry), bad(registry=registry, only=["answer", "starts"]) as second:
        assert list(second.refused) == ["answer"]
        code = "return await answer(), await bad.answer(), await starts()"
        result = await sandbox.execute(code, registry)
        assert result.value == ("ours", '{"looks": "like JSON"}', {"starts": 1})
    assert [tool.full_name for tool in registry.tools()] == ["default.answer"]


# The life of a connection


def test_it_works_without_an_event_loop_and_leaves_no_process(sandbox: CodeSandbox) -> None:
    before = servers()
    with bad() as connection:
        assert sandbox.execute_sync("return await answer()", connection.registry).ok
        assert len(servers() - before) == 1
    assert servers() <= before


def servers() -> set[str]:
    """The processes that run the bad server for this one."""
    found = set()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and BAD in (folder / "cmdline").read_text():
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == os.getpid():
                    found.add(folder.name)
    return found


async def test_execute_sync_works_inside_a_running_loop(sandbox: CodeSandbox) -> None:
    async with bad() as connection:
        assert sandbox.execute_sync("return await answer()", connection.registry).ok


async def test_a_closed_connection_says_so(sandbox: CodeSandbox) -> None:
    async with bad() as connection:
        tool = connection.registry.find("answer")
    assert tool is not None
    with pytest.raises(ServerLost, match="the connection is closed"):
        await tool.execute()
    connection.close()
    with pytest.raises(ConfigurationError, match="opened once"):
        connection.open()


async def test_closing_ends_the_calls_under_way(sandbox: CodeSandbox) -> None:
    begun = asyncio.Event()
    async with bad(on_progress=lambda *news: begun.set()) as connection:
        run = asyncio.create_task(sandbox.execute("await silent()", connection.registry))
        await begun.wait()
    result: ExecutionResult = await run
    assert result.error is not None
    assert result.error.type == "ServerLost"


async def test_opening_can_be_cancelled() -> None:
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()

    @contextlib.asynccontextmanager
    async def transport() -> AsyncIterator[Any]:
        """A server that is being started, and says nothing yet."""
        parameters = StdioServerParameters(command=sys.executable, args=[BAD, "silent"])
        async with stdio_client(parameters) as streams:
            loop.call_soon_threadsafe(entered.set)
            yield streams

    opening = asyncio.create_task(connect(transport).__aenter__())
    await entered.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not [thread for thread in threading.enumerate() if thread.name == "toolchord-mcp the MCP server"]


# A session that somebody else keeps


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    ours, theirs = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def keep() -> None:  # the SDK's contexts must be entered and left by one task
        parameters = StdioServerParameters(command=sys.executable, args=[BAD, "fine"])
        async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            theirs.set_result(session)
            await ours.wait()

    keeper = asyncio.create_task(keep())
    yield await theirs
    ours.set()
    await keeper


async def test_the_tools_of_a_session_that_is_there(sandbox: CodeSandbox, session: ClientSession) -> None:
    registry = await registry_from(session, namespace="bad", only=["answer", "silent", "cancelled", "rows"])
    assert isinstance(registry, ToolRegistry)
    assert (await sandbox.execute("return await bad.answer()", registry)).value == '{"looks": "like JSON"}'
    code = "import asyncio\ntry:\n    await asyncio.wait_for(bad.silent(), 0.2)\nexcept TimeoutError:\n    pass\nwhile not (g := (await bad.cancelled())['given_up']):\n    pass\nreturn len(g)"
    assert (await sandbox.execute(code, registry)).value == 1
    in_a_thread = await asyncio.to_thread(sandbox.execute_sync, "return await bad.rows(value={'rows': []})", registry)
    assert in_a_thread.value == {"rows": []}
    with pytest.raises(ToolNotFoundError):
        await registry_from(session, only=["nothing"])
