"""Where a tool call stands decides whether it waits.

Under `await`, among what is gathered, or kept in a variable that is awaited later, a call becomes a future; where its
value is used at once, it blocks; in between it stays what CPython would make of it. `.now()`, `.today()` and
`.utcnow()` read the guest's clock.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import Any

from toolchord_guest.language import BUILTIN_NAMES, CLOCK_METHODS

FUTURE, NOW, SETTLED, AWAIT, CLOCK = "<future>", "<now>", "<settled>", "<await>", "<clock>"

_CONSUMERS = frozenset(
    "gather create_task ensure_future wait_for shield as_completed wait run run_until_complete timeout".split()
)
_TRANSPARENT = (ast.Starred, ast.List, ast.Tuple, ast.Set, ast.IfExp, ast.NamedExpr)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
_PASSING = frozenset("list tuple set dict zip enumerate reversed sorted chain from_iterable values items".split())
_ADDING = frozenset(["append", "appendleft", "add", "extend", "insert", "setdefault", "update"])
_APPLYING = frozenset(["map", "starmap", "filter", "filterfalse", "reduce", "takewhile", "dropwhile"])
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


def own_nodes(body: Iterable[ast.AST]) -> Iterable[Any]:
    """All nodes that run at the top level: not those inside functions, lambdas and classes."""
    stack = list(body)
    while stack:
        node = stack.pop(0)
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            stack[:0] = [*node.decorator_list]
        elif not isinstance(node, ast.Lambda):
            stack[:0] = ast.iter_child_nodes(node)


def coroutines(tree: ast.Module) -> set[str]:
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef) and not is_generator(node)}


def is_generator(function: ast.AsyncFunctionDef) -> bool:
    return any(isinstance(node, ast.Yield) for node in own_nodes(function.body))


def calls_one_of(functions: set[str], node: ast.AST) -> bool:
    """Whether a statement is nothing but a call of one of the functions."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
            return name in functions
    return False


