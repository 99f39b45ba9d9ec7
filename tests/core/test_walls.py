"""Wall two: which system calls the kernel answers, what happens where a layer can't be had, and what a guest sees."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import struct
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import seccompy.syscalls

from tests.core.machines import NOBODY, descendants, readable_python, run_host
from toolchord import CodeSandbox, IsolationReport, Limits
from toolchord.errors import ConfigurationError
from toolchord_guest import confine

CENSUS = {
    machine: json.loads((Path(__file__).parent / "census" / f"{machine}.json").read_text())
    for machine in confine.MACHINES
}
HERE = CENSUS[confine.MACHINE]
MANDATORY = ("process", "seccomp", "rlimits")
X32 = [0x40000000 | number for number in (0, 1, 2, 59, 512, 520, 547)] if confine.MACHINE == "x86_64" else []

VECTORS = ((-1,) * 6, (0,) * 6, (1,) * 6, (3, 0, 0, 0, 0, 0), (0, 4096, 3, 0x22, -1, 0), (0, 0, 4, 0, 0, 0))
"""Arguments that each number is called with; among them some that the filter lets pass where it looks at arguments."""

CALLER = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
for n, number, vector in items:
    print("start", n)
    answer = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, vector))
    print("end", n, ctypes.get_errno() if answer == -1 else 0)
"""


async def census(numbers: list[int]) -> dict[int, set[str]]:
    """What becomes of each number, called from inside a guest: EPERM, ENOSYS, killed, or answered by the kernel."""
    items = [(n, number, vector) for n, (number, vector) in enumerate((k, v) for k in numbers for v in VECTORS)]
    verdicts: dict[int, set[str]] = defaultdict(set)
    position = 0
    async with CodeSandbox(language="unrestricted", limits=Limits(output=1 << 24, wall_time=60)) as sandbox:
        while position < len(items):
            result = await sandbox.execute(CALLER, inputs={"items": items[position:]})
            last = position
            for line in result.stdout.splitlines():
                word, n, *code = line.split()
                last = int(n)
                if word == "end":
                    position = last + 1
                    verdict = {"1": "EPERM", str(errno.ENOSYS): "ENOSYS"}.get(code[0], "answered")
                    verdicts[items[last][1]].add(verdict)
            if result.error is None:
                break
            assert result.error.kind == "died", result.error
            verdicts[items[last][1]].add("killed" if "filter" in result.error.message else "answered")
            position = last + 1
    return verdicts


@pytest.mark.slow
async def test_the_kernel_answers_only_the_system_calls_of_the_checked_in_census() -> None:
    verdicts = await census([*range(480), *X32])
    passed = {number for name, number in HERE["passed_by_the_kernel"].items()}
    answered = {number for number, seen in verdicts.items() if "answered" in seen} - passed
    killed = {number for number, seen in verdicts.items() if seen == {"killed"}}
    unimplemented = {number for number, seen in verdicts.items() if seen == {"ENOSYS"}}
    refused = {number for number, seen in verdicts.items() if seen == {"EPERM"}}
    assert answered == set(HERE["answered"].values())
    assert len(answered) <= 25
    assert killed == {*HERE["killed"].values(), *X32}
    assert unimplemented == set(HERE["enosys"].values())
    assert refused >= set(range(480)) - answered - killed - unimplemented - passed
    assert len(verdicts) == 480 + len(X32)


def judge(program: bytes, machine: str, number: int, arguments: tuple[int, ...]) -> str:
    """What a filter says of a call: the kernel's interpreter of classic BPF, as far as our filter uses it."""
    data = struct.pack(
        "=iIQ6Q",
        number if number < 1 << 31 else number - (1 << 32),
        AUDIT[machine],
        0,
        *(a % (1 << 64) for a in arguments),
    )
    position = accumulator = 0
    while True:
        code, yes, no, k = struct.unpack_from("=HBBI", program, 8 * position)
        position += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x54:
                accumulator &= k
            case 0x15:
                position += yes if accumulator == k else no
            case 0x35:
                position += yes if accumulator >= k else no
            case 0x45:
                position += yes if accumulator & k else no
            case 0x06:
                return {0x7FFF0000: "answered", 0x80000000: "killed", 0x50001: "EPERM", 0x50026: "ENOSYS"}[k]
            case _:
                raise AssertionError(f"instruction {code:#x}")


