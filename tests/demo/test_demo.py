"""The demo end to end: the recorded model, and live ones against small servers on this machine."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from demo import gguf_model, tokens
from demo.__main__ import main, run
from demo.conversation import Outcome, answer_in, converse
from demo.models import Call, Message
from demo.questions import QUESTIONS, one_call
from demo.table import same

DEN = {"name": "Denver Intl", "altitude": 5431}
NUMBER = 1 + QUESTIONS.index(one_call.QUESTION)


def silent() -> Console:
    return Console(file=StringIO(), width=200)


@pytest.mark.parametrize("number", range(1, len(QUESTIONS) + 1))
async def test_recorded_answers_are_equal_in_every_way_and_by_sql(number: int) -> None:
    single, together, program = await run([number], None, silent())
    assert [row.right for row in (single, together, program)] == [True, True, True]
    assert single.outcome.tool_calls == together.outcome.tool_calls
    assert single.outcome.turns == single.outcome.tool_calls + 1
    assert program.outcome.turns == len(program.question.programs) + 1
    assert program.outcome.failed_programs == len(program.question.programs) - 1
    assert number == NUMBER or program.outcome.tokens < together.outcome.tokens <= single.outcome.tokens


def test_main_says_that_the_model_is_recorded_and_writes_the_figures(tmp_path: Path) -> None:
    console = silent()
    path = tmp_path / "figures.json"
    assert main(["--question", str(NUMBER), "--json", str(path)], console) == 0
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "A recorded model answers; no live one is used." in shown
    assert "Code loses here" in shown
    figures = json.loads(path.read_text())
    assert figures["model"] == "recorded"
    assert [row["way"] for row in figures["rows"]] == ["one call a turn", "calls together", "one program"]
    assert all(row["answer"] == DEN and row["right"] for row in figures["rows"])


@pytest.mark.parametrize("spec", ["nobody:x", "openai", "gguf:/no/such/file.gguf"])
def test_main_explains_a_model_that_can_not_be_had(spec: str) -> None:
    assert main(["--model", spec], silent()) == 2


class Server(ThreadingHTTPServer):
    """Answers POST requests with what ``reply`` makes of their bodies, which it keeps."""

    daemon_threads = True
    seen: list[dict[str, Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(reply: Any) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.seen.append({"path": self.path, **body})
            content = json.dumps(reply(body)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat_reply(body: dict[str, Any]) -> dict[str, Any]:
    """Continue as a model would: call what is offered, then answer with what came back."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    last = body["messages"][-1]
    if last["role"] == "tool":
        found = json.loads(last["content"])
        message["content"] = f"Here it is: {json.dumps({key: found[key] for key in DEN})}"
    else:
        names = [tool["function"]["name"] for tool in body["tools"]]
        asked = (
            {"name": "run_program", "arguments": json.dumps({"code": one_call.PROGRAM})}
            if names == ["run_program"]
            else {"name": "get_airport", "arguments": '{"faa": "DEN"}'}
        )
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": asked}]
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}


def test_an_openai_compatible_server_drives_the_same_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    with serving(chat_reply) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        console = silent()
        arguments = ["--model", "openai:tiny", "--question", str(NUMBER), "--json", str(path)]
        assert main(arguments, console) == 0
    assert isinstance(console.file, StringIO)
    assert "Live model: openai:tiny" in console.file.getvalue()
    assert "recorded" not in console.file.getvalue().lower()
    calls, program = json.loads(path.read_text())["rows"]
    assert (calls["turns"], calls["tool_calls"], calls["answer"]) == (2, 1, DEN)
    assert (program["turns"], program["tool_calls"], program["answer"]) == (2, 1, DEN)
    assert [request["path"] for request in server.seen] == ["/v1/chat/completions"] * 4
    assert [len(request["messages"]) for request in server.seen] == [2, 4, 2, 4]
    assert "async def get_airport" in server.seen[2]["messages"][0]["content"]


