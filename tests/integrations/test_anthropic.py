"""Claude's programs with our tools: the real SDK against a strict server, in every form of the loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, assert_type

import anthropic
import pytest
from pydantic import BaseModel

from tests.integrations.providers.claude import FakeClaude, Turn, call, output, program, text, thinking
from toolchord import ToolRegistry, create_registry, current_call
from toolchord.errors import CallPaused, ConfigurationError, ModelRunError
from toolchord.native.ledger import digest_of
from toolchord_anthropic import (
    Ledger,
    ModelRun,
    NativeCall,
    Restarted,
    anthropic_tools,
    run_anthropic,
    run_anthropic_sync,
    stream_anthropic,
    stream_anthropic_sync,
)

MODEL = "claude-opus-5"
Says = Generator[Turn, list[str], None]


class Shop:
    """Tools that leave a trace."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.keys: list[str] = []
        self.open_gate: Callable[[], object] = lambda: None
        self.paused = True
        self.registry = create_registry()
        self.registry.add(self.revenue, capabilities=["read_only"])
        self.registry.add(self.pay)
        self.registry.add(self.slow)
        self.registry.add(self.ask, allowed_callers=["direct"])
        self.registry.add(self.wipe, allowed_callers=["sandbox"])
        self.registry.add(self.approve)

    def revenue(self, region: str) -> list[dict[str, Any]]:
        """Revenue of a region."""
        self.ran.append(f"revenue {region}")
        if region == "atlantis":
            raise LookupError("no such region")
        return [{"region": region, "euros": len(region)}]

    async def pay(self, amount: int) -> str:
        """Pay an amount."""
        identity = current_call()
        assert identity is not None
        self.keys.append(f"{identity.number} {identity.digest[:8]}")
        self.ran.append(f"pay {amount}")
        return f"paid {amount}"

    async def slow(self, key: str) -> str:
        """Take a while."""
        self.ran.append(f"slow {key}")
        gate, loop = asyncio.Event(), asyncio.get_running_loop()
        self.open_gate = lambda: loop.call_soon_threadsafe(gate.set)
        await gate.wait()
        return key.upper()

    def ask(self, question: str) -> str:
        """Ask the user."""
        self.ran.append(f"ask {question}")
        return "yes" * (5000 if question == "long?" else 1)

    def wipe(self) -> str:
        """Wipe everything."""
        self.ran.append("wipe")
        return "gone"

    async def approve(self, what: str) -> str:
        """Wait for a human."""
        if self.paused:
            raise CallPaused({"asks": what})
        self.ran.append(f"approve {what}")
        return "approved"


@pytest.fixture
def shop() -> Shop:
    return Shop()


def client(server: FakeClaude, **given: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="k", base_url=server.url, **given)


def aclient(server: FakeClaude, **given: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key="k", base_url=server.url, **given)


async def run(server: FakeClaude, tools: Any, messages: Any = "Go.", **given: Any) -> ModelRun:
    async with aclient(server, max_retries=given.pop("max_retries", 0)) as sdk:
        return await run_anthropic(sdk, tools, messages, **{"model": MODEL, **given})


class Node(BaseModel):
    children: list[Node] = []


def grow(root: Node) -> int:
    """Grow."""
    return 1


# The loop in all its forms


async def async_form(server: FakeClaude, tools: Any, messages: Any, **given: Any) -> ModelRun:
    async with aclient(server) as sdk:
        return await run_anthropic(sdk, tools, messages, model=MODEL, **given)


async def blocking_client_form(server: FakeClaude, tools: Any, messages: Any, **given: Any) -> ModelRun:
    with client(server) as sdk:
        return await run_anthropic(sdk, tools, messages, model=MODEL, **given)


async def stream_form(server: FakeClaude, tools: Any, messages: Any, **given: Any) -> ModelRun:
    async with aclient(server) as sdk:
        events = [event async for event in stream_anthropic(sdk, tools, messages, model=MODEL, **given)]
    return checked(events)


async def blocking_client_stream_form(server: FakeClaude, tools: Any, messages: Any, **given: Any) -> ModelRun:
    with client(server) as sdk:
        events = [event async for event in stream_anthropic(sdk, tools, messages, model=MODEL, **given)]
    return checked(events)


async def sync_form(server: FakeClaude, tools: Any, messages: Any, **given: Any) -> ModelRun:
    with client(server) as sdk:
        return run_anthropic_sync(sdk, tools, messages, model=MODEL, **given)  # in a running event loop


async def sync_in_a_thread_form(server: FakeClaude, tools: Any, messages: Any, **given: Any) -> ModelRun:
    with client(server) as sdk:
        return await asyncio.to_thread(run_anthropic_sync, sdk, tools, messages, model=MODEL, **given)


async def sync_stream_form(server: FakeClaude, tools: Any, messages: Any, **given: Any) -> ModelRun:
    with client(server) as sdk:
        return checked(list(stream_anthropic_sync(sdk, tools, messages, model=MODEL, **given)))


def checked(events: list[Any]) -> ModelRun:
    """A stream shows the SDK's events, each call, and ends with the run."""
    ended = events[-1]
    assert isinstance(ended, ModelRun)
    assert [event for event in events if isinstance(event, NativeCall)] == ended.calls
    written = "".join(event.text for event in events if getattr(event, "type", "") == "text")
    assert written.endswith(ended.text)
    return ended


FORMS = [
    async_form,
    blocking_client_form,
    stream_form,
    blocking_client_stream_form,
    sync_form,
    sync_in_a_thread_form,
    sync_stream_form,
]
CODE = "rows = [json.loads(await revenue({'region': r})) for r in ('north', 'south')]"


def whole_story() -> Says:
    """Parallel calls, another pause, a direct call beside the program, pause_turn, an answer."""
    results = yield Turn(
        [
            thinking("hm"),
            text("Let me see."),
            program("srvtoolu_1", CODE),
            call("revenue", {"region": "north"}, "srvtoolu_1"),
            call("revenue", {"region": "south"}, "srvtoolu_1"),
        ]
    )
    assert [json.loads(one)[0]["region"] for one in results] == ["north", "south"]
    results = yield Turn([call("pay", {"amount": 5}, "srvtoolu_1"), call("ask", {"question": "ok?"})])
    assert results == ['"paid 5"', "yes"]
    yield Turn([output("srvtoolu_1", "10"), text("Nearly ")], stop="pause_turn")
    yield Turn([text("done.")])