AUDIT = {"x86_64": seccompy.AUDIT_ARCH_X86_64, "aarch64": seccompy.AUDIT_ARCH_AARCH64}


@pytest.mark.parametrize("machine", confine.MACHINES)
def test_the_filter_says_of_every_number_what_the_census_says(machine: str) -> None:
    program, listed = confine.build_filter(machine), CENSUS[machine]
    verdicts: dict[str, set[int]] = defaultdict(set)
    for number in range(1000):
        seen = {judge(program, machine, number, vector) for vector in VECTORS}
        verdicts["answered" if "answered" in seen else seen.pop()].add(number)
    assert verdicts["answered"] == set(listed["answered"].values())
    assert verdicts["killed"] == set(listed["killed"].values())
    assert verdicts["ENOSYS"] == set(listed["enosys"].values())
    assert len(verdicts["answered"]) <= 25


@pytest.mark.parametrize("machine", confine.MACHINES)
def test_the_filter_kills_a_call_of_another_architecture(machine: str) -> None:
    other = next(m for m in confine.MACHINES if m != machine)
    assert judge(confine.build_filter(machine), other, confine.numbers(other)["getpid"], (0,) * 6) == "killed"


@pytest.mark.parametrize("machine", confine.MACHINES)
def test_the_census_names_the_calls_as_our_table_does(machine: str) -> None:
    listed, table = CENSUS[machine], confine.numbers(machine)
    named = {name: number for group in ("answered", "killed", "enosys") for name, number in listed[group].items()}
    assert {name: table[name] for name in named} == named


@pytest.mark.parametrize(
    ("machine", "theirs"),
    [("x86_64", seccompy.syscalls.X86_64_SYSCALLS), ("aarch64", seccompy.syscalls.AARCH64_SYSCALLS)],
)
def test_our_numbers_are_those_of_an_independent_table(machine: str, theirs: dict[str, int]) -> None:
    table = confine.numbers(machine)
    assert {name: theirs.get(name) for name in table} == table


def test_a_call_that_an_architecture_lacks_is_lacking_in_the_independent_table_too() -> None:
    ours = confine.numbers("x86_64").keys() - confine.numbers("aarch64").keys()
    assert ours
    assert not ours & seccompy.syscalls.AARCH64_SYSCALLS.keys()


async def test_the_report_lists_every_layer() -> None:
    async with CodeSandbox() as sandbox:
        report = await sandbox.isolation_report()
    assert isinstance(report, IsolationReport)
    assert report.complete
    assert not report.missing
    assert {
        "process",
        "seccomp",
        "rlimits",
        "namespaces",
        "root",
        "landlock",
        "capabilities",
        "executable memory",
    } == report.layers.keys()
    assert [report.layers[name] for name in MANDATORY] == ["on"] * 3


# machines that lack a layer


DENIALS = {
    "seccomp": {
        "EPERM": "deny('seccomp', errno.EPERM)",
        "ENOSYS": "deny('seccomp', errno.ENOSYS)",
        "prctl": "deny('seccomp', errno.ENOSYS); deny('prctl', errno.EINVAL, argument=0, equal=22)",
        "no_new_privs": "deny('prctl', errno.EPERM, argument=0, equal=38)",
    },
    "rlimits": {"EPERM": "deny_where_given('prlimit64', errno.EPERM, argument=2); deny('setrlimit', errno.EPERM)"},
    "process": {
        "no fork": "deny('clone3', errno.ENOSYS); deny('clone', errno.EAGAIN, argument=0, lacking=0x100)",
        "nothing at all": "deny('clone3', errno.ENOSYS); deny('clone', errno.EAGAIN, argument=0, lacking=0x10000)\n"
        "for name in ('fork', 'vfork'):\n    name in NUMBERS and deny(name, errno.EAGAIN)",
    },
}
LACKING = [(layer, how) for layer, ways in DENIALS.items() for how in ways]

TRY = """
from tests.core.machines import NUMBERS, deny, deny_where_given
{denial}
async def attempt(**options):
    try:
        async with CodeSandbox(**options) as sandbox:
            result = await sandbox.execute("6 * 7")
            return [result.value, str(result.error)]
    except IsolationUnavailable as error:
        return [list(error.missing), list(error.weaker), str(error)]
show({{
    "auto": await attempt(),
    "process": await attempt(isolation="process"),
    "unrestricted": await attempt(language="unrestricted"),
}})
"""


