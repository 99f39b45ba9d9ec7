"""Other machines, emulated: system calls that fail, a user without privileges. And what /proc tells of processes."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolchord_guest.confine import MACHINE

ROOT = Path(__file__).parents[2]
NOBODY = 65534

_X86 = MACHINE == "x86_64"
NUMBERS = {
    "prctl": 157 if _X86 else 167,
    "seccomp": 317 if _X86 else 277,
    "prlimit64": 302 if _X86 else 261,
    "setrlimit": 160 if _X86 else 164,
    "clone": 56 if _X86 else 220,
    "clone3": 435,
    "unshare": 272 if _X86 else 97,
    "landlock_create_ruleset": 444,
    "landlock_restrict_self": 446,
    **({"fork": 57, "vfork": 58} if _X86 else {}),
}


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return when `condition()` is true; AssertionError if it is not within a generous deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """`until` without an event loop."""
    asyncio.run(until(condition, seconds))


def deny(name: str, error: int, *, argument: int = 0, equal: int | None = None, lacking: int | None = None) -> None:
    """Make a system call fail from now on in this process and all it starts: always, where an argument (its low half)
    equals a value, or where it lacks a bit."""
    load, equals, has, give = 0x20, 0x15, 0x45, 0x06
    refuse, allow = struct.pack("=HBBI", give, 0, 0, 0x00050000 | error), struct.pack("=HBBI", give, 0, 0, 0x7FFF0000)
    if equal is not None:
        test = [struct.pack("=HBBI", load, 0, 0, 16 + 8 * argument), struct.pack("=HBBI", equals, 0, 1, equal)]
    elif lacking is not None:
        test = [struct.pack("=HBBI", load, 0, 0, 16 + 8 * argument), struct.pack("=HBBI", has, 1, 0, lacking)]
    else:
        test = []
    body = [*test, refuse]
    number = struct.pack("=HBBI", equals, 0, len(body), NUMBERS[name])
    program = b"".join([struct.pack("=HBBI", load, 0, 0, 0), number, *body, allow])
    _install(program)


def deny_where_given(name: str, error: int, *, argument: int) -> None:
    """Make a system call fail where a pointer argument is not null."""
    load, equals, give = 0x20, 0x15, 0x06
    offset = 16 + 8 * argument
    refuse, allow = struct.pack("=HBBI", give, 0, 0, 0x00050000 | error), struct.pack("=HBBI", give, 0, 0, 0x7FFF0000)
    steps = [
        struct.pack("=HBBI", load, 0, 0, 0),
        struct.pack("=HBBI", equals, 0, 5, NUMBERS[name]),
        struct.pack("=HBBI", load, 0, 0, offset),
        struct.pack("=HBBI", equals, 0, 2, 0),
        struct.pack("=HBBI", load, 0, 0, offset + 4),
        struct.pack("=HBBI", equals, 1, 0, 0),
        refuse,
        allow,
    ]
    _install(b"".join(steps))


def _install(program: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, header, 0, 0):
        raise OSError(ctypes.get_errno(), "the test's own filter")


def run_host(
    script: str, *, python: str = sys.executable, user: int | None = None, path: str = "", **options: Any
) -> Any:
    """Run a host of its own: the JSON that its script prints last. `script` may await; `show(value)` prints."""
    text = _PREAMBLE + "".join(f"    {line}\n" for line in script.strip().splitlines()) + _EPILOGUE
    environment = {**os.environ, "PYTHONPATH": path or os.pathsep.join((str(ROOT), str(ROOT / "core")))}
    identity: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    ended = subprocess.run(
        [python, "-c", text],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
        check=False,
        **identity,
        **options,
    )
    assert ended.returncode == 0, ended.stderr[-4000:] or f"status {ended.returncode}"
    return json.loads(ended.stdout.splitlines()[-1])


_PREAMBLE = """
import asyncio, errno, json, os, signal, sys, threading
from toolchord import CodeSandbox, Limits
from toolchord.errors import ConfigurationError, IsolationUnavailable, ToolchordError
def show(value):
    print(json.dumps(value), flush=True)
async def main():
"""
_EPILOGUE = """
asyncio.run(main())
"""


_PACKAGES = (
    "toolchord toolchord_guest RestrictedPython msgspec msgpack greenlet pydantic pydantic_core annotated_types "
    "typing_extensions typing_inspection tzdata"
).split()


@contextmanager
def readable_python() -> Iterator[tuple[str, str]]:
    """An interpreter with our packages that every user may read: (executable, PYTHONPATH).

    The one that runs the tests if it will do, else a copy: root's home is closed to others, and on a developer's
    machine the interpreter often lives there.
    """
    base = Path(sys.base_prefix)
    folder = Path(tempfile.mkdtemp(prefix="toolchord-python-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        packages = folder / "packages"
        packages.mkdir()
        for name in _PACKAGES:
            spec = find_spec(name)
            if spec is None or spec.origin is None:
                continue
            origin = Path(spec.origin)
            if spec.submodule_search_locations:
                shutil.copytree(origin.parent, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(origin, packages)
        executable = Path(sys.executable).resolve()
        if all(parent.stat().st_mode & 0o005 == 0o005 for parent in executable.parents):
            yield str(executable), str(packages)
            return
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        unneeded = shutil.ignore_patterns("__pycache__", "test", "tests", "site-packages", "idlelib", "config-*")
        shutil.copytree(base / "lib" / version, folder / "lib" / version, ignore=unneeded)
        for library in base.glob("lib/libpython*.so*"):
            shutil.copy(library, folder / "lib")
        (folder / "bin").mkdir()
        shutil.copy(executable, folder / "bin" / version)
        wrapper = folder / "bin" / "python"
        wrapper.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={folder}/lib exec {folder}/bin/{version} "$@"\n')
        wrapper.chmod(0o755)
        yield str(wrapper), str(packages)
    finally:
        shutil.rmtree(folder)


def descendants(pid: int | None = None) -> dict[int, str]:
    """The processes below one (this one if None), zombies too: pid -> name and state."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            name, _, rest = text.partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            parents[int(entry.name)] = int(parent)
            names[int(entry.name)] = f"{name} {state}"
    found: dict[int, str] = {}
    below = [os.getpid() if pid is None else pid]
    while below:
        parent_pid = below.pop()
        for child, parent_of_child in parents.items():
            if parent_of_child == parent_pid and child not in found:
                found[child] = names[child]
                below.append(child)
    return found


def exists(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descriptors() -> dict[int, str]:
    """This process's open descriptors and what they refer to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # that of the listing itself
            continue
    return found
