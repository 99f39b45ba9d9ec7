# ruff: noqa: E501  (a program is kept on one line)
"""Programs are ordinary Python: every construct works as in CPython, or is refused with its line and a reason."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import sys
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.corpus import normalised
from toolchord import CodeSandbox
from toolchord_guest.language import Policy
from toolchord_guest.program import compile_program

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox() as sandbox:
        yield sandbox


def cpython(code: str) -> tuple[Any, str, tuple[str, int] | None]:
    """What CPython makes of a program: the variable `r`, stdout, and the error's type and line."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    out = io.StringIO()
    failure = None
    with contextlib.redirect_stdout(out), warnings.catch_warnings(action="ignore"):
        try:
            compiled = compile(code, "<case>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            coroutine = eval(compiled, scope)
            if coroutine is not None:
                with asyncio.Runner() as runner:
                    runner.run(coroutine)
        except Exception as error:
            trace, line = error.__traceback__, 0
            while trace is not None:
                line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == "<case>" else line
                trace = trace.tb_next
            failure = type(error).__name__, line
    return scope.get("r"), out.getvalue(), failure


async def assert_same(sandbox: CodeSandbox, code: str) -> None:
    """The program gives the same variable `r`, the same stdout and the same error at the same line as in CPython."""
    value, stdout, failure = await asyncio.to_thread(cpython, code)
    result = await sandbox.execute(code + "\nr" if failure is None else code)
    found = None if result.error is None else (result.error.type, result.error.line or 0)
    assert found == failure, f"{result.error}\n{code}"
    assert result.stdout == stdout, code
    if failure is None:
        assert normalised(result.value) == normalised(value), code
        assert type(result.value) is type(value), code


# what is as in CPython, by construct

SAME: dict[str, list[str]] = {
    "arithmetic": [
        "r = [7 // -2, 7 % -2, -7 // 2, 2 ** 100, 2 ** -1, 0.1 + 0.2, 1e308 * 10, 5 / 2, ~5, 6 & 3 | 8 ^ 1, 1 << 70, divmod(-7, 2), 3 @ M() if False else 0]",
        "r = 1 / 0", "r = 'a' + 1", "r = [1, True, None] < [1, 2]", "r = 0x10 + 0b11 + 0o7 + 1_000 + int(1e3) + abs(3 + 4j)",
    ],
    "chained comparison": ["def f(x):\n    print(x)\n    return x\nr = [f(1) < f(2) < f(2) < f(9), 1 < 3 > 2 != 5, 'a' in 'abc' in ['abc']]"],
    "boolean operators": ["def f(x):\n    print(x)\n    return x\nr = [f(0) or f(2) and f(3), f(0) and f(1), not f([]), None is None, 1 is not None]"],
    "strings": [
        "r = [f'{1!r:>5}|{\"a\":^5}|{3.14159:.2f}|{10:x}|{1000000:,}', f'{{}}', f'{1=}', '%s %5.1f %%' % ('a', 2), 'a' 'b', r'\\n', '\\N{BULLET}', b'\\x00'.hex()]",
        "w = 6\np = 2\nr = [f'{3.14159:{w}.{p}f}', '{:{}}'.format('a', w), '{0[k]} {1[0]} {a.x}'.format({'k': 1}, [2], a=type('A', (), {'x': 5})())]",
        "class A:\n    def __init__(self):\n        self.x = 1\n        self._y = 2\n    def __format__(self, spec):\n        return 'A' + spec\nr = ['{0.x} {0._y} {0:q}'.format(A()), f'{A():z}', format(A(), 's'), '{a.x}'.format_map({'a': A()}), str.format('{0.x}', A())]",
        "r = '{0.nothing}'.format(5)", "r = '{'.format()", "f = '{}-{}'.format\nr = [f(1, 2), list(map('<{}>'.format, [1, 2]))]",
    ],
    "assignment": [
        "a = b = c = 1\n(d, e), *f = (1, 2), 3, 4\n[g, h] = 'xy'\na += 5\nr = [a, b, c, d, e, f, g, h]", "a, b = 1", "a, *b = []",
        "x = [0, 1, 2]\ni = 0\ni, x[i] = 1, 9\nr = x", "d = {}\nd['a'] = d['b'] = []\nd['a'] += [1]\nr = d", "t = ([],)\nt[0] += [1]",
        "class A: pass\na = A()\na.x = 1\na.x += 1\na.y: int = 5\na.l = []\na.l.append(3)\na.d = {}\na.d['k'] = a.x\nr = [a.x, a.y, a.l, a.d]",
    ],
    "annotations": [
        "x: int = 5\ny: str\nz: 'list[int]' = [x]\nr = [x, z]", "y: int\nr = y", "x: undefined_name = 5", "from __future__ import annotations\nx: undefined_name = 5\nr = x",
        "class A:\n    x: int = 1\n    y: str\nr = [A.__annotations__['x'].__name__, sorted(A.__annotations__)]", "def f(x: int, *a: str, k: float = 1.0, **b: bytes) -> None:\n    y: int = 3\n    return y\nr = f(1)",
        "if True:\n    x: int = 1\nfor i in range(2):\n    y: int = i\nr = [x, y]", "(x): int = 1\nr = x", "x: int = (1, 2)\nr = x", "x: tuple = 1, 2\nr = x",
    ],
    "walrus": [
        "if (n := 10) > 5:\n    r = n", "r = [y := 1, y ** 2, (z := 3) + z]", "r = [last := x for x in range(3)]\nr.append(last)", "r = any((hit := x) > 2 for x in range(9)), hit",
        "def f():\n    return [w := i for i in range(3)], w\nr = f()", "while (n := globals_free() if False else 0) > 0:\n    pass\nr = n",
        "def f():\n    global g\n    [g := i for i in range(3)]\nf()\nr = g", "x = 0\ny = [x := x + i for i in range(5)]\nr = [x, y]",
    ],
    "comprehensions": [
        "x = 'outer'\nr = [[x for x in range(3)], x]", "r = [(i, j) for i in range(3) if i for j in range(i) if j % 2 == 0]", "r = [{a: b for a, b in zip('ab', [1, 2])}, {c for c in 'aab'}, [*(d for d in 'ab')]]",
        "fs = [lambda: i for i in range(3)]\nr = [f() for f in fs]", "class A:\n    xs = [1, 2]\n    ys = [x * 2 for x in xs]\nr = A.ys", "class A:\n    n = 2\n    ys = [x * n for x in [1]]",
        "x = 5\nr = [x for _ in range(2) for x in [x if False else 1]]", "r = [[y for y in range(x)] for x in range(3)]", "r = x if (x := [i for i in range(2)]) else 0", "i = 'kept'\nlist(i for i in range(3))\n{i: 1 for i in range(3)}\nr = i",
        "r = [x for x in (y for y in range(3)) if (lambda q: q > 0)(x)]", "r = next(x for x in [])", "r = [*range(3), *'ab'], {**{'a': 1}, 'b': 2}, (*[1],), {*[1, 1]}",
    ],
    "conditions and loops": [
        "r = []\nfor i in range(10):\n    if i == 2:\n        continue\n    elif i == 5:\n        break\n    else:\n        r.append(i)\nelse:\n    r.append('no')", "r = 0\nwhile r < 5:\n    r += 1\nelse:\n    r = -r",
        "for i in []:\n    pass\nr = i", "for i, (a, *b) in enumerate([(1, 2, 3), 'xyz']):\n    pass\nr = [i, a, b]", "d = {}\nfor d['k'] in range(3):\n    pass\nr = d", "for x in 5:\n    pass",
        "x = [1, 2, 3]\nfor i in x:\n    if i == 1:\n        x.remove(2)\nr = x",
    ],
    "functions": [
        "def f(a, /, b, *c, d=4, **e):\n    return [a, b, c, d, e]\nr = [f(1, 2), f(1, b=2, d=3, z=5), f(*[1, 2, 3], **{'q': 1})]", "def f(x=[]):\n    x.append(1)\n    return x\nf()\nr = f()", "def f(a):\n    pass\nf()", "def f(a): pass\nf(1, b=2)",
        "def f(n):\n    return n * f(n - 1) if n else 1\nr = f(20)", "def f():\n    return f()\nf()", "r = (lambda *a, k=1, **kw: (a, k, kw))(1, 2, k=3, z=4)", "def f(): 'doc'\nr = [f.__doc__, f.__name__, f()]",
        "def f(n):\n    def g():\n        nonlocal n\n        n += 1\n        return n\n    return g\ng = f(1)\nr = [g(), g()]", "def f():\n    x += 1\nx = 1\nf()", "x = 1\ndef f():\n    print(x)\n    x = 2\nf()",
        "r = 1\ndef f():\n    r = 2\n    def g():\n        global r\n        r = 3\n    g()\n    return r\nprint(f(), r)", "def f():\n    global new\n    new = 5\nf()\nr = new", "def f():\n    del x\nx = 1\nf()",
        "def f():\n    try:\n        return 1\n    finally:\n        print('end')\nr = f()", "import functools\n@functools.lru_cache(maxsize=None)\ndef fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nr = fib(80)",
        "def d(*a):\n    def w(f):\n        print(a, f.__name__)\n        return f\n    return w\n@d(1)\n@d(2)\ndef f(): return 3\nr = f()", "def f():\n    f.n = getattr(f, 'n', 0) + 1\n    return f.n\nf()\nr = f()",
        "def f(x):\n    match x:\n        case 1: return 'a'\nr = [f(1), f(2)]", "def compose(*fs):\n    def g(x):\n        for f in reversed(fs):\n            x = f(x)\n        return x\n    return g\nr = compose(str, lambda x: x + 1)(3)",
    ],
    "generators": [
        "def g():\n    x = yield 1\n    print(x)\n    try:\n        yield 2\n    except ValueError as e:\n        yield repr(e)\n    finally:\n        print('closed')\n    return 9\ni = g()\nr = [next(i), i.send('s'), i.throw(ValueError('v'))]\ni.close()",
        "def g():\n    v = yield from h()\n    yield v\ndef h():\n    yield 1\n    return 2\nr = list(g())", "def g():\n    yield 1\ni = g()\nnext(i)\nnext(i)", "def g():\n    raise StopIteration\n    yield\nlist(g())", "r = (lambda: (yield))\nr = list(map(type, [])) + [next(r())]",
        "def count():\n    n = 0\n    while True:\n        yield n\n        n += 1\nimport itertools\nr = list(itertools.islice(count(), 5))", "class A:\n    def __iter__(self):\n        yield from [1, 2]\nr = [list(A()), max(A()), 2 in A(), dict(zip(A(), A()))]",
    ],
    "async": [
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x\nr = await asyncio.gather(f(1), f(2))", "async def g():\n    for i in range(3):\n        yield i\nr = [[i async for i in g()], {i: i async for i in g()}, [j async for j in (i + 1 async for i in g())]]",
        "class A:\n    async def __aenter__(self):\n        print('in')\n        return self\n    async def __aexit__(self, *e):\n        print('out', e[0])\n        return True\nasync with A() as a, A():\n    1 / 0\nr = 1",
        "class A:\n    def __init__(self): self.n = 0\n    def __aiter__(self): return self\n    async def __anext__(self):\n        self.n += 1\n        if self.n > 3: raise StopAsyncIteration\n        return self.n\nr = []\nasync for i in A():\n    r.append(i)\nelse:\n    r.append('end')",
        "class W:\n    def __await__(self):\n        return 5\n        yield\nr = await W()", "import asyncio\nasync def f():\n    raise ValueError(1)\ntry:\n    await f()\nexcept ValueError as e:\n    r = e.args", "async def f():\n    return 1\nasync def g():\n    return [await f() for _ in range(2)]\nr = await g()",
        "import contextlib\n@contextlib.asynccontextmanager\nasync def c(x):\n    print('a')\n    try:\n        yield x\n    finally:\n        print('b')\nasync with c(5) as v:\n    r = v", "async def g():\n    try:\n        yield 1\n        yield 2\n    finally:\n        print('closed')\na = g()\nr = await anext(a)\nawait a.aclose()",
        "import asyncio\nasync def f():\n    try:\n        await asyncio.sleep(10)\n    except asyncio.CancelledError:\n        print('cancelled')\n        raise\nt = asyncio.create_task(f())\nawait asyncio.sleep(0)\nt.cancel()\ntry:\n    await t\nexcept asyncio.CancelledError:\n    r = t.cancelled()",
        "import asyncio\nasync def f(n):\n    await asyncio.sleep(0)\n    if n == 2: raise ValueError(n)\n    return n\ntry:\n    async with asyncio.TaskGroup() as g:\n        for n in range(3): g.create_task(f(n))\nexcept* ValueError as e:\n    r = [str(x) for x in e.exceptions]",
    ],
    "exceptions": [
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    r = [str(e), type(e).__name__]\nelse:\n    r = 0\nfinally:\n    print('f')", "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    pass\nr = e", "class E(ValueError):\n    def __init__(self, a, b):\n        super().__init__(a)\n        self.b = b\ntry:\n    raise E(1, 2)\nexcept (KeyError, ValueError) as e:\n    r = [e.args, e.b, isinstance(e, E)]",
        "try:\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        raise ValueError('v') from e\nexcept ValueError as e:\n    r = [repr(e.__cause__), repr(e.__context__), e.__suppress_context__]", "raise", "raise ValueError", "raise 5", "assert 1 == 2, 'why'", "assert True\nr = 1",
        "def f():\n    for i in range(3):\n        try:\n            continue\n        finally:\n            print(i)\nr = f()", "try:\n    raise ExceptionGroup('g', [ValueError(1), TypeError(2), ExceptionGroup('h', [ValueError(3)])])\nexcept* ValueError as e:\n    r = len(e.exceptions)\nexcept* TypeError as e:\n    print(e.exceptions)",
        "e = ValueError('x')\ne.add_note('a note')\nr = e.__notes__", "try:\n    raise KeyError('k')\nexcept BaseException as e:\n    r = [str(e), repr(e), e.args]", "try:\n    int('x')\nexcept ValueError as e:\n    r = str(e)", "d = {}\ntry:\n    d['k']\nexcept LookupError as e:\n    r = e.args[0]",
        "def f():\n    try:\n        raise ValueError\n    except ValueError:\n        return 'caught'\n    finally:\n        return 'finally'\nr = f()", "import traceback\ntry:\n    1 / 0\nexcept Exception:\n    r = traceback.format_exc().splitlines()[-1]", "x = [1, 2]\nx[5]", "None.foo", "'a'.foo", "foo", "int('a')", "{}['a']", "[].pop()", "(1).x = 2", "len(5)", "import math\nmath.sqrt(-1)",
    ],
    "with": [
        "class C:\n    def __enter__(self):\n        print('in')\n        return 5\n    def __exit__(self, t, v, tb):\n        print('out', t and t.__name__)\n        return t is ValueError\nwith C() as a, C() as b:\n    r = a + b\n    raise ValueError\nprint('after')", "with 5:\n    pass",
        "import contextlib\n@contextlib.contextmanager\ndef c():\n    print(1)\n    yield 2\n    print(3)\nwith c() as r:\n    print(r)", "import contextlib\nwith contextlib.suppress(KeyError):\n    {}['a']\nr = 1", "import contextlib, io\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    print('hidden')\nr = out.getvalue()",
        "import contextlib\nwith contextlib.ExitStack() as s:\n    s.callback(print, 'bye')\n    r = 1", "with (open_() if False else __import__('contextlib').nullcontext(3)) as r:\n    pass" if False else "import contextlib\nwith (contextlib.nullcontext(3) as a, contextlib.nullcontext(4) as b):\n    r = a * b",
    ],
    "classes": [
        "class A:\n    n = 0\n    def __init__(self, x):\n        self.x = x\n        A.n += 1\n    def m(self):\n        return self.x\n    @staticmethod\n    def s(): return 's'\n    @classmethod\n    def c(cls): return cls(9).x\n    @property\n    def p(self): return self.x * 2\n    @p.setter\n    def p(self, v): self.x = v\na = A(1)\na.p = 5\nr = [a.m(), a.s(), A.s(), a.c(), a.p, A.n, A.m(a)]",
        "class A:\n    def f(self): return ['A']\nclass B(A):\n    def f(self): return ['B'] + super().f()\nclass C(A):\n    def f(self): return ['C'] + super().f()\nclass D(B, C):\n    def f(self): return ['D'] + super(D, self).f()\nr = [D().f(), isinstance(D(), A), issubclass(D, C), type(D()).__name__, D.__name__, D.__qualname__]",
        "class A:\n    def __init__(self):\n        self.__x = 1\n        self._y = 2\n    def get(self):\n        return self.__x, self._y, self.__m()\n    def __m(self):\n        return 'm'\nclass B(A):\n    def __init__(self):\n        super().__init__()\n        self.__x = 5\n    def both(self):\n        return self.__x, self.get()\nr = [B().both(), A()._y, sorted(vars(B()))]",
        "class V:\n    def __init__(self, x): self.x = x\n    def __add__(self, o): return V(self.x + o.x)\n    def __radd__(self, o): return self if o == 0 else NotImplemented\n    def __eq__(self, o): return self.x == o.x\n    def __hash__(self): return hash(self.x)\n    def __lt__(self, o): return self.x < o.x\n    def __repr__(self): return f'V({self.x})'\n    def __bool__(self): return bool(self.x)\n    def __len__(self): return self.x\n    def __getitem__(self, i): return i\n    def __contains__(self, i): return i == self.x\n    def __call__(self, *a): return a\n    def __neg__(self): return V(-self.x)\n    def __iadd__(self, o):\n        self.x += 100\n        return self\n    def __matmul__(self, o): return 'mm'\n    def __index__(self): return self.x\n    def __enter__(self): return 1\n    def __exit__(self, *a): pass\n    def __del__(self): pass\nv = V(2)\nw = v\nw += 1\nr = [repr(sum([V(1), V(2)])), V(1) == V(1), len({V(1), V(1)}), repr(sorted([V(3), V(1)])), bool(V(0)), len(V(3)), V(1)[5, 6:7] == (5, slice(6, 7)), 3 in V(3), V(1)(1, 2), repr(-V(1)), v.x, V(1) @ V(2), [0, 1, 2][V(1)]]",
        "class A:\n    __slots__ = ('x', 'y')\na = A()\na.x = 1\nr = [a.x, A.__slots__ == ('x', 'y')] if False else [a.x]\na.z = 1", "class D:\n    def __set_name__(self, o, n): self.n = n\n    def __get__(self, i, o=None): return self if i is None else i.d.get(self.n, 'none')\n    def __set__(self, i, v): i.d[self.n] = v\nclass A:\n    f = D()\n    def __init__(self): self.d = {}\na = A()\nx = a.f\na.f = 5\nr = [x, a.f, a.d]",
        "class M(type):\n    def __new__(m, n, b, ns, **k):\n        c = super().__new__(m, n, b, ns)\n        c.k = k\n        return c\n    def __init__(c, n, b, ns, **k): super().__init__(n, b, ns)\n    def __call__(c, *a): return ('made', super().__call__(*a).x)\nclass A(metaclass=M, z=1):\n    def __init__(self, x=0): self.x = x\nr = [A(3), A.k]", "class A:\n    subs = []\n    def __init_subclass__(cls, tag=None, **k):\n        super().__init_subclass__(**k)\n        A.subs.append((cls.__name__, tag))\nclass B(A, tag='t'): pass\nr = A.subs",
        "class A:\n    def __getattr__(self, n): return n.upper()\n    def __setattr__(self, n, v): super().__setattr__(n, v + 1)\na = A()\na.x = 1\nr = [a.x, a.y]", "class A:\n    def __class_getitem__(cls, k): return (cls.__name__, k)\nr = A[int][1].__name__", "class S:\n    _i = None\n    def __new__(cls):\n        if cls._i is None:\n            cls._i = super().__new__(cls)\n        return cls._i\nr = S() is S()",
        "class A(dict):\n    def __missing__(self, k): return k * 2\nclass L(list): pass\nclass St(str):\n    def up(self): return self.upper()\nr = [A()['a'], L([1, 2]) + [3], St('x').up(), len(L())]", "x = 1\nclass A:\n    x = x + 1\n    def f(self): return x\nr = [A.x, A().f()]", "def f():\n    class A:\n        def g(self): return __class__.__name__\n    return A().g()\nr = f()", "class A: pass\nr = [str(A), repr(A), A.__doc__, A().__class__.__name__, A.__class__.__name__]", "class A:\n    pass\nA.m = lambda self: 5\na = A()\na.n = lambda: 6\nr = [a.m(), a.n()]\ndel a.n\na.n",
        "A = type('A', (), {'x': 1, 'f': lambda self: self.x})\nB = type('B', (A,), {})\nr = [A().f(), B().f(), type(B()).__name__]", "class A:\n    a = 1\n    del a\n    class B:\n        c = 2\nr = [hasattr(A, 'a'), A.B.c, getattr(A, 'zz', 5), A.B.__qualname__]", "class A:\n    def __init__(self): self.v = 1\nr = [vars(A()), A().__dict__, dir(A())[-1]]",
        "class A:\n    def __enter__(self): return self\n    def __exit__(self, *e): return False\n    def __iter__(self): return iter([1])\n    def __next__(self): return 1\n    def __reversed__(self): return [2]\n    def __str__(self): return 's'\n    def __int__(self): return 3\n    def __float__(self): return 4.0\n    def __round__(self, n=0): return 5\n    def __abs__(self): return 6\n    def __bytes__(self): return b'7'\n    def __dir__(self): return ['z']\n    def __sizeof__(self): return 1\nr = [list(A()), next(A()), reversed(A()), str(A()), int(A()), float(A()), round(A()), abs(A()), bytes(A())]",
    ],
    "class libraries": [
        "from dataclasses import dataclass, field, asdict, replace, fields\n@dataclass(order=True)\nclass P:\n    x: int\n    y: list = field(default_factory=list)\n    z: int = field(default=3, compare=False)\n    def __post_init__(self): self.w = self.x * 2\np = P(1)\nr = [repr(p), p == P(1), asdict(p), repr(replace(p, x=5)), p < P(2), p.w, [f.name for f in fields(P)]]\nhash(p)",
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    x: int\np = P(1)\nr = len({p, P(1)})\np.x = 2", "from dataclasses import dataclass\n@dataclass(slots=True, kw_only=True)\nclass P:\n    x: int = 1\nr = repr(P(x=3))", "from dataclasses import dataclass\n@dataclass\nclass A:\n    a: int\n@dataclass\nclass B(A):\n    b: int = 2\nr = repr(B(1))",
        "from enum import Enum, IntEnum, Flag, auto, StrEnum\nclass C(Enum):\n    A = 1\n    B = auto()\n    @property\n    def low(self): return self.name.lower()\nclass F(Flag):\n    X = auto()\n    Y = auto()\nclass S(StrEnum):\n    K = 'k'\nclass I(IntEnum):\n    ONE = 1\nr = [C.A.name, C(2).name, C['A'].value, [c.name for c in C], C.B.low, str(C.A), repr(C.A), (F.X | F.Y).value, S.K == 'k', I.ONE + 1, len(C), C.A in C]", "from enum import Enum\nclass C(Enum):\n    A = 1\nC(7)", "from enum import Enum\nclass P(Enum):\n    E = (1, 'e')\n    def __init__(self, n, s): self.n = n\n    @classmethod\n    def _missing_(cls, v): return cls.E\nr = [P.E.n, P(99).name]",
        "from typing import NamedTuple, TypedDict, Protocol, Generic, TypeVar, Optional, Literal, Annotated, Callable, ClassVar, Any, Final, runtime_checkable, overload\nT = TypeVar('T')\nclass N(NamedTuple):\n    a: int\n    b: str = 'x'\nclass D(TypedDict, total=False):\n    k: int\n@runtime_checkable\nclass Q(Protocol):\n    def f(self) -> int: ...\nclass G(Generic[T]):\n    def __init__(self, v: T): self.v = v\nclass Im(Q):\n    def f(self): return 1\nr = [N(1), N(1)._replace(b='y'), N(1)._asdict(), N._fields, D(k=1), isinstance(Im(), Q), G[int](5).v, isinstance(5, Q)]",
        "from abc import ABC, abstractmethod\nclass A(ABC):\n    @abstractmethod\n    def f(self): ...\n    @property\n    @abstractmethod\n    def p(self): ...\nclass B(A):\n    def f(self): return 1\n    p = 2\nr = [B().f(), isinstance(B(), A)]\nA()", "from collections import namedtuple, OrderedDict, defaultdict, Counter, deque, ChainMap, UserDict\nP = namedtuple('P', 'x y', defaults=[5])\nclass U(UserDict):\n    def __getitem__(self, k): return 'u'\nr = [P(1), P(1).y, P(1)._asdict(), Counter('aab').most_common(1), deque([1, 2], 1)[0], ChainMap({'a': 1}, {'b': 2})['b'], U(a=1)['a'], P._make([1, 2])]",
        "import functools\n@functools.total_ordering\nclass A:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o.x\n    def __lt__(s, o): return s.x < o.x\nr = [A(1) >= A(0), A(1) > A(2)]\nclass B:\n    @functools.cached_property\n    def p(self):\n        print('once')\n        return 1\nb = B()\nr += [b.p, b.p]\n@functools.singledispatch\ndef f(x): return 'o'\n@f.register(int)\ndef _(x): return 'i'\nr += [f(1), f('')]",
    ],
    "match": [
        "def f(x):\n    match x:\n        case 0 | 1: return 'small'\n        case int(n) if n > 100: return 'big'\n        case -5: return 'neg'\n        case int(): return 'int'\n        case 'a' | 'b' as s: return s\n        case None | True: return 'single'\n        case []: return 'empty'\n        case [x]: return ('one', x)\n        case [x, *rest]: return (x, rest)\n        case {'k': v, **more}: return (v, more)\n        case {}: return 'map'\n        case _: return 'other'\nr = [f(v) for v in (0, 200, -5, 7, 'b', None, [], [1], (1, 2, 3), {'k': 1, 'z': 2}, {}, 2.5, 'zz')]",
        "class P:\n    __match_args__ = ('x', 'y')\n    def __init__(self, x, y): self.x, self.y = x, y\ndef f(p):\n    match p:\n        case P(0, y): return ('pos', y)\n        case P(x=1, y=[a, _]): return ('kw', a)\n        case P(): return 'any'\nr = [f(P(0, 2)), f(P(1, [5, 6])), f(P(7, 7)), f(1)]", "import enum\nclass C(enum.Enum):\n    A = 1\ndef f(x):\n    match x:\n        case C.A: return 'A'\n        case str() | bytes(): return 'text'\n        case {'a': [1, {'b': b}]}: return b\n        case (a, b) | [a, b, _]: return a\nr = [f(C.A), f(b''), f({'a': [1, {'b': 3}]}), f([1, 2, 3]), f('s')]", "match 5:\n    case x:\n        r = x",
        "from dataclasses import dataclass\n@dataclass\nclass D:\n    a: int\n    b: int\nmatch D(1, 2):\n    case D(a, b=2):\n        r = a",
    ],
    "del": ["x = 1\ndel x\nx", "d = {'a': 1, 'b': 2}\ndel d['a']\nl = [1, 2, 3]\ndel l[0], l[-1:]\nr = [d, l]", "class A: pass\na = A()\na.x = 1\ndel a.x\nr = hasattr(a, 'x')", "x = y = 1\ndel (x, y)\nr = 1\ny", "def f():\n    x = 1\n    del x\n    return x\nf()"],
    "scopes": [
        "x = 1\ndef f():\n    return x\nx = 2\nr = f()", "def f():\n    return later()\ndef later(): return 1\nr = f()", "r = []\ndef f():\n    r.append(1)\nf()", "n = 0\ndef inc():\n    global n\n    n += 1\nfor _ in range(3): inc()\nr = n", "if True:\n    y = 1\nelse:\n    z = 2\nr = y\nz", "try:\n    q = 1\nfinally:\n    pass\nr = q", "len = 5\nr = len\ndel len\nr = [r, len('ab')]", "print = 5\nr = print", "def f(list): return list\nr = f(3)", "for i in range(2):\n    def g(): return i\nr = g()\ni = 9\nr = [r, g()]", "class A:\n    y = 1\n    def f(self):\n        return y\nA().f()", "x = 'g'\ndef f():\n    x = 'l'\n    class A:\n        z = x\n    return A.z\nr = f()", "x = 'g'\nclass A:\n    x = 'c'\n    def f(self): return x\nr = A().f()",
    ],
    "imports": ["import math as m, collections.abc\nfrom json import dumps as d, loads\nr = [m.floor(2.5), d([1]), isinstance([], collections.abc.Sequence)]", "from math import *\nr = floor(pi)", "from collections import abc\nr = isinstance({}, abc.Mapping)", "def f():\n    import math\n    return math.pi\nr = f()\nmath", "import json\njson = 5\nr = json", "import datetime\nfrom datetime import datetime as dt, timedelta\nr = [dt(2024, 1, 31) + timedelta(days=1), datetime.date(2024, 2, 29).isoformat(), dt.strptime('2024-01-02', '%Y-%m-%d').year, dt.fromisoformat('2024-01-02T03:04:05+00:00').utcoffset()]", "from __future__ import annotations, division\nr = 1"],
    "comments and layout": ["# first\n\n\nr = 1  # one\n", "r = (1 +\n     2)\nx = [\n  1,\n]\n", "if 1: r = 1; s = 2", "'''doc'''\nr = 1", "\tr = 1" if False else "r = 1\n\n\n", "r = 1 \\\n  + 2", "# -*- coding: utf-8 -*-\nr = 'ü'", "é = 1\nr = é", "r = repr(...)", "pass\nr = None"],
    "builtins": [
        "r = [all([]), any([0]), ascii('ü'), bin(5), chr(97), ord('a'), hex(255), oct(8), pow(2, 10, 7), sorted('ba', reverse=True), list(reversed([1, 2])), list(zip('ab', [1, 2], strict=True)), list(enumerate('a', 1)), round(2.5), sum([1], 5), max('ab', key=ord), isinstance(1, (int, str)), callable(len), repr('a'), slice(1, 2).stop, frozenset([1]), complex(1, 2).imag, bytearray(b'a')[0], memoryview(b'ab')[1], type(1).__name__, iter([1]).__next__(), hash(1), object() == object()]",
        "r = list(zip([1], [1, 2], strict=True))", "print(1, 'a', sep='-', end='!\\n')\nprint()\nprint([1, 'x'], {'a': None}, (1,), {1})\nr = 1", "r = print(*range(3), sep='\\n')", "x = iter([1, 2, 3])\nr = [next(x), next(x, 0), list(x), next(x, 'd')]", "r = [int('ff', 16), float('inf'), str(b'a', 'ascii'), bool('False'), dict(a=1, **{'b': 2}), list('ab'), tuple([1]), set('a')]", "r = [getattr(5, 'real'), hasattr([], 'append'), setattr, 1][0:2]", "r = [isinstance(True, int), issubclass(bool, int), type(None).__name__, NotImplemented is NotImplemented, Ellipsis is ..., __name__, __debug__]",
    ],
}  # fmt: skip

if sys.version_info >= (3, 12):
    SAME["type parameters"] = [
        "def f[T](x: T) -> T:\n    return x\nclass Box[T]:\n    def __init__(self, v: T): self.v = v\n    def get(self) -> T: return self.v\nr = [f(1), Box(2).get(), Box[int](3).v]",
        "type Pair[T] = tuple[T, T]\ntype N = int\nx: Pair[int] = (1, 2)\nr = x", "class A[T: (int, str), *Ts, **P]:\n    pass\nr = A.__name__", "def f[*Ts](*a: *Ts): return a\nr = f(1, 2)",
        "r = f'{'nested ' + f'{1}'}'", "async def f[T](x: T) -> T:\n    return x\nr = await f(1)",
    ]  # fmt: skip

CASES = [(name, number, code) for name, codes in SAME.items() for number, code in enumerate(codes)]


@pytest.mark.parametrize(("construct", "number", "code"), CASES, ids=[f"{name} {number}" for name, number, _ in CASES])
async def test_a_construct_does_what_it_does_in_cpython(
    sandbox: CodeSandbox, construct: str, number: int, code: str
) -> None:
    await assert_same(sandbox, code)


@pytest.mark.parametrize(("construct", "number", "code"), CASES, ids=[f"{name} {number}" for name, number, _ in CASES])
async def test_a_construct_does_the_same_inside_a_coroutine_program(
    sandbox: CodeSandbox, construct: str, number: int, code: str
) -> None:
    if "__future__" in code or "locals" in code:
        code = f"{code}\nimport asyncio\nawait asyncio.sleep(0)"
    else:
        code = f"import asyncio; await asyncio.sleep(0)\n{code}"
    await assert_same(sandbox, code)


# what is refused

REFUSED: list[tuple[str, int, str]] = [
    ("x = 1\nopen('f')", 2, "tools"),
    ("\n\neval('1')", 3, "literal_eval"),
    ("exec('x = 1')", 1, "exec"),
    ("compile('1', '', 'eval')", 1, "compile"),
    ("input()", 1, "input"),
    ("globals()", 1, "dict"),
    ("def f():\n    return locals()", 2, "dict"),
    ("__import__('os')", 1, "import statement"),
    ("x = [breakpoint]", 1, "breakpoint"),
    ("help(len)", 1, "describe_tool"),
    ("exit()", 1, "return"),
    ("import os", 1, "operating system"),
    ("import sys", 1, "print"),
    ("x = 1\nimport subprocess as s", 2, "processes"),
    ("from os import path", 1, "os"),
    ("import requests", 1, "network"),
    ("import pandas as pd", 1, "pandas"),
    ("from . import x", 1, "relative"),
    ("from math import nothing", 1, "nothing"),
    ("import nothing_at_all", 1, "available are"),
    ("from pathlib import Path", 1, "Path"),
    ("(1).__class__.__bases__", 1, "__bases__"),
    ("def f(): pass\nf.__globals__", 2, "__globals__"),
    ("f = lambda: 1\nx = 1\nf.__code__", 3, "__code__"),
    ("[].__class__.__mro__", 1, "__mro__"),
    ("().__class__.__subclasses__()", 1, "__subclasses__"),
    ("(x for x in []).gi_frame", 1, "gi_frame"),
    ("try:\n    1 / 0\nexcept Exception as e:\n    e.__traceback__", 4, "__traceback__"),
    ("len.__self__", 1, "__self__"),
    ("''.__reduce_ex__(2)", 1, "__reduce_ex__"),
    ("import json\njson._default_decoder", 2, "private"),
    ("__builtins__", 1, "__builtins__"),
    ("def __build_class__(): pass", 1, "__build_class__"),
    ("x = 1\n__loader__ = 2", 2, "__loader__"),
    ("class A:\n    def __reduce__(self): return 1", 2, "__reduce__"),
    ("class A: pass\nA.__init__ = 1", 2, "__init__"),
    ("match 1:\n    case int(__class__=c): pass", 2, "__class__"),
    ("def f(__x__): pass", 1, "__x__"),
    ("for __x__ in []: pass", 1, "__x__"),
    ("try:\n    pass\nexcept Exception as __x__: pass", 3, "__x__"),
    ("import json as __builtins__", 1, "__builtins__"),
    ("def f(x: 'f()'): pass", 1, "annotation"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "line", "hint"), REFUSED, ids=[code for code, _, _ in REFUSED])
async def test_what_is_not_allowed_is_refused_with_its_line_and_a_hint(
    sandbox: CodeSandbox, code: str, line: int, hint: str
) -> None:
    result = await sandbox.execute(f"print('ran')\n{code}")
    assert result.error is not None
    assert (result.error.type, result.error.kind, result.error.line) == ("ProgramRefused", "refused", line + 1)
    assert hint in result.error.message
    assert result.stdout == ""


@pytest.mark.parametrize(
    "code",
    [
        "getattr([], '__class__' + '').__bases__" if False else "getattr([].append, '__' + 'self__')",
        "'{0.__globals__}'.format(lambda: 1)",
        "'{0.__class__}'.format(1)",
        "'{0.append.__self__}'.format([])",
        "getattr(lambda: 1, '__code__')",
        "import operator\noperator.attrgetter('__globals__')",
        "import operator\noperator.attrgetter('a.__class__')",
        "import operator\noperator.methodcaller('__reduce__')",
        "type('A', (), {'__reduce__': 1})",
        "vars(int)",
        "str.format('{0.__code__}', lambda: 1)",
        "list(map('{0.__code__}'.format, [lambda: 1]))",
        "'{a.__code__}'.format_map({'a': lambda: 1})",
        "import string\nstring.Formatter().format('{0.__code__}', lambda: 1)",
        "setattr(lambda: 1, '__code__', 5)",
        "class S(str): pass\nS('{0.__code__}').format(lambda: 1)",
        "f'{1:{\"{0.__class__}\".format(1)}}'",
    ],
)  # fmt: skip
async def test_what_can_be_known_only_when_it_happens_is_refused_then(sandbox: CodeSandbox, code: str) -> None:
    result = await sandbox.execute(f"\n{code}")
    assert result.error is not None
    assert (result.error.type, result.error.kind) == ("ProgramRefused", "refused")
    assert result.error.line == 2 + code.count("\n")


async def test_a_refused_program_runs_nothing_and_names_the_first_line(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("import os\nprint(1)\neval('2')\nimport sys")
    assert result.error is not None
    assert result.error.line == 1
    assert result.stdout == ""


async def test_a_name_of_ones_own_may_be_that_of_a_refused_builtin(sandbox: CodeSandbox) -> None:
    code = "def open(x): return x\nclass A:\n    def eval(self): return 1\n    input = 2\ncompile = lambda x: x\nreturn [open(1), A().eval(), A.input, compile(3)]"
    assert (await sandbox.execute(code)).value == [1, 1, 2, 3]


# every node of the grammar

KNOWINGLY_REFUSED: set[str] = set()
ABSTRACT = {
    "AST",
    "mod",
    "stmt",
    "expr",
    "expr_context",
    "boolop",
    "operator",
    "unaryop",
    "cmpop",
    "excepthandler",
    "pattern",
    "type_ignore",
    "type_param",
    "slice",
}
NEVER_PARSED = {
    "Interactive",
    "FunctionType",
    "TypeIgnore",
    "Suite",
    "AugLoad",
    "AugStore",
    "Param",
    "Index",
    "ExtSlice",
    "Num",
    "Str",
    "Bytes",
    "NameConstant",
    "Ellipsis",
}


async def test_every_node_of_this_pythons_grammar_is_allowed_or_knowingly_refused() -> None:
    nodes = {
        name
        for name, item in vars(ast).items()
        if isinstance(item, type) and issubclass(item, ast.AST) and not name.startswith("_")
    }
    asked = nodes - ABSTRACT - NEVER_PARSED
    allowed = {name for name in asked if getattr(Policy, f"visit_{name}", None) is not None}
    assert asked - allowed == KNOWINGLY_REFUSED
    assert len(asked) > 80


async def test_a_node_that_nobody_thought_of_is_refused() -> None:
    class Unheard(ast.Pass):
        pass

    tree = ast.parse("x = 1\npass")
    tree.body[1] = ast.copy_location(Unheard(), tree.body[1])
    with pytest.raises(Exception, match="Unheard") as caught:
        Policy({}, set()).judge(tree)
    assert getattr(caught.value, "line", None) == 2


# the value

VALUES: list[tuple[str, Any]] = [
    ("1 + 1", 2),
    ("return 5\n6", 5),
    ("if True:\n    return 5\n6", 5),
    ("for i in range(9):\n    if i == 3:\n        return i", 3),
    ("while True:\n    return 1", 1),
    ("try:\n    return 1\nfinally:\n    x = 2", 1),
    ("with __import_free() if False else nothing():\n    pass" if False else "import contextlib\nwith contextlib.nullcontext(4) as x:\n    return x", 4),
    ("x = 1\nif x:\n    'yes'\nelse:\n    'no'", "yes"),
    ("x = 0\nif x:\n    'yes'\nelif x == 0:\n    'zero'\nelse:\n    'no'", "zero"),
    ("import contextlib\nwith contextlib.nullcontext(4) as x:\n    x + 1", 5),
    ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    'caught'", "caught"),
    ("try:\n    5\nexcept ZeroDivisionError:\n    'caught'", 5),
    ("try:\n    x = 5\nexcept ZeroDivisionError:\n    'caught'\nelse:\n    x + 1", 6),
    ("match 3:\n    case 3:\n        'three'\n    case _:\n        'other'", "three"),
    ("import asyncio\nasync with asyncio.timeout(5):\n    7", 7),
    ("x = 3", 3),
    ("x = y = 3\ny = 4", 4),
    ("x = 3\nx += 1", 4),
    ("x: int = 3", 3),
    ("a, b = 1, 2", 2),
    ("x = 3\nprint('shown')", None),
    ("def f():\n    z = 9\n    return z\nx = f()", 9),
    ("x = 1\nfor i in range(3):\n    x = i", 2),
    ("x = 1\nNone", None),
    ("None", None),
    ("async def main():\n    return 5\nmain()", 5),
    ("async def main():\n    return 5\nawait main()", 5),
    ("import asyncio\nasync def main():\n    return 5\nasyncio.run(main())", 5),
    ("import asyncio\nasync def main():\n    return 5\nreturn main()", 5),
    ("(x := 5)", 5),
    ("'''only a doc string'''", "only a doc string"),
    ("[i for i in range(3)]", [0, 1, 2]),
    ("lambda_free = (lambda: 4)()", 4),
    ("x = 1\nreturn", 1),
    ("x = 5\nreturn None", None),
    ("x = 5\ndef f():\n    return None\nreturn f()", None),
    ("x = 5\nif x:\n    return\nx = 6", 5),
]  # fmt: skip


@pytest.mark.parametrize(("code", "expected"), VALUES, ids=[code for code, _ in VALUES])
async def test_the_value_is_the_return_or_the_last_expression_or_the_last_assigned_name(
    sandbox: CodeSandbox, code: str, expected: Any
) -> None:
    result = await sandbox.execute(code)
    assert result.error is None, result.error
    assert result.value == expected
    assert type(result.value) is type(expected)


@pytest.mark.parametrize(
    "code",
    [
        "",
        "\n\n# nothing\n",
        "pass",
        "print('x')",
        "def f(): return 1",
        "import json",
        "for i in []:\n    pass",
        "if False:\n    5",
        "class A:\n    x = 1",
        "x = 1\ndel x",
    ],
)
async def test_a_program_that_yields_nothing_says_so(sandbox: CodeSandbox, code: str) -> None:
    result = await sandbox.execute(code)
    assert result.error is None, result.error
    assert result.value is None
    assert "x" in result.for_model() if "print" in code else "without a value" in result.for_model()


# lines

LINES: list[tuple[str, str, int]] = [
    ("1 / 0", "ZeroDivisionError", 1),
    ("# a\n# b\n\n1 / 0", "ZeroDivisionError", 4),
    ("x = 1\ny = (\n    x\n    /\n    0\n)", "ZeroDivisionError", 3),
    ("def f():\n    return g()\ndef g():\n    # deep\n    return {}['k']\nf()", "KeyError", 5),
    ("import functools\n@functools.wraps(None or len)\ndef f(x):\n    return 1 / x\nf(0)", "ZeroDivisionError", 4),
    ("def d(f):\n    raise ValueError\n@d\ndef f():\n    pass", "ValueError", 2),
    ("print(\n    1,\n    2,\n    int('x'),\n)", "ValueError", 4),
    ("class A:\n    x = 1\n    y = x / 0", "ZeroDivisionError", 3),
    ("[\n    1 / x\n    for x in [1, 0]\n]", "ZeroDivisionError", 2),
    ("import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    raise ValueError\nawait asyncio.gather(f(), f())", "ValueError", 4),
    ("'''doc\nstring'''\n1 / 0", "ZeroDivisionError", 3),
    ("from __future__ import annotations\n\n1 / 0", "ZeroDivisionError", 3),
    ("from math import *\nsqrt(-1)", "ValueError", 2),
    ("x: int = 1\ny: int = x / 0", "ZeroDivisionError", 2),
    ("return 1 / 0", "ZeroDivisionError", 1),
    ("if True:\n    pass\n    1 / 0", "ZeroDivisionError", 3),
    ("from concurrent.futures import ThreadPoolExecutor\ndef f(x):\n    return 1 / x\nwith ThreadPoolExecutor() as p:\n    list(p.map(f, [0]))", "ZeroDivisionError", 3),
    ("x = 1\ndef f(:\n    pass", "SyntaxError", 2),
    ("x = 1\n  y = 2", "IndentationError", 2),
    ("x = (1,\n", "SyntaxError", 1),
    ("x = 1\nyield 5", "SyntaxError", 2),
    ("def f():\n    nonlocal z", "SyntaxError", 2),
    ("x = 1\nbreak", "SyntaxError", 2),
    ("def f():\n    x = 1\n    global x", "SyntaxError", 3),
    ("def f():\n    await g()", "SyntaxError", 2),
    ("x = 1\n1 = x", "SyntaxError", 2),
    ("f(a=1, a=2)", "SyntaxError", 1),
    ("def f(a, a): pass", "SyntaxError", 1),
]  # fmt: skip


@pytest.mark.parametrize(("code", "error", "line"), LINES, ids=[code for code, _, _ in LINES])
@pytest.mark.parametrize("shift", [0, 3])
async def test_an_errors_line_is_the_programs_own(
    sandbox: CodeSandbox, code: str, error: str, line: int, shift: int
) -> None:
    result = await sandbox.execute("# comment\n" * shift + code)
    assert result.error is not None
    assert (result.error.type, result.error.line) == (error, line + shift), result.error


async def test_a_function_of_an_earlier_program_fails_at_the_line_that_called_it(sandbox: CodeSandbox) -> None:
    async with sandbox.session() as session:
        await session.execute("\n\n\ndef f(x):\n    return 1 / x")
        result = await session.execute("x = 1\nf(0)")
        assert result.error is not None
        assert (result.error.type, result.error.line) == ("ZeroDivisionError", 2)
        assert "return 1 / x" in result.error.traceback
        again = await session.execute("\n\n1 / 0")
        assert again.error is not None
        assert again.error.line == 3


async def test_a_traceback_shows_the_programs_lines_only(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("import json\ndef f(text):\n    return json.loads(text)\nf('{')")
    assert result.error is not None
    assert "return json.loads(text)" in result.error.traceback
    assert "toolchord" not in result.error.traceback
    assert ".py" not in result.error.traceback


# private names


async def test_a_program_reads_its_own_private_names_and_nobody_elses(sandbox: CodeSandbox) -> None:
    code = "class A:\n    _shared = 1\n    def __init__(self):\n        self._own = 2\n        self.__mangled = 3\n    def read(self, other):\n        return other._own, other.__mangled\na = A()\nreturn [a._own, A._shared, a.read(A()), getattr(a, '_own'), '{0._own}'.format(a)]"
    assert (await sandbox.execute(code)).value == [2, 1, (2, 3), 2, "2"]
    assert (await sandbox.execute("import collections\ncollections.namedtuple('P', 'x')._make([1])")).value == (1,)
    refused = await sandbox.execute("import random\nrandom._inst")
    assert refused.error is not None
    assert refused.error.kind == "refused"


# any program

NAMES = ["a", "b", "c", "d"]
LITERALS = st.sampled_from(["1", "-2", "'x'", "[3]", "0.5", "(4,)", "None"])
"""What a loop may add to a variable: nothing that doubles."""

ATOMS = st.one_of(
    st.integers(-5, 5).map(str),
    st.sampled_from(["'x'", "'yz'", "[]", "{}", "None", "True", "0.5", "(1, 2)", *NAMES, *NAMES]),
)


def _expressions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(
            inner,
            st.sampled_from(["+", "-", "//", "%", "==", "!=", "<", "in", "is", "and", "or", "|", "&"]),
            inner,
        ).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda x: f"({x} * 2)"),  # squares of squares would keep CPython busy for minutes
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
        st.lists(inner, max_size=3).map(lambda xs: f"[{', '.join(xs)}]"),
        st.lists(inner, max_size=3).map(lambda xs: f"({''.join(f'{x}, ' for x in xs)})"),
        st.lists(st.tuples(inner, inner), max_size=2).map(lambda ps: f"{{{', '.join(f'{k}: {v}' for k, v in ps)}}}"),
        st.tuples(inner, inner).map(lambda t: f"{t[0]}[{t[1]}]"),
        st.tuples(
            st.sampled_from(
                ["not", "-", "str", "len", "bool", "repr", "list", "sorted", "f", "g", "type", "(lambda a: a)"]
            ),
            inner,
        ).map(lambda t: f"{t[0]} ({t[1]})"),
        st.tuples(inner, st.sampled_from(NAMES), inner, inner).map(
            lambda t: f"[{t[0]} for {t[1]} in {t[2]} if {t[3]}]"
        ),
        st.tuples(st.sampled_from(NAMES), inner).map(lambda t: f"({t[0]} := {t[1]})"),
        inner.map(lambda x: f"f'{{{x}!s:>4}}'" if "'" not in x and "{" not in x and "\\" not in x else x),
        st.tuples(st.sampled_from(["a", "b", "K"]), st.sampled_from(["x", "y", "total"])).map(
            lambda t: f"{t[0]}.{t[1]}"
        ),
        st.tuples(inner, inner).map(lambda t: f"K({t[0]}).add({t[1]})"),
    )


EXPRESSIONS = st.recursive(ATOMS, _expressions, max_leaves=6)


def _indented(block: list[str]) -> str:
    return "\n".join("    " + line for statement in block for line in statement.splitlines()) or "    pass"


def _statements(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    block = st.lists(inner, min_size=1, max_size=3).map(_indented)
    name = st.sampled_from(NAMES)
    return st.one_of(
        st.tuples(EXPRESSIONS, block, block).map(lambda t: f"if {t[0]}:\n{t[1]}\nelse:\n{t[2]}"),
        st.tuples(name, st.sampled_from(["range(2)", "'ab'", "[1, 2]", "list(a)"]), block, block).map(
            lambda t: f"for {t[0]} in {t[1]}:\n{t[2]}\nelse:\n{t[3]}"
        ),
        st.tuples(block, st.sampled_from(["Exception", "TypeError", "(KeyError, NameError)"]), block, block).map(
            lambda t: f"try:\n{t[0]}\nexcept {t[1]} as e:\n    print(type(e).__name__)\n{t[2]}\nfinally:\n{t[3]}"
        ),
        st.tuples(block, EXPRESSIONS).map(lambda t: f"def f(x, a=1):\n{t[0]}\n    return {t[1]}"),
        st.tuples(block, name).map(lambda t: f"def g(x):\n    global {t[1]}\n{t[0]}\n    return {t[1]}"),
        st.tuples(EXPRESSIONS, name).map(
            lambda t: (
                f"def outer():\n    {t[1]} = 1\n    def inner():\n        nonlocal {t[1]}\n        {t[1]} = {t[0]}\n        return {t[1]}\n    return inner(), {t[1]}\nprint(outer())"
            )
        ),
        st.tuples(EXPRESSIONS, EXPRESSIONS).map(
            lambda t: (
                f"class K:\n    total = {t[0]}\n    def __init__(self, x):\n        self.x = x\n    def add(self, y):\n        return [self.x, y, K.total]\n    @property\n    def y(self):\n        return {t[1]}"
            )
        ),
        st.tuples(EXPRESSIONS, block, block).map(
            lambda t: (
                f"match {t[0]}:\n    case int() | str() as b:\n{_deeper(t[1])}\n    case [a, *_] | {{'x': a}}:\n{_deeper(t[2])}\n    case _:\n        print('other')"
            )
        ),
        st.tuples(name, EXPRESSIONS).map(
            lambda t: f"def gen():\n    for {t[0]} in range(3):\n        yield {t[1]}\nprint(list(gen()))"
        ),
    )


def _deeper(block: str) -> str:
    return "\n".join("    " + line for line in block.splitlines())


SIMPLE = st.one_of(
    st.tuples(st.sampled_from(NAMES), EXPRESSIONS).map(lambda t: f"{t[0]} = {t[1]}"),
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["+=", "-=", "*=", "|="]), LITERALS).map(
        lambda t: f"{t[0]} {t[1]} {t[2]}"
    ),
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), EXPRESSIONS).map(
        lambda t: f"{t[0]}, *{t[1]} = {t[2]}, 1"
    ),
    st.tuples(EXPRESSIONS).map(lambda t: f"print({t[0]})"),
    st.tuples(st.sampled_from(NAMES), EXPRESSIONS, EXPRESSIONS).map(lambda t: f"{t[0]}[{t[1]}] = {t[2]}"),
    st.sampled_from(NAMES).map(lambda n: f"del {n}"),
    EXPRESSIONS.map(lambda x: f"raise ValueError({x})"),
    EXPRESSIONS,
)
STATEMENTS = st.recursive(SIMPLE, _statements, max_leaves=8)
PROGRAMS = st.lists(STATEMENTS, min_size=1, max_size=6).map("\n".join)


