"""Our tools with OpenAI's models: the real SDK against a strict server; native programs, and ours behind chat."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, assert_type

import openai
import pytest
from pydantic import BaseModel

from tests.integrations.providers.openai_api import (
    FakeOpenAI,
    Turn,
    call,
    message,
    output,
    program,
    reasoning,
    said,
)
from toolchord import CodeSandbox, ToolRegistry, create_registry
from toolchord.errors import CallPaused, ConfigurationError, ModelRunError
from toolchord_openai import (
    Ledger,
    ModelRun,
    NativeCall,
    Restarted,
    openai_tools,
    run_chat,
    run_chat_sync,
    run_openai,
    run_openai_sync,
    stream_chat,
    stream_chat_sync,
    stream_openai,
    stream_openai_sync,
)

MODEL = "gpt-5.6"
Says = Generator[Turn, list[str], None]


class Stock(BaseModel):
    sku: str
    count: int
    ratio: float


class Depot:
    """Tools that leave a trace."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.paused = True
        self.open_gate: Callable[[], object] = lambda: None
        self.registry = create_registry()
        self.registry.add(self.stock, capabilities=["read_only"])
        self.registry.add(self.order)
        self.registry.add(self.slow)
        self.registry.add(self.ask, allowed_callers=["direct"])
        self.registry.add(self.wipe, allowed_callers=["sandbox"])

    def stock(self, sku: str) -> Stock:
        """What is there."""
        self.ran.append(f"stock {sku}")
        if sku == "none":
            raise LookupError("no such sku")
        return Stock(sku=sku, count=len(sku), ratio=float("nan"))

    async def order(self, sku: str, count: int = 1) -> str:
        """Order some."""
        self.ran.append(f"order {sku} {count}")
        return f"ordered {sku}"

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
        return "yes"

    def wipe(self) -> str:
        """Wipe everything."""
        self.ran.append("wipe")
        return "gone"


@pytest.fixture
def depot() -> Depot:
    return Depot()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox() as sandbox:
        yield sandbox


def client(server: FakeOpenAI, **given: Any) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=server.url, **given)


def aclient(server: FakeOpenAI, **given: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="k", base_url=server.url, **given)


async def run(server: FakeOpenAI, tools: Any, messages: Any = "Go.", **given: Any) -> ModelRun:
    async with aclient(server, max_retries=given.pop("max_retries", 0)) as sdk:
        return await run_openai(sdk, tools, messages, **{"model": MODEL, **given})


async def chat(server: FakeOpenAI, tools: Any, messages: Any = "Go.", **given: Any) -> ModelRun:
    async with aclient(server, max_retries=given.pop("max_retries", 0)) as sdk:
        return await run_chat(sdk, tools, messages, **{"model": MODEL, **given})


# The loop in all its forms


def forms(
    run: Callable[..., Any], stream: Callable[..., Any], run_sync: Callable[..., Any], stream_sync: Callable[..., Any]
) -> dict[str, Callable[..., Any]]:
    async def asynchronous(server: FakeOpenAI, *args: Any, **given: Any) -> ModelRun:
        async with aclient(server) as sdk:
            return assert_run(await run(sdk, *args, model=MODEL, **given))

    async def blocking_client(server: FakeOpenAI, *args: Any, **given: Any) -> ModelRun:
        with client(server) as sdk:
            return assert_run(await run(sdk, *args, model=MODEL, **given))

    async def streamed(server: FakeOpenAI, *args: Any, **given: Any) -> ModelRun:
        async with aclient(server) as sdk:
            return checked([event async for event in stream(sdk, *args, model=MODEL, **given)])

    async def blocking_client_streamed(server: FakeOpenAI, *args: Any, **given: Any) -> ModelRun:
        with client(server) as sdk:
            return checked([event async for event in stream(sdk, *args, model=MODEL, **given)])

    async def sync(server: FakeOpenAI, *args: Any, **given: Any) -> ModelRun:
        with client(server) as sdk:
            return assert_run(run_sync(sdk, *args, model=MODEL, **given))

    async def sync_streamed(server: FakeOpenAI, *args: Any, **given: Any) -> ModelRun:
        with client(server) as sdk:
            return checked(list(stream_sync(sdk, *args, model=MODEL, **given)))

    made = (asynchronous, blocking_client, streamed, blocking_client_streamed, sync, sync_streamed)
    return {form.__name__: form for form in made}


def assert_run(result: Any) -> ModelRun:
    assert isinstance(result, ModelRun)
    return result


