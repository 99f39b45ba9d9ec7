"""The built documentation: links lead somewhere, nothing is loaded from elsewhere, people and models can read it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import toolchord
from scripts import links, llms
from tests.browser import Page

ROOT = Path(__file__).parents[2]
SOURCES = sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))
# Looked at in both colours, as they have all that a page may have; each other page in one of them.
MAIN = {"index.md", "langgraph.md", "policy.md"}
LOOKS = [
    (name, dark) for n, name in enumerate(SOURCES) for dark in (False, True) if name in MAIN or dark == bool(n % 2)
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    llms.write(folder)
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where a server on this machine gives it out."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass


def target(source: str) -> str:
    """The folder of a page in the site."""
    return source.removesuffix("index.md") if Path(source).name == "index.md" else source.removesuffix(".md") + "/"


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    found = links.check(site)
    assert found.wrong == []
    assert found.pages >= len(SOURCES)
    assert found.internal > 1000


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ('<a href="there/">', "there/: no such page"),
        ('<a href="other.html#nowhere">', "other.html#nowhere: no such anchor"),
        ('<a href="#nowhere">', "#nowhere: no such anchor"),
        ('<a href="../../up.html">', "../../up.html: outside the site"),
        ('<a href="http://example.com/">', "http://example.com/: not https"),
        ('<a href="https://localhost/">', "https://localhost/: no host"),
        ('<script src="https://cdn.example.com/x.js"></script>', "https://cdn.example.com/x.js: loaded from elsewhere"),
        ('<script src="//cdn.example.com/x.js"></script>', "//cdn.example.com/x.js: loaded from elsewhere"),
        (
            '<link rel="preconnect" href="https://fonts.example.com">',
            "https://fonts.example.com: loaded from elsewhere",
        ),
        ("<style>@import 'https://example.com/x.css'</style>", "https://example.com/x.css: loaded from elsewhere"),
        ('<p style="background: url(x.png)">', "x.png: no such file"),
        ('<img srcset="a.png 1x, b.png 2x">', "a.png: no such file"),
    ],
)
def test_what_is_wrong_in_a_site_is_found(tmp_path: Path, page: str, wrong: str) -> None:
    (tmp_path / "other.html").write_text('<p id="here">')
    good = '<a href="other.html#here"><a href="https://example.com/a?b#c"><a href="mailto:x@example.com">'
    (tmp_path / "index.html").write_text(good + page)
    assert links.check(tmp_path).wrong[0] == f"index.html: {wrong}"


def test_addresses_in_the_theme_are_known(site: Path) -> None:
    """Its scripts hold a few addresses that they ask for only if a page has a diagram or names a repository."""
    texts = "".join(path.read_text() for path in site.rglob("*.js"))
    hosts = set(re.findall(r"""["'`]https?://([a-z0-9.-]+)""", texts)) - {"www.w3.org"}
    assert hosts <= {"unpkg.com", "api.github.com", "fontawesome.com", "clipboardjs.com"}
    pages = [path.read_text() for path in site.rglob("*.html")]
    assert not any('class="mermaid"' in page or 'data-md-component="source"' in page for page in pages)


def test_the_site_is_searched_by_keyboard_without_a_network(page: Page, address: str) -> None:
    page.open(address)
    page.press("/")
    page.wait_for("document.activeElement.matches('.md-search__input')")
    page.press(*"compensate")
    page.wait_for("document.querySelector('.md-search-result__item a[href*=\"durable\"]')")
    page.press("ArrowDown", "Enter")
    page.wait_for(f"location.href != {address!r} && document.readyState == 'complete'")
    assert "compensate" in page.evaluate("document.querySelector('article.md-content__inner').textContent")
    assert all(asked.startswith(address) for asked in page.requests)
    assert page.problems == []


def test_a_page_opened_as_a_file_asks_for_nothing_elsewhere(page: Page, site: Path) -> None:
    page.open(site / "langgraph" / "index.html")
    assert page.problems == []
    assert all(asked.startswith(site.as_uri()) for asked in page.requests)


@pytest.mark.parametrize(("source", "dark"), LOOKS)
def test_a_page_is_accessible(page: Page, address: str, source: str, dark: bool) -> None:
    page.open(address + target(source), dark=dark)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 3 * 60) is dark
    assert page.axe() == []
    assert page.problems == []


def test_models_get_an_index_and_everything_in_one_file(site: Path) -> None:
    index, full = (site / "llms.txt").read_text(), (site / "llms-full.txt").read_text()
    assert index.startswith("# Toolchord\n\n> ")
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", index, re.MULTILINE)
    assert sorted(listed) == sorted(target(source) + "index.md" for source in SOURCES)
    assert not re.search(r"^(:::|--8<--)", full, re.MULTILINE)
    for name in toolchord.__all__:
        assert re.search(rf"^(class |async def |def |){name}\b", full, re.MULTILINE), name


def test_links_between_pages_for_models_lead_to_them(site: Path) -> None:
    texts = [site / "llms.txt", site / "llms-full.txt", *site.rglob("*.md")]
    for path in texts:
        for link in re.findall(r"\]\(([^()\s#:]+\.md)[)#]", path.read_text()):
            assert (path.parent / link).is_file(), f"{path}: {link}"


def test_a_directive_for_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no such name"):
        llms.expand("::: toolchord.nothing_of_that_name\n")
    with pytest.raises(ValueError, match="toolchord has no nothing"):
        llms.expand("::: toolchord\n    options:\n      members: [nothing]\n")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md"])
def test_links_of_the_repositorys_own_pages_lead_to_files(name: str) -> None:
    for link in re.findall(r"\]\(([^()\s#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text()):
        assert (ROOT / link).exists(), link
