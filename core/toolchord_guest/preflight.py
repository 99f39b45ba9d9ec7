"""Tool uses that can't work, found before the first statement runs.

Only what is certain is reported, so that no program is refused that would have worked: a call is judged if its tool is
known for sure, an argument if it is written out, a key if it can only be read from one tool's declared result. What a
`try` around it would handle is left to the program.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from toolchord_guest.names import bindings, near
from toolchord_guest.reads import Reads

_MOST = 10
_SHOWN = 300
_LONGEST = 200
_TRUE = frozenset("0 off f false n no 1 on t true y yes".split())
_CONTAINERS = frozenset({"list", "tuple", "set", "dict"})
_NUMBERS = frozenset({"bool", "int", "float"})


class Finding(NamedTuple):
    """One use that can't work: its line, the exception that it would raise, and what to write instead."""

    line: int
    type: str
    text: str


class Misuse(Exception):
    """A program's uses of tools that can't work, in the order of its lines."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        self.line = findings[0].line
        self.type = findings[0].type
        lines = [f.text if len(findings) == 1 else f"line {f.line}: {f.text}" for f in findings[:_MOST]]
        if len(findings) > _MOST:
            lines.append(f"… and {len(findings) - _MOST} more")
        super().__init__("\n".join(lines))


def examine(
    tree: ast.Module,
    *,
    text: str,
    tools: list[dict[str, Any]],
    helpers: list[dict[str, Any]],
    known: Collection[str],
    hidden: Collection[str],
    modules: Mapping[str, Collection[str]],
) -> Misuse | None:
    """What a program does with its tools that can't work, or None.

    Args:
        tree: the program as it was written.
        text: its text.
        tools: the stubs of the tools; each with all `spellings` that `call_tool` takes for it, as far as the program's
            text could hold them. One that is not open to programs says why as ``closed``.
        helpers: the stubs of the sandbox's own tools.
        known: names that are there without a tool: builtins.
        hidden: variables of the session and inputs; each hides the tool of its name.
        modules: the importable modules and their names.
    """
    findings = list(_Examiner(tree, text, tools, helpers, known, hidden, modules).findings())
    return Misuse(sorted(findings, key=lambda finding: finding.line)) if findings else None


class _Examiner:
    def __init__(
        self,
        tree: ast.Module,
        text: str,
        tools: list[dict[str, Any]],
        helpers: list[dict[str, Any]],
        known: Collection[str],
        hidden: Collection[str],
        modules: Mapping[str, Collection[str]],
    ) -> None:
        self._tree = tree
        self._text = text
        self._closed = {name: stub["closed"] for stub in tools if "closed" in stub for name in stub["spellings"]}
        self._offered = [stub["name"] for stub in tools if "closed" not in stub]
        tools = [*(stub for stub in tools if "closed" not in stub), *helpers]
        self._tools = {stub["name"]: stub for stub in tools}
        self._spellings = {spelling: stub for stub in tools for spelling in stub.get("spellings", (stub["name"],))}
        self._bound = set(bindings(tree)) | set(hidden)
        self._hidden = hidden
        self._known = known
        self._spaces = {name.partition(".")[0] for name in self._tools if "." in name}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                self._bound |= set(modules.get(node.module or "", ()))
        self._handles = _own_managers(tree)

    def findings(self) -> Iterator[Finding]:
        """All that can't work."""
        certain = list(self._certain(self._tree))
        calls = [node for node in certain if isinstance(node, ast.Call)]
        for call in calls:
            yield from self._call(call)
        reads = Reads(self._tree, self._shape_of, self._hidden)
        for node in certain:
            if isinstance(node, ast.Subscript | ast.Attribute) and (wrong := reads.problem(node)) is not None:
                yield Finding(node.lineno, "KeyError" if isinstance(node, ast.Subscript) else "AttributeError", wrong)

    def _certain(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes that no error handling surrounds; what can't be reached is left out."""
        stack = [node]
        while stack:
            node = stack.pop()
            yield node
            match node:
                case ast.Try(handlers=[_, *_] as handlers, orelse=orelse, finalbody=finalbody):
                    stack += [*handlers, *orelse, *finalbody]
                case ast.With() | ast.AsyncWith() if self._may_swallow(node):
                    stack += node.items
                case ast.If(test=ast.Constant(value=value), orelse=orelse) if not value:
                    stack += orelse
                case ast.IfExp(test=ast.Constant(value=value), orelse=other, body=body):
                    stack.append(body if value else other)
                case ast.While(test=ast.Constant(value=value)) if not value:
                    stack += node.orelse
                case ast.BoolOp(op=op, values=[ast.Constant(value=value), *_]) if bool(value) == isinstance(op, ast.Or):
                    continue
                case ast.Call(keywords=keywords) if any(k.arg == "return_exceptions" for k in keywords):
                    continue
                case _ if type(node).__name__ == "TryStar":
                    stack += [*node.handlers, *node.orelse, *node.finalbody]  # type: ignore[attr-defined]
                case _:
                    stack += ast.iter_child_nodes(node)

    def _may_swallow(self, node: ast.With | ast.AsyncWith) -> bool:
        names = {n.id if isinstance(n, ast.Name) else n.attr if isinstance(n, ast.Attribute) else ""
                 for item in node.items for n in ast.walk(item.context_expr)}  # fmt: skip
        return self._handles or bool(names & {"suppress", "ExitStack", "AsyncExitStack"})

    # which tool

    def _stub(self, call: ast.Call) -> dict[str, Any] | None:
        """The tool that a call surely means."""
        match call.func:
            case ast.Name(id="call_tool") if "call_tool" not in self._bound and call.args:
                first = call.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    return self._spellings.get(first.value)
            case ast.Name(id=name) if name not in self._bound:
                return self._tools.get(name)
            case ast.Attribute(value=ast.Name(id=space), attr=name) if space not in self._bound:
                return self._tools.get(f"{space}.{name}")
        return None

    def _shape_of(self, call: ast.Call) -> tuple[str, Any, str | None] | None:
        """Of a call: the tool's name, the shape of its result, and the field that iteration goes over."""
        stub = self._stub(call)
        if stub is None or not (check := stub.get("check")) or check["returns"] is None:
            return None
        return stub["name"], check["returns"], stub.get("list_field")

    def _call(self, call: ast.Call) -> Iterator[Finding]:
        stub = self._stub(call)
        if stub is None:
            yield from self._unknown(call)
            return
        check = stub.get("check")
        if check is None:
            return
        args = call.args
        if isinstance(call.func, ast.Name) and call.func.id == "call_tool":
            args = args[1:]
        wrong = list(_arguments(check, args, call.keywords))
        if wrong:
            lines = f": {wrong[0]}" if len(wrong) == 1 else ":" + "".join(f"\n- {line}" for line in wrong[:_MOST])
            how = f"\nIt is called as {_cut(check['call'])}" if check["call"] else ""
            yield Finding(call.lineno, "InvalidArguments", f"{stub['name']}{lines}{how}")

    def _unknown(self, call: ast.Call) -> Iterator[Finding]:
        match call.func:
            case ast.Name(id="call_tool") if "call_tool" not in self._bound:
                first = call.args[0] if call.args else None
                name = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
                if name and self._is_unknown(name):
                    why = self._closed.get(name) or f"no tool named {name!r}" + self._hint(name, ())
                    yield Finding(call.lineno, "ToolNotAvailable", why)
            case ast.Name(id=name) if name not in self._bound and name not in self._known:
                if name not in self._tools and name not in self._spaces:
                    others = [*self._bound, *(known for known in self._known if known.islower())]
                    why = self._closed.get(name) or f"no tool or function named {name!r}" + self._hint(name, others)
                    yield Finding(call.lineno, "NameError", why)
            case ast.Attribute(value=ast.Name(id=space), attr=name) if space in self._spaces:
                members = [path.partition(".")[2] for path in self._tools if path.startswith(f"{space}.")]
                if space not in self._bound and name not in members and not name.startswith("__"):
                    close = near(name, members)
                    hint = f"; did you mean {space}.{close[0]}?" if close else f"; it has {_cut(', '.join(members))}"
                    yield Finding(call.lineno, "AttributeError", f"{space} has no tool {name!r}{hint}")

    def _is_unknown(self, name: str) -> bool:
        """Whether no tool has that name. Only names that the text holds as they are were looked for by the host."""
        written = name in self._text and name.isprintable() and len(name) <= _LONGEST
        return written and name not in self._spellings

    def _hint(self, name: str, others: Iterable[str]) -> str:
        short = {path.rpartition(".")[2]: path for path in self._tools}
        close = near(name.rpartition(".")[2], [*short, *others], 1)
        if close:
            return f"; did you mean {short.get(close[0], close[0])}?"
        if not self._offered:
            return "; this program has no tools"
        more = " and others; see search_tools(query)" if len(self._offered) > 10 else ""
        return f"; there are {_cut(', '.join(self._offered[:10]))}{more}"


def _own_managers(tree: ast.AST) -> bool:
    """Whether the program has context managers of its own, which may swallow what is raised in them."""
    return any(
        (isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name in ("__exit__", "__aexit__"))
        or (isinstance(n, ast.Name) and n.id in ("contextmanager", "asynccontextmanager"))
        or (isinstance(n, ast.Attribute) and n.attr in ("contextmanager", "asynccontextmanager"))
        for n in ast.walk(tree)
    )


# arguments, as `Tool.bind` arranges them


def _arguments(check: dict[str, Any], args: list[ast.expr], keywords: list[ast.keyword]) -> Iterator[str]:
    given: dict[str, ast.expr] = {}
    spread = any(isinstance(argument, ast.Starred) for argument in args) or any(k.arg is None for k in keywords)
    if len(args) == 1 and not keywords and not spread:
        display = _display(args[0])
        if display is None and _kind(args[0]) in ("", "dict"):
            return  # it may be a dict, and hold the keywords
        if display is not None and _as_keywords(check, display):
            given, args = display, []
    positional = check["positional"]
    if not spread and len(args) > len(positional) and check["rest"] is None:
        yield f"takes {len(positional)} positional arguments, {len(args)} were given"
    for name, argument in zip(positional, args, strict=False):
        if isinstance(argument, ast.Starred):
            break
        given[name] = argument
    counted = Counter(name for name in given)
    for name, value in ((k.arg, k.value) for k in keywords if k.arg is not None):
        counted[name] += 1
        given[name] = value
    if check["rest"] is None:
        yield from (f"two values for {name!r}" for name, count in counted.items() if count > 1)
    known = {*check["names"], *([check["rest"]] if check["rest"] else [])}
    for name in given:
        if name not in known and not check["open"]:
            close = near(name, check["names"])
            yield f"unexpected argument {name[:80]!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
    if not spread:
        yield from (f"missing argument {name!r}" for name in check["required"] if name not in given)
    for name, value in given.items():
        if (spec := check["types"].get(name)) is not None and (wrong := misfit(value, spec, name)) is not None:
            yield wrong


def _display(node: ast.expr) -> dict[str, ast.expr] | None:
    """A dict that is written out, with text for keys only."""
    if not isinstance(node, ast.Dict):
        return None
    keys = [key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else None for key in node.keys]
    if None in keys:
        return None
    return dict(zip((str(key) for key in keys), node.values, strict=True))


def _as_keywords(check: dict[str, Any], display: dict[str, ast.expr]) -> bool:
    if check["dict"]:
        return False
    if not check["names"]:
        return check["rest"] is None and (check["open"] or not display)
    return display.keys() <= set(check["names"]) if display else not (check["untyped"] and check["required"])


# literals


def _kind(node: ast.expr) -> str:
    """The type of what an expression surely is; empty if nobody knows."""
    match node:
        case ast.Constant(value=value):
            return type(value).__name__
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() as value)):
            return "int" if isinstance(value, bool) else type(value).__name__
        case ast.JoinedStr():
            return "str"
        case ast.List() | ast.ListComp():
            return "list"
        case ast.Tuple():
            return "tuple"
        case ast.Set() | ast.SetComp():
            return "set"
        case ast.Dict() | ast.DictComp():
            return "dict"
    return ""


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        value: Any = node.operand.value
        return -value if isinstance(node.op, ast.USub) else value
    return None


