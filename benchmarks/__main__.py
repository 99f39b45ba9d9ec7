"""`make bench`: what the sandbox costs on this machine."""

from __future__ import annotations

from toolchord.cli.bench import bench

bench()
