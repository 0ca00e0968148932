"""`python -m bench.extproc.echo`: an ext_proc server that says what it hears, on our lean transport. The floor under any picker."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from bench.echo import Echo


async def _serve(endpoints: Sequence[str], port: int, health_port: int) -> None:
    from picker.extproc.health import Readiness
    from picker.extproc.transport import Served, TransportOptions
    from picker.extproc.transport_h2 import H2Transport
    from picker.metrics import Metrics

    targets = cycle([endpoint.encode() for endpoint in endpoints])
    converse: Any = lambda deliver: Echo(targets)  # noqa: E731 (a conversation in all but name)
    options = TransportOptions("127.0.0.1", port, health_port, health_on_both=False, tls=None)
    transport = H2Transport(options, Served(converse, Metrics(), Readiness()))
    await transport.start()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    await over.wait()
    await transport.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal; exit status 0."""
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m bench.extproc.echo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--endpoints", required=True, metavar="HOST:PORT,...")
    parser.add_argument("--grpc-port", type=int, required=True, metavar="PORT")
    parser.add_argument("--grpc-health-port", type=int, required=True, metavar="PORT")
    flags = parser.parse_args(argv)
    uvloop.run(_serve(flags.endpoints.split(","), flags.grpc_port, flags.grpc_health_port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