def checked(events: list[Any]) -> ModelRun:
    """A stream shows the SDK's events, each call, and ends with the run."""
    ended = assert_run(events[-1])
    shown = [event for event in events if isinstance(event, NativeCall)]
    assert shown == [one for one in ended.calls if one.caller != "sandbox"]
    written = ""
    for event in events:
        if getattr(event, "type", "") == "response.output_text.delta":
            written += event.delta
        if getattr(event, "object", "") == "chat.completion.chunk":
            written += "".join(choice.delta.content or "" for choice in event.choices)
    assert written.endswith(ended.text)
    return ended


NATIVE = forms(run_openai, stream_openai, run_openai_sync, stream_openai_sync)
CHAT = forms(run_chat, stream_chat, run_chat_sync, stream_chat_sync)
CODE = "text(JSON.stringify(await Promise.all([tools.stock({sku: 'a'}), tools.stock({sku: 'bb'})])))"


def whole_story() -> Says:
    """Reasoning, parallel calls, another pause beside a direct call, an output alone, a second program, an answer."""
    results = yield Turn(
        [
            reasoning("hm"),
            program("prog_1", CODE),
            call("stock", {"sku": "a"}, "prog_1"),
            call("stock", {"sku": "bb"}, "prog_1"),
        ]
    )
    assert [json.loads(one)["count"] for one in results] == [1, 2]
    assert json.loads(results[0])["ratio"] is None  # JSON has no NaN, and JavaScript refuses Python's
    results = yield Turn([call("order", {"sku": "a"}, "prog_1"), call("ask", {"question": "ok?"})])
    assert results == ['"ordered a"', "yes"]
    yield Turn([output("prog_1", "10")])
    (result,) = yield Turn([program("prog_2", "..."), call("stock", {"sku": "ccc"}, "prog_2")])
    yield Turn([output("prog_2", result), message("Done.")])


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("form", NATIVE)
async def test_the_whole_native_loop(depot: Depot, form: str, store: bool) -> None:
    with FakeOpenAI([whole_story]) as server:
        result = await NATIVE[form](server, depot.registry, "How much?", store=store, instructions="Be brief.")
        assert server.done
        assert server.loopback.refusals == []
    assert result.text == "Done."
    assert [(one.tool, one.caller, one.program, one.status) for one in result.calls] == [
        ("default.stock", "programmatic", "prog_1", "ok"),
        ("default.stock", "programmatic", "prog_1", "ok"),
        ("default.order", "programmatic", "prog_1", "ok"),
        ("default.ask", "direct", None, "ok"),
        ("default.stock", "programmatic", "prog_2", "ok"),
    ]
    assert [(one.id, one.code, one.ok) for one in result.programs] == [("prog_1", CODE, True), ("prog_2", "...", True)]
    assert result.programs[0].output == "10"
    assert (result.requests, result.stop_reason, result.response_id) == (5, "completed", "resp_5")
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.cache_read_tokens) == (250, 100, 25)
    kinds = [one.get("type", "user") for one in result.messages]
    assert kinds[:6] == ["user", "reasoning", "program", *["function_call"] * 2, "function_call_output"]
    json.dumps(result.messages)  # plain data
    for number, request in enumerate(server.requests):
        assert request["store"] is store
        assert request["instructions"] == "Be brief."
        if store:
            assert request.get("previous_response_id") == (f"resp_{number}" if number else None)
            assert len(request["input"]) == [1, 2, 2, 0, 1][number]
        else:
            assert request["include"] == ["reasoning.encrypted_content"]


async def test_a_stored_conversation_is_continued_by_name(depot: Depot) -> None:
    def says() -> Says:
        yield Turn([message("One.")])
        yield Turn([message("Two.")])

    with FakeOpenAI([says]) as server:
        first = await run(server, depot.registry, store=True)
        second = await run(server, depot.registry, "More.", store=True, previous_response_id=first.response_id)
        assert server.done
    assert second.text == "Two."
    assert server.requests[1]["input"] == [{"role": "user", "content": "More."}]


async def test_a_conversation_is_continued_by_its_items(depot: Depot) -> None:
    def says() -> Says:
        yield Turn([reasoning("x"), program("p", "1"), output("p", "1"), message("One.")])
        yield Turn([message("Two.")])

    with FakeOpenAI([says]) as server:
        first = await run(server, depot.registry)
        second = await run(server, depot.registry, [*first.messages, {"role": "user", "content": "More."}])
        assert server.done
    assert second.text == "Two."


# What is offered


def tool_of(server: FakeOpenAI, name: str) -> dict[str, Any]:
    (found,) = (tool for tool in server.requests[0]["tools"] if tool.get("name") == name)
    return dict(found)


