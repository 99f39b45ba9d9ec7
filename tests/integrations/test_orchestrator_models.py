# ruff: noqa: E501  (a program is kept on one line)
"""The orchestrator with models of two providers, through their real SDKs, over loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from pydantic import SecretStr

from tests.integrations.loopback import Provider, served
from toolchord import CodeSandbox, OrchestratedRun, Orchestrator, TokenUsage
from toolchord.errors import ConfigurationError
from toolchord_langchain import chat_model as langchain_model
from toolchord_openai import chat_model as openai_model

DONE: list[Any] = []


async def list_orders(status: str = "paid") -> list[dict[str, Any]]:
    """All orders."""
    DONE.append("list_orders")
    return [{"id": 1, "customer": "ann", "amount": 120.5}, {"id": 2, "customer": "bob", "amount": 80.0}]


async def refund(order_id: int) -> str:
    """Give the money back."""
    DONE.append(("refund", order_id))
    return f"refunded {order_id}"


BAD = "orders = await list_orders()\nx = await refund(order_id=orders[0]['id'])\nreturn sum(o['amont'] for o in orders), x"
GOOD = BAD.replace("amont", "amount")


@pytest_asyncio.fixture
async def sandbox() -> AsyncIterator[CodeSandbox]:
    DONE.clear()
    async with CodeSandbox(tools=[list_orders, refund]) as sandbox:
        yield sandbox


def anthropic(provider: Provider, **options: Any) -> ChatAnthropic:
    return ChatAnthropic(
        model_name="claude-haiku-4-5",
        base_url=provider.url,
        api_key=SecretStr("none"),
        max_retries=0,
        timeout=30,
        stop=None,
        **options,
    )


def kept_only_growing(provider: Provider) -> None:
    """Each request is the last one with something added: what a provider's cache needs."""
    for earlier, later in zip(provider.requests, provider.requests[1:], strict=False):
        count = len(earlier["messages"])
        assert json.dumps(later["messages"][:count]) == json.dumps(earlier["messages"])
        assert json.dumps(later.get("tools")) == json.dumps(earlier.get("tools"))
        assert later.get("system") == earlier.get("system")


def right(run: OrchestratedRun) -> None:
    assert run.stop == "answered"
    assert (run.text, run.value) == ("It is 200.5 euros.", (200.5, "refunded 1"))
    assert DONE == ["list_orders", ("refund", 1)]
    assert [attempt.result.ok for attempt in run.attempts] == [False, True]


SCRIPT = ({"text": "I look.", "code": BAD}, {"code": GOOD}, {"text": "It is 200.5 euros."})
FENCED = (
    {"text": f"```python\n{BAD}\n```"},
    {"text": f"Sorry.\n```python\n{GOOD}\n```"},
    {"text": "It is 200.5 euros."},
)


@pytest.mark.parametrize("kind", ["async", "blocking"])
async def test_chat_completions_with_tools(sandbox: CodeSandbox, kind: str) -> None:
    with served(*SCRIPT) as provider:
        made = openai.AsyncOpenAI if kind == "async" else openai.OpenAI
        client: Any = made(base_url=f"{provider.url}/v1", api_key="none", max_retries=0)
        model = openai_model(client, "local", temperature=0)
        run = await Orchestrator(model, sandbox).run("Refund the first, sum up.")
        await client.close() if kind == "async" else client.close()
    right(run)
    assert run.usage == TokenUsage(600, 30, 150)
    assert provider.requests[0]["temperature"] == 0
    assert provider.requests[1]["messages"][-2]["content"] == "I look."
    kept_only_growing(provider)


async def test_chat_completions_of_a_server_that_takes_no_tools(sandbox: CodeSandbox) -> None:
    with served(*FENCED) as provider:
        async with openai.AsyncOpenAI(base_url=provider.url, api_key="none", max_retries=0) as client:
            run = await Orchestrator(openai_model(client, "local", tools=False), sandbox).run("Refund, sum up.")
    right(run)
    assert all("tools" not in request for request in provider.requests)
    kept_only_growing(provider)


