"""Warm guests: the host's side of the zygote, the processes it forks, and how they end.

One zygote belongs to one sandbox: sandboxes share no process and no address layout. (They do share a hash seed, so
that a record replays in any of them.) Handing out a guest blocks for microseconds and is bound to no event loop, so any
loop or thread may take one. A fork of the host keeps none of its parent's guests; its own zygote starts when needed.
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
import time
import weakref
from collections import deque
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from toolchord.errors import DeveloperError, IsolationUnavailable, SandboxClosed

Isolation = Literal["auto", "process"]

_PACKAGES = ("toolchord_guest", "RestrictedPython", "msgspec", "msgpack", "greenlet", "pydantic", "pydantic_core",
             "annotated_types", "typing_extensions", "typing_inspection", "tzdata")  # fmt: skip
_PRELOAD = (
    "pydantic",
    "pydantic.functional_validators",
    "pydantic.functional_serializers",
    "pydantic.deprecated.class_validators",
)
_DANGEROUS = (
    "os subprocess socket ctypes mmap resource fcntl signal pathlib tempfile shutil urllib.request http.client ssl "
    "inspect importlib builtins _io io codecs inspect queue threading multiprocessing pickle select sys gc asyncio "
    "asyncio.subprocess platform types json.decoder re enum statistics random decimal fractions "
    "concurrent.futures.thread"
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
    """One confined process: its data socket, and a handle that no reuse of process ids can mislead.

    No method but `exit_code` waits. The zygote tells of the process a moment after it was asked for; until then `pid`
    is None, and a guest that is killed before then is killed by the zygote itself, which finds nobody to tell.
    """

    def __init__(self, data: socket.socket, status: socket.socket) -> None:
        self.data = data
        self.failure: str | None = None
        """Why no process could be made, if so."""
        self._status = status
        self._pidfd: int | None = None
        self._exit: int | None = None
        self._silent = False
        self._lock = threading.Lock()

    def __del__(self) -> None:
        self.kill()

    def _hear(self) -> None:
        """Take what the zygote has said by now."""
        while not self._silent:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._status, 256, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            if descriptors:
                self._pidfd = descriptors[0]
            elif message.startswith(b"!"):
                self.failure = message[1:].decode(errors="replace")
            elif message:
                self._exit = int(message)
            self._silent = not message

    @property
    def pid(self) -> int | None:
        """The process id on this host, None where it is gone or not known yet."""
        with self._lock:
            self._hear()
            if self._pidfd is None:
                return None
            text = Path(f"/proc/self/fdinfo/{self._pidfd}").read_text()
        pid = int(next(line for line in text.splitlines() if line.startswith("Pid:")).split()[1])
        return pid if pid > 0 else None

    @property
    def alive(self) -> bool:
        """Whether the guest still holds its end of the data socket; a new one that is yet to come counts."""
        poller = select.poll()
        poller.register(self.data, 0)
        return not poller.poll(0)

    def cpu_time(self) -> float:
        """Seconds of CPU that the guest has used since it was forked, 0.0 once it is gone."""
        with contextlib.suppress(OSError, StopIteration, ValueError):
            pid = self.pid
            if pid is not None:
                return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
        return 0.0

    def peak_memory(self) -> int:
        """Bytes that were resident at its peak, those that it shares with its siblings included; 0 once it is gone."""
        with contextlib.suppress(OSError, StopIteration, ValueError):
            pid = self.pid
            if pid is not None:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) << 10
        return 0

    def exit_code(self, timeout: float = 1.0) -> int | None:
        """How the guest ended (negative: by that signal), None if it is not known in time."""
        deadline = time.monotonic() + timeout
        poller = select.poll()
        while True:
            with self._lock:
                self._hear()
                if self._exit is not None or self._silent:
                    return self._exit
                poller.register(self._status, select.POLLIN)
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                return None

    def kill(self) -> None:
        """End the guest and give back its descriptors; harmless when repeated."""
        with self._lock:
            if self._status.fileno() >= 0:
                with contextlib.suppress(OSError):
                    self._status.shutdown(socket.SHUT_RD)  # what was not heard by now, the zygote can't tell any more
                self._hear()
            if self._pidfd is not None:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._release()

    def abandon(self) -> None:
        """Give back the descriptors and leave the guest to another process, the one that this was forked from."""
        self._lock = threading.Lock()
        self._release()

    def _release(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        self._silent = True
        self.data.close()
        self._status.close()


@dataclass
class _Process:
    """A running zygote."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    report: dict[str, Any]
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """End the zygote; its guests die with it."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        self.control.close()
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
        self._guests: weakref.WeakSet[Guest] = weakref.WeakSet()
        self._zygote: _Process | None = None
        self._lock = threading.Lock()
        self._closed = False
        _live.add(self)

    def __del__(self) -> None:
        self.close()

    def report(self) -> IsolationReport:
        """What this machine gives; starts the zygote if need be."""
        report = self._start().report
        language = "unrestricted" if self._unrestricted else "restricted"
        return IsolationReport(self._isolation, language, dict(report["layers"]), tuple(report["missing"]))

    @property
    def started(self) -> bool:
        """Whether taking a guest will not have to start the zygote first."""
        zygote = self._zygote
        return zygote is not None and zygote.running

    def take(self, limits: GuestLimits) -> Guest:
        """A guest with these limits, warm if there is one.

        Raises:
            IsolationUnavailable: this machine can't give the isolation.
            SandboxClosed: the pool was closed.
        """
        zygote = self._start()
        if limits == self._usual:
            while (guest := self._next_idle()) is not None:
                if guest.alive:
                    return guest
                guest.kill()
        try:
            return self._spawn(zygote, limits)
        except ConnectionError:  # the zygote was killed from outside
            self._retire(zygote)
        try:
            return self._spawn(self._start(), limits)
        except ConnectionError as error:
            raise IsolationUnavailable([f"process: the fork server dies at once ({error})"]) from None

    def refill(self) -> None:
        """Fork what is missing to the usual number of warm guests; returns at once."""
        zygote = self._zygote
        while zygote is not None:
            with self._lock:
                if self._closed or len(self._idle) >= self._warm:
                    return
            try:
                guest = self._spawn(zygote, self._usual)
            except (ConnectionError, DeveloperError):
                return
            with self._lock:
                if not self._closed and self._zygote is zygote:
                    self._idle.append(guest)
                    continue
            guest.kill()
            return

    def close(self) -> None:
        """End the zygote and every guest."""
        with self._lock:
            self._closed = True
            zygote = self._zygote
        if zygote is not None:
            self._retire(zygote)

    def abandon(self) -> None:
        """In a fork of the host: forget what belongs to the parent, without harm to it."""
        self._lock = threading.Lock()
        for guest in list(self._guests):
            guest.abandon()
        self._guests.clear()
        self._idle.clear()
        if self._zygote is not None:
            self._zygote.control.close()
            self._zygote.process.returncode = 0  # the parent reaps it
            self._zygote = None

    def _next_idle(self) -> Guest | None:
        with self._lock:
            return self._idle.popleft() if self._idle else None

    def _start(self) -> _Process:
        zygote = self._zygote
        if zygote is not None and not zygote.running:
            self._retire(zygote)
        with self._lock:
            if self._closed:
                raise SandboxClosed("the sandbox is closed; make a new CodeSandbox")
            if self._zygote is None:
                self._zygote = _launch(self._isolation, self._unrestricted)
            return self._zygote

    def _retire(self, zygote: _Process) -> None:
        """End a zygote, unless another thread has done so; the guests that it made are worth nothing."""
        with self._lock:
            if self._zygote is not zygote:
                return
            self._zygote = None
            idle, self._idle = list(self._idle), deque()
        for guest in idle:
            guest.kill()
        zygote.stop()

    def _spawn(self, zygote: _Process, limits: GuestLimits) -> Guest:
        """Ask for a guest; ConnectionError if the zygote is gone."""
        try:
            data, data_guest = socket.socketpair()
            status, status_guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise IsolationUnavailable([f"process: this host has no room for another guest ({error})"]) from None
        data.setblocking(False)
        status.setblocking(False)
        guest = Guest(data, status)
        request = json.dumps({"memory": limits.memory, "cpu": limits.cpu}).encode()
        try:
            with zygote.lock:
                socket.send_fds(zygote.control, [request], [data_guest.fileno(), status_guest.fileno()])
        except OSError as error:
            guest.kill()
            raise ConnectionError(str(error)) from None
        finally:
            data_guest.close()
            status_guest.close()
        self._guests.add(guest)
        return guest


def _launch(isolation: Isolation, unrestricted: bool) -> _Process:
    """Start a zygote and wait until it has confined itself."""
    if sys.platform != "linux":
        raise IsolationUnavailable([f"guests need Linux, this is {sys.platform}; use a Linux container"])
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    script = find_spec("toolchord_guest.zygote")
    assert script is not None
    assert script.origin is not None
    command = [sys.executable, "-s", "-S", "-B", "-P", script.origin, str(theirs.fileno())]
    try:
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
    except OSError as error:
        control.close()
        raise IsolationUnavailable([f"process: no fresh process can be started ({error})"]) from None
    finally:
        theirs.close()
    config = {
        "path": _paths(),
        "preload": [*_PRELOAD, *(_DANGEROUS if unrestricted else ())],
        "isolation": isolation,
        "unrestricted": unrestricted,
    }
    answer = b""
    with contextlib.suppress(ConnectionError):
        control.send(json.dumps(config).encode())
        if select.select([control], [], [], _START_TIMEOUT)[0]:
            answer = control.recv(1 << 16)
    assert process.stderr is not None
    if not answer:
        process.kill()
        errors = process.communicate()[1].decode(errors="replace").strip()
        control.close()
        raise IsolationUnavailable([f"process: the fork server did not start ({errors[-1000:] or 'no answer'})"])
    process.stderr.close()
    zygote = _Process(process, control, json.loads(answer))
    missing = [str(layer) for layer in zygote.report["missing"]]
    if missing:
        zygote.stop()
        enough = isolation == "auto" and not unrestricted and all(layer.startswith("seccomp") for layer in missing)
        raise IsolationUnavailable(missing, ["process"] if enough else [])
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


def _abandon_all() -> None:
    for pool in list(_live):
        pool.abandon()


os.register_at_fork(after_in_child=_abandon_all)
