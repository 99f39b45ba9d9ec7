"""Checks a built site: what its pages link to is there, and what they load comes from the site itself.

``python -m scripts.links site`` needs no network: addresses elsewhere are listed, and only their form is looked at.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_CSS = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""")
_LOADED = {"img", "script", "iframe", "source", "video", "audio", "embed", "object", "track", "input"}
_LOADED_RELATIONS = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "preconnect",
    "dns-prefetch",
    "prefetch",
    "manifest",
}


@dataclass
class Found:
    """What a site's pages name.

    Attributes:
        pages: how many there are.
        internal: how many links and files of the site itself were looked at.
        external: addresses elsewhere, and the pages that link to them.
        wrong: what is wrong, one line each, beginning with the page.
    """

    pages: int = 0
    internal: int = 0
    external: dict[str, set[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class _Page(HTMLParser):
    """Collects a page's anchors, links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self._style = tag == "style"
        self.loaded += _CSS.findall(given.get("style", ""))
        if tag in _LOADED:
            self.loaded += [given[name] for name in ("src", "data", "poster") if given.get(name)]
            self.loaded += [part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()]
        elif tag == "link" and "href" in given:
            relations = set(given.get("rel", "").split())
            (self.loaded if relations & _LOADED_RELATIONS else self.links).append(given["href"])
        elif tag in ("a", "area") and "href" in given:
            self.links.append(given["href"])

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if self._style:
            self.loaded += _CSS.findall(data)


def check(site: Path) -> Found:
    """Look at every page and style sheet of a site."""
    found = Found()
    parsed = {path.resolve(): _Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found.pages = len(parsed)
    for path, page in parsed.items():
        name = str(path.relative_to(site.resolve()))
        for link in page.links:
            if _elsewhere(link):
                found.external.setdefault(link, set()).add(name)
                found.wrong += [f"{name}: {link}: {why}" for why in _malformed(link)]
            else:
                found.internal += 1
                found.wrong += [f"{name}: {link}: {why}" for why in _dead(link, path, site, parsed)]
        found.wrong += _loads(page.loaded, path, site, found)
    for path in sorted(site.rglob("*.css")):
        found.wrong += _loads(_CSS.findall(path.read_text()), path.resolve(), site, found)
    return found


def _loads(addresses: list[str], path: Path, site: Path, found: Found) -> Iterator[str]:
    """What is wrong with the files that a page or style sheet loads while it is looked at."""
    name = path.relative_to(site.resolve())
    for address in addresses:
        if address.startswith(("data:", "#")):
            continue
        if _elsewhere(address):
            yield f"{name}: {address}: loaded from elsewhere"
            continue
        found.internal += 1
        if not _file(address, path, site).is_file():
            yield f"{name}: {address}: no such file"


def _elsewhere(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.scheme or parts.netloc)


def _malformed(address: str) -> Iterator[str]:
    parts = urlsplit(address)
    if parts.scheme == "mailto":
        return
    if parts.scheme != "https":
        yield "not https"
    if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.hostname or ""):
        yield "no host"
    if re.search(r"[\s<>\"{}|\\^`]", address):
        yield "characters that no address has"


def _file(address: str, path: Path, site: Path) -> Path:
    relative = unquote(urlsplit(address).path)
    if not relative:
        return path
    target = (site / relative.lstrip("/") if relative.startswith("/") else path.parent / relative).resolve()
    return target / "index.html" if target.is_dir() else target


def _dead(link: str, path: Path, site: Path, parsed: dict[Path, _Page]) -> Iterator[str]:
    target = _file(link, path, site)
    anchor = unquote(urlsplit(link).fragment)
    if not target.is_relative_to(site.resolve()):
        yield "outside the site"
    elif not target.is_file():
        yield "no such page"
    elif anchor and target in parsed and anchor not in parsed[target].anchors:
        yield "no such anchor"


if __name__ == "__main__":
    seen = check(Path(sys.argv[1]))
    print(f"{seen.pages} pages, {seen.internal} internal links and files, {len(seen.external)} addresses elsewhere:")
    for address in sorted(seen.external):
        print(f"  {address}")
    sys.exit("\n".join(seen.wrong) or 0)
