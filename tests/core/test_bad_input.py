"""Malformed, hostile and plain wrong input: each ends in a typed, helpful error, the host lives, nothing is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack
import pytest
import pytest_asyncio
from pydantic import BaseModel

from toolchord import CodeSandbox, ExecutionResult, Limits
from toolchord.errors import (
    ConfigurationError,
    RegistrationError,
    SandboxClosed,
    ToolNotFoundError,
)
from toolchord_guest import reading, values, wire

pytestmark = pytest.mark.asyncio(loop_scope="module")


# Tools that misbehave


class Silent(Exception):
    """An error without arguments."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class NoArguments(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise ValueError("no")


class MissingRow(KeyError):
    """A kind of KeyError."""


class DiskFull(OSError):
    def __str__(self) -> str:
        return "the disk is full"


class BadText(UnicodeDecodeError):
    def __init__(self) -> None:
        super().__init__("utf-8", b"ab", 0, 1, "odd")


class Outside(BaseException):
    """Not even an Exception."""


def raiser(error: Callable[[], BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise error()

    return fail


def araiser(error: Callable[[], BaseException]) -> Callable[[], Any]:
    async def fail() -> None:
        raise error()

    return fail


class Frozen(enum.Enum):
    LIST = [1]  # noqa: RUF012


@dataclasses.dataclass(frozen=True)
class Pair:
    a: int


class Typed(BaseModel):
    n: int


def ring() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


def echo(x: Any = None) -> Any:
    return x


def count(n: int, unit: str = "m") -> int:
    return n


def typed(order: Typed) -> int:
    return order.n


def generator() -> Any:
    yield 1


def spoil(rows: list[Any]) -> int:
    rows.clear()
    rows.append("spoilt")
    return 0


def next_of_nothing() -> Any:
    return next(iter([]))


async def hang() -> None:
    await asyncio.Event().wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(tools=[echo, count, typed, spoil], limits=Limits(wall_time=20)) as sandbox:
        yield sandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def raw() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(tools=[echo], language="unrestricted", limits=Limits(wall_time=20)) as sandbox:
        yield sandbox


async def alive(sandbox: CodeSandbox) -> bool:
    return bool((await sandbox.execute("1+1")).value == 2)


async def caught(sandbox: CodeSandbox, tool: Any) -> tuple[str, str, ExecutionResult]:
    """The type and message of a tool's error, as a program catches it; and the run."""
    code = (
        "print('before')\necho(1)\n"
        "try:\n    r = await call_tool('bad')\nexcept Exception as e:\n    r = [type(e).__name__, str(e)]\nr"
    )
    result = await sandbox.execute(code, tools={"bad": tool, "echo": echo})
    assert result.error is None
    assert result.stdout == "before\n"
    assert [call.status for call in result.calls] == ["ok", "error"]
    return (*result.value, result)


# Programs

DEEP = "(" * 3000 + ")" * 3000

PROGRAMS = [
    ("return", "x = = 1", "SyntaxError", "invalid syntax"),
    ("unclosed", "x = (1,\n", "SyntaxError", "was never closed"),
    ("unclosed text", "x = 'abc", "SyntaxError", "unterminated string"),
    ("tabs", "if 1:\n\tx=1\n        y=2\n", "TabError", "tabs and spaces"),
    ("indent", "if 1:\nx = 1", "IndentationError", "expected an indented block"),
    ("dedent", "if 1:\n    x = 1\n  y = 2", "IndentationError", "unindent"),
    ("null byte", "x = 1\0", "SyntaxError", "null bytes"),
    ("surrogate", "x = '\ud800'", "SyntaxError", "lone surrogates"),
    ("parentheses", DEEP, "SyntaxError", "too many nested parentheses"),
    ("deep sum", "1+" * 20_000 + "1", "RecursionError", "nested too deeply"),
    ("deep attribute", "x" + ".a" * 20_000, "RecursionError", "nested too deeply"),
    ("prose", "Here is the program you asked for:", "SyntaxError", "invalid syntax"),
    ("markdown", "```python\nreturn 1\n```", "SyntaxError", "invalid syntax"),
    ("top yield", "yield 1", "SyntaxError", "outside function"),
    ("break", "break", "SyntaxError", "outside loop"),
    ("long number", "x = " + "9" * 5000, "SyntaxError", "4300"),
    ("python 2", "print 'x'", "SyntaxError", "Missing parentheses"),
    ("import os", "import os", "ProgramRefused", "there is no operating system here; use the tools"),
    ("import nothing", "import nothing_at_all", "ProgramRefused", "available are"),
    ("eval", "eval('1')", "ProgramRefused", "write the expression itself"),
    ("dunder", "().__class__.__bases__", "ProgramRefused", "'__bases__'"),
    ("format", "'{0.__class__}'.format(1)", "ProgramRefused", "'__class__'"),
    ("name", "return salse", "NameError", "'salse' is not defined"),
    ("exit", "raise SystemExit(3)", "SystemExit", "3"),
    ("interrupt", "raise KeyboardInterrupt('stop')", "KeyboardInterrupt", "stop"),
    ("recursion", "def f():\n    return f()\nf()", "RecursionError", "maximum recursion depth"),
    ("zero", "1/0", "ZeroDivisionError", "division by zero"),
    ("raise none", "raise None", "TypeError", "must derive from BaseException"),
    (
        "bad text",
        "class E(Exception):\n    def __str__(self):\n        raise ValueError\nraise E()",
        "E",
        "could not be had",
    ),
    ("odd text", "raise ValueError('\\ud800')", "ValueError", "?"),
    ("await", "await 5 + 'x'", "TypeError", "unsupported operand"),
    ("deadlock", "import asyncio\nawait asyncio.Event().wait()", "Deadlock", "can never happen"),
    ("function", "return {'f': print}", "UnsupportedValue", "call it"),
    ("generator", "return [(x for x in 'a')]", "UnsupportedValue", "list(...)"),
    ("class", "class A: pass\nreturn [{'a': A()}]", "UnsupportedValue", "$[0].a"),
    ("ring", "x = []\nx.append(x)\nreturn x", "UnsupportedValue", "contains itself"),
    ("tuple keys", "return {(1, 2): 3}", "UnsupportedValue", "keys must be scalars"),
    ("complex", "return 1j", "UnsupportedValue", "complex"),
    (
        "set of records",
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    x: int\nreturn {P(1)}",
        "UnsupportedValue",
        "use a list",
    ),
    ("bad key argument", "echo({(1, 2): 3})", "UnsupportedValue", "keys must be scalars"),
    ("bad argument", "echo(x=[print])", "UnsupportedValue", "$[1].x[0]"),
    ("missing argument", "count()", "InvalidArguments", "missing argument 'n'"),
    ("wrong type", "count(n='many')", "InvalidArguments", "n: "),
    ("near name", "count(1, units='km')", "InvalidArguments", "did you mean 'unit'?"),
    ("twice", "count(1, n=2)", "InvalidArguments", "two values for 'n'"),
    ("too many", "count(1, 'm', 3)", "InvalidArguments", "2 positional arguments, 3 were given"),
    ("bad model", "typed(order={'n': []})", "InvalidArguments", "order.n"),
    ("huge int", "count(1, unit=10**5000)", "InvalidArguments", "unit: "),
    ("nan", "count(n=float('nan'))", "InvalidArguments", "n: "),
    ("surrogate name", "call_tool('\\ud800')", "UnicodeEncodeError", "surrogates not allowed"),
    ("no name", "call_tool()", "TypeError", "the tool's name first"),
    ("number as name", "call_tool(5)", "TypeError", "the tool's name first"),
    ("near tool", "call_tool('cuont', n=1)", "ToolNotAvailable", "did you mean count"),
    ("long tool name", "call_tool('x' * 500_000)", "ToolNotAvailable", "500,000 characters"),
    ("host module", "call_tool('os.system', 'ls')", "ToolNotAvailable", "no tool named 'os.system'"),
]


@pytest.mark.parametrize(("code", "kind", "says"), [p[1:] for p in PROGRAMS], ids=[p[0] for p in PROGRAMS])
async def test_a_wrong_program_gets_a_typed_error_that_helps(
    sandbox: CodeSandbox, code: str, kind: str, says: str
) -> None:
    result = await sandbox.execute(code)
    assert result.error is not None
    assert result.error.type == kind
    assert says in result.error.message
    result.for_model().encode()
    assert await alive(sandbox)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("", None),
        ("# only a comment", None),
        ("\n\n   \n", None),
        ("return 1\r\n", 1),
        ("if 1:\r\n    x = 2\r\nreturn x", 2),
        ("\ufeffreturn 3", 3),
        ("    return 4\n", 4),
        ("\f\nreturn 5", 5),
        ("return 6 # no newline", 6),
        ("x = 7;", 7),
        ("return {float('nan')} and 8", 8),
        ("π = 9\nreturn π", 9),
    ],
)
async def test_an_odd_program_that_is_right_runs(sandbox: CodeSandbox, code: str, value: object) -> None:
    result = await sandbox.execute(code)
    assert result.error is None
    assert result.value == value


