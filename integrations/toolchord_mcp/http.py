"""Owns the conversation with a server over streamable HTTP: the SDK's transport, on a client that bounds what it reads.

The SDK waits for ever for an answer whose stream breaks off, and one failing request ends its session. So every request
that can't come to an answer (too large, cut off, an HTTP error, no connection) is answered here with a JSON-RPC error.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
from mcp.client.streamable_http import streamable_http_client

from toolchord_mcp.limits import REFUSED, UNREACHED, Messages, refusal, too_large

_TIMEOUT = httpx.Timeout(30.0, read=None)
"""Seconds to connect and to send; how long an answer may take is for the call to say."""


@contextlib.asynccontextmanager
async def streamable_http(url: str, headers: Mapping[str, str], max_bytes: int) -> AsyncIterator[Messages]:
    """Talk to the server at a URL.

    Args:
        url: its endpoint.
        headers: sent with every request, such as an Authorization.
        max_bytes: of one message.
    """
    client = BoundedClient(max_bytes, headers={**headers, "Accept-Encoding": "identity"}, timeout=_TIMEOUT)
    async with client, streamable_http_client(url, http_client=client) as (read, write, _):
        yield read, write


class BoundedClient(httpx.AsyncClient):
    """An HTTP client for `streamable_http_client` that reads no message of more than `max_bytes`.

    The other arguments are those of `httpx.AsyncClient`; pass `auth` for OAuth.
    """

    def __init__(self, max_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        self._max_bytes = max_bytes

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request; one that asks something is always answered."""
        number = _asked(request)
        try:
            response = await super().send(request, **options)
        except httpx.HTTPError as error:
            if number is None:
                raise
            return _answered(request, number, f"{type(error).__name__}: {error}".rstrip(": "), UNREACHED)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if number is not None and (refused := await _no_answer(response, kind)):
            await response.aclose()
            return _answered(request, number, *refused)
        if isinstance(response.stream, httpx.AsyncByteStream):
            sse = kind == "text/event-stream"
            response.stream = _Bounded(response.stream, self._max_bytes, number, sse=sse)
        return response


def _asked(request: httpx.Request) -> int | None:
    """The number of the request in a POST; None for a notification and for other methods."""
    if request.method != "POST":
        return None
    try:
        message = json.loads(request.content)
    except ValueError:
        return None
    number = message.get("id") if isinstance(message, dict) and "method" in message else None
    return number if isinstance(number, int) else None


async def _no_answer(response: httpx.Response, kind: str) -> tuple[str, int] | None:
    """Why a response holds no answer, and the code of the error; None if it may hold one."""
    if response.status_code == 404 or response.is_redirect:
        return None  # the session has ended, or the SDK follows it
    if response.is_error:
        start = b""
        with contextlib.suppress(httpx.HTTPError):
            async for chunk in response.aiter_raw():
                start += chunk
                if len(start) > 500:
                    break
        text = start[:500].decode(errors="replace").strip()
        return (
            f"HTTP {response.status_code} {response.reason_phrase}{f': {text}' if text else ''}",
            response.status_code,
        )
    if response.status_code != 202 and kind not in ("application/json", "text/event-stream"):
        return f"content of type {kind or 'none'} is no answer; is this the URL of an MCP endpoint?", REFUSED
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        return "the server compresses its answer though it was asked not to", REFUSED
    return None


def _answered(request: httpx.Request, number: int, reason: str, code: int) -> httpx.Response:
    body = refusal(number, reason, code).model_dump_json(by_alias=True, exclude_none=True)
    return httpx.Response(200, headers={"content-type": "application/json"}, content=body, request=request)


class _Bounded(httpx.AsyncByteStream):
    """A body of bounded messages, which ends with an error of ours where it would end without an answer."""

    def __init__(self, inner: httpx.AsyncByteStream, max_bytes: int, number: int | None, *, sse: bool) -> None:
        self._inner = inner
        self._max_bytes = max_bytes
        self._number = number
        self._sse = sse

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._sse:
            async for chunk in self._events():
                yield chunk
            return
        whole = bytearray()
        reason, code = "", UNREACHED
        try:
            async for chunk in self._inner:
                whole += chunk
                if len(whole) > self._max_bytes:
                    reason, code = too_large(self._max_bytes), REFUSED
                    break
        except httpx.HTTPError as error:
            reason = f"the answer broke off: {type(error).__name__}"
        if not reason and self._number is not None and not _is_json(whole):
            reason, code = "the answer is no JSON", REFUSED
        if not reason or self._number is None:
            yield bytes(whole[: self._max_bytes])
        else:
            yield refusal(self._number, reason, code).model_dump_json(by_alias=True, exclude_none=True).encode()

    async def _events(self) -> AsyncIterator[bytes]:
        size, resumable, last = 0, False, b""
        reason, code = "the connection ended before the answer came", UNREACHED
        try:
            async for chunk in self._inner:
                seen = last + chunk
                resumable = resumable or b"\nid:" in seen or seen.startswith(b"id:")
                blank = max(seen.rfind(b"\n\n"), seen.rfind(b"\r\n\r\n"))
                size = len(seen) - blank if blank >= 0 else size + len(chunk)
                if size > self._max_bytes:
                    reason, code, resumable = too_large(self._max_bytes), REFUSED, False
                    break
                last = seen[-3:]
                yield chunk
        except httpx.HTTPError:
            pass
        if self._number is not None and not resumable:  # if the answer was there, nobody reads this
            body = refusal(self._number, reason, code).model_dump_json(by_alias=True, exclude_none=True)
            yield f"\n\nevent: message\ndata: {body}\n\n".encode()

    async def aclose(self) -> None:
        await self._inner.aclose()


def _is_json(body: bytearray) -> bool:
    return body.lstrip()[:1] == b"{"
