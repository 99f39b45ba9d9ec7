"""Names in a program: which ones it binds, and which known ones look like one that is wrong."""

from __future__ import annotations

import ast
import difflib
import re
from collections import Counter
from collections.abc import Iterable

_WORD = re.compile(r"[A-Za-z][a-z]*|\d+")
_ALIKE = 0.6
_COMPARED = 6000
_LONGEST = 100


def bindings(tree: ast.AST) -> Counter[str]:
    """How often a program binds or deletes each name, in whatever scope."""
    names: Counter[str] = Counter()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                names[name] += 1
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names[name] += 1
            case ast.alias(name=name, asname=asname):
                names[asname or name.split(".")[0]] += 1
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names[name] += 1
            case ast.MatchMapping(rest=str(name)):
                names[name] += 1
            case _ if type(node).__name__ in ("TypeVar", "ParamSpec", "TypeVarTuple"):  # since Python 3.12
                names[node.name] += 1  # type: ignore[attr-defined]
    return names


def near(name: str, names: Iterable[str], limit: int = 1) -> list[str]:
    """Names that are spelled like `name`, or share its words, best first."""
    name = name[:_LONGEST]
    asked = _words(name)
    matcher = difflib.SequenceMatcher(None, "", name.lower())
    found = []
    for other in list(dict.fromkeys(names))[:_COMPARED]:
        text = other[:_LONGEST].lower()
        shared = len(asked & _words(other))
        score = 0.4 + 0.6 * shared / max(len(asked), len(_words(other)), 1) if shared else 0.0
        if text == name.lower():
            score = 1.5
        elif asked and shared and (asked <= _words(other) or _words(other) <= asked):
            score = max(score, 0.75)  # `customer` for `customer_id`
        matcher.set_seq1(text)
        if matcher.real_quick_ratio() >= _ALIKE and matcher.quick_ratio() >= _ALIKE:
            score = max(score, matcher.ratio())
        if score >= _ALIKE:
            found.append((score, other))
    return [other for _, other in sorted(found, key=lambda pair: -pair[0])[:limit]]


def _words(name: str) -> set[str]:
    return {word.lower().removesuffix("s") for word in _WORD.findall(name)}