@pytest.mark.parametrize("form", FORMS)
async def test_the_whole_loop(shop: Shop, form: Callable[..., Any]) -> None:
    with FakeClaude([whole_story]) as server:
        result: ModelRun = await form(server, shop.registry, "How much?", system="Be brief.")
        assert server.done
        assert server.loopback.refusals == []
    assert result.text == "Nearly done."
    assert [(one.tool, one.caller, one.program, one.status) for one in result.calls] == [
        ("default.revenue", "code_execution_20260120", "srvtoolu_1", "ok"),
        ("default.revenue", "code_execution_20260120", "srvtoolu_1", "ok"),
        ("default.pay", "code_execution_20260120", "srvtoolu_1", "ok"),
        ("default.ask", "direct", None, "ok"),
    ]
    assert [(one.code, one.output, one.ok) for one in result.programs] == [(CODE, "10", True)]
    assert (result.requests, result.stop_reason, result.container) == (4, "end_turn", "container_1")
    assert result.container_expires is not None
    assert result.usage.input_tokens == 4 * 107
    assert result.usage.output_tokens == 40
    assert result.usage.cache_read_tokens == 28
    assert [message["role"] for message in result.messages] == ["user", *["assistant", "user"] * 2, *["assistant"] * 2]
    assert [request.get("container") for request in server.requests] == [None, *["container_1"] * 3]
    assert all(request["system"] == "Be brief." for request in server.requests)
    json.dumps(result.messages)  # plain data


async def test_a_conversation_goes_on_in_its_container(shop: Shop) -> None:
    def says() -> Says:
        yield Turn([program("s1", "x = 1"), output("s1"), text("One.")])
        yield Turn([program("s2", "print(x)"), output("s2", "1"), text("Two.")])

    with FakeClaude([says]) as server:
        first = await run(server, shop.registry)
        again = [*first.messages, {"role": "user", "content": "More."}]
        second = await run(server, shop.registry, again, container=first.container, ledger=first.ledger)
        assert server.done
    assert (first.text, second.text) == ("One.", "Two.")
    assert server.requests[-1]["container"] == "container_1"
    assert [one.id for one in second.programs] == ["s2"]


async def test_skills_stay_with_the_container(shop: Shop) -> None:
    skills = [{"type": "anthropic", "skill_id": "pdf", "version": "latest"}]

    def says() -> Says:
        yield Turn([program("s1", "await pay({'amount': 1})"), call("pay", {"amount": 1}, "s1")])
        yield Turn([output("s1"), text("Done.")])

    with FakeClaude([says]) as server:
        await run(server, shop.registry, container={"skills": skills})
    assert [request["container"] for request in server.requests] == [
        {"skills": skills},
        {"skills": skills, "id": "container_1"},
    ]


# What is offered


def tool_of(server: FakeClaude, name: str) -> dict[str, Any]:
    (found,) = (tool for tool in server.requests[0]["tools"] if tool["name"] == name)
    return dict(found)


def answers() -> Says:
    yield Turn([text("Hello.")])


async def test_the_same_registry_is_offered_in_claudes_form(shop: Shop) -> None:
    with FakeClaude([answers]) as server:
        await run(server, shop.registry)
    names = [tool["name"] for tool in server.requests[0]["tools"]]
    assert names == ["code_execution", "revenue", "pay", "slow", "approve", "ask"]  # and not wipe: it is the sandbox's
    assert tool_of(server, "code_execution")["type"] == "code_execution_20260120"
    revenue = tool_of(server, "revenue")
    assert revenue["allowed_callers"] == ["code_execution_20260120"]
    assert "Returns JSON text; after json.loads: list[dict[str, Any]]" in revenue["description"]
    assert revenue["description"].endswith('If it fails, the text starts with "Error:".')
    assert tool_of(server, "ask")["allowed_callers"] == ["direct"]


async def test_older_callers_become_todays() -> None:
    registry = create_registry()
    for number, caller in enumerate(("code_execution_20250825", "programmatic", "code_execution_20260521")):
        registry.add(lambda: 1, name=f"t{number}", allowed_callers=[caller])
    with FakeClaude([answers]) as server:
        await run(server, registry)
    assert [tool_of(server, f"t{n}")["allowed_callers"] for n in range(3)] == [
        ["code_execution_20260120"],
        ["code_execution_20260120"],
        ["code_execution_20260521"],
    ]


async def test_deferred_tools_bring_tool_search_and_examples_go_along() -> None:
    registry = create_registry()

    def find(city: str) -> str:
        """Find."""
        return city

    registry.add(find, name="listed", examples=[{"input": {"city": "Bonn"}, "description": "a town"}, {"city": "Ulm"}])
    registry.add(find, name="hidden", defer_loading=True)
    registry.add(None, name="dumps", defer_loading=True, import_path="json:dumps")

    def says() -> Says:
        yield Turn(
            [
                {"type": "server_tool_use", "id": "s1", "name": "tool_search_tool_bm25", "input": {"query": "find"}},
                {
                    "type": "tool_search_tool_result",
                    "tool_use_id": "s1",
                    "content": {
                        "type": "tool_search_tool_search_result",
                        "tool_references": [{"type": "tool_reference", "tool_name": "hidden"}],
                    },
                },
                program("s2", "await hidden({'city': 'Ulm'})"),
                call("hidden", {"city": "Ulm"}, "s2"),
            ]
        )
        yield Turn([output("s2", "Ulm"), text("Ulm.")])

    with FakeClaude([says]) as server:
        result = await run(server, registry)
        assert server.done
    assert result.calls[0].text == '"Ulm"'
    assert tool_of(server, "tool_search_tool_bm25")["type"] == "tool_search_tool_bm25_20251119"
    assert tool_of(server, "listed")["input_examples"] == [{"city": "Bonn"}, {"city": "Ulm"}]
    assert "defer_loading" not in tool_of(server, "listed")
    assert tool_of(server, "hidden")["defer_loading"] is True
    assert tool_of(server, "dumps")["input_schema"]["properties"]["obj"] is not None


async def test_names_are_flat_and_unique() -> None:
    registry = create_registry()
    for space in ("sales", "support"):
        registry.add(lambda: 0, name="list", namespace=space)
    registry.add(lambda: 1, name="code_execution")
    registry.add(lambda: 2, name="with space")

    def says() -> Says:
        yield Turn([call("support_list", {})])
        yield Turn([text("Done.")])

    with FakeClaude([says]) as server:
        result = await run(server, registry)
    names = [tool["name"] for tool in server.requests[0]["tools"]]
    assert names == ["code_execution", "sales_list", "support_list", "code_execution_2", "with_space"]
    assert [one.tool for one in result.calls] == ["support.list"]


