"""A guest's socket on the host's event loop: frames in by callback, bytes out with back-pressure."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

from toolchord.limits import Limits
from toolchord.pool import Guest
from toolchord.results import RunError
from toolchord_guest import wire
from toolchord_guest.values import TooLarge

if TYPE_CHECKING:
    from toolchord.run import Run


class Channel(asyncio.Protocol):
    """A guest's socket on one event loop: frames in by callback, bytes out with back-pressure."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.run: Run | None = None
        self.lost = False
        self.spoke = False
        self._cutter = wire.Cutter("guest")
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def open(cls, guest: Guest) -> Channel:
        """Attach a guest to the running loop."""
        channel = cls(guest)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: channel, guest.data)
        return channel

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=1 << 20)

    def data_received(self, data: bytes) -> None:
        run = self.run
        if run is None:
            return self._out_of_turn(data)
        run.bytes_out += len(data)
        try:
            for frame in self._cutter.feed(data):
                run.on_frame(frame)
                if run.ended:
                    return
        except TooLarge:
            limit = run.limits.result
            run.exceed(
                "result", f"a value of more than {limit:,} bytes crossed the wall; return less, or print a summary"
            )
        except Exception as error:  # whatever a guest's bytes do to us, its run ends and the host goes on
            run.break_off(error)

    def _out_of_turn(self, data: bytes) -> None:
        """Between two programs of a session an honest guest says nothing."""
        try:
            self.spoke = self.spoke or any(not isinstance(frame, wire.Ready) for frame in self._cutter.feed(data))
        except wire.WireError:
            self.spoke = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._writable.set()
        if self.run is not None:
            self.run.on_lost()

    @property
    def left_over(self) -> bool:
        """Whether bytes arrived that no program asked for."""
        return self._cutter.rest > 0

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def send(self, frame: wire.Frame) -> None:
        """Write a frame, waiting while the guest is slow to read."""
        if not self._writable.is_set():
            await self._writable.wait()
        if self._transport is not None and not self.lost:
            data = wire.pack(frame)
            if self.run is not None:
                self.run.bytes_in += len(data)
            self._transport.write(data)

    def listen(self, on: bool) -> None:
        """Read on, or leave the guest waiting in its write."""
        if self._transport is not None:
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def close(self) -> None:
        """End the guest, and the run that is under way."""
        if self.run is not None:
            self.run.end(RunError("GuestDied", "the session was closed while the program ran", kind="died"))
        self.run = None
        if self._transport is not None:
            self._transport.abort()
        self.guest.kill()


def error_of(failure: wire.Failure, limits: Limits) -> RunError:
    """What ended a program, as its guest told it."""
    line = failure.line or None
    if failure.kind == "memory":
        message = f"memory: the program needed more than {limits.memory >> 20} MiB of memory"
        return RunError("LimitExceeded", message, line, "limit", failure.traceback, "memory")
    kind = failure.kind if failure.kind in ("program", "syntax", "refused", "value", "deadlock") else "program"
    path = failure.path or None
    return RunError(failure.type, failure.message, line, kind, failure.traceback, path=path, hint=failure.hint)


def cause_of_death(code: int | None, failure: str | None) -> str:
    """Why a guest ended without an answer, told by its exit code (negative: a signal), or the failure to make it."""
    if code is None and failure:
        return f"no process could be made for the guest: {failure}"
    if code == -signal.SIGSYS:
        return "the guest was killed by its filter: the program made a system call that only an attack makes"
    if code == -signal.SIGKILL:
        return "the guest was killed from outside (SIGKILL): its sandbox was closed, or memory is short here"
    if code is None or code >= 0:
        return f"the guest ended without an answer (exit code {code})"
    name = signal.strsignal(-code) or f"signal {-code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
    return f"the guest crashed ({name}): out of memory, or too deep a recursion in C code"
