"""The house stands: what ships, and that the core needs no framework."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOREIGN = ("langchain_core", "langgraph", "llama_index", "anthropic", "openai", "mcp", "ray", "opentelemetry", "rich")


def packages() -> list[Path]:
    roots = [ROOT / "core", ROOT / "integrations"]
    return [
        entry
        for root in roots
        if root.is_dir()
        for entry in sorted(root.iterdir())
        if entry.name not in ("README.md", "__pycache__")
    ]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.mark.parametrize("package", packages(), ids=lambda path: path.name)
def test_every_entry_of_a_source_root_is_a_typed_package(package: Path) -> None:
    assert (package / "__init__.py").is_file()
    assert (package / "py.typed").is_file()


def test_the_wheel_holds_every_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {package.name for package in packages()}
    for package in packages():
        sources = {str(path.relative_to(package.parent)) for path in package.rglob("*.py")}
        assert sources <= set(names)
        assert f"{package.name}/py.typed" in names


def test_all_names_every_extra() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    [everything] = extras.pop("all")
    assert everything == f"toolchord[{','.join(extras)}]"


@pytest.mark.slow
def test_a_clean_environment_runs_a_program_without_any_framework(wheel: Path, tmp_path: Path) -> None:
    """Installs the wheel with its own dependencies only; needs the package registry."""
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=240)
    program = f"""
import importlib.util, sys
import toolchord
present = [name for name in {FOREIGN!r} if importlib.util.find_spec(name) is not None]
assert not present, present
loaded = {{name.partition(".")[0] for name in sys.modules}}
assert not loaded & set({FOREIGN!r}), loaded
async def double(x: int) -> int:
    return 2 * x
with_tools = toolchord.CodeSandbox(tools=[double])
print(with_tools.execute_sync("return [await double(x=n) for n in range(3)]").value)
"""
    # -I: neither this folder nor an inherited PYTHONPATH may help.
    ran = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (ran.stdout.strip(), ran.returncode) == ("[0, 2, 4]", 0), ran.stderr
