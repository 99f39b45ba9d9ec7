# ruff: noqa: E501
"""Wall one: what reached past it once is refused, and ordinary programs that use the same features still work."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.core.wall_one_audit import VERDICTS, reflective
from toolchord import CodeSandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(tools=[]) as sandbox:
        yield sandbox


REFUSED = {
    "super Formatter.get_field": """
import string, json
g,_ = super(string.Formatter, string.Formatter()).get_field("0.__globals__", (json.dumps,), {})
return str(g["__builtins__"]["__import__"]("os"))
""",
    "attrgetter._get": """
import operator, json
class A: _get = None
G = type(operator.attrgetter("x")._get)
return str(G("__globals__")(json.dumps)["__builtins__"]["__import__"]("os"))
""",
    "update_wrapper": """
import functools, json
class Box: pass
b = Box()
functools.update_wrapper(b, json.dumps, assigned=("__globals__",), updated=())
return str(vars(b)["__globals__"]["__builtins__"]["__import__"]("os"))
""",
    "ForwardRef._evaluate": """
import typing
class A: _evaluate = None
f = typing.get_args(typing.List["__import__('os')"])[0]
return str(f._evaluate({}, {}, frozenset()))
""",
    "redirect_stdout _stream": """
import contextlib
class R(contextlib.redirect_stdout):
    _stream = "modules"
    _old_targets = None
r = R({})
r.__enter__()
m = r._old_targets[-1]
r.__exit__(None,None,None)
return str(m["os"])
""",
    "match_args": """
import json
class M(type):
    def __instancecheck__(cls, x): return True
class C(metaclass=M):
    __match_args__ = ("__globals__",)
match json.dumps:
    case C(g):
        pass
return str(g["__builtins__"]["__import__"]("os"))
""",
    "singledispatch annotations": """
import functools, json
sink = []
def g(x: int): pass
g.__annotations__["x"] = "sink.append(json.dumps.__globals__) or int"
@functools.singledispatch
def f(x): pass
f.register(g)
return str(sink[0]["__builtins__"]["__import__"]("os"))
""",
    "dataclass eq injection": """
import dataclasses
sink = []
class C:
    a: int
    def __init__(self): self.a = 1; self.s = sink
C.__annotations__["a,self.s.append(__import__('os'))"] = int
D = dataclasses.dataclass(init=False, repr=False)(C)
D() == D()
return str(sink[:1])
""",
    "make_dataclass str subclass": """
import dataclasses
class S(str):
    def isidentifier(self): return True
return str(dataclasses.make_dataclass("X", [S("a"), ("b", int)]))
""",
    "global_enum poison guards": """
import enum, json
class E(enum.Enum):
    attribute_problem = 1
    def __call__(self, *a): return None
E2 = enum.Enum("E2", {"attribute_problem": 1}, module="toolchord_guest.guards", type=type("T", (), {"__call__": lambda self, *a: None, "__init__": lambda self, *a: None}))
enum.global_enum(E2)
return str(getattr(json.dumps, "__globals__")["__builtins__"]["__import__"]("os"))
""",
    "from_attributes hub": """
from pydantic import BaseModel, Field
from typing import Any
class M(BaseModel):
    model_config = {"from_attributes": True}
    h: Any = Field(alias="_hub")
return str(M.model_validate(search_tools).h)
""",
    "_hub defined": """
class A: _hub = None
return str(search_tools._hub.link)
""",
    "_hub forge frames": """
class A: _hub = None
link = search_tools._hub.link
link.send([3, "stdout", "forged!"])
return "x"
""",
    "get_loop": """
import asyncio
async def m():
    return str(asyncio.current_task().get_loop())
return asyncio.run(m())
""",
    "getattr format": """
import json
return getattr("{0.__globals__[__builtins__][__import__]}", "format")(json.dumps)
""",
    "attrgetter format": """
import json, operator
return operator.attrgetter("format")("{0.__globals__[__builtins__][__import__]}")(json.dumps)
""",
    "super format": """
import json
class S(str):
    def f(self, *a): return super().format(*a)
return S("{0.__globals__[__builtins__][__import__]}").f(json.dumps)
""",
    "match format": """
import json
match "{0.__globals__[__builtins__][__import__]}":
    case str(format=f): pass
return f(json.dumps)
""",
    "logging formatter": """
