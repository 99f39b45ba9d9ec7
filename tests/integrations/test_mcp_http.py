# ruff: noqa: E501  (a program is kept on one line)
"""Tools of MCP servers over HTTP: a server that breaks off, floods, redirects, forgets; over real sockets."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from toolchord import CodeSandbox, Limits
from toolchord_mcp import ConnectFailed, ServerError, ServerTimeout, connect

NAMES = """
plain events fails forbidden page cut cut_json big big_events packed no_json empty reset away forget silent given_up
bomb
""".split()


class Web(ThreadingHTTPServer):
    """What one test's requests share."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Endpoint)
        self.sessions: set[str] = set()
        self.started = 0
        self.given_up: list[int] = []
        self.closing = threading.Event()
        self.gone = False
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/mcp"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class Endpoint(BaseHTTPRequestHandler):
    server: Web
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        self.reply(405, "text/plain", b"")

    def do_DELETE(self) -> None:
        self.reply(200, "text/plain", b"")

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.gone:
            self.close_connection = True
            return
        if self.path != "/mcp":
            self.reply(404, "text/plain", b"no such page")
            return
        method, number, params = message["method"], message.get("id"), message.get("params") or {}
        if method == "initialize":
            self.server.started += 1
            self.server.headers = dict(self.headers.items())
            session = f"session-{self.server.started}"
            self.server.sessions.add(session)
            self.answer(
                number,
                {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "web", "version": "1"},
                },
                {"mcp-session-id": session},
            )
        elif self.headers.get("mcp-session-id") not in self.server.sessions:
            self.reply(404, "text/plain", b"unknown session")
        elif number is None:
            if method == "notifications/cancelled":
                self.server.given_up.append(params["requestId"])
            self.reply(202, "text/plain", b"")
        elif method == "tools/list":
            self.answer(number, {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]})
        else:
            getattr(self, f"on_{params['name']}")(number)

    def reply(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def answer(self, number: Any, result: Any, headers: dict[str, str] | None = None) -> None:
        self.reply(200, "application/json", self.message(number, result), headers)

    @staticmethod
    def message(number: Any, result: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()

    def text(self, number: Any, text: str = "fine") -> bytes:
        return self.message(number, {"content": [{"type": "text", "text": text}]})

    def events(self, *chunks: bytes) -> None:
        """A stream that ends when it ends."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(chunk)
        self.close_connection = True

    # the tools

    def on_plain(self, number: Any) -> None:
        self.reply(200, "application/json", self.text(number))

    def on_events(self, number: Any) -> None:
        self.events(b": a comment\n\n", b"event: message\ndata: " + self.text(number) + b"\n\n")

    def on_fails(self, number: Any) -> None:
        self.reply(500, "text/plain", b"the database is on fire")

    def on_forbidden(self, number: Any) -> None:
        self.reply(401, "text/plain", b"who are you?")

    def on_page(self, number: Any) -> None:
        self.reply(200, "text/html", b"<html>hello</html>")

    def on_cut(self, number: Any) -> None:
        self.events(b"event: message\ndata: " + self.text(number)[:20])

    def on_cut_json(self, number: Any) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "10000")
        self.end_headers()
        self.wfile.write(self.text(number)[:20])
        self.close_connection = True

    def on_big(self, number: Any) -> None:
        self.reply(200, "application/json", self.text(number, "x" * 50_000_000))

    def on_big_events(self, number: Any) -> None:
        small = b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":'
        small += b'{"level":"info","data":"' + b"x" * 1000 + b'"}}\n\n'
        self.events(small * 100, b"event: message\ndata: " + self.text(number, "x" * 50_000_000) + b"\n\n")

    def on_packed(self, number: Any) -> None:
        body = gzip.compress(self.text(number))
        self.reply(200, "application/json", body, {"content-encoding": "gzip"})

    def on_bomb(self, number: Any) -> None:
        body = gzip.compress(b" " * 100_000_000)
        self.reply(200, "application/json", body, {"content-encoding": "gzip"})

    def on_no_json(self, number: Any) -> None:
        self.reply(200, "application/json", b"fine")

    def on_empty(self, number: Any) -> None:
        self.reply(200, "application/json", b"")

    def on_reset(self, number: Any) -> None:
        self.close_connection = True

    def on_away(self, number: Any) -> None:
        self.reply(302, "text/plain", b"", {"location": "http://127.0.0.1:1/elsewhere"})

    def on_forget(self, number: Any) -> None:
        self.server.sessions.clear()
        self.reply(200, "application/json", self.text(number, "forgotten"))

    def on_silent(self, number: Any) -> None:
        self.server.closing.wait(60)

    def on_given_up(self, number: Any) -> None:
        self.reply(200, "application/json", self.text(number, str(len(self.server.given_up))))


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    with CodeSandbox(limits=Limits(wall_time=60)) as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("call", "kind", "why"),
    [
        ("fails", "RequestFailed", "HTTP 500 Internal Server Error: the database is on fire"),
        ("forbidden", "RequestFailed", "HTTP 401 Unauthorized: who are you?"),
        ("page", "BadAnswer", "content of type text/html"),
        ("cut", "ServerLost", "the connection ended before the answer came"),
        ("cut_json", "ServerLost", "broke off"),
        ("big", "BadAnswer", "larger than 16,777,216 bytes"),
        ("big_events", "BadAnswer", "larger than 16,777,216 bytes"),
        ("packed", "BadAnswer", "compresses its answer"),
        ("bomb", "BadAnswer", "compresses its answer"),
        ("no_json", "BadAnswer", "no JSON"),
        ("empty", "BadAnswer", "no JSON"),
        ("reset", "ServerLost", "RemoteProtocolError"),
        ("away", "ServerLost", "/elsewhere"),
    ],
)
async def test_an_answer_that_does_not_come_is_a_typed_error_and_the_next_one_comes(
    sandbox: CodeSandbox, web: Web, call: str, kind: str, why: str
) -> None:
    async with connect(web.url) as connection:
        code = f"try:\n    await {call}()\nexcept Exception as error:\n    return type(error).__name__, str(error), await plain(), await events()"
        result = await sandbox.execute(code, connection.registry)
        assert result.ok, result.for_model()
        name, message, *fine = result.value
        assert (name, fine) == (kind, ["fine", "fine"])
        assert why in message


async def test_a_session_that_the_server_forgot_is_made_anew_and_the_call_is_repeated(
    sandbox: CodeSandbox, web: Web
) -> None:
    async with connect(web.url) as connection:
        result = await sandbox.execute("return await forget(), await plain()", connection.registry)
        assert result.value == ("forgotten", "fine"), result.for_model()
        assert web.started == 2


async def test_silence_is_a_typed_error_and_the_server_is_told(sandbox: CodeSandbox, web: Web) -> None:
    async with connect(web.url, timeout=2.0) as connection:
        code = (
            "try:\n    await silent()\nexcept TimeoutError as error:\n    return type(error).__name__, await given_up()"
        )
        result = await sandbox.execute(code, connection.registry)
        assert result.value == ("ServerTimeout", "1"), result.for_model()


async def test_headers_go_with_every_request(web: Web) -> None:
    async with connect({"url": web.url, "headers": {"Authorization": "Bearer abc"}}):
        assert web.headers["Authorization"] == "Bearer abc"


async def test_a_url_without_a_server_is_a_typed_error(web: Web) -> None:
    with pytest.raises(ConnectFailed, match="HTTP 404: there is no MCP endpoint"):
        async with connect(web.url.replace("/mcp", "/other")):
            pass
    with pytest.raises(ConnectFailed, match="ConnectError"):
        async with connect("http://127.0.0.1:1/mcp"):
            pass


async def test_a_server_that_is_gone_is_a_typed_error_and_found_again(sandbox: CodeSandbox) -> None:
    with Web() as first:
        threading.Thread(target=first.serve_forever, kwargs={"poll_interval": 0.01}).start()
        port = first.server_address[1]
        connection = connect(first.url, timeout=20.0)
        await connection.__aenter__()
        first.shutdown()
        first.gone = True
    try:
        result = await sandbox.execute("return await plain()", connection.registry)
        assert result.error is not None
        assert result.error.type in ("ConnectFailed", "ServerLost")

        class SamePort(Web):
            def server_bind(self) -> None:
                self.server_address = ("127.0.0.1", port)
                super().server_bind()

        with SamePort() as second:
            threading.Thread(target=second.serve_forever, kwargs={"poll_interval": 0.01}).start()
            result = await sandbox.execute("return await plain()", connection.registry)
            assert result.value == "fine", result.for_model()
            second.shutdown()
    finally:
        await connection.__aexit__(None, None, None)


def test_the_errors_are_of_one_tree() -> None:
    assert issubclass(ServerTimeout, ServerError)
    assert issubclass(ServerTimeout, TimeoutError)
