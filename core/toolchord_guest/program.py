"""From a program's text to code: what its value is, and what its names belong to.

The program becomes the body of one function (async where it awaits) whose names are all global, so `return` and
`await` work at the top level, line numbers stay the program's own, and nested functions see its variables.
"""

from __future__ import annotations
import __future__

import ast
import textwrap
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from toolchord_guest.keeping import definitions, names_defined
from toolchord_guest.language import Policy
from toolchord_guest.placement import Calls, calls_one_of, coroutines, own_nodes

VALUE, MAIN, END = "<value>", "<main>", "<end>"


@dataclass
class Compiled:
    """Code that defines the program's main function, and what to do with it."""

    code: CodeType
    is_async: bool
    assigned: list[str] = field(default_factory=list)
    captures: bool = False
    sync_style: bool = True
    definitions: dict[str, str] = field(default_factory=dict)


def compile_program(
    source: str,
    *,
    filename: str,
    tools: Container[str],
    policy: Policy | None,
    modules: Mapping[str, Collection[str]],
    examine: Callable[[ast.Module], Exception | None] | None = None,
    keep: bool = False,
) -> Compiled:
    """Compile a program.

    `examine` looks at it as it was written; what it returns is raised, unless the program can't be compiled. With
    `keep`, the text of its definitions is kept too; empty for names that it binds in another way.

    Raises SyntaxError, `language.Refusal`, RecursionError or MemoryError if it can't be compiled.
    """
    tree = parse(source, filename)
    _check_top_level(tree, filename)
    features = _future_features(tree)
    problem = examine(tree) if examine is not None else None  # before the policy rewrites the tree
    defined: dict[str, str] = {}
    if keep:
        rebound = _bound_names([node for node in tree.body if not names_defined(node)])
        rebound.update(*(node.names for node in ast.walk(tree) if isinstance(node, ast.Global)))
        defined = dict.fromkeys(sorted(rebound), "") | definitions(tree.body, rebound)
    if policy is not None:
        tree = policy.judge(tree)
    is_async = any(map(_awaits, tree.body)) or _forgets_to_await(tree)
    sync_style = not any(
        isinstance(n, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith) for n in ast.walk(tree)
    )
    tree = Calls(tools, tree, modules, is_async=is_async).visit(tree)
    assigned = _assigned_names(tree.body)
    captures = _capture_tail(tree.body)
    names = sorted(_bound_names(tree.body) | ({VALUE} if captures else set()))
    lazy = bool(features & __future__.annotations.compiler_flag)
    body = [*([ast.Global(names)] if names else []), *_body(tree.body, lazy), _end(tree)]
    maker = ast.AsyncFunctionDef if is_async else ast.FunctionDef
    arguments = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    type_params: dict[str, Any] = {"type_params": []} if "type_params" in ast.FunctionDef._fields else {}
    main = maker(name=MAIN, args=arguments, body=body, decorator_list=[], **type_params)
    module = ast.fix_missing_locations(ast.Module(body=[main], type_ignores=[]))
    code = compile(module, filename, "exec", flags=features, dont_inherit=True)
    if problem is not None:
        raise problem
    return Compiled(code, is_async, assigned, captures, sync_style, defined)


def parse(source: str, filename: str) -> ast.Module:
    """The tree of a program as it was written."""
    source = source.removeprefix("\ufeff")  # as CPython does with a file
    try:
        return ast.parse(source, filename)
    except IndentationError:
        dedented = textwrap.dedent(source)  # a program that was cut out of an indented block
        if dedented == source:
            raise
        return ast.parse(dedented, filename)


def _check_top_level(tree: ast.Module, filename: str) -> None:
    for node in own_nodes(tree.body):
        if isinstance(node, ast.Yield | ast.YieldFrom):
            raise SyntaxError("'yield' outside function", (filename, node.lineno, node.col_offset + 1, None))


