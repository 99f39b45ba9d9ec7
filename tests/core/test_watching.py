"""A run while it goes on: in a terminal, in a notebook's real kernel, and as data; and what a cell gives."""

from __future__ import annotations

import asyncio
import io
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from rich.console import Console

import toolchord
from tests.core.runs import every_kind, many
from tests.pictures import LARGEST
from toolchord import CodeSandbox, LiveTrace, Orchestrator, Reply, Trace
from toolchord.errors import ConfigurationError
from toolchord.terminal import view, watching

ROOT = Path(__file__).parents[2]


class Gate:
    """A tool that waits until it is told to go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def wait(self, n: int) -> int:
        """Wait."""
        self.reached.set()
        await self.opened.wait()
        return n


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox() as sandbox:
        yield sandbox


def printed(trace: Trace, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=100, **options)
    console.print(view(trace))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def double(n: int) -> int:
    """Twice as much."""
    return 2 * n


# As data


@pytest.mark.asyncio(loop_scope="module")
async def test_a_live_trace_is_told_of_the_program_its_calls_and_its_end(sandbox: CodeSandbox) -> None:
    live, gate = LiveTrace(), Gate()
    run = asyncio.create_task(sandbox.execute("print('begin')\nreturn wait(n=1)", [gate.wait], watch=live))
    await gate.reached.wait()
    now = live.trace
    assert not live.done
    assert (now.status, now.code, now.stdout) == ("running", "print('begin')\nreturn wait(n=1)", "begin\n")
    [call] = now.calls
    assert (call.tool, call.line, call.status, call.arguments) == ("default.wait", 2, "running", {"n": "1"})
    assert call.duration <= live.trace.calls[0].duration
    gate.opened.set()
    result = await run
    assert live.done
    assert live.trace.status == "ok"
    assert live.trace == result.trace()
    assert live.trace.calls[0].result == "1"


async def test_a_live_trace_of_an_orchestrator_has_every_program() -> None:
    programs = iter(["1 / 0", "return double(1)"])

    def model(messages: list[Any]) -> Reply:
        code = next(programs, "")
        return Reply(f"```python\n{code}\n```" if code else "two")

    async with CodeSandbox(tools=[double]) as sandbox:
        live = LiveTrace()
        run = await Orchestrator(model, sandbox).run("divide", watch=live)
    assert [trace.status for trace in live.traces] == ["failed", "ok"]
    assert (
        [trace.code for trace in run.traces()] == [trace.code for trace in live.traces] == ["1 / 0", "return double(1)"]
    )
    shown = run._repr_mimebundle_()
    assert shown["text/plain"].startswith("two\nFailed: ")
    assert "Program 2 of 2" in shown["text/html"]


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_refused_program_leaves_is_shown_too(sandbox: CodeSandbox) -> None:
    live = LiveTrace()
    result = await sandbox.execute("open('/etc/passwd')\nimport os", watch=live)
    assert live.trace.status == "failed"
    assert result._repr_mimebundle_()["text/plain"].startswith("Failed: ")
    large = await sandbox.execute("x" * 10_000_000)
    assert "source" in large.trace().to_html()
    assert "source" in printed(large.trace())


# In a terminal


def test_a_terminal_shows_calls_under_their_lines() -> None:
    text = printed(every_kind("what"), color_system=None)
    assert re.search(r"2▌what.*\n.*what \(line 2\): what", text)
    for said in ("failed what(what=what)", "waits what(what=what)", "replayed what.what()", "held back what.what()"):
        assert said in text
    assert re.search(r"what \N{MULTIPLICATION SIGN} 32, 1 failed +[▁▂▃▄▅▆▇█]+", text)
    assert "3 more calls not in this trace" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_terminal_shows_five_thousand_calls_in_a_few_rows() -> None:
    text = printed(many(), color_system=None)
    assert len(text.splitlines()) < 20
    assert "get \N{MULTIPLICATION SIGN} 5,000, 1 failed" in text
    assert "failed get(n=2500)" in text


@pytest.mark.parametrize(
    "hostile", ["\x1b[2J\x1b]0;title\x07", "\x9b2J", "a\rb\x08\x08", "[red]x[/red]", "\u202egnp\u2066", "\ud800"]
)
def test_no_text_steers_the_terminal(hostile: str) -> None:
    text = printed(every_kind(hostile), force_terminal=False, color_system=None)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert ("[red]x[/red]" in text) == (hostile == "[red]x[/red]")
    text.encode()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_terminal_shows_a_run_while_it_goes_on(sandbox: CodeSandbox) -> None:
    gate, written = Gate(), io.StringIO()
    console = Console(file=written, width=100, height=30, force_terminal=True, color_system=None)
    with watching(console=console) as live:
        run = asyncio.create_task(sandbox.execute("return wait(n=1)", [gate.wait], watch=live))
        await gate.reached.wait()
        while "wait(n=1)" not in written.getvalue():  # noqa: ASYNC110 - nobody tells when rich has written
            await asyncio.sleep(0.02)
        now = written.getvalue()
        gate.opened.set()
        await run
    assert "running wait(n=1)" in now
    assert "ok in" not in now
    assert "ok in" in written.getvalue()[len(now) :]


@pytest.mark.asyncio(loop_scope="module")
async def test_where_there_is_no_terminal_the_run_is_printed_once(sandbox: CodeSandbox) -> None:
    written = io.StringIO()
    with watching(console=Console(file=written, width=100)) as live:
        await sandbox.execute("print(1)\nreturn 2", watch=live)
    text = written.getvalue()
    assert text.count("ok in") == 1
    assert "\x1b" not in text
    with watching(console=Console(file=written, width=100)):
        pass  # nothing ran, so there is nothing to show
    assert written.getvalue() == text


@pytest.mark.asyncio(loop_scope="module")
async def test_a_run_that_is_broken_off_is_shown_as_far_as_it_came(sandbox: CodeSandbox) -> None:
    gate, written = Gate(), io.StringIO()

    async def broken_off() -> None:
        with watching(console=Console(file=written, width=100)) as live:
            run = asyncio.create_task(sandbox.execute("return wait(n=1)", [gate.wait], watch=live))
            await gate.reached.wait()
            run.cancel()
            await run

    with pytest.raises(asyncio.CancelledError):
        await broken_off()
    assert "wait(n=1)" in written.getvalue()


# In a notebook


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingKernelClient]:
    """A real kernel that imports this repository."""
    folder = tmp_path_factory.mktemp("jupyter")
    env = {**os.environ, "IPYTHONDIR": str(folder), "JUPYTER_RUNTIME_DIR": str(folder), "MPLBACKEND": "agg"}
    env["PYTHONPATH"] = os.pathsep.join(
        [str(Path(toolchord.__file__).parents[1]), str(ROOT / "integrations"), str(ROOT)]
    )
    manager = KernelManager()  # the kernel of this interpreter
    manager.start_kernel(env=env, cwd=str(folder))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def messages(client: BlockingKernelClient, code: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a cell puts out, in order; a cell that fails fails the test."""
    sent = client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != sent:
            continue
        kind, content = message["msg_type"], message["content"]
        assert kind != "error", content["traceback"]
        if kind == "status" and content["execution_state"] == "idle":
            return
        yield kind, content


