"""A small server that speaks OpenAI's chat completions, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "test-coder"


@dataclass(frozen=True)
class Reply:
    """What the server sends. `declared` is the length that it promises.

    `stalls` keeps it from sending anything; one that `drips` sends a byte now and then, and never ends.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    declared: int | None = None
    stalls: bool = False
    drips: bool = False


def says(text: str, *, finish: str = "stop", tokens: tuple[int, int] | None = (1000, 500)) -> Reply:
    """A completion."""
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
    }
    if tokens is not None:
        given, written = tokens
        body["usage"] = {"prompt_tokens": given, "completion_tokens": written, "total_tokens": given + written}
    return Reply(body=json.dumps(body).encode())


def fails(status: int, message: str = "no", **headers: str) -> Reply:
    """An error as OpenAI's servers word it."""
    body = json.dumps({"error": {"message": message, "type": "test", "code": None}}).encode()
    return Reply(status, body, tuple((name.replace("_", "-"), value) for name, value in headers.items()))


@dataclass
class Server:
    """A running server: its model's name, and what it was asked so far."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def model(self) -> str:
        return f"openai@{self.url}:{MODEL}"

    def prompt(self, number: int = -1) -> str:
        """All that a request held, as one text."""
        return "\n".join(message["content"] for message in self.asked[number]["messages"])


@contextmanager
def serving(script: Sequence[Reply] | Callable[[str], Reply]) -> Iterator[Server]:
    """Serve the replies in turn, the last one again and again; or what a function makes of the prompt."""
    lock, over = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                server.asked.append(request)
                server.keys.append(self.headers.get("authorization", ""))
                number = len(server.asked) - 1
            reply = script(server.prompt(number)) if callable(script) else script[min(number, len(script) - 1)]
            if reply.stalls:
                over.wait(60)
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(reply.body) if reply.declared is None else reply.declared))
            self.end_headers()
            self.wfile.write(reply.body)
            while reply.drips and not over.wait(0.02):
                self.wfile.write(b" ")
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # The client may give up waiting, which is what some tests are about.
                super().handle()

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server = Server(f"http://127.0.0.1:{httpd.server_address[1]}/v1")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        over.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()
