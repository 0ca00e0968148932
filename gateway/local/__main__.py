"""`fairlead up`: flags to settings, and one run of the local stack."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.argtypes import duration_s, host_ports, listen_port
from gateway.local.plan import DEFAULT_MODEL, LocalSettings, claims, parts
from gateway.local.session import Session, SessionSettings


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 64):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 64")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    default, session = LocalSettings(), SessionSettings()
    parser = argparse.ArgumentParser(
        prog="fairlead up",
        description="Simulators (or your model servers), the picker and Envoy on loopback, stopped together.",
        allow_abbrev=False,
    )
    servers = parser.add_argument_group("model servers").add_argument
    servers("--sims", type=_count, default=default.sims, metavar="N", help="simulators to start (%(default)s)")
    servers("--sim-base-port", type=listen_port, default=default.sim_base_port, metavar="PORT", help="port of the first (%(default)s)")
    servers("--sim-arg", action="append", default=[], metavar="ARG", help="one more argument for every simulator; repeatable")
    servers("--endpoints", type=host_ports, default=(), metavar="IP:PORT,...", help="use these model servers, no simulators")
    servers("--model", metavar="NAME", help=f"model served and asked for ({DEFAULT_MODEL}; with --endpoints: the first they list)")
    picker = parser.add_argument_group("picker").add_argument
    picker("--picker-port", type=listen_port, default=default.picker_port, metavar="PORT", help="ext_proc (%(default)s)")
    picker("--picker-health-port", type=listen_port, default=default.picker_health_port, metavar="PORT", help="gRPC health (%(default)s)")
    picker("--metrics-port", type=listen_port, default=default.metrics_port, metavar="PORT", help="metrics and debug pages (%(default)s)")
    picker("--config-file", type=Path, metavar="FILE", help="EndpointPickerConfig for the picker")
    picker("--picker-arg", action="append", default=[], metavar="ARG", help="one more argument for the picker; repeatable")
    envoy = parser.add_argument_group("Envoy").add_argument
    envoy("--port", type=listen_port, default=default.port, metavar="PORT", help="where clients connect (%(default)s)")
    envoy("--admin-port", type=listen_port, default=default.admin_port, metavar="PORT", help="admin interface (%(default)s)")
    envoy("--envoy-arg", action="append", default=[], metavar="ARG", help="one more argument for `fairlead envoy run`; repeatable")
    run = parser.add_argument_group("the run").add_argument
    run("--first-request", action="store_true", help="send a chat request, and show the answer and how it was routed")
    run("--once", action="store_true", help="stop after the first request; exit status 0 when it succeeded, else 1")
    run("--no-live", action="store_true", help="plain lines even on a terminal")
    run("--log-dir", type=Path, metavar="DIR", help="keep the logs of all processes here (default: a temporary folder)")
    run(
        "--wait-timeout",
        type=duration_s,
        default=session.wait_timeout_s,
        metavar="TIME",
        help=f"longest wait for everything to be ready ({session.wait_timeout_s:g}s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stack until it is stopped; the exit status is described at `Session.run`, 2 for a usage error."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not options.endpoints and options.sim_base_port + options.sims - 1 > 65535:
        parser.error(f"--sim-base-port {options.sim_base_port} leaves no room for {options.sims} simulators")
    if names := [str(at) for at in options.endpoints if not at.is_ip]:
        parser.error(f"--endpoints takes IP addresses, not {', '.join(names)}")
    local = LocalSettings(
        sims=options.sims,
        sim_base_port=options.sim_base_port,
        sim_args=tuple(options.sim_arg),
        endpoints=options.endpoints,
        model=options.model,
        port=options.port,
        admin_port=options.admin_port,
        envoy_args=tuple(options.envoy_arg),
        picker_port=options.picker_port,
        picker_health_port=options.picker_health_port,
        metrics_port=options.metrics_port,
        config_file=options.config_file,
        picker_args=tuple(options.picker_arg),
    )
    session = SessionSettings(
        first_request=options.first_request or options.once,
        once=options.once,
        live=not options.no_live,
        log_dir=options.log_dir,
        wait_timeout_s=options.wait_timeout,
    )
    return Session(local, session, parts(local), claims(local)).run()


if __name__ == "__main__":
    sys.exit(main())
