"""A model server that answers what it was asked: every header line, and what the body was. In a thread of its own."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a model server might say that only the picker may.
FORGED = {
    "x-gateway-destination-endpoint": "203.0.113.1:1",
    "x-gateway-destination-endpoint-served": "203.0.113.1:1",
    "x-llm-d-request-dropped-reason": "evicted",
}

SHOWN_BYTES = 10_000


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body in one packet each would otherwise wait for each other.
    disable_nagle_algorithm = True

    def _body(self) -> tuple[bytes, list[str]]:
        """The body and the trailer lines."""
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0))), []
        chunks: list[bytes] = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        trailers: list[str] = []
        while line := self.rfile.readline().strip():
            trailers.append(line.decode("latin-1"))
        return b"".join(chunks), trailers

    def _answer(self) -> None:
        if self.path == "/metrics":
            # No metrics page: the picker takes the server for alive and idle.
            self.send_response(404)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body, trailers = self._body()
        told = {
            "method": self.command,
            "path": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "size": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "text": body.decode("latin-1") if len(body) <= SHOWN_BYTES else None,
            "trailers": trailers,
        }
        content = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        for value in ("one", "two", "three=3"):
            self.send_header("set-cookie", value)
        for name, value in FORGED.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@contextmanager
def echo_server() -> Iterator[str]:
    """Serves on a free port; yields `host:port`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="echo", daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
