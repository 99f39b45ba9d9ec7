"""What the node shows the model, what it takes for a program, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import StructuredTool, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from pydantic import BaseModel

from tests.integrations.langgraph.graphs import (
    GO,
    Script,
    State,
    calls,
    graph_of,
    invoke,
    program,
    thread,
    tool_messages,
)
from toolchord import Catalogue, CodeSandbox, Limits, create_registry
from toolchord.errors import ConfigurationError
from toolchord_langgraph import CodeOrchestrator, create_code_agent, has_program

HOW = ("async", "sync")


@tool
def double(x: int) -> int:
    """Twice x."""
    return 2 * x


@tool(extras={"allowed_callers": ["sandbox"]})
def hidden(x: int) -> int:
    """For programs."""
    return x


@tool(extras={"allowed_callers": ["direct"]})
def direct(x: int) -> int:
    """For the model."""
    return x


class Row(BaseModel):
    name: str
    price: float


async def run(node: CodeOrchestrator, *turns: Any, how: str = "async") -> Any:
    return await invoke(graph_of(node, Script(turns=[*turns, "done"]), InMemorySaver()), GO, thread(), how)


def names(node: CodeOrchestrator) -> list[str]:
    return [one.name for one in node.model_tools]


def test_tools_are_given_alone_or_with_others() -> None:
    def triple(x: int) -> int:
        """Three times x."""
        return 3 * x

    registry = create_registry()
    registry.add(triple)
    for given in (registry, [registry], [triple], triple_tool := registry.tools()[0], Catalogue.of(registry)):
        assert names(CodeOrchestrator(given))[:-1] == ["triple"]
    assert names(CodeOrchestrator(double))[:-1] == ["double"]
    assert names(CodeOrchestrator([registry, double, triple_tool]))[:-1] == ["triple", "double"]


def test_what_the_model_sees() -> None:
    tools = [double, hidden, direct]
    assert names(CodeOrchestrator(tools)) == ["double", "direct", "run_code"]
    assert names(CodeOrchestrator(tools, exclusive=True)) == ["direct", "run_code"]
    assert names(CodeOrchestrator(tools, code_name="python")) == ["double", "direct", "python"]


def test_the_description_is_the_same_bytes_for_the_same_tools() -> None:
    first, second = (CodeOrchestrator([double, hidden, direct]).code_tool.description for _ in range(2))
    assert first == second
    assert "double(x: int) -> int" in first
    assert "hidden(x: int) -> int" in first
    assert "direct(" not in first
    assert "earlier programs are still there" in first
    assert "earlier programs" not in CodeOrchestrator([double], variables=False).code_tool.description


@pytest.mark.parametrize("how", HOW)
async def test_a_hidden_tool_that_is_called_directly(how: str) -> None:
    result = await run(CodeOrchestrator([double, direct], exclusive=True), calls(("double", {"x": 1})), how=how)
    (message,) = tool_messages(result)
    assert message.status == "error"
    assert message.text == (
        "double is not called directly: write a program that calls it, and run that with run_code(code=...)."
    )
    result = await run(CodeOrchestrator([hidden]), calls(("hidden", {"x": 1})), how=how)
    assert next(tool_messages(result)).status == "error"


@pytest.mark.parametrize("how", HOW)
async def test_a_tool_for_the_model_alone_is_not_open_to_programs(how: str) -> None:
    code = "try:\n    return call_tool('direct', x=1)\nexcept Exception as error:\n    return str(error)"
    result = await run(CodeOrchestrator([double, direct]), program(code), how=how)
    assert "not open to code" in next(tool_messages(result)).text


@pytest.mark.parametrize("how", HOW)
async def test_programs_and_ordinary_calls_side_by_side(how: str) -> None:
    made = calls(
        ("double", {"x": 1}), ("run_code", {"code": "return [double(i) for i in range(3)]"}), ("direct", {"x": 5})
    )
    result = await run(CodeOrchestrator([double, direct]), made, how=how)
    assert [(m.name, m.text, m.status) for m in tool_messages(result)] == [
        ("double", "2", "success"),
        ("run_code", "[0, 2, 4]", "success"),
        ("direct", "5", "success"),
    ]


@pytest.mark.parametrize("how", HOW)
async def test_a_program_that_fails_is_an_answer_with_what_already_happened(how: str) -> None:
    result = await run(CodeOrchestrator([double]), program("a = double(4)\nreturn a.rows"), how=how)
    (message,) = tool_messages(result)
    assert message.status == "error"
    assert "AttributeError (line 2)" in message.text
    assert "double(x=4)" in message.text
    assert message.artifact["ok"] is False
    assert message.artifact["calls"][0]["tool_call_id"] == "c1:1"


@pytest.mark.parametrize("how", HOW)
async def test_errors_of_inner_calls_are_the_programs_own(how: str) -> None:
    @tool
    def fails(kind: str) -> str:
        """Fail."""
        raise {"value": ValueError, "tool": ToolException, "key": KeyError}[kind]("no")

    code = """\
seen = []
for name, args in (("fails", ["value"]), ("fails", ["tool"]), ("fails", ["key"]), ("double", ["x"]), ("double", [])):
    try:
        call_tool(name, *args)
    except Exception as error:
        seen.append(type(error).__name__)
