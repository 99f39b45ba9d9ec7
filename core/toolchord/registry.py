"""Owns where tools live: the registry, its namespaces, deferred tools, and the `register_tool` decorator."""

from __future__ import annotations

import importlib
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar, overload

from toolchord.errors import RegistrationError, ToolNotFoundError
from toolchord.search import near, rank
from toolchord.tools import Tool, ToolMetadata, placeholder, split_name, tool_from

__all__ = [
    "ToolInfo",
    "ToolRegistry",
    "create_registry",
    "get_default_registry",
    "register_tool",
    "reset_registry",
]

T = TypeVar("T")


class ToolInfo(NamedTuple):
    """Where a tool is registered."""

    namespace: str
    name: str


_NOTHING: Any = object()


class ToolRegistry:
    """Tools by namespace and name. Safe to use from several threads.

    The coroutine methods are the face for applications; `add`, `tools`, `find` and `search` are the same without
    await. Wherever a namespace may be given, None means: ``"default"`` if the tool is there, else the only namespace
    that has it. Names may be written ``"namespace.name"``, and a tool's aliases work as well.

    Examples:
        >>> registry = ToolRegistry()
        >>> tool = registry.add(max, "top", "math")
        >>> registry.find("top") is registry.find("math.top") is tool
        True
        >>> about = "How far a number is from zero."
        >>> deferred = registry.add(abs, "distance", "math", description=about, defer_loading=True)
        >>> [found.full_name for found in registry.search("far from zero")]
        ['math.distance']
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tools: dict[ToolInfo, Tool] = {}
        self._active: dict[ToolInfo, None] = {}  # in the order of registration or loading
        self._listed: tuple[Tool, ...] | None = None

    # The synchronous face

    def add(self, obj: Any = _NOTHING, name: str | None = None, namespace: str = "default", **metadata: Any) -> Tool:
        """Register a tool now.

        Args:
            obj: what `tool_from` takes, or None for a deferred tool with an `import_path`.
            name: the name; the object's own when None.
            namespace: the namespace.
            **metadata: fields of `ToolMetadata`.

        Raises:
            RegistrationError: the name is taken, or the object or its metadata can't be used.
        """
        if obj is _NOTHING:
            raise RegistrationError(
                "registry.add(tool, ...) takes the tool first; a decorator with options is @register_tool(registry=...)"
            )
        name, namespace = split_name(name, namespace)
        if obj is None:
            tool = self._placeholder(ToolMetadata(**{**metadata, "name": name, "namespace": namespace}))
        else:
            tool = tool_from(obj, name=name, namespace=namespace, **metadata)
        key = ToolInfo(tool.namespace, tool.name)
        with self._lock:
            if (old := self._tools.get(key)) is not None:
                if obj is not None and _same(old.implementation, tool.implementation):
                    return old
                if not (obj is not None and old.implementation is None):  # a module that is imported by its path
                    raise RegistrationError(
                        f"a tool {tool.full_name!r} is registered already; choose another name or namespace, "
                        f"or call registry.remove({tool.name!r}, {tool.namespace!r}) first"
                    )
            self._tools[key] = tool
            if old is None and not tool.metadata.defer_loading:
                self._active[key] = None
            self._listed = None
        return tool

    def remove(self, name: str, namespace: str | None = None) -> None:
        """Take a tool out.

        Raises:
            ToolNotFoundError: it is not there.
        """
        with self._lock:
            key = self._key(name, namespace)
            if key is None:
                raise ToolNotFoundError(name, self._near(name))
            del self._tools[key]
            self._active.pop(key, None)
            self._listed = None

    def tools(self) -> tuple[Tool, ...]:
        """The active tools in the order of registration; the same tuple until something changes."""
        with self._lock:
            if self._listed is None:
                self._listed = tuple(self._tools[key] for key in self._active)
            return self._listed

    def deferred(self) -> tuple[Tool, ...]:
        """The tools that wait to be searched for, in the order of registration."""
        with self._lock:
            return tuple(tool for key, tool in self._tools.items() if key not in self._active)

    def find(self, name: str, namespace: str | None = None) -> Tool | None:
        """The tool of that name, active or deferred, or None. A deferred one may still have to `load`."""
        with self._lock:
            key = self._key(name, namespace)
            return None if key is None else self._tools[key]

    def search(self, query: str, tags: Iterable[str] | None = None, limit: int = 5) -> list[Tool]:
        """The deferred tools that fit a query best, best first.

        Args:
            query: words, or a pattern such as ``get_.*_data|list_``. An empty one finds nothing.
            tags: only tools that carry one of these.
            limit: how many at most.
        """
        wanted = frozenset(tags or ())
        tools = [tool for tool in self.deferred() if not wanted or wanted & tool.metadata.tags]
        return [tools[i] for i in rank(query, [search_fields(tool) for tool in tools], limit)]

    def clear(self) -> None:
        """Forget every tool."""
        with self._lock:
            self._tools.clear()
            self._active.clear()
            self._listed = None

    # The asynchronous face

    async def register_tool(
        self,
        tool: Any,
        name: str | None = None,
        namespace: str = "default",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Register a tool; see `add`."""
        self.add(tool, name, namespace, **(metadata or {}))

    async def get_tool(self, name: str, namespace: str | None = None) -> Tool | None:
        """The tool, imported if need be, or None. Run it with ``await tool.execute(**arguments)``."""
        tool = self.find(name, namespace)
        return None if tool is None else tool.load()

    async def get_tool_strict(self, name: str, namespace: str | None = None) -> Tool:
        """The tool, imported if need be.

        Raises:
            ToolNotFoundError: naming those that look alike.
        """
        tool = await self.get_tool(name, namespace)
        if tool is None:
            raise ToolNotFoundError(name, self._near(name))
        return tool

    async def get_metadata(self, name: str, namespace: str | None = None) -> ToolMetadata | None:
        """What is known about a tool, or None."""
        tool = self.find(name, namespace)
        return None if tool is None else tool.metadata

    async def list_tools(self, namespace: str | None = None) -> list[ToolInfo]:
        """The active tools, in the order of registration."""
        return [ToolInfo(tool.namespace, tool.name) for tool in self.tools() if namespace in (None, tool.namespace)]

    async def list_namespaces(self) -> list[str]:
        """The namespaces that hold a tool, sorted."""
        with self._lock:
            return sorted({key.namespace for key in self._tools})

    async def list_metadata(self, namespace: str | None = None) -> list[ToolMetadata]:
        """The metadata of every tool, active and deferred."""
        tools = (*self.tools(), *self.deferred())
        return [tool.metadata for tool in tools if namespace in (None, tool.namespace)]

    async def get_active_tools(self, namespace: str | None = None) -> list[ToolInfo]:
        """The same as `list_tools`."""
        return await self.list_tools(namespace)

    async def get_deferred_tools(self, namespace: str | None = None) -> list[ToolMetadata]:
        """The metadata of the tools that are not loaded."""
        return [tool.metadata for tool in self.deferred() if namespace in (None, tool.namespace)]

    async def search_deferred_tools(
        self, query: str, tags: Iterable[str] | None = None, limit: int = 5
    ) -> list[ToolMetadata]:
        """The metadata of the deferred tools that fit best; see `search`."""
        return [tool.metadata for tool in self.search(query, tags, limit)]

    async def load_deferred_tool(self, name: str, namespace: str | None = None) -> Tool:
        """Import a deferred tool if need be, and list it with the active ones from now on.

        Raises:
            ToolNotFoundError: no tool of that name.
            RegistrationError: its `import_path` leads nowhere.
        """
        tool = await self.get_tool_strict(name, namespace)
        with self._lock:
            self._active.setdefault(ToolInfo(tool.namespace, tool.name))
            self._listed = None
        return tool

    # Inside

    def _key(self, name: str, namespace: str | None) -> ToolInfo | None:
        if namespace is not None:
            return self._within(name, namespace)
        head, dot, tail = name.rpartition(".")
        if dot and (key := self._within(tail, head)):
            return key
        if key := self._within(name, "default"):
            return key
        found = [key for space in {key.namespace for key in self._tools} if (key := self._within(name, space))]
        return found[0] if len(found) == 1 else None

    def _within(self, name: str, namespace: str) -> ToolInfo | None:
        key = ToolInfo(namespace, name)
        if key in self._tools:
            return key
        return next((k for k, t in self._tools.items() if k.namespace == namespace and name in t.aliases), None)

    def _near(self, name: str) -> tuple[str, ...]:
        with self._lock:
            return near(name, [n for t in self._tools.values() for n in (t.name, *t.aliases)])

    def _placeholder(self, metadata: ToolMetadata) -> Tool:
        if not (metadata.import_path and metadata.defer_loading):
            raise RegistrationError(f"tool {metadata.name!r} has no object: give import_path= and defer_loading=True")
        return placeholder(metadata, lambda: self._import(metadata))

    def _import(self, metadata: ToolMetadata) -> Tool:
        key = ToolInfo(metadata.namespace, metadata.name)
        with self._lock:
            known = self._tools.get(key)
            if known is not None and known.implementation is not None:
                return known
        path = metadata.import_path or ""
        module, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
        try:
            obj = importlib.import_module(module)
            for part in attribute.split("."):
                obj = getattr(obj, part)
        except (ImportError, AttributeError, ValueError) as error:
            raise RegistrationError(f"tool {metadata.name!r} can't be imported from {path!r}: {error}") from error
        given = {field: getattr(metadata, field) for field in metadata.model_fields_set - {"is_async"}}
        with self._lock:
            known = self._tools.get(key)  # its module may have registered it
            if known is None or known.implementation is None:
                known = self._tools[key] = tool_from(obj, **given)
                self._listed = None
            return known