def answers() -> Says:
    yield Turn([message("Hello.")])


async def test_the_same_registry_is_offered_in_openais_form(depot: Depot) -> None:
    with FakeOpenAI([answers]) as server:
        await run(server, depot.registry)
    offered = server.requests[0]["tools"]
    assert offered[0] == {"type": "programmatic_tool_calling"}
    assert [tool["name"] for tool in offered[1:]] == ["stock", "order", "slow", "ask"]  # not wipe: it is the sandbox's
    stock = tool_of(server, "stock")
    assert (stock["allowed_callers"], stock["strict"]) == (["programmatic"], False)
    assert stock["output_schema"]["properties"]["count"] == {"type": "integer"}
    assert tool_of(server, "ask")["allowed_callers"] == ["direct"]


async def test_strict_deferred_and_hosted_tools_go_along() -> None:
    registry = create_registry()

    def find(city: str) -> str:
        """Find."""
        return city

    registry.add(find, strict=True)
    registry.add(find, name="hidden", defer_loading=True, allowed_callers=["programmatic", "direct"])
    hosted = {"type": "mcp", "server_label": "x", "server_url": "https://x.test", "allowed_callers": ["programmatic"]}
    with FakeOpenAI([answers]) as server:
        await run(server, registry, extra_tools=[hosted])
    assert [tool["type"] for tool in server.requests[0]["tools"]] == [
        "programmatic_tool_calling",
        "tool_search",
        "mcp",
        "function",
        "function",
    ]
    assert tool_of(server, "find")["strict"] is True
    assert tool_of(server, "hidden")["defer_loading"] is True


@pytest.mark.parametrize(
    ("choice", "after"),
    [
        ({"type": "programmatic_tool_calling"}, "auto"),
        ("required", "auto"),
        ({"type": "function", "name": "stock"}, "auto"),
        ("auto", "auto"),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "stock"}]},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "stock"}]},
        ),
    ],
)
async def test_a_forced_choice_is_for_the_first_request(depot: Depot, choice: Any, after: Any) -> None:
    def says() -> Says:
        yield Turn([program("p", "..."), call("stock", {"sku": "a"}, "p")])
        yield Turn([output("p", "1"), message("Done.")])

    with FakeOpenAI([says]) as server:
        await run(server, depot.registry, tool_choice=choice)
    assert [request["tool_choice"] for request in server.requests] == [choice, after]


async def test_a_forced_choice_in_a_chat_is_for_the_first_request(sandbox: CodeSandbox, depot: Depot) -> None:
    def says() -> Says:
        yield Turn([said(None, ("1", "ask", {"question": "?"}))])
        yield Turn([said("Done.")])

    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "ask"}}]}
    with FakeOpenAI([says, says]) as server:
        await chat(server, depot.registry, sandbox=sandbox, tool_choice="required")
        await chat(
            server,
            depot.registry,
            sandbox=sandbox,
            tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
        )
    assert [request["tool_choice"] for request in server.requests] == [
        "required",
        "auto",
        {"type": "allowed_tools", "allowed_tools": allowed},
        {"type": "allowed_tools", "allowed_tools": {**allowed, "mode": "auto"}},
    ]


def no_tools() -> ToolRegistry:
    return create_registry()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"previous_response_id": "resp_1"}, "needs store=True"),
        ({"background": True}, "set by the loop"),
        ({"temprature": 1}, "takes no temprature"),
        ({"messages": []}, "at least one"),
        ({"messages": None}, "a text or a list of messages, not NoneType"),
        ({"max_requests": 0}, "max_requests must be a positive number"),
        ({"ledger": []}, "ledger must be a Ledger"),
        ({"tools": no_tools()}, "no tool that a provider's model may call"),
    ],
)
async def test_what_makes_no_sense_is_refused(depot: Depot, given: dict[str, Any], said: str) -> None:
    given = dict(given)
    tools, messages = given.pop("tools", depot.registry), given.pop("messages", "Go.")
    with FakeOpenAI([]) as server:
        with pytest.raises(ConfigurationError, match=said):
            await run(server, tools, messages, **given)
        assert server.requests == []


async def test_an_asynchronous_client_is_refused_by_the_sync_face(depot: Depot) -> None:
    async with openai.AsyncOpenAI(api_key="k") as sdk:
        for function in (run_openai_sync, stream_openai_sync, run_chat_sync, stream_chat_sync):
            with pytest.raises(ConfigurationError, match="or give OpenAI"):
                function(sdk, depot.registry, "Go.", model=MODEL)


