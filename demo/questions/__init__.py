"""The questions, one module each."""

from __future__ import annotations

from demo.questions import aircraft, airlines, altitude, gusts, one_call, routes, storm
from demo.questions.question import Question

__all__ = ["QUESTIONS", "Question"]

QUESTIONS: tuple[Question, ...] = (
    airlines.QUESTION,
    routes.QUESTION,
    gusts.QUESTION,
    aircraft.QUESTION,
    altitude.QUESTION,
    storm.QUESTION,
    one_call.QUESTION,
)
