# ruff: noqa: E501  (a program is kept on one line)
"""Sixty broken programs of the kinds that models write, and what their repair message must say.

Each message must name the line, the cause, what the value looked like, the nearest name, what already ran, and the
smallest fix; None where there is no such thing (a program that can't be read has no values).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from toolchord import ValidatedTool


@dataclass(frozen=True)
class Broken:
    """A program and parts of its message.

    Attributes:
        cause: the error's type, and how it begins.
        ran: the tools that were called before it failed, in order.
        near: the name that was meant; part of the fix, too.
    """

    name: str
    code: str
    line: int | None
    cause: tuple[str, str]
    fix: str
    shape: str | None = None
    near: str | None = None
    ran: tuple[str, ...] = ()


class Row(BaseModel):
    customer: str
    revenue: float
    date: str


class GetSalesTool(ValidatedTool):
    """Sales records of a year."""

    class Arguments(BaseModel):
        year: int
        limit: int = 100

    class Result(BaseModel):
        rows: list[Row]
        total: int

    async def _execute(self, year: int, limit: int) -> dict[str, Any]:
        rows = [{"customer": "ann", "revenue": 120.5, "date": "2024-01-10T10:00:00Z"},
                {"customer": "bob", "revenue": 80.0, "date": "2024-02-11T09:30:00Z"}]  # fmt: skip
        return {"rows": rows, "total": 2}


async def list_orders(status: str = "paid") -> list[Any]:
    """All orders."""
    return [
        {"id": 1, "customer": "ann", "amount": 120.5, "note": None, "tags": ["new"], "price": "1,200.50"},
        {"id": 2, "customer": "bob", "amount": 80, "note": "late", "tags": [], "price": "80"},
    ]


def get_profile(name: str) -> dict[str, Any]:
    """One customer."""
    return {"name": name, "address": {"city": "Oslo"}, "email": None, "raw": '{"level": 3}', "visits": 0}


def find(query: str) -> list[Any]:
    """Find what fits."""
    return []


def charge(customer: str, euros: float) -> str:
    """Charge a customer."""
    if euros > 1000:
        raise ValueError("over the limit of 1000 euros")
    return f"charged {customer}"


TOOLS = [GetSalesTool, list_orders, get_profile, find, charge]

ORDERS = "orders = await list_orders()\n"
ORDER_KEYS = "with keys 'id' (int), 'customer' (str), 'amount' (float)"
ONE, RAN = ("list_orders",), ("list_orders",)

BROKEN = [
    # keys and attributes
    Broken("key misspelled", ORDERS + "return [o['custmer'] for o in orders]", 2, ("KeyError", "'custmer'"),
           "write o['customer'] instead of o['custmer']", f"o is a dict {ORDER_KEYS}", "'customer'", RAN),
    Broken("key with a suffix", ORDERS + "return {o['customer_id']: o['amount'] for o in orders}", 2,
           ("KeyError", "'customer_id'"), "write o['customer']", f"o is a dict {ORDER_KEYS}", "'customer'", RAN),
    Broken("attribute misspelled", "p = get_profile('ann')\nreturn p.adress.city", 2, ("AttributeError", "the record has no 'adress'"),
           "write p['address'] instead of p.adress", "p is a dict with keys 'name' (str), 'address' (dict)", "'address'", ("get_profile",)),
    Broken("key one level deeper", "p = get_profile('ann')\nreturn p['city']", 2, ("KeyError", "'city'"),
           "one level deeper: write p['address']['city']", "'address' (dict)", None, ("get_profile",)),
    Broken("key of the records", "s = await get_sales(year=2024)\nx = dict(s)\nreturn x['revenue']", 3, ("KeyError", "'revenue'"),
           "write [item['revenue'] for item in x['rows']]", "x is a dict with keys 'rows' (list of 2 dicts", None, ("GetSalesTool",)),
    Broken("list read as a dict", ORDERS + "return orders['rows']", 2, ("TypeError", "list indices must be integers"),
           "orders[0]['rows'], or all: [item['rows'] for item in orders]", f"orders is a list of 2 dicts {ORDER_KEYS}", None, RAN),
    Broken("list read by attribute", ORDERS + "return orders.amount", 2, ("AttributeError", "'list' object has no attribute 'amount'"),
           "orders[0].amount, or all: [item.amount for item in orders]", "orders is a list of 2 dicts", None, RAN),
    Broken("json text as a dict", "p = get_profile('ann')\nreturn p['raw']['level']", 2, ("TypeError", "string indices must be integers"),
           "json.loads(p['raw'])['level']", "p['raw'] is text of 12 characters that holds JSON", None, ("get_profile",)),
    Broken("json text by attribute", "p = get_profile('ann')\nraw = p['raw']\nreturn raw.level", 3, ("AttributeError", "'str' object has no attribute 'level'"),
           "json.loads(raw)['level']", "raw is text of 12 characters that holds JSON", None, ("get_profile",)),
    Broken("text as a dict", "for name in ['ann']:\n    p = get_profile(name)\n    print(name['id'])", 3, ("TypeError", "string indices must be integers"),
           "name is text, not a dict", "name is text of 3 characters", None, ("get_profile",)),
    Broken("none subscripted", "p = get_profile('ann')\nreturn p['email']['domain']", 2, ("TypeError", "'NoneType' object is not subscriptable"),
           "if p['email'] is not None", "p['email'] is None", None, ("get_profile",)),
    Broken("none by attribute", "p = get_profile('ann')\nreturn p.email.lower()", 2, ("AttributeError", "'NoneType' object has no attribute 'lower'"),
           "if p.email is not None", "p.email is None", None, ("get_profile",)),
    Broken("number subscripted", "s = await get_sales(year=2024)\nt = s['total']\nreturn t['value']", 3, ("TypeError", "'int' object is not subscriptable"),
           "use t itself", "t is an int", None, ("GetSalesTool",)),
    Broken("tool without a call", "return get_profile.name", 1, ("AttributeError", "'ToolFunction' object has no attribute 'name'"),
           "(await get_profile(...)).name", "get_profile is a tool, a function", None),
    Broken("tool subscripted", "return list_orders[0]", 1, ("TypeError", "'ToolFunction' object is not subscriptable"),
           "call it: list_orders(...)", "list_orders is a function", None),
    Broken("method misspelled", "p = get_profile('ann')\nn = p['name']\nreturn n.uper()", 3, ("AttributeError", "'str' object has no attribute 'uper'"),
           "write n.upper", "n is text of 3 characters", "upper", ("get_profile",)),
    Broken("key in a counter of ints", ORDERS + "by_id = {o['id']: o for o in orders}\nreturn by_id['1']", 3, ("KeyError", "'1'"),
           "the key is int 1: write by_id[1]", "by_id is a dict with keys 1 (dict), 2 (dict)", "1", RAN),
    Broken("key of an empty dict", ORDERS + "seen = {}\nreturn seen['ann']", 3, ("KeyError", "'ann'"),
           "seen.get('ann')", "seen is an empty dict", None, RAN),
    Broken("key in a coroutine", "import asyncio\nasync def one(n):\n    p = await get_profile(name=n)\n    return p['mail']\nreturn await asyncio.gather(one('a'), one('b'))", 4,
           ("KeyError", "'mail'"), "write p['email'] instead of p['mail']", "p is a dict with keys 'name' (str)", "'email'", ("get_profile", "get_profile")),
    Broken("key in a task group", "import asyncio\nasync def one(n):\n    p = await get_profile(name=n)\n    return p['visit']\nasync with asyncio.TaskGroup() as tg:\n    tg.create_task(one('a'))", 5,
           ("ExceptionGroup", "unhandled errors in a TaskGroup"), "write p['visits'] instead of p['visit']", "KeyError (line 4): 'visit'\np is a dict with keys 'name' (str)", "'visits'", ("get_profile",)),
    Broken("module attribute", "import math\nx = find('a')\nreturn math.sqroot(4)", 3, ("AttributeError", "module 'math' has no attribute 'sqroot'"),
           "write math.sqrt", None, "sqrt", ("find",)),
    # names
    Broken("variable misspelled", ORDERS + "return len(oders)", 2, ("NameError", "name 'oders' is not defined"),
           "write orders", None, "orders", RAN),
    Broken("json true", "x = find('a')\nflags = {'active': true}\nreturn flags", 2, ("NameError", "name 'true' is not defined"),
           "in Python it is True", None, "True", ("find",)),
    Broken("json null", "x = find('a')\nreturn {'next': null}", 2, ("NameError", "name 'null' is not defined"),
           "in Python it is None", None, "None", ("find",)),
    Broken("module not imported", "p = get_profile('ann')\nreturn json.loads(p['raw'])", 2, ("NameError", "name 'json' is not defined"),
           "import it first: import json", None, "json", ("get_profile",)),
    Broken("class not imported", "d = find('a')\nx = datetime\nreturn 1", 2, ("NameError", "name 'datetime' is not defined"),
           "from datetime import datetime", None, "datetime", ("find",)),
    Broken("global without the word", "total = 0\ndef add(p):\n    total += p['visits']\nadd(get_profile('ann'))", 3, ("UnboundLocalError", "cannot access local variable 'total'"),
           "write `global total`", "total is assigned in this function", None, ("get_profile",)),
    # types
    Broken("text plus number", "p = get_profile('ann')\nreturn 'visits: ' + p['visits']", 2, ("TypeError", "can only concatenate str"),
           "use an f-string", "p['visits'] is an int", None, ("get_profile",)),
    Broken("number plus text", ORDERS + "total = 0\nfor o in orders:\n    total = total + o['price']", 4, ("TypeError", "unsupported operand type(s) for +: 'int' and 'str'"),
           "convert one side: int(…) or float(…)", "o['price'] is text of 8 characters", None, RAN),
    Broken("sum with none", ORDERS + "return sum(o['note'] for o in orders)", 2, ("TypeError", "unsupported operand type(s) for +: 'int' and 'NoneType'"),
           "use a default: (x or 0)", "orders is a list of 2 dicts", None, RAN),
    Broken("sort with none", ORDERS + "return sorted(orders, key=lambda o: o['note'])", 2, ("TypeError", "'<' not supported between instances of 'str' and 'NoneType'"),
           "use a default: (x or '')", "orders is a list of 2 dicts", None, RAN),
    Broken("compare text and number", ORDERS + "return [o for o in orders if o['price'] > 100]", 2, ("TypeError", "'>' not supported between instances of 'str' and 'int'"),
           "convert one side: int(…) or float(…)", "o['price'] is text of 8 characters", None, RAN),
    Broken("join numbers", ORDERS + "ids = [o['id'] for o in orders]\nreturn ', '.join(ids)", 3, ("TypeError", "sequence item 0: expected str instance, int found"),
           "str(…)", "ids is a list of 2 ints", None, RAN),
    Broken("dict as a key", ORDERS + "return {o: o['amount'] for o in orders}", 2, ("TypeError", "unhashable type: 'dict'"),
           "such as item['id'], as the key", "o is a dict", None, RAN),
    Broken("list as a key", ORDERS + "groups = {}\nfor o in orders:\n    groups[o['tags']] = o", 4, ("TypeError", "unhashable type: 'list'"),
           "use tuple(…) of it", "o['tags'] is a list of 1 str", None, RAN),
    Broken("set of dicts", ORDERS + "return len(set(orders))", 2, ("TypeError", "unhashable type: 'dict'"),
           "such as item['id'], as the key", "orders is a list of 2 dicts", None, RAN),
    Broken("iterate over a number", "s = await get_sales(year=2024)\nt = s['total']\nfor x in t:\n    print(x)", 3, ("TypeError", "'int' object is not iterable"),
           "range(t)", "t is an int", None, ("GetSalesTool",)),
    Broken("iterate over none", "p = get_profile('ann')\nfor x in p['email']:\n    print(x)", 2, ("TypeError", "'NoneType' object is not iterable"),
           "p['email'] or []", "p['email'] is None", None, ("get_profile",)),
    Broken("length of a number", "p = get_profile('ann')\nreturn len(p['visits'])", 2, ("TypeError", "object of type 'int' has no len()"),
           "[p['visits']]", "p['visits'] is an int", None, ("get_profile",)),
    Broken("json.loads of data", "import json\np = get_profile('ann')\nreturn json.loads(p)['name']", 3, ("TypeError", "the JSON object must be str, bytes or bytearray, not dict"),
           "use p without json.loads", "p is a dict with keys 'name' (str)", None, ("get_profile",)),
    Broken("json.dumps of a set", ORDERS + "import json\nnames = {o['customer'] for o in orders}\nreturn json.dumps(names)", 4, ("TypeError", "Object of type set is not JSON serializable"),
           "return the value itself", "names is a set of 2 strs", None, RAN),
    Broken("value called", "p = get_profile('ann')\nname = p['name']\nreturn name()", 3, ("TypeError", "'str' object is not callable"),
           "leave the () out", "name is text of 3 characters", None, ("get_profile",)),
    Broken("builtin hidden", ORDERS + "sum = 0\nreturn sum([o['id'] for o in orders])", 3, ("TypeError", "'int' object is not callable"),
           "give that variable another name", "sum is an int", None, RAN),
    Broken("own function misused", "def add(a, b):\n    return a + b\nx = find('a')\nreturn add(1)", 4, ("TypeError", "add() missing 1 required positional argument: 'b'"),
           "add(a, b)", "add takes (a, b)", None, ("find",)),
    Broken("format of none", "p = get_profile('ann')\nreturn f\"{p['email']:>10}\"", 2, ("TypeError", "unsupported format string passed to NoneType"),
           "check for None first", "p['email'] is None", None, ("get_profile",)),
    Broken("coroutine used", "async def one():\n    return await get_profile(name='ann')\nx = find('a')\nc = one()\nreturn c['name']", 5, ("TypeError", "'coroutine' object is not subscriptable"),
           "write (await c)", "c is a coroutine that was not awaited", None, ("find",)),
    # values
    Broken("index past the end", ORDERS + "return orders[2]['id']", 2, ("IndexError", "list index out of range"),
           "its last item is orders[1]", "orders is a list of 2 dicts", None, RAN),
    Broken("first of nothing", "hits = find('x')\nreturn hits[0]['id']", 2, ("IndexError", "list index out of range"),
           "if hits: …", "hits is an empty list", None, ("find",)),
    Broken("division by zero", "hits = find('x')\nreturn 100 / len(hits)", 2, ("ZeroDivisionError", "division by zero"),
           "if len(hits) else 0", "len(hits) is 0", None, ("find",)),
    Broken("max of nothing", "hits = find('x')\nreturn max(hits)", 2, ("ValueError", "max() arg is an empty sequence"),
           "max(…, default=None)", "hits is an empty list", None, ("find",)),
    Broken("float of a price", ORDERS + "p = orders[0]['price']\nreturn float(p)", 3, ("ValueError", "could not convert string to float: '1,200.50'"),
           "float(x.replace(',', ''))", "p is text of 8 characters", None, RAN),
    Broken("wrong date format", "from datetime import datetime\ns = await get_sales(year=2024)\nd = s['rows'][0]['date']\nreturn datetime.strptime(d, '%Y-%m-%d')", 4, ("ValueError", "unconverted data remains"),
           "datetime.fromisoformat(…)", "d is text of 20 characters", None, ("GetSalesTool",)),
    Broken("unpack too few", ORDERS + "for name, amount in orders:\n    print(name)", 2, ("ValueError", "too many values to unpack (expected 2)"),
           "unpack as many names as there are items", "orders is a list of 2 dicts", None, RAN),
    # tools
    Broken("tool failed", "p = get_profile('ann')\nreturn charge(customer=p['name'], euros=5000 + p['visits'])", 2, ("ValueError", "over the limit of 1000 euros"),
           "catch ToolError", "The tool charge failed; the program itself is right", None, ("get_profile", "charge")),
    Broken("unknown tool", "orders = await list_order()\nreturn orders", 1, ("NameError", "no tool or function named 'list_order'"),
           "did you mean list_orders?", None, "list_orders"),
    Broken("unknown argument", "return await list_orders(state='paid')", 1, ("InvalidArguments", "list_orders: unexpected argument 'state'"),
           "It is called as list_orders(status: str = 'paid')", None, "'status'"),
    Broken("key ruled out", "sales = await get_sales(year=2024)\nreturn sorted(sales['rows'], key=lambda r: r['revenu'])", 2, ("KeyError", "r has no key 'revenu'"),
           "did you mean 'revenue'?", "Its keys are 'customer', 'revenue', 'date'", "'revenue'"),
    # programs that can't be read or run
    Broken("fence left in", "```python\nreturn find(query='a')\n```", 1, ("SyntaxError", "invalid syntax"),
           "leave the Markdown fence (```) out", "Line 1 is: ```python", None),
    Broken("javascript", "const orders = await list_orders();\nreturn orders", 1, ("SyntaxError", "invalid syntax"),
           "in Python write orders = await list_orders()", "Line 1 is: const orders", None),
    Broken("await in a plain function", "def load():\n    return await list_orders()\nreturn load()", 2, ("SyntaxError", "'await' outside async function"),
           "write `async def`", "Line 2 is: return await list_orders()", None),
    Broken("cut off", "rows = find(query='a')\nprint(rows", 2, ("SyntaxError", "'(' was never closed"),
           "if the program was cut off, send all of it", "Line 2 is: print(rows", None),
    Broken("import refused", "import requests\nreturn requests.get('http://x')", 1, ("ProgramRefused", "import of 'requests' is not allowed"),
           "use the tools", None, None),
    Broken("value that can't cross", "p = get_profile('ann')\nreturn {'f': lambda: p}", None, ("UnsupportedValue", ""),
           "return plain data", "function", None, ("get_profile",)),
    Broken("a stub copied into the program", "async def find(query: str) -> list[dict[str, Any]]:\n    return []\nreturn len(await find(query='a'))", 1, ("NameError", "name 'Any' is not defined"),
           "Fix: remove `def find` from the program: find is a tool that is there already", None),
    Broken("two stubs copied, and one calls itself", "async def find(query):\n    return await find(query)\nasync def list_orders(status):\n    return []\nrows = await list_orders('paid')\nreturn rows[0]", 6, ("IndexError", "list index out of range"),
           "Fix: remove `def find` and `def list_orders` from the program: find, list_orders are tools that are there already", None),
]  # fmt: skip