def test_the_tools_alone() -> None:
    registry = create_registry()
    registry.add(lambda: 1, name="one", allowed_callers=["direct"])
    (form,) = openai_tools(registry)
    assert (form["name"], form["allowed_callers"]) == ("one", ["direct"])


# Who may call what; results as text


async def test_callers_are_enforced_and_errors_are_text(depot: Depot) -> None:
    depot.registry.add(lambda: "x" * 5_000_000, name="big")
    depot.registry.add(lambda: "plain", name="plain")
    depot.registry.add(lambda: 1, name="only", allowed_callers=["programmatic"])

    def says() -> Says:
        results = yield Turn(
            [
                program("p", "..."),
                call("ask", {"question": "by code"}, "p"),
                call("wipe", {}, "p"),
                call("only", {}),
                call("stock", {"sku": "none"}, "p"),
                call("stock", '{"sku": ', "p"),
                call("stock", "[1]", "p"),
                call("stock", {"suk": "a"}, "p"),
                call("big", {}, "p"),
                call("plain", {}, "p"),
            ]
        )
        assert "not open to programmatic calls" in results[0]
        assert "no tool named 'wipe'" in results[1]
        assert "not open to direct calls" in results[2]
        assert results[3] == "Error: LookupError: no such sku"
        assert results[4].startswith("Error: InvalidArguments: the arguments are no JSON")
        assert results[5] == "Error: InvalidArguments: the arguments must be a JSON object, not list"
        assert "did you mean 'sku'?" in results[6]
        assert results[7].startswith("Error: ResultTooLarge")
        assert results[8] == "plain"
        yield Turn([output("p", "-"), message("I see.")])

    with FakeOpenAI([says]) as server:
        result = await run(server, depot.registry)
        assert server.done
    assert depot.ran == ["stock none"]
    assert [one.status for one in result.calls] == ["error"] * 8 + ["ok"]


# Nothing is done twice


async def test_a_dropped_connection_repeats_no_call(depot: Depot) -> None:
    def says() -> Says:
        yield Turn([program("p", "..."), call("order", {"sku": "a"}, "p")])
        yield Turn([output("p", "1"), message("Done.")])

    with FakeOpenAI([says], accidents={0: "drop", 2: "drop"}) as server:
        assert (await run(server, depot.registry, max_retries=2)).text == "Done."
    assert depot.ran == ["order a 1"]
    assert len(server.requests) == 4


@pytest.mark.parametrize("cut", [0, 1, 4, "end 0", "end 2"])
async def test_a_stream_that_breaks_off_is_asked_for_again(depot: Depot, cut: str | int) -> None:
    def says() -> Says:
        yield Turn([program("p", "..."), call("order", {"sku": "a"}, "p")])
        yield Turn([output("p", "1"), message("Done.")])

    with FakeOpenAI([says], accidents={0: cut, 2: cut}) as server:
        async with aclient(server) as sdk:
            events = [event async for event in stream_openai(sdk, depot.registry, "Go.", model=MODEL)]
        assert server.done
    assert depot.ran == ["order a 1"]
    assert sum(isinstance(event, Restarted) for event in events) == 2
    assert events[-1].text == "Done."


@pytest.mark.parametrize("store", [False, True])
async def test_a_run_that_broke_off_goes_on(depot: Depot, store: bool) -> None:
    def says() -> Says:
        yield Turn([program("p", "..."), call("order", {"sku": "a"}, "p")])
        yield Turn([output("p", "1"), message("Done.")])

    with FakeOpenAI([says], accidents={1: "drop"}) as server:
        with pytest.raises(ModelRunError, match="request 2 failed") as caught:
            await run(server, depot.registry, store=store)
        broken = caught.value.run
        saved = Ledger.from_json(broken.ledger.to_json())
        result = await run(server, depot.registry, broken.messages[:-1], ledger=saved, store=store)
        assert server.done
    assert result.text == "Done."
    assert depot.ran == ["order a 1"]


async def test_a_program_that_did_not_end_repeats_nothing_that_acts(depot: Depot) -> None:
    def says() -> Says:
        yield Turn([program("p", "..."), call("order", {"sku": "a"}, "p"), call("stock", {"sku": "a"}, "p")])
        yield Turn([output("p", "", "incomplete"), program("q", "..."), call("order", {"count": 1, "sku": "a"}, "q")])
        yield Turn([call("order", {"sku": "a"}, "q"), call("stock", {"sku": "a"}, "q")])
        yield Turn([output("q", "1"), message("Done.")])

    with FakeOpenAI([says]) as server:
        result = await run(server, depot.registry)
        assert server.done
    # The one with count=1 spelled out is another call for a digest; the same one is not made again.
    assert depot.ran == ["order a 1", "stock a", "order a 1", "stock a"]
    assert [one.same_as for one in result.calls] == [None, None, None, "call_1", None]


