"""An MCP server that misbehaves on demand: bare JSON lines, no SDK, so that it can break every rule.

Its first argument is how it starts: "fine", or what it does wrong before anybody calls a tool. A file named by the
second argument counts its starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

RECURSIVE = {"type": "object", "properties": {"child": {"$ref": "#"}, "n": {"type": "integer"}}}
LOOP = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}
CIRCLE = {"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}, {"type": "null"}]}}}
BOMB = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/d40"}},
    "$defs": {
        "d0": {"type": "integer"},
        **{f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n - 1}"}] * 2} for n in range(1, 41)},
    },
}
WIDE = {"type": "object", "properties": {f"p{n}": {"$ref": "#"} for n in range(50)}}
ROWS = {"type": "object", "properties": {"rows": {"type": "array", "items": {"type": "integer"}}}, "required": ["rows"]}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


WRONG_TOOLS: list[Any] = [
    {"name": "no_schema"},
    {"name": "null_schema", "inputSchema": None},
    {"name": "text_schema", "inputSchema": {"type": "string"}},
    {"name": "list_properties", "inputSchema": {"type": "object", "properties": [1, 2]}},
    {"name": "wrong_type", "inputSchema": {"type": "object", "properties": {"a": {"type": "whatever"}}}},
    {"name": "wrong_required", "inputSchema": {"type": "object", "required": "a"}},
    {"name": "wrong_output", "inputSchema": {"type": "object"}, "outputSchema": {"type": "object", "properties": 3}},
    {"name": "deep", "inputSchema": nested(40)},
    {"name": "loop", "inputSchema": LOOP},
    {"name": "circle", "inputSchema": CIRCLE},
    {"name": "bomb", "inputSchema": BOMB},
    {"name": "huge", "inputSchema": {"type": "object", "description": "x" * 300_000}},
    {"name": "", "inputSchema": {"type": "object"}},
    {"name": "n" * 200, "inputSchema": {"type": "object"}},
    {"name": "twice", "inputSchema": {"type": "object"}},
    {"name": "twice", "inputSchema": {"type": "object"}},
    {"inputSchema": {"type": "object"}},
    "no tool at all",
    None,
]

_ANY = {"type": "object"}
_PLAIN = """
answer die die_quietly silent late_then_on cancelled big big_id_first many garbage odd_form no_content no_result
protocol_error no_structured image broken_image blob flood partial_death starts
""".split()

TOOLS: list[dict[str, Any]] = [
    *({"name": name, "inputSchema": _ANY} for name in _PLAIN),
    {"name": "empty", "inputSchema": {}},
    {"name": "wide", "inputSchema": WIDE, "outputSchema": WIDE},
    {"name": "recursive", "inputSchema": RECURSIVE, "outputSchema": RECURSIVE},
    {"name": "rows", "inputSchema": {"type": "object", "properties": {"value": {}}}, "outputSchema": ROWS},
    {"name": "unstructured", "inputSchema": _ANY, "outputSchema": ROWS},
    {"name": "add_tool", "inputSchema": _ANY},
    {"name": "given", "inputSchema": {"type": "object", "properties": {"x": {}}}},
    {
        "name": "wrapped",
        "inputSchema": _ANY,
        "outputSchema": {
            "type": "object",
            "properties": {"result": {"type": "array", "items": {"type": "integer"}}},
            "required": ["result"],
            "x-fastmcp-wrap-result": True,
        },
    },
]


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def send(message: dict[str, Any], *, id_last: bool = False) -> None:
    whole = {**message, "jsonrpc": "2.0"} if id_last else {"jsonrpc": "2.0", **message}
    write(json.dumps(whole, separators=(",", ":")) + "\n")


def answer(number: Any, result: Any) -> None:
    send({"id": number, "result": result})


def text(number: Any, *texts: str, **more: Any) -> None:
    answer(number, {"content": [{"type": "text", "text": one} for one in texts], **more})


class Server:
    def __init__(self, mode: str, starts: Path | None) -> None:
        self.mode = mode
        self.given_up: list[Any] = []
        self.late: list[Any] = []
        self.starts = 1
        if starts is not None:
            self.starts = int(starts.read_text()) + 1 if starts.exists() else 1
            starts.write_text(str(self.starts))

    def serve(self) -> None:
        if self.mode == "exits":
            print("ModuleNotFoundError: No module named 'whatever'", file=sys.stderr, flush=True)
            sys.exit(7)
        if self.mode == "talks":
            write("Welcome to my server!\n" * 3)
        for line in sys.stdin:
            message = json.loads(line)
            method, number, params = message.get("method"), message.get("id"), message.get("params") or {}
            if method == "initialize":
                self.initialize(number, params)
            elif method == "tools/list":
                self.list_tools(number, params)
            elif method == "tools/call":
                self.call(number, params)
            elif method == "notifications/cancelled":
                self.given_up.append([params["requestId"], params.get("reason")])

    def initialize(self, number: Any, params: dict[str, Any]) -> None:
        if self.mode in ("silent", "talks"):
            return
        if self.mode == "old":
            params["protocolVersion"] = "1999-12-31"
        if self.mode == "no form":
            answer(number, {"hello": "world"})
            return
        answer(
            number,
            {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {} if self.mode == "no tools" else {"tools": {"listChanged": True}},
                "serverInfo": {"name": "bad", "version": "1"},
            },
        )

    def list_tools(self, number: Any, params: dict[str, Any]) -> None:
        if self.mode == "list is silent":
            return
        if self.mode == "list is odd":
            answer(number, {"tools": "many"})
        elif self.mode == "list is deep":
            answer(number, {"tools": [{"name": "deep", "inputSchema": nested(200)}]})
        elif self.mode == "list has no end":
            answer(number, {"tools": [], "nextCursor": "again"})
        elif self.mode == "list fails":
            send({"id": number, "error": {"code": -32603, "message": "no list today"}})
        elif self.mode == "wrong tools":
            answer(number, {"tools": [*TOOLS, *WRONG_TOOLS]})
        elif self.mode == "pages":
            start = int(params.get("cursor") or 0)
            more = {"nextCursor": str(start + 10)} if start + 10 < len(TOOLS) else {}
            answer(number, {"tools": TOOLS[start : start + 10], **more})
        else:
            answer(number, {"tools": TOOLS})

    def call(self, number: Any, params: dict[str, Any]) -> None:
        name, arguments = params["name"], params.get("arguments") or {}
        token = (params.get("_meta") or {}).get("progressToken")
        handler = getattr(self, f"on_{name}", None)
        if handler is None:
            text(number, json.dumps(arguments))
            return
        if token is not None:
            send(
                {
                    "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": 1, "message": "begun"},
                }
            )
        handler(number, arguments)

    def on_answer(self, number: Any, arguments: Any) -> None:
        text(number, '{"looks": "like JSON"}')

    def on_die(self, number: Any, arguments: Any) -> None:
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(3)

    def on_die_quietly(self, number: Any, arguments: Any) -> None:
        os._exit(0)

    def on_partial_death(self, number: Any, arguments: Any) -> None:
        write(f'{{"jsonrpc":"2.0","id":{number},"result":{{"content":[{{"ty')
        os._exit(1)

    def on_silent(self, number: Any, arguments: Any) -> None:
        pass

    def on_late_then_on(self, number: Any, arguments: Any) -> None:
        """The first call is answered when the second one comes."""
        self.late.append(number)
        if len(self.late) == 2:
            for one in self.late:
                text(one, f"answer {one == number}")

    def on_cancelled(self, number: Any, arguments: Any) -> None:
        text(number, "", structuredContent={"given_up": self.given_up})

    def on_starts(self, number: Any, arguments: Any) -> None:
        text(number, "", structuredContent={"starts": self.starts})

    def on_big(self, number: Any, arguments: Any) -> None:
        content = [{"type": "text", "text": "x" * arguments.get("size", 50_000_000)}]
        send({"result": {"content": content}, "id": number}, id_last=arguments.get("id_last", True))

    on_big_id_first = on_big

    def on_many(self, number: Any, arguments: Any) -> None:
        """A thousand messages in one go, the answer in their midst."""
        note = json.dumps(
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
        )
        write((note + "\n") * 500)
        text(number, "in between")
        write((note + "\n") * 500)

    def on_flood(self, number: Any, arguments: Any) -> None:
        """A line without an end, until nobody reads any more."""
        with contextlib.suppress(BrokenPipeError):
            while True:
                write("x" * 1_000_000)

    def on_garbage(self, number: Any, arguments: Any) -> None:
        write('debug: here I am\n\n{"jsonrpc": \n[]\nnull\n{"a": 1}\n')
        os.write(1, b"\xff\xfe\x00broken\n")
        text(number, "after the garbage")

    def on_odd_form(self, number: Any, arguments: Any) -> None:
        answer(number, {"content": [{"type": "surprise"}]})

    def on_no_content(self, number: Any, arguments: Any) -> None:
        answer(number, {"content": []})

    def on_no_result(self, number: Any, arguments: Any) -> None:
        answer(number, {"content": None})

    def on_protocol_error(self, number: Any, arguments: Any) -> None:
        send({"id": number, "error": {"code": -32602, "message": "I don't like it"}})

    def on_no_structured(self, number: Any, arguments: Any) -> None:
        answer(number, {"content": [{"type": "text", "text": "no"}], "isError": True, "structuredContent": {"why": 7}})

    def on_rows(self, number: Any, arguments: Any) -> None:
        text(number, "see structuredContent", structuredContent=arguments["value"])

    def on_unstructured(self, number: Any, arguments: Any) -> None:
        text(number, '{"rows": [1]}')

    def on_wrapped(self, number: Any, arguments: Any) -> None:
        text(number, "[1, 2]", structuredContent={"result": [1, 2]})

    def on_recursive(self, number: Any, arguments: Any) -> None:
        text(number, "", structuredContent=arguments)

    def on_image(self, number: Any, arguments: Any) -> None:
        blocks = [{"type": "text", "text": "look"}, {"type": "image", "data": "AAH/", "mimeType": "image/png"}]
        answer(number, {"content": blocks})

    def on_broken_image(self, number: Any, arguments: Any) -> None:
        answer(number, {"content": [{"type": "image", "data": "!!!", "mimeType": "image/png"}]})

    def on_blob(self, number: Any, arguments: Any) -> None:
        resource = {"uri": "file:///x", "mimeType": "application/octet-stream", "blob": "AAH/"}
        answer(number, {"content": [{"type": "resource", "resource": resource}]})

    def on_given(self, number: Any, arguments: Any) -> None:
        text(number, "", structuredContent=arguments)

    def on_add_tool(self, number: Any, arguments: Any) -> None:
        global TOOLS
        TOOLS = [tool for tool in TOOLS if tool["name"] != "given"]
        TOOLS.append({"name": "new_one", "inputSchema": _ANY})
        changed = [{**tool, "description": "changed"} if tool["name"] == "answer" else tool for tool in TOOLS]
        TOOLS = changed
        send({"method": "notifications/tools/list_changed"})
        text(number, "added")


if __name__ == "__main__":
    Server(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None).serve()