async def test_tools_of_anthropics_own_go_along(shop: Shop) -> None:
    search = {"type": "web_search_20260209", "name": "web_search"}
    newer = {"type": "code_execution_20260521", "name": "code_execution"}
    encrypted = {
        "type": "encrypted_code_execution_result",
        "encrypted_stdout": "opaque",
        "stderr": "",
        "return_code": 0,
        "content": [],
    }

    def says() -> Says:
        by = {"type": "code_execution_20260120", "tool_id": "s1"}
        yield Turn(
            [
                program("s1", "search"),
                {"type": "server_tool_use", "id": "s2", "name": "web_search", "input": {"query": "q"}, "caller": by},
                {"type": "web_search_tool_result", "tool_use_id": "s2", "content": [], "caller": by},
                {"type": "code_execution_tool_result", "tool_use_id": "s1", "content": encrypted},
                call("ask", {"question": "ok?"}),
            ]
        )
        yield Turn([text("Found.")])

    with FakeClaude([says]) as server:
        result = await run(server, shop.registry, extra_tools=[search, newer])
        assert server.done  # what Claude said came back unchanged, the encrypted result and its callers too
    assert result.text == "Found."
    assert [tool["type"] for tool in server.requests[0]["tools"][:2]] == ["web_search_20260209", newer["type"]]


async def test_a_tool_of_anthropics_that_runs_here_is_served_by_a_registered_one() -> None:
    def memory(command: str, path: str) -> str:
        """Remember."""
        return f"{command} {path}"

    registry = create_registry()
    registry.add(memory, allowed_callers=["direct"])

    def says() -> Says:
        assert (yield Turn([call("memory", {"command": "view", "path": "/x"})])) == ["view /x"]
        yield Turn([text("Done.")])

    with FakeClaude([says]) as server:
        await run(server, registry, extra_tools=[{"type": "memory_20250818", "name": "memory"}])
        assert server.done
    assert server.requests[0]["tools"] == [{"type": "memory_20250818", "name": "memory"}]


async def test_messages_may_hold_the_sdks_objects(shop: Shop) -> None:
    def says() -> Says:
        yield Turn([program("s1", "..."), call("pay", {"amount": 5}, "s1")])
        yield Turn([output("s1"), text("Paid.")])

    with FakeClaude([says]) as server, client(server, max_retries=0) as sdk:
        go: Any = {"role": "user", "content": "Go."}
        form: Any = anthropic_tools(shop.registry)
        first = sdk.messages.create(model=MODEL, max_tokens=8192, messages=[go], tools=form)
        assert first.container is not None
        messages = [go, {"role": "assistant", "content": first.content}]
        result = await run(server, shop.registry, messages, container=first.container.id)
        assert server.done
    assert result.text == "Paid."
    assert shop.ran == ["pay 5"]
    json.dumps(result.messages)


async def test_direct_tools_alone_need_no_container() -> None:
    registry = create_registry()
    registry.add(lambda: 1, name="one", allowed_callers=["direct"])
    with FakeClaude([answers], supported=False) as server:  # nor a model whose code can call tools
        await run(server, registry)
    assert [tool["name"] for tool in server.requests[0]["tools"]] == ["one"]


async def test_a_strict_or_recursive_tool_without_callers_is_offered_directly() -> None:
    registry = create_registry()
    registry.add(grow)
    registry.add(lambda: 1, name="exact", strict=True)
    with FakeClaude([answers]) as server:
        result = await run(server, registry)
    assert tool_of(server, "grow")["allowed_callers"] == tool_of(server, "exact")["allowed_callers"] == ["direct"]
    assert result.notes == [
        "grow is offered for direct calls only: its schema is recursive",
        "exact is offered for direct calls only: it is strict",
    ]


# What can't be combined is refused before it is sent


def with_tool(**metadata: Any) -> ToolRegistry:
    registry = create_registry()

    def only(city: str) -> str:
        """Only for code."""
        return city

    registry.add(only, **{"allowed_callers": ["programmatic"], **metadata})
    return registry