return seen
"""
    node = CodeOrchestrator([fails, double], handle_tool_errors=True)
    result = await run(node, program(code), how=how)
    assert next(tool_messages(result)).text == (
        '["ValueError", "ToolException", "KeyError", "InvalidArguments", "InvalidArguments"]'
    )


@pytest.mark.parametrize("how", HOW)
async def test_values_are_the_tools_own(how: str) -> None:
    def number() -> str:
        """Text that looks like a number."""
        return "12345"

    def texts() -> list[str]:
        """Texts."""
        return ["a", "b"]

    def row() -> Row:
        """A model."""
        return Row(name="x", price=1.0)

    def nothing() -> None:
        """Nothing."""

    def both() -> tuple[str, dict[str, int]]:
        """Content and artifact."""
        return "for the model", {"n": 1}

    tools = [*map(StructuredTool.from_function, (number, texts, row, nothing))]
    tools.append(StructuredTool.from_function(both, response_format="content_and_artifact"))
    code = "return [number(), texts(), row().price, nothing(), both()['n']]"
    result = await run(CodeOrchestrator(tools), program(code), how=how)
    assert next(tool_messages(result)).artifact["value"] == ["12345", ["a", "b"], 1.0, None, 1]


@pytest.mark.parametrize("how", HOW)
async def test_tools_of_toolchord_and_of_langchain_together(how: str) -> None:
    registry = create_registry()

    async def halve(x: int) -> float | None:
        """Half of x; nothing for zero."""
        return x / 2 if x else None

    registry.add(halve)
    node = CodeOrchestrator([double, registry])
    result = await run(node, program("return [double(2), halve(3), halve(0)]"), how=how)
    assert next(tool_messages(result)).text == "[4, 1.5, null]"


@pytest.mark.parametrize("how", HOW)
async def test_a_fenced_program(how: str) -> None:
    text = "Let me look.\n\n```python\nreturn double(21)\n```\n\nThat should do."
    node = CodeOrchestrator([double], fenced=True)
    builder = StateGraph(State).add_node("tools", node).add_edge(START, "tools")
    result = await invoke(builder.compile(), {"messages": [AIMessage(text)], "notes": []}, {}, how)
    answer = result["messages"][-1]
    assert isinstance(answer, HumanMessage)
    assert answer.text == "Result of the program:\n42"
    assert has_program([AIMessage(text)])
    assert not has_program([AIMessage("```sql\nselect 1\n```")])
    assert not has_program([HumanMessage(text)])
    assert has_program({"messages": [calls(("double", {"x": 1}))]})


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("fenced", [False, True])
async def test_the_prebuilt_agent(fenced: bool, how: str) -> None:
    first: Any = "```python\nn = double(21)\n```" if fenced else program("n = double(21)")
    second: Any = "```py\nreturn n + 1\n```" if fenced else program("return n + 1", number=2)
    model = Script(turns=[first, second, "It is 43."])
    app = create_code_agent(model, [double], prompt="Be brief.", fenced=fenced, checkpointer=InMemorySaver())
    result = await invoke(app, {"messages": [("user", "?")]}, thread(), how)
    assert result["messages"][-1].text == "It is 43."
    assert "43" in result["messages"][-2].text
    system = model.asked[0][0].text
    assert system.startswith("Be brief.")
    assert ("double(x: int) -> int" in system) is fenced
    assert [[one.name for one in bound] for bound in model.bound] == ([] if fenced else [["run_code"]])


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("limit", [7, 8])
async def test_the_prebuilt_agent_stops_in_time(limit: int, how: str) -> None:
    app = create_code_agent(Script(turns=[program("return 1", number=n) for n in range(50)]), [double])
    result = await invoke(app, {"messages": [("user", "?")]}, {"recursion_limit": limit}, how)
    assert result["messages"][-1].text == "I need more steps to finish this."


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CodeOrchestrator([double], code_name="double"), "there is a tool 'double' already"),
        (lambda: CodeOrchestrator([double], interrupt_on={"doubel": True}), "did you mean 'double'"),
        (lambda: CodeOrchestrator([double], interrupt_on={"double": {"allowed_decisions": ["no"]}}), "must be some of"),
        (lambda: CodeOrchestrator([double], interrupt_on={"double": {}}), "must be some of"),
        (lambda: CodeOrchestrator([5]), "is no LangChain tool"),
    ],
)
def test_what_makes_no_sense_is_told_at_once(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize("how", HOW)
async def test_limits_and_a_sandbox_of_ones_own(how: str) -> None:
    async with CodeSandbox(limits=Limits(tool_calls=2)) as sandbox:
        node = CodeOrchestrator([double], sandbox=sandbox)
        result = await run(node, program("return [double(n) for n in range(5)]"), how=how)
        assert "more than 2 tool calls" in next(tool_messages(result)).text
    node = CodeOrchestrator([double], limits=Limits(wall_time=20, cpu_time=0.3), max_chars=500)
    result = await run(node, program("print('x' * 5000)\nwhile True: pass"), how=how)
    message = next(tool_messages(result))
    assert "cpu_time" in message.text
    assert len(message.text) <= 500
