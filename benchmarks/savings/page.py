"""Owns docs/savings.md's figures: everything between its marks is made from what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.savings import tables
from benchmarks.savings.figures import Figures

PAGE = Path(__file__).parents[2] / "docs" / "savings.md"
MARK = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
BLOCKS: dict[str, Callable[[Figures], str]] = {
    "ways": lambda figures: tables.ways(figures).markdown(),
    "questions": lambda figures: tables.questions(figures).markdown(),
    "bfcl": lambda figures: tables.bfcl(figures).markdown(),
    "fixed": lambda figures: tables.fixed(figures).markdown(),
    "cached": lambda figures: tables.cached(figures).markdown(),
    "grid": lambda figures: tables.grid(figures).markdown(),
    "even": lambda figures: tables.even(figures).markdown(),
    "losers": lambda figures: tables.losers(figures).markdown(),
    "lost": lambda figures: "- " + tables.sentence(figures).replace("; ", "\n- "),
    "shapes": tables.shapes,
}


def filled(text: str, figures: Figures) -> str:
    """A page with its figures made anew.

    Raises:
        KeyError: it marks a block that is none of `BLOCKS`.
    """
    return MARK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]](figures)}\n\n{found[4]}", text)
