"""Owns which calls may run: rules that allow, deny or ask, per call and over all calls of a run."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any, Literal, get_args

import msgspec

from toolchord.errors import ConfigurationError
from toolchord.identity import CallIdentity
from toolchord.tools import Tool, ToolCapability

__all__ = ["Bounds", "Policy", "Rule", "allow", "ask", "deny"]

Verdict = Literal["allow", "ask", "deny"]

When = Callable[[Mapping[str, Any]], object]
"""A predicate over a call's arguments by parameter name, checked and coerced as the tool gets them."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How far a rule reaches over the calls of one run, counted together.

    Attributes:
        count: calls at most.
        total: by argument name, the sum of its values at most. Only numbers from 0 on can be summed.
        only: by argument name, the values it may have. Of a list each item is looked at.
        distinct: by argument name, how many different values it may have.

    An argument that is missing or can't be counted is out of bounds.
    """

    count: int | None = None
    total: Mapping[str, int | float] = {}
    only: Mapping[str, Collection[str | int | float | bool | None]] = {}
    distinct: Mapping[str, int] = {}

    def __post_init__(self) -> None:
        for what in ("total", "only", "distinct"):
            if not isinstance(given := getattr(self, what), Mapping):
                raise ConfigurationError(f"Bounds({what}=...) takes a dict by argument name, not {given!r:.80}")
        numbers = {"count": [self.count], "total": self.total.values(), "distinct": self.distinct.values()}
        for what, values in numbers.items():
            for value in values:
                if value is not None and _amount(value) is None:
                    raise ConfigurationError(f"Bounds({what}=...) must be a number from 0 on, not {value!r}")


class Tally:
    """What counts against bounds so far."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._count = 0
        self._total = {name: Fraction(0) for name in bounds.total}
        self._values: dict[str, Counter[Any]] = {name: Counter() for name in bounds.distinct}

    def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """Why one more call is out of bounds, or None."""
        bounds = self._bounds
        if bounds.count is not None and self._count >= bounds.count:
            return f"{self._count} of {bounds.count} calls were made"
        for name, most in bounds.total.items():
            amount = _amount(arguments.get(name))
            if amount is None:
                return f"{name!r} is no number from 0 on, so it can't be summed"
            if (total := self._total[name] + amount) > Fraction(most):
                return f"the sum of {name!r} would be {float(total):g}, more than {most:g}"
        for name, values in bounds.only.items():
            if wrong := [item for item in _items(arguments, name) if not _among(item, values)]:
                return f"{name!r} may not be {wrong[0]!r:.80}"
        for name, allowed in bounds.distinct.items():
            if name not in arguments:
                return f"{name!r} is missing, so its values can't be counted"
            seen = {value for value, times in self._values[name].items() if times > 0}
            if len(seen := seen | _keys(arguments, name)) > allowed:
                return f"{name!r} would have {len(seen)} different values, more than {allowed}"
        return None

    def add(self, arguments: Mapping[str, Any]) -> Callable[[], None]:
        """Count a call; gives the way to count it no more."""
        amounts = {name: _amount(arguments.get(name)) or Fraction(0) for name in self._total}
        keys = {name: _keys(arguments, name) for name in self._values}

        def count(sign: int) -> None:
            self._count += sign
            for name, amount in amounts.items():
                self._total[name] += sign * amount
            for name, values in keys.items():
                for value in values:
                    self._values[name][value] += sign

        count(1)
        return lambda: count(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule. Made by `allow`, `deny` and `ask`."""

    verdict: Verdict
    tool: str | None = None
    namespace: str | None = None
    capability: ToolCapability | None = None
    caller: str | None = None
    when: When | None = None
    within: Bounds | None = None
    beyond: Verdict = "deny"
    expires: float | None = None
    why: str = ""

    def matches(self, tool: Tool, caller: str, arguments: Mapping[str, Any]) -> bool:
        """Whether it is about this call; whatever the predicate raises gets out."""
        if self.tool is not None and not _named(self.tool, tool):
            return False
        if self.namespace is not None and self.namespace != tool.namespace:
            return False
        if self.capability is not None and self.capability not in tool.metadata.capabilities:
            return False
        if self.caller is not None and self.caller != caller:
            return False
        return self.when is None or bool(self.when(arguments))


def _named(wanted: str, tool: Tool) -> bool:
    names = (tool.full_name, tool.name, *tool.aliases)
    return wanted in names or any(fnmatchcase(name, wanted) for name in names)


def _rule(verdict: Verdict, tool: str | None, given: dict[str, Any]) -> Rule:
    capability = given.pop("capability", None)
    if capability is not None:
        try:
            given["capability"] = ToolCapability(capability)
        except ValueError:
            known = ", ".join(ToolCapability)
            raise ConfigurationError(f"unknown capability {capability!r}; known are {known}") from None
    known_fields = {field.name for field in dataclasses.fields(Rule)} - {"verdict", "tool"}
    for name in given:
        if name not in known_fields:
            raise ConfigurationError(
                f"unknown argument {name!r} of a rule; known are {', '.join(sorted(known_fields))}"
            )
    rule = Rule(verdict=verdict, tool=tool, **given)
    if rule.when is not None and not callable(rule.when):
        raise ConfigurationError("when= takes a function of the arguments, such as lambda a: a['amount'] > 100")
    if rule.within is not None and not isinstance(rule.within, Bounds):
        raise ConfigurationError(f"within= takes Bounds, not {type(rule.within).__name__}")
    if rule.within is not None and verdict == "deny":
        raise ConfigurationError("a rule that denies has no bounds; write allow(..., within=Bounds(...))")
    if rule.beyond not in get_args(Verdict) or rule.beyond == "allow":
        raise ConfigurationError(f'beyond= must be "deny" or "ask", not {rule.beyond!r}')
    if rule.expires is not None and _amount(rule.expires) is None:
        raise ConfigurationError(f"expires= must be seconds, not {rule.expires!r}")
    return rule


def allow(tool: str | None = None, **given: Any) -> Rule:
    """A rule that lets calls run.

    Args:
        tool: the tool's name, alias or full name, or a pattern of it such as ``files.*``; None: every tool.
        namespace: only tools of this namespace.
        capability: only tools that were registered with it, such as ``"read_only"``.
        caller: only calls from here: ``"sandbox"`` for programs, or what the host passes as `caller=`.
        when: only calls for whose arguments this function is true. If it raises, the call is denied.
        within: only so many, so much; see `Bounds`.
        beyond: what calls out of bounds get: ``"deny"`` makes a cap of the bounds, ``"ask"`` a grant.
        expires: seconds after which an unanswered request fails its call.
        why: what the model or the person who is asked is told.

    Raises:
        ConfigurationError: arguments that make no sense.

    Examples:
        >>> from toolchord import CodeSandbox
        >>> def pay(amount: int) -> str:
        ...     return f"paid {amount}"
        >>> policy = Policy(allow("pay", when=lambda a: a["amount"] < 100), deny(why="ask Ann first"))
        >>> with CodeSandbox(tools=[pay], policy=policy) as sandbox:
        ...     sandbox.execute_sync("return pay(amount=5)").value
        ...     sandbox.execute_sync("return pay(amount=500)").error.message
        'paid 5'
        'default.pay was refused: ask Ann first'
    """
    return _rule("allow", tool, given)


def ask(tool: str | None = None, **given: Any) -> Rule:
    """A rule that pauses the run until somebody has answered; arguments as for `allow`.

    Examples:
        >>> from toolchord import CodeSandbox
        >>> def pay(amount: int) -> str:
        ...     return f"paid {amount}"
        >>> with CodeSandbox(tools=[pay], policy=Policy(ask("pay"))) as sandbox:
        ...     result = sandbox.execute_sync("return pay(amount=5)")
        >>> result.error.kind, [(request.tool, request.arguments) for request in result.pending]
        ('paused', [('default.pay', {'amount': 5})])
    """
    return _rule("ask", tool, given)


def deny(tool: str | None = None, **given: Any) -> Rule:
    """A rule that fails calls with CallDenied, a PermissionError; arguments as for `allow`, without bounds."""
    return _rule("deny", tool, given)


class Policy:
    """Rules in order; the first one that is about a call decides it.

    Args:
        rules: made by `allow`, `ask` and `deny`.
        otherwise: what a call gets that no rule is about. ``"ask"`` by default: what nobody thought of is no surprise.

    A policy holds no state: what was counted belongs to a run.

    Examples:
        >>> from toolchord import CodeSandbox
        >>> def pay(amount: int) -> str:
        ...     return f"paid {amount}"
        >>> policy = Policy(deny("pay", when=lambda a: a["amount"] > 100, why="too much"), otherwise="allow")
        >>> with CodeSandbox(tools=[pay], policy=policy) as sandbox:
        ...     sandbox.execute_sync("return pay(amount=5)").value
        ...     sandbox.execute_sync("return pay(amount=500)").error.message
        'paid 5'
        'default.pay was refused: too much'
    """

    def __init__(self, *rules: Rule, otherwise: Verdict = "ask") -> None:
        for rule in rules:
            if not isinstance(rule, Rule):
                raise ConfigurationError(f"a policy takes rules such as ask('pay'), not {type(rule).__name__}")
        if otherwise not in get_args(Verdict):
            raise ConfigurationError(f'otherwise must be "allow", "ask" or "deny", not {otherwise!r}')
        self.rules = rules
        self.otherwise: Verdict = otherwise
        self.granted: Counter[str] = Counter()

    def granting(self, calls: Iterable[Any]) -> Policy:
        """This policy, which lets these calls run without asking: each once, with the very arguments it has.

        Args:
            calls: such as `ExecutionResult.held` of a dry run. Rules that deny, and caps, still hold.
        """
        policy = Policy(*self.rules, otherwise=self.otherwise)
        policy.granted = self.granted + Counter(call.digest for call in calls)
        return policy


class Judge:
    """A policy over one run: verdicts, and what counts.

    Calls are judged one at a time, so that calls which start together can't share what is left for one of them.

    Args:
        policy: the rules.
        caller: who calls.
    """

    def __init__(self, policy: Policy, caller: str) -> None:
        self._policy = policy
        self._caller = caller
        self._tallies = [None if rule.within is None else Tally(rule.within) for rule in policy.rules]
        self._granted = Counter(policy.granted)
        self._lines: list[tuple[str, int, Tally]] = []
        self._counted: dict[int, list[Callable[[], None]]] = {}

    def grant_line(self, tool: str, line: int, within: Bounds) -> None:
        """Somebody approved what a line does with a tool."""
        self._lines.append((tool, line, Tally(within)))

    def judge(
        self, call: CallIdentity, tool: Tool, arguments: Mapping[str, Any], *, decided: bool = False
    ) -> tuple[Verdict, str, Rule | None]:
        """What a call gets, why, and by which rule. It counts from now on, unless it is denied; again if it did before.

        Args:
            call: which one.
            tool: the tool.
            arguments: as the tool gets them.
            decided: somebody has decided about this very call, so it takes nothing of a grant.
        """
        self.forget(call.number)
        undo = self._counted[call.number] = []
        for rule, tally in zip(self._policy.rules, self._tallies, strict=True):
            try:
                if not rule.matches(tool, self._caller, arguments):
                    continue
            except Exception as error:  # the host's predicate over a model's arguments: closed, not open
                return "deny", f"a rule's predicate failed ({type(error).__name__}: {error})", rule
            verdict, why = rule.verdict, rule.why
            if tally is not None:
                if (problem := tally.problem(arguments)) is not None:
                    verdict, why = rule.beyond, f"{rule.why}: {problem}" if rule.why else problem
                if verdict != "deny":
                    undo.append(tally.add(arguments))
            break
        else:
            rule, verdict, why = None, self._policy.otherwise, "no rule of the policy is about it"
        if verdict == "ask" and not decided and (undone := self._grant(call, arguments)) is not None:
            undo.append(undone)
            verdict = "allow"
        return verdict, why or f"the policy says {verdict}", rule

    def _grant(self, call: CallIdentity, arguments: Mapping[str, Any]) -> Callable[[], None] | None:
        """Take this call from what was granted; gives the way to put it back, None if it was not granted."""
        if self._granted[call.digest] > 0:
            self._granted[call.digest] -= 1
            return lambda: self._granted.update([call.digest])
        for tool, line, tally in self._lines:
            if (tool, line) == (call.tool, call.line) and tally.problem(arguments) is None:
                return tally.add(arguments)
        return None

    def forget(self, number: int) -> None:
        """A call counts no more: it did not run."""
        for step in self._counted.pop(number, ()):
            step()


_MISSING: Any = object()


def _amount(value: Any) -> Fraction | None:
    """A number from 0 on, exactly; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if not math.isfinite(value) or value < 0:
        return None
    return Fraction(value)


def _items(arguments: Mapping[str, Any], name: str) -> list[Any]:
    value = arguments.get(name, _MISSING)
    items = value if isinstance(value, list | tuple | set | frozenset) else [value]
    return [item.value if isinstance(item, Enum) else item for item in items]


def _among(item: Any, values: Collection[Any]) -> bool:
    return any(type(item) is type(value) and item == value for value in values)


def _keys(arguments: Mapping[str, Any], name: str) -> set[Any]:
    """An argument's values as keys; what has no hash by its text."""
    return {(type(item), item if isinstance(item, Hashable) else repr(item)) for item in _items(arguments, name)}