async def test_a_call_past_the_deadline_goes_on_and_is_joined(depot: Depot) -> None:
    def says() -> Says:
        (first,) = yield Turn([program("p", "..."), call("slow", {"key": "a"}, "p")])
        assert first.startswith("Error: StillRunning")
        depot.open_gate()
        (second,) = yield Turn([call("slow", {"key": "a"}, "p")])
        assert second == '"A"'
        yield Turn([output("p", "1"), message("Done.")])

    with FakeOpenAI([says]) as server:
        await run(server, depot.registry, call_deadline=0.3)
        assert server.done
    assert depot.ran == ["slow a"]


async def test_calls_that_pause_end_the_run_and_it_goes_on_later(depot: Depot) -> None:
    async def approve(what: str) -> str:
        """Wait for a human."""
        if depot.paused:
            raise CallPaused({"asks": what})
        return "approved"

    depot.registry.add(approve, allowed_callers=["direct"])

    def says() -> Says:
        assert (yield Turn([call("approve", {"what": "x"}), call("order", {"sku": "a"})])) == ["approved", "ordered a"]
        yield Turn([message("Done.")])

    with FakeOpenAI([says]) as server:
        first = await run(server, depot.registry)
        assert (first.stop_reason, len(first.pending)) == ("paused", 1)
        depot.paused = False
        second = await run(server, depot.registry, first.messages, ledger=first.ledger)
        assert server.done
    assert second.text == "Done."
    assert depot.ran == ["order a 1"]


# Ends


async def test_too_many_requests_end_a_run_that_can_go_on(depot: Depot) -> None:
    def says() -> Says:
        for number in range(9):
            yield Turn([program(f"p{number}", "..."), output(f"p{number}", "1")])

    with FakeOpenAI([says]) as server, pytest.raises(ModelRunError, match="after 3 requests"):
        await run(server, depot.registry, max_requests=3)
    assert len(server.requests) == 3


async def test_other_ends_are_told(depot: Depot) -> None:
    def short() -> Says:
        cut = call("order", '{"sku": "a', status="incomplete")
        yield Turn([message("I am"), cut], status="incomplete", reason="max_output_tokens")

    def broken() -> Says:
        yield Turn([], status="failed")

    def asks() -> Says:
        ask = {"type": "mcp_approval_request", "arguments": "{}", "name": "pay", "server_label": "x"}
        yield Turn([program("p", "..."), ask])

    def patches() -> Says:
        yield Turn([{"type": "custom_tool_call", "call_id": "c1", "name": "grammar", "input": "x"}])

    with FakeOpenAI([short, broken, broken, asks, patches]) as server:
        result = await run(server, depot.registry)
        assert (result.text, result.stop_reason, depot.ran) == ("I am", "max_output_tokens", [])
        with pytest.raises(ModelRunError, match="server_error: It broke"):
            await run(server, depot.registry, "Again.")
        async with aclient(server) as sdk:
            with pytest.raises(ModelRunError, match="server_error: It broke"):
                _ = [event async for event in stream_openai(sdk, depot.registry, "And again.", model=MODEL)]
        assert (await run(server, depot.registry, "Approve.")).stop_reason == "mcp_approval_request"
        assert (await run(server, depot.registry, "Patch.")).stop_reason == "custom_tool_call"


async def test_messages_may_hold_the_sdks_objects(depot: Depot) -> None:
    def says() -> Says:
        yield Turn([program("p", "..."), call("order", {"sku": "a"}, "p")])
        yield Turn([output("p", "1"), message("Done.")])

    with FakeOpenAI([says]) as server, client(server, max_retries=0) as sdk:
        form: Any = openai_tools(depot.registry)
        first = sdk.responses.create(model=MODEL, input="Go.", tools=form, store=False)
        result = await run(server, depot.registry, [{"role": "user", "content": "Go."}, *first.output])
        assert server.done
    assert result.text == "Done."
    assert depot.ran == ["order a 1"]
    json.dumps(result.messages)


async def test_an_error_of_the_api_keeps_what_happened(depot: Depot) -> None:
    with FakeOpenAI([]) as server, pytest.raises(ModelRunError, match="not found") as caught:
        await run(server, depot.registry, store=True, previous_response_id="resp_9")
    assert isinstance(caught.value.__cause__, openai.BadRequestError)