def _compiles(code: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(code, "<case>", "exec")
    except (SyntaxError, ValueError, OverflowError):
        return False
    return True


@given(code=PROGRAMS.filter(_compiles))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_small_program_gives_what_cpython_gives(code: str, sandbox: CodeSandbox) -> None:
    start = "a, b, c = 1, [1, 2], {'x': 3}\nf = g = str\nclass K:\n    total = 0\n    def __init__(self, x):\n        self.x = x\n    def add(self, y):\n        return y\n"
    code = start + code
    value, stdout, failure = cpython(code + "\nr = [repr(v) for v in (a, b, c)]")
    result = await sandbox.execute(code + "\nreturn [repr(v) for v in (a, b, c)]")
    found = None if result.error is None else (result.error.type, result.error.line)
    assert found == failure, code
    if " at 0x" not in stdout + str(value):
        assert result.stdout == stdout, code
        assert result.value == (value if failure is None else None), code


@pytest.mark.parametrize(
    "code",
    [
        "def f(): return 1\nf()",
        "async def f(): return 1\nawait f()",
        "class A[T]: pass" if sys.version_info >= (3, 12) else "class A: pass",
    ],
)
async def test_a_program_compiles_the_same_with_and_without_the_policy(code: str) -> None:
    with_policy = compile_program(code, filename="<program>", tools=set(), policy=Policy({}, set()), modules={})
    without = compile_program(code, filename="<program>", tools=set(), policy=None, modules={})
    assert with_policy.code.co_code == without.code.co_code
    assert with_policy.is_async == without.is_async
