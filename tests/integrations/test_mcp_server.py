# ruff: noqa: E501  (a program is kept on one line)
"""`toolchord mcp` as a process, and the official SDK's client before it: over pipes, and over HTTP on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import ClientSession, McpError, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from toolchord import CodeSandbox
from toolchord.__main__ import main
from toolchord_mcp import connect

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMMAND = [sys.executable, "-m", "toolchord", "mcp"]
TOOLS = ["--tools", "mcp_tools:registry"]

Elicit = Callable[[types.ElicitRequestParams], types.ElicitResult | types.ErrorData]


def environment(traces: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "core"), str(ROOT / "integrations"), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "TRACES": str(traces), **more}


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    file = tmp_path / "traces"
    file.touch()
    return file


@asynccontextmanager
async def session_over(streams: Any, elicit: Elicit | None) -> AsyncIterator[ClientSession]:
    async def asked(context: Any, params: types.ElicitRequestParams) -> Any:
        assert elicit is not None
        return elicit(params)

    async with ClientSession(streams[0], streams[1], elicitation_callback=asked if elicit else None) as session:
        await session.initialize()
        yield session


@asynccontextmanager
async def over_stdio(traces: Path, *options: str, elicit: Elicit | None = None) -> AsyncIterator[ClientSession]:
    parameters = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], *TOOLS, *options], env=environment(traces), cwd=HERE
    )
    async with stdio_client(parameters) as streams, session_over(streams, elicit) as session:
        yield session


@asynccontextmanager
async def http_server(
    traces: Path, *options: str, **more: str
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The URL of a server, and its process."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *TOOLS, "--http", "--port", "0", *options,
        env=environment(traces, **more), cwd=HERE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("serving MCP at http://127.0.0.1:"), line
    try:
        yield line.split()[-1], process
    finally:
        if process.returncode is None:
            process.terminate()
        assert await process.wait() == 0


@asynccontextmanager
async def over_http(traces: Path, *options: str, elicit: Elicit | None = None) -> AsyncIterator[ClientSession]:
    async with (
        http_server(traces, *options) as (url, _),
        streamable_http_client(url) as streams,
        session_over(streams, elicit) as session,
    ):
        yield session


TRANSPORTS = {"stdio": over_stdio, "http": over_http}


@pytest.fixture(params=TRANSPORTS)
def served(request: pytest.FixtureRequest) -> Any:
    return TRANSPORTS[request.param]


async def run(session: ClientSession, code: str, **options: Any) -> types.CallToolResult:
    return await session.call_tool("run_code", {"code": code}, **options)


def text_of(result: types.CallToolResult) -> str:
    [block] = result.content
    assert isinstance(block, types.TextContent)
    return block.text


def summary(result: types.CallToolResult) -> dict[str, Any]:
    assert result.meta is not None
    found: dict[str, Any] = result.meta["toolchord/run"]
    return found


def lines_of(traces: Path) -> list[str]:
    return traces.read_text().splitlines()


def accept(**content: Any) -> Elicit:
    return lambda params: types.ElicitResult(action="accept", content=content)


# The three tools


async def test_a_client_runs_programs_and_finds_the_tools(served: Any, traces: Path) -> None:
    async with served(traces) as session:
        listed = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert list(listed) == ["run_code", "search_tools", "describe_tools"]
        described = listed["run_code"].description or ""
        assert "async def add(a: int, b: int) -> int:" in described
        assert "async def wipe(path: str) -> str:" in described
        assert "1 more: find them with search_tools(query)" in described
        hints = listed["run_code"].annotations
        assert hints is not None
        assert (hints.readOnlyHint, hints.destructiveHint) == (False, True)

        result = await run(session, "found = [add(n, 1) for n in range(3)]\nprint('hi')\nreturn found")
        assert (text_of(result), result.isError) == ("[1, 2, 3]\n\nPrinted:\nhi", False)
        assert [call["status"] for call in summary(result)["calls"]] == ["ok"] * 3

        failed = await run(session, "x = add(1, 2)\nreturn x.nothing")
        assert failed.isError
        assert "AttributeError (line 2)" in text_of(failed)
        assert "line 1: add(a=1, b=2) -> ok" in text_of(failed)
        assert summary(failed)["error"]["kind"] == "program"

        found = await session.call_tool("search_tools", {"query": "numbers total"})
        assert "add(a: int, b: int)  # Add two numbers." in text_of(found)
        assert "sum_up(a: int, b: int)" in text_of(found)
        nothing = await session.call_tool("search_tools", {"query": "zebra"})
        assert "no tool fits 'zebra'" in text_of(nothing)
        told = await session.call_tool("describe_tools", {"names": ["disk.wipe", "nope"]})
        assert "async def wipe(path: str) -> str:" in text_of(told)
        assert "no tool named 'nope'" in text_of(told)
        assert not told.isError
        assert (await session.call_tool("describe_tools", {"names": ["nope"]})).isError


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("run_code", {}, "code: Field required"),
        ("run_code", {"code": 3}, "code: Input should be a valid string"),
        ("run_code", {"code": "1", "language": "js"}, "language: Extra inputs"),
        ("search_tools", {"query": ""}, "query"),
        ("search_tools", {"query": "x", "limit": 10**6}, "limit"),
        ("describe_tools", {"names": []}, "names"),
        ("add", {"a": 1, "b": 2}, "call them with run_code"),
    ],
)
async def test_a_wrong_call_is_an_error_that_says_why(
    shared: Shared, name: str, arguments: dict[str, Any], why: str
) -> None:
    async with shared.client() as session:
        result = await session.call_tool(name, arguments)
        assert result.isError
        assert why in text_of(result)


class Shared:
    """A server that several tests share, and what its tools have left since a test began."""

    def __init__(self, url: str, traces: Path) -> None:
        self.url = url
        self._traces = traces
        self._seen = 0

    @asynccontextmanager
    async def client(self, elicit: Elicit | None = None) -> AsyncIterator[ClientSession]:
        self._seen = len(self._lines())
        async with streamable_http_client(self.url) as streams, session_over(streams, elicit) as session:
            yield session

    def _lines(self) -> list[str]:
        return self._traces.read_text().splitlines() if self._traces.exists() else []

    def traces(self) -> list[str]:
        return self._lines()[self._seen :]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    traces = tmp_path_factory.mktemp("http") / "traces"
    process = subprocess.Popen(
        [*COMMAND, *TOOLS, "--http", "--port", "0", "--wall-time", "3"],
        env=environment(traces), cwd=HERE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        yield Shared(process.stdout.readline().split()[-1], traces)
        process.terminate()
        assert process.wait(20) == 0


async def test_what_a_client_gets_is_bounded_and_what_a_program_gets_is_not(shared: Shared) -> None:
    async with shared.client() as session:
        result = await run(session, "return len(text(size=30_000_000)), len(rows(count=200_000)), text(size=500_000)")
        assert not result.isError
        assert len(text_of(result)) <= 20_000
        assert text_of(result).startswith('[30000000, 200000, "xxx')
        assert "characters cut" in text_of(result)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("while True: pass", "limit"),
        ("return 'x' * 10**10", "limit"),
        ("import os", "refused"),
        ("return (", "syntax"),
        ("return [object()]", "value"),
    ],
)
async def test_a_program_that_misbehaves_ends_alone(shared: Shared, code: str, kind: str) -> None:
    async with shared.client() as session:
        result = await run(session, code)
        assert result.isError
        assert summary(result)["error"]["kind"] == kind
        assert text_of(await run(session, "return add(1, 2)")) == "3"


async def test_many_clients_at_once(shared: Shared) -> None:
    async def one(number: int) -> str:
        async with shared.client() as session:
            return text_of(await run(session, f"return add({number}, 0)"))

    assert await asyncio.gather(*map(one, range(12))) == [str(number) for number in range(12)]


async def test_tools_can_not_disturb_the_protocol(traces: Path) -> None:
    async with over_stdio(traces) as session:
        assert text_of(await run(session, "return noisy()")) == ""
        assert text_of(await run(session, "return add(1, 2)")) == "3"


# Progress


async def test_calls_and_output_are_told_while_they_happen(served: Any, traces: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    told: list[tuple[float, str]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message or ""))
        if "halfway" in (message or ""):  # the program can't go on before
            await asyncio.to_thread(fifo.write_text, "go")

    async with served(traces) as session:
        code = f"a = add(1, 2)\nprint('halfway', a)\nb = await wait_for({str(fifo)!r})\nreturn b"
        result = await run(session, code, progress_callback=on_progress)
        assert text_of(result) == "go\n\nPrinted:\nhalfway 3"
    lines = "\n".join(message for _, message in told).splitlines()
    assert lines[0] == "call 1: default.add(a=1, b=2)"
    assert lines[1].startswith("call 1: default.add ok, ")
    assert lines[2] == "halfway 3"
    assert lines[-1].startswith("call 2: default.wait_for ok, ")
    assert [number for number, _ in told] == sorted({number for number, _ in told})


# Approvals


async def test_all_calls_that_wait_are_asked_for_at_once_and_nothing_is_done_twice(served: Any, traces: Path) -> None:
    asked: list[types.ElicitRequestParams] = []

    def elicit(params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params)
        return types.ElicitResult(action="accept", content={})

    async with served(traces, elicit=elicit) as session:
        code = "import asyncio\nprint('once')\na = add(1, 2)\nb = await asyncio.gather(disk.wipe('x'), disk.wipe('y'))\nreturn a, b, add(3, 4)"
        result = await run(session, code)
        assert text_of(result) == '[3, ["wiped x", "wiped y"], 7]\n\nPrinted:\nonce'
    [question] = asked
    assert isinstance(question, types.ElicitRequestFormParams)
    assert question.message.splitlines()[1:] == ["1. disk.wipe(path='x'), line 4", "2. disk.wipe(path='y'), line 4"]
    assert list(question.requestedSchema["properties"]) == ["call_1", "call_2"]
    assert lines_of(traces) == ["add 1 2", "wipe x", "wipe y", "add 3 4"]


async def test_an_answer_holds_for_the_call_that_was_shown_or_for_the_tool(shared: Shared) -> None:
    answers: list[dict[str, Any]] = [{"call_1": "no", "call_2": "once"}, {"call_1": "always"}]

    def elicit(params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content=answers.pop(0))

    async with shared.client(elicit) as session:
        code = "import asyncio\nr = await asyncio.gather(disk.wipe('a'), disk.wipe('b'), return_exceptions=True)\nmore = [await disk.wipe(p) for p in 'cdef']\nreturn [str(x) for x in r], more"
        result = await run(session, code)
        assert text_of(result) == (
            '[["disk.wipe was refused: the user said no to this call", "wiped b"], ["wiped c", "wiped d", "wiped e", "wiped f"]]'
        )
    assert answers == []
    assert shared.traces() == [f"wipe {letter}" for letter in "bcdef"]


@pytest.mark.parametrize(
    ("elicit", "kind", "why"),
    [
        (lambda params: types.ElicitResult(action="decline"), "CallDenied", "said no"),
        (lambda params: types.ElicitResult(action="cancel"), "CallDenied", "said no"),
        (accept(call_1="perhaps"), "CallDenied", "said no"),
        (lambda params: types.ErrorData(code=-32603, message="no screen"), "CallDenied", "no screen"),
        (None, "CallDenied", "no elicitation"),
    ],
    ids=["decline", "cancel", "odd", "error", "none"],
)
async def test_without_a_yes_the_call_is_refused_in_the_program(
    shared: Shared, elicit: Elicit | None, kind: str, why: str
) -> None:
    async with shared.client(elicit) as session:
        code = "try:\n    await disk.wipe('x')\nexcept PermissionError as error:\n    return type(error).__name__, str(error), add(1, 1)"
        result = text_of(await run(session, code))
        assert result.startswith(f'["{kind}", "disk.wipe')
        assert why in result
    assert shared.traces() == ["add 1 1"]


async def test_other_tools_ask_if_they_are_told_to_and_destructive_ones_need_not(traces: Path) -> None:
    asked: list[str] = []

    def elicit(params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message.splitlines()[1])
        return types.ElicitResult(action="accept")

    async with over_stdio(traces, "--ask", "sen*", "--allow", "disk.*", elicit=elicit) as session:
        result = await run(session, "return await disk.wipe('x'), send(to='ann'), add(1, 1)")
        assert text_of(result) == '["wiped x", "sent to ann", 2]'
    assert asked == ["1. default.send(to='ann'), line 1"]


async def test_the_time_in_which_a_person_thinks_does_not_count(shared: Shared) -> None:
    async def asked(context: Any, params: Any) -> types.ElicitResult:
        await asyncio.sleep(3.5)  # longer than a program may take
        return types.ElicitResult(action="accept")

    async with (
        streamable_http_client(shared.url) as (read, write, _),
        ClientSession(read, write, elicitation_callback=asked) as session,
    ):
        await session.initialize()
        assert text_of(await run(session, "return await disk.wipe('x')")) == "wiped x"


# Ends


async def test_a_cancelled_program_ends_its_calls_and_the_server_goes_on(
    served: Any, traces: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    begun = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async with served(traces) as session:
        number = session._request_id
        task = asyncio.create_task(run(session, f"await hang({str(fifo)!r})", progress_callback=on_progress))
        await begun.wait()
        note = types.CancelledNotification(params=types.CancelledNotificationParams(requestId=number))
        await session.send_notification(types.ClientNotification(note))
        assert await asyncio.to_thread(fifo.read_text) == "ended"
        with pytest.raises(McpError, match="cancelled"):
            await task
        assert text_of(await run(session, "return add(1, 2)")) == "3"


def stat(pid: int | str) -> list[str]:
    """State, parent and more of a process; a zombie's parent is no more than 0."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["Z", "0"]


