"""Warm guests: the host's side of the zygote, the processes it forks, and how they end.

One zygote belongs to one sandbox: sandboxes share no process, hash seed or address layout. Handing out a guest blocks
for microseconds and is bound to no event loop, so any loop or thread may take one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from toolchord.errors import DeveloperError, IsolationUnavailable, SandboxClosed

Isolation = Literal["auto", "process"]

_PACKAGES = ("toolchord_guest", "RestrictedPython", "msgspec", "msgpack", "greenlet", "pydantic", "pydantic_core",
             "annotated_types", "typing_extensions", "typing_inspection", "tzdata")  # fmt: skip
_PRELOAD = ("pydantic", "pydantic.functional_validators", "pydantic.functional_serializers", "pydantic.deprecated.class_validators")
_DANGEROUS = (
    "os subprocess socket ctypes mmap resource fcntl signal pathlib tempfile shutil urllib.request http.client ssl "
    "inspect importlib builtins _io io codecs inspect queue threading multiprocessing pickle select sys gc asyncio "
    "asyncio.subprocess platform types json.decoder re enum statistics random decimal fractions concurrent.futures.thread"
).split()
"""Preloaded where wall one is off, so that what an attack imports is there and only wall two stands in its way."""

_START_TIMEOUT = 30.0


@dataclass(frozen=True)
class IsolationReport:
    """What stands between a program and this machine.

    Attributes:
        isolation: the level that was asked for.
        language: "restricted" (wall one stands) or "unrestricted".
        layers: each layer of wall two with "on", what it is, or why it is missing.
        complete: every mandatory layer (fresh process, seccomp, rlimits) stands.
    """

    isolation: str
    language: str
    layers: dict[str, str]
    missing: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.missing and self.isolation == "auto"


@dataclass(frozen=True)
class GuestLimits:
    """What the kernel enforces in a guest: bytes of memory, whole CPU seconds (None: the host watches alone)."""

    memory: int
    cpu: int | None


class Guest:
    """One confined process: its data socket, and a handle that no reuse of process ids can mislead."""

    def __init__(self, data: socket.socket, status: socket.socket) -> None:
        self.data = data
        self._status = status
        self._pidfd: int | None = None
        self._exit: int | None = None
        self._lock = threading.Lock()

    def _read_status(self, timeout: float) -> bytes:
        if not select.select([self._status], [], [], timeout)[0]:
            return b""
        message, descriptors, _, _ = socket.recv_fds(self._status, 64, 1)
        if descriptors:
            self._pidfd = descriptors[0]
        return message

    def _handle(self) -> int | None:
        if self._pidfd is None and self._status.fileno() >= 0:
            self._read_status(5.0)
        return self._pidfd

    @property
    def pid(self) -> int | None:
        """The process id on this host, None once it is gone."""
        with self._lock:
            handle = self._handle()
            if handle is None:
                return None
            text = Path(f"/proc/self/fdinfo/{handle}").read_text()
        pid = int(next(line for line in text.splitlines() if line.startswith("Pid:")).split()[1])
        return pid if pid > 0 else None

    def cpu_time(self) -> float:
        """Seconds of CPU that the guest has used since it was forked, 0.0 once it is gone."""
        with contextlib.suppress(OSError, StopIteration, ValueError):
            pid = self.pid
            if pid is not None:
                return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
        return 0.0

    def exit_code(self, timeout: float = 1.0) -> int | None:
        """How the guest ended (negative: by that signal), None if it is not known in time."""
        with self._lock:
            while self._exit is None and self._status.fileno() >= 0:
                message = self._read_status(timeout)
                if not message:
                    return None
                if message != b"pidfd":
                    self._exit = int(message)
            return self._exit

    def kill(self) -> None:
        """End the guest and give back its descriptors; harmless when repeated."""
        with self._lock:
            handle = self._handle()
            if handle is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                os.close(handle)
                self._pidfd = None
            self.data.close()
            self._status.close()


@dataclass
class _Process:
    """A running zygote."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    owner: int
    report: dict[str, object]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def stop(self) -> None:
        """End the zygote; its guests die with it."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        self.control.close()
        if os.getpid() != self.owner:
            return
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_live: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """Hands out guests of one isolation and language, keeping a few of the usual kind warm.

    Args:
        isolation: "auto" for wall two in full, "process" for a separate process with limits only.
        unrestricted: wall one is off.
        usual: the limits to keep warm guests for.
        warm: how many of them.
    """

    def __init__(self, isolation: Isolation, *, unrestricted: bool, usual: GuestLimits, warm: int = 2) -> None:
        self._isolation = isolation
        self._unrestricted = unrestricted
        self._usual = usual
        self._warm = warm
        self._idle: deque[Guest] = deque()
        self._zygote: _Process | None = None
        self._lock = threading.Lock()
        self._closed = False
        _live.add(self)

    def report(self) -> IsolationReport:
        """What this machine gives; starts the zygote if need be."""
        report = self._start().report
        language = "unrestricted" if self._unrestricted else "restricted"
        return IsolationReport(self._isolation, language, dict(report["layers"]), tuple(report["missing"]))  # type: ignore[call-overload]

    @property
    def started(self) -> bool:
        """Whether taking a guest will not have to start the zygote first."""
        return self._zygote is not None and self._zygote.owner == os.getpid()

    def take(self, limits: GuestLimits) -> Guest:
        """A guest with these limits, warm if there is one.

        Raises:
            IsolationUnavailable: this machine can't give the isolation.
            SandboxClosed: the pool was closed.
        """
        zygote = self._start()
        with self._lock:
            guest = self._idle.popleft() if limits == self._usual and self._idle else None
        if guest is None:
            guest = self._spawn(zygote, limits)
        return guest

    def refill(self) -> None:
        """Fork what is missing to the usual number of warm guests; returns at once."""
        zygote = self._zygote
        while zygote is not None and zygote.owner == os.getpid():
            with self._lock:
                if self._closed or len(self._idle) >= self._warm:
                    return
            try:
                guest = self._spawn(zygote, self._usual)
            except DeveloperError:
                return
            with self._lock:
                if not self._closed:
                    self._idle.append(guest)
                    continue
            guest.kill()

    def close(self) -> None:
        """End the zygote and every guest."""
        with self._lock:
            self._closed = True
            idle, self._idle = list(self._idle), deque()
            zygote, self._zygote = self._zygote, None
        for guest in idle:
            guest.kill()
        if zygote is not None:
            zygote.stop()

    def _start(self) -> _Process:
        with self._lock:
            if self._closed:
                raise SandboxClosed("the sandbox is closed; make a new CodeSandbox")
            zygote = self._zygote
            if zygote is not None and zygote.owner != os.getpid():  # we are a fork: the parent's zygote is not ours
                zygote.control.close()
                self._idle.clear()
                zygote = None
            if zygote is not None and zygote.process.poll() is not None:
                zygote.stop()
                self._idle.clear()
                zygote = None
            if zygote is None:
                zygote = self._zygote = _launch(self._isolation, self._unrestricted)
            return zygote

    def _spawn(self, zygote: _Process, limits: GuestLimits) -> Guest:
        data, data_guest = socket.socketpair()
        status, status_guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps({"memory": limits.memory, "cpu": limits.cpu}).encode()
        try:
            with zygote.lock:
                socket.send_fds(zygote.control, [request], [data_guest.fileno(), status_guest.fileno()])
        except OSError as error:
            data.close()
            status.close()
            raise IsolationUnavailable([f"the fork server is gone ({error})"]) from None
        finally:
            data_guest.close()
            status_guest.close()
        data.setblocking(False)
        return Guest(data, status)


def _launch(isolation: Isolation, unrestricted: bool) -> _Process:
    """Start a zygote and wait until it has confined itself."""
    if sys.platform != "linux":
        raise IsolationUnavailable([f"guests need Linux, this is {sys.platform}; use a Linux container"])
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    script = find_spec("toolchord_guest.zygote")
    assert script is not None and script.origin is not None
    command = [sys.executable, "-s", "-S", "-B", "-P", script.origin, str(theirs.fileno())]
    process = subprocess.Popen(
        command,
        env={"PYTHONHASHSEED": "0"},
        cwd="/",
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    theirs.close()
    config = {
        "path": _paths(),
        "preload": [*_PRELOAD, *(_DANGEROUS if unrestricted else ())],
        "isolation": isolation,
        "unrestricted": unrestricted,
    }
    control.send(json.dumps(config).encode())
    answer = control.recv(1 << 16) if select.select([control], [], [], _START_TIMEOUT)[0] else b""
    if not answer:
        process.kill()
        errors = process.communicate()[1].decode(errors="replace").strip()
        control.close()
        raise IsolationUnavailable([f"the fork server did not start: {errors[-1000:] or 'no answer'}"])
    assert process.stderr is not None
    process.stderr.close()
    zygote = _Process(process, control, os.getpid(), json.loads(answer))
    missing = [str(layer) for layer in zygote.report["missing"]]  # type: ignore[attr-defined]
    if missing:
        zygote.stop()
        raise IsolationUnavailable(missing, ["process"] if isolation == "auto" and "rlimits" not in str(missing) else [])
    return zygote


def _paths() -> list[str]:
    """The folders that hold what a guest imports."""
    folders: dict[str, None] = {}
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent
            folders[str(folder.parent if spec.submodule_search_locations else folder)] = None
    return list(folders)


@atexit.register
def _close_all() -> None:
    for pool in list(_live):
        pool.close()