@pytest.mark.parametrize(
    ("registry", "given", "said"),
    [
        (with_tool(strict=True), {}, "strict"),
        (with_tool(examples=[{"town": "Ulm"}]), {}, "example 1 does not fit"),
        (with_tool(), {"tool_choice": {"type": "tool", "name": "only"}}, "only code may call"),
        (with_tool(), {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, "disable_parallel"),
        (with_tool(), {"extra_tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, "toolchord_mcp"),
        (with_tool(), {"mcp_servers": []}, "toolchord_mcp"),
        (with_tool(), {"betas": ["advanced-tool-use-2025-11-20"]}, "not needed"),
        (with_tool(), {"extra_tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}, "20260120"),
        (with_tool(), {"sytem": "x"}, "takes no sytem"),
        (with_tool(allowed_callers=["sandbox"]), {}, "no tool that a provider's model may call"),
        (create_registry(), {}, "no tool that a provider's model may call"),
        (with_tool(), {"messages": []}, "at least one message"),
        (with_tool(), {"messages": {"role": "user"}}, "a text or a list of messages, not dict"),
        (with_tool(), {"messages": ["Go."]}, "must be a message of the SDK, not str"),
        (with_tool(), {"max_requests": 0}, "max_requests must be a positive number"),
        (with_tool(), {"call_deadline": -1}, "call_deadline must be a positive number"),
        (with_tool(), {"max_chars": True}, "max_chars must be a positive number"),
        (with_tool(), {"ledger": "{}"}, "ledger must be a Ledger"),
    ],
)
async def test_what_the_api_would_refuse_is_refused_here(
    registry: ToolRegistry, given: dict[str, Any], said: str
) -> None:
    with FakeClaude([]) as server:
        given = dict(given)
        messages = given.pop("messages", "Go.")
        with pytest.raises(ConfigurationError, match=said):
            await run(server, registry, messages, **given)
        assert server.requests == []


async def test_a_recursive_schema_for_code_is_refused_here() -> None:
    registry = create_registry()
    registry.add(grow, allowed_callers=["programmatic"])
    with pytest.raises(ConfigurationError, match="recursive"):
        anthropic_tools(registry)


async def test_a_platform_without_programs_is_refused(shop: Shop) -> None:
    class AnthropicBedrock(anthropic.AsyncAnthropic):
        """Named as the SDK's client for Bedrock, whose own needs another package."""

    async with AnthropicBedrock(api_key="k") as sdk:
        with pytest.raises(ConfigurationError, match="Bedrock"):
            await run_anthropic(sdk, shop.registry, "Go.", model=MODEL)


async def test_a_model_whose_code_can_not_call_tools_is_refused(shop: Shop) -> None:
    with FakeClaude([], supported=False) as server, pytest.raises(ConfigurationError, match="can't call tools"):
        await run(server, shop.registry, model="claude-haiku-4-5")
    with FakeClaude([answers], supported=None) as server:  # a gateway without a list of models
        assert (await run(server, shop.registry)).text == "Hello."
    with FakeClaude([answers], supported=False) as server:
        assert (await run(server, shop.registry, check_model=False)).text == "Hello."


async def test_an_asynchronous_client_is_refused_by_the_sync_face(shop: Shop) -> None:
    async with anthropic.AsyncAnthropic(api_key="k") as sdk:
        with pytest.raises(ConfigurationError, match="or give Anthropic"):
            run_anthropic_sync(sdk, shop.registry, "Go.", model=MODEL)
        with pytest.raises(ConfigurationError, match="or give Anthropic"):
            stream_anthropic_sync(sdk, shop.registry, "Go.", model=MODEL)


async def test_a_forced_choice_is_for_the_first_request(shop: Shop) -> None:
    def says() -> Says:
        yield Turn([call("ask", {"question": "ok?"})])
        yield Turn([text("Done.")])

    with FakeClaude([says]) as server:
        await run(server, shop.registry, tool_choice={"type": "tool", "name": "ask"})
    assert [request["tool_choice"]["type"] for request in server.requests] == ["tool", "auto"]


# Who may call what


async def test_callers_are_enforced_at_call_time(shop: Shop) -> None:
    def says() -> Says:
        results = yield Turn(
            [
                program("s1", "..."),
                call("ask", {"question": "by code"}, "s1"),
                call("wipe", {}, "s1"),
                call("reveneu", {"region": "north"}, "s1"),
                call("wipe", {}),
            ]
        )
        assert results == [
            "Error: ToolNotAvailable: tool 'ask' is not open to code_execution_20260120 calls "
            "(allowed_callers=['direct']); call it directly, not from code",
            "Error: ToolNotAvailable: no tool named 'wipe'; there are revenue, pay, slow, approve, ask",
            "Error: ToolNotAvailable: no tool named 'reveneu'; there are revenue",
            "Error: ToolNotAvailable: no tool named 'wipe'; there are revenue, pay, slow, approve, ask",
        ]
        yield Turn([output("s1"), text("I see.")])

    with FakeClaude([says]) as server:
        result = await run(server, shop.registry)
        assert server.done
    assert shop.ran == []
    assert [one.status for one in result.calls] == ["error"] * 4
    errors = server.requests[-1]["messages"][-1]["content"]
    assert [block.get("is_error", False) for block in errors] == [False, False, False, True]


async def test_a_tool_for_code_may_not_be_called_directly() -> None:
    def says() -> Says:
        (result,) = yield Turn([call("only", {"city": "Ulm"})])
        assert "not open to direct calls" in result
        yield Turn([text("I see.")])

    with FakeClaude([says]) as server:
        await run(server, with_tool())
        assert server.done


async def test_an_unknown_caller_is_code_and_not_the_model(shop: Shop) -> None:
    """The SDK reads a type of caller that it doesn't know as a direct one."""

    def says() -> Says:
        forged = {**call("ask", {"question": "?"}), "caller": {"type": "code_execution_20990101", "tool_id": "s1"}}
        yield Turn([program("s1", "..."), forged])

    with FakeClaude([says]) as server, pytest.raises(ModelRunError) as caught:
        await run(server, shop.registry)  # a server of that day would take the caller back; this one does not
    assert [one.caller for one in caught.value.run.calls] == ["code_execution_20990101"]
    assert shop.ran == []


# Results as text, bounded


async def test_results_and_errors_are_text_and_bounded(shop: Shop) -> None:
    def big(n: int) -> str:
        """Big."""
        return "x" * n

    def odd() -> Any:
        """Odd values."""
        import datetime as dt
        from decimal import Decimal

        return {"day": dt.date(2026, 1, 2), "sum": Decimal("1.50"), "raw": b"\xff", "set": {1}, "nan": float("nan")}

    def nothing() -> None:
        """Nothing."""

    def surrogate() -> list[str]:
        """No valid text."""
        return ["\ud800"]

    for function in (big, odd, nothing, surrogate):
        shop.registry.add(function)
    shop.registry.add(lambda: "plain", name="undeclared")
    shop.registry.add(lambda: object(), name="no_data")

    def says() -> Says:
        results = yield Turn(
            [
                program("s1", "..."),
                call("big", {"n": 100_000}, "s1"),
                call("big", {"n": 5_000_000}, "s1"),
                call("odd", {}, "s1"),
                call("nothing", {}, "s1"),
                call("surrogate", {}, "s1"),
                call("undeclared", {}, "s1"),
                call("no_data", {}, "s1"),
                call("revenue", {"region": "atlantis"}, "s1"),
                call("revenue", {"regoin": "x"}, "s1"),
                call("ask", {"question": "long?"}),
            ]
        )
        assert len(json.loads(results[0])) == 100_000  # code gets all of it: half a JSON text is worth nothing
        assert results[1].startswith("Error: ResultTooLarge: the result has 5,000,002 characters, 4,000,000 at most")
        odd_one = json.loads(results[2])
        assert (odd_one["day"], odd_one["sum"], odd_one["raw"], odd_one["set"]) == ("2026-01-02", "1.50", "_w==", [1])
        assert odd_one["nan"] != odd_one["nan"]
        assert (json.loads(results[3]), json.loads(results[4]), results[5]) == (None, ["\ud800"], "plain")
        assert results[6].startswith("Error: UnsupportedValue: the tool default.no_data returned what can't be handed")
        assert results[7] == "Error: LookupError: no such region"
        assert results[8].startswith("Error: InvalidArguments: revenue: ")
        assert "did you mean 'region'?" in results[8]
        assert len(results[9]) <= 1000
        assert "characters cut" in results[9]
        yield Turn([output("s1"), text("Done.")])

    with FakeClaude([says]) as server:
        await run(server, shop.registry, max_chars=1000)
        assert server.done


# Nothing is done twice


async def test_a_dropped_connection_repeats_no_call(shop: Shop) -> None:
    def says() -> Says:
        yield Turn([program("s1", "..."), call("pay", {"amount": 5}, "s1")])
        yield Turn([output("s1"), text("Paid.")])

    with FakeClaude([says], accidents={0: "drop", 2: "drop"}) as server:
        result = await run(server, shop.registry, max_retries=2)
        assert server.done
    assert result.text == "Paid."
    assert shop.ran == ["pay 5"]
    assert len(server.requests) == 4  # the SDK sent two of them again


async def test_a_run_that_broke_off_goes_on_with_its_messages_and_ledger(shop: Shop) -> None:
    def says() -> Says:
        yield Turn([program("s1", "..."), call("pay", {"amount": 5}, "s1")])
        yield Turn([output("s1"), text("Paid.")])

    with FakeClaude([says], accidents={1: "drop"}) as server:
        with pytest.raises(ModelRunError, match="request 2 failed") as caught:
            await run(server, shop.registry)
        assert isinstance(caught.value.__cause__, anthropic.APIConnectionError)
        broken = caught.value.run
        saved = Ledger.from_json(broken.ledger.to_json())
        messages = broken.messages[:-1]  # from before the result, as another process may have saved them
        result = await run(server, shop.registry, messages, container=broken.container, ledger=saved)
        assert server.done
    assert result.text == "Paid."
    assert shop.ran == ["pay 5"]
    assert [one.text for one in result.calls] == ['"paid 5"']


@pytest.mark.parametrize("cut", [0, 3, 8, "end 0", "end 3"])
async def test_a_stream_that_breaks_off_is_asked_for_again(shop: Shop, cut: str | int) -> None:
    def says() -> Says:
        yield Turn([text("I pay."), program("s1", "..."), call("pay", {"amount": 5}, "s1")])
        yield Turn([output("s1"), text("Paid.")])

    with FakeClaude([says], accidents={0: cut, 2: cut}) as server:
        async with aclient(server) as sdk:
            events = [event async for event in stream_anthropic(sdk, shop.registry, "Go.", model=MODEL)]
        assert server.done
    assert shop.ran == ["pay 5"]
    assert sum(isinstance(event, Restarted) for event in events) == 2
    assert events[-1].text == "Paid."
    assert len(server.requests) == 4


async def test_a_program_that_did_not_wait_gets_the_result_when_it_calls_again(shop: Shop) -> None:
    late = "TimeoutError: Calling tool ['pay'] timed out (no response after 270s)."

    def says() -> Says:
        yield Turn([program("s1", "..."), call("pay", {"amount": 5}, "s1"), call("revenue", {"region": "x"}, "s1")])
        (again,) = yield Turn(
            [output("s1", stderr=late), program("s2", "again"), call("pay", {"amount": 5}, "s2")],
        )
        assert again == '"paid 5"'
        yield Turn([output("s2"), program("s3", "twice on purpose"), call("pay", {"amount": 5}, "s3")])
        yield Turn([output("s3"), text("Done.")])

    with FakeClaude([says]) as server:
        result = await run(server, shop.registry)
        assert server.done
    assert shop.ran == ["pay 5", "revenue x", "pay 5"]  # the one that arrived is no reason not to pay once more
    assert [one.same_as for one in result.calls] == [None, None, "toolu_01", None]
    assert len(set(shop.keys)) == 2  # each has an identity of its own, to be used as an idempotency key
    assert result.notes == ["program s1 did not wait for pay: the answer came too late"]


async def test_a_program_that_failed_repeats_nothing_that_acts(shop: Shop) -> None:
    def says() -> Says:
        yield Turn([program("s1", "..."), call("pay", {"amount": 1}, "s1"), call("revenue", {"region": "x"}, "s1")])
        yield Turn(
            [
                output("s1", stderr="KeyError: 'sum'", code=1),
                program("s2", "repaired"),
                call("pay", {"amount": 1}, "s2"),
                call("revenue", {"region": "x"}, "s2"),
            ]
        )
        yield Turn([output("s2"), text("Done.")])

    with FakeClaude([says]) as server:
        result = await run(server, shop.registry)
        assert server.done
    assert shop.ran == ["pay 1", "revenue x", "revenue x"]  # reading again does no harm, and may be newer
    assert [one.ok for one in result.programs] == [False, True]


async def test_what_arrived_in_one_run_is_no_answer_in_the_next(shop: Shop) -> None:
    def says() -> Says:
        for id in ("s1", "s2"):
            yield Turn([program(id, "..."), call("pay", {"amount": 5}, id)])
            yield Turn([output(id), text("Paid.")])

    with FakeClaude([says]) as server:
        first = await run(server, shop.registry)
        messages = [*first.messages, {"role": "user", "content": "Again."}]
        second = await run(server, shop.registry, messages, container=first.container, ledger=first.ledger)
        assert server.done
    assert shop.ran == ["pay 5", "pay 5"]
    assert [one.same_as for one in second.calls] == [None]
    assert [one.received for one in first.ledger.calls] == [True, True]


async def test_what_failed_is_tried_again_and_what_was_refused_may_be_allowed_elsewhere(shop: Shop) -> None:
    def flaky(n: int) -> str:
        """Fail at first."""
        shop.ran.append(f"flaky {n}")
        if len(shop.ran) == 1:
            raise ConnectionError("try again")
        return "well"

    shop.registry.add(flaky)

    def says() -> Says:
        yield Turn([program("s1", "..."), call("flaky", {"n": 1}, "s1"), call("ask", {"question": "ok?"}, "s1")])
        results = yield Turn(
            [
                output("s1", stderr="JSONDecodeError", code=1),
                program("s2", "repaired"),
                call("flaky", {"n": 1}, "s2"),
                call("ask", {"question": "ok?"}),
            ]
        )
        assert results == ['"well"', "yes"]
        yield Turn([output("s2"), text("Done.")])

    with FakeClaude([says]) as server:
        result = await run(server, shop.registry)
        assert server.done
    assert shop.ran == ["flaky 1", "flaky 1", "ask ok?"]
    assert [one.status for one in result.calls] == ["error", "error", "ok", "ok"]


async def test_a_known_id_opens_no_tool_to_another_caller(shop: Shop) -> None:
    done = NativeCall(number=1, id="t1", tool="default.only", arguments={"city": "Ulm"}, status="ok", text='"Ulm"')
    registry = with_tool()
    with FakeClaude([answers]) as server:
        first = Ledger([done])
        done.digest = digest_of("default.only", {"city": "Ulm"})
        forged = {
            "type": "tool_use",
            "id": "t1",
            "name": "only",
            "input": {"city": "Ulm"},
            "caller": {"type": "direct"},
        }
        messages = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": [forged]}]
        result = await run(server, registry, messages, ledger=first)
    assert [(one.status, one.error and one.error[0]) for one in result.calls] == [("error", "ToolNotAvailable")]


async def test_a_call_past_the_deadline_goes_on_and_is_joined(shop: Shop) -> None:
    def says() -> Says:
        first, quick = yield Turn(
            [program("s1", "..."), call("slow", {"key": "a"}, "s1"), call("pay", {"amount": 1}, "s1")]
        )
        assert first.startswith("Error: StillRunning: default.slow has not ended yet")
        assert quick == '"paid 1"'
        (second,) = yield Turn([call("slow", {"key": "a"}, "s1")])
        assert second.startswith("Error: StillRunning")
        shop.open_gate()
        (third,) = yield Turn([call("slow", {"key": "a"}, "s1")])
        assert third == '"A"'
        yield Turn([output("s1"), text("Done.")])

    with FakeClaude([says]) as server:
        result = await run(server, shop.registry, call_deadline=0.5)
        assert server.done
    assert shop.ran == ["slow a", "pay 1"]
    assert [(one.status, one.same_as) for one in result.calls if one.tool == "default.slow"] == [
        ("ok", None),
        ("ok", "toolu_01"),
        ("ok", "toolu_01"),
    ]


async def test_a_call_that_never_ends_is_unfinished_and_not_begun_again(shop: Shop) -> None:
    def says() -> Says:
        yield Turn([program("s1", "..."), call("slow", {"key": "a"}, "s1")])
        yield Turn([output("s1"), text("I give up.")])
        (again,) = yield Turn([program("s2", "..."), call("slow", {"key": "a"}, "s2")])
        assert again.startswith("Error: OutcomeUnknown: an equal call of default.slow began before")
        yield Turn([output("s2"), text("I see.")])

    with FakeClaude([says]) as server:
        first = await run(server, shop.registry, call_deadline=0.2)
        assert [one.status for one in first.calls] == ["unfinished"]
        messages = [*first.messages, {"role": "user", "content": "Once more."}]
        await run(server, shop.registry, messages, container=first.container, ledger=first.ledger)
        assert server.done
    assert shop.ran == ["slow a"]


async def test_what_a_process_had_begun_when_it_died_is_begun_again_only_if_that_does_no_harm(shop: Shop) -> None:
    written: list[str] = []
    ledger = Ledger()

    def save(changed: NativeCall) -> None:
        written.append(ledger.to_json())

    ledger = Ledger(on_write=save)

    def says() -> Says:
        yield Turn([program("s1", "..."), call("pay", {"amount": 5}, "s1"), call("revenue", {"region": "x"}, "s1")])
        yield Turn([output("s1"), text("Done.")])

    def refused() -> Says:
        paid, revenue = yield Turn(
            [program("s1", "..."), call("pay", {"amount": 5}, "s1"), call("revenue", {"region": "x"}, "s1")]
        )
        assert paid.startswith("Error: OutcomeUnknown")
        assert json.loads(revenue)[0]["region"] == "x"
        yield Turn([output("s1"), text("Done.")])

    with FakeClaude([says]) as server:
        await run(server, shop.registry, ledger=ledger)
    assert shop.ran == ["pay 5", "revenue x"]
    begun = Ledger.from_json(written[1])  # both were written down, none had ended
    assert [one.status for one in begun.calls] == ["running", "running"]
    with FakeClaude([refused]) as server:
        result = await run(server, shop.registry, ledger=begun)
        assert server.done
    assert shop.ran == ["pay 5", "revenue x", "revenue x"]
    assert [one.status for one in result.calls] == ["unfinished", "ok"]


async def test_a_ledger_that_can_not_be_written_stops_before_the_tool(shop: Shop) -> None:
    def full(changed: NativeCall) -> None:
        raise OSError("disk full")

    def says() -> Says:
        yield Turn([program("s1", "..."), call("pay", {"amount": 5}, "s1")])

    with FakeClaude([says]) as server, pytest.raises(OSError, match="disk full"):
        await run(server, shop.registry, ledger=Ledger(on_write=full))
    assert shop.ran == []


def test_a_ledger_is_read_back_or_refused() -> None:
    ledger = Ledger([NativeCall(number=1, id="a", tool="t", arguments={"x": [1]}, status="ok", error=None)])
    assert Ledger.from_json(ledger.to_json()).calls == ledger.calls
    with pytest.raises(ConfigurationError, match="not a ledger"):
        Ledger.from_json("{}")


async def test_calls_that_pause_end_the_run_and_it_goes_on_later(shop: Shop) -> None:
    def says() -> Says:
        results = yield Turn([call("approve", {"what": "x"}), call("ask", {"question": "ok?"})])
        assert results == ["approved", "yes"]
        yield Turn([text("Done.")])

    with FakeClaude([says]) as server:
        first = await run(server, shop.registry)
        assert (first.stop_reason, [one.pause.reason for one in first.pending]) == ("paused", [{"asks": "x"}])
        shop.paused = False
        second = await run(server, shop.registry, first.messages, ledger=first.ledger)
        assert server.done
    assert second.text == "Done."
    assert shop.ran == ["ask ok?", "approve x"]


async def test_calls_that_are_made_together_run_together() -> None:
    registry = create_registry()
    met = threading.Barrier(3, timeout=5)

    def meet(n: int) -> int:
        """Meet, in a thread."""
        return met.wait() and n

    async def meet_too(n: int) -> int:
        """Meet, on the event loop."""
        return await asyncio.to_thread(met.wait) and n

    registry.add(meet)
    registry.add(meet_too)

    def says() -> Says:
        asked = [call("meet", {"n": 1}, "s1"), call("meet", {"n": 2}, "s1"), call("meet_too", {"n": 3}, "s1")]
        results = yield Turn([program("s1", "..."), *asked])
        assert all(result.isdigit() for result in results)
        yield Turn([output("s1"), text("Done.")])

    with FakeClaude([says]) as server:
        await run(server, registry)
        assert server.done


async def test_a_run_that_is_cancelled_ends_its_calls(shop: Shop) -> None:
    ledger = Ledger()
    begun = asyncio.Event()
    ended: list[str] = []

    async def forever() -> None:
        """Never end."""
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("forever")

    def says() -> Says:
        yield Turn([program("s1", "..."), call("forever", {}, "s1")])

    with FakeClaude([says]) as server:
        task = asyncio.create_task(run(server, [forever], ledger=ledger))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended == ["forever"]
    assert [one.status for one in ledger.calls] == ["unfinished"]


async def test_a_tool_has_its_own_timeout_too(shop: Shop) -> None:
    async def forever() -> None:
        """Never end."""
        await asyncio.Event().wait()

    shop.registry.add(forever, timeout=0.05)

    def says() -> Says:
        (result,) = yield Turn([program("s1", "..."), call("forever", {}, "s1")])
        assert result == "Error: TimeoutError: the tool default.forever took too long"
        yield Turn([output("s1"), text("Done.")])

    with FakeClaude([says]) as server:
        await run(server, shop.registry)
        assert server.done


# Containers that are gone


@pytest.mark.parametrize("status", [400, 500])
async def test_a_container_that_is_gone_is_replaced(shop: Shop, status: int) -> None:
    with FakeClaude([answers], gone={"old": status}) as server:
        result = await run(server, shop.registry, container="old")
    assert result.text == "Hello."
    assert [request.get("container") for request in server.requests] == ["old", None]
    assert result.notes == [f"container old is gone ({status}); a new one is used"]


async def test_a_program_whose_container_is_gone_starts_anew_and_repeats_nothing(shop: Shop) -> None:
    def says() -> Says:
        yield Turn([program("s1", "..."), call("pay", {"amount": 1}, "s1")])
        yield Turn([call("pay", {"amount": 2}, "s1"), call("ask", {"question": "ok?"})])

    def anew() -> Says:
        results = yield Turn([program("s2", "..."), call("pay", {"amount": 1}, "s2"), call("pay", {"amount": 2}, "s2")])
        assert results == ['"paid 1"', '"paid 2"']
        yield Turn([call("pay", {"amount": 2}, "s2")])
        yield Turn([output("s2"), text("Done.")])

    with FakeClaude([says, anew], expires_after=2) as server:
        result = await run(server, shop.registry)
        assert server.done
    assert result.text == "Done."
    assert shop.ran == ["pay 1", "pay 2", "ask ok?", "pay 2"]  # the third one is new
    assert result.container == "container_2"
    assert [message["role"] for message in server.requests[3]["messages"]] == ["user"]
    assert "starts anew" in result.notes[0]
    assert [one.id for one in result.programs] == ["s1", "s2"]


async def test_containers_that_are_always_gone_end_the_run(shop: Shop) -> None:
    def says() -> Says:
        yield Turn([program("s1", "..."), call("pay", {"amount": 1}, "s1")])

    gone = {f"container_{n}": 400 for n in range(1, 9)}
    with FakeClaude([says] * 3, gone=gone) as server, pytest.raises(ModelRunError, match="expired") as caught:
        await run(server, shop.registry)
    assert shop.ran == ["pay 1"]
    assert caught.value.run.requests == 6


# Ends


async def test_too_many_requests_end_a_run_that_can_go_on(shop: Shop) -> None:
    def says() -> Says:
        while True:
            yield Turn([text("Hm. ")], stop="pause_turn")

    with FakeClaude([says]) as server, pytest.raises(ModelRunError, match="after 3 requests") as caught:
        await run(server, shop.registry, max_requests=3)
    assert len(server.requests) == 3
    assert caught.value.run.text == "Hm. Hm. Hm. "


@pytest.mark.parametrize("stop", ["max_tokens", "refusal", "stop_sequence", "model_context_window_exceeded"])
async def test_other_ends_are_told(shop: Shop, stop: str) -> None:
    def says() -> Says:
        yield Turn([text("I am"), call("ask", {"question": "cut o"})], stop=stop)

    with FakeClaude([says]) as server:
        result = await run(server, shop.registry)
    assert (result.text, result.stop_reason, shop.ran) == ("I am", stop, [])


async def test_an_empty_last_message_is_not_sent_back(shop: Shop) -> None:
    def says() -> Says:
        yield Turn([call("ask", {"question": "ok?"})])
        yield Turn([])
        yield Turn([text("Yes?")])

    with FakeClaude([says]) as server:
        first = await run(server, shop.registry)
        messages = [*first.messages, {"role": "user", "content": "Well?"}]
        assert (first.text, (await run(server, shop.registry, messages)).text) == ("", "Yes?")
        assert server.done


async def test_an_error_of_the_api_keeps_what_happened(shop: Shop) -> None:
    with FakeClaude([]) as server, pytest.raises(ModelRunError, match="not supported for this model") as caught:
        await run(server, shop.registry, model="claude-opus-5-5", tool_choice={"type": "any"})
    assert isinstance(caught.value.__cause__, anthropic.BadRequestError)


async def test_a_conversation_with_a_hole_is_refused(shop: Shop) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "ask", "input": {}}]},
        {"role": "user", "content": "Never mind."},
    ]
    with FakeClaude([]) as server, pytest.raises(ConfigurationError, match="no result for the call t1"):
        await run(server, shop.registry, messages)


async def test_a_stream_that_is_given_up_leaves_nothing(shop: Shop) -> None:
    with FakeClaude([whole_story]) as server:
        with client(server) as sdk:
            events = stream_anthropic_sync(sdk, shop.registry, "Go.", model=MODEL)
            assert next(events) is not None
            del events
        async with aclient(server) as sdk_async:
            stream = stream_anthropic(sdk_async, shop.registry, "Go.", model=MODEL)
            assert await anext(stream) is not None
            await stream.aclose()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("toolchord-sync")] == []


