"""Shared by all tests: the table of verdicts at the end of a run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.browser import browser as browser
from tests.browser import page as page

# A busy machine is no defect: no example is judged by its time.
settings.register_profile("toolchord", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("toolchord")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the corpora came to: one line for each suite, from the tests' `verdict` properties."""
    suites: dict[str, Counter[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, value in getattr(report, "user_properties", ()):
                    if name == "verdict":
                        suite, verdict, count = value
                        suites.setdefault(suite, Counter())[verdict] += count
    if suites:
        terminalreporter.section("corpora")
        for suite, verdicts in sorted(suites.items()):
            cells = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
            terminalreporter.write_line(f"{suite:<28} {sum(verdicts.values()):>4}: {cells}")


@pytest.fixture
def verdict(record_property: Any) -> Any:
    """Note how an entry of a corpus ended: ``verdict(suite, word, count=1)``."""

    def note(suite: str, word: str, count: int = 1) -> None:
        record_property("verdict", (suite, word, count))

    return note