# Chat Completions, with programs in our sandbox

PROGRAM = """\
import asyncio
found = await asyncio.gather(stock(sku="a"), stock(sku="bb"))
await order(sku="a", count=sum(one.count for one in found))
return [one.count for one in found]
"""


def chat_story() -> Says:
    results = yield Turn(
        [said("Let me see. ", ("c1", "run_code", {"code": PROGRAM}), ("c2", "ask", {"question": "?"}))]
    )
    assert results == ["[1, 2]", "yes"]
    (result,) = yield Turn([said(None, ("c1", "run_code", {"code": "return stock(sku='none')"}))])  # an id used twice
    assert "The program failed. LookupError (line 1): no such sku" in result
    yield Turn([said("Three.")])


@pytest.mark.parametrize("form", CHAT)
async def test_the_whole_chat_loop(depot: Depot, sandbox: CodeSandbox, form: str) -> None:
    with FakeOpenAI([chat_story]) as server:
        result = await CHAT[form](server, depot.registry, "How many?", sandbox=sandbox, temperature=0.1)
        assert server.done
        assert server.loopback.refusals == []
    assert result.text == "Three."
    direct = [one.tool for one in result.calls if one.caller == "direct"]
    assert direct == ["default.run_code", "default.ask", "default.run_code"]
    inner = [(one.tool, one.program, one.status) for one in result.calls if one.caller == "sandbox"]
    assert inner == [
        ("default.stock", "1/c1", "ok"),
        ("default.stock", "1/c1", "ok"),
        ("default.order", "1/c1", "ok"),
        ("default.stock", "4/c1", "error"),
    ]
    assert [(one.id, one.code, one.ok) for one in result.programs] == [
        ("1/c1", PROGRAM, True),
        ("4/c1", "return stock(sku='none')", False),
    ]
    assert result.programs[0].result is not None
    assert result.programs[0].result.value == [1, 2]
    assert (result.requests, result.stop_reason) == (3, "stop")
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.cache_read_tokens) == (120, 30, 12)
    assert [one["role"] for one in result.messages] == [
        "user",
        "assistant",
        *["tool"] * 2,
        "assistant",
        "tool",
        "assistant",
    ]
    names = [tool["function"]["name"] for tool in server.requests[0]["tools"]]
    assert names == ["run_code", "ask"]
    described = server.requests[0]["tools"][0]["function"]["description"]
    assert "async def stock(sku: str) -> Stock" in described
    assert "def wipe() -> str" in described
    assert "def ask" not in described


async def test_a_sandbox_is_made_for_one_run(depot: Depot) -> None:
    def says() -> Says:
        assert (yield Turn([said(None, ("c1", "run_code", {"code": "return wipe()"}))])) == ["gone"]
        yield Turn([said("Done.")])

    with FakeOpenAI([says]) as server:
        assert (await chat(server, depot.registry)).text == "Done."
        assert server.done


async def test_a_registry_that_is_open_to_one_side_only(sandbox: CodeSandbox) -> None:
    def says() -> Says:
        yield Turn([said("Hello.")])

    registry = create_registry()
    registry.add(lambda: 1, name="one", allowed_callers=["direct"], defer_loading=True)
    with FakeOpenAI([says, says]) as server:
        await chat(server, registry)
        await chat(server, [lambda_tool], sandbox=sandbox)
        with pytest.raises(ConfigurationError, match="no tool that the model may call"):
            await chat(server, create_registry())
    names = [[tool["function"]["name"] for tool in request["tools"]] for request in server.requests]
    assert names == [["one"], ["run_code"]]


def lambda_tool(x: int) -> int:
    """Add one."""
    return x + 1


async def test_a_chat_that_broke_off_repeats_no_program(depot: Depot, sandbox: CodeSandbox) -> None:
    def says() -> Says:
        yield Turn(
            [said(None, ("c1", "run_code", {"code": "return order(sku='a')"}), ("c2", "ask", {"question": "?"}))]
        )
        yield Turn([said("Done.")])

    with FakeOpenAI([says], accidents={1: "drop"}) as server:
        with pytest.raises(ModelRunError) as caught:
            await chat(server, depot.registry, sandbox=sandbox)
        broken = caught.value.run
        result = await chat(server, depot.registry, broken.messages[:-1], sandbox=sandbox, ledger=broken.ledger)
        assert server.done
    assert result.text == "Done."
    assert sorted(depot.ran) == ["ask ?", "order a 1"]