import json, logging, io
s = io.StringIO()
h = logging.StreamHandler(s)
h.setFormatter(logging.Formatter("{args[0].__globals__[__builtins__][__import__]}", style="{"))
l = logging.getLogger("x"); l.addHandler(h); l.propagate = False
class R: pass
l.warning("%s", json.dumps)
return s.getvalue()
""",
    "copy reduce setattr": """
import copy
class X:
    __reduce_ex__ = lambda self, p: ((lambda: search_tools), (), (None, {"_tool": "poisoned"}))
copy.copy(X())
class A: _tool = None
return search_tools._tool
""",
    "asdict metaclass": """
import dataclasses
@dataclasses.dataclass
class F: name: str = ""
f = dataclasses.field()
f.name = "__subclasses__"
f._field_type = dataclasses.fields(F)[0]._field_type
class M(type):
    __dataclass_fields__ = {"x": f}
class C(metaclass=M): pass
return str(dataclasses.asdict(C))
""",
    "pydantic string annotation attribute chain": """
from pydantic import BaseModel, Field
from typing import Annotated
import json
class M(BaseModel):
    a: "Annotated[int, json.dumps.__globals__['__builtins__']['__import__']]" = 0
M.model_rebuild(force=True, _types_namespace={"json": json, "Annotated": Annotated})
return str(M.model_fields["a"].metadata[0]("os"))
""",
    "pydantic via metaclass call": """
from pydantic import BaseModel
from typing import Annotated
import json
M = type(BaseModel)("M", (BaseModel,), {"__annotations__": {"a": "Annotated[int, json.dumps.__globals__]"}, "__module__": "__main__"})
M.model_rebuild(force=True, _types_namespace={"json": json, "Annotated": Annotated})
return str(M.model_fields["a"].metadata)[:200]
""",
    "get_stack": """
import asyncio
async def main():
    lp = asyncio.current_task().get_loop()
    f = lp.default_exception_handler
    lp.set_debug(True)
    fr = asyncio.current_task().get_stack()
    return str(fr), str(lp.run_in_executor.__class__)
await main()
""",
    "greenlet frame": """
import asyncio, json
class A: _scheduled = None; _ready=None; _hub=None; link=None; _main=None
h = search_tools._hub
g = h._main
return str(g), str(getattr(g, "gr_frame", None))
""",
    "code object + FunctionType": """
import functools, json
class Box:
    def __setattr__(self, n, v): found.append(v)
found = []
functools.wraps(json.dumps, assigned=("__code__",), updated=())(Box())
F = type(lambda: 0)
f = F(found[0].replace(co_names=found[0].co_names), {})
return str(found)
""",
    "match_args by a metaclass": """
import json
class M(type):
    def __new__(m, name, bases, ns):
        return super().__new__(m, name, bases, {**ns, "__match_args__": ("__globals__",)})
    def __instancecheck__(cls, x): return True
class C(metaclass=M): pass
match json.dumps:
    case C(g): pass
return str(g)
""",
    "type.__new__": """
class M(type): pass
C = type.__new__(M, "C", (), {"__reduce_ex__": lambda self, p: "x"})
return str(C)
""",
    "another object dict": """
import asyncio, functools
class Box: _loop = None
b = Box()
q = asyncio.TaskGroup()
functools.update_wrapper(b, q)
return str(vars(b)["_tasks"])
""",
    "an alias of a started call": """
p = search_tools("x")
return type(p).__getattr__("x", "__class__")
""",
    "dir": """return dir()""",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_reached_past_the_wall_is_refused(sandbox: CodeSandbox, name: str) -> None:
    result = await sandbox.execute(REFUSED[name])
    assert result.error is not None, result.value
    assert result.error.kind in ("refused", "program"), result.error
    assert "module 'os'" not in str(result.error)


ORDINARY = {
    "items": """
class Bag:
    def __init__(self):
        self._items, self._data, self._name = [], {}, "b"
        self._value = 0
        self.__total = 0
    def add(self, x):
        self._items.append(x)
        self._data[x] = 1
        self._value += x
        self._items += [x]
        self.__total += x
        return self
    @property
    def total(self): return (self._value, self.__total, len(self._items))
    def drop(self): del self._data
b = Bag().add(2).add(3)
b.drop()
return b.total, hasattr(b, "_data"), getattr(b, "_items"), "{0._name}".format(b), b._name
""",
    "inherit": """
