"""A registry that is filled by an MCP server, for `toolchord mcp` to serve on."""

from __future__ import annotations

import sys
from pathlib import Path

from toolchord import create_registry
from toolchord_mcp import connect

registry = create_registry()
connect([sys.executable, str(Path(__file__).parent / "mcp_bad_server.py"), "fine"], registry=registry).open()
