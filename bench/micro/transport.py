"""`python -m bench.micro.transport`: CPU per ext_proc stream of each transport, without Envoy and without decisions.

A server process runs one transport over a conversation that only echoes; this process replays recorded client bytes at it over loopback,
as a proxy would send them: HEADERS, request headers and body in one write; after the answer response headers, response body and the end.
The server reports its own CPU time. Transports take turns, so that a noisy neighbour meets them all.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import itertools
import pstats
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from bench.echo import Echo
from bench.micro.child import Helper

TRANSPORTS = ("grpcio", "h2")
_HEADER = struct.Struct(">HBBBI")
_DATA, _HEADERS, _RST_STREAM, _PING = 0, 1, 3, 6


# ---- the server process ------------------------------------------------------------------------------------------------------


async def _serve(name: str, port: int, profile: str | None) -> None:
    """Prints one line when it listens, and its CPU seconds for each line it reads."""
    from picker.extproc.health import Readiness
    from picker.extproc.transport import Served, Transport, TransportOptions
    from picker.metrics import Metrics

    targets = itertools.repeat(b"10.0.0.1:8000")
    converse: Any = lambda deliver: Echo(targets)  # noqa: E731 (a conversation in all but name)
    options = TransportOptions("127.0.0.1", port, port + 1, health_on_both=False, tls=None)
    served = Served(converse, Metrics(), Readiness())
    transport: Transport
    if name == "h2":
        from picker.extproc.transport_h2 import H2Transport

        transport = H2Transport(options, served)
    else:
        from picker.extproc.transport_grpcio import GrpcioTransport

        transport = GrpcioTransport(options, served)
    await transport.start()
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if not sys.stdin.readline():
            done.set()
        else:
            sys.stdout.write(f"{time.process_time()}\n")
            sys.stdout.flush()

    loop.add_reader(sys.stdin.fileno(), asked)
    loop.add_signal_handler(signal.SIGTERM, done.set)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    profiler = cProfile.Profile()
    if profile is not None:
        profiler.enable()
    await done.wait()
    if profile is not None:
        profiler.disable()
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(30)
    await transport.stop()


def ext_proc_messages(body_bytes: int) -> list[bytes]:
    """The ProcessingRequests of one HTTP exchange: two of the request, two of the response."""
    from picker.extproc.pb import ext_proc_pb2 as pb

    request, answer = pb.ProcessingRequest(), pb.ProcessingRequest()
    for name, value in (
        (":authority", "gateway.example.com"), (":path", "/v1/chat/completions"), (":method", "POST"), (":scheme", "https"),
        ("content-type", "application/json"), ("user-agent", "OpenAI/Python 3.54.0"), ("authorization", "Bearer " + "x" * 40),
        ("x-forwarded-proto", "https"), ("x-request-id", "0d7a3a3e-6a2a-4a57-9a0e-5f6b7a0f1c11"),
    ):  # fmt: skip
        request.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    for name, value in ((":status", "200"), ("content-type", "application/json"), ("content-length", "300")):
        answer.response_headers.headers.headers.add(key=name, raw_value=value.encode())
    body, rest = pb.ProcessingRequest(), pb.ProcessingRequest()
    body.request_body.body, body.request_body.end_of_stream = b"x" * body_bytes, True
    rest.response_body.body, rest.response_body.end_of_stream = b"y" * 300, True
    return [message.SerializeToString() for message in (request, body, answer, rest)]


# ---- the client --------------------------------------------------------------------------------------------------------------


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


class Recorded:
    """What a proxy sends for one stream, in two portions, for any stream id."""

    def __init__(self, messages: Sequence[bytes]) -> None:
        from hpack import Encoder

        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", "/envoy.service.ext_proc.v3.ExternalProcessor/Process"),
            (":authority", "picker"), ("te", "trailers"), ("content-type", "application/grpc"),
            ("x-envoy-internal", "true"), ("x-forwarded-for", "10.0.0.7"),
        ]  # fmt: skip
        encoder = Encoder()
        self.first_block = encoder.encode(headers, huffman=False)
        self.block = encoder.encode(headers, huffman=False)
        middle = len(messages) - 2
        self._portions = [[self._message(m) for m in messages[:middle]], [self._message(m) for m in messages[middle:]]]

    @staticmethod
    def _message(data: bytes) -> bytes:
        return b"\0" + struct.pack(">I", len(data)) + data

    def begin(self, stream_id: int) -> bytes:
        """Up to the end of the request body."""
        block = self.first_block if stream_id == 1 else self.block
        return _frame(_HEADERS, 4, stream_id, block) + b"".join([_frame(_DATA, 0, stream_id, m) for m in self._portions[0]])

    def finish(self, stream_id: int) -> bytes:
        """The response, and the end of the stream."""
        return b"".join([_frame(_DATA, 0, stream_id, m) for m in self._portions[1]]) + _frame(_DATA, 1, stream_id, b"")


class Client:
    """One connection with `concurrency` streams at any time."""

    def __init__(self, port: int, recorded: Recorded) -> None:
        self._recorded = recorded
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        window = (1 << 31) - 1
        settings = _frame(4, 0, 0, struct.pack(">HI", 4, window))
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + _frame(4, 1, 0, b""))
        self._window = 0
        self._next_id = 1
        self._buffer = b""

    def run(self, streams: int, concurrency: int) -> list[float]:
        """The duration of each stream in seconds."""
        begun: dict[int, float] = {}
        half: set[int] = set()
        durations: list[float] = []
        left = streams - concurrency
        out = [_frame(8, 0, 0, struct.pack(">I", (1 << 31) - 1 - 65_535))] if self._next_id == 1 else []
        out += [self._begin(begun) for _ in range(concurrency)]
        while len(durations) < streams:
            if out:
                self._socket.sendall(b"".join(out))
                out = []
            data = self._socket.recv(1 << 18)
            if not data:
                raise RuntimeError("the server has closed the connection")
            data = self._buffer + data
            at = 0
            while len(data) - at >= 9:
                high, low, kind, flags, stream_id = _HEADER.unpack_from(data, at)
                end = at + 9 + (high << 8 | low)
                if end > len(data):
                    break
                if kind == _DATA:
                    self._window += end - at - 9
                    if stream_id not in half:
                        half.add(stream_id)
                        out.append(self._recorded.finish(stream_id))
                if kind == _HEADERS and flags & 1:
                    durations.append(time.perf_counter() - begun.pop(stream_id))
                    if left > 0:
                        left -= 1
                        out.append(self._begin(begun))
                elif kind == _PING and not flags & 1:
                    out.append(_frame(_PING, 1, 0, data[at + 9 : end]))
                elif kind in (_RST_STREAM, 7) and (stream_id in begun or kind == 7):
                    raise RuntimeError(f"the server gave up: {data[at:end]!r}")
                at = end
            self._buffer = data[at:]
            if self._window > 1 << 20:
                out.append(_frame(8, 0, 0, struct.pack(">I", self._window)))
                self._window = 0
        return durations

    def _begin(self, begun: dict[int, float]) -> bytes:
        stream_id = self._next_id
        self._next_id += 2
        begun[stream_id] = time.perf_counter()
        return self._recorded.begin(stream_id)


class Server(Helper):
    """The child process, which listens on `port`."""

    def __init__(self, name: str, profile: bool) -> None:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            self.port = int(first.getsockname()[1])
        super().__init__("bench.micro.transport", "--serve", name, "--port", str(self.port), *(["--profile"] if profile else []))
        self.line()

    def cpu_s(self) -> float:
        """Spent so far."""
        return float(self.ask())


class Result(NamedTuple):
    """Per stream."""

    cpu_us: float
    streams_per_s: float
    p50_ms: float
    p99_ms: float


def measure(client: Client, server: Server, streams: int, concurrency: int) -> Result:
    """One round."""
    cpu, started = server.cpu_s(), time.perf_counter()
    durations = sorted(client.run(streams, concurrency))
    elapsed = time.perf_counter() - started
    spent = server.cpu_s() - cpu
    return Result(
        spent / streams * 1e6, streams / elapsed, durations[len(durations) // 2] * 1e3, durations[len(durations) * 99 // 100] * 1e3
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro.transport", description=__doc__, allow_abbrev=False)
    parser.add_argument("--streams", type=int, default=3_000, metavar="N", help="per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32, 128], metavar="N", help="(default: 1 32 128)")
    parser.add_argument("--body", type=int, default=2_000, metavar="BYTES", help="request body (default: %(default)s)")
    parser.add_argument("--only", choices=TRANSPORTS)
    parser.add_argument("--profile", action="store_true", help="print where the server's time goes")
    parser.add_argument("--serve", choices=TRANSPORTS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.serve:
        import uvloop

        uvloop.run(_serve(flags.serve, flags.port, "tottime" if flags.profile else None))
        return 0
    recorded = Recorded(ext_proc_messages(flags.body))
    names = [flags.only] if flags.only else list(TRANSPORTS)
    servers = {name: Server(name, flags.profile) for name in names}
    try:
        clients = {name: Client(server.port, recorded) for name, server in servers.items()}
        for client in clients.values():
            client.run(300, 8)
        sys.stdout.write("transport   c     CPU us/stream   streams/s     p50 ms     p99 ms   (medians)\n")
        for concurrency in flags.concurrency:
            rounds: dict[str, list[Result]] = {name: [] for name in names}
            for _ in range(flags.rounds):
                for name in names:
                    rounds[name].append(measure(clients[name], servers[name], flags.streams, concurrency))
            for name in names:
                middle = Result(*[median(values) for values in zip(*rounds[name], strict=True)])
                sys.stdout.write(f"{name:9} {concurrency:4} {middle.cpu_us:14.1f} {middle.streams_per_s:12.0f}")
                sys.stdout.write(f" {middle.p50_ms:10.3f} {middle.p99_ms:10.3f}\n")
                sys.stdout.flush()
    finally:
        for server in servers.values():
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
