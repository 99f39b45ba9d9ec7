"""A guest: reads a program from the wall, runs it, and answers with its value; once, or again for a session.

`warm_up` builds everything in the zygote, so that a guest only has to be forked and confined.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import datetime
import gc
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import msgspec

from toolchord_guest import builtins as names
from toolchord_guest import calls, guards, keeping, modules, preflight, stdlib, threads, wire
from toolchord_guest.calls import FILENAME, Namespace, PendingCall, ToolFunction
from toolchord_guest.confine import SOCKET
from toolchord_guest.explain import explain, explain_syntax
from toolchord_guest.hub import Deadlock, Future, Hub, Task
from toolchord_guest.language import Policy, Refusal
from toolchord_guest.link import Clock, Link, Record
from toolchord_guest.program import MAIN, VALUE, Compiled, compile_program
from toolchord_guest.values import Decoder, Unsupported

_OUT = 64 << 10


class Stream:
    """What a program prints, sent at once."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, link: Link, name: Any) -> None:
        self._link = link
        self._name = name

    def write(self, text: str) -> int:
        clean = text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text
        for start in range(0, len(clean), _OUT):
            self._link.send(wire.Out(self._name, clean[start : start + _OUT]))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


class Guest:
    """One process's runtime: the hub, the modules, and the variables of a session."""

    def __init__(self, descriptor: int, *, unrestricted: bool) -> None:
        self.link = Link(descriptor)
        self.clock = Clock()
        self.hub = modules.hub = threads.hub = Hub(self.link, self.clock)
        asyncio.set_event_loop(self.hub.loop)
        self.facades = modules.build()
        self.unrestricted = unrestricted
        self.builtins = names.unrestricted() if unrestricted else names.restricted(self.facades)
        self.listing = {name: frozenset(dir(facade)) for name, facade in self.facades.items()}
        self.policy_names: set[str] = set()
        self.globals: dict[str, Any] = {}
        self.exposed: dict[str, Any] = {}
        self.definitions: dict[str, str] = {}
        self.runs = 0

    def reset(self) -> None:
        """Forget what a warm-up left."""
        main = sys.modules["__main__"] = types.ModuleType("__main__")  # where libraries look a class's names up
        main.__dict__.clear()
        self.globals = main.__dict__
        self.globals |= {"__name__": "__main__", "__builtins__": self.builtins, "__doc__": None}
        self.policy_names = set()
        self.exposed = {}
        self.definitions = {}
        self.runs = 0

    def run(self, start: dict[str, Any]) -> wire.Done:
        """Run one program to its end."""
        self.runs += 1
        filename = FILENAME if self.runs == 1 else f"{FILENAME} {self.runs}"
        self.clock.reset(start["epoch"])
        self.hub.reset()
        modules.seed(start["seed"])
        sys.stdout, sys.stderr = Stream(self.link, "stdout"), Stream(self.link, "stderr")
        try:
            inputs = Decoder(record=Record, named=True).decode(start["inputs"])
            compiled = self._compile(start, filename, inputs)
            self._expose(start, inputs)
            self._restore(start)
            known = self.definitions | compiled.definitions
            self.definitions = {name: text for name, text in known.items() if text}
            value, returned = self._execute(compiled)
            self._keep(start)
            return wire.Done(self.link.encode(value, calls.settled), None, returned)
        except BaseException as error:
            failure = _failure(error, filename)
            failure = msgspec.structs.replace(failure, hint=_hint(error, failure, start, filename))
            if failure.kind == "program":
                with contextlib.suppress(Exception):
                    self._keep(start)
            with contextlib.suppress(BaseException):  # the next program of a session must not meet its tasks
                self._cancel_tasks()
            return wire.Done(b"", failure, False)

    def _compile(self, start: dict[str, Any], filename: str, inputs: dict[str, Any]) -> Compiled:
        source = start["code"]
        guards.remember_source(filename, source)
        guards.State.defined = self.policy_names
        policy = None if self.unrestricted else Policy(self.listing, self.policy_names)
        roots = {stub["name"].partition(".")[0] for stub in start["tools"] if "closed" not in stub} | {"call_tool"}
        own = {name for name, thing in self.globals.items() if self.exposed.get(name) is not thing}
        left = start["variables"] or {"data": {}, "definitions": {}}
        own |= left["data"].keys() | left["definitions"].keys()

        def examine(tree: ast.Module) -> preflight.Misuse | None:
            try:
                return preflight.examine(
                    tree,
                    text=source,
                    tools=start["tools"],
                    helpers=start["builtin_tools"],
                    known={*self.builtins, "call_tool", "__name__"},
                    hidden=own | inputs.keys(),
                    modules=self.listing,
                )
            except (RecursionError, MemoryError):  # a program too deep to be looked at may still run
                return None

        return compile_program(
            source,
            filename=filename,
            tools=roots,
            policy=policy,
            modules=self.listing,
            examine=None if policy is None else examine,  # wall two is proved with hostile programs as they are
            keep=bool(start["keep"]),
        )

    def _restore(self, start: dict[str, Any]) -> None:
        """Bring back what an earlier program left; its names come after the tools', as in a session."""
        left = start["variables"]
        if not left:
            return
        self._restoring("")
        self.globals.update({name: Decoder(record=Record).decode(data) for name, data in left["data"].items()})
        self.definitions = dict(left["definitions"])
        self.hub.closed = True
        lost = keeping.restore(self.definitions, self._define, self._restoring)
        if self.definitions:  # what definitions have begun is not this program's, nor is what becomes of their garbage
            self._restoring("")
            with contextlib.suppress(BaseException):
                self.hub.join()
            self.hub.loop.disown()
            self.hub.reset()
            self.hub.closed = True
            gc.collect()
        self.hub.closed = False
        self._restoring(None)
        for name, reason in lost.items():
            self.definitions.pop(name, None)
            print(f"The variable {name} of an earlier program could not be restored: {reason}", file=sys.stderr)

    def _restoring(self, name: str | None) -> None:
        """Tell the host how far restoring is: it can't be left to definitions how long it takes."""
        self.link.send(wire.Restoring(name))

    def _define(self, text: str) -> None:
        policy = None if self.unrestricted else Policy(self.listing, self.policy_names)
        compiled = compile_program(
            text, filename=f"{FILENAME} kept", tools=set(), policy=policy, modules=self.listing
        )  # fmt: skip
        exec(compiled.code, self.globals)
        main = self.globals.pop(MAIN)
        if compiled.is_async:
            raise RuntimeError("its definition awaits something")
        main()
        self.globals.pop(VALUE, None)

    def _keep(self, start: dict[str, Any]) -> None:
        """Tell the host what the next program is to find."""
        if start["keep"]:
            hidden = {name for name, thing in self.exposed.items() if self.globals.get(name) is thing}
            kept = keeping.keep(self.globals, self.definitions, hidden, start["keep"])
            self.link.send(wire.Kept(self.link.encode(kept)))

    def _expose(self, start: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Bind the tools and the inputs; what the program assigned before keeps its place in a session."""
        hub = self.hub
        tools = {stub["name"]: ToolFunction(hub, stub) for stub in start["tools"] if "closed" not in stub}
        for name, exposed in self.exposed.items():
            if self.globals.get(name) is exposed:
                del self.globals[name]
        own = set(self.globals)
        spaces: dict[str, dict[str, ToolFunction]] = {}
        for name, tool in tools.items():
            space, dot, short = name.rpartition(".")
            if dot:
                spaces.setdefault(space, {})[short] = tool
            else:
                self.globals.setdefault(name, tool)
        for space, members in spaces.items():
            self.globals.setdefault(space, Namespace(space, members))
        for stub in start["builtin_tools"]:
            self.globals.setdefault(stub["name"], ToolFunction(hub, stub))
        self.globals["call_tool"] = _dispatcher(hub, start["tools"])
        self.exposed = {name: thing for name, thing in self.globals.items() if name not in own}
        self.globals.update(inputs)

    def _execute(self, compiled: Compiled) -> tuple[Any, bool]:
        """The program's value, and whether it gave one."""
        scope = self.globals
        scope.pop(VALUE, None)
        calls.style.sync = compiled.sync_style
        exec(compiled.code, scope)
        main: Callable[[], Any] = scope.pop(MAIN)
        loop = self.hub.loop
        value = loop.run_until_complete(main()) if compiled.is_async else main()
        returned = True
        if value is names.END_VALUE and compiled.captures and VALUE in scope:
            value = scope[VALUE]
        elif value is names.END_VALUE:
            assigned = [name for name in compiled.assigned if name in scope]
            returned = bool(assigned)
            value = scope[assigned[-1]] if assigned else None
        value = calls.settled(value)
        if asyncio.iscoroutine(value) or asyncio.isfuture(value):
            value = loop.complete(value)
        self._finish()
        return value, returned

    def _finish(self) -> None:
        """Threads and started calls end though nobody waits for them; unfinished tasks are cancelled, as ever."""
        hub = self.hub
        hub.join()
        hub.drain()
        self._cancel_tasks()
        hub.drain()
        gc.collect()  # coroutines that were never awaited say so now
        for thing in gc.get_objects():  # and those that a variable still holds
            if type(thing) is types.CoroutineType and inspect.getcoroutinestate(thing) == inspect.CORO_CREATED:
                print(f"RuntimeWarning: coroutine {thing.__qualname__!r} was never awaited", file=sys.stderr)
            elif type(thing) in (Future, Task):
                thing.report()

    def _cancel_tasks(self) -> None:
        loop = self.hub.loop
        tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
        for task in sorted(tasks, key=hash):
            task.cancel()
        if tasks:
            loop.complete(asyncio.gather(*tasks, return_exceptions=True))


def _dispatcher(hub: Hub, stubs: list[dict[str, Any]]) -> ToolFunction:
    """`call_tool(name, ...)`: any tool by its registered name."""
    stubs = [stub for stub in stubs if "closed" not in stub]
    known = {stub["tool"]: stub for stub in reversed(stubs)} | {stub["name"]: stub for stub in stubs}

    def start(args: tuple[Any, ...], kwargs: dict[str, Any]) -> PendingCall:
        if not args:
            name = kwargs.pop("name", None)
        else:
            name, *rest = args
            args = tuple(rest)
        if not isinstance(name, str):
            raise TypeError("call_tool takes the tool's name first")
        stub = known.get(name) or {"name": name, "doc": "", "tool": name, "async": True}
        pending: PendingCall = ToolFunction(hub, stub).__dict__[calls.START](args, kwargs)
        return pending

    return ToolFunction(hub, {"name": "call_tool", "doc": "Call a tool by its name.", "async": True}, start)


def _failure(error: BaseException, filename: str) -> wire.Failure:
    kind, path, line = "program", "", guards.program_line(error, filename)
    name, message = type(error).__name__, _text(error)
    match error:
        case Refusal():
            kind, name, line, message = "refused", "ProgramRefused", error.line, error.reason
        case guards.ProgramRefused():
            kind = "refused"
        case preflight.Misuse():
            kind, name, line = "refused", error.type, error.line
        case SyntaxError() if not error.__traceback__ or _is_compile_time(error, filename):
            kind, line, message = "syntax", error.lineno or 0, error.msg or "invalid syntax"
        case Unsupported():
            kind, name, path = "value", "UnsupportedValue", error.path
        case MemoryError():
            kind, message = "memory", message or "out of memory"
        case Deadlock():
            kind = "deadlock"
        case RecursionError() if not line:
            kind, message = "syntax", "the program is nested too deeply to be read"
    try:
        trace = guards.format_error(error) if kind == "program" else ""
    except BaseException:
        trace = ""
    return wire.Failure(kind, name, message[:20_000], line, _clean(trace[-20_000:]), path)


def _hint(error: BaseException, failure: wire.Failure, start: dict[str, Any], filename: str) -> str:
    """How to repair the program; an explanation must never be what fails."""
    try:
        if failure.kind == "syntax" and isinstance(error, SyntaxError):
            return _clean(explain_syntax(error, start["code"]))
        if failure.kind == "program":
            return _clean(explain(error, start["code"], filename, [stub["name"] for stub in start["tools"]]))
    except BaseException:
        pass
    return ""


def _is_compile_time(error: SyntaxError, filename: str) -> bool:
    return error.filename == filename and guards.program_line(error, filename) == error.lineno


def _text(error: BaseException) -> str:
    try:
        return _clean(str(error))
    except BaseException as worse:
        return f"(its text could not be had: {type(worse).__name__})"


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


_guest: Guest


def warm_up(*, unrestricted: bool) -> None:
    """Build the runtime and run a small program, so that nothing is left to be imported or cached."""
    global _guest
    modules.load_zones()
    if not unrestricted:
        stdlib.mend(modules.now)
    _guest = Guest(SOCKET, unrestricted=unrestricted)
    _guest.reset()
    policy = None if unrestricted else Policy(_guest.listing, set())
    compiled = compile_program(
        "async def f():\n    return f'{1:.2f}'\nx = await f()\n[y for y in 'ab']",
        filename=FILENAME, tools=set(), policy=policy, modules=_guest.listing,
    )  # fmt: skip
    _guest._execute(compiled)
    for encoding in ("ascii", "latin-1", "utf-16", "utf-32", "cp1252", "idna", "punycode", "rot13", "hex", "base64"):
        try:
            "".encode(encoding)
        except (LookupError, UnicodeError, TypeError):
            continue
    datetime.datetime.strptime("2000-01-01", "%Y-%m-%d")
    _warm_pydantic()
    if not unrestricted:
        guards.collect()
    _guest.reset()


_Date = datetime.date  # text that names a module is no type any more


def _warm_pydantic() -> None:
    """Let pydantic import what it imports late."""
    pydantic: Any = sys.modules.get("pydantic")
    if pydantic is None:
        return

    class Model(pydantic.BaseModel):  # type: ignore[misc]
        a: int = pydantic.Field(1, ge=0)
        b: list[_Date] | None = None

        @pydantic.field_validator("a")  # type: ignore[untyped-decorator]
        @classmethod
        def _same(cls, value: int) -> int:
            return value

    Model.model_json_schema()
    Model.model_validate_json(Model(b=["2000-01-01"]).model_dump_json())
    try:
        Model(a="x")
    except pydantic.ValidationError as error:
        repr(error), error.errors(), error.json()


def serve(descriptor: int) -> int:
    """Serve programs from the wall until the host closes it."""
    assert descriptor == SOCKET
    guest = _guest
    guest.link.send(wire.Ready())
    while True:
        frame, decoder = guest.link.receive()
        try:
            done = guest.run(decoder.decode(frame.body))
        except BaseException as error:  # out of memory before the program began
            done = wire.Done(b"", wire.Failure("memory", type(error).__name__, _text(error), 0, ""), False)
        try:
            guest.link.send(done)
        except wire.WireError:
            guest.link.send(wire.Done(b"", wire.Failure("value", "UnsupportedValue", "too large", 0, ""), False))
