"""The browser that other tests look through: it reaches this machine only, and notices what it should."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.browser import Page, leaves

GOOD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Good</title><style>
body { background: white; color: black; }
@media (prefers-color-scheme: dark) { body { background: black; color: white; } }
</style></head><body><main><h1>Good</h1><label>Name <input id="name"></label></main></body></html>"""
BAD = """<!doctype html><html><head><meta charset="utf-8"><title>Bad</title></head>
<body><main><h1>Bad</h1><p style="color: #ccc">pale</p><input></main>
<script src="https://example.com/far.js"></script><script>console.error("said"); missing()</script></body></html>"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.html"
    path.write_text(GOOD)
    return path


def test_a_good_page_is_opened_typed_into_and_pictured(page: Page, good: Path) -> None:
    page.open(good)
    page.press("Tab", *"abc")
    page.wait_for("document.activeElement.value == 'abc'")
    assert page.axe() == []
    page.screenshot(good.with_suffix(".png"))
    assert good.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert (page.requests, page.problems) == ([good.as_uri()], [])


def test_dark_is_what_the_reader_prefers(page: Page, good: Path) -> None:
    page.open(good, dark=True)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(0, 0, 0)"
    page.open(str(good))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_what_is_wrong_with_a_page_is_found(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(BAD)
    page.open(path)
    found = {violation.rule: violation for violation in page.axe()}
    assert {"html-has-lang", "color-contrast", "label"} <= found.keys()
    assert found["label"].impact == "critical"
    assert found["color-contrast"].places[0].startswith("p: ")
    assert "left this machine: https://example.com/far.js" in page.problems
    assert "failed: https://example.com/far.js (net::ERR_NAME_NOT_RESOLVED)" in page.problems
    assert "console: said" in page.problems
    assert any(problem.startswith("uncaught: missing is not defined") for problem in page.problems)


async def test_asynchronous_tests_may_use_it(page: Page, good: Path) -> None:
    await asyncio.to_thread(page.open, good)
    assert page.evaluate("document.title") == "Good"


@pytest.mark.parametrize(
    ("address", "does"),
    [
        ("file:///tmp/x.html", False),
        ("data:,x", False),
        ("http://127.0.0.1:80/", False),
        ("http://[::1]/", False),
        ("http://127.0.0.1.example.com/", True),
        ("https://example.com/", True),
        ("ws://example.com/", True),
        ("//example.com/", True),
    ],
)
def test_which_addresses_leave_the_machine(address: str, does: bool) -> None:
    assert leaves(address) is does
