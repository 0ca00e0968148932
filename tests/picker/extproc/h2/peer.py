"""An `h2` client wired to the sans-IO connection, and calls that write down what happens to them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.settings

from picker.extproc.h2.call import Responder
from picker.extproc.h2.connection import Connection
from picker.extproc.h2.limits import Limits
from picker.extproc.h2.status import Status, StatusError

ECHO = "/test.Echo/Echo"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def message(data: bytes, flag: int = 0) -> bytes:
    """With its gRPC prefix."""
    return struct.pack(">BI", flag, len(data)) + data


def request(path: str = ECHO, **more: str) -> list[tuple[str, str]]:
    """The headers of a gRPC request."""
    base = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers")]
    headers = {"content-type": "application/grpc", **{name.replace("_", "-"): value for name, value in more.items()}}
    return [*base, *headers.items()]


class EchoCall:
    """Answers each message with itself. `finish` and `fail` end it, `push` is answered later, `boom` raises."""

    def __init__(self, calls: Calls, responder: Responder) -> None:
        self.calls = calls
        self.responder = responder
        self.received: list[bytes] = []
        self.ends: list[Status] = []
        self.finished = False

    def message(self, data: bytes) -> Sequence[bytes]:
        self.received.append(data)
        if data == b"finish":
            self.finished = True
        elif data == b"fail":
            raise StatusError(Status.INVALID_ARGUMENT, "ungültig 100%")
        elif data == b"boom":
            raise RuntimeError("a bug")
        elif data.startswith(b"make "):
            return (b"x" * int(data[5:]),)
        return (data,)

    def half_closed(self) -> bool:
        return True

    def end(self, status: Status) -> None:
        self.ends.append(status)


@dataclass
class Calls:
    """All calls of one server."""

    made: list[EchoCall] = field(default_factory=list)

    def __call__(self, responder: Responder) -> EchoCall:
        call = EchoCall(self, responder)
        self.made.append(call)
        return call

    @property
    def ends(self) -> list[list[Status]]:
        return [call.ends for call in self.made]


@dataclass
class Answer:
    """What a client saw of one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int | None:
        found = {**self.headers, **self.trailers}.get("grpc-status")
        return None if found is None else int(found)

    @property
    def messages(self) -> list[bytes]:
        found, at = [], 0
        while at < len(self.body):
            (length,) = struct.unpack_from(">I", self.body, at + 1)
            found.append(self.body[at + 5 : at + 5 + length])
            at += 5 + length
        return found


class Pair:
    """A client and the server connection, joined without a socket. `now_s` is the time."""

    def __init__(self, limits: Limits | None = None, *, settings: dict[int, int] | None = None, auto_window: bool = True) -> None:
        self.calls = Calls()
        self.now_s = 1000.0
        self.woken = 0
        self.server = Connection({ECHO.encode(): self.calls}, limits or Limits(), self.now_s, self._wake)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.auto_window = auto_window
        self.answers: dict[int, Answer] = {}
        self.events: list[h2.events.Event] = []
        self.goaway: h2.events.ConnectionTerminated | None = None
        self.server_bytes = b""
        self.writes: list[bytes] = []
        if settings:
            self.client.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.client.initiate_connection()
        self.pump()

    def _wake(self) -> None:
        self.woken += 1

    def pump(self) -> None:
        """Until neither side has anything to say."""
        while True:
            if data := self.client.data_to_send():
                self.server.receive(data, self.now_s)
            if not self.read() and not self.server.backlogged:
                return

    def read(self) -> bytes:
        """What the server has to say, told to the client."""
        data = self.server.take()
        if data:
            self.writes.append(data)
            for event in self.client.receive_data(data):
                self._event(event)
        return data

    def raw(self, data: bytes) -> bytes:
        """Bytes that the client library would not send; the server's answer, not shown to the client."""
        self.server.receive(data, self.now_s)
        answer = b""
        while part := self.server.take():
            answer += part
        return answer

    def _event(self, event: h2.events.Event) -> None:
        self.events.append(event)
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event
            return
        stream_id = getattr(event, "stream_id", None)
        if not stream_id:
            return
        answer = self.answers.setdefault(stream_id, Answer())
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = dict(event.headers or ())
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers or ())
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data or b""
            if self.auto_window and event.flow_controlled_length:
                self.client.acknowledge_received_data(event.flow_controlled_length, stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code or 0)

    def open(self, *messages: bytes, end: bool = False, headers: list[tuple[str, str]] | None = None) -> int:
        """A stream with these messages; its id."""
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(stream_id, headers or request(), end_stream=end and not messages)
        self.say(stream_id, *messages, end=end and bool(messages))
        return stream_id

    def say(self, stream_id: int, *messages: bytes, end: bool = False) -> None:
        """More messages on it."""
        data = b"".join([message(m) for m in messages])
        if data or end:
            self.send(stream_id, data, end=end)
        self.pump()

    def send(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Bytes of the body in frames that fit."""
        size = self.client.max_outbound_frame_size
        while len(data) > size or len(data) > self.client.local_flow_control_window(stream_id):
            room = min(size, self.client.local_flow_control_window(stream_id))
            assert room > 0
            self.client.send_data(stream_id, data[:room])
            data = data[room:]
            self.pump()
        self.client.send_data(stream_id, data, end_stream=end)

    def pass_time(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Tick by tick."""
        for _ in range(round(seconds / 0.1)):
            self.now_s += 0.1
            self.server.tick(self.now_s)
            self.pump()
            if until():
                return
