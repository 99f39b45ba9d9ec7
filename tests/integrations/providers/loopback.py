"""An HTTP server on loopback whose answers, streams and accidents a test decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Refused(Exception):
    """The request breaks a rule: the status and body to answer with."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(json.dumps(body))
        self.status = status
        self.body = body


@dataclass
class Sent:
    """An answer: a JSON body, or the events of a stream, which breaks off after `cut` of them, or ends after `end`."""

    body: dict[str, Any] | None = None
    events: Iterable[tuple[str | None, dict[str, Any] | str]] = ()
    drop: bool = False
    cut: int | None = None
    end: int | None = None


@dataclass
class Loopback:
    """Serves requests with `answer(path, headers, body)`; a context manager. Every request's body is kept."""

    answer: Callable[[str, dict[str, str], dict[str, Any] | None], Sent]
    requests: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    defects: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Loopback:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._serve(self, None)

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                outer._serve(self, json.loads(raw))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert not self.defects, self.defects

    def _serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any] | None) -> None:
        handler.close_connection = True
        try:
            with self._lock:
                if body is not None:
                    self.requests.append(body)
                sent = self.answer(handler.path, {k.lower(): v for k, v in handler.headers.items()}, body)
        except Refused as refused:
            self.refusals.append(str(refused))
            return _write(handler, refused.status, refused.body)
        except BaseException as defect:
            self.defects.append(defect)
            return _write(handler, 418, {"error": {"type": "defect", "message": repr(defect)}})
        if sent.drop:
            return
        if sent.body is not None:
            return _write(handler, 200, sent.body)
        _stream(handler, sent)


def ending(accident: str | int | None) -> int | None:
    """The number of an accident that is written as "end 3"."""
    return int(accident[4:]) if isinstance(accident, str) and accident.startswith("end ") else None


def _write(handler: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(data)))
    handler.send_header("connection", "close")
    handler.end_headers()
    handler.wfile.write(data)


def _stream(handler: BaseHTTPRequestHandler, sent: Sent) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("transfer-encoding", "chunked")
    handler.send_header("connection", "close")
    handler.end_headers()
    for number, (name, data) in enumerate(sent.events):
        if number == sent.cut:
            return
        if number == sent.end:
            break
        text = data if isinstance(data, str) else json.dumps(data)
        event = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
        raw = event.encode()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
        handler.wfile.flush()
    handler.wfile.write(b"0\r\n\r\n")