@pytest.mark.parametrize(
    ("code", "limits", "limit"),
    [
        ("while True: pass", Limits(cpu_time=0.3), "cpu_time"),
        ("import time\ntime.sleep(99)", Limits(wall_time=0.3), "wall_time"),
        ("await hang()", Limits(wall_time=0.3), "wall_time"),
        ("x = bytearray(10**9)", Limits(memory=64 << 20), "memory"),
        ("x = []\nwhile True: x.append('y' * 1000 + str(len(x)))", Limits(memory=64 << 20), "memory"),
        ("print('z' * 5000)", Limits(output=1000), "output"),
        ("while True: print('z')", Limits(output=1000), "output"),
        ("return 'z' * 5000", Limits(result=1000), "result"),
        ("echo('z' * 5000)", Limits(result=1000), "result"),
        ("for n in range(99): echo(n)", Limits(tool_calls=5), "tool_calls"),
        ("echo(1)", Limits(tool_calls=1), "tool_calls"),
        ("return 1" + " " * 5000, Limits(source=100), "source"),
    ],
)
async def test_a_limit_names_itself_and_keeps_what_happened(
    sandbox: CodeSandbox, code: str, limits: Limits, limit: str
) -> None:
    result = await sandbox.execute(f"print('first')\necho('did')\n{code}", tools=[echo, hang], limits=limits)
    assert result.error is not None
    assert (result.error.type, result.error.kind, result.error.limit) == ("LimitExceeded", "limit", limit)
    assert result.error.message.startswith(f"{limit}: ")
    if limit != "source":
        assert result.stdout.startswith("first\n")
        assert (result.calls[0].arguments, result.calls[0].status) == ({"x": "did"}, "ok")
    assert "did" in result.for_model() or limit == "source"
    assert await alive(sandbox)


