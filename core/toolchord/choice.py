"""Owns the choice of a way: the provider's own programs, ours in the sandbox, or plain tool calls.

The rules look at the model, the tools and what the user allows; each choice says why. The figures behind the thresholds
are in docs/orchestrator.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from toolchord.catalogue import Catalogue, Exposed, Source
from toolchord.errors import ConfigurationError
from toolchord.schema import recursive_ref
from toolchord.tools import open_to

__all__ = ["Choice", "choose", "native_at"]

Way = Literal["native", "sandbox", "plain"]
Provider = Literal["anthropic", "openai"]

PLAIN_TOOLS = 8
"""Tools at most that are offered for plain calls beside programs: they are described twice, which costs tokens."""

_ANTHROPIC = re.compile(
    r"(?:^|/)claude-(?:(?P<tier>opus|sonnet|haiku|fable|mythos)-)(?P<major>\d+)(?:[.-](?P<minor>\d{1,2}))?(?!\d)"
)
_OPENAI = re.compile(r"(?:^|/)gpt-(?P<major>\d+)(?:\.(?P<minor>\d+))?")


@dataclass(frozen=True)
class Choice:
    """How a model gets its work done.

    Attributes:
        way: ``"native"``: programs run at the model's provider. ``"sandbox"``: they run here. ``"plain"``: no programs.
        reason: why, in one sentence.
        plain_tools: names of tools that the model may also call directly, where a single call is all it takes.
        provider: whose programs, if native.
    """

    way: Way
    reason: str
    plain_tools: tuple[str, ...] = ()
    provider: Provider | None = None


def native_at(model: str) -> Provider | None:
    """Which provider runs programs of this model that call the host's tools; None if none is known to.

    Anthropic: Opus, Sonnet, Fable and Mythos from 4.5 on, Haiku from 5.5 on, not by way of Amazon Bedrock. OpenAI: GPT
    from 5.6 on. Sources: platform.claude.com and developers.openai.com, programmatic tool calling, November 2026.
    """
    name = model.lower()
    if "bedrock" in name or re.search(r"(?:^|[./])(?:[a-z]{2,4}\.)?anthropic\.claude", name):
        return None
    if (found := _ANTHROPIC.search(name)) is not None:
        version = int(found["major"]), int(found["minor"] or 0)
        return "anthropic" if version >= ((5, 5) if found["tier"] == "haiku" else (4, 5)) else None
    if (found := _OPENAI.search(name)) is not None:
        return "openai" if (int(found["major"]), int(found["minor"] or 0)) >= (5, 6) else None
    return None


def choose(
    tools: Source,
    *,
    model: str = "",
    calls_tools: bool = True,
    native: bool = False,
    local_only: bool = False,
    expected_calls: int | None = None,
    way: Way | None = None,
) -> Choice:
    """Choose a way.

    Args:
        tools: what there is to call.
        model: the model's name, such as ``claude-opus-4-6``; empty if it is not known.
        calls_tools: whether it can ask for tool calls; a model that only writes text can't make plain ones.
        native: whether the host can run the provider's own loop.
        local_only: results of tools must not leave this host before a program has worked on them.
        expected_calls: how many calls the task takes, if that is known.
        way: the choice itself, to be checked only.

    Raises:
        ConfigurationError: no way is possible, or not the one that was asked for.
    """
    code, direct = Catalogue.of(tools, caller="sandbox"), Catalogue.of(tools, caller="direct")
    reasons: dict[Way, str | None] = {
        "native": _against_native(code, model, native, local_only),
        "sandbox": None if code.tools else "no tool is open to programs",
        "plain": _against_plain(direct, calls_tools, local_only),
    }
    if way is not None:
        if way not in reasons:
            raise ConfigurationError(f'way must be "native", "sandbox" or "plain", not {way!r}')
        if (reason := reasons[way]) is not None:
            raise ConfigurationError(f"way={way!r} is not possible: {reason}")
        return _made(way, "it was asked for", model, () if way != "plain" else _listed(direct))
    few = _few(code, direct) if reasons["plain"] is None else ()
    if reasons["plain"] is None and expected_calls is not None and expected_calls <= 1:
        return _made("plain", "one call is cheaper without a program", model, _listed(direct))
    if reasons["native"] is None:
        return _made("native", f"{model} runs programs that call tools at its provider", model)
    if reasons["sandbox"] is None:
        why = f"programs run here, since {reasons['native']}"
        if few:
            why += f"; a single call of {'the' if len(few) == 1 else 'one of the'} {len(few)} tools is made plainly"
        return _made("sandbox", why, model, few)
    if reasons["plain"] is None:
        return _made("plain", f"plain calls, since {reasons['sandbox']}", model, _listed(direct))
    raise ConfigurationError("no way is possible: " + "; ".join(f"{one}: {why}" for one, why in reasons.items()))


def _made(way: Way, reason: str, model: str, plain: tuple[str, ...] = ()) -> Choice:
    return Choice(way, reason, plain, native_at(model) if way == "native" else None)


def _against_native(code: Catalogue, model: str, native: bool, local_only: bool) -> str | None:
    provider = native_at(model)
    if local_only:
        return "results must not leave this host (local_only)"
    if provider is None:
        return f"{model or 'the model'} is not known to run programs that call the host's tools"
    if not native:
        return f"nothing was given that runs {provider}'s own loop"
    for exposed in code.tools:
        callers = exposed.tool.metadata.allowed_callers
        if callers is not None and not set(callers) - {"direct", "sandbox"}:
            return f"the tool {exposed.tool.name} is open to the local sandbox only"
        if provider == "anthropic" and recursive_ref(exposed.tool.metadata.argument_schema or {}):
            return f"the tool {exposed.tool.name} has a recursive schema, which Anthropic's programs can't call"
    return None if code.tools else "no tool is open to programs"


def _against_plain(direct: Catalogue, calls_tools: bool, local_only: bool) -> str | None:
    if local_only:
        return "results must not reach the model before a program has worked on them (local_only)"
    if not calls_tools:
        return "the model does not take tools (give it a parameter `tools`)"
    return None if direct.tools else "no tool is open to direct calls"


def _few(code: Catalogue, direct: Catalogue) -> tuple[str, ...]:
    """The tools for plain calls beside programs: all if they are few, else those that programs can't call."""
    listed = [exposed for exposed in direct.tools if exposed.tool not in direct.unlisted]
    closed = [one for one in listed if not open_to(one.tool.metadata, "sandbox")]
    chosen = listed if len(listed) <= PLAIN_TOOLS else closed
    return tuple(plain_name(direct, exposed) for exposed in chosen)


def _listed(direct: Catalogue) -> tuple[str, ...]:
    return tuple(plain_name(direct, exposed) for exposed in direct.tools if exposed.tool not in direct.unlisted)


def plain_name(catalogue: Catalogue, exposed: Exposed) -> str:
    """The flat name under which a model calls a tool plainly: ``sales_get_orders``."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", catalogue.path(exposed))[:64]
