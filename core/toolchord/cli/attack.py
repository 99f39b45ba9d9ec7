"""`toolchord attack`: tricks that a hostile program may try, tried on this machine, with both walls and with one.

Each trick is a program whose value is true if it got what it was after. They are samples; the test suite has hundreds.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Literal

import typer

from toolchord.cli.options import AsJson, note, say
from toolchord.limits import Limits
from toolchord.results import ExecutionResult

TRICKS = {
    "read a file of the host": "return bool(open('/etc/passwd').read())",
    "list the file system": "import os\nreturn bool(set(os.listdir('/')) & {'etc', 'home', 'usr'})",
    "read the environment": "import os\nreturn bool(set(os.environ) & {'PATH', 'HOME', 'USER'})",
    "read the host's memory map": "import os\nreturn bool(open(f'/proc/{os.getppid()}/maps').read())",
    "write a file": "open('/tmp/toolchord-attack', 'w').write('x')\nreturn True",
    "start another program": "import subprocess\nreturn subprocess.run(['/bin/true']).returncode == 0",
    "fork": "import os\nchild = os.fork()\nreturn child >= 0",
    "kill the host": "import os\nos.kill(os.getppid(), 0)\nreturn True",
    "connect to the network": "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)\nreturn True",
    "resolve a name": "import socket\nreturn bool(socket.getaddrinfo('example.org', 80))",
    "make a local socket": "import socket\nreturn bool(socket.socket(socket.AF_UNIX))",
    "call the kernel through ctypes": "import ctypes\nreturn ctypes.CDLL(None).socket(2, 1, 0) >= 0",
    "trace another process": "import ctypes, os\nreturn ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "find os through the class tree": (
        "for cls in ().__class__.__base__.__subclasses__():\n"
        "    if cls.__name__ == '_wrap_close':\n"
        "        return bool(cls.__init__.__globals__['listdir']('/etc'))\n"
        "return False"
    ),
    "find os through a module": "import random\nreturn bool(random._os.listdir('/etc'))",
    "import by another way": "return bool(__import__('os').listdir('/etc'))",
    "climb up the frames": (
        "def inner():\n    yield frame.gi_frame.f_back.f_back.f_globals\n"
        "frame = inner()\nfound = list(frame)[0]['__builtins__']\n"
        "load = found['__import__'] if isinstance(found, dict) else found.__import__\n"
        "return bool(load('os').listdir('/etc'))"
    ),
    "unpickle code": """import pickle\nreturn bool(pickle.loads(b'cos\\nlistdir\\n(S"/etc"\\ntR.'))""",
    "call a tool that it was not given": "await call_tool('admin.delete_everything')\nreturn True",
    "loop for ever": "while True:\n    pass",
    "swallow the end": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
    ),
    "take all memory": "data = []\nwhile True:\n    data.append(bytearray(10_000_000))",
    "compute for ever in one step": "return len(str(10 ** 10 ** 8)) > 0",
    "flood the output": "while True:\n    print('x' * 60_000)",
    "fill the disk": "with open('x', 'wb') as file:\n    while True:\n        file.write(bytes(1 << 20))",
}

LIMITS = Limits(wall_time=3.0, cpu_time=2.0, memory=256 << 20)

Wall = Literal["language", "sandbox", "limit", "nothing"]


@dataclass(frozen=True)
class Attempt:
    """One trick.

    Attributes:
        trick: what it is after.
        walls: ``"both"``, or ``"second"``: the language policy was off.
        got_through: whether it got it.
        stopped_by: language (refused before it ran), sandbox (the guest could not), limit.
        message: how the run ended.
    """

    trick: str
    walls: Literal["both", "second"]
    got_through: bool
    stopped_by: Wall
    message: str


async def attempts() -> list[Attempt]:
    """Try every trick behind both walls, then behind the second alone."""
    from toolchord import CodeSandbox
    from toolchord.sandbox import Language

    done: list[Attempt] = []
    ways: list[tuple[Literal["both", "second"], Language]] = [("both", "restricted"), ("second", "unrestricted")]
    for walls, language in ways:
        async with CodeSandbox(tools=[], limits=LIMITS, language=language) as sandbox:
            for trick, program in TRICKS.items():
                result = await sandbox.execute(program)
                done.append(Attempt(trick, walls, result.ok and bool(result.value), _wall(result), _ended(result)))
    return done


def _wall(result: ExecutionResult) -> Wall:
    if result.ok and result.value:
        return "nothing"
    kind = result.error.kind if result.error is not None else ""
    return "language" if kind in ("refused", "syntax") else "limit" if kind == "limit" else "sandbox"


def _ended(result: ExecutionResult) -> str:
    return str(result.error).partition("\n")[0][:200] if result.error is not None else f"it gave {result.value!r}"


def attack(as_json: AsJson = False) -> None:
    """Try tricks against this machine's walls, then without the language's; exit code 1 if one gets through."""
    if not as_json:
        note(f"{len(TRICKS)} tricks, twice; some run into limits of {LIMITS.wall_time:g} s")
    done = asyncio.run(attempts())
    lines = []
    for trick in TRICKS:
        both, second = (one for one in done if one.trick == trick)
        lines.append(f"{trick:36} {both.stopped_by:10} {second.stopped_by}")
    through = sum(one.got_through for one in done)
    table = [f"{'trick':36} {'both walls':10} the second alone", *lines, f"{through} of {len(done)} got through"]
    say([asdict(one) for one in done], as_json, "\n".join(table))
    if through:
        raise typer.Exit(1)
