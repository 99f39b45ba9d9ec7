"""Draws docs/savings.svg: what each way costs on each workload, and on BFCL where a program begins to pay."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from benchmarks.savings import tables
from benchmarks.savings.figures import Figures
from benchmarks.savings.ways import FAILED, ONE_A_TURN, PROGRAM, TOGETHER, WAYS

FILE = Path(__file__).parents[2] / "docs" / "savings.svg"
COLOURS = {ONE_A_TURN: "#9aa0a6", TOGETHER: "#5f6b7a", PROGRAM: "#2a7f62", FAILED: "#d08a3e"}


def bars(axes: Any, figures: Figures) -> None:
    """Tokens of each way beside those of one call a turn, on a logarithmic axis.

    Args:
        axes: of matplotlib.
        figures: what was measured.
    """
    shown = [workload for workload in tables.REAL if figures.tasks(workload)]
    for number, way in enumerate(WAYS):
        shares = [figures.cost(w, way).tokens / figures.cost(w, ONE_A_TURN).tokens for w in shown]
        places = [row + 0.2 * (number - 1.5) for row in range(len(shown))]
        drawn = axes.barh(places, [share * 100 for share in shares], height=0.18, color=COLOURS[way], label=way)
        axes.bar_label(drawn, [f"{share:.1%}" for share in shares], padding=3, fontsize=8)
    axes.axvline(100, color="#9aa0a6", linewidth=0.8)
    axes.set_yticks(range(len(shown)), shown)
    axes.set(xscale="log", xlim=(0.3, 900), xlabel="all tokens, one call a turn = 100 %")
    axes.set_xticks([1, 10, 100], ["1 %", "10 %", "100 %"])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def scatter(axes: Any, figures: Figures) -> None:
    """Each conversation of BFCL: calls for each thing that the user says, and what a program costs beside plain calls.

    Args:
        axes: of matplotlib.
        figures: what was measured.
    """
    tasks = figures.tasks(tables.BFCL)
    across = [tables.per_turn(figures, task) for task in tasks]
    for way, marker in ((ONE_A_TURN, "o"), (TOGETHER, "x")):
        heights = [tables.ratio(figures, task, way) for task in tasks]
        edges = {} if marker == "x" else {"edgecolors": "none"}
        axes.scatter(
            across, heights, s=16, marker=marker, color=COLOURS[way], label=f"beside {way}", alpha=0.7, **edges
        )
    axes.axhline(1, color=COLOURS[PROGRAM], linewidth=1.2)
    axes.text(
        0.99, 1.01, "as dear", color=COLOURS[PROGRAM], ha="right", va="bottom", transform=axes.get_yaxis_transform()
    )
    axes.set(xlabel="BFCL: calls per user turn", ylabel="program / plain calls, all tokens")
    axes.legend(fontsize=8)


def digest(figures: Figures) -> str:
    """What tells whether a picture shows these figures."""
    return f"figures {hashlib.sha256(figures.dumps().encode()).hexdigest()}"


def draw(figures: Figures, file: Path = FILE) -> None:
    """Write the picture. It carries the digest of its figures: its bytes differ between versions of matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "savings", "font.size": 9, "svg.fonttype": "path"}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", facecolor="white")
        bars(left, figures)
        scatter(right, figures)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, metadata={"Date": None, "Creator": None, "Description": digest(figures)})
        plt.close(figure)
