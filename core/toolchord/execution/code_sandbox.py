"""Owns nothing: `CodeSandbox` under the import path that chuk-tool-processor used."""

from __future__ import annotations

from toolchord.sandbox import CodeSandbox

__all__ = ["CodeSandbox"]
