"""A real headless browser for tests: the fixture `page`, a tab of Chromium that cannot reach beyond this machine.

    def test_a_timeline_can_be_read(page, tmp_path):
        page.open(tmp_path / "run.html", dark=True)  # or an address: "http://127.0.0.1:8000/"
        page.press("Tab", "Enter")
        page.wait_for("document.activeElement.id == 'details'")
        assert page.evaluate("document.title") == "A run"
        assert page.axe() == []
        assert page.problems == []
        page.screenshot(tmp_path / "run.png")

Chromium is Debian's (or Playwright's own, where that is installed), axe-core comes from npm. Without them the tests
fail and say how to install them. The browser lives in a thread of its own, so asynchronous tests may use it as well.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Request
    from playwright.sync_api import Page as Tab

P = ParamSpec("P")
T = TypeVar("T")

AXE = Path(__file__).parents[1] / ".demo" / "servers" / "node_modules" / "axe-core" / "axe.min.js"
_NO_BROWSER = "Chromium is missing; install it (Debian: apt-get install chromium), as .ci/run does"
_NO_AXE = f"{AXE} is missing; `make test` installs it, or: npm install --prefix .demo/servers axe-core"
# Names that are not this machine's don't resolve, whatever asks for them: a request is refused, not only noticed.
_ARGUMENTS = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", "--disable-gpu"]
_LOCAL_SCHEMES = ("file", "data", "blob", "about", "chrome-error")


@dataclass(frozen=True)
class Violation:
    """A rule of axe-core that a page breaks.

    Attributes:
        rule: its id, such as "color-contrast".
        impact: "minor", "moderate", "serious" or "critical".
        help: what to do, in a sentence.
        places: for each element at fault, its selector and what is wrong with it.
    """

    rule: str
    impact: str
    help: str
    places: tuple[str, ...] = field(default=(), compare=False)


class Page:
    """One tab, in a profile of its own.

    Attributes:
        requests: every address that the pages asked for, in order.
        problems: what went wrong in them: uncaught errors, the console's errors, requests that failed or would have
            left this machine.
    """

    def __init__(self, browser: Browser, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._tab: Tab = self._in_thread(self._new_tab, browser)

    def open(self, target: str | os.PathLike[str], *, dark: bool = False, width: int = 1280, height: int = 900) -> None:
        """Load a page and wait until it, its styles and its pictures are there.

        Args:
            target: a file, or an address (`file:`, or `http:` on this machine).
            dark: whether the reader prefers dark pages. No reader of ours likes motion.
            width, height: of the window, in CSS pixels.
        """
        address = target if isinstance(target, str) and ":" in target else Path(target).resolve().as_uri()

        def load() -> None:
            self._tab.set_viewport_size({"width": width, "height": height})
            self._tab.emulate_media(color_scheme="dark" if dark else "light", reduced_motion="reduce")
            self._tab.goto(address, wait_until="load")

        self._in_thread(load)

    def press(self, *keys: str) -> None:
        """Press one key after another: "a", "Tab", "Enter", "ArrowDown", "Shift+Tab"; ``press(*"words")`` types."""
        for key in keys:
            self._in_thread(self._tab.keyboard.press, key)

    def evaluate(self, js: str) -> Any:
        """The value of a JavaScript expression (a promise is awaited), as plain data."""
        return self._in_thread(self._tab.evaluate, js)

    def wait_for(self, js: str, *, seconds: float = 20.0) -> None:
        """Wait until a JavaScript expression is true.

        Raises:
            playwright.sync_api.TimeoutError: it did not get true in time.
        """

        def wait() -> None:
            self._tab.wait_for_function(js, timeout=seconds * 1000)

        self._in_thread(wait)

    def screenshot(self, path: str | os.PathLike[str], *, whole: bool = True) -> None:
        """Write a PNG of the whole page, or of what the window shows."""

        def shoot() -> None:
            self._tab.screenshot(path=os.fspath(path), full_page=whole, animations="disabled")

        self._in_thread(shoot)

    def axe(self) -> list[Violation]:
        """What axe-core finds wrong with the page as it is now, by all its rules; [] if nothing.

        Raises:
            RuntimeError: axe-core is not installed.
        """
        if not AXE.is_file():
            raise RuntimeError(_NO_AXE)
        if not self.evaluate("'axe' in window"):
            self.evaluate(AXE.read_text())
        return [
            Violation(
                found["id"],
                found["impact"],
                found["help"],
                tuple(f"{' '.join(map(str, node['target']))}: {node['failureSummary']}" for node in found["nodes"]),
            )
            for found in self.evaluate("axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)")
        ]

    def close(self) -> None:
        """Close the tab and forget its profile."""
        self._in_thread(self._tab.context.close)

    def _new_tab(self, browser: Browser) -> Tab:
        tab = browser.new_context().new_page()
        tab.on("request", self._requested)
        tab.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url} ({request.failure})"))
        tab.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        tab.on("console", self._logged)
        return tab

    def _requested(self, request: Request) -> None:
        self.requests.append(request.url)
        if leaves(request.url):
            self.problems.append(f"left this machine: {request.url}")

    def _logged(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.submit(function, *args, **kwargs).result()


def leaves(address: str) -> bool:
    """Whether asking for this address would leave the machine."""
    parts = urlsplit(address)
    return parts.scheme not in _LOCAL_SCHEMES and parts.hostname not in ("127.0.0.1", "::1", "localhost")


def chromium() -> str | None:
    """The browser's program; None if Playwright has one of its own.

    Raises:
        RuntimeError: there is none.
    """
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if any((Path.home() / ".cache" / "ms-playwright").glob("chromium*")):
        return None
    raise RuntimeError(_NO_BROWSER)


@contextmanager
def started() -> Iterator[Callable[[], Page]]:
    """A running browser; gives a function that opens a new tab. For scripts; tests use the fixture `page`."""
    from playwright.sync_api import sync_playwright

    program = chromium()
    # Its own sandbox doesn't work for root; it shows our own pages only.
    arguments = _ARGUMENTS + (["--no-sandbox"] if os.geteuid() == 0 else [])
    # Playwright's blocking interface holds a running event loop in its thread, which no asynchronous test could share.
    with ThreadPoolExecutor(1, thread_name_prefix="browser") as thread:
        driver = thread.submit(sync_playwright().start).result()
        try:
            browser = thread.submit(driver.chromium.launch, executable_path=program, args=arguments).result()
            try:
                yield lambda: Page(browser, thread)
            finally:
                thread.submit(browser.close).result()
        finally:
            thread.submit(driver.stop).result()


@pytest.fixture(scope="session")
def browser() -> Iterator[Callable[[], Page]]:
    """One browser for all tests of a process; call it for a tab."""
    with started() as tab:
        yield tab


@pytest.fixture
def page(browser: Callable[[], Page]) -> Iterator[Page]:
    """A new tab in a new profile."""
    tab = browser()
    yield tab
    tab.close()
