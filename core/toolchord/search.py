"""Owns finding a tool by words, by a simple pattern, or by a name that is almost right."""

from __future__ import annotations

import difflib
import functools
import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

__all__ = ["near", "rank", "words"]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")
_ALTERNATIVE = re.compile(r"\^?(?:[\w -]|\.\*)+\$?")
_STOP = frozenset(
    [
        "a",
        "an",
        "and",
        "any",
        "by",
        "for",
        "from",
        "in",
        "into",
        "is",
        "it",
        "of",
        "on",
        "or",
        "that",
        "the",
        "this",
        "to",
        "with",
    ]
)
_K1, _B = 1.2, 0.75  # the usual constants of Okapi BM25 (Robertson & Zaragoza 2009)
_LONGEST_QUERY = 500
_LONGEST_NAME = 100
_ALIKE = 0.6
_COMPARED = 20  # names that are compared in full


def words(text: str) -> list[str]:
    """Split names and prose into lower-case words: ``getSales_data`` gives get, sale, data."""
    found = (word.lower() for word in _WORD.findall(text))
    return [_stem(word) for word in found if word not in _STOP]


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def rank(query: str, documents: Sequence[tuple[str, ...]], limit: int = 5) -> list[int]:
    """Rank documents against a query, best first.

    Args:
        query: words, or a pattern of alternatives such as ``get_.*_data|^list_``.
        documents: per document its fields, the most telling first (name, keywords, prose).
        limit: how many to return at most.

    Returns:
        Indices into `documents`. Documents that share nothing with the query are left out.
    """
    query = query[:_LONGEST_QUERY]
    matches = _pattern(query)
    if matches is not None:
        # Anchors are those of a field, or of one of the names in the first.
        spaces = ((*fields, *fields[0].split()) for fields in documents)
        return [i for i, texts in enumerate(spaces) if any(map(matches, texts))][:limit]
    asked = set(words(query))
    bags = [_bag(fields) for fields in documents]
    sizes = [sum(bag.values()) for bag in bags]
    mean = (sum(sizes) / len(sizes) if sizes else 0.0) or 1.0
    scores = [0.0] * len(bags)
    for word in sorted(asked):
        holders = sum(word in bag for bag in bags)
        rarity = math.log(1 + (len(bags) - holders + 0.5) / (holders + 0.5))
        for i, bag in enumerate(bags):
            if count := bag[word]:
                scores[i] += rarity * count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * sizes[i] / mean))
    best = sorted((i for i, score in enumerate(scores) if score > 0), key=lambda i: (-scores[i], i))
    return best[:limit]


@functools.lru_cache(maxsize=16384)  # a program may search in a loop, among thousands of tools
def _bag(fields: tuple[str, ...]) -> Counter[str]:
    bag: Counter[str] = Counter()
    for weight, field in zip(range(len(fields), 0, -1), fields, strict=True):
        for word in words(field):
            bag[word] += weight
    return bag


def _pattern(query: str) -> Callable[[str], bool] | None:
    """Read the regular expressions that models write for tool search, or None for plain words.

    The query may come from a program, and backtracking could stall the host: so `re` never sees it. Alternatives,
    anchors and ``.*`` are matched here, in linear time; anything else is searched by its words.
    """
    body = query.strip().removeprefix("(?i)").lower()
    if not any(sign in query for sign in ("|", ".*", "^", "$", "(?i)")):
        return None
    alternatives = body.split("|")
    if not all(map(_ALTERNATIVE.fullmatch, alternatives)) or not words(body):
        return None
    return lambda text: any(_found(alternative, text.lower()) for alternative in alternatives)


def _found(alternative: str, text: str) -> bool:
    pieces = alternative.strip("^$").split(".*")
    if alternative.startswith("^") and not text.startswith(pieces[0]):
        return False
    last = pieces.pop() if alternative.endswith("$") else ""
    position = 0
    for piece in pieces:
        position = text.find(piece, position)
        if position < 0:
            return False
        position += len(piece)
    if not alternative.endswith("$"):
        return True
    exact = alternative.startswith("^") and not pieces
    return text == last if exact else text.endswith(last) and len(text) - len(last) >= position


def near(name: str, names: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """Names that look like `name` or share its words, best first."""
    name = name[:_LONGEST_NAME]
    asked = set(words(name))
    matcher = difflib.SequenceMatcher(None, "", name.lower())

    def bound(other: str) -> tuple[float, float]:
        """How alike they can be at most, which is quick to tell."""
        shared = asked & set(words(other))
        matcher.set_seq1(other.lower()[:_LONGEST_NAME])
        return (len(shared) / len(asked) if shared else 0.0), matcher.quick_ratio()

    def likeness(other: str) -> tuple[float, float]:
        shared = asked & set(words(other))
        matcher.set_seq1(other.lower()[:_LONGEST_NAME])
        spelling = matcher.ratio()
        return max(spelling, 0.4 + 0.6 * len(shared) / len(asked) if shared else 0.0), spelling

    candidates = heapq.nlargest(_COMPARED, dict.fromkeys(names), key=bound)  # to compare in full is quadratic
    scored = sorted((likeness(other), other) for other in candidates)
    best = sorted(scored, key=lambda pair: pair[0], reverse=True)
    return tuple(other for (score, _), other in best[:limit] if score >= _ALIKE)
