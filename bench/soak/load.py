"""The mix of requests, the clients that send them, and what became of each request."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from random import Random

from bench.soak import queueing
from bench.soak.http_client import PHASES, Answer, Broken, Connection, Left
from bench.soak.stub import Stub

MODEL = "m"
LARGE_BYTES = 5_000_000
# Shares of all requests; the rest asks for JSON.
SHARES = {"sse": 0.4, "large": 0.01, "bad request": 0.02, "slow reader": 0.02}
LEAVING = 0.1
_STATUS = {"bad request": 400}
_PART_BYTES = 65_536
_PATIENCE_S = 120.0
_MOST_EXAMPLES = 20


class Tally:
    """What happened. `unexplained`: neither the client nor a fault that was asked for did it."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.good: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.turned_away: Counter[str] = Counter()
        """By flow control, before an answer or in the middle of one."""
        self.unexplained: list[str] = []

    @property
    def total(self) -> int:
        """Requests begun."""
        return self.sent.total()


class Load:
    """`clients` that each send one request after the other until `stop`."""

    def __init__(self, port: int, stub: Stub, tally: Tally, random: Random, clients: int, *, queueing: bool = False) -> None:
        self._port = port
        self._stub = stub
        self._tally = tally
        self._random = random
        self._clients = clients
        self._queueing = queueing
        self._stopping = asyncio.Event()
        self._number = 0

    async def run(self) -> None:
        """Returns when every client has finished its last request after `stop`."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(self._client())

    def stop(self) -> None:
        """No new requests."""
        self._stopping.set()

    async def _client(self) -> None:
        connection = Connection(self._port)
        try:
            while not self._stopping.is_set():
                await self._request(connection)
                await asyncio.sleep(self._random.expovariate(20))
        finally:
            connection.close()

    def _kind(self) -> str:
        at = self._random.random()
        for kind, share in SHARES.items():
            if at < share:
                return kind
            at -= share
        return "json"

    async def _request(self, connection: Connection) -> None:
        random, tally = self._random, self._tally
        self._number += 1
        identity, kind = f"soak-{self._number}", self._kind()
        leave = random.choice(PHASES) if random.random() < LEAVING else ""
        streaming = kind in ("sse", "slow reader")
        body = _body(random, kind, streaming=streaming)
        parts = [body[i : i + _PART_BYTES] for i in range(0, len(body), _PART_BYTES)]
        headers = [("content-type", "application/json"), ("x-soak-id", identity), ("x-soak-kind", "sse" if streaming else "json")]
        if self._queueing:
            headers += queueing.headers(random)
        tally.sent[kind] += 1
        answer: Answer | None = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                dawdle_s = 0.02 if kind == "slow reader" else 0.0
                answer = await connection.exchange("/v1/completions", headers, parts, leave=leave, dawdle_s=dawdle_s)
            wrong = _wrong(answer, kind, streaming=streaming)
        except Left:
            tally.left[leave] += 1
            self._stub.faults.pop(identity, None)
            return
        except Broken as error:
            wrong = str(error)
        except TimeoutError:
            wrong = f"no answer within {_PATIENCE_S:g} s"
        fault = self._stub.faults.pop(identity, None)
        if not wrong:
            tally.good[kind] += 1
        elif self._queueing and answer is not None and queueing.turned_away(answer.status, bytes(answer.body)):
            tally.turned_away["before the answer"] += 1
        elif self._queueing and streaming and ("batch" in dict(headers).values()) and fault is None:
            tally.turned_away["in the middle of it"] += 1
        elif fault is not None:
            tally.faults[fault] += 1
        elif len(tally.unexplained) < _MOST_EXAMPLES:
            tally.unexplained.append(f"{identity} ({kind}{', leaves at ' + leave if leave else ''}): {wrong}")


def _body(random: Random, kind: str, *, streaming: bool) -> bytes:
    if kind == "bad request":
        return random.choice((b'{"model": "m", "prompt": ', b'{"prompt": "no model"}', b"[]"))
    # Prompts share beginnings, as conversations do.
    prompt = f"You are number {random.randrange(50)}. " * 20 + f"Question {random.random()}"
    asked = {"model": MODEL, "prompt": prompt, "max_tokens": random.randint(2, 40), "stream": streaming}
    if streaming:
        asked["stream_options"] = {"include_usage": True}
    if kind == "large":
        asked["user"] = "x" * LARGE_BYTES
    return json.dumps(asked).encode()


def _wrong(answer: Answer, kind: str, *, streaming: bool) -> str:
    """What is wrong with an answer; empty: nothing."""
    expected = _STATUS.get(kind, 200)
    if answer.status != expected:
        return f"status {answer.status} in place of {expected}: {bytes(answer.body[:200])!r}"
    if expected != 200:
        return ""
    if streaming:
        return "" if answer.body.rstrip().endswith(b"data: [DONE]") else f"the stream ends with {bytes(answer.body[-100:])!r}"
    try:
        found = json.loads(answer.body)
        return "" if found["usage"]["completion_tokens"] else "no tokens"
    except (ValueError, KeyError, TypeError):
        return f"no completion: {bytes(answer.body[:200])!r}"
