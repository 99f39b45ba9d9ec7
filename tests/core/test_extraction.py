# ruff: noqa: E501  (a program is kept on one line)
"""The program is found in whatever a model writes around it."""

from __future__ import annotations

import json

import pytest

from toolchord.extraction import extract_program, program_in_arguments

CODE = "orders = await list_orders()\nreturn len(orders)"
F = "```"

FOUND = {
    "a block": (f"{F}python\n{CODE}\n{F}", CODE),
    "a block with text around": (f"Here is the program:\n\n{F}python\n{CODE}\n{F}\nIt counts the orders.", CODE),
    "py": (f"{F}py\n{CODE}\n{F}", CODE),
    "capital Python": (f"{F}Python\n{CODE}\n{F}", CODE),
    "no language": (f"Sure!\n{F}\n{CODE}\n{F}", CODE),
    "tool_code": (f"{F}tool_code\n{CODE}\n{F}", CODE),
    "language with attributes": (f'{F}python title="x.py"\n{CODE}\n{F}', CODE),
    "never closed": (f"{F}python\n{CODE}", CODE),
    "never closed, with a newline": (f"{F}python\n{CODE}\n", CODE),
    "longer fence": (f"{F}`python\nx = '{F}'\nreturn x\n{F}`", f"x = '{F}'\nreturn x"),
    "tildes": (f"~~~python\n{CODE}\n~~~", CODE),
    "windows line ends": (f"{F}python\r\norders = 1\r\nreturn orders\r\n{F}", "orders = 1\nreturn orders"),
    "indented in a list": (f"1. Run this:\n   {F}python\n   x = 1\n   return x\n   {F}", "x = 1\nreturn x"),
    "in a quotation": (f"> {F}python\n> x = 1\n> return x\n> {F}", "x = 1\nreturn x"),
    "python among others": (f"{F}json\n{{}}\n{F}\n{F}python\n{CODE}\n{F}\n{F}bash\nls\n{F}", CODE),
    "python wins over no language": (f"{F}\nx = 1\n{F}\n{F}python\n{CODE}\n{F}", CODE),
    "the output after it": (f"{F}python\n{CODE}\n{F}\nOutput:\n{F}\n3\n{F}", CODE),
    "two parts of one program": (
        f"First the data:\n{F}python\norders = await list_orders()\n{F}\nThen:\n{F}python\nreturn len(orders)\n{F}",
        "orders = await list_orders()\n\nreturn len(orders)",
    ),
    "a corrected version": (
        f"{F}python\nn = await f()\nreturn n\n{F}\nNo, that is wrong. Better:\n{F}python\nn = await g()\nreturn n\n{F}",
        "n = await g()\nreturn n",
    ),
    "two whole programs": (f"{F}python\nreturn await f()\n{F}\nor\n{F}python\nreturn await g()\n{F}", "return await g()"),
    "a thought before it": (f"<think>\n{F}python\nbad()\n{F}\n</think>\n{F}python\n{CODE}\n{F}", CODE),
    "a console session": (f"{F}python\n>>> x = f()\n>>> x\n3\n{F}", "x = f()\nx"),
    "execute tags": (f"<execute>\n{CODE}\n</execute>", CODE),
    "code tags": (f"I'll run it. <code>\n{CODE}\n</code> Done.", CODE),
    "a fence in tags": (f"<execute>\n{F}python\n{CODE}\n{F}\n</execute>", CODE),
    "no fence": (CODE, CODE),
    "no fence, a sentence before": (f"Here is the program that counts them:\n\n{CODE}", CODE),
    "no fence, a sentence after": (f"{CODE}\n\nThis gives you the number of orders.", CODE),
    "no fence, imports": ("import asyncio\nr = await asyncio.gather(f(1), f(2))\nr", "import asyncio\nr = await asyncio.gather(f(1), f(2))\nr"),
    "a function": (f"{F}python\nasync def main():\n    return await f()\nawait main()\n{F}", "async def main():\n    return await f()\nawait main()"),
    "fences inside text": (f"{F}python\ntext = '''\n  a\n'''\nreturn text\n{F}", "text = '''\n  a\n'''\nreturn text"),
}  # fmt: skip

NONE = {
    "prose": "There are three orders in all.",
    "empty": "",
    "prose with a call": "You could use list_orders() for that.",
    "prose with an equation": "The total is: a = 3 euros, which is fine.",
    "json only": f"{F}json\n" + '{"answer": 3}' + f"\n{F}",
    "a plain block of data": f"{F}\n" + '{"answer": 3}' + f"\n{F}",
    "a table in a block": f"The orders are:\n{F}\nann   120.50\nbob    80.00\n{F}",
    "another language": f"{F}javascript\nconst x = await f();\n{F}",
    "an empty block": f"{F}python\n\n{F}",
    "a list of steps": "1. Get the orders.\n2. Return their number.\n3. Done.",
    "inline code": "Call `await list_orders()` and count.",
    "from at the start": "From what I see, there are three orders.\nReturn of goods is possible.",
    "if": "If you want more, tell me:\n- which customer\n- which year",
}


@pytest.mark.parametrize(("text", "program"), FOUND.values(), ids=FOUND)
def test_a_program_is_found(text: str, program: str) -> None:
    assert extract_program(text) == program


@pytest.mark.parametrize("text", NONE.values(), ids=NONE)
def test_what_is_no_program_is_none(text: str) -> None:
    assert extract_program(text) is None


ARGUMENTS = {
    "an object": ({"code": CODE}, CODE),
    "another name": ({"program": CODE}, CODE),
    "an unknown single name": ({"body": CODE}, CODE),
    "with more beside it": ({"language": "python", "code": CODE}, CODE),
    "a fence inside": ({"code": f"{F}python\n{CODE}\n{F}"}, CODE),
    "lines": ({"code": ["x = 1\n", "return x"]}, "x = 1\nreturn x"),
    "json text": (json.dumps({"code": CODE}), CODE),
    "json with raw line breaks": ('{"code": "x = 1\nreturn x"}', "x = 1\nreturn x"),
    "json never closed": ('{"code": "x = 1\\nreturn x', "x = 1\nreturn x"),
    "triple quotes": ('{"code": """x = 1\nreturn "a" """}', 'x = 1\nreturn "a" '.rstrip()),
    "quotes not escaped": ('{"code": "x = f("a")\nreturn x"}', 'x = f("a")\nreturn x'),
    "code itself": (CODE, CODE),
    "a json string": (json.dumps(CODE), CODE),
}


@pytest.mark.parametrize(("arguments", "program"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_program_is_found_in_a_calls_arguments(arguments: object, program: str) -> None:
    assert program_in_arguments(arguments) == program  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [None, "", "{}", {}, {"code": ""}, {"a": 1, "b": 2}, "[1]", {"code": 3}, "sure"])
def test_arguments_without_a_program_give_none(arguments: object) -> None:
    assert program_in_arguments(arguments) is None  # type: ignore[arg-type]


def test_large_and_hostile_text_takes_linear_time() -> None:
    for text in ("```" * 100_000, "a = " * 100_000, "<code>" * 50_000, "```python\n" * 20_000, " " * 400_000 + "x"):
        extract_program(text)
        program_in_arguments('{"code": "' + text)