def search_fields(tool: Tool) -> tuple[str, str, str]:
    """What a search looks at: names, keywords, then descriptions including those of the arguments."""
    metadata = tool.metadata
    properties = (metadata.argument_schema or {}).get("properties", {})
    about = (f"{name} {sub.get('description', '')}" for name, sub in properties.items() if isinstance(sub, dict))
    return (
        " ".join((tool.name, *tool.aliases, tool.namespace)),
        " ".join((*metadata.search_keywords, *sorted(metadata.tags))),
        " ".join((metadata.description, *about)),
    )


def _same(old: Any, new: Any) -> bool:
    return old is new or (isinstance(old, types.MethodType) and old == new)


_default = ToolRegistry()


def create_registry() -> ToolRegistry:
    """A new, empty registry."""
    return ToolRegistry()


async def get_default_registry() -> ToolRegistry:
    """The registry that `register_tool` uses when none is given."""
    return _default


async def reset_registry() -> None:
    """Empty the default registry."""
    _default.clear()


@overload
def register_tool(
    name: str | None = None,
    namespace: str = "default",
    *,
    registry: ToolRegistry | None = None,
    defer_loading: bool = False,
    search_keywords: list[str] | None = None,
    allowed_callers: list[str] | None = None,
    **metadata: Any,
) -> Callable[[T], T]: ...


