# ruff: noqa: E501  (a program is kept on one line)
"""Tool uses that can't work are told before the first statement runs; programs that could work are never refused."""

from __future__ import annotations

import ast
import datetime as dt
import enum
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tests.core.corpus import PROGRAMS
from tests.core.corpus import TOOLS as CORPUS_TOOLS
from toolchord import CodeSandbox, ValidatedTool, create_registry, register_tool, tool_from
from toolchord.callsites import check_of, stubs_of
from toolchord.catalogue import Catalogue
from toolchord.errors import InvalidArguments
from toolchord_guest.preflight import misfit

on_loop = pytest.mark.asyncio(loop_scope="module")

LEDGER: list[str] = []


class Line(BaseModel):
    sku: str
    count: int
    notes: dict[str, Any] = {}


class GetOrderTool(ValidatedTool):
    """One order."""

    class Arguments(BaseModel):
        order_id: int
        currency: Literal["EUR", "USD"] = "EUR"

    class Result(BaseModel):
        id: int
        customer: str
        lines: list[Line]

    async def _execute(self, order_id: int, currency: str) -> dict[str, Any]:
        LEDGER.append("get_order")
        return {"id": order_id, "customer": "ann", "lines": [{"sku": "A1", "count": 2}]}


class ListIdsTool(ValidatedTool):
    class Arguments(BaseModel):
        pass

    class Result(BaseModel):
        rows: list[Line]

    async def _execute(self) -> dict[str, Any]:
        LEDGER.append("list_ids")
        return {"rows": [{"sku": "A1", "count": 2}]}


class Where(BaseModel):
    city: str
    zip: int = 0


async def ship(order_id: int, to: Where, express: bool = False, tags: list[str] | None = None) -> str:
    LEDGER.append("ship")
    return "shipped"


def refund(order_id: int, /, euros: float, *, reason: str = "") -> None:
    LEDGER.append("refund")


def log(*lines: str) -> int:
    LEDGER.append("log")
    return len(lines)


def anything(**fields: Any) -> dict[str, Any]:
    LEDGER.append("anything")
    return fields


def declared() -> Any:
    LEDGER.append("declared")
    return {"a": 1}


REGISTRY = create_registry()
for _tool in (GetOrderTool, ListIdsTool, ship, refund, log, anything):
    REGISTRY.add(_tool)
