"""Takes the pictures of docs/timeline.md anew: python -m tests.pictures."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.browser import Page, started
from tests.core.runs import results
from toolchord.timeline import page

FOLDER = Path(__file__).parents[1] / "docs" / "images"
LARGEST = 150_000
"""Bytes of a picture."""

PICTURES = {  # run, dark, width, height, what is done before
    "timeline-light": ("done", False, 1100, 800, ""),
    "timeline-dark": ("done", True, 1100, 800, ""),
    "timeline-failed": ("failed", True, 1100, 900, ""),
    "timeline-call": ("done", False, 1100, 950, "document.querySelector('.tc-all').open = true"),
    "timeline-paused": ("paused", False, 1100, 900, ""),
    "timeline-phone": ("done", True, 390, 844, ""),
}


def take(tab: Page, name: str, text: str) -> None:
    """Take one picture of a document."""
    _, dark, width, height, before = PICTURES[name]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.html"
        file.write_text(text, encoding="utf-8")
        tab.open(file, dark=dark, width=width, height=height)
        if before:
            tab.evaluate(before)
            tab.evaluate("document.querySelectorAll('.tc-all > .tc-call')[1].open = true")
        tab.screenshot(FOLDER / f"{name}.png", whole=False)
    if (size := (FOLDER / f"{name}.png").stat().st_size) > LARGEST:
        raise SystemExit(f"{name} has {size} bytes; make it smaller")


def main() -> None:
    """Take them all."""
    runs = asyncio.run(results())
    FOLDER.mkdir(exist_ok=True)
    with started() as tabs:
        tab = tabs()
        for name, (run, *_) in PICTURES.items():
            take(tab, name, page(runs[run].trace()))


if __name__ == "__main__":
    main()
