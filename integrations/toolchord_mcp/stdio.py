"""Owns the conversation with a server that is a child process: one JSON message a line, each of bounded size.

The SDK's own transport reads a line whatever its length, and takes 14 s for one of 50 MB; this one gives up on a line
past the limit, answers the call that it belonged to with an error, and goes on with the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
from asyncio.subprocess import Process
from collections import deque
from collections.abc import AsyncIterator

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import StdioServerParameters
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCMessage
from pydantic import ValidationError

from toolchord_mcp.errors import ConnectFailed
from toolchord_mcp.limits import Messages, Notes, refusal, too_large

log = logging.getLogger("toolchord_mcp.server")

_CHUNK = 1 << 18
_GRACE = 2.0
"""Seconds that a server has to end by itself, and again after SIGTERM."""

# Where a message's own id stands: right at its start, or as the last member of the whole object. In between it could
# be anybody's.
_ID_FIRST = re.compile(rb'\{"jsonrpc":\s?"2\.0",\s?"id":\s?(\d{1,18})\s?,')
_ID_LAST = re.compile(rb'"id":\s?(\d{1,18})\s?(?:,\s?"jsonrpc":\s?"2\.0"\s?)?\}\s*\Z')


@contextlib.asynccontextmanager
async def stdio(server: StdioServerParameters, max_bytes: int, notes: Notes) -> AsyncIterator[Messages]:
    """Start a server and talk to it; when the block ends, so do the server and its children.

    Args:
        server: the command.
        max_bytes: of one message.
        notes: keeps what helps to explain a failure: the end of stderr, lines that are no messages, the exit code.

    Raises:
        ConnectFailed: it can't be started.
    """
    environment = {**get_default_environment(), **(server.env or {})}
    try:
        process = await asyncio.create_subprocess_exec(
            server.command,
            *server.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=server.cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise ConnectFailed(f"{server.command!r} can't be started: {error}") from error
    into, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, out_of = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(_read(process, into, max_bytes, notes)),
        asyncio.create_task(_write(process, out_of)),
        asyncio.create_task(_listen(process, notes)),
    ]
    try:
        yield read, write
    finally:
        await _end(process)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (into, read, write, out_of):
            stream.close()


async def _read(
    process: Process, into: MemoryObjectSendStream[SessionMessage | Exception], max_bytes: int, notes: Notes
) -> None:
    """Hand over each line that is a message; the stream's end tells the session that the server is gone."""
    assert process.stdout is not None
    with into:
        async for line in _lines(process.stdout, max_bytes, notes):
            if isinstance(line, int):
                await into.send(SessionMessage(refusal(line, too_large(max_bytes))))
                continue
            try:
                message = JSONRPCMessage.model_validate_json(line)
            except ValidationError as error:
                found = _ID_FIRST.match(line[:200]) or _ID_LAST.search(line[-200:])
                if found:
                    reason = f"the answer can't be read: {error.errors()[0]['msg']}"
                    await into.send(SessionMessage(refusal(int(found[1]), reason)))
                elif line.strip():
                    notes.stray = bytes(line[:200]).decode(errors="replace").strip()
                    log.debug("not a message: %s", notes.stray)
                continue
            await into.send(SessionMessage(message))
        with contextlib.suppress(TimeoutError):
            notes.exit_code = await asyncio.wait_for(process.wait(), _GRACE)


async def _lines(stream: asyncio.StreamReader, max_bytes: int, notes: Notes) -> AsyncIterator[bytearray | int]:
    """Every line; of one that is too long, the number of the request that it answers, if it can be told."""
    line, head, tail, skipping = bytearray(), b"", b"", False
    while chunk := await stream.read(_CHUNK):
        pieces = chunk.split(b"\n")
        for number, piece in enumerate(pieces):
            if skipping:
                tail = (tail + piece)[-200:]
            elif len(line) + len(piece) > max_bytes:
                head, tail, skipping = bytes(line[:200] + piece[:200])[:200], bytes((line[-200:] + piece)[-200:]), True
                line = bytearray()
            else:
                line += piece
            if number == len(pieces) - 1:
                break
            if skipping:
                found = _ID_FIRST.match(head) or _ID_LAST.search(tail)
                if found:
                    yield int(found[1])
                else:
                    notes.stray = f"a line of more than {max_bytes:,} bytes"
                skipping = False
            else:
                yield line
                line = bytearray()


async def _write(process: Process, out_of: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert process.stdin is not None
    with out_of, contextlib.suppress(ConnectionError):  # who reads will learn that the server is gone
        async for message in out_of:
            text = message.message.model_dump_json(by_alias=True, exclude_none=True)
            process.stdin.write(text.encode() + b"\n")
            await process.stdin.drain()


async def _listen(process: Process, notes: Notes) -> None:
    """Keep the end of what the server writes to stderr."""
    assert process.stderr is not None
    kept: deque[str] = deque(maxlen=20)
    while chunk := await process.stderr.read(1 << 16):
        for line in chunk.decode(errors="replace").splitlines():
            log.debug("%s", line)
            kept.append(line[:500])
        notes.stderr = "\n".join(kept)


async def _end(process: Process) -> None:
    """End the server as the protocol says: close its input, then ask, then kill; and whatever it has started."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(asyncio.shield(process.wait()), _GRACE)
    except TimeoutError:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), _GRACE)
    finally:
        _signal(process, signal.SIGKILL)  # it leads a group of its own: its children go with it
    await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