REGISTRY.add(
    declared, result_schema={"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
)
REGISTRY.add(lambda code: code, "lookup", namespace="stock", description="Find.")
REGISTRY.add(lambda: 1, "wipe", allowed_callers=["direct"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(REGISTRY) as sandbox:
        yield sandbox


BEFORE = "await ship(order_id=1, to={'city': 'Oslo'})\n"  # what must not happen if the rest can't work

WRONG = [
    # unknown tools
    ("misspelled tool", "return await get_ordr(order_id=1)", "NameError", "did you mean get_order?"),
    ("invented tool", "return fetch_everything()", "NameError", "no tool or function named 'fetch_everything'"),
    ("misspelled in a namespace", "return stock.look(code=1)", "AttributeError", "did you mean stock.lookup?"),
    ("unknown by call_tool", "return call_tool('get_orders', order_id=1)", "ToolNotAvailable", "did you mean get_order?"),
    ("not open to code", "wipe()", "NameError", "not open to code"),
    ("not open to code by call_tool", "call_tool('wipe')", "ToolNotAvailable", "not open to code"),
    # arguments
    ("unknown keyword", "return await get_order(id=1)", "InvalidArguments", "did you mean 'order_id'?"),
    ("missing argument", "return await get_order()", "InvalidArguments", "missing argument 'order_id'"),
    ("missing second", "return await ship(order_id=1)", "InvalidArguments", "missing argument 'to'"),
    ("too many positional", "return await get_order(1, 'EUR', 3)", "InvalidArguments", "takes 2 positional arguments, 3"),
    ("twice", "return await get_order(1, order_id=2)", "InvalidArguments", "two values for 'order_id'"),
    ("positional for keyword only", "refund(1, 2.0, 'late')", "InvalidArguments", "takes 2 positional arguments, 3"),
    ("dict with an unknown key", "return await ship({'order': 1, 'to': {'city': 'x'}})", "InvalidArguments", "missing argument 'to'"),
    ("dict without a required key", "return await ship({'order_id': 1})", "InvalidArguments", "missing argument 'to'"),
    ("by call_tool", "return call_tool('get_order', id=1)", "InvalidArguments", "unexpected argument 'id'"),
    ("in a namespace", "return stock.lookup(kode=1)", "InvalidArguments", "did you mean 'code'?"),
    ("inside gather", "import asyncio\nreturn await asyncio.gather(*[get_order(number=n) for n in range(3)])", "InvalidArguments", "unexpected argument 'number'"),
    ("inside a function", "async def one(n):\n    return await get_order(nr=n)\nreturn await one(1)", "InvalidArguments", "unexpected argument 'nr'"),
    # literals
    ("text for a number", "return await get_order(order_id='first')", "InvalidArguments", "order_id: expected integer, got str 'first'"),
    ("fraction for a whole number", "return await get_order(1.5)", "InvalidArguments", "order_id: expected integer, got float 1.5"),
    ("none for a number", "return await get_order(None)", "InvalidArguments", "order_id: expected integer, got NoneType None"),
    ("not in the enum", "return await get_order(1, currency='GBP')", "InvalidArguments", "expected one of ['EUR', 'USD'], got str 'GBP'"),
    ("text for an object", "return await ship(1, 'Oslo')", "InvalidArguments", "to: expected object, got str 'Oslo'"),
    ("inside an object", "return await ship(1, {'city': 4})", "InvalidArguments", "to.city: expected string, got int 4"),
    ("text for a list", "return await ship(1, {'city': 'x'}, tags='new')", "InvalidArguments", "tags: expected array or null"),
    ("inside a list", "return await ship(1, {'city': 'x'}, tags=['a', 2])", "InvalidArguments", "tags: expected array or null"),
    ("text for a yes or no", "return await ship(1, {'city': 'x'}, express='maybe')", "InvalidArguments", "express: expected boolean"),
    # keys of results
    ("key of a result", "o = await get_order(order_id=1)\nreturn o['cusomer']", "KeyError", "did you mean 'customer'?"),
    ("attribute of a result", "o = await get_order(order_id=1)\nreturn o.total", "AttributeError", "has no key 'total'"),
    ("key of an item", "o = await get_order(order_id=1)\nfor l in o['lines']:\n    print(l['amount'])", "KeyError", "l has no key 'amount'"),
    ("key of an item in a comprehension", "o = await get_order(1)\nreturn {l['id']: l['count'] for l in o.lines}", "KeyError", "l has no key 'id'"),
    ("key of the rows", "return sum(r['price'] for r in await list_ids())", "KeyError", "r has no key 'price'"),
    ("key at once", "return (await get_order(order_id=1))['lines'][0]['qty']", "KeyError", "has no key 'qty'"),
    ("key of an item instead of the list", "o = await get_order(1)\nreturn o['sku']", "KeyError", "its 'lines' is a list of dicts that have it"),
    ("key in a lambda", "o = await get_order(1)\nreturn sorted(o['lines'], key=lambda l: l['cost'])[0]", "KeyError", "l has no key 'cost'"),
    ("key of a declared schema", "return declared()['b']", "KeyError", "its keys are 'a'"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "kind", "text"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
@on_loop
async def test_a_wrong_use_is_told_before_any_tool_runs(sandbox: CodeSandbox, code: str, kind: str, text: str) -> None:
    LEDGER.clear()
    result = await sandbox.execute(BEFORE + code)
    assert result.error is not None
    assert (result.error.kind, result.error.type) == ("refused", kind), result.error
    assert text in result.error.message
    assert result.error.line is not None
    assert result.error.line >= 2
    assert (LEDGER, result.calls) == ([], [])
    assert "Nothing ran: no tool was called." in result.for_model()


@on_loop
async def test_there_are_thirty_at_least_and_what_is_told_would_have_failed(sandbox: CodeSandbox) -> None:
    """Each of them inside a `try` runs, and fails there with what was foretold."""
    assert len(WRONG) >= 30
    for name, code, kind, _ in WRONG:
        inner = "".join(f"    {line}\n" for line in code.splitlines() if not line.startswith("import"))
        guarded = f"import asyncio\ntry:\n{inner}except Exception as error:\n    fault = type(error).__name__\nfault"
        if "async def" in code:
            guarded = code.replace(
                "return await one(1)", "try:\n    await one(1)\nexcept Exception as error:\n    pass"
            )
            guarded = guarded.replace("return await get_order(nr=n)", "try:\n        return await get_order(nr=n)\n    except Exception as e:\n        return type(e).__name__") + "\nreturn await one(1)"  # fmt: skip
        result = await sandbox.execute(guarded)
        assert result.ok, (name, result.error)
        assert result.value == kind, (name, result.value)


@on_loop
async def test_all_that_is_wrong_is_told_at_once(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("a = await get_order(id=1)\nb = await ship(1)\nc = fetch()")
    assert result.error is not None
    assert [f"line {n}:" in result.error.message for n in (1, 2, 3)] == [True] * 3
    assert result.error.line == 1


# programs that could work are left alone

FINE = [
    "return await get_order(1)",
    "return await get_order('1')",
    "return await get_order(1.0)",
    "return await get_order({'order_id': 1})",
    "return await get_order(**{'order_id': 1})",
    "args = {'order_id': 1}\nreturn await get_order(args)",
    "args = [1]\nreturn await get_order(*args)",
    "return await get_order(order_id=int('1'), currency='USD')",
    "return await ship(1, {'city': 'Oslo'}, express='yes', tags=None)",
    "return await ship(1, to=dict(city='Oslo'), tags=('a',))",
    "refund(1, euros=3)",
    "refund(1, '3.5', reason='late')",
    "return log('a', 'b', 'c')",
    "return anything(a=1, b='x')",
    "return call_tool('stock.lookup', code=1)",
    "return call_tool('stock.' 'lookup', code=1)",
    "return call_tool('stock\\x2elookup', code=1)",
    "name = 'stock.lookup'\nreturn call_tool(name, code=1)",
    "return " + "(" * 80 + "1" + ")" * 80,
    "return " + "+".join(["1"] * 200),
    "return stock.lookup('x')",
    "get_order = lambda n: n\nreturn get_order('x', ) if False else get_order(1)",
    "def ship(x):\n    return x\nreturn ship('anything')",
    "import math\nreturn math.sqrt(4)",
    "from collections import *\nreturn Counter('aab')['a']",
    "try:\n    return await get_order(id=1)\nexcept TypeError:\n    return 'handled'",
    "import contextlib\nwith contextlib.suppress(Exception):\n    await get_order(id=1)\nreturn 1",
    "import asyncio\nr = await asyncio.gather(get_order(id=1), return_exceptions=True)\nreturn type(r[0]).__name__",
    "if False:\n    missing()\nreturn 1",
    "class Quiet:\n    def __enter__(self): return self\n    def __exit__(self, *a): return True\nwith Quiet():\n    get_order(id=1)\nreturn 1",
    # keys that the program itself puts there, or looks for
    "o = await get_order(1)\no['total'] = 5\nreturn o['total']",
    "o = await get_order(1)\no.total = 5\nreturn o['total'] + o.total",
    "o = await get_order(1)\no.update(total=5)\nreturn o['total']",
    "o = await get_order(1)\nfor k in ['x']:\n    o[k] = 1\nreturn o['x']",
    "o = await get_order(1)\nreturn o['x'] if 'x' in o else 0",
    "o = await get_order(1)\nreturn o.get('x') and o['x']",
    "o = await get_order(1)\nif False:\n    o = {'x': 1}\no = {'x': 1}\nreturn o['x']",
    "o = await get_order(1)\nfor l in o['lines']:\n    l['total'] = l['count'] * 2\nreturn sum(l['total'] for l in o['lines'])",
    "o = await get_order(1)\ndef price(l):\n    l |= {'cost': 3}\n    return l\nreturn [price(l)['cost'] for l in o['lines']]",
    "o = await get_order(1)\nreturn {'name': o['customer'], 'first': o['lines'][0]['sku']}",
    "o = await get_order(1)\nreturn o.lines[0].notes.get('x'), o.lines[0].notes",
    "o = await get_order(1)\nreturn list(o.items()), list(o.keys())",
    "rows = await list_ids()\nreturn rows[0]['sku'], rows['rows'][0].count, [r.sku for r in rows], len(rows)",
    "o = await get_order(1)\nmatch o:\n    case {'x': x}:\n        return o['x']\nreturn 0",
    "o = await get_order(1)\nsetattr(o, 'x', 1)\nreturn o['x']",
    "o = await get_order(1)\nextra = {'x': 1}\no.update(extra)\nreturn o['x']",
]  # fmt: skip


@pytest.mark.parametrize("code", FINE)
@on_loop
async def test_a_program_that_works_is_left_alone(sandbox: CodeSandbox, code: str) -> None:
    result = await sandbox.execute(code)
    assert result.ok, result.error


def test_none_of_the_corpus_is_refused() -> None:
    """That all 43 give their results is shown in test_programs; here, that each was really looked at."""
    catalogue = Catalogue.of(CORPUS_TOOLS)
    judged = 0
    for code in PROGRAMS.values():
        judged += sum("check" in stub for stub in stubs_of(catalogue, code))
    assert len(PROGRAMS) == 43
    assert judged >= 20


@on_loop
async def test_a_session_knows_its_own_functions(sandbox: CodeSandbox) -> None:
    async with sandbox.session() as session:
        assert (await session.execute("def helper(x):\n    return x\nget_order = 5")).ok
        assert (await session.execute("return helper(1)")).value == 1
        result = await session.execute("return get_order(1, 2, 3)", inputs={"ship": 1} if False else None)
        assert result.error is not None
        assert result.error.kind == "program"  # the session's own variable hides the tool
        refused = await session.execute("x = 1\nreturn helpr(1)")
        assert refused.error is not None
        assert "did you mean helper?" in refused.error.message
        assert (await session.execute("return 'x' in dir(helper) or 2")).value == 2


@on_loop
async def test_a_refused_program_leaves_its_session_as_it_was(sandbox: CodeSandbox) -> None:
    async with sandbox.session() as session:
        await session.execute("kept = 1")
        assert not (await session.execute("kept = get_ordr(1)", inputs={"given": 2})).ok
        assert (await session.execute("return kept")).value == 1
        assert not (await session.execute("return given")).ok


# literals: whatever is refused, the tool would have refused


class Kind(enum.Enum):
    A = "a"
    B = "b"


class Inner(BaseModel):
    n: int
    s: str = ""


class Loose(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)
    s: str


TYPES: list[Any] = [
    int, str, float, bool, bytes, Decimal, list[int], list[str], dict[str, int], set[str], tuple[int, str], Kind,
    Literal["x", "y"], Literal[1, 2], dt.date, dt.datetime, dt.timedelta, int | str, int | None, list[int] | None,
    Inner, Inner | None, list[Inner], Loose, Any, Annotated[int, BeforeValidator(lambda v: 1)], complex,
    Annotated[int, Field(ge=3)], frozenset[int], dict[str, list[int]],
]  # fmt: skip

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from([1.0, 2.5, -0.0]), st.sampled_from(
        ["a", "A", " x", "x", "y", "1", "1.0", "2.5", "1e3", "yes", "no", "2024-01-01", "P1D", "", "nan", "0x1", "1_0"]
    ), st.just(b"ab"),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(["n", "s", "k"]), inner, max_size=3),
    ),
    max_leaves=5,
)


def taking(hint: Any) -> Any:
    def tool(x: Any) -> None: ...

    tool.__annotations__ = {"x": hint}
    return tool_from(tool)


MADE = [taking(hint) for hint in TYPES]


@given(st.integers(0, len(TYPES) - 1), values)
def test_no_literal_is_refused_that_the_tool_would_take(index: int, value: Any) -> None:
    tool = MADE[index]
    check = check_of(tool)
    assert check is not None
    spec = check["types"].get("x")
    wrong = misfit(ast.parse(repr(value), mode="eval").body, spec, "x") if spec is not None else None
    if wrong is not None:
        with pytest.raises(InvalidArguments):
            tool.validate({"x": value})


def test_a_tool_that_coerces_by_code_of_its_own_is_not_second_guessed() -> None:
    assert check_of(taking(Annotated[int, BeforeValidator(lambda v: 1)]))["types"] == {}  # type: ignore[index]
    assert check_of(taking(Loose))["types"] == {}  # type: ignore[index]
    assert check_of(tool_from(ship, check=dict))["types"] == {}  # type: ignore[index]
    assert check_of(taking(int))["types"] == {"x": {"type": "integer"}}  # type: ignore[index]


def test_only_results_that_a_model_makes_or_a_schema_closes_have_final_keys() -> None:
    def loose() -> Line: ...  # type: ignore[empty-body]

    assert tool_from(loose).final_keys is None  # nobody checks what it returns
    keys = tool_from(GetOrderTool).final_keys
    assert keys is not None
    assert set(keys["keys"]) == {"id", "customer", "lines"}
    assert keys["keys"]["lines"]["items"]["keys"]["notes"] is None

    class Open(ValidatedTool):
        class Result(BaseModel):
            model_config = ConfigDict(extra="allow")
            a: int

        def _execute(self) -> Any: ...

    class Aliased(ValidatedTool):
        class Result(BaseModel):
            total: int = Field(alias="Total")

        def _execute(self) -> Any: ...

    assert tool_from(Open).final_keys is None
    assert tool_from(Aliased).final_keys == {"keys": {"total": None}}  # results cross by their fields' names


@on_loop
async def test_a_tool_that_is_not_imported_yet_is_left_alone() -> None:
    registry = create_registry()

    @register_tool(registry=registry, defer_loading=True)
    def later(x: int) -> int:
        return x

    async with CodeSandbox(registry) as sandbox:
        assert (await sandbox.execute("return later(x=3)")).value == 3
