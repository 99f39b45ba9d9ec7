"""The snippets of docs/mcp.md, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import TextContent

ROOT = Path(__file__).parents[2]
SNIPPETS = re.findall(
    r"^```(?:python|json)\n(.*?)^```", (ROOT / "docs" / "mcp.md").read_text(), re.DOTALL | re.MULTILINE
)


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "core"), str(ROOT / "integrations"), *sys.path])
    return {**os.environ, "PYTHONPATH": path}


def test_tools_from_servers(tmp_path: Path) -> None:
    # The snippet's server is on the path of the user's Python; here it lives in a folder of its own.
    servers = ROOT / ".demo" / "servers" / "time"
    assert servers.is_dir(), f"there is no {servers}; `make test` installs it"
    command = '[sys.executable, "-m", "mcp_server_time"]'
    assert command in SNIPPETS[0]
    given = {"command": sys.executable, "args": ["-m", "mcp_server_time"], "env": {"PYTHONPATH": str(servers)}}
    script = tmp_path / "snippet.py"
    script.write_text(SNIPPETS[0].replace(command, repr(given)))
    ended = subprocess.run(
        [sys.executable, "-W", "error", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "async def get_current_time(timezone: str) -> TimeResult:" in ended.stdout
    assert set(json.loads(ended.stdout.splitlines()[-1])) == {"Europe/Oslo", "Asia/Tokyo", "America/Lima"}


async def test_programs_for_every_client(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SNIPPETS[1])
    server = json.loads(SNIPPETS[2])["mcpServers"]["shop"]
    assert server["command"] == "toolchord"
    arguments = ["-m", "toolchord", *server["args"]]
    parameters = StdioServerParameters(command=sys.executable, args=arguments, env=environment(), cwd=tmp_path)
    async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        code = "return sum(order['euros'] for order in await list_orders('ann'))"
        [block] = (await session.call_tool("run_code", {"code": code})).content
        assert isinstance(block, TextContent)
        assert block.text == "55.5"
        refused = await session.call_tool("run_code", {"code": "return await cancel_order(id=1)"})
        assert refused.isError
        [block] = refused.content
        assert isinstance(block, TextContent)
        assert "CallDenied" in block.text
