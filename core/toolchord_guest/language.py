"""Wall one: which Python a program may be, decided at compile time, as a subclass of RestrictedPython's transformer.

Attribute names are constants in the source, so they are judged here and a running loop pays nothing. What can't be
judged yet (`str.format` fields, three-argument `type`) is sent through a helper whose name no source can spell, so
nothing can shadow it. A node that this module does not know is refused, as RestrictedPython does.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Container, Mapping
from typing import Any

from RestrictedPython.transformer import INSPECT_ATTRIBUTES, RestrictingNodeTransformer

FORMAT = "<format>"
TYPE = "<type>"
OWN = "<own>"
ATTRIBUTE = "<attribute>"

REFUSED_BUILTINS = {
    "open": "there are no files here; use the tools",
    "eval": "write the expression itself, or ast.literal_eval for data",
    "exec": "write the statements themselves",
    "compile": "write the code itself",
    "input": "nobody can answer while the program runs; take the value from the task or a tool",
    "globals": "keep the values in a dict of your own",
    "locals": "keep the values in a dict of your own",
    "__import__": "write an import statement",
    "breakpoint": "use print",
    "exit": "use return",
    "quit": "use return",
    "help": "use describe_tool(name)",
    "copyright": "",
    "credits": "",
    "license": "",
}

IMPORT_HINTS = {
    "os": "there is no operating system here; use the tools",
    "sys": "use print for output and return to end",
    "subprocess": "there are no processes here; use the tools",
    "socket": "there is no network here; use the tools",
    "requests": "there is no network here; use the tools",
    "httpx": "there is no network here; use the tools",
    "aiohttp": "there is no network here; use the tools",
    "urllib.request": "there is no network here; use the tools",
    "pandas": "use lists, dicts, statistics and collections",
    "numpy": "use lists, math and statistics",
    "secrets": "use uuid or random; they are seeded per run",
    "pickle": "use json",
}

_PROTOCOL = (
    "init new call enter exit aenter aexit aiter anext await iter next len length_hint getitem setitem delitem "
    "missing contains reversed eq ne lt le gt ge hash bool str repr bytes format int float complex index round trunc "
    "floor ceil add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or neg pos abs invert radd "
    "rsub rmul rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror iadd isub imul imatmul "
    "itruediv ifloordiv imod ipow ilshift irshift iand ixor ior post_init copy deepcopy init_subclass set_name "
    "class_getitem doc name qualname version cause context suppress_context notes members match_args fields "
    "annotations dataclass_fields"
).split()
READABLE = frozenset(f"__{name}__" for name in _PROTOCOL)
"""Double-underscore attributes that a program may read or call."""

_NAMES = frozenset({"__name__", "__doc__", "__debug__"})

_SINGLE = frozenset(
    "_asdict _replace _fields _make _field_defaults _value_ _name_ _missing_ _generate_next_value_".split()
)

DENIED = frozenset(INSPECT_ATTRIBUTES) | frozenset(
    (
        "mro __subclasses__ __globals__ __builtins__ __code__ __closure__ __self__ __func__ __wrapped__ __mro__ "
        "__base__ __bases__ __module__ __loader__ __spec__ __import__ __reduce__ __reduce_ex__ __getstate__ "
        "__setstate__ __getattribute__ __traceback__ with_traceback tb_frame gi_frame cr_frame ag_frame f_globals "
        "f_builtins __defaults__ __kwdefaults__ __weakref__ __subclasshook__ __prepare__ __instancecheck__ "
        "__subclasscheck__ gr_frame gr_context get_loop get_stack get_coro print_stack"
    ).split()
)
"""Never readable. Some of them may be defined in a class, where they only act on the program's own objects."""

_DEFINABLE = frozenset(
    {"__getattribute__", "__instancecheck__", "__subclasscheck__", "__prepare__", "__subclasshook__"}
)

CHECKED = frozenset({"__class__", "__dict__", "__getattr__", "__setattr__", "__delattr__", "__new__"})
"""Readable through a helper that looks at the object."""