async def test_arguments_that_are_no_json_still_hold_the_program(sandbox: CodeSandbox) -> None:
    broken = '{"code": "orders = await list_orders()\nreturn len(orders)"'
    with served({"calls": [("run_code", broken)]}, {"text": "Two."}) as provider:
        async with openai.AsyncOpenAI(base_url=provider.url, api_key="none", max_retries=0) as client:
            run = await Orchestrator(openai_model(client, "local"), sandbox).run("How many?")
    assert (run.text, run.value) == ("Two.", 2)


async def test_messages_through_langchain_with_tools(sandbox: CodeSandbox) -> None:
    script = ({"thought": "Let me see.", **SCRIPT[0]}, *SCRIPT[1:])
    with served(*script) as provider:
        run = await Orchestrator(langchain_model(anthropic(provider)), sandbox, system="Be brief.").run("Refund.")
    right(run)
    assert run.usage == TokenUsage(60 + 120 + 180 + 3 * 40, 30, 120)
    first = provider.requests[0]
    assert str(first["system"]).startswith("Be brief.")
    assert [tool["name"] for tool in first["tools"]] == ["run_code", "list_orders", "refund"]
    blocks = provider.requests[1]["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]  # the thought goes back, as signed
    kept_only_growing(provider)
    json.dumps(run.messages)  # plain data, to be kept


async def test_messages_through_langchain_with_two_programs_and_a_plain_call(sandbox: CodeSandbox) -> None:
    both = {"codes": ["return 1", "return 2"], "calls": [("list_orders", {"status": "paid"})]}
    with served(both, {"text": "Three things."}) as provider:
        run = await Orchestrator(langchain_model(anthropic(provider)), sandbox).run("Do three things.")
    assert (run.text, [attempt.result.value for attempt in run.attempts]) == ("Three things.", [1, 2])
    assert [call.tool for call in run.plain_calls] == ["default.list_orders"]
    results = provider.requests[1]["messages"][2]["content"]
    assert [block["type"] for block in results] == ["tool_result"] * 3


async def test_messages_through_langchain_without_tools(sandbox: CodeSandbox) -> None:
    with served(*FENCED) as provider:
        run = await Orchestrator(langchain_model(anthropic(provider), tools=False), sandbox).run("Refund.")
    right(run)
    assert all(not request.get("tools") for request in provider.requests)
    kept_only_growing(provider)


async def test_a_kept_conversation_goes_on_with_the_same_model(sandbox: CodeSandbox) -> None:
    with served(*SCRIPT, {"text": "Ann."}) as provider:
        orchestrator = Orchestrator(langchain_model(anthropic(provider)), sandbox)
        first = await orchestrator.run("Refund.")
        kept = json.loads(json.dumps(first.messages))
        second = await orchestrator.run([*kept, {"role": "user", "content": "To whom?"}])
    assert second.text == "Ann."
    kept_only_growing(provider)


async def test_the_choice_knows_the_models_name(sandbox: CodeSandbox) -> None:
    with served() as provider:
        model = langchain_model(anthropic(provider))
        assert model.name == "claude-haiku-4-5"
        assert "claude-haiku-4-5 is not known to run programs" in Orchestrator(model, sandbox).choice.reason
    native = openai_model(openai.AsyncOpenAI(api_key="none"), "gpt-5.6")
    assert "nothing was given that runs openai's own loop" in Orchestrator(native, sandbox).choice.reason
    with pytest.raises(ConfigurationError, match="way='native' is not possible"):
        Orchestrator(native, sandbox, way="native")


async def test_a_model_without_tools_of_its_own_writes_text(sandbox: CodeSandbox) -> None:
    fake = GenericFakeChatModel(messages=iter([AIMessage(f"```python\n{GOOD}\n```"), AIMessage("It is 200.5 euros.")]))
    run = await Orchestrator(langchain_model(fake), sandbox).run("Refund.")
    assert (run.value, run.text) == ((200.5, "refunded 1"), "It is 200.5 euros.")


async def test_a_providers_refusal_gets_through(sandbox: CodeSandbox) -> None:
    with served() as provider:
        provider.answer = lambda path, body: (400, {"error": {"message": "no such model"}})  # type: ignore[method-assign]
        async with openai.AsyncOpenAI(base_url=provider.url, api_key="none", max_retries=0) as client:
            with pytest.raises(openai.BadRequestError, match="no such model"):
                await Orchestrator(openai_model(client, "x"), sandbox).run("x")


def test_wrong_models_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no chat model of LangChain"):
        langchain_model("claude")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="messages, stream can't be set"):
        openai_model(openai.AsyncOpenAI(api_key="none"), "x", stream=True, messages=[])