# The server itself: each rule, broken with the bare SDK

CODE_TOOL = {"type": "code_execution_20260120", "name": "code_execution"}
PAY: dict[str, Any] = {
    "name": "pay",
    "input_schema": {"type": "object", "properties": {"amount": {"type": "integer"}}},
    "allowed_callers": ["code_execution_20260120"],
}
CYCLE = {"type": "object", "properties": {"a": {"$ref": "#/$defs/N"}}, "$defs": {"N": {"items": {"$ref": "#/$defs/N"}}}}
RULES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field of a tool": ({"tools": [{**PAY, "examples": []}]}, "Extra inputs are not permitted"),
    "a required field": ({"tools": [{"name": "x"}]}, "Field required"),
    "a caller that is none": ({"tools": [{**PAY, "allowed_callers": ["sandbox"]}]}, "Input should be"),
    "no code tool": ({"tools": [PAY]}, "requires the code_execution_20260120 tool"),
    "an old code tool": (
        {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}, PAY]},
        "requires the code_execution_20260120 tool",
    ),
    "strict": ({"tools": [CODE_TOOL, {**PAY, "strict": True}]}, "strict is not supported"),
    "a recursive schema": ({"tools": [CODE_TOOL, {**PAY, "input_schema": CYCLE}]}, "Circular \\$ref detected"),
    "a choice of a tool for code": (
        {"tools": [CODE_TOOL, PAY], "tool_choice": {"type": "tool", "name": "pay"}},
        "does not allow direct calls",
    ),
    "one call at a time": (
        {"tools": [CODE_TOOL, PAY], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        "disable_parallel_tool_use is not supported",
    ),
    "a forced choice": ({"model": "claude-opus-5-5", "tool_choice": {"type": "any"}}, "not supported for this model"),
    "all deferred": ({"tools": [{**PAY, "allowed_callers": ["direct"], "defer_loading": True}]}, "cannot be deferred"),
    "a deferred tool in the cache": (
        {"tools": [CODE_TOOL, {**PAY, "defer_loading": True, "cache_control": {"type": "ephemeral"}}]},
        "cannot have cache_control",
    ),
    "an example that does not fit": (
        {"tools": [CODE_TOOL, {**PAY, "input_examples": [{"amount": "much"}]}]},
        "input_examples",
    ),
    "a name twice": ({"tools": [CODE_TOOL, PAY, PAY]}, "Tool names must be unique"),
    "an unknown container": ({"container": "old"}, "Container old has expired"),
}