async def test_the_calls_that_were_running_when_a_limit_ended_the_run_are_marked(sandbox: CodeSandbox) -> None:
    code = "import asyncio\nawait asyncio.gather(hang(), hang())"
    result = await sandbox.execute(code, tools=[hang], limits=Limits(wall_time=0.3))
    assert [call.status for call in result.calls] == ["unfinished", "unfinished"]
    assert result.error is not None
    assert "hang" in result.error.message


# Tools that fail

FAILURES: list[tuple[Any, str, str]] = [
    (raiser(Silent), "Silent", ""),
    (raiser(Unspeakable), "Unspeakable", "could not be had: SystemExit"),
    (araiser(Unspeakable), "Unspeakable", "could not be had: SystemExit"),
    (raiser(lambda: NoArguments("told")), "NoArguments", "told"),
    (raiser(lambda: MissingRow("row 5")), "MissingRow", "'row 5'"),
    (raiser(lambda: DiskFull(28, "x")), "DiskFull", "the disk is full"),
    (raiser(lambda: FileNotFoundError(2, "No such file", "/x")), "FileNotFoundError", "No such file"),
    (raiser(BadText), "BadText", "can't decode byte"),
    (raiser(lambda: Outside("out")), "Outside", "out"),
    (araiser(lambda: Outside("out")), "Outside", "out"),
    (raiser(lambda: SystemExit(3)), "SystemExit", "3"),
    (araiser(asyncio.CancelledError), "CancelledError", ""),
    (raiser(lambda: ExceptionGroup("many", [ValueError(1), KeyError(2)])), "ExceptionGroup", "many (2 sub-exceptions)"),
    (raiser(lambda: TimeoutError()), "TimeoutError", "took too long"),
    (raiser(lambda: ValueError("x" * 5_000_000)), "ValueError", "xxxx"),
    (raiser(lambda: ValueError(*["y" * 10_000] * 500)), "ValueError", "yyyy"),
    (raiser(lambda: ValueError({"a": object()}, [1])), "ValueError", "object object"),
    (raiser(lambda: ValueError("\ud800")), "ValueError", "\ud800"),
    (raiser(lambda: ValueError(10**50)), "ValueError", "1000"),
    (raiser(lambda: type("Odd name\n", (ValueError,), {})("x")), "Odd_name_", "x"),
    (raiser(lambda: type("__class__", (Exception,), {})("x")), "__class__", "x"),
    (next_of_nothing, "RuntimeError", "raised StopIteration"),
    (araiser(StopIteration), "RuntimeError", "StopIteration"),
    (generator, "UnsupportedValue", "list(...)"),
    (lambda: object(), "UnsupportedValue", "plain data"),
    (lambda: [{"a": (1, print)}], "UnsupportedValue", "$[0].a[1]"),
    (ring, "UnsupportedValue", "contains itself"),
    (lambda: {Pair(1)}, "UnsupportedValue", "use a list"),
    (lambda: {Frozen.LIST: 1}, "UnsupportedValue", "keys must be scalars"),
    (lambda: {(1, 2): 3}, "UnsupportedValue", "keys must be scalars"),
    (lambda: 1j, "UnsupportedValue", "complex"),
    (lambda: asyncio, "UnsupportedValue", "module"),
]


