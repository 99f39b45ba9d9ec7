"""What the repository says of itself is so: workflows, forms, versions, and how a release is made."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.covered import table
from scripts.version import section
from toolchord import observed, recording, trace
from toolchord.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
PACKAGES = sorted(
    path.name
    for root in ("core", "integrations")
    for path in (ROOT / root).iterdir()
    if (path / "__init__.py").exists()
)


def workflow(name: str) -> dict[str, Any]:
    read = yaml.safe_load((GITHUB / "workflows" / name).read_text())
    assert isinstance(read, dict)
    return read


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.yml")), ids=lambda path: path.name)
def test_workflows_and_forms_can_be_read_and_name_files_and_targets_that_are_there(path: Path) -> None:
    text = path.read_text()
    assert isinstance(yaml.safe_load(text), dict)
    named = re.findall(r"\bmake ([a-z]+)", text)
    assert set(named) <= TARGETS
    for file in re.findall(r"(?<![\w/.])((?:scripts|docs|\.ci)/[\w./]+|[A-Z]+\.md)", text):
        assert (ROOT / file).is_file(), file


def test_every_python_that_is_promised_is_tested_and_no_other() -> None:
    promised = re.findall(r":: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    tested = workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert tested == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_a_workflow_may_do_no_more_than_it_needs(name: str) -> None:
    assert workflow(name)["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow(name)["jobs"].values())
    assert "secrets." not in (GITHUB / "workflows" / name).read_text()
    for step in steps(name):
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@[\w./]+", step["uses"])


def test_only_the_job_that_publishes_may_and_only_what_was_built_and_walked() -> None:
    jobs = workflow("release.yml")["jobs"]
    [publishing] = [name for name, job in jobs.items() if any("publish" in s.get("uses", "") for s in job["steps"])]
    assert jobs[publishing]["permissions"] == {"id-token": "write"}
    assert jobs[publishing]["environment"] == "release"
    assert not any("run" in step for step in jobs[publishing]["steps"])
    built = " ".join(str(step) for step in jobs[jobs[publishing]["needs"]]["steps"])
    for part in ("scripts/version.py", "make build", "make walk", "attest-build-provenance", "upload-artifact"):
        assert part in built


def test_commands_of_the_page_on_releases_are_there() -> None:
    text = (ROOT / "docs" / "releasing.md").read_text()
    named = set(re.findall(r"(?:\$ |`)make ([a-z]+)", text))
    assert {"test", "coverage", "walk", "build"} <= named <= TARGETS
    assert "`python scripts/version.py 0.1.0`" in text


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_which_names_are_public_and_has_them(name: str) -> None:
    package = importlib.import_module(name)
    if name != "toolchord_guest":  # nobody imports it but the host
        assert package.__all__ == sorted(set(package.__all__))
        assert all(getattr(package, public, None) is not None for public in package.__all__)


def test_formats_are_those_of_the_page_on_versions_and_another_is_refused() -> None:
    page = (ROOT / "docs" / "versioning.md").read_text()
    rows = dict(re.findall(r"^\| .*`(\w+)[.`].* \| (\d+) \|$", page, re.MULTILINE))
    assert rows == {
        "RunRecord": str(recording.FORMAT),
        "Trace": str(trace.FORMAT),
        "DurableJournal": str(recording.FORMAT),
        "ShapeStore": str(observed.FORMAT),
    }
    other = recording.RunRecord("", b"", [], "restricted", 0, 0.0, format=recording.FORMAT + 1)
    with pytest.raises(ConfigurationError, match=rf"format {recording.FORMAT + 1}; .* format {recording.FORMAT}$"):
        recording.RunRecord.from_json(other.to_json())


@pytest.fixture
def released(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n### Added\n\n- This.\n\n"
        "## [0.1.0] - 2026-11-01\n\n- Old.\n"
    )
    return tmp_path


def test_a_version_that_may_be_released_gives_its_changes(released: Path) -> None:
    assert section("0.2.0", released) == "### Added\n\n- This."


@pytest.mark.parametrize(
    ("version", "project", "log", "why"),
    [
        ("0.3.0", "0.2.0", "0.2.0", "the tag says 0.3.0, pyproject.toml 0.2.0"),
        ("0.2.0.dev0", "0.2.0.dev0", "0.2.0", "no version for a release"),
        ("0.2.0", "0.2.0", "0.9.0", "no section"),
    ],
)
def test_a_version_that_may_not_be_released_is_refused(
    released: Path, version: str, project: str, log: str, why: str
) -> None:
    for name, new in (("pyproject.toml", project), ("CHANGELOG.md", log)):
        (released / name).write_text((released / name).read_text().replace("0.2.0", new))
    with pytest.raises(ValueError, match=why):
        section(version, released)


def test_this_version_has_changes_to_tell_or_is_one_of_development() -> None:
    assert ".dev" in PROJECT["version"] or section(PROJECT["version"])
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_script_on_versions_needs_nothing_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "scripts" / "version.py"), "0.0.0"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("the tag says 0.0.0, pyproject.toml ")


def test_coverage_is_summed_by_package() -> None:
    def file(*counts: int) -> dict[str, Any]:
        names = ("num_statements", "covered_lines", "num_branches", "covered_branches")
        return {"summary": dict(zip(names, counts, strict=True))}

    files = {
        "core/a/x.py": file(10, 5, 4, 1),
        "core/a/y.py": file(10, 10, 0, 0),
        "integrations/b/z.py": file(1, 0, 0, 0),
    }
    assert [line.split() for line in table({"files": files})][1:] == [
        ["a", "20", "75.0%", "4", "25.0%"],
        ["b", "1", "0.0%", "0", "-"],
        ["all", "21", "71.4%", "4", "25.0%"],
    ]