@pytest.mark.parametrize(("layer", "how"), LACKING)
def test_a_machine_without_a_mandatory_layer_is_refused_and_told_what_is_missing(layer: str, how: str) -> None:
    seen = run_host(TRY.format(denial=DENIALS[layer][how]))
    for asked in ("auto", "unrestricted"):
        missing, weaker, message = seen[asked]
        assert any(item.startswith(f"{layer}:") for item in missing), missing
        assert missing[0] in message
        assert weaker == (["process"] if layer == "seccomp" and asked == "auto" else [])
        assert ('isolation="process"' in message) == bool(weaker)
    if layer == "seccomp":
        assert seen["process"] == [42, "None"]
    else:
        assert seen["process"][0][0].startswith(f"{layer}:")


@pytest.mark.parametrize("layer", ["namespaces", "landlock"])
@pytest.mark.parametrize("reason", ["EPERM", "ENOSYS"])
def test_a_machine_without_a_further_layer_says_why_and_the_rest_stands(layer: str, reason: str) -> None:
    call = {"namespaces": "unshare", "landlock": "landlock_create_ruleset"}[layer]
    seen = run_host(f"""
from tests.core.machines import deny
deny({call!r}, errno.{reason})
async with CodeSandbox(language="unrestricted") as sandbox:
    report = await sandbox.isolation_report()
    result = await sandbox.execute("import os\\ntry:\\n    os.stat('/')\\nexcept OSError as e:\\n    r = e.errno\\nr")
    show([report.layers, list(report.missing), result.value, str(result.error)])
""")
    layers, missing, value, error = seen
    assert os.strerror(getattr(errno, reason)) in layers[layer]
    others = {"namespaces": ["landlock"], "landlock": ["namespaces"]}[layer]
    assert all(layers[name].startswith("on") for name in (*MANDATORY, *others)), layers
    assert not missing
    assert (value, error) == (errno.EPERM, "None")


def test_landlock_that_can_be_made_but_not_entered_is_reported_and_the_rest_stands() -> None:
    layers, value = run_host("""
from tests.core.machines import deny
deny("landlock_restrict_self", errno.EPERM)
async with CodeSandbox() as sandbox:
    show([(await sandbox.isolation_report()).layers, (await sandbox.execute("1 + 1")).value])
""")
    assert layers["landlock"].startswith("none")
    assert all(layers[name] == "on" for name in (*MANDATORY, "namespaces"))
    assert value == 2


def test_process_isolation_has_no_filter_and_calls_itself_incomplete() -> None:
    async def look() -> IsolationReport:
        async with CodeSandbox(isolation="process") as sandbox:
            assert (await sandbox.execute("1 + 1")).value == 2
            return await sandbox.isolation_report()

    report = asyncio.run(look())
    assert report.layers["seccomp"] == "off"
    assert not report.complete


def test_unrestricted_programs_need_wall_two_in_full() -> None:
    with pytest.raises(ConfigurationError, match="wall two"):
        CodeSandbox(isolation="process", language="unrestricted")


# what a guest sees

LOOK = """
import ctypes, os, resource, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(f, *args):
    try:
        return f(*args)
    except OSError as error:
        return f"errno {error.errno}"
open_fds = []
for fd in range(70):
    ctypes.set_errno(0)
    # fstat is refused: only close answers for a descriptor
    if fd != 3 and libc.close(fd) == 0:
        open_fds.append(fd)
import socket
{
    "descriptors": open_fds,
    "environ": dict(os.environ),
    "pid": os.getpid(),
    "open": [attempt(os.open, path, os.O_RDONLY) for path in ("/", "/etc/passwd", "/proc/self/environ", ".")],
    "create": attempt(os.open, "/tmp/x", os.O_CREAT | os.O_WRONLY),
    "stat": attempt(os.stat, "/"),
    "socket": attempt(socket.socket),
    "fork": attempt(os.fork),
    "kill": attempt(os.kill, 1, 0),
    "hash": hash("a"),
}
"""


