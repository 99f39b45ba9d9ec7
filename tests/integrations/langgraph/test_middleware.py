"""The middleware: what the model is shown, which way inner calls take, and what passes through them."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware, ToolRetryMiddleware
from langchain_core.messages import ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import InjectedState
from langgraph.types import Command

from tests.integrations.langgraph.graphs import GO, Script, answers, invoke, program, thread, tool_messages
from toolchord_langgraph import CodeOrchestratorMiddleware

HOW = ("async", "sync")
ran: list[str] = []


@tool
def look(key: str) -> str:
    """Look up."""
    ran.append(f"look {key}")
    return key.upper()


@tool
def send(to: str) -> str:
    """Send."""
    ran.append(f"send {to}")
    return f"sent {to}"


class Watch(AgentMiddleware[Any, Any]):
    """Notes each call that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        self.seen.append(request.tool_call["id"])
        return handler(request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        self.seen.append(request.tool_call["id"])
        return await handler(request)


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def agent(model: Script, tools: list[Any], *middleware: Any, **options: Any) -> Any:
    return create_agent(model, tools, middleware=list(middleware), checkpointer=InMemorySaver(), **options)


@pytest.mark.parametrize("how", HOW)
async def test_what_the_model_is_shown(how: str) -> None:
    @tool(extras={"allowed_callers": ["sandbox"]})
    def inner(x: int) -> int:
        """For programs."""
        return x

    for exclusive, expected in ((False, ["run_code", "look", "send"]), (True, ["run_code"])):
        model = Script(turns=["done"])
        mine = CodeOrchestratorMiddleware([inner], exclusive=exclusive)
        app = agent(model, [look, send], mine)
        for number in range(2):
            await invoke(app, GO, thread(str(number)), how)
        assert [[one.name for one in bound] for bound in model.bound] == [expected] * 2
        told = {bound[0].description for bound in model.bound}
        assert len(told) == 1  # byte for byte, so that a provider's cache holds
        assert all(f"{name}(" in told.copy().pop() for name in ("inner", "look", "send"))


@pytest.mark.parametrize("how", HOW)
async def test_inner_calls_pass_through_later_middleware_only(how: str) -> None:
    before, after = Watch(), Watch()
    before.__class__ = type("Before", (Watch,), {})
    app = agent(
        Script(turns=[program("return [look('a'), send('b')]"), "done"]),
        [look, send],
        before,
        CodeOrchestratorMiddleware(),
        after,
    )
    result = await invoke(app, GO, thread(), how)
    assert before.seen == ["c1"]
    assert after.seen == ["c1", "c1:1", "c1:2"]
    assert next(tool_messages(result)).text == '["A", "sent b"]'


@pytest.mark.parametrize("how", HOW)
async def test_a_retry_repeats_the_inner_call_alone(how: str) -> None:
    @tool
    def flaky(x: int) -> int:
        """Fail twice."""
        ran.append(f"flaky {x}")
        if ran.count(f"flaky {x}") < 3:
            raise ConnectionError("later")
        return x

    app = agent(
        Script(turns=[program("return [look('a'), flaky(1)]"), "done"]),
        [look, flaky],
        CodeOrchestratorMiddleware(),
        ToolRetryMiddleware(max_retries=5, initial_delay=0, jitter=False),
    )
    result = await invoke(app, GO, thread(), how)
    assert ran == ["look a", "flaky 1", "flaky 1", "flaky 1"]
    assert next(tool_messages(result)).text == '["A", 1]'


@pytest.mark.parametrize("how", HOW)
async def test_a_person_is_asked_by_langchains_own_middleware(how: str) -> None:
    app = agent(
        Script(turns=[program("a = look('a')\nreturn [a, send('bob')]"), "done"]),
        [look, send],
        CodeOrchestratorMiddleware(),
        HumanInTheLoopMiddleware({"send": True}, interrupt_mode="per_call"),
    )
    result = await invoke(app, GO, thread(), how)
    edit = {"type": "edit", "edited_action": {"name": "send", "args": {"to": "carol"}}}
    result = await invoke(app, answers(result, lambda _: edit), thread(), how)
    assert ran == ["look a", "send carol"]
    assert next(tool_messages(result)).text == '["A", "sent carol"]'  # the value itself, without the notice


@pytest.mark.parametrize("how", HOW)
async def test_what_a_middleware_makes_of_a_result_is_what_a_program_gets(how: str) -> None:
    class Redact(Watch):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return self._redacted(handler(request))

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            return self._redacted(await handler(request))

        def _redacted(self, message: ToolMessage) -> ToolMessage:
            return message.model_copy(update={"content": message.text.replace("SECRET", "***")})

    app = agent(
        Script(turns=[program("return [look('secret'), look('open')]"), "done"]),
        [look],
        CodeOrchestratorMiddleware(),
        Redact(),
    )
    result = await invoke(app, GO, thread(), how)
    assert next(tool_messages(result)).text == '["***", "OPEN"]'


@pytest.mark.parametrize("how", HOW)
async def test_commands_of_inner_tools_update_the_state(how: str) -> None:
    from langchain.agents import AgentState

    class Notes(AgentState[Any]):
        notes: Annotated[list[str], lambda old, new: (old or []) + new]

    @tool
    def note(text: str, call: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Note something."""
        return Command(update={"notes": [text], "messages": [ToolMessage(f"noted {text}", tool_call_id=call)]})

    @tool
    def read(notes: Annotated[list[str], InjectedState("notes")]) -> list[str]:
        """All notes."""
        return notes

    app = agent(
        Script(turns=[program("return [note('one'), read(), note('two'), read()]"), "done"]),
        [note, read],
        CodeOrchestratorMiddleware(),
        state_schema=Notes,
    )
    result = await invoke(app, {**GO, "notes": ["zero"]}, thread(), how)
    assert result["notes"] == ["zero", "one", "two"]
    messages = list(tool_messages(result))
    assert [m.tool_call_id for m in messages] == ["c1"]
    assert messages[0].artifact["value"] == ["noted one", ["zero", "one"], "noted two", ["zero", "one", "two"]]


FILES = """\
await write_file(file_path="/a.txt", content="one")
first = await go_on(question="go on?")
before = await read_file(file_path="/a.txt")
await edit_file(file_path="/a.txt", old_string="one", new_string="two")
second = await go_on(question="really?")
return ["one" in before, "two" in await read_file(file_path="/a.txt"), first, second]
"""


@pytest.mark.parametrize("how", HOW)
async def test_files_of_a_deep_agent_over_two_pauses(how: str) -> None:
    from langgraph.types import interrupt

    @tool
    def go_on(question: str) -> str:
        """Ask a person."""
        return str(interrupt({"question": question}))

    app = create_deep_agent(
        Script(turns=[program(FILES), "done"]),
        tools=[go_on],
        middleware=[CodeOrchestratorMiddleware()],
        checkpointer=InMemorySaver(),
    )
    result = await invoke(app, GO, thread(), how)
    for _ in range(2):
        result = await invoke(app, answers(result, lambda value: f"yes, {value['question']}"), thread(), how)
    assert next(tool_messages(result)).artifact["value"] == [True, True, "yes, go on?", "yes, really?"]
    assert result["files"]["/a.txt"]["content"] == "two"
