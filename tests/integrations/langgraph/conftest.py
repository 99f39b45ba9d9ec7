"""What the graph tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server's connection string; without one these tests fail."""
    with server() as url:
        yield url


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A file to which tools write what they did."""
    return tmp_path / "ledger"
