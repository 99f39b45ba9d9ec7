"""What both adapters promise: one registry for every runtime, docs that run, and an extra that is missing told."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.providers import claude, openai_api
from tests.integrations.providers.claude import FakeClaude
from tests.integrations.providers.openai_api import FakeOpenAI
from toolchord import CodeSandbox, create_registry
from toolchord_anthropic import run_anthropic
from toolchord_openai import run_chat, run_openai

ROOT = Path(__file__).parents[2]


async def test_one_registry_unchanged_is_run_by_every_runtime() -> None:
    import anthropic
    import openai

    registry = create_registry()
    made: list[str] = []

    def get_price(item: str, count: int = 1) -> dict[str, float]:
        """The price of an item."""
        made.append(item)
        return {"euros": 2.5 * count}

    registry.add(get_price, examples=[{"item": "pear"}])
    before = [metadata.model_dump() for metadata in await registry.list_metadata()]

    def at_anthropic() -> Any:
        results = yield claude.Turn([claude.program("s", "..."), claude.call("get_price", {"item": "a"}, "s")])
        yield claude.Turn([claude.output("s"), claude.text(str(json.loads(results[0])["euros"]))])

    def at_openai() -> Any:
        results = yield openai_api.Turn(
            [openai_api.program("p", "..."), openai_api.call("get_price", {"item": "b"}, "p")]
        )
        text = str(json.loads(results[0])["euros"])
        yield openai_api.Turn([openai_api.output("p", text), openai_api.message(text)])

    def at_chat() -> Any:
        code = "return (await get_price(item='c')).euros"
        (result,) = yield openai_api.Turn([openai_api.said(None, ("1", "run_code", {"code": code}))])
        yield openai_api.Turn([openai_api.said(result)])

    with FakeClaude([at_anthropic]) as server:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as sdk:
            first = await run_anthropic(sdk, registry, "Go.", model="claude-opus-5")
    with FakeOpenAI([at_openai, at_chat]) as api:
        async with openai.AsyncOpenAI(api_key="k", base_url=api.url) as sdk_two:
            second = await run_openai(sdk_two, registry, "Go.", model="gpt-5.6")
            third = await run_chat(sdk_two, registry, "Go on.", model="gpt-4.1")
    async with CodeSandbox(registry) as sandbox:
        fourth = await sandbox.execute("return (await get_price(item='d')).euros")
    assert (first.text, second.text, third.text, fourth.value) == ("2.5", "2.5", "2.5", 2.5)
    assert made == ["a", "b", "c", "d"]
    assert [metadata.model_dump() for metadata in await registry.list_metadata()] == before


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def python(*lines: str) -> str:
    code = "\n".join(lines)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_anthropic_page_does_what_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def says() -> Any:
        for number in range(9):
            id = f"s{number}"
            yield claude.Turn(
                [claude.program(id, "orders"), claude.call("get_orders", {"customer": "ann"}, id)],
            )
            yield claude.Turn([claude.output(id, "55.5"), claude.text("Ann spent 55.5.")])

    code = snippets("anthropic.md")
    assert len(code) == 4
    monkeypatch.chdir(tmp_path)
    with FakeClaude([says] * 3) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        names: dict[str, Any] = {"__name__": "page"}
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            for snippet in code:
                exec(compile(snippet, "page", "exec"), names)
            names["client"].close()
    lines = shown.getvalue().splitlines()
    assert lines[:3] == [
        "Ann spent 55.5.",
        "orders 55.5",
        "default.get_orders {'customer': 'ann'} code_execution_20260120 ok",
    ]
    assert lines[3:] == ["called default.get_orders {'customer': 'ann'}", "Ann spent 55.5."]
    assert names["run"].container == "container_3"
    assert [one.status for one in names["ledger"].calls] == ["ok"]


def test_the_openai_page_does_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def says() -> Any:
        for number in range(2):
            id = f"p{number}"
            made = openai_api.call("get_stock", {"sku": "bolts"}, id)
            (result,) = yield openai_api.Turn([openai_api.program(id, "stock"), made])
            yield openai_api.Turn([openai_api.output(id, result), openai_api.message(f"{result} are there.")])

    def chats() -> Any:
        code = "return get_stock('bolts') + get_stock('nuts')"
        (result,) = yield openai_api.Turn([openai_api.said(None, ("1", "run_code", {"code": code}))])
        yield openai_api.Turn([openai_api.said(result)])

    code = snippets("openai.md")
    assert len(code) == 3
    with FakeOpenAI([says, says, chats]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        names: dict[str, Any] = {"__name__": "page"}
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            for snippet in code:
                exec(compile(snippet.replace("http://localhost:8000/v1", server.url), "page", "exec"), names)
            names["client"].close()
            names["local"].close()
        assert server.done
    assert shown.getvalue().splitlines() == [
        "5 are there.",
        "stock 5",
        "default.get_stock {'sku': 'bolts'} programmatic ok",
        "return get_stock('bolts') + get_stock('nuts') 9",
    ]


@pytest.mark.parametrize("extra", ["anthropic", "openai"])
def test_an_extra_that_is_missing_is_told(extra: str) -> None:
    said = python(
        "import sys, importlib.abc",
        "class Gone(importlib.abc.MetaPathFinder):",
        "    def find_spec(self, name, path=None, target=None):",
        f"        if name.partition('.')[0] == '{extra}':",
        f"            raise ModuleNotFoundError(name, name='{extra}')",
        "sys.meta_path.insert(0, Gone())",
        "from toolchord.errors import MissingExtraError",
        "try:",
        f"    import toolchord_{extra}",
        "except MissingExtraError as error:",
        "    print(error)",
    )
    assert said == f"toolchord_{extra} needs an extra: pip install 'toolchord[{extra}]'\n"


@pytest.mark.parametrize("name", ["toolchord_anthropic", "toolchord_openai"])
def test_the_public_names_are_there(name: str) -> None:
    module = __import__(name)
    assert sorted(module.__all__) == module.__all__
    assert all(hasattr(module, one) for one in module.__all__)
