"""Argument types of the command line: durations, ports and addresses."""

import argparse
import re

from gateway.address import HostPort

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def duration_s(text: str) -> float:
    """Seconds from `1000s`, `500ms`, `2m`, `1h` or a plain number of seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 10s, 500ms, 2m or 1h")
    return float(match[1]) * _UNIT_S[match[2]]


def host_port(text: str) -> HostPort:
    """One `host:port`."""
    try:
        return HostPort.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def host_ports(text: str) -> tuple[HostPort, ...]:
    """A comma-separated list of `host:port`."""
    return tuple(host_port(part) for part in text.split(",") if part.strip())


def port(text: str) -> int:
    """A port number; 0 is for the flags that say it turns something off."""
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0..65535)")
    return int(text)


def listen_port(text: str) -> int:
    """A port number somebody listens on, so not 0."""
    if (number := port(text)) == 0:
        raise argparse.ArgumentTypeError("a port from 1 to 65535 is needed")
    return number