async def test_a_guest_has_one_descriptor_no_environment_no_files_no_network_no_children() -> None:
    async with CodeSandbox(language="unrestricted") as sandbox:
        first, second = await sandbox.execute(LOOK), await sandbox.execute(LOOK)
    async with CodeSandbox(language="unrestricted") as other:
        third = await other.execute(LOOK)
    assert first.error is None, first.error
    seen = first.value
    denied = f"errno {errno.EPERM}"
    assert seen["descriptors"] == []
    assert seen["environ"] == {}
    assert seen["open"] == [denied] * 4
    assert [seen[what] for what in ("create", "stat", "socket", "fork", "kill")] == [denied] * 5
    assert seen["pid"] < 100  # counted in a namespace of its own
    assert seen["hash"] == second.value["hash"] == third.value["hash"]  # so that a record replays anywhere


def look_at_guests() -> dict[str, Any]:
    """/proc's view of every guest of this process."""
    seen: dict[str, Any] = {}
    guests = [pid for pid in descendants() if "\nSeccomp:\t2" in Path(f"/proc/{pid}/status").read_text()]
    for pid in guests:
        fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        limits = {
            line[:25].strip(): line[25:].split()[1] for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
        }
        seen[str(pid)] = {
            "fields": fields,
            "limits": limits,
            "descriptors": sorted(os.listdir(f"/proc/{pid}/fd")),
            "namespaces": {n: os.readlink(f"/proc/{pid}/ns/{n}") for n in ("user", "pid", "net", "ipc", "uts", "mnt")},
            "environment": Path(f"/proc/{pid}/environ").read_bytes(),
            "root": os.listdir(f"/proc/{pid}/root"),
        }
    return seen


async def test_the_kernel_confirms_every_layer_from_outside() -> None:
    seen: dict[str, Any] = {}

    async def look() -> None:
        seen.update(look_at_guests())

    async with CodeSandbox(tools=[look], limits=Limits(memory=64 << 20, cpu_time=7)) as sandbox:
        result = await sandbox.execute("await look()")
        report = await sandbox.isolation_report()
    assert result.error is None, result.error
    assert seen  # the guest that called, at the least
    for guest in seen.values():
        fields, limits = guest["fields"], guest["limits"]
        assert fields["NoNewPrivs"] == "1"
        assert {fields[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert limits["Max cpu time"] == "9"
        assert limits["Max open files"] == "4"
        assert [limits[f"Max {what}"] for what in ("file size", "processes", "core file size", "locked memory")] == [
            "0"
        ] * 4
        assert int(limits["Max address space"]) < (64 << 20) + (1 << 30)
        assert guest["descriptors"] == ["3"]
        assert guest["environment"].replace(b"PYTHONHASHSEED=0", b"").strip(b"\0") == b""
        if report.layers["namespaces"] == "on":
            assert guest["root"] == []
            for name, link in guest["namespaces"].items():
                assert link != os.readlink(f"/proc/self/ns/{name}"), name


async def test_memory_can_not_become_executable() -> None:
    code = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
answers = []
for protection in (7, 5, 4):
    page = libc.mmap(None, 4096, protection, 0x22, -1, 0)
    answers.append(ctypes.get_errno() if page == ctypes.c_void_p(-1).value else 0)
page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
answers.append(ctypes.get_errno() if libc.mprotect(ctypes.c_void_p(page), 4096, 5) else 0)
answers
"""
    async with CodeSandbox(language="unrestricted") as sandbox:
        result = await sandbox.execute(code)
    assert result.value == [errno.EPERM] * 4, result.error


def test_an_ordinary_user_has_every_layer_that_root_has() -> None:
    script = """
sys.executable = {python!r}
async with CodeSandbox(language="unrestricted") as sandbox:
    report = await sandbox.isolation_report()
    result = await sandbox.execute("import os\\ntry:\\n    os.stat('/')\\nexcept OSError as e:\\n    r = e.errno\\nr")
    show([os.getuid(), report.layers, result.value, str(result.error)])
"""
    if os.getuid() == 0:
        with readable_python() as (python, path):
            uid, layers, value, error = run_host(script.format(python=python), python=python, user=NOBODY, path=path)
    else:
        uid, layers, value, error = run_host(script.format(python=sys.executable))
    assert uid != 0
    assert all(layers[name] == "on" for name in MANDATORY)
    assert (value, error) == (errno.EPERM, "None")
    as_root = run_host("async with CodeSandbox() as sandbox:\n    show((await sandbox.isolation_report()).layers)")
    assert layers == as_root
