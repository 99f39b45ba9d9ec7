"""What the pages say beside their blocks: a second run, a client's configuration, figures that follow from figures."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import TextContent

from tests.docs.page import ROOT, blocks, environment, following, pages


def test_a_durable_run_is_the_same_when_it_is_run_twice(tmp_path: Path) -> None:
    [first, *_] = blocks("durable.md")
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", first.text],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.stdout == "['reminded 1', 'reminded 2']\n", ended.stderr


async def test_a_client_runs_programs_by_the_configuration_of_the_page_on_mcp(tmp_path: Path) -> None:
    module, configuration, *_ = following(blocks("mcp.md"), "# shop.py")
    (tmp_path / "shop.py").write_text(module.text)
    server = json.loads(configuration.text)["mcpServers"]["shop"]
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


def test_a_small_table_of_the_page_on_the_orchestrator_is_the_measured_one() -> None:
    """Its ratios follow from its own figures."""
    row = r"^\| [a-z]+ \(.*?\) \| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|$"
    rows = re.findall(row, (ROOT / "docs" / "orchestrator.md").read_text(), re.MULTILINE)
    assert len(rows) == 9
    for _, together, _, program, ratio in rows:
        assert round(int(program.replace(",", "")) / int(together.replace(",", "")), 2) == float(ratio)


PUBLIC = "langchain langgraph llama_index mcp anthropic openai".split()


@pytest.mark.parametrize("module", ["toolchord", *(f"toolchord_{name}" for name in PUBLIC)])
def test_every_public_name_stands_once_in_the_reference(module: str) -> None:
    home = ROOT / "core" / module
    text = "\n".join(page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
    named = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    assert len(named) == len(set(named))
    documented = {name.rpartition(".")[2] for name in named if name.rpartition(".")[0] == module}
    documented -= {name for name in documented if (home / f"{name}.py").exists() or (home / name).is_dir()}
    if module in ("toolchord_anthropic", "toolchord_openai"):  # what the two share stands on a page of its own
        shared = (ROOT / "docs" / "reference" / "native.md").read_text()
        documented |= set(re.findall(r"members: \[(.*)\]", shared)[0].split(", "))
    assert documented == set(importlib.import_module(module).__all__)


def test_every_page_of_the_repository_is_in_the_navigation_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    listed = re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(page for page in pages() if not page.startswith(".."))