from abc import ABC, abstractmethod
from collections import UserDict, OrderedDict, defaultdict
from enum import Enum
from typing import Generic, TypeVar, Protocol
import threading
K = TypeVar("K")
class A(ABC):
    _registry = {}
    def __init_subclass__(cls, **kw):
        super().__init_subclass__(**kw)
        cls._registry[cls.__name__] = cls
    @abstractmethod
    def f(self): ...
class B(A, Generic[K]):
    def __init__(self): self._cache = {}; self._lock = threading.Lock()
    def f(self):
        with self._lock: self._cache["x"] = 1
        return self._cache
class D(dict):
    def __init__(self, *a): super().__init__(*a); self._keys = 1
    def __missing__(self, k): return self._keys
class E(Exception):
    def __init__(self, m): super().__init__(m); self._code = 5
class C(Enum):
    X = 1
    _ignore_ = []
    @classmethod
    def _missing_(cls, v): return cls.X
class U(UserDict):
    def __init__(self): super().__init__(); self._count = 3
class S:
    _instance = None
    def __new__(cls, *a):
        if cls._instance is None: cls._instance = super().__new__(cls)
        return cls._instance
class M(type):
    _all = {}
    def __new__(mcs, name, bases, ns):
        cls = super().__new__(mcs, name, bases, ns)
        mcs._all[name] = cls
        return cls
    def __call__(cls, *a): return super().__call__(*a)
class N(metaclass=M):
    _name = "n"
    __slots__ = ("_value",)
n = N(); n._value = 4
return B().f(), list(A._registry), D()["q"], E("m")._code, C(9).name, U()._count, S() is S(), list(M._all), N._name, n._value
""",
    "pyd": """
from __future__ import annotations
from pydantic import BaseModel, PrivateAttr, field_validator, Field
from typing import Optional
class Node(BaseModel):
    name: str
    child: "Node | None" = None
    kids: list[Node] = []
    opt: Optional["Node"] = None
    _cache: dict = PrivateAttr(default_factory=dict)
    @field_validator("name")
    @classmethod
    def _strip(cls, v): return v.strip()
    def g(self):
        self._cache["a"] = 1
        return self._cache
n = Node(name=" a ", child={"name": "b"}, kids=[{"name": "c"}])
return n.model_dump(), n.g(), vars(n)["name"]
""",
    "pyd2": """
from pydantic import BaseModel
import datetime, typing, decimal
class Line(BaseModel):
    a: "datetime.date"
    b: "decimal.Decimal | None" = None
class Tree(BaseModel):
    lines: "list[Line]"
    kids: typing.List["Tree"] = []
t = Tree(lines=[{"a": "2020-01-01"}], kids=[{"lines": []}])
return t.model_dump()
""",
    "dc": """
from dataclasses import dataclass, field, asdict, replace, fields, make_dataclass, astuple
@dataclass(order=True)
class P:
    x: int
    _y: int = 0
    tags: list = field(default_factory=list)
    class_: str = "c"
@dataclass(frozen=True, slots=True)
class Q:
    a: int
    n: "Q | None" = None
R = make_dataclass("R", [("u", int), "v"])
match P(1, 2):
    case P(x, y): z = (x, y)
return asdict(P(1)), replace(P(1), x=2).x, [f.name for f in fields(P)], asdict(Q(1, Q(2))), R(1, 2).u, z, vars(P(3)), astuple(Q(1))
""",
    "match": """
class Pt:
    __match_args__ = ("x", "y")
    def __init__(self, x, y): self.x = x; self.y = y
def f(p):
    match p:
        case Pt(0, y): return y
        case Pt(x=1): return "one"
        case {"a": [Pt(x, _), *_]}: return x
return f(Pt(0, 3)), f(Pt(1, 1)), f({"a": [Pt(7, 1)]})
""",
    "copy": """
import copy, collections, datetime
class A:
    def __init__(self, x): self._x = x; self.l = [x]
    def __eq__(self, o): return self._x == o._x
class Sl:
    __slots__ = ("a", "_b")
s = Sl(); s.a = 1; s._b = 2
a = A([1])
b = copy.deepcopy(a); c = copy.copy(a)
class DD(dict): pass
class Err(Exception): pass
d = copy.deepcopy({"a": A(1), "d": DD(x=1), "o": collections.OrderedDict(a=1), "t": datetime.date(2020,1,1), "s": s, "e": Err("q")})
return b == a, b.l is a.l, c.l is a.l, d["s"]._b, d["d"], d["a"]._x, str(d["e"])
""",
    "func": """
