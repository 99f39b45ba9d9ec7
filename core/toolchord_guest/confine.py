"""Wall two: what the kernel refuses to a guest, by ctypes alone, without privileges.

A system-call filter (seccomp), Landlock, namespaces with an empty root, resource limits, no capabilities, closed
descriptors. The filter answers EPERM by default and kills on what only an attacker calls. Numbers are for Linux on
x86_64 and aarch64; `research` figures and the reasons behind each choice are in docs/security.md.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Callable

SOCKET = 3
"""The one descriptor that a guest keeps."""

MACHINE = os.uname().machine
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
MACHINES = tuple(_ARCHITECTURES)
"""Architectures that have a table."""

# name: x86_64, aarch64 (-1: does not exist there)
_TABLE = """
read 0 63, write 1 64, close 3 57, mmap 9 222, mprotect 10 226, munmap 11 215, brk 12 214, rt_sigprocmask 14 135,
rt_sigreturn 15 139, mremap 25 216, madvise 28 233, sched_yield 24 124, nanosleep 35 101, getpid 39 172, gettid 186 178,
exit 60 93, exit_group 231 94, futex 202 98, clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115,
gettimeofday 96 169, time 201 -1, getrandom 318 278, restart_syscall 219 128, clone3 435 435, capset 126 91,
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, bpf 321 280, perf_event_open 298 241,
userfaultfd 323 282, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427, kexec_load 246 104,
kexec_file_load 320 294, init_module 175 105, finit_module 313 273, delete_module 176 106, mount 165 40, umount2 166 39,
pivot_root 155 41, chroot 161 51, setns 308 268, unshare 272 97, add_key 248 217, request_key 249 218, keyctl 250 219,
open_by_handle_at 304 265, name_to_handle_at 303 264, iopl 172 -1, ioperm 173 -1, modify_ldt 154 -1, personality 135 92,
swapon 167 224, reboot 169 142, acct 163 89, quotactl 179 60, memfd_create 319 279, memfd_secret 447 447,
pidfd_getfd 438 438, process_madvise 440 440, mount_setattr 442 442, fsopen 430 430, move_mount 429 429,
open_tree 428 428, seccomp 317 277, prctl 157 167, landlock_restrict_self 446 446, pkey_mprotect 329 288,
pkey_alloc 330 289, remap_file_pages 216 234, shmat 30 196, kcmp 312 272, uselib 134 -1, create_module 174 -1
"""

ALLOWED = (
    "close munmap brk rt_sigprocmask rt_sigreturn sched_yield nanosleep getpid gettid exit exit_group clock_gettime "
    "clock_getres clock_nanosleep gettimeofday time getrandom restart_syscall"
).split()
"""Answered with any arguments. Memory, futex, read and write are answered too, by their arguments."""

FILTERED = "read write mmap mprotect mremap madvise futex".split()

KILLED = (
    "ptrace process_vm_readv process_vm_writev bpf perf_event_open userfaultfd io_uring_setup io_uring_enter "
    "io_uring_register kexec_load kexec_file_load init_module finit_module delete_module mount umount2 pivot_root "
    "chroot setns unshare add_key request_key keyctl open_by_handle_at name_to_handle_at iopl ioperm modify_ldt "
    "personality swapon reboot acct quotactl memfd_create memfd_secret pidfd_getfd process_madvise mount_setattr "
    "fsopen move_mount open_tree seccomp prctl landlock_restrict_self pkey_mprotect pkey_alloc remap_file_pages "
    "shmat kcmp uselib create_module"
).split()
"""Only an attacker calls these: the guest is ended at once, and the run says why."""

_RET_ALLOW, _RET_KILL, _RET_ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LD, _AND, _JEQ, _JGE, _JSET, _RET = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06


def numbers(machine: str = MACHINE) -> dict[str, int]:
    """System-call numbers by name on an architecture; KeyError where it is not supported."""
    column = _ARCHITECTURES[machine][0]
    rows = (row.split() for row in _TABLE.replace("\n", " ").split(","))
    return {row[0]: int(row[1 + column]) for row in rows if row[1 + column] != "-1"}


def _op(code: int, jump_true: int, jump_false: int, k: int) -> bytes:
    return struct.pack("=HBBI", code, jump_true, jump_false, k)


_ALLOW = _op(_RET, 0, 0, _RET_ALLOW)
_KILL = _op(_RET, 0, 0, _RET_KILL)
_DENY = _op(_RET, 0, 0, _RET_ERRNO | errno.EPERM)


def _argument(n: int) -> int:
    """Offset of the low half of argument `n` in seccomp_data (little-endian)."""
    return 16 + 8 * n


def _one_of(n: int, mask: int, *values: int) -> list[bytes]:
    body = [_op(_LD, 0, 0, _argument(n)), _op(_AND, 0, 0, mask)]
    for value in values:
        body += [_op(_JEQ, 0, 1, value), _ALLOW]
    return [*body, _DENY]


def build_filter(machine: str = MACHINE) -> bytes:
    """The filter as classic BPF instructions: a strict allowlist, EPERM otherwise."""
    nr = numbers(machine)
    program = [_op(_LD, 0, 0, 4), _op(_JEQ, 1, 0, _ARCHITECTURES[machine][1]), _KILL, _op(_LD, 0, 0, 0)]
    if machine == "x86_64":  # the x32 ABI shares the architecture's value
        program += [_op(_JGE, 0, 1, 0x40000000), _KILL]

    def rule(name: str, body: list[bytes]) -> None:
        if name in nr:
            program.append(_op(_JEQ, 0, len(body), nr[name]))
            program.extend(body)

    only_socket = [_op(_LD, 0, 0, _argument(0) + 4), _op(_JEQ, 1, 0, 0), _DENY, *_one_of(0, 0xFFFFFFFF, SOCKET)]
    # No send or receive calls: their flags and ancillary data have been a way into the kernel (CVE-2025-38236).
    rule("read", only_socket)
    rule("write", only_socket)
    rule("futex", _one_of(1, 0x7F, 0, 1, 9, 10))  # wait, wake and their bitset forms; no requeue, no PI
    rule("madvise", _one_of(2, 0xFFFFFFFF, 4, 8))  # DONTNEED, FREE
    rule("mremap", _one_of(3, 0xFFFFFFFF, 0, 1))  # MAYMOVE
    no_exec = [_op(_LD, 0, 0, _argument(2)), _op(_JSET, 0, 1, 4), _DENY]
    anonymous = [_op(_LD, 0, 0, _argument(3)), _op(_JSET, 1, 0, 0x20), _DENY, _op(_JSET, 0, 1, 0x01), _DENY]
    rule("mmap", [*no_exec, *anonymous, _ALLOW])
    rule("mprotect", [*no_exec, _ALLOW])
    for name in ALLOWED:
        rule(name, [_ALLOW])
    for name in KILLED:
        rule(name, [_KILL])
    rule("clone3", [_op(_RET, 0, 0, _RET_ERRNO | errno.ENOSYS)])  # libc then falls back to clone, which is refused
    return b"".join([*program, _DENY])


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _failed(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")


class _FilterProgram(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class Filter:
    """The compiled filter, made once in the zygote and installed by every guest."""

    def __init__(self) -> None:
        code = build_filter()
        self._nr = numbers()["seccomp"]
        self._buffer = ctypes.create_string_buffer(code, len(code))
        self._program = _FilterProgram(len(code) // 8, ctypes.addressof(self._buffer))

    def install(self) -> None:
        """Confine this process for good. OSError if the kernel refuses."""
        no_new_privileges()
        # TSYNC: a positive answer names a thread that could not be confined, which is a failure too.
        if _libc.syscall(self._nr, 1, 1, ctypes.byref(self._program)) != 0:
            raise _failed("seccomp")


def no_new_privileges() -> None:
    """What a filter or a Landlock domain needs where there are no privileges; OSError if refused."""
    if _libc.prctl(38, 1, 0, 0, 0) != 0:
        raise _failed("no_new_privs")


def landlock() -> tuple[int | None, int]:
    """A ruleset that handles all this kernel knows and allows nothing: (descriptor, ABI), or (None, -errno)."""
    abi = int(_libc.syscall(444, None, 0, 1))
    if abi < 1:
        return None, -ctypes.get_errno()
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(min(abi, 5), 16)) - 1
    network = 0 if abi < 4 else 3
    attributes = struct.pack("=QQQ", rights, network, 3 if abi >= 6 else 0)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    descriptor = _libc.syscall(444, attributes, len(attributes), 0)
    return (None, -ctypes.get_errno()) if descriptor < 0 else (int(descriptor), abi)


def restrict_self(ruleset: int) -> None:
    """Enter a Landlock domain; OSError if refused."""
    if _libc.syscall(446, ruleset, 0) != 0:
        raise _failed("landlock")


def set_limits(*, memory: int, cpu: int | None, base: int) -> None:
    """Resource limits of a guest: bytes above `base` of address space, whole CPU seconds, nothing else to spend.

    Raises OSError or ValueError if one can't be set.
    """
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_STACK: 8 << 20,
        resource.RLIMIT_AS: base + memory,
        resource.RLIMIT_NOFILE: SOCKET + 1,
    }
    if cpu is not None:
        limits[resource.RLIMIT_CPU] = cpu
    for which, value in limits.items():
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def drop_capabilities() -> None:
    """Give up every capability, now and after exec."""
    for capability in range(64):
        if _libc.prctl(24, capability, 0, 0, 0) != 0:
            break
    _libc.prctl(47, 4, 0, 0, 0)
    if _libc.syscall(numbers()["capset"], struct.pack("=Ii", 0x20080522, 0), b"\0" * 24) != 0:
        raise _failed("capset")


def unshare_all() -> None:
    """Enter user, pid, network, ipc, uts, mount and cgroup namespaces of our own; OSError if refused."""
    uid, gid = os.getuid(), os.getgid()
    flags = 0x10000000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x00020000 | 0x02000000
    if _libc.unshare(flags) != 0:
        raise _failed("unshare")
    for path, text in (("setgroups", "deny"), ("uid_map", f"65534 {uid} 1"), ("gid_map", f"65534 {gid} 1")):
        with open(f"/proc/self/{path}", "w", encoding="ascii") as file:
            file.write(text)


def empty_root() -> None:
    """Replace the root by an empty read-only one; needs a mount namespace. OSError if refused."""
    private, tmpfs_flags, detach, remount = 0x4000 | 0x40000, 2 | 4 | 8, 2, 1 | 32 | 2 | 4 | 8
    if _libc.mount(None, b"/", None, private, None) != 0:
        raise _failed("mount private")
    if _libc.mount(b"none", b"/tmp", b"tmpfs", tmpfs_flags, b"size=4k,nr_inodes=2,mode=0555") != 0:
        raise _failed("mount tmpfs")
    os.chdir("/tmp")
    if _libc.syscall(numbers()["pivot_root"], b".", b".") != 0:
        raise _failed("pivot_root")
    if _libc.umount2(b".", detach) != 0:
        raise _failed("umount")
    _libc.mount(None, b"/", None, remount, None)
    os.chdir("/")


def harden() -> None:
    """Memory that was not executable from the start never becomes so; OSError where the kernel is older than 6.3."""
    if _libc.prctl(65, 1, 0, 0, 0) != 0:
        raise _failed("mdwe")


def die_with_parent() -> None:
    """Be killed when the parent ends."""
    if _libc.prctl(1, 9, 0, 0, 0) != 0:
        raise _failed("pdeathsig")


def undumpable() -> None:
    """Nobody of the same user may attach to this process."""
    _libc.prctl(4, 0, 0, 0, 0)


def works(step: Callable[[], object]) -> str | None:
    """Try `step` in a throw-away child: None if it works, else the reason."""
    reader, writer = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        return f"fork: {error}"
    if child == 0:
        try:
            step()
            os._exit(0)
        except BaseException as error:
            os.write(writer, str(error).encode()[:200])
        finally:
            os._exit(1)
    os.close(writer)
    reason = os.read(reader, 200).decode(errors="replace")
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if status == 0:
        return None
    return reason or f"ended with status {os.waitstatus_to_exitcode(status)}"
