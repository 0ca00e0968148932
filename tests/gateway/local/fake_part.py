"""A stand-in for every process of the local stack: `python -m tests.gateway.local.fake_part PORT [WAY]`.

WAY is `serve` (the default), `stubborn` (ignores SIGTERM), `die` (exits at once with 7), `die-later` (exits with 7 at the
first chat request) or `deaf` (runs without listening).
"""

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HOST = {"health_status": {"eds_health_status": "HEALTHY"}}
LOAD = {"waiting": 1, "running": 2, "kv_usage": 0.25, "in_flight_requests": 3}


def decision(request_id: str) -> dict[str, object]:
    """A record as the picker writes it."""
    return {
        "request_id": request_id,
        "model": "demo-model",
        "target_model": "demo-model",
        "path": "/v1/chat/completions",
        "time_unix_s": 0.0,
        "duration_us": 87.5,
        "profile": "default",
        "candidates": ["default/sim-0", "default/sim-1"],
        "addresses": ["10.0.0.1:8001", "10.0.0.2:8001"],
        "filtered": [{"endpoint": "10.0.0.3:8001", "by": "load-filter", "reason": "too busy"}],
        "scorers": [
            {"name": "queue", "type": "queue-scorer", "weight": 2.0, "scores": [0.25, 1.0]},
            {"name": "kv", "type": "kv-cache-utilization-scorer", "weight": 1.0, "scores": [0.5, 0.75]},
        ],
        "totals": [1.0, 2.75],
        "picked": ["10.0.0.2:8001"],
        "served": "10.0.0.2:8001",
        "cause": "completed",
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "ttft_s": 0.025,
    }


class Handler(BaseHTTPRequestHandler):
    """Answers as simulator, picker and Envoy at once."""

    way = "serve"

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/clusters":
            self._send(json.dumps({"cluster_statuses": [{"name": "picker", "host_statuses": [HOST]}]}).encode())
        elif url.path == "/debug/decisions":
            self._send(json.dumps({"decisions": [decision(parse_qs(url.query)["request_id"][0])]}).encode())
        elif url.path == "/debug/endpoints":
            self._send(json.dumps({"endpoints": [{"address": "127.0.0.1:1", **LOAD}]}).encode())
        else:
            self._send(b"ok")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.way == "die-later":
            sys.stderr.write("about to fall over\n")
            os._exit(7)
        events: list[dict[str, object]] = [{"choices": [{"delta": {"role": "assistant"}}]}]
        events += [{"choices": [{"delta": {"content": text}}]} for text in ("It ", "routes ", "requests.")]
        events.append({"choices": [], "usage": {"completion_tokens": 3}})
        self._send("".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n")


def main() -> None:
    """Run as told by the command line."""
    port, way = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "serve"
    if way == "die":
        sys.stderr.write("cannot find the model\n")
        sys.exit(7)
    if way == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if way == "deaf":
        threading.Event().wait()
    Handler.way = way
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