import functools, operator, contextlib, io, string, logging, types, traceback
def deco(f):
    @functools.wraps(f)
    def w(*a): return f(*a)
    return w
@deco
def hi(): "doc"; return 1
@functools.singledispatch
def show(x): return "o"
@show.register
def _(x: int): return "i"
@show.register(list)
def _(x): return "l"
class K:
    @functools.singledispatchmethod
    def m(self, a): return "o"
    @m.register
    def _(self, a: str): return "s"
    @functools.cached_property
    def c(self): return 5
o = io.StringIO()
with contextlib.redirect_stdout(o): print("hey")
class F(string.Formatter):
    def get_value(self, k, a, kw): return kw.get(k, "?") if isinstance(k, str) else super().get_value(k, a, kw)
fm = "{} {b:>4}".format
try: 1/0
except Exception as e: traceback.print_exception(e)
h = logging.StreamHandler(o); h.setFormatter(logging.Formatter("%(name)s %(process)d %(message)s"))
lg = logging.getLogger("q"); lg.addHandler(h); lg.warning("n %d", 3)
ns = types.SimpleNamespace(a=1)
return hi.__name__, hi.__doc__, show(1), show([]), show("s"), K().m("x"), K().c, o.getvalue(), F().format("{z} {0}", 1), string.Formatter().format("{:>3}{a.real}", 1, a=2), fm(1, b=2), list(map("{}!".format, [1])), str.format("{}", 3), ns.__dict__, vars(ns), getattr("{}", "format")(1), operator.methodcaller("format", 2)("{}")
""",
    "thread": """
import threading
class W(threading.Thread):
    def __init__(self): super().__init__(); self._result = None
    def run(self): self._result = 4
w = W(); w.start(); w.join()
class Stack(list):
    def __init__(self): super().__init__(); self._max = 3
class It:
    def __iter__(self): self._i = 0; return self
    def __next__(self):
        self._i += 1
        if self._i > 3: raise StopIteration
        return self._i
class Ctx:
    def __getattr__(self, n): return n
    def __setattr__(self, n, v): object.__setattr__(self, n, v)
class Desc:
    def __set_name__(self, o, n): self._name = "_" + n
    def __get__(self, i, o): return getattr(i, self._name, None)
    def __set__(self, i, v): setattr(i, self._name, v)
class H: a = Desc()
h = H(); h.a = 5
c = Ctx(); c._q = 1
T = type("T", (Stack,), {"f": lambda self: self._max, "__repr__": lambda s: "T"})
return w._result, list(It()), c.foo, c._q, h.a, T().f(), repr(T())
""",
}


@pytest.mark.parametrize("name", ORDINARY)
async def test_an_ordinary_program_works(sandbox: CodeSandbox, name: str) -> None:
    result = await sandbox.execute(ORDINARY[name])
    assert result.error is None, result.error
    assert result.value == EXPECTED[name]


EXPECTED: dict[str, object] = {
    "items": ((5, 5, 4), False, [2, 2, 3, 3], "b", "b"),
    "inherit": ({"x": 1}, ["B"], 1, 5, "X", 3, True, ["N"], "n", 4),
    "match": (3, "one", 7),
    "copy": (True, False, True, 2, {"x": 1}, 1, "q"),
    "thread": (4, [1, 2, 3], "foo", 1, 5, 3, "T"),
    "pyd2": {"lines": [{"a": dt.date(2020, 1, 1), "b": None}], "kids": [{"lines": [], "kids": []}]},
    "pyd": (
        {
            "name": "a",
            "child": {"name": "b", "child": None, "kids": [], "opt": None},
            "kids": [{"name": "c", "child": None, "kids": [], "opt": None}],
            "opt": None,
        },
        {"a": 1},
        "a",
    ),
    "dc": (
        {"x": 1, "_y": 0, "tags": [], "class_": "c"},
        2,
        ["x", "_y", "tags", "class_"],
        {"a": 1, "n": {"a": 2, "n": None}},
        1,
        (1, 2),
        {"x": 3, "_y": 0, "tags": [], "class_": "c"},
        (1, None),
    ),
    "func": (
        *("hi", "doc", "i", "l", "o", "s", 5, "hey\nq 1 n 3\n", "? 1", "  12", "1    2", ["1!"], "3"),
        *({"a": 1}, {"a": 1}, "1", "2"),
    ),
}


async def test_every_reflective_function_has_a_verdict() -> None:
    assert set(reflective()) <= set(VERDICTS)
