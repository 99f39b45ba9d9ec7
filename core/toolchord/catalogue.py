"""Owns what one run exposes: which tools, under which Python names, and why a name is not there."""

from __future__ import annotations

import builtins
import functools
import keyword
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from toolchord.errors import ConfigurationError, ToolNotFoundError
from toolchord.models.tool_spec import open_to
from toolchord.registry import ToolRegistry, _default, search_fields
from toolchord.schema import identifier
from toolchord.search import near, rank
from toolchord.tools import Tool, ValidatedTool, tool_from

__all__ = ["Catalogue", "Exposed", "Source", "identifier_for"]

Caller: TypeAlias = Literal["direct", "sandbox"]
Source: TypeAlias = (
    "ToolRegistry | Catalogue | Tool | Callable[..., Any] | ValidatedTool | Mapping[str, Any] | Iterable[Any] | None"
)

_BUILTINS = frozenset(dir(builtins))


class Exposed(NamedTuple):
    """A tool and the Python name that it has within its namespace."""

    identifier: str
    tool: Tool


def identifier_for(tool: Tool) -> str:
    """The Python name of a tool: its alias, its name, or its name made safe (``max`` becomes ``max_``)."""
    return _identifier(tool.aliases[0] if tool.aliases else tool.name)


def _identifier(name: str) -> str:
    name = identifier(name)
    if name.startswith("__"):  # a server's tool must not take the place of what Python keeps under such names
        name = name.strip("_")
    if not name.isidentifier():
        name = f"t_{name}" if name else "tool"
    return f"{name}_" if keyword.iskeyword(name) or name in _BUILTINS else name


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The tools of one run. Made by `Catalogue.of`.

    Attributes:
        tools: every exposed tool once, in order; deferred ones last.
        names: bare Python name -> tool, with the registered name where it is a safe identifier too.
        namespaces: Python name of a namespace -> identifier -> tool; ``"default"`` has no entry.
        closed: tools that were asked for but are not open to this caller.
        unlisted: deferred tools, which a prompt leaves to be searched for.
        caller: for whom it was made.
    """

    tools: tuple[Exposed, ...]
    names: dict[str, Exposed]
    namespaces: dict[str, dict[str, Exposed]]
    closed: tuple[Tool, ...]
    unlisted: frozenset[Tool]
    caller: Caller
    _index: dict[str, Exposed]
    _paths: dict[Tool, str]

    @classmethod
    def of(cls, source: Source, *, caller: Caller = "sandbox", registry: ToolRegistry | None = None) -> Catalogue:
        """Collect tools.

        Args:
            source: a registry, catalogue, tool, function, `ValidatedTool`, mapping of names to functions, or an
                iterable that mixes these and names. None means all of `registry`, or nothing without one.
            caller: tools that are not open to it are kept apart in `closed`.
            registry: where names are looked up; the default registry when None.

        Raises:
            ToolNotFoundError: a name that is not registered.
            RegistrationError: an object that is no tool.
        """
        if isinstance(source, Catalogue) and source.caller == caller:
            return source
        if source is None:
            source = registry
        tools: dict[Tool, bool] = {}
        for tool, listed in _collect(source, registry):
            tools[tool] = listed or tools.get(tool, False)
        unlisted = frozenset(tool for tool, listed in tools.items() if not listed)
        return _build(tuple(tools), unlisted, caller)

    def resolve(self, name: str) -> Exposed | None:
        """The tool that a program means by a name, imported if need be; None if there is none.

        Any of these will do: identifier, registered name, alias, each alone or after the namespace and a dot.
        """
        exposed = self._index.get(name)
        if exposed is None or (tool := exposed.tool.load()) is exposed.tool:
            return exposed
        # Only now is it known what the tool says of its callers.
        return Exposed(exposed.identifier, tool) if open_to(tool.metadata, self.caller) else None

    def spellings(self) -> Iterable[tuple[str, Exposed]]:
        """Every name that `resolve` knows, with its tool."""
        return self._index.items()

    def path(self, exposed: Exposed) -> str:
        """How a program writes the tool: ``get_orders``, or ``sales.get_orders`` where the bare name is not its own."""
        return self._paths.get(exposed.tool, exposed.identifier)

    def search(self, query: str, limit: int = 5) -> tuple[Exposed, ...]:
        """The tools that fit a query best, best first; deferred ones are among them."""
        found = rank(query, [search_fields(exposed.tool) for exposed in self.tools], limit)
        return tuple(self.tools[i] for i in found)

    def near(self, name: str) -> tuple[str, ...]:
        """How programs write the tools whose names look like this one, best first."""
        spellings = {path: exposed for exposed in self.tools for path in (self.path(exposed), exposed.tool.name)}
        found = near(name.rpartition(".")[2], spellings, 6) if "." in name else near(name, spellings, 6)
        return tuple(dict.fromkeys(self.path(spellings[spelling]) for spelling in found))[:3]

    def explain(self, name: str) -> str:
        """Why a name can't be called, and what to do; the message of `ToolNotAvailable`."""
        bare = name.rpartition(".")[2]
        if (listed := self._index.get(name)) and not open_to((tool := listed.tool.load()).metadata, self.caller):
            return self._explain_closed(name, tool)
        for tool in self.closed:
            spellings = {tool.name, *tool.aliases, identifier_for(tool)}
            if name in spellings or (bare in spellings and name.startswith(f"{tool.namespace}.")):
                return self._explain_closed(name, tool)
        owners = sorted(self.path(e) for e in self.tools if name in (e.identifier, e.tool.name, *e.tool.aliases))
        if owners and name not in self._index:
            return f"{name!r} is ambiguous; call {' or '.join(owners)} instead"
        if close := self.near(name):
            return f"no tool named {name!r}; did you mean {', '.join(close)}?"
        paths = [self.path(exposed) for exposed in self.tools]
        if not paths:
            return f"no tool named {name!r}; this run has no tools"
        more = f" and {len(paths) - 10} more; see search_tools()" if len(paths) > 10 else ""
        return f"no tool named {name!r}; there are {', '.join(paths[:10])}{more}"

    def _explain_closed(self, name: str, tool: Tool) -> str:
        callers = tool.metadata.allowed_callers or []
        if self.caller == "sandbox":
            return (
                f"tool {name!r} is not open to code (allowed_callers={callers}); call it directly instead of from a "
                f'program, or register it with "sandbox" among its allowed_callers'
            )
        return (
            f"tool {name!r} is not open to direct calls (allowed_callers={callers}); call it from a program, "
            f'or register it with "direct" among its allowed_callers'
        )


