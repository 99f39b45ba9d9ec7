"""Owns what a client is told while a program runs: its calls and what it prints, as progress notifications."""

from __future__ import annotations

import asyncio

from mcp import types
from mcp.server.session import ServerSession

from toolchord import CallRecord, Output
from toolchord.results import shorten, shown

_LONGEST = 2_000
"""Characters of one notification."""


class ProgressReport:
    """Tells a client of a run; an async context manager, whose end waits until all is told.

    What happens while a notification is under way goes into the next one together: a slow client is not flooded.

    Args:
        session: the session with the client.
        request: the id of the request that runs the program.
        token: the client's token; None if it did not ask to be told.
    """

    def __init__(self, session: ServerSession, request: types.RequestId, token: str | int | None) -> None:
        self._session = session
        self._request = request
        self._token = token
        self._lines: list[str] = []
        self._begun = ""
        self._events = 0
        self._printed = self._told = 0
        self._news = asyncio.Event()
        self._ended = False
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ProgressReport:
        if self._token is not None:
            self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._sender is None:
            return
        self._end_line()
        self._ended = True
        self._news.set()
        if kind is not None:
            self._sender.cancel()
        await asyncio.gather(self._sender, return_exceptions=True)

    def restart(self) -> None:
        """The program runs again from its journal: what it prints once more is not told once more."""
        self._printed = 0

    def watch(self, news: Output | CallRecord) -> None:
        """One thing that happened; see `CodeSandbox.execute`."""
        if isinstance(news, Output):
            new = self._printed + len(news.text) - self._told
            self._printed += len(news.text)
            if new <= 0:
                return
            self._told = self._printed
            self._begun += news.text[-new:]  # print writes in pieces
            *lines, self._begun = self._begun.split("\n")
            for line in lines:
                self._tell(line)
            if len(self._begun) > _LONGEST:
                self._end_line()
        elif not news.replayed:
            self._end_line()
            self._tell(_line(news))

    def _end_line(self) -> None:
        if self._begun:
            self._tell(self._begun)
            self._begun = ""

    def _tell(self, line: str) -> None:
        if self._sender is not None:
            self._events += 1
            self._lines.append(line)
            self._news.set()

    async def _send(self) -> None:
        assert self._token is not None
        while not (self._ended and not self._lines):
            await self._news.wait()
            self._news.clear()
            if not self._lines:
                continue
            text, self._lines = "\n".join(self._lines), []
            await self._session.send_progress_notification(
                self._token,
                self._events,
                message=shorten(text, _LONGEST),
                related_request_id=str(self._request),
            )


def _line(call: CallRecord) -> str:
    if call.status == "running":
        given = ", ".join(f"{name}={shorten(shown(value), 80)}" for name, value in call.arguments.items())
        return f"call {call.id}: {call.tool}({shorten(given, 300)})"
    if call.status == "paused":
        return f"call {call.id}: {call.tool} waits"
    if call.error is not None:
        return f"call {call.id}: {call.tool} failed: {call.error[0]}: {shorten(call.error[1], 200)}"
    return f"call {call.id}: {call.tool} {call.status}, {call.duration * 1000:.0f} ms"