@pytest.mark.parametrize(("tool", "kind", "says"), FAILURES, ids=[f"{n} {f[1]}" for n, f in enumerate(FAILURES)])
async def test_a_failing_tool_is_caught_by_its_type_with_its_message(
    sandbox: CodeSandbox, tool: Any, kind: str, says: str
) -> None:
    name, message, result = await caught(sandbox, tool)
    assert name == kind
    assert says in message
    assert result.calls[1].error is not None
    assert result.calls[1].error[0] == kind
    assert len(message) <= 20_000
    assert await alive(sandbox)


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (lambda: MissingRow("x"), "LookupError"),
        (lambda: DiskFull(28, "x"), "OSError"),
        (BadText, "ValueError"),
        (lambda: ConnectionRefusedError("x"), "ConnectionError"),
        (lambda: ModuleNotFoundError("x", name="y"), "ImportError"),
        (lambda: SyntaxError("x"), "SyntaxError"),
    ],
)
async def test_a_tools_error_is_caught_by_the_builtin_class_it_derives_from(
    sandbox: CodeSandbox, error: Callable[[], BaseException], base: str
) -> None:
    code = f"try:\n    call_tool('bad')\nexcept {base} as e:\n    r = 'caught'\nr"
    assert (await sandbox.execute(code, tools={"bad": raiser(error)})).value == "caught"


async def test_the_record_keeps_what_the_program_sent_whatever_a_tool_does_to_it(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("rows = [1, [2]]\nspoil(rows)\nreturn rows")
    assert result.value == [1, [2]]
    assert result.calls[0].arguments == {"rows": [1, [2]]}


async def test_twenty_megabytes_come_from_a_tool(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("return len(big())", tools={"big": lambda: "ü" * 10_000_000})
    assert (result.error, result.value) == (None, 10_000_000)
    assert result.calls[0].result_bytes >= 20_000_000


# Limits, inputs, tools, options


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [-1, True, "5", None, math.nan, math.inf, -0.5, 10**400, [1], b"1"])
async def test_a_wrong_limit_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"Limits\.{name} must be"):
        Limits(**{name: value})