@pytest.mark.parametrize("rule", RULES)
async def test_the_server_refuses(rule: str) -> None:
    broken, said = RULES[rule]
    request: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "Go."}]}
    with FakeClaude([], gone={"old": 400}) as server, client(server, max_retries=0) as sdk:
        with pytest.raises(anthropic.BadRequestError, match=said) as caught:
            sdk.messages.create(**{**request, **broken})
        with pytest.raises(anthropic.BadRequestError, match=said), sdk.messages.stream(**{**request, **broken}):
            pass
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")


def _result(id: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": "1", **given}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
CONTINUATIONS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str]] = {
    "without the container": (
        {"container": None},
        [_result("toolu_01"), _result("toolu_02")],
        "container_id is required when there are pending tool uses generated by code execution with tools.",
    ),
    "with text after the results": (
        {},
        [_result("toolu_01"), _result("toolu_02"), {"type": "text", "text": "Hurry."}],
        "may only contain tool_result blocks",
    ),
    "with a result missing": (
        {},
        [_result("toolu_01")],
        "`tool_use` ids were found without `tool_result` blocks immediately after: toolu_02",
    ),
    "with a result of nothing": (
        {},
        [_result("toolu_01"), _result("toolu_02"), _result("toolu_77")],
        "unexpected `tool_use_id` found in `tool_result` blocks: toolu_77",
    ),
    "with an image": ({}, [_result("toolu_01"), _result("toolu_02", content=[IMAGE])], "must be text"),
    "without the code tool": (
        {"tools": [{**PAY, "allowed_callers": ["direct"]}]},
        [_result("toolu_01"), _result("toolu_02")],
        "no code_execution tool was provided",
    ),
}