_CLASS_NAMES = (READABLE | _DEFINABLE | CHECKED | frozenset(
    "__slots__ __del__ __get__ __set__ __delete__ __dir__ __sizeof__ __fspath__ __mro_entries__ __replace__ "
    "__all__ __version__ __author__ __rich_repr__ __abstractmethods__".split()
)) - {"__class__", "__dict__", "__dataclass_fields__", "__match_args__"}  # fmt: skip
"""Double-underscore names of the runtime that a class body may bind; those the runtime doesn't know are free."""

RUNTIME: set[str] = set()
"""Every name with an underscore in front that code of the runtime or its libraries uses; see `guards.collect`."""

FORMATS = frozenset({"format", "format_map"})

CLOCK_METHODS = frozenset({"now", "today", "utcnow"})
"""Attributes that may read the clock: of dates and times they read the run's own."""

_PLAIN_NODES = (
    "Constant List Tuple Set Dict FormattedValue JoinedStr TemplateStr Interpolation Load Store Del Starred "
    "Expression Expr UnaryOp UAdd USub Not Invert BinOp Add Sub Mult Div FloorDiv Mod Pow LShift RShift BitOr BitXor "
    "BitAnd MatMult BoolOp And Or Compare Eq NotEq Lt LtE Gt GtE Is IsNot In NotIn keyword IfExp Subscript Slice "
    "ListComp SetComp GeneratorExp DictComp comprehension Assign AugAssign Raise Assert Delete Pass If For While "
    "Break Continue Try TryStar With withitem Lambda arguments Return Yield YieldFrom Await AsyncFor AsyncWith "
    "NamedExpr Match match_case MatchValue MatchSingleton MatchSequence TypeAlias ParamSpec TypeVar TypeVarTuple "
    "Module"
).split()


class Refusal(Exception):
    """A program that the policy refuses: a line and a reason."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


def attribute_problem(name: str, defined: Container[str] = ()) -> str | None:
    """Why an attribute may not be read, or None. `defined` holds the names that the program itself defines."""
    if name in DENIED:
        return f"the attribute {name!r} reaches into the interpreter"
    if not name.startswith("_") or name in READABLE or name in _SINGLE or name in defined:
        return None
    if name.startswith("__") and name.endswith("__"):
        return f"the attribute {name!r} is not available here"
    return f"the attribute {name!r} is private to what defines it"


_CALLS = (ast.Call, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.NamedExpr, ast.Await)


def text_problem(text: str) -> str | None:
    """Why text that a library may evaluate as an annotation may not be, or None; what is no expression is none."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, _CALLS):
            return "a call inside a string annotation"
        if isinstance(node, ast.Attribute):
            problem = attribute_problem(node.attr)
            if problem is not None or node.attr in CHECKED:
                return problem or f"the attribute {node.attr!r} is not available in a string annotation"
        if isinstance(node, ast.Name) and node.id.startswith("__"):
            return f"the name {node.id!r} is not available here"
    return None


def is_private(name: str) -> bool:
    """Whether a name is one that only its object's own class should use."""
    return name.startswith("_") and name not in _SINGLE and not (name.startswith("__") and name.endswith("__"))


def class_problem(name: str, value: object = None) -> str | None:
    """Why a class may not have an attribute of that name (and value), or None."""
    if name == "__match_args__":
        plain = type(value) is tuple and all(type(n) is str and not n.startswith("_") for n in value)
        plain = plain and not any(attribute_problem(n) or n in CHECKED or n in FORMATS for n in value)  # type: ignore
        return None if plain else "'__match_args__' must be a literal tuple of public names"
    if name in DENIED - _DEFINABLE or (name.startswith("__") and name in RUNTIME and name not in _CLASS_NAMES):
        return f"{name!r} can't be defined here"
    return None


