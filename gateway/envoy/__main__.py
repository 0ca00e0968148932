"""`fairlead envoy render` and `fairlead envoy run`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.envoy.bootstrap import render
from gateway.envoy.flags import add_bootstrap_flags, settings_from
from gateway.envoy.process import EnvoyUnavailable, RunSettings, execute
from gateway.envoy.settings import BootstrapSettings

LOG_LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairlead envoy", description="The Envoy in front of the picker.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="render|run")

    rendering = commands.add_parser("render", help="write the bootstrap", allow_abbrev=False)
    add_bootstrap_flags(rendering)
    rendering.add_argument("--format", choices=("yaml", "json"), default="yaml", help="(%(default)s)")
    rendering.add_argument("--output", metavar="FILE", default="-", help="where to write it; -: standard output (%(default)s)")

    running = commands.add_parser(
        "run",
        help="become Envoy with that bootstrap",
        epilog="Arguments after a lone -- go to Envoy as they are.",
        allow_abbrev=False,
    )
    add_bootstrap_flags(running)
    group = running.add_argument_group("how Envoy runs")
    group.add_argument("--concurrency", type=int, metavar="N", help="worker threads (default: one per core)")
    ids = group.add_mutually_exclusive_group()
    ids.add_argument("--base-id", type=int, metavar="N", help="shared-memory id, for several Envoys on one host")
    ids.add_argument("--use-dynamic-base-id", action="store_true", help="let Envoy find a free id (the default)")
    group.add_argument("--log-level", choices=LOG_LEVELS, default="warning", help="(%(default)s)")
    return parser


def _render(settings: BootstrapSettings, options: argparse.Namespace) -> int:
    text = render(settings, options.format)
    if options.output == "-":
        sys.stdout.write(text)
    else:
        Path(options.output).write_text(text, encoding="utf-8")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 when Envoy cannot be started, 2 on a usage error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _parser()
    options = parser.parse_args(arguments[:cut])
    extra = tuple(arguments[cut + 1 :])
    if extra and options.command != "run":
        parser.error(f"unexpected arguments after --: {' '.join(extra)}")
    try:
        settings = settings_from(options)
    except ValueError as error:
        parser.error(str(error))
    if options.command == "render":
        return _render(settings, options)
    try:
        execute(
            settings,
            RunSettings(concurrency=options.concurrency, base_id=options.base_id, log_level=options.log_level, extra=extra),
        )
    except EnvoyUnavailable as problem:
        sys.stderr.write(f"fairlead envoy: {problem}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
