"""Which way a task goes: by model, tools and what the user allows; always with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from toolchord import choose, create_registry
from toolchord.choice import PLAIN_TOOLS, native_at
from toolchord.errors import ConfigurationError


def registry(*callers: list[str] | None) -> Any:
    made = create_registry()
    for number, allowed in enumerate(callers):
        made.add(lambda: 1, f"tool_{number}", allowed_callers=allowed)
    return made


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("claude-opus-4-6", "anthropic"),
        ("claude-opus-4-5-20251101", "anthropic"),
        ("claude-sonnet-4.5", "anthropic"),
        ("claude-opus-5", "anthropic"),
        ("claude-fable-5-1", "anthropic"),
        ("anthropic/claude-sonnet-5", "anthropic"),
        ("claude-haiku-5-5", "anthropic"),
        ("claude-haiku-4-5", None),
        ("claude-haiku-4-5-20251001", None),
        ("claude-opus-4-1-20250805", None),
        ("claude-sonnet-4-20250514", None),
        ("claude-3-7-sonnet-latest", None),
        ("us.anthropic.claude-opus-4-6-v1:0", None),
        ("bedrock/claude-opus-4-6", None),
        ("gpt-5.6", "openai"),
        ("gpt-5.6-mini", "openai"),
        ("gpt-6-astra", "openai"),
        ("openai/gpt-5.7", "openai"),
        ("gpt-5.5", None),
        ("gpt-5", None),
        ("gpt-4o", None),
        ("gemini-3-pro", None),
        ("qwen2.5-coder:7b", None),
        ("", None),
    ],
)
def test_models_that_run_programs_at_their_provider(model: str, provider: str | None) -> None:
    assert native_at(model) == provider


def test_programs_run_at_the_provider_where_that_is_possible() -> None:
    choice = choose(registry(None, None), model="claude-opus-4-6", native=True)
    assert (choice.way, choice.provider, choice.plain_tools) == ("native", "anthropic", ())
    assert choice.reason == "claude-opus-4-6 runs programs that call tools at its provider"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model": "claude-opus-4-6"}, "nothing was given that runs anthropic's own loop"),
        ({"model": "claude-haiku-4-5", "native": True}, "claude-haiku-4-5 is not known to run programs"),
        ({"native": True}, "the model is not known to run programs"),
        ({"model": "gpt-5.6", "native": True, "local_only": True}, "results must not leave this host"),
    ],
)
def test_programs_run_here_elsewhere_and_it_says_why(options: dict[str, Any], why: str) -> None:
    choice = choose(registry(None, None), **options)
    assert choice.way == "sandbox"
    assert why in choice.reason


def test_a_tool_that_a_provider_cannot_call_keeps_programs_here() -> None:
    local = choose(registry(["sandbox"], None), model="gpt-5.6", native=True)
    assert (local.way, "tool_0 is open to the local sandbox only" in local.reason) == ("sandbox", True)
    tree = {
        "type": "object",
        "properties": {"node": {"$ref": "#/$defs/Node"}},
        "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
    }
    made = create_registry()
    made.add(lambda **given: given, "walk", argument_schema=tree)
    assert "recursive schema" in choose(made, model="claude-opus-5", native=True).reason
    assert choose(made, model="gpt-5.6", native=True).way == "native"


def test_one_call_is_made_plainly() -> None:
    choice = choose(registry(None, None), model="gpt-5.6", native=True, expected_calls=1)
    assert (choice.way, choice.plain_tools) == ("plain", ("tool_0", "tool_1"))
    assert choice.reason == "one call is cheaper without a program"
    assert choose(registry(None), expected_calls=1, calls_tools=False).way == "sandbox"
    assert choose(registry(None), expected_calls=1, local_only=True).way == "sandbox"
    assert choose(registry(None), expected_calls=2).way == "sandbox"


def test_few_tools_are_offered_for_plain_calls_beside_programs() -> None:
    few = choose(registry(*[None] * PLAIN_TOOLS))
    assert len(few.plain_tools) == PLAIN_TOOLS
    assert "a single call of one of the 8 tools is made plainly" in few.reason
    many = choose(registry(*[None] * PLAIN_TOOLS, None))
    assert many.plain_tools == ()
    mixed = choose(registry(*[None] * PLAIN_TOOLS, ["direct"]))
    assert mixed.plain_tools == (f"tool_{PLAIN_TOOLS}",)  # a program can't call it
    assert choose(registry(None), local_only=True).plain_tools == ()


def test_what_only_one_way_can_do_goes_that_way() -> None:
    assert choose(registry(["direct"])).way == "plain"
    assert choose(registry(["direct"])).reason == "plain calls, since no tool is open to programs"
    assert choose(registry(["sandbox"]), calls_tools=False).way == "sandbox"
    with pytest.raises(
        ConfigurationError, match=r"no way is possible: .*no tool is open to programs.*does not take tools"
    ):
        choose(registry(["direct"]), calls_tools=False)


def test_the_choice_can_be_made_by_hand() -> None:
    assert choose(registry(None), model="gpt-5.6", native=True, way="sandbox").reason == "it was asked for"
    assert choose(registry(None), way="sandbox").plain_tools == ()
    assert choose(registry(None), way="plain").plain_tools == ("tool_0",)
    assert choose(registry(None), model="gpt-6", native=True, way="native").provider == "openai"
    with pytest.raises(ConfigurationError, match="way='native' is not possible: nothing was given"):
        choose(registry(None), model="gpt-6", way="native")
    with pytest.raises(ConfigurationError, match='must be "native", "sandbox" or "plain"'):
        choose(registry(None), way="fast")  # type: ignore[arg-type]