@pytest.mark.parametrize("cut", [0, 2, 9, "end 0", "end 5"])
async def test_a_chat_stream_that_breaks_off_is_asked_for_again(
    depot: Depot, sandbox: CodeSandbox, cut: str | int
) -> None:
    def says() -> Says:
        yield Turn([said("I run it.", ("c1", "run_code", {"code": "return order(sku='a')"}))])
        yield Turn([said("Done with it.")])

    with FakeOpenAI([says], accidents={0: cut, 2: cut}) as server:
        async with aclient(server) as sdk:
            stream = stream_chat(sdk, depot.registry, "Go.", model=MODEL, sandbox=sandbox)
            events = [event async for event in stream]
        assert server.done
    assert depot.ran == ["order a 1"]
    assert sum(isinstance(event, Restarted) for event in events) == 2
    assert events[-1].text == "Done with it."


async def test_chat_ends_and_bad_calls(depot: Depot, sandbox: CodeSandbox) -> None:
    def says() -> Says:
        results = yield Turn(
            [said(None, ("1", "run_code", '{"code": '), ("2", "stock", {"sku": "a"}), ("3", "run_code", {"kode": "1"}))]
        )
        assert results[0].startswith("Error: InvalidArguments: the arguments are no JSON")
        assert results[1].startswith("Error: ToolNotAvailable: no tool named 'stock'; there are run_code, ask")
        assert "did you mean 'code'?" in results[2]
        yield Turn([said("cut", ("4", "run_code", '{"code": "return ord'))], reason="length")

    with FakeOpenAI([says]) as server:
        result = await chat(server, depot.registry, sandbox=sandbox)
        assert server.done
    assert (result.text, result.stop_reason, depot.ran) == ("cut", "length", [])
    with FakeOpenAI([]) as server:
        for given, told in (({"functions": []}, "set by the loop"), ({"temprature": 1}, "takes no temprature")):
            with pytest.raises(ConfigurationError, match=told):
                await chat(server, depot.registry, **given)
        with pytest.raises(ConfigurationError, match="at least one"):
            await chat(server, depot.registry, [], sandbox=sandbox)


# The server itself: each rule, broken with the bare SDK

FUNCTION: dict[str, Any] = {
    "type": "function",
    "name": "order",
    "parameters": {"type": "object", "properties": {"sku": {"type": "string"}}},
    "strict": False,
    "allowed_callers": ["programmatic"],
}
PROGRAMS = {"type": "programmatic_tool_calling"}
RULES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"tools": [PROGRAMS, {**FUNCTION, "examples": []}]}, "Extra inputs are not permitted"),
    "a required field": ({"tools": [PROGRAMS, {"type": "function", "name": "x", "strict": True}]}, "Field required"),
    "strict left out": ({"tools": [{k: v for k, v in FUNCTION.items() if k != "strict"}]}, "strict: Field required"),
    "a caller that is none": ({"tools": [PROGRAMS, {**FUNCTION, "allowed_callers": ["sandbox"]}]}, "Input should be"),
    "no programs": ({"tools": [FUNCTION]}, "requires the programmatic_tool_calling tool"),
    "no search": ({"tools": [PROGRAMS, {**FUNCTION, "defer_loading": True}]}, "requires the tool_search tool"),
    "a name twice": ({"tools": [PROGRAMS, FUNCTION, FUNCTION]}, "Duplicate function name"),
    "a strict schema that is open": ({"tools": [PROGRAMS, {**FUNCTION, "strict": True}]}, "'additionalProperties' is"),
    "a choice of no tool": ({"tool_choice": {"type": "programmatic_tool_calling"}}, "not found in 'tools' parameter"),
    "an unknown response": ({"previous_response_id": "resp_7"}, "Previous response with id 'resp_7' not found"),
    "an output of nothing": (
        {"input": [{"type": "function_call_output", "call_id": "c9", "output": "1"}]},
        "No tool call found for function call output with call_id c9.",
    ),
    "a call without its program": (
        {
            "input": [
                {**call("order", {}, "p"), "call_id": "c1"},
                {
                    "type": "function_call_output",
                    "call_id": "c1",
                    "output": "1",
                    "caller": {"type": "program", "caller_id": "p"},
                },
            ]
        },
        "No program found for function call c1 with caller_id p.",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_server_refuses(rule: str) -> None:
    broken, told = RULES[rule]
    request: dict[str, Any] = {"model": MODEL, "input": "Go.", **broken}
    with FakeOpenAI([]) as server, client(server, max_retries=0) as sdk:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError, match=told) as caught:
                sdk.responses.create(**request, stream=stream)
            assert caught.value.type == "invalid_request_error"