def _collect(source: Any, registry: ToolRegistry | None) -> Iterator[tuple[Tool, bool]]:
    """Every tool of a source, and whether a prompt lists it."""
    if source is None:
        return
    if isinstance(source, Tool):
        yield source, True
    elif isinstance(source, ToolRegistry):
        yield from ((tool, True) for tool in source.tools())
        yield from ((tool, False) for tool in source.deferred())
    elif isinstance(source, Catalogue):
        tools = (*(exposed.tool for exposed in source.tools), *source.closed)
        yield from ((tool, tool not in source.unlisted) for tool in tools)
    elif isinstance(source, str):
        yield _named(source, _default if registry is None else registry), True
    elif isinstance(source, Mapping):
        yield from ((tool_from(obj, name=name), True) for name, obj in source.items())
    elif callable(source) or callable(getattr(source, "execute", None)):
        yield tool_from(source), True
    elif isinstance(source, Iterable):
        for item in source:
            yield from _collect(item, registry)
    else:
        raise ConfigurationError(f"{type(source).__name__} holds no tools; give a registry, tools or functions")


def _named(name: str, registry: ToolRegistry) -> Tool:
    tool = registry.find(name)
    if tool is None:
        raise ToolNotFoundError(name, near(name, [t.name for t in (*registry.tools(), *registry.deferred())]))
    return tool