async def test_a_limit_of_memory_that_no_interpreter_fits_in_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"at least .*16 MiB"):
        Limits(memory=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"code": b"1"}, "code must be str, not bytes"),
        ({"code": None}, "code must be str, not NoneType"),
        ({"code": "1", "inputs": [1]}, "inputs must be a mapping"),
        ({"code": "1", "inputs": "ab"}, "inputs must be a mapping"),
        ({"code": "1", "inputs": {"a b": 1}}, "'a b'"),
        ({"code": "1", "inputs": {"__builtins__": 1}}, "'__builtins__'"),
        ({"code": "1", "inputs": {5: 1}}, "not 5"),
        ({"code": "1", "inputs": {"class": 1}}, "'class'"),
        ({"code": "1", "inputs": {"x": [print]}}, r"inputs\.x\[0\]"),
        ({"code": "1", "inputs": {"x": ring()}}, "contains itself"),
        ({"code": "1", "inputs": {"x": {Pair(1)}}}, "use a list"),
        ({"code": "1", "limits": 5}, "limits must be Limits"),
        ({"code": "1", "limits": {"wall_time": 5}}, "limits must be Limits"),
        ({"code": "1", "tools": 5}, "int holds no tools"),
        ({"code": "1", "tools": b"ab"}, "holds no tools"),
    ],
)
async def test_wrong_arguments_of_execute_are_refused_and_named(
    sandbox: CodeSandbox, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        await sandbox.execute(**arguments)
    assert await alive(sandbox)


@pytest.mark.parametrize(
    ("tools", "kind"),
    [
        (["no_such_tool"], ToolNotFoundError),
        ("no_such_tool", ToolNotFoundError),
        ({"a": 5}, RegistrationError),
        ([5], ConfigurationError),
        ([lambda: 1], RegistrationError),
        ([Pair], RegistrationError),
    ],
)
async def test_tools_that_are_none_are_refused(sandbox: CodeSandbox, tools: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"\w"):
        await sandbox.execute("1", tools=tools)
    with pytest.raises(kind, match=r"\w"):
        CodeSandbox(tools=tools)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"isolation": "none"}, '"auto" or "process"'),
        ({"isolation": None}, '"auto" or "process"'),
        ({"language": "python"}, '"restricted" or "unrestricted"'),
        ({"language": "unrestricted", "isolation": "process"}, "wall two in full"),
        ({"limits": 3}, "limits must be Limits"),
        ({"registry": [echo]}, r"pass tools=\[...\]"),
    ],
)
async def test_wrong_options_of_a_sandbox_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        CodeSandbox(**{"registry": None, **options})


async def test_what_is_closed_says_so() -> None:
    sandbox = CodeSandbox()
    session = sandbox.session()
    assert (await session.execute("1")).value == 1
    session.close()
    with pytest.raises(SandboxClosed, match="open a new one"):
        await session.execute("1")
    sandbox.close()
    sandbox.close()
    with pytest.raises(SandboxClosed, match="make a new"):
        await sandbox.execute("1")
    with pytest.raises(SandboxClosed, match="make a new"):
        await sandbox.session().execute("1")


async def test_a_program_that_fails_leaves_a_session_its_variables(sandbox: CodeSandbox) -> None:
    async with sandbox.session() as session:
        for code in ("x = 5", "x = = 1", "import os", "1/0", "return print", "y = 1\0"):
            await session.execute(code)
        assert (await session.execute("return x")).value == 5


async def test_a_session_whose_guest_is_gone_starts_anew_and_says_so(sandbox: CodeSandbox) -> None:
    async with sandbox.session() as session:
        await session.execute("x = 5")
        result = await session.execute("while True: pass", limits=Limits(cpu_time=0.2))
        assert "variables are gone" in result.stderr
        after = await session.execute("return x")
        assert after.error is not None
        assert after.error.type == "NameError"


# Forged frames

pack = wire.pack
NONE = b"\xc0"
NO_ARGUMENTS = b"\x92\x90\x80"


def done(body: bytes) -> bytes:
    return pack(wire.Done(body, None, True))


def call(number: int = 2, tool: str = "default.echo", body: bytes = NO_ARGUMENTS) -> bytes:
    return pack(wire.Call(number, tool, 1, body))


def extension(code: int, *items: Any) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(code, msgpack.packb(list(items))))
    return packed


def nested(levels: int) -> bytes:
    body = NONE
    for _ in range(levels):
        body = msgpack.packb(msgpack.ExtType(reading.TUPLE, b"\x91" + body))
    return body


def framed(value: Any) -> bytes:
    body: bytes = msgpack.packb(value)
    return len(body).to_bytes(4, "big") + body


