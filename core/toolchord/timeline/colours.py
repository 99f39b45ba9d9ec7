"""Owns which parts of a program are coloured. It is no parser: it finds words, texts, numbers and comments."""

from __future__ import annotations

import keyword
import re

Piece = tuple[str, str]
"""A kind (keyword, string, comment, number, tool or "" for the rest) and a text."""

_TOKEN = re.compile(
    r"""
    (?P<comment>\#[^\n]*)
  | (?P<string>[A-Za-z]{0,2}(?:\"\"\"(?:[^\\"]|\\.|\\\Z|"(?!""))*+(?:\"\"\"|\Z)
      |'''(?:[^\\']|\\.|\\\Z|'(?!''))*+(?:'''|\Z)|"(?:[^"\\\n]|\\.)*+"?|'(?:[^'\\\n]|\\.)*+'?))
  | (?P<number>(?<![\w.])\d[\w.]*)
  | (?P<name>[^\W\d]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORDS = {*keyword.kwlist, "match", "case", "type"}
_SOFT = {"match", "case", "type"}
_LONGEST = 200_000


def pieces(code: str, tools: frozenset[str] = frozenset()) -> list[list[Piece]]:
    """The lines of a program, in pieces that make up its text again.

    Args:
        code: with newlines only between lines.
        tools: names of functions to be told from others.
    """
    if len(code) > _LONGEST:
        return [[("", line)] for line in code.split("\n")]
    rows: list[list[Piece]] = [[]]
    last = 0
    for found in _TOKEN.finditer(code):
        _add(rows, "", code[last : found.start()])
        _add(rows, _kind(found, tools), found.group())
        last = found.end()
    _add(rows, "", code[last:])
    return rows


def _kind(found: re.Match[str], tools: frozenset[str]) -> str:
    if found.lastgroup != "name":
        return found.lastgroup or ""
    word = found.group()
    if word in tools:
        return "tool"
    if word in _SOFT:
        before = found.string[found.string.rfind("\n", 0, found.start()) + 1 : found.start()]
        after = found.string[found.end() : found.end() + 2]
        return "keyword" if not before.strip() and re.match(r"\s[^\s=.)]", after) else ""
    return "keyword" if word in _WORDS else ""


def _add(rows: list[list[Piece]], kind: str, text: str) -> None:
    first, *rest = text.split("\n")
    if first:
        rows[-1].append((kind, first))
    for line in rest:
        rows.append([(kind, line)] if line else [])
