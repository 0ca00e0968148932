"""`fairlead picker`: flags, signals, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Sequence

from picker.errors import ConfigError
from picker.settings import Settings, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a stop by signal, 1 when the configuration cannot be used, 2 for wrong flags."""
    try:
        settings = parse(argv)
        # After the flags: `--help` should not wait for gRPC and the rest to load.
        import uvloop

        from picker.logs import configure

        configure(settings.verbosity, settings.log_encoder, settings.log_time, settings.traceback_level)
        return uvloop.run(_serve(settings))
    except ConfigError as error:
        sys.stderr.write(f"fairlead picker: {error}\n")
        return 1


async def _serve(settings: Settings) -> int:
    from picker.runner import Runner

    runner = Runner(settings)
    stop, hurry = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    try:
        await runner.start()
        # What has been made by now stays for good. With its 50,000 objects to go through, a full collection stops every stream for 15 ms.
        gc.collect()
        gc.freeze()
        await stop.wait()
        await runner.drain(hurry)
    finally:
        await runner.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