def _future_features(tree: ast.Module) -> int:
    """Take `from __future__` imports out of the program; the compiler's flags for them."""
    flags = 0
    for node in [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__" and not n.level]:
        for alias in node.names:
            feature = getattr(__future__, alias.name, None)
            flags |= getattr(feature, "compiler_flag", 0)
        tree.body.remove(node)
    return flags


def _awaits(statement: ast.stmt) -> bool:
    for node in own_nodes([statement]):
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            return True
        if isinstance(node, ast.comprehension) and node.is_async:
            return True
    return False


def _forgets_to_await(tree: ast.Module) -> bool:
    """Whether the top level calls a coroutine function of the program's and does nothing with the coroutine."""
    functions = coroutines(tree)
    return any(calls_one_of(functions, node) for node in own_nodes(tree.body))


def _bound_names(body: list[ast.stmt]) -> set[str]:
    """Every name that the top level binds or deletes."""
    names: set[str] = set()
    for node in own_nodes(body):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.alias():
                names.add(node.asname or node.name.split(".")[0])
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
                if node.name:
                    names.add(node.name)
            case ast.MatchMapping():
                if node.rest:
                    names.add(node.rest)
            case ast.Global():
                names.update(node.names)
    return names - _comprehension_targets(body)


def _comprehension_targets(body: list[ast.stmt]) -> set[str]:
    """Names that are only ever comprehension variables: they belong to the comprehension."""
    inside: set[str] = set()
    outside: set[str] = set()
    targets: set[int] = set()
    for node in own_nodes(body):
        if isinstance(node, ast.comprehension):
            for target in ast.walk(node.target):
                if isinstance(target, ast.Name):
                    inside.add(target.id)
                    targets.add(id(target))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in targets:
            outside.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            outside.add(node.name)
        elif isinstance(node, ast.alias):
            outside.add(node.asname or node.name.split(".")[0])
    return inside - outside


def _assigned_names(body: list[ast.stmt]) -> list[str]:
    """Names that the top level assigns, in the order of the text: the last bound one is the value of last resort."""
    names: list[str] = []
    for node in own_nodes(body):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.AnnAssign) and node.value is not None):
            targets = [node.target]
        for target in targets:
            for name in ast.walk(target):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    names.append(name.id)
    return names


def _capture_tail(body: list[ast.stmt]) -> bool:
    """Turn the expressions that the program may end with into assignments of its value; whether there are any."""
    if not body:
        return False
    last = body[-1]
    if isinstance(last, ast.Expr):
        target = ast.Name(VALUE, ast.Store())
        body[-1] = ast.copy_location(ast.Assign([target], last.value), last)
        return True
    blocks: list[list[ast.stmt]] = []
    match last:
        case ast.If():
            blocks = [last.body, last.orelse]
        case ast.With() | ast.AsyncWith():
            blocks = [last.body]
        case ast.Try():
            blocks = [last.orelse or last.body, *(handler.body for handler in last.handlers)]
        case ast.Match():
            blocks = [case.body for case in last.cases]
    return any([_capture_tail(block) for block in blocks])  # noqa: C419 (each block is changed)


def _end(node: ast.AST) -> ast.Return:
    return ast.fix_missing_locations(ast.copy_location(ast.Return(ast.Name(END, ast.Load())), node))


def _body(body: list[ast.stmt], lazy: bool) -> list[ast.stmt]:
    """The top level as the body of a function: annotated globals made plain, and a bare `return` told from a value."""
    plain: list[ast.stmt] = []
    for statement in body:
        done = _TopLevel(lazy).visit(statement)
        plain.extend(done if isinstance(done, list) else [done])
    return plain


class _TopLevel(ast.NodeTransformer):
    def __init__(self, lazy: bool) -> None:
        self._lazy = lazy
        """Whether annotations are not evaluated."""

    def visit_Return(self, node: ast.Return) -> ast.AST:
        return node if node.value is not None else _end(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if not isinstance(node.target, ast.Name):
            return node
        note = ast.copy_location(ast.Pass() if self._lazy else ast.Expr(node.annotation), node)
        if node.value is None:
            return note
        return [ast.copy_location(ast.Assign([node.target], node.value), node), note]

    def _leave(self, node: ast.AST) -> ast.AST:
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = _leave