def misfit(node: ast.expr, spec: dict[str, Any], path: str) -> str | None:
    """Why what is written can't be the value of an argument of that type, or None."""
    if "any" in spec:
        if any(misfit(node, branch, path) is None for branch in spec["any"]):
            return None
        return f"{path}: expected {_named(spec)}, got {_written(node)}"
    kind = _kind(node)
    if not kind:
        return None
    if "values" in spec:
        return _not_one_of(node, kind, spec["values"], path)
    if _excluded(kind, _value(node) if kind != "str" or isinstance(node, ast.Constant) else None, spec):
        return f"{path}: expected {_named(spec)}, got {_written(node)}"
    inner: list[tuple[ast.expr, Any, str]] = []
    if spec["type"] == "array" and isinstance(node, ast.List | ast.Tuple | ast.Set):
        inner = [(item, spec.get("items"), f"{path}[{number}]") for number, item in enumerate(node.elts)]
    elif spec["type"] == "object":
        fields = spec.get("fields", {})
        inner = [(item, fields.get(name), f"{path}.{name}") for name, item in (_display(node) or {}).items()]
    for item, expected, where in inner:
        if expected is not None and (wrong := misfit(item, expected, where)) is not None:
            return wrong
    return None


def _excluded(kind: str, value: Any, spec: dict[str, Any]) -> bool:
    """Whether no coercion makes a value of that kind fit; `value` is None where only the kind is known."""
    match spec["type"]:
        case "string":
            return kind in _CONTAINERS or kind == "NoneType" or (kind in _NUMBERS and not spec.get("format"))
        case "integer":
            fraction = kind == "float" and (value != value or value % 1 != 0)
            return kind in _CONTAINERS or kind == "NoneType" or fraction or (kind == "str" and not _is_number(value))
        case "number":
            return kind in _CONTAINERS - {"tuple"} or kind == "NoneType" or (kind == "str" and not _is_number(value))
        case "boolean":
            odd = (kind == "str" and value is not None and value.strip().lower() not in _TRUE) or (
                kind in ("int", "float") and value not in (0, 1)
            )
            return kind in _CONTAINERS or kind == "NoneType" or odd
        case "array":
            return kind in _NUMBERS or kind in ("str", "NoneType")
        case "object":
            return kind in _NUMBERS or kind in ("str", "NoneType", "list", "tuple", "set")
        case "null":
            return kind != "NoneType"
    return False


def _is_number(text: Any) -> bool:
    if text is None:
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _not_one_of(node: ast.expr, kind: str, values: list[Any], path: str) -> str | None:
    value = _value(node)
    alike = {type(one).__name__ for one in values} == {kind} and isinstance(node, ast.Constant | ast.UnaryOp)
    if kind not in _CONTAINERS and not (kind == "NoneType" and None not in values):
        if not alike or kind == "bool" or value in values:
            return None
        if kind == "str" and any(one.strip().lower() == value.strip().lower() for one in values):
            return None
    close = near(value, values) if alike and kind == "str" else []
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{path}: expected one of {_cut(repr(values))}, got {_written(node)}{hint}"


def _named(spec: dict[str, Any]) -> str:
    if "any" in spec:
        return " or ".join(dict.fromkeys(map(_named, spec["any"])))
    return f"one of {_cut(repr(spec['values']))}" if "values" in spec else str(spec["type"])


def _written(node: ast.expr) -> str:
    return f"{_kind(node)} {_cut(ast.unparse(node), 60)}"


def _cut(text: str, limit: int = _SHOWN) -> str:
    return text if len(text) <= limit else f"{text[: limit - 2]} …"