async def test_the_server_is_strict() -> None:
    """What it refuses: a check that could not fail would show nothing."""
    provider = Provider({"text": "x"}, {"text": "x"})
    tool = {"role": "tool", "tool_call_id": "a", "content": "x"}
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}
    for path, messages in (
        ("/chat/completions", [tool]),
        ("/chat/completions", [{"role": "user"}]),
        ("/chat/completions", [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]),
        ("/v1/messages", [{"role": "user", "content": "x"}, use]),
        ("/v1/messages", [{"role": "user", "content": "x"}, {"role": "user", "content": "x"}]),
        ("/v1/messages", [{"role": "system", "content": "x"}]),
    ):
        assert provider.answer(path, {"messages": messages, "max_tokens": 1})[0] == 400, messages
    assert provider.answer("/chat/completions", {"messages": [{"role": "user", "content": "x"}]})[0] == 200
    await asyncio.sleep(0)


async def test_programs_run_at_the_provider_where_that_is_the_choice(sandbox: CodeSandbox) -> None:
    """One orchestrator, the same tools: Anthropic's own programs, and OpenAI's."""
    import anthropic as sdk

    from tests.integrations.providers import claude, openai_api
    from toolchord_anthropic import run_anthropic
    from toolchord_openai import run_openai

    tools = sandbox.catalogue()

    def at_anthropic() -> Any:
        yield claude.Turn([claude.program("s", "..."), claude.call("refund", {"order_id": 1}, "s")])
        yield claude.Turn([claude.output("s"), claude.text("Refunded.")])

    def at_openai() -> Any:
        yield openai_api.Turn([openai_api.program("p", "..."), openai_api.call("refund", {"order_id": 2}, "p")])
        yield openai_api.Turn([openai_api.output("p", "x"), openai_api.message("Refunded.")])

    with claude.FakeClaude([at_anthropic]) as server:
        async with sdk.AsyncAnthropic(api_key="k", base_url=server.url) as client:
            first = await Orchestrator(
                Nobody(),
                sandbox,
                model_name="claude-opus-5",
                native=lambda messages: run_anthropic(client, tools, messages, model="claude-opus-5"),
            ).run("Refund it.")
    with openai_api.FakeOpenAI([at_openai]) as api:
        async with openai.AsyncOpenAI(api_key="k", base_url=api.url) as other:
            second = await Orchestrator(
                Nobody(),
                sandbox,
                model_name="gpt-5.6",
                native=lambda messages: run_openai(other, tools, messages, model="gpt-5.6"),
            ).run("Refund it.")
    for run, provider in ((first, "anthropic"), (second, "openai")):
        assert (run.ok, run.text, run.stop) == (True, "Refunded.", "answered")
        assert (run.choice.way, run.choice.provider) == ("native", provider)
        assert "runs programs that call tools at its provider" in run.choice.reason
        assert run.native is not None
        assert [call.tool for call in run.native.calls] == ["default.refund"]
        assert run.turns == 2
    assert DONE == [("refund", 1), ("refund", 2)]


class Nobody:
    """A model that is never asked."""

    async def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        raise AssertionError("the provider's own loop was the choice")
