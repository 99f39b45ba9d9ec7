"""Keeps credentials out of the text of tools' errors, the one text that a tool did not mean to hand out.

What is masked is what looks like a credential: a known form, or a value that is told to be one. Ordinary sentences
about passwords and tokens stay, since a model needs them to repair its program.
"""

from __future__ import annotations

import os
import re

MASK = "[redacted]"

_SECRET_NAME = re.compile(r"(?i)(secret|token|passw|passphrase|credential|api_?key|private_?key|access_?key)")

_PATTERNS = (
    re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^\s/@:]{0,200}:[^\s/@]{1,500}(?=@)"),
    re.compile(r"\b(?i:bearer|basic)\s+(?=[\w.~+/=-]{0,80}(?:\d|=|[a-z][A-Z]))[\w.~+/=-]{8,}"),
    re.compile(r"(?<![\w-])eyJ[\w-]{8,2000}\.[\w-]{8,4000}(?:\.[\w-]*)?"),
    re.compile(r"\b(?:sk|pk|rk|hf|glpat|xox[abeprs])[-_](?=[\w-]{0,80}\d)[\w-]{12,400}"),
    re.compile(r"\b(?:gh[opsur]_|github_pat_|AKIA|ASIA|AIza)[\w-]{12,}"),
)

_KEY = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|(?:api|private|access|secret)[ _-]?key|credentials?|"
    r"auth(?:orization)?"
)
_TYPES = (
    r"str|string|text|int|integer|float|bool|boolean|bytes|dict|list|none|null|true|false|secretstr|optional|field|"
    r"any"
)
_STATES = (
    r"required|missing|invalid|expired|revoked|incorrect|wrong|empty|unknown|refused|denied|failed|failure|error|must|"
    r"should|cannot|input|value|not|unexpected|too|the|this|that|redacted|unauthorized|forbidden"
)
_PART = r"(?:(?<![A-Za-z0-9])|(?<=[a-z0-9])(?=[A-Z]))"  # where a word of an identifier begins
_QUOTED = r""""[^"\n]{4,500}"|'[^'\n]{4,500}'"""
_ASSIGNED = re.compile(
    rf"""({_PART}(?i:{_KEY})(?![A-Za-z0-9])["']?\s{{0,3}}[=:]\s{{0,3}})"""
    rf"""(?:{_QUOTED}|(?!\[redacted|(?i:{_TYPES}|{_STATES})\b)(?!\d{{1,7}}(?![\w.]))["']?[^\s"',;)\]}}]{{4,}})"""
)
_TOLD = re.compile(  # in a sentence a value is one only if it is quoted or no word
    rf"""({_PART}(?i:{_KEY})\s{{1,3}}(?:is|was)\s{{1,3}})(?:{_QUOTED}|(?=\S{{0,200}}\d)[^\s"',;)]{{4,}})"""
)


def redact(text: str) -> str:
    """`text` with what looks like a credential, or is one of this process's secret variables, masked."""
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET_NAME.search(name):
            text = text.replace(value, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(MASK, text)
    text = _ASSIGNED.sub(rf"\1{MASK}", text)
    return _TOLD.sub(rf"\1{MASK}", text)
