"""What a question of the demo is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demo.recorded import Script


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answer by plain SQL, and what the recorded model does with it.

    Attributes:
        title: two or three words for the table.
        text: what the model is asked.
        expected: computes the answer by SQL, without the tools.
        programs: recorded programs; all but the last one fail.
        script: makes the recorded sequence of calls.
        remark: what to notice in the recorded figures.
    """

    title: str
    text: str
    expected: Callable[[], dict[str, Any]]
    programs: tuple[str, ...]
    script: Callable[[], Script]
    remark: str = ""