def blocks_reply(body: dict[str, Any]) -> dict[str, Any]:
    last = body["messages"][-1]["content"][0]
    if last["type"] == "tool_result":
        content: dict[str, Any] = {"type": "text", "text": last["content"]}
    elif [tool["name"] for tool in body["tools"]] == ["run_program"]:
        content = {"type": "tool_use", "id": "t1", "name": "run_program", "input": {"code": one_call.PROGRAM}}
    else:
        content = {"type": "tool_use", "id": "t1", "name": "get_airport", "input": {"faa": "DEN"}}
    usage = {"input_tokens": 1, "output_tokens": 1}
    about = {"id": "x", "type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn"}
    return about | {"stop_sequence": None, "content": [content], "usage": usage}


async def test_an_anthropic_server_drives_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from demo.models import live_model

    with serving(blocks_reply) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
        rows = await run([NUMBER], live_model("anthropic:tiny"), silent())
    assert [row.outcome.turns for row in rows] == [2, 2]
    assert all(row.right for row in rows)


async def test_a_local_file_drives_the_same_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """xllamacpp itself is replaced; what is shown is the protocol of fenced blocks."""

    class FakeServer:
        def __init__(self, parameters: Any) -> None:
            pass

        def handle_chat_completions(self, request: dict[str, Any]) -> dict[str, Any]:
            system, *_, last = request["messages"]
            if last["content"].startswith("Result:"):
                text = last["content"]
            elif "```python block" in system["content"]:
                text = f"Sure!\n```python\n{one_call.PROGRAM}```"
            else:
                text = '```json\n{"name": "get_airport", "arguments": {"faa": "DEN"}}\n```'
            return {"choices": [{"message": {"role": "assistant", "content": text}}]}

    class FakeParameters:
        def __init__(self) -> None:
            self.model, self.sampling = ModuleType("model"), ModuleType("sampling")

    fake: Any = ModuleType("xllamacpp")
    fake.Server, fake.CommonParams = FakeServer, FakeParameters
    monkeypatch.setitem(sys.modules, "xllamacpp", fake)
    file = tmp_path / "tiny.gguf"
    file.touch()
    rows = await run([NUMBER], gguf_model.GGUFModel(str(file)), silent())
    assert [row.outcome.turns for row in rows] == [2, 2]
    assert all(row.right for row in rows)


async def test_a_model_that_fails_or_never_ends_leaves_its_reason_and_its_cost() -> None:
    class Restless:
        name = "restless"

        async def complete(self, system: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Message:
            if len(messages) > limit:
                raise RuntimeError("context is full")
            return Message("assistant", calls=(Call("1", "again", {}),))

    async def serve(call: Call) -> str:
        return "once more"

    async def ask(max_turns: int) -> Outcome:
        outcome = Outcome()
        await converse(Restless(), "s", [], "q", serve, outcome, max_turns=max_turns, watch=lambda _: None)
        return outcome

    limit = 100
    assert (await ask(3)).stopped == "no answer after 3 turns"
    limit = 4
    full = await ask(10)
    assert (full.turns, full.stopped) == (2, "RuntimeError: context is full")
    framing = tokens.count("s") + tokens.count("[]") + tokens.count("q")
    a_turn = tokens.count("again") + tokens.count("{}")
    assert full.tokens_in == 2 * framing + a_turn + tokens.count("once more")
    assert full.tokens_out == 2 * a_turn


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"a": 1}', {"a": 1}),
        ('It is\n```json\n{"a": {"b": [1]}}\n```\nas asked.', {"a": {"b": [1]}}),
        ('first {"a": 1}, rather {"a": 2}', {"a": 2}),
        ("{'a': None}", {"a": None}),
        ("none", None),
        ("{broken", None),
    ],
)
def test_the_last_object_of_a_reply_is_the_answer(text: str, answer: Any) -> None:
    assert answer_in(text) == answer


def test_answers_are_compared_to_one_decimal() -> None:
    assert same({"x": 12.34, "y": "united "}, {"x": 12.3, "y": "United"})
    assert not same({"x": 12.4}, {"x": 12.3})
    assert not same({"x": [1]}, {"x": [1, 2]})
    assert not same(None, {"x": 1})


def test_tools_refuse_what_the_data_do_not_hold() -> None:
    from demo.tools import daily_departures, get_airport

    with pytest.raises(LookupError, match="SJU"):
        asyncio.run(get_airport("SJU"))
    with pytest.raises(ValueError, match="2013"):
        asyncio.run(daily_departures("JFK", "2014-01-01"))