def _out(item: Any, **given: Any) -> dict[str, Any]:
    caller = item.caller.to_dict()
    return {"type": "function_call_output", "call_id": item.call_id, "output": "1", "caller": caller, **given}


CONTINUATIONS: dict[str, tuple[Callable[[list[dict[str, Any]]], Any], str]] = {
    "with an output missing": (lambda items: items.pop(), "No tool output found for function call call_2."),
    "without the caller": (lambda items: items[-1].pop("caller"), "caller of the output with call_id call_2"),
    "with another caller": (
        lambda items: items[-1].update(caller={"type": "direct"}),
        "caller of the output with call_id call_2 does not match",
    ),
    "with another fingerprint": (lambda items: items[2].update(fingerprint="x"), "The fingerprint of program p"),
    "without the program": (lambda items: items.pop(2), "No program found for function call call_1 with caller_id p"),
    "with other code": (lambda items: items[2].update(code="2"), "was changed"),
    "without the encrypted reasoning": (lambda items: items[1].pop("encrypted_content"), "`store` is set to false"),
}


@pytest.mark.parametrize("fault", CONTINUATIONS)
def test_the_server_refuses_a_continuation(fault: str) -> None:
    change, told = CONTINUATIONS[fault]

    def says() -> Says:
        yield Turn(
            [reasoning("x"), program("p", "1"), call("order", {"sku": "a"}, "p"), call("order", {"sku": "b"}, "p")]
        )
        yield Turn([output("p", "1"), message("Done.")])

    request: dict[str, Any] = {
        "model": MODEL,
        "store": False,
        "tools": [PROGRAMS, FUNCTION],
        "include": ["reasoning.encrypted_content"],
    }
    with FakeOpenAI([says]) as server, client(server, max_retries=0) as sdk:
        first = sdk.responses.create(**request, input="Go.")
        items: Any = [{"role": "user", "content": "Go."}, *(item.to_dict() for item in first.output)]
        items += [_out(item) for item in first.output if item.type == "function_call"]
        broken: Any = json.loads(json.dumps(items))
        change(broken)
        with pytest.raises(openai.BadRequestError, match=told):
            sdk.responses.create(**request, input=broken)
        assert sdk.responses.create(**request, input=items).output_text == "Done."


def test_what_is_not_stored_is_not_found() -> None:
    with FakeOpenAI([answers]) as server, client(server, max_retries=0) as sdk:
        first = sdk.responses.create(model=MODEL, input="Go.", store=False)
        with pytest.raises(openai.BadRequestError, match="not found") as caught:
            sdk.responses.create(model=MODEL, input="On.", previous_response_id=first.id)
        assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


CHAT_FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
CALLS = said(None, ("c1", "f", {}), ("c2", "f", {}))
CHAT_RULES: dict[str, tuple[dict[str, Any], str]] = {
    "callers": (
        {"tools": [{"type": "function", "function": {**CHAT_FUNCTION, "allowed_callers": ["programmatic"]}}]},
        "allowed_callers: Extra inputs are not permitted",
    ),
    "programs": ({"tools": [{"type": "programmatic_tool_calling"}]}, "tools.0"),
    "a strict schema that is open": (
        {"tools": [{"type": "function", "function": {**CHAT_FUNCTION, "strict": True}}]},
        "'additionalProperties' is required",
    ),
    "a result missing": (
        {"messages": [CALLS, {"role": "tool", "tool_call_id": "c1", "content": "1"}]},
        "did not have response messages: c2",
    ),
    "a result of nothing": (
        {"messages": [{"role": "tool", "tool_call_id": "c9", "content": "1"}]},
        "must be a response to a preceeding message with 'tool_calls'",
    ),
    "a message without role": ({"messages": [{"content": "x"}]}, "messages.0"),
}


@pytest.mark.parametrize("rule", CHAT_RULES)
def test_the_chat_server_refuses(rule: str) -> None:
    broken, told = CHAT_RULES[rule]
    request: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Go."}], **broken}
    with FakeOpenAI([]) as server, client(server, max_retries=0) as sdk:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError, match=told):
                sdk.chat.completions.create(**request, stream=stream)


async def typed_face(sdk: openai.AsyncOpenAI, registry: ToolRegistry) -> AsyncIterator[None]:
    """Never run: mypy checks it."""
    assert_type(await run_openai(sdk, registry, "Go.", model=MODEL), ModelRun)
    assert_type(await run_chat(sdk, registry, "Go.", model=MODEL), ModelRun)
    yield