@overload
def register_tool(
    name: T, namespace: str = "default", *, registry: ToolRegistry | None = None, **metadata: Any
) -> T: ...


def register_tool(
    name: Any = None,
    namespace: str = "default",
    *,
    registry: ToolRegistry | None = None,
    defer_loading: bool = False,
    search_keywords: list[str] | None = None,
    allowed_callers: list[str] | None = None,
    **metadata: Any,
) -> Any:
    """Register a tool at once; used as a decorator, bare or with arguments, or called with the tool.

    Args:
        name: the name, the class's or function's own when None; ``"web.fetch"`` sets the namespace too.
        namespace: the namespace.
        registry: where to register; the default registry when None.
        defer_loading: the tool is found by search only.
        search_keywords: more words by which a search finds it.
        allowed_callers: who may call it; None means everyone, see `ToolMetadata`.
        **metadata: other fields of `ToolMetadata`.

    Returns:
        The tool's class, function or object, unchanged; or a decorator that does.

    Raises:
        RegistrationError: the name is taken, or the object or its metadata can't be used.

    Examples:
        >>> registry = create_registry()
        >>> @register_tool("web.fetch", registry=registry)
        ... async def fetch(url: str) -> str:
        ...     "What is at an address."
        >>> registry.find("fetch").metadata.description
        'What is at an address.'
    """
    given = {
        **metadata,
        "defer_loading": defer_loading,
        "search_keywords": search_keywords or [],
        "allowed_callers": allowed_callers,
    }
    home = _default if registry is None else registry

    def register(obj: T) -> T:
        home.add(obj, name if isinstance(name, str) else None, namespace, **given)
        return obj

    return register if name is None or isinstance(name, str) else register(name)
