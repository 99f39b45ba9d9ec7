"""Keeps credentials out of the text of tools' errors, the one text that a tool did not mean to hand out."""

from __future__ import annotations

import os
import re

MASK = "[redacted]"

_SECRET_NAME = re.compile(r"(?i)(secret|token|passw|passphrase|credential|api_?key|private_?key|access_?key)")

_WORDS = r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[ _-]?key|access[ _-]?key|private[ _-]?key|credentials?|auth(?:orization)?)"
_PATTERNS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"),
    re.compile(r"(?i)\b(?:bearer|basic)\s+[\w.~+/=-]{8,}"),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),
    re.compile(r"\b(?:sk|pk|rk|ghp|gho|ghs|github_pat|glpat|xox[abprs]|AKIA|ASIA|AIza|hf)[-_]?[A-Za-z0-9_-]{12,}"),
)
_ASSIGNED = re.compile(rf"(?i)(\b\w*{_WORDS}\w*[\"']?\s*(?:=|:|\bis\b|\bwas\b)\s*[\"']?)(?![\"'\s])[^\s\"',;)]{{4,}}")


def redact(text: str) -> str:
    """`text` with what looks like a credential, or is one of this process's secret variables, masked."""
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET_NAME.search(name):
            text = text.replace(value, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(MASK, text)
    return _ASSIGNED.sub(rf"\1{MASK}", text)
