"""Owns what a model is told when it is to write programs. The same tools give the same bytes, so that caches hold.

Nothing here changes from turn to turn: what happens is told in messages that follow.
"""

from __future__ import annotations

from typing import Any

__all__ = ["PROGRAM_TOOL", "RUN_CODE", "instructions"]

RUN_CODE = "run_code"
"""The name of the one tool that runs a program."""

_RULES = """\
Rules for programs:
- Python 3.11. `await` and `return` work at the top level. The value that you `return` is all that you get to see, \
with what you print; so return only what is needed.
- The tools below are functions that are already there: do not import or define them. Call them with keyword arguments.
- Start calls that do not depend on each other together: await asyncio.gather(*[tool(x=i) for i in items]).
- Work on results in the program: filter, join and sum up there.
- There are no files, no network and no other programs; the standard library's modules for data are there."""

_TOOL = """\
You have a tool named run_code. It runs a Python program that calls the tools below, and gives you what it returns. \
When a task takes tools, write one program that does all of it."""

_TEXT = """\
You can run Python programs that call the tools below. When a task takes tools, answer with one program that does all \
of it, in a block that starts with ```python and ends with ```, and with nothing else. You are then told what it \
returned. When you know the answer, give it in plain words, without a block."""

_PLAIN = "Where a single call of one of your other tools is all it takes, make that call instead of a program."

_REPAIR = """\
If a program fails, send the whole program again, corrected. Calls that it makes again with the same arguments are \
answered from the record: they do not run twice."""

PROGRAM_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": RUN_CODE,
        "description": "Run a Python program that calls the tools, and get back what it returns.",
        "parameters": {
            "type": "object",
            "properties": {
                "code": {"type": "string", "description": "The program: Python 3.11, top-level await and return."}
            },
            "required": ["code"],
            "additionalProperties": False,
        },
    },
}
"""`RUN_CODE` in the form of Chat Completions."""


def instructions(stubs: str, *, tool: bool, plain: bool = False, system: str = "") -> str:
    """The system message of a conversation with programs.

    Args:
        stubs: the tools, from `format_tools_for_llm`.
        tool: the model hands its program to `RUN_CODE`; else it writes it as text.
        plain: it has other tools besides.
        system: the user's own instructions, which come first.
    """
    parts = [system, _TOOL if tool else _TEXT, _PLAIN if plain else "", _RULES, _REPAIR, stubs]
    return "\n\n".join(part.strip() for part in parts if part.strip())
