"""The command `toolchord`: small, honest about what stands, and clear about what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
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
    with pytest.raises(ModuleNotFoundError, match="no_such_thing_at_all"):
        load_tools(["needs_more:registry"])


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
