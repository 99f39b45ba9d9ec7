"""Writes the documentation for models: llms.txt, llms-full.txt, and each page's Markdown beside its HTML.

Run after the site was built: ``python -m scripts.llms site``. It reads mkdocs.yml and the sources itself and is no
plugin, so that any builder of the same pages may come before it. The form is that of https://llmstxt.org.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import griffe
import yaml
from mkdocs.config import load_config

ROOT = Path(__file__).parents[1]
_DIRECTIVE = re.compile(r"^::: *(\S+)\n((?:[ \t]+.*\n|\n(?=[ \t]))*)", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^()\s#:]+\.md)(?=[)#])")
_FENCE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A page of the navigation.

    Attributes:
        source: its path in docs/, such as "start/mcp.md".
        title: what the navigation calls it, else its first heading.
        section: the part of the navigation it stands in; "" at the top.
        text: its Markdown, with the docstrings where it asks for them.
    """

    source: str
    title: str
    section: str
    text: str

    @property
    def target(self) -> str:
        """Where its Markdown goes in the site: beside its HTML."""
        return _target(self.source)

    @property
    def summary(self) -> str:
        """The first sentence under the first heading."""
        for part in re.split(r"\n\s*\n", _FENCE.sub("", self.text)):
            words = " ".join(part.split())
            if words and words[0] not in "#!<|-":
                plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", words).replace("**", "")
                return re.split(r"(?<=[.!?]) ", plain, maxsplit=1)[0]
        return ""


def pages(root: Path = ROOT) -> list[Page]:
    """The pages of the navigation, in its order.

    Raises:
        ValueError: a directive of mkdocstrings names something that is not there.
    """
    config = load_config(str(root / "mkdocs.yml"))
    return [
        Page(source, title or _heading(text) or source, section, text)
        for section, title, source in _entries(config["nav"], "")
        for text in [expand((root / "docs" / source).read_text(), root)]
    ]


def write(site: Path, root: Path = ROOT) -> list[Page]:
    """Write the three forms into a built site; gives the pages."""
    config = load_config(str(root / "mkdocs.yml"))
    found = pages(root)
    head = f"# {config['site_name']}\n\n> {config['site_description']}\n"
    short, full = [head], [head]
    section = ""
    for page in found:
        if page.section != section or len(short) == 1:
            section = page.section
            short.append(f"\n## {section or 'Documentation'}\n\n")
        short.append(f"- [{page.title}]({page.target}): {page.summary}\n")
        full.append(f"\n{relinked(page.text, page.source, '').strip()}\n")
        (site / page.target).parent.mkdir(parents=True, exist_ok=True)
        (site / page.target).write_text(relinked(page.text, page.source, posixpath.dirname(page.target)))
    (site / "llms.txt").write_text("".join(short))
    (site / "llms-full.txt").write_text("".join(full))
    return found


def relinked(text: str, source: str, folder: str) -> str:
    """A page's Markdown whose links to other pages lead to their Markdown, seen from a folder of the site."""

    def link(found: re.Match[str]) -> str:
        other = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        return posixpath.relpath(_target(other), folder or ".")

    return _LINK.sub(link, text)


def expand(text: str, root: Path = ROOT) -> str:
    """A page's Markdown with signatures and docstrings in the places of mkdocstrings' directives."""

    def documented(found: re.Match[str]) -> str:
        options = (yaml.safe_load(found[2]) or {}).get("options", {}) if found[2].strip() else {}
        return "\n".join(_documented(_load(found[1], root), options.get("members"), 2)) + "\n"

    return _DIRECTIVE.sub(documented, text)


def _target(source: str) -> str:
    stem = source.removesuffix(".md")
    return source if posixpath.basename(stem) == "index" else f"{stem}/index.md"


def _entries(nav: list[Any], section: str) -> Iterator[tuple[str, str, str]]:
    for entry in nav:
        if isinstance(entry, str):
            yield section, "", entry
            continue
        [(title, inside)] = entry.items()
        if isinstance(inside, str):
            if inside.endswith(".md"):
                yield section, title, inside
        else:
            yield from _entries(inside, f"{section}, {title}" if section else title)


def _heading(text: str) -> str:
    found = re.search(r"^# +(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _load(name: str, root: Path) -> griffe.Object:
    package, _, path = name.partition(".")
    try:
        loaded = _package(package, root)
        inside = loaded[path] if path else loaded
    except (ImportError, KeyError) as error:
        raise ValueError(f"::: {name}: there is no such name in core/ or integrations/") from error
    return inside.final_target if isinstance(inside, griffe.Alias) else inside


@cache
def _package(name: str, root: Path) -> griffe.Object | griffe.Alias:
    return griffe.load(name, search_paths=[root / "core", root / "integrations"], resolve_aliases=True)


def _documented(thing: griffe.Object, members: list[str] | None, level: int) -> Iterator[str]:
    """What a person reads of it: form, docstring, and the same for what it holds for others."""
    if not thing.is_module:
        yield f"{'#' * level} {thing.path}\n\n```python\n{_form(thing)}\n```\n"
    if thing.docstring is not None:
        yield f"{thing.docstring.value}\n"
    for name in members if members is not None else _public(thing):
        inside = thing.members.get(name)
        if inside is None:
            raise ValueError(f"{thing.path} has no {name}")
        target = inside.final_target if isinstance(inside, griffe.Alias) else inside
        if isinstance(target, griffe.Class | griffe.Function | griffe.Attribute):
            yield from _documented(target, None, level + (not thing.is_module))


def _public(thing: griffe.Object) -> list[str]:
    """The names of a module's `__all__`, else what is defined there; of a class the documented methods."""
    if thing.is_module and thing.exports is not None:
        return [str(name) for name in thing.exports]
    if not (thing.is_module or thing.is_class):
        return []
    return [
        name
        for name, inside in thing.members.items()
        if not name.startswith("_") and not isinstance(inside, griffe.Alias) and inside.docstring is not None
    ]


def _form(thing: griffe.Object) -> str:
    if isinstance(thing, griffe.Class):
        start = thing.members.get("__init__")
        form = start.signature() if isinstance(start, griffe.Function) else None
        return f"class {thing.name}{(form or '').partition('__init__')[2].removesuffix(' -> None')}"
    if isinstance(thing, griffe.Function):
        waits = "async " if "async" in thing.labels else ""
        form = thing.signature() if "property" not in thing.labels else None
        return f"{waits}def {form}" if form else f"{thing.name}: {thing.annotation}"
    if isinstance(thing, griffe.Attribute):
        return f"{thing.name}: {thing.annotation}" if thing.annotation else thing.name
    return thing.name


if __name__ == "__main__":
    for written in write(Path(sys.argv[1])):
        print(written.target)
