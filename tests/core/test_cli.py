"""The command `toolchord`: small, honest about what stands, and clear about what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from toolchord import Catalogue, ToolRegistry, create_registry
from toolchord.__main__ import main
from toolchord.errors import ConfigurationError, MissingExtraError, ToolNotFoundError
from toolchord.loading import load_tools

ROOT = Path(__file__).parents[2]


def toolchord(*arguments: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, where some modules are not there."""
    missing = "".join(f"sys.modules[{name!r}] = None; " for name in without)
    code = f"import sys; {missing}from toolchord.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )


def test_doctor_says_which_walls_stand() -> None:
    ended = toolchord("doctor")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[:2] == ["isolation: auto, complete", "language: restricted"]
    assert "  seccomp: on" in lines


def test_doctor_as_json() -> None:
    ended = toolchord("doctor", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    report = json.loads(ended.stdout)
    assert report["complete"] is True
    assert report["missing"] == []
    assert report["layers"]["process"] == "on"


@pytest.mark.parametrize(
    ("without", "arguments", "extra"),
    [("typer", ["doctor"], "cli"), ("mcp", ["mcp", "--tools", "x:y"], "mcp")],
)
def test_a_missing_extra_is_one_line_with_the_pip_command(without: str, arguments: list[str], extra: str) -> None:
    ended = toolchord(*arguments, without=(without,))
    assert (ended.returncode, ended.stdout) == (2, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("toolchord: ")
    assert f"pip install 'toolchord[{extra}]'" in line


def test_the_extras_errors_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra, importing in [("typer", "cli", "toolchord.cli"), ("mcp", "mcp", "toolchord_mcp")]:
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, importing, raising=False)
        with pytest.raises(MissingExtraError) as missing:
            __import__(importing)
        assert missing.value.extra == extra


def test_the_rest_of_the_command_works_without_mcp() -> None:
    assert toolchord("doctor", without=("mcp",)).returncode == 0


def test_the_wheel_brings_the_command(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        [entry] = [name for name in file.namelist() if name.endswith("entry_points.txt")]
        assert "toolchord = toolchord.__main__:main" in file.read(entry).decode()


def test_help_is_shown_without_a_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["toolchord", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "doctor" in shown
    assert "mcp" in shown


# Running, looking, keeping


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tools, programs and a run that was kept."""
    made = tmp_path_factory.mktemp("cli")
    (made / "shop.py").write_text(
        textwrap.dedent('''
            from toolchord import create_registry

            registry = create_registry()

            async def price(item: str) -> float:
                """What an item costs.

                In euros.
                """
                return float(len(item))

            async def pay(amount: float) -> str:
                """Pay."""
                return f"paid {amount}"

            registry.add(price, capabilities=["read_only"], price=0.5)
            registry.add(pay)
        ''')
    )
    (made / "sum.py").write_text("print('adding')\nreturn sum([await price(item=one) for one in items])\n")
    (made / "pay.py").write_text("return await pay(amount=await price(item='tea'))\n")
    (made / "bad.py").write_text("x = await price(item='tea')\nreturn x['cents']\n")
    ended = shop(made, "run", "sum.py", "--input", 'items=["tea", "milk"]', "--record", "run.json")
    assert (ended.returncode, ended.stdout) == (0, "7.0\n\nPrinted:\nadding\n"), ended.stderr
    return made


def shop(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    tools = ["--tools", "shop:registry"] if arguments[0] in ("run", "tools", "stubs") else []
    command = [sys.executable, "-m", "toolchord", *arguments, *tools]
    path = os.pathsep.join([str(ROOT / "core"), str(ROOT / "integrations")])
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=folder,
        input=stdin,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_run_says_what_the_model_would_read_and_sums_up_on_stderr(folder: Path) -> None:
    ended = shop(folder, "run", "-", "--input", "n=3", stdin="return n * 2")
    assert (ended.returncode, ended.stdout) == (0, "6\n")
    assert ended.stderr.startswith("ok in ")
    ended = shop(folder, "run", "sum.py", "--input", 'items=["tea"]')
    assert "1 call, 0.5 spent." in ended.stderr


def test_run_as_json_is_a_trace(folder: Path) -> None:
    ended = shop(folder, "run", "sum.py", "--input", 'items=["tea"]', "--json")
    trace = json.loads(ended.stdout)
    assert (trace["status"], trace["value"], trace["stdout"]) == ("ok", "3.0", "adding\n")
    assert "record" not in trace


def test_a_program_that_fails_is_exit_code_one(folder: Path) -> None:
    ended = shop(folder, "run", "bad.py")
    assert ended.returncode == 1
    assert "TypeError (line 2)" in ended.stdout
    assert ended.stderr.startswith("failed in ")


def test_run_waits_for_nobody_in_a_pipe(folder: Path) -> None:
    ended = shop(folder, "run", "pay.py", "--ask", "pay")
    assert ended.returncode == 3
    assert ended.stderr.startswith("paused in ")
    denied = shop(folder, "run", "pay.py", "--deny", "pay")
    assert denied.returncode == 1
    assert "CallDenied" in denied.stdout


@contextlib.contextmanager
def at_a_terminal(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A run that asks before it pays, and the end at which somebody types."""
    ours, theirs = pty.openpty()
    path = os.pathsep.join([str(ROOT / "core"), str(ROOT / "integrations")])
    with subprocess.Popen(
        [sys.executable, "-m", "toolchord", "run", "pay.py", "--ask", "pay", "--tools", "shop:registry"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        yield process, ours
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(("answer", "code", "told"), [("y", 0, "paid 3.0"), ("n", 1, "refused at the terminal")])
def test_run_asks_at_a_terminal(folder: Path, answer: str, code: int, told: str) -> None:
    with at_a_terminal(folder) as (process, typing):
        os.write(typing, f"{answer}\n".encode())
        stdout, stderr = (text.decode() for text in process.communicate(timeout=100))
    assert process.returncode == code
    assert told in stdout
    assert "waits for an approval" in stderr
    assert "amount=3.0" in stderr


def test_an_interrupt_at_the_question_ends_the_command(folder: Path) -> None:
    with at_a_terminal(folder) as (process, _):
        assert process.stderr is not None
        seen = b""
        while b"Let it run?" not in seen:
            seen += os.read(process.stderr.fileno(), 1000)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0


def test_a_run_is_shown_on_stderr_if_that_is_asked_for(folder: Path) -> None:
    ended = shop(folder, "run", "sum.py", "--input", 'items=["tea"]', "--live")
    assert (ended.returncode, ended.stdout) == (0, "3.0\n\nPrinted:\nadding\n")
    assert "return sum([await price(item=one)" in ended.stderr
    both = shop(folder, "run", "pay.py", "--live", "--ask", "pay")
    assert both.returncode == 2
    assert "use one of them" in both.stderr


def test_a_dry_run_lists_what_it_held_back(folder: Path) -> None:
    ended = shop(folder, "run", "pay.py", "--dry-run")
    assert ended.returncode == 0
    assert "held back: pay(amount=3.0)" in ended.stderr


def test_tools_and_stubs(folder: Path) -> None:
    ended = shop(folder, "tools")
    assert ended.stdout.splitlines() == [
        "price(item: str) -> float",
        "    What an item costs.",
        "    [read_only]",
        "pay(amount: float) -> str",
        "    Pay.",
        "2 tools",
    ]
    found = json.loads(shop(folder, "tools", "--search", "costs", "--json").stdout)
    assert [one["name"] for one in found] == ["price"]
    stubs = shop(folder, "stubs")
    assert "async def price(item: str) -> float:" in stubs.stdout
    assert "tools.price(args" in shop(folder, "stubs", "--target", "javascript").stdout


def test_view_shows_a_run_in_the_terminal_and_as_a_page(folder: Path) -> None:
    shown = shop(folder, "view", "run.json").stdout
    assert "price" in shown
    assert "adding" in shown
    ended = shop(folder, "view", "run.json", "--html", "run.html")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "wrote run.html\n")
    assert "price" in (folder / "run.html").read_text()
    assert json.loads(shop(folder, "view", "run.json", "--json").stdout)["status"] == "ok"


def test_replay_and_diff(folder: Path) -> None:
    same = shop(folder, "replay", "run.json")
    assert same.returncode == 0
    assert "The runs are the same" in same.stdout
    kept = json.loads((folder / "run.json").read_text())
    kept["record"]["code"] = kept["record"]["code"].replace("adding", "summing")
    (folder / "other.json").write_text(json.dumps({**kept, "code": kept["record"]["code"]}))
    changed = shop(folder, "replay", "other.json", "--json")
    assert changed.returncode == 1
    assert json.loads(changed.stdout)["ending"] == ["stdout: 'adding\\n', then 'summing\\n'"]
    diff = shop(folder, "diff", "run.json", "other.json")
    assert diff.returncode == 1
    assert "+print('summing')" in diff.stdout
    assert shop(folder, "diff", "run.json", "run.json").returncode == 0


def test_a_record_becomes_a_test(folder: Path) -> None:
    told = shop(folder, "record", "run.json")
    assert told.stdout.startswith("ok in ")
    made = shop(folder, "record", "run.json", "--as-test", "tests/test_sum.py", "--tools", "shop:registry")
    assert (made.returncode, made.stdout) == (0, "wrote tests/test_sum.py\n"), made.stderr
    assert (folder / "tests" / "test_sum.json").exists()
    again = shop(folder, "record", "run.json", "--as-test", "tests/test_sum.py")
    assert again.returncode == 2
    assert "are there already" in again.stderr
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "tests/test_sum.py"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "core"), str(ROOT / "integrations")])}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=folder, env=env)
    assert "1 passed" in ended.stdout, ended.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "nothing.py"], "nothing.py can't be read: No such file"),
        (["run", "sum.py", "--input", "items"], "--input takes NAME=JSON"),
        (["run", "sum.py", "--input", "items=tea"], "is no JSON"),
        (["run", "sum.py", "--input", "items=[]", "--record", "no/such/folder/run.json"], "no such folder"),
        (["run", "pay.py", "--deny", "pya"], "--deny pya fits no tool; there are default.price, default.pay"),
        (["run", "pay.py", "--dry-run", "--ask", "pay"], "a dry run asks nobody"),
        (["record", "run.json", "--as-test", "test.txt"], "must end in .py"),
        (["view", "nothing.json"], "nothing.json can't be read"),
        (["view", "sum.py"], "not a trace of a run"),
        (["view", "run.json", "--open"], "--open needs --html"),
        (["replay", "sum.py"], "not a trace of a run"),
        (["diff", "run.json", "nothing.json"], "can't be read"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_two(folder: Path, arguments: list[str], told: str) -> None:
    ended = shop(folder, *arguments)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("toolchord: ")
    assert told in ended.stderr


def test_a_typing_error_is_told_with_the_usage(folder: Path) -> None:
    ended = shop(folder, "rnu")
    assert ended.returncode == 2
    assert "No such command 'rnu'" in ended.stderr
    assert "run" in ended.stderr.partition("No such command")[2]


def test_demo_answers_its_question_right() -> None:
    from toolchord.cli.demo import PROGRAM, registry

    ended = toolchord("demo")
    assert ended.returncode == 0
    rows = json.loads(ended.stdout)
    tools = {exposed.identifier: exposed.tool for exposed in Catalogue.of(registry()).tools}
    assert PROGRAM in ended.stderr
    expected = []
    for person in tools["get_team"].execute_sync(department="engineering"):
        budget = tools["get_budget"].execute_sync(level=person["level"])["travel"]
        bills = tools["get_bills"].execute_sync(person=person["id"], quarter="Q3")
        spent = sum(b["amount"] for b in bills if b["kind"] == "travel" and b["approved"])
        if spent > budget:
            expected.append({"name": person["name"], "spent": round(spent, 2), "budget": budget})
    assert sorted(rows, key=str) == sorted(expected, key=str)
    assert rows


def test_no_trick_gets_through() -> None:
    ended = toolchord("attack", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    done = json.loads(ended.stdout)
    assert len(done) == 50
    assert {one["stopped_by"] for one in done if one["walls"] == "both"} == {"language", "limit"}
    assert {one["stopped_by"] for one in done if one["walls"] == "second"} == {"sandbox", "limit"}


def test_a_trick_that_gets_through_is_exit_code_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from toolchord.cli import app
    from toolchord.cli import attack as tricks

    monkeypatch.setattr(tricks, "TRICKS", {"add": "return 1 + 1"})
    ended = CliRunner().invoke(app, ["attack"])
    assert ended.exit_code == 1
    assert "2 of 2 got through" in ended.stdout


def test_the_shells_can_complete() -> None:
    ended = toolchord("--show-completion", "bash")
    assert "complete" in ended.stdout


# Tools by name


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType("some_tools")
    monkeypatch.setitem(sys.modules, "some_tools", made)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return made


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def test_a_registry_stays_the_registry(module: ModuleType) -> None:
    registry = create_registry()
    module.registry = registry  # type: ignore[attr-defined]
    assert load_tools(["some_tools:registry"]) is registry
    assert load_tools(["some_tools:registry", "some_tools:registry"]) is registry


def test_functions_lists_and_functions_that_give_a_registry(module: ModuleType) -> None:
    def make() -> ToolRegistry:
        registry = create_registry()
        registry.add(add, "plus")
        return registry

    module.add, module.several, module.make = add, [add], make  # type: ignore[attr-defined]
    for name, expected in [("add", ["add"]), ("several", ["add"])]:
        found = load_tools([f"some_tools:{name}"])
        assert isinstance(found, Catalogue)
        assert [exposed.identifier for exposed in found.tools] == expected
    both = load_tools(["some_tools:make", "some_tools:add"])
    assert isinstance(both, Catalogue)
    assert [exposed.identifier for exposed in both.tools] == ["plus", "add"]


def test_a_module_that_fails_by_itself_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    (tmp_path / "needs_more.py").write_text("import no_such_thing_at_all\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"No module named 'no_such_thing_at_all' \(needs_more.py, line 1\)"):
        load_tools(["needs_more:registry"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1 + 'a'", "TypeError: .* line 1"),
        ("import os\nos.environ['MY_KEY']", "KeyError: 'MY_KEY' .* line 2"),
        ("def f(:", "SyntaxError: .* line 1"),
    ],
)
def test_a_module_that_breaks_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, text: str, told: str
) -> None:
    name = f"broken_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigurationError, match=told.replace(" .* ", " .*")):
        load_tools([f"{name}:registry"])


def test_a_module_without_tools_of_its_own_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolchord.registry import ToolRegistry as Registry

    empty = Registry()
    monkeypatch.setattr("toolchord.registry._default", empty)
    (tmp_path / "holds_nothing.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigurationError, match="holds_nothing:registry"):
        load_tools(["holds_nothing"])


@pytest.mark.parametrize("name", ["", ":x", "no_such_module:x", "some_tools:nothing", "..:x", "a..b:c"])
def test_names_that_lead_nowhere(module: ModuleType, name: str) -> None:
    with pytest.raises(ConfigurationError):
        load_tools([name])


def test_something_else_than_tools(module: ModuleType) -> None:
    module.number, module.text = 3, "unknown_tool"  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="holds no tools"):
        load_tools(["some_tools:number"])
    with pytest.raises(ToolNotFoundError):
        load_tools(["some_tools:text"])