@functools.lru_cache(maxsize=64)  # a sandbox asks again for every run; a registry answers with the same tools
def _build(tools: tuple[Tool, ...], unlisted: frozenset[Tool], caller: Caller) -> Catalogue:
    exposed = _identified([tool for tool in tools if open_to(tool.metadata, caller)])
    names = _bare_names(exposed)
    spaces = _namespaces(exposed, set(names))
    members: dict[str, dict[str, Exposed]] = {space: {} for space in spaces.values()}
    paths = {}
    for one in exposed:
        space = spaces.get(one.tool.namespace, "default")
        paths[one.tool] = one.identifier if names.get(one.identifier) is one else f"{space}.{one.identifier}"
        if space in members:
            members[space][one.identifier] = one
    closed = tuple(tool for tool in tools if not open_to(tool.metadata, caller))
    return Catalogue(tuple(exposed), names, members, closed, unlisted, caller, _index(exposed, names, spaces), paths)


def _index(exposed: list[Exposed], names: dict[str, Exposed], spaces: dict[str, str]) -> dict[str, Exposed]:
    """Every spelling that means one tool only; the program's own names come first, then registered ones."""
    index = dict(names)
    for spellings in (lambda one: [one.identifier], lambda one: [one.tool.name], lambda one: one.tool.aliases):
        for one in exposed:
            for prefix in (spaces.get(one.tool.namespace, "default"), one.tool.namespace):
                for spelling in spellings(one):
                    index.setdefault(f"{prefix}.{spelling}", one)
    contested = {one.identifier for one in exposed}
    for name, one in _owners(exposed, lambda one: (one.tool.name, *one.tool.aliases)).items():
        if name not in contested:
            index.setdefault(name, one)
    return index


def _identified(tools: list[Tool]) -> list[Exposed]:
    """Give each tool an identifier that is its own within the namespace; exact names come first."""
    taken: dict[tuple[str, str], Tool] = {}
    for tool in sorted(tools, key=lambda tool: identifier_for(tool) != tool.name):
        wanted = identifier = identifier_for(tool)
        number = 2
        while (tool.namespace, identifier) in taken:
            identifier, number = f"{wanted}_{number}", number + 1
        taken[tool.namespace, identifier] = tool
    by_tool = {tool: identifier for (_, identifier), tool in taken.items()}
    return [Exposed(by_tool[tool], tool) for tool in tools]


def _owners(exposed: list[Exposed], spellings: Callable[[Exposed], Iterable[str]]) -> dict[str, Exposed]:
    """Who owns a bare name: the only tool that bears it, or the one in the default namespace."""
    bearers: dict[str, list[Exposed]] = {}
    for one in exposed:
        for spelling in dict.fromkeys(spellings(one)):
            bearers.setdefault(spelling, []).append(one)
    owners = {}
    for name, candidates in bearers.items():
        at_home = [one for one in candidates if one.tool.namespace == "default"]
        if len(candidates) == 1 or len(at_home) == 1:
            owners[name] = at_home[0] if at_home else candidates[0]
    return owners


def _bare_names(exposed: list[Exposed]) -> dict[str, Exposed]:
    names = _owners(exposed, lambda one: [one.identifier])
    contested = {one.identifier for one in exposed}
    more = _owners(exposed, lambda one: [one.tool.name, *one.tool.aliases])
    return names | {name: one for name, one in more.items() if name not in contested and _identifier(name) == name}


def _namespaces(exposed: list[Exposed], taken: set[str]) -> dict[str, str]:
    """The Python name of each namespace; a bare tool name is never hidden by one."""
    spaces: dict[str, str] = {}
    for namespace in dict.fromkeys(one.tool.namespace for one in exposed if one.tool.namespace != "default"):
        wanted = name = _identifier(namespace)
        number = 2
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        taken.add(name)
        spaces[namespace] = name
    return spaces