@pytest.mark.parametrize("fault", CONTINUATIONS)
def test_the_server_refuses_a_continuation(fault: str) -> None:
    results: Any
    changed, results, said = CONTINUATIONS[fault]

    def says() -> Says:
        yield Turn([program("s1", "..."), call("pay", {"amount": 1}, "s1"), call("pay", {"amount": 2}, "s1")])
        yield Turn([output("s1"), text("Done.")])

    request: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "tools": [CODE_TOOL, PAY]}
    messages: list[Any] = [{"role": "user", "content": "Go."}]
    with FakeClaude([says]) as server, client(server, max_retries=0) as sdk:
        first = sdk.messages.create(**request, messages=messages)
        assert first.container is not None
        messages.append({"role": "assistant", "content": [block.to_dict() for block in first.content]})
        asked = {**request, "container": first.container.id, **changed}
        with pytest.raises(anthropic.BadRequestError) as caught:
            sdk.messages.create(**asked, messages=[*messages, {"role": "user", "content": results}])
        assert said in caught.value.message
        good: Any = [_result("toolu_01"), _result("toolu_02", content=[{"type": "text", "text": "2"}])]
        asked = {**request, "container": first.container.id}
        done = sdk.messages.create(**asked, messages=[*messages, {"role": "user", "content": good}])
        assert done.stop_reason == "end_turn"