class Policy(RestrictingNodeTransformer):  # RestrictedPython ships no types
    """Judges and rewrites one program. The first refusal in the source's order is raised.

    Args:
        modules: the importable modules and the names each one offers.
        defined: attribute names that earlier programs of the session defined; grows.
    """

    def __init__(self, modules: Mapping[str, Container[str]], defined: set[str]) -> None:
        super().__init__()
        self._modules = modules
        self._defined = defined
        self._bound: set[str] = set()
        self._classes: list[str] = []

    def judge(self, tree: ast.Module) -> ast.Module:
        """The program, rewritten where a helper is needed; Refusal if it is not allowed."""
        for node in ast.walk(tree):
            self._note_definitions(node)
        self.refusals: list[Refusal] = []
        tree = self.visit(tree)
        if self.refusals:
            raise min(self.refusals, key=lambda refusal: refusal.line)
        return tree

    def _note_definitions(self, node: ast.AST) -> None:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                self._bound.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()):
                self._defined.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                self._bound.add(name)
            case ast.ClassDef(name=name, body=body):
                self._bound.add(name)
                for item in body:
                    for inner in ast.walk(item):
                        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                            self._defined.add(inner.id)
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                        self._defined.add(item.name)
            case ast.alias(name=name, asname=asname):
                self._bound.add(asname or name.split(".")[0])

    def error(self, node: ast.AST, info: str) -> None:
        """RestrictedPython's own way of refusing, and ours."""
        self.refusals.append(Refusal(getattr(node, "lineno", 0), info))

    def not_allowed(self, node: ast.AST) -> None:
        self.error(node, f"{type(node).__name__} is not part of the language here")

    def generic_visit(self, node: ast.AST) -> None:  # type: ignore[override]
        self.not_allowed(node)

    def _check_binding(self, node: ast.AST, name: str | None) -> None:
        if name is not None and name.startswith("__") and name.endswith("__") and name not in _NAMES:
            self.error(node, f"the name {name!r} is not available here")

    # names and attributes

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in REFUSED_BUILTINS and node.id not in self._bound:
            hint = REFUSED_BUILTINS[node.id]
            self.error(node, f"{node.id} is not available here" + (f": {hint}" if hint else ""))
        elif node.id == "__class__" and isinstance(node.ctx, ast.Load):
            return node  # in a method: its own class
        elif not (isinstance(node.ctx, ast.Store) and node.id in self._defined):  # a class body's own dunder
            self._check_binding(node, node.id)
        elif node.id != "__match_args__":  # judged with its value
            self._check_class_name(node, node.id)
        return node

    def _check_class_name(self, node: ast.AST, name: str, value: object = None) -> None:
        problem = class_problem(name, value)
        if problem is not None:
            self.error(node, problem)

    def _mangled(self, name: str) -> str:
        if not self._classes or not name.startswith("__") or name.endswith("__"):
            return name
        cls = self._classes[-1].lstrip("_")
        return f"_{cls}{name}" if cls else name

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        reading = isinstance(node.ctx, ast.Load)
        if node.attr in CHECKED and node.attr not in DENIED and reading:
            return self._helper(node, ATTRIBUTE, node.value, ast.Constant(node.attr))
        problem = attribute_problem(node.attr, self._defined)
        if problem is None and not reading and node.attr.startswith("__") and node.attr.endswith("__"):
            problem = (
                None if node.attr in ("__name__", "__doc__", "__qualname__") else f"{node.attr!r} can't be assigned"
            )
        if problem is not None:
            self.error(node, problem)
        if reading and node.attr in FORMATS:
            return self._helper(node, FORMAT, node.value, ast.Constant(node.attr))
        visited = self.node_contents_visit(node)
        name = self._mangled(node.attr)
        if is_private(name) and name in RUNTIME:  # also a name of the runtime: only on the program's own objects
            call = ast.Call(ast.Name(OWN, ast.Load()), [node.value, ast.Constant(name)], [])
            node.value = ast.fix_missing_locations(ast.copy_location(call, node))
        return visited

    def _helper(self, node: ast.expr, helper: str, *arguments: ast.expr) -> ast.AST:
        call = ast.Call(ast.Name(helper, ast.Load()), list(map(self.visit, arguments)), [])
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        is_type = isinstance(node.func, ast.Name) and node.func.id == "type" and "type" not in self._bound
        if is_type and (len(node.args) != 1 or isinstance(node.args[0], ast.Starred) or node.keywords):
            node.func = ast.copy_location(ast.Name(TYPE, ast.Load()), node.func)
            node.args = [self.visit(argument) for argument in node.args]
            node.keywords = [self.visit(keyword) for keyword in node.keywords]
            return node
        return self.node_contents_visit(node)

    # definitions

    def visit_FunctionDef(self, node: Any) -> ast.AST:
        if node.name not in self._defined:
            self._check_binding(node, node.name)
        else:
            self._check_class_name(node, node.name)
        self._check_annotation(node.returns)
        return self.node_contents_visit(node)  # type: ignore[no-any-return]

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._check_binding(node, node.name)
        for item in ast.walk(node):
            if isinstance(item, ast.Name) and item.id == "__match_args__" and isinstance(item.ctx, ast.Store | ast.Del):
                values = [n.value for n in node.body if isinstance(n, ast.Assign) and n.targets == [item]]
                try:
                    value = tuple(ast.literal_eval(values[0]))
                except (ValueError, TypeError, IndexError):
                    value = None
                self._check_class_name(item, item.id, value)
        self._classes.append(node.name)
        visited = self.node_contents_visit(node)
        self._classes.pop()
        return visited

    def visit_arg(self, node: ast.arg) -> ast.AST:
        self._check_binding(node, node.arg)
        self._check_annotation(node.annotation)
        return self.node_contents_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self._check_annotation(node.annotation)
        return self.node_contents_visit(node)

    def _check_annotation(self, annotation: ast.expr | None) -> None:
        """Text in an annotation is code to some libraries: judge it as such."""
        for node in ast.walk(annotation) if annotation is not None else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                problem = text_problem(node.value)
                if problem is not None:
                    self.error(node, problem)

    def _check_names(self, node: Any, names: list[str]) -> ast.AST:
        for name in names:
            self._check_binding(node, name)
        return self.node_contents_visit(node)  # type: ignore[no-any-return]

    def visit_Global(self, node: ast.Global) -> ast.AST:
        return self._check_names(node, node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        return self._check_names(node, node.names)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        return self._check_names(node, [node.name] if node.name else [])

    def visit_MatchAs(self, node: ast.MatchAs) -> ast.AST:
        return self._check_names(node, [node.name] if node.name else [])

    def visit_MatchStar(self, node: ast.MatchStar) -> ast.AST:
        return self._check_names(node, [node.name] if node.name else [])

    def visit_MatchOr(self, node: ast.MatchOr) -> ast.AST:
        return self.node_contents_visit(node)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> ast.AST:
        return self._check_names(node, [node.rest] if node.rest else [])

    def visit_MatchClass(self, node: ast.MatchClass) -> ast.AST:
        for name in node.kwd_attrs:  # a class pattern reads attributes with no attribute node
            problem = attribute_problem(name, self._defined) or (
                f"the attribute {name!r} can't be matched here"
                if name in CHECKED or name in FORMATS or (is_private(name) and self._mangled(name) in RUNTIME)
                else None
            )
            if problem is not None:
                self.error(node, problem)
        return self.node_contents_visit(node)

    # imports

    def visit_Import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            self._check_module(node, alias.name)
            self._check_binding(node, alias.asname)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.level or node.module is None:
            self.error(node, "relative imports have nothing to be relative to here")
            return node
        if not self._check_module(node, node.module):
            return node
        for alias in node.names:
            self._check_binding(node, alias.asname)
            full = f"{node.module}.{alias.name}"
            if alias.name != "*" and alias.name not in self._modules[node.module] and full not in self._modules:
                self.error(node, f"{alias.name!r} of {node.module!r} is not available here")
        return node

    def _check_module(self, node: ast.AST, name: str) -> bool:
        if name in self._modules:
            return True
        hint = IMPORT_HINTS.get(name) or IMPORT_HINTS.get(name.split(".")[0])
        offer = hint or "available are " + ", ".join(sorted(m for m in self._modules if "." not in m))
        self.error(node, f"import of {name!r} is not allowed: {offer}")
        return False

    def visit_alias(self, node: ast.alias) -> ast.AST:
        return node


for _name in _PLAIN_NODES:
    setattr(Policy, f"visit_{_name}", RestrictingNodeTransformer.node_contents_visit)

BUILTIN_NAMES = frozenset(dir(builtins))