def descendants(pid: int) -> set[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    children = {child for child in pids if int(stat(child)[1]) == pid}
    return children.union(*map(descendants, children))


def is_running(pid: int) -> bool:
    return stat(pid)[0] != "Z"


@pytest.mark.parametrize("how", ["close", "terminate", "interrupt", "kill"])
async def test_nothing_is_left_when_the_server_ends_whatever_ends_it(traces: Path, tmp_path: Path, how: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *TOOLS, env=environment(traces), cwd=HERE,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    asked = b"""\
{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}
{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"run_code","arguments":{"code":"await hang('/dev/null')"},"_meta":{"progressToken":1}}}
"""
    process.stdin.write(asked)
    await process.stdin.drain()
    while b"default.hang" not in await process.stdout.readline():
        pass
    below = descendants(process.pid)
    assert below
    if how == "close":
        process.stdin.close()
    else:
        process.send_signal({"terminate": signal.SIGTERM, "interrupt": signal.SIGINT, "kill": signal.SIGKILL}[how])
    status = await process.wait()
    assert status == (-9 if how == "kill" else 0)
    deadline = time.monotonic() + 20
    while any(map(is_running, below)):
        assert time.monotonic() < deadline, "something of the server still runs"


# HTTP's doors


async def test_a_browser_page_can_not_reach_the_server(shared: Shared) -> None:
    async with httpx.AsyncClient() as client:
        body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        accept_both = {"accept": "application/json, text/event-stream"}
        rebound = await client.post(shared.url, json=body, headers={**accept_both, "host": "evil.example"})
        assert rebound.status_code == 421
        foreign = await client.post(shared.url, json=body, headers={**accept_both, "origin": "http://evil.example"})
        assert foreign.status_code == 403
        assert (await client.get(shared.url.replace("/mcp", "/"))).status_code == 404


async def test_a_token_is_needed_where_one_is_set(traces: Path) -> None:
    token = "a-token-that-is-long-enough"
    async with http_server(traces, "--token-env", "TOKEN", TOKEN=token) as (url, _), AsyncExitStack() as stack:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": token}):
            async with httpx.AsyncClient(headers=headers) as client:
                assert (await client.post(url, json={})).status_code == 401
        client = await stack.enter_async_context(httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}))
        streams = await stack.enter_async_context(streamable_http_client(url, http_client=client))
        session = await stack.enter_async_context(session_over(streams, None))
        assert text_of(await run(session, "return add(1, 2)")) == "3"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--tools", "no_such_module:x"], "there is no module 'no_such_module'"),
        (["--tools", "mcp_tools:no_such"], "the module 'mcp_tools' has no 'no_such'"),
        (["--tools", "mcp_tools:__name__"], "no tool named 'mcp_tools'"),
        (["--tools", ":x"], "names no module"),
        ([*TOOLS, "--ask", "dsk.*"], "'dsk.*' fits no tool"),
        ([*TOOLS, "--allow", "wip"], "'wip' fits no tool"),
        ([*TOOLS, "--http", "--host", "0.0.0.0", "--port", "0"], "set a token"),
        ([*TOOLS, "--http", "--host", "no.such.host.invalid", "--port", "0"], "set a token"),
        ([*TOOLS, "--http", "--token-env", "NO_SUCH_TOKEN"], "NO_SUCH_TOKEN is not set"),
        ([*TOOLS, "--wall-time", "-1"], "wall_time"),
    ],
)
def test_options_that_make_no_sense_are_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], why: str
) -> None:
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the current folder is put on it
    monkeypatch.setattr(sys, "argv", ["toolchord", "mcp", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed, line = capsys.readouterr()
    assert line.startswith("toolchord: ")
    assert why in line
    assert (line.count("\n"), printed) == (1, "")


async def test_toolchord_takes_tools_from_toolchord(traces: Path) -> None:
    async def asked(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept")

    server = {
        "command": COMMAND[0],
        "args": [*COMMAND[1:], "--tools", "mcp_tools:made"],
        "env": environment(traces),
        "cwd": HERE,
    }
    async with (
        connect(server, callbacks={"elicitation_callback": asked}, namespace="far") as far,
        CodeSandbox() as sandbox,
    ):
        code = """return await far.run_code(code="return await disk.wipe('x'), add(1, 2)")"""
        result = await sandbox.execute(code, far.registry)
        assert result.value == '["wiped x", 3]', result.for_model()


async def test_the_tools_of_other_servers_are_served_on(traces: Path) -> None:
    parameters = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "--tools", "mcp_gateway:registry"], env=environment(traces), cwd=HERE
    )
    async with stdio_client(parameters) as streams, session_over(streams, None) as session:
        assert text_of(await run(session, "return (await rows(value={'rows': [1, 2]})).rows")) == "[1, 2]"
        failed = await run(session, "await die()")
        assert "ServerLost (line 1): die: the connection ended before the answer came" in text_of(failed)
        assert text_of(await run(session, "return await answer()")) == '{"looks": "like JSON"}'


async def test_several_sources_are_served_together(traces: Path) -> None:
    async with over_stdio(traces, "--tools", "mcp_tools") as session:
        assert text_of(await run(session, "return registered(), add(1, 2)")) == '["registered", 3]'