FORGED: list[tuple[str, bytes, str]] = [
    ("huge length", b"\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
    ("length past the bound", (wire.MAX_FRAME + 1).to_bytes(4, "big"), "a frame of"),
    ("no array", framed(5), "malformed"),
    ("empty frame", b"\0\0\0\0", "malformed"),
    ("unknown tag", framed([99, 1]), "malformed"),
    ("text as tag", framed(["x"]), "malformed"),
    ("frame of the host", pack(wire.Start(b"")), "malformed"),
    ("wrong types", framed([1, "2", "default.echo", 1, b""]), "malformed"),
    ("too few fields", framed([1, 2]), "malformed"),
    ("too many fields", framed([6, 1, 2, 3]), "malformed"),
    ("huge number", framed([1, 2**64 - 1, "default.echo", 1, b""]), "out of turn"),
    ("number past 64 bits", b"\0\0\0\x02\xc1\xc1", "malformed"),
    ("bad text", b"\0\0\0\x0e\x93\x03\xa6stdout\xa4\xff\xff\xff\xff", "malformed"),
    ("deep frame", (5000).to_bytes(4, "big") + b"\x91" * 5000, "malformed"),
    ("duplicate id", call(1), "out of turn"),
    ("skipped id", call(7), "out of turn"),
    ("negative id", call(-2), "out of turn"),
    ("zero id", call(0), "out of turn"),
    ("call without arguments", call(body=NONE), "without arguments"),
    ("call without a pair", call(body=b"\x91\x90"), "without arguments"),
    ("call with a list as keywords", call(body=b"\x92\x90\x90"), "without arguments"),
    ("call with numbers as keywords", call(body=b"\x92\x90" + extension(reading.PAIRS, 1, 2)), "without arguments"),
    ("call with no body", call(body=b""), "incomplete"),
    ("call with two bodies", call(body=NO_ARGUMENTS * 2), "extra data"),
    ("call with a reference to nothing", call(body=b"\x92\x91" + b"\xd6\x0c\0\0\0\x07" + b"\x80"), "no part"),
    ("waits for nothing", pack(wire.Wait(None)), "waits for nothing"),
    ("waits twice", pack(wire.Wait(9.0)) * 2, "waits twice"),
    ("done with nothing", done(b""), "incomplete"),
    ("done with rubbish", done(b"\xc1\xc1"), "malformed"),
    ("done with two values", done(NONE * 2), "extra data"),
    ("done within done", done(nested(300)), "nested too deeply"),
    ("done within done, more", done(nested(3000)), "nested too deeply"),
    ("done with 5000 arrays", done(b"\x91" * 5000 + NONE), "malformed"),
    ("done with a huge array", done(b"\xdd\xff\xff\xff\xff"), "exceeds"),
    ("done with a huge map", done(b"\xdf\xff\xff\xff\xff"), "exceeds"),
    ("done with an unknown extension", done(msgpack.packb(msgpack.ExtType(77, b""))), "extension 77"),
    ("done with a key without a value", done(extension(reading.PAIRS, 1, 2, 3)), "shorter|longer|argument"),
    ("done with an unhashable item", done(extension(reading.SET, [1])), "malformed"),
    ("done with a missing part", done(b"\xd6\x0c\0\0\0\x07"), "no part"),
    ("a part of nothing", pack(wire.Part(1, "list", b"\x90")) + done(NONE), "nothing refers to"),
    ("a part of another kind", pack(wire.Part(1, "list", b"\x80")), "another kind"),
    ("parts of two kinds", pack(wire.Part(1, "list", b"\x90")) + pack(wire.Part(1, "dict", b"\x80")), "two kinds"),
    ("text and bytes", pack(wire.Part(1, "str", b"a")) + pack(wire.Part(1, "bytes", b"b")), "two kinds"),
    ("a part of rubbish", pack(wire.Part(1, "list", b"\xc1")), "malformed"),
]


async def forge(sandbox: CodeSandbox, frames: bytes, **options: Any) -> ExecutionResult:
    """Write forged bytes to the wall, after something that happened."""
    code = (
        "import os\nprint('before')\necho(x=1)\n"
        "sent = memoryview(forged)\nwhile sent:\n    sent = sent[os.write(3, sent):]\n"
        "while True:\n    if not os.read(3, 4096): break"
    )
    return await sandbox.execute(code, inputs={"forged": frames}, **options)


@pytest.mark.parametrize(("frames", "says"), [f[1:] for f in FORGED], ids=[f[0] for f in FORGED])
async def test_a_forged_frame_ends_its_guest_and_nothing_else(raw: CodeSandbox, frames: bytes, says: str) -> None:
    result = await forge(raw, frames)
    assert result.error is not None
    assert (result.error.type, result.error.kind) == ("GuestDied", "protocol")
    assert result.error.message.startswith("the guest broke the protocol: ")
    assert any(part in result.error.message for part in says.split("|"))
    assert result.stdout == "before\n"
    assert (result.calls[0].arguments, result.calls[0].status) == ({"x": 1}, "ok")
    assert await alive(raw)


async def test_keys_made_to_collide_do_not_hold_the_host(raw: CodeSandbox) -> None:
    keys = [n * (2**61 - 1) for n in range(30_000)]
    flat = values.Encoder().encode([x for key in keys for x in (key, 0)])
    forged = done(msgpack.packb(msgpack.ExtType(reading.PAIRS, flat)))
    result = await forge(raw, forged)
    assert result.error is not None
    assert "colliding keys" in result.error.message
    assert await alive(raw)


async def test_a_flood_of_empty_parts_reaches_a_limit(raw: CodeSandbox) -> None:
    result = await forge(
        raw, b"".join(pack(wire.Part(n, "str", b"")) for n in range(5000)), limits=Limits(result=100_000)
    )
    assert result.error is not None
    assert (result.error.type, result.error.limit) == ("LimitExceeded", "result")
    assert result.stdout == "before\n"


@pytest.mark.parametrize("after", [done(b"\x02"), b"\xff" * 5000, pack(wire.Wait(None)), call(), b"\0"])
async def test_the_first_done_counts_and_what_follows_does_not(raw: CodeSandbox, after: bytes) -> None:
    result = await forge(raw, done(b"\x01") + after)
    assert (result.value, result.error) == (1, None)
    assert result.stdout == "before\n"
    assert await alive(raw)


async def test_what_a_forger_left_in_a_session_is_no_part_of_the_next_run(raw: CodeSandbox) -> None:
    async with raw.session() as session:
        code = "import os\nos.write(3, forged)\nreturn 5"
        await session.execute(code, inputs={"forged": done(b"\x01") + done(b"\x02")})
        result = await session.execute("return 7")
        assert result.error is not None
        assert "out of turn" in result.error.message
        assert "variables are gone" in result.stderr
        assert (await session.execute("return 8")).value == 8


async def test_a_forged_failure_is_only_text(raw: CodeSandbox) -> None:
    failure = wire.Failure("no such kind", "__import__", "[red]x[/red]\0\x1b[2J", -5, "t" * 50_000, "$.x")
    result = await forge(raw, pack(wire.Done(b"", failure, False)))
    assert result.error is not None
    assert (result.error.kind, result.error.type) == ("program", "__import__")
    assert len(result.for_model(1000)) <= 1000


async def test_a_forged_call_of_any_name_is_an_unavailable_tool(raw: CodeSandbox) -> None:
    for name in ("x" * 500_000, "", "default.", ".", "__class__", "\0", "default.echo\0"):
        result = await forge(raw, call(tool=name) + pack(wire.Wait(None)), limits=Limits(cpu_time=0.3, wall_time=2.0))
        assert result.calls[1].status == "error"
        assert result.calls[1].error is not None
        assert result.calls[1].error[0] == "ToolNotAvailable"
        assert len(result.calls[1].error[1]) < 1000
    assert await alive(raw)


@pytest.mark.parametrize("until", [math.nan, -math.inf, -5.0, 1e300, math.inf])
async def test_a_forged_deadline_does_no_harm(raw: CodeSandbox, until: float) -> None:
    result = await forge(raw, pack(wire.Wait(until)) + done(b"\x01"))
    assert (result.value, result.stdout) == (1, "before\n")


async def test_a_call_that_has_ended_may_be_cancelled_again(raw: CodeSandbox) -> None:
    result = await forge(raw, pack(wire.Cancel(1)) * 3 + done(b"\x01"))
    assert (result.value, result.calls[0].status) == (1, "ok")


@pytest.mark.parametrize("number", [-1, 0, 2, 2**63 - 1])
async def test_a_cancel_of_a_call_that_was_never_made_ends_the_run(raw: CodeSandbox, number: int) -> None:
    result = await forge(raw, pack(wire.Cancel(number)) + done(b"\x01"))
    assert result.error is not None
    assert (result.error.type, result.error.kind) == ("GuestDied", "protocol")
    assert result.calls[0].status == "ok"


async def test_a_flood_of_ready_frames_ends_the_run(raw: CodeSandbox) -> None:
    result = await forge(raw, pack(wire.Ready()) * 2)
    assert result.error is not None
    assert result.error.kind == "protocol"


@pytest.mark.parametrize("way", ["os._exit(3)", "os.abort()", "os.close(3)"])
async def test_a_guest_that_ends_itself_is_told_of(raw: CodeSandbox, way: str) -> None:
    result = await raw.execute(f"import os\nprint('before')\necho(x=1)\n{way}\nos._exit(4)")
    assert result.error is not None
    assert result.error.type == "GuestDied"
    assert result.stdout == "before\n"
    assert result.calls[0].status == "ok"
    assert await alive(raw)