SETUP = """
import asyncio, pathlib
from toolchord import CodeSandbox
from toolchord.notebook import watching
async def wait(n: int) -> int:
    "Wait until there is a file."
    while not pathlib.Path("go").exists():
        await asyncio.sleep(0.01)
    return n
sandbox = CodeSandbox(tools=[wait])
program = "print('begin')\\nreturn wait(n=7)"
"""


@pytest.mark.parametrize(
    "run",
    ["await sandbox.execute(program, watch=live)", "sandbox.execute_sync(program, watch=live)"],
    ids=["await", "sync"],
)
def test_a_notebook_shows_a_run_while_it_goes_on(run: str, kernel: BlockingKernelClient) -> None:
    folder = next(
        content for kind, content in messages(kernel, SETUP + "print(pathlib.Path().resolve())") if kind == "stream"
    )
    go = Path(folder["text"].strip()) / "go"
    go.unlink(missing_ok=True)
    shown, ids, updates = [], set(), 0
    for kind, content in messages(kernel, f"with watching() as live:\n    result = {run}\nNone"):
        if kind in ("display_data", "update_display_data"):
            shown.append(content["data"])
            ids.add(content["transient"]["display_id"])
            updates += kind == "update_display_data"
            if "wait(n=7)" in content["data"]["text/html"]:
                go.touch()  # it was seen while it ran; now it may end
    assert len(ids) == 1
    assert updates == len(shown) - 1 >= 2
    assert any("Running" in data["text/html"] and "running</b>" in data["text/html"] for data in shown)
    assert shown[-1]["text/plain"].startswith("Done: ")
    assert 'class="toolchord-run tc-is-ok"' in shown[-1]["text/html"]
    assert "1 tool call" in shown[-1]["text/plain"]


def test_a_cell_that_gives_a_result_shows_it(kernel: BlockingKernelClient) -> None:
    code = "from toolchord import CodeSandbox\nresult = await CodeSandbox().execute('print(1)\\nreturn 2 + 3')\nresult"
    [data] = [content["data"] for kind, content in messages(kernel, code) if kind == "execute_result"]
    assert data["text/plain"].startswith("Done: ")
    assert data["text/plain"].endswith("\n5")
    assert "<section" in data["text/html"]
    [same] = [content["data"] for kind, content in messages(kernel, "result.trace()") if kind == "execute_result"]
    assert same.keys() == data.keys()


def test_outside_of_a_notebook_it_says_what_to_use() -> None:
    from toolchord.notebook import watching as in_notebook

    with pytest.raises(ConfigurationError, match=r"toolchord\.terminal\.watching"), in_notebook():
        pass


# The page on all this


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "timeline.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_first_steps(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", blocks()[0]], cwd=tmp_path, env=env, check=True, timeout=60)
    text = (tmp_path / "run.html").read_text()
    assert "get_price(item=&#x27;pear&#x27;)" in text
    assert len(text) < 30_000


def test_the_page_on_watching(
    kernel: BlockingKernelClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, notebook, terminal, kept, several = blocks()
    setup = "from toolchord import CodeSandbox\nsandbox, program = CodeSandbox(), 'return 40 + 2'\n"
    shown = [content for kind, content in messages(kernel, setup + notebook) if kind.endswith("display_data")]
    assert shown[-1]["data"]["text/plain"].endswith("\n42")
    names: dict[str, Any] = {}
    with CodeSandbox() as box:
        names |= {"sandbox": box, "program": "return 40 + 2"}
        exec(terminal.replace("await sandbox.execute(", "sandbox.execute_sync("), names)
        assert capsys.readouterr().out.count("ok in") == 2
        exec(kept, names)
        assert "<title>Prices of fruit</title>" in names["html"]
        names["run"] = type("Run", (), {"traces": lambda self: [names["trace"]] * 2})()
        exec(several, names)
    assert "Program 2 of 2" in names["html"]
    assert (tmp_path / "run.json").is_file()


def test_the_pictures_of_the_page_are_there_and_small() -> None:
    named = set(re.findall(r"\((images/[\w-]+\.png)\)", (ROOT / "docs" / "timeline.md").read_text()))
    assert len(named) >= 4
    for name in named:
        assert 10_000 < (ROOT / "docs" / name).stat().st_size < LARGEST