def test_the_server_refuses_a_changed_history() -> None:
    def says() -> Says:
        yield Turn([thinking("hm"), program("s1", "..."), call("pay", {"amount": 1}, "s1")])

    request: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "tools": [CODE_TOOL, PAY]}
    with FakeClaude([says]) as server, client(server, max_retries=0) as sdk:
        first = sdk.messages.create(**request, messages=[{"role": "user", "content": "Go."}])
        content: list[Any] = [block.to_dict() for block in first.content]
        for changed in (content[1:], [*content[:2], {**content[2], "caller": {"type": "direct"}}]):
            messages: list[Any] = [
                {"role": "user", "content": "Go."},
                {"role": "assistant", "content": changed},
                {"role": "user", "content": [_result("toolu_01")]},
            ]
            with pytest.raises(anthropic.BadRequestError, match="unchanged"):
                sdk.messages.create(**request, messages=messages, container="container_1")


def test_the_server_refuses_a_program_left_behind() -> None:
    def says() -> Says:
        yield Turn([program("s1", "..."), text("Wait.")], stop="pause_turn")

    request: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "tools": [CODE_TOOL, PAY]}
    with FakeClaude([says]) as server, client(server, max_retries=0) as sdk:
        go: Any = {"role": "user", "content": "Go."}
        first = sdk.messages.create(**request, messages=[go])
        said: Any = {"role": "assistant", "content": [block.to_dict() for block in first.content]}
        with pytest.raises(anthropic.BadRequestError, match="without a corresponding `code_execution_tool_result`"):
            sdk.messages.create(**request, messages=[go, said, go], container="container_1")
        empty: Any = {"role": "assistant", "content": []}
        with pytest.raises(anthropic.BadRequestError, match="must have non-empty content"):
            sdk.messages.create(**request, messages=[go, empty, go])


async def typed_face(sdk: anthropic.AsyncAnthropic, registry: ToolRegistry) -> AsyncIterator[None]:
    """Never run: mypy checks it."""
    result = await run_anthropic(sdk, registry, "Go.", model=MODEL)
    assert_type(result, ModelRun)
    assert_type(result.calls, list[NativeCall])
    yield