class Calls(ast.NodeTransformer):
    """Marks tool calls by where they stand, and gives the clock's readers their helper.

    A call stands in one of three places. *Later*: it is awaited, gathered or kept for that, so it only starts.
    *Now*: its value is used, so it is waited for. *Between* (returned by a plain function, handed to one of the
    program's own): nobody can tell yet, and it is left as CPython has it, a started call of an asynchronous tool, a
    value of a plain one.
    """

    def __init__(
        self, tools: Container[str], tree: ast.Module, modules: Mapping[str, Collection[str]], *, is_async: bool
    ) -> None:
        self._tools = tools
        self._modules = modules
        functions = [n for n in ast.walk(tree) if isinstance(n, _FUNCTIONS)]
        self._coroutines = coroutines(tree)
        self._own = {n.name for n in functions} | {n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
        self._imported = {
            a.asname or a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, _IMPORTS) for a in n.names
        }
        self._helpers = {n.name for n in functions if isinstance(n, ast.FunctionDef) and self._may_start(n)}
        self._async_scope = [is_async]
        self._in_try = [False]
        self._awaited = _awaited_names(tree)

    def _is_tool(self, func: ast.expr) -> bool:
        inner = func.value if isinstance(func, ast.Attribute) else func
        return isinstance(inner, ast.Name) and inner.id in self._tools and inner.id not in self._own

    def _may_start(self, function: ast.FunctionDef) -> bool:
        """Whether a plain function may hand out a call that it started."""
        returned = [n.value for n in own_nodes(function.body) if isinstance(n, ast.Return) and n.value is not None]
        return any(isinstance(n, ast.Call) and self._is_tool(n.func) for value in returned for n in ast.walk(value))

    # later

    def visit_Await(self, node: ast.Await) -> ast.AST:
        node.value = _call(AWAIT, self._future(node.value), at=node)
        return node

    def _future(self, node: ast.expr) -> Any:
        """`node` in a place that takes awaitables: its calls of tools become futures."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = "" if self._is_tool(node.func) else _name(node.func)
            if name in _CONSUMERS:
                return self.visit(node)
            if name in _PASSING and name not in self._own:
                node.func = self.visit(node.func)
                node.args = [self._future(argument) for argument in node.args]
                node.keywords = [self.visit(keyword) for keyword in node.keywords]
                return node
            node = self._bare(node, applies=FUTURE)
            if name not in _APPLYING:
                node.func = _call(FUTURE, node.func, at=node)
            return node
        return self._inside(node, self._future)

    def _between(self, node: ast.expr) -> Any:
        """`node` where its calls are left as they are."""
        if isinstance(node, ast.Call):
            return self._bare(node)
        if isinstance(node, ast.Dict):  # a record more likely than a collection of calls
            return self.visit(node)
        return self._inside(node, self._between)

    def _inside(self, node: ast.expr, place: Callable[[ast.expr], Any]) -> Any:
        """A display, a comprehension or a condition: what it holds stands where it stands itself."""
        if isinstance(node, ast.SetComp) and place == self._future:
            node = ast.copy_location(ast.ListComp(node.elt, node.generators), node)  # a set would look at the values
        if isinstance(node, _COMPREHENSIONS):
            return self._comprehension(node, place)
        if isinstance(node, ast.Dict):
            node.keys = [None if key is None else self.visit(key) for key in node.keys]
            node.values = [place(value) for value in node.values]
            return node
        if isinstance(node, ast.Set) and place == self._future:
            node = ast.copy_location(ast.List(node.elts, ast.Load()), node)  # a set would look at the values
        if isinstance(node, _TRANSPARENT):
            for name, value in ast.iter_fields(node):
                if isinstance(value, list):
                    setattr(node, name, [place(v) for v in value])
                elif isinstance(value, ast.expr):
                    setattr(node, name, self.visit(value) if name in ("test", "target") else place(value))
            return node
        return self.visit(node)

    def _comprehension(self, node: Any, place: Callable[[ast.expr], Any]) -> ast.AST:
        """What a comprehension holds; a generator expression is a scope that can't await."""
        first = node.generators[0]
        first.iter = self.visit(first.iter)
        self._async_scope.append(self._async_scope[-1] and not isinstance(node, ast.GeneratorExp))
        for generator in node.generators:
            if generator is not first:
                generator.iter = self.visit(generator.iter)
            generator.target = self.visit(generator.target)
            generator.ifs = [self.visit(condition) for condition in generator.ifs]
        if isinstance(node, ast.DictComp):
            node.key, node.value = self.visit(node.key), place(node.value)
        else:
            node.elt = place(node.elt)
        self._async_scope.pop()
        return node  # type: ignore[no-any-return]

    def _visit_comprehension(self, node: Any) -> ast.AST:
        return self._comprehension(node, self.visit)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _visit_comprehension

    def _bare(self, node: ast.Call, applies: str = NOW) -> ast.Call:
        """A call with its parts visited, itself left as it is; `applies` marks a tool that it applies to many."""
        name = "" if self._is_tool(node.func) else _name(node.func)
        if name in _CONSUMERS:
            place: Callable[[ast.expr], Any] = self._future
        elif name in _ADDING and isinstance(node.func, ast.Attribute) and _key(node.func.value) in self._awaited:
            place = self._future
        elif self._is_known(node.func):
            place = self.visit
        else:
            place = self._between
        node.func = self.visit(node.func)
        node.args = [place(argument) for argument in node.args]
        for keyword in node.keywords:
            keyword.value = (self.visit if place == self._future else place)(keyword.value)
            if keyword.arg == "key" and self._is_tool(keyword.value):
                keyword.value = _call(NOW, keyword.value, at=keyword.value)
        if name in _APPLYING and node.args and self._is_tool(node.args[0]):
            node.args[0] = _call(applies, node.args[0], at=node)
        return node

    def _is_known(self, func: ast.expr) -> bool:
        """Whether a function is no function of the program's: it takes values."""
        match func:
            case ast.Name(id=name):
                return name not in self._own and (
                    name in self._imported or name in BUILTIN_NAMES or self._is_tool(func)
                )
            case ast.Attribute(attr=name):
                return name not in self._own
        return False

    # now

    def visit_Call(self, node: ast.Call) -> ast.AST:
        is_tool, is_helper = self._is_tool(node.func), _name(node.func) in self._helpers
        node = self._bare(node)
        if is_tool and self._async_scope[-1]:
            return ast.copy_location(ast.Await(_call(AWAIT, node, at=node)), node)
        if is_tool:
            node.func = _call(NOW, node.func, at=node)
        elif is_helper:
            return _call(SETTLED, node, at=node)
        return node

    def _assigned(self, value: ast.expr, *targets: ast.expr) -> Any:
        later = any(key in self._awaited for target in targets for key in _keys(target))
        return self._future(value) if later else self.visit(value)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        node.value = self._assigned(node.value, *node.targets)
        node.targets = [self.visit(target) for target in node.targets]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self._assigned(node.value, node.target)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        node.value = self._assigned(node.value, node.target)
        node.target = self.visit(node.target)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        forgotten = calls_one_of(self._coroutines, node)
        node.value = self.visit(node.value)
        if forgotten and self._async_scope[-1]:
            node.value = ast.copy_location(ast.Await(_call(AWAIT, node.value, at=node)), node)
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if node.value is not None:
            now = self._in_try[-1] or (self._async_scope[-1] and isinstance(node.value, ast.Call))
            node.value = self.visit(node.value) if now else self._between(node.value)
        return node

    def visit_Yield(self, node: ast.Yield) -> ast.AST:
        if node.value is not None:
            node.value = self._between(node.value)
        return node

    def _visit_try(self, node: Any) -> ast.AST:
        """A call that is returned from within `try` fails within it."""
        self._in_try.append(True)
        node.body = [self.visit(statement) for statement in node.body]
        self._in_try.pop()
        for name in ("handlers", "orelse", "finalbody"):
            setattr(node, name, [self.visit(part) for part in getattr(node, name)])
        return node  # type: ignore[no-any-return]

    visit_Try = visit_TryStar = _visit_try

    def _scope(self, node: Any, is_async: bool) -> ast.AST:
        """A definition: its body is a scope of its own; all else of it belongs to the scope around."""
        body = node.body
        node.body = []
        self.generic_visit(node)
        self._async_scope.append(is_async)
        self._in_try.append(False)
        try:
            if isinstance(node, ast.Lambda):
                node.body = self._between(body)
            else:
                node.body = [self.visit(statement) for statement in body]
            return node  # type: ignore[no-any-return]
        finally:
            self._async_scope.pop()
            self._in_try.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._scope(node, is_async=False)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return self._scope(node, is_async=False)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._scope(node, is_async=True)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._scope(node, is_async=False)

    # the rest

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.value = self.visit(node.value)
        if node.attr in CLOCK_METHODS and isinstance(node.ctx, ast.Load):
            return _call(CLOCK, node.value, ast.Constant(node.attr), at=node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        module = node.module or ""
        if any(alias.name == "*" for alias in node.names) and module in self._modules:
            node.names = [ast.alias(name) for name in sorted(self._modules[module])]
        return node


def _call(helper: str, *arguments: ast.expr, at: ast.AST) -> ast.Call:
    call = ast.Call(ast.Name(helper, ast.Load()), list(arguments), [])
    for node in (call, call.func, *arguments):
        if not hasattr(node, "lineno"):
            ast.copy_location(node, at)
    return ast.fix_missing_locations(call)


def _name(func: ast.expr) -> str:
    return func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""


def _key(node: ast.expr) -> str:
    """The variable that an expression starts from, or an attribute of one: `tasks` in `tasks[c].x()`, `self.tasks`."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return f"{owner}.{name}"
        case ast.Call(func=ast.Attribute(value=inner)):
            return _key(inner)
        case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
            return _key(inner)
    return ""


def _awaited_names(tree: ast.Module) -> set[str]:
    """Variables whose content is awaited or handed to asyncio somewhere in the program."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Await):
            names.add(_key(node.value) if not isinstance(node.value, ast.Call) else "")
        elif isinstance(node, ast.Call) and _name(node.func) in _CONSUMERS:
            names.update(key for argument in node.args for key in _keys(argument))
    for _ in range(2):  # `for t in tasks: await t`, also through one more level of unpacking
        for node in ast.walk(tree):
            if isinstance(node, ast.For | ast.comprehension) and any(
                isinstance(t, ast.Name) and t.id in names for t in ast.walk(node.target)
            ):
                names.update(_keys(node.iter))
    return names - {"", "asyncio"}


def _keys(node: ast.expr) -> Iterable[str]:
    """The variables whose content an expression hands on."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in _PASSING:
            return [key for argument in arguments for key in _keys(argument)]
        case ast.Starred(value=inner):
            return _keys(inner)
        case ast.List(elts=inner) | ast.Tuple(elts=inner) | ast.Set(elts=inner):
            return [key for item in inner for key in _keys(item)]
        case ast.ListComp(elt=inner) | ast.GeneratorExp(elt=inner) | ast.SetComp(elt=inner):
            return _keys(inner)
    return [_key(node)]
