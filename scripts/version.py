"""Checks that a version is the one of pyproject.toml and has a dated section in CHANGELOG.md; prints that section.

``python scripts/version.py 0.1.0``. It needs the standard library only: a release runs it before anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def section(version: str, root: Path = ROOT) -> str:
    """What CHANGELOG.md says of a version that may be released.

    Raises:
        ValueError: the version is not pyproject.toml's, is one of development, or has no dated section.
    """
    known = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    if version != known:
        raise ValueError(f"the tag says {version}, pyproject.toml {known}: set the version, then make the tag anew")
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        raise ValueError(f"{version} is no version for a release: use a form such as 0.1.0 or 0.1.0rc1")
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n"
    found = re.search(heading + r"(.*?)(?=^## \[|\Z)", (root / "CHANGELOG.md").read_text(), re.DOTALL | re.MULTILINE)
    if found is None or not found[1].strip():
        raise ValueError(f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD': rename [Unreleased]")
    return found[1].strip()


if __name__ == "__main__":
    try:
        print(section(sys.argv[1]))
    except ValueError as error:
        sys.exit(str(error))
