"""The console command `fairlead`: a table of sub-commands, each a module with `main(argv) -> int`.

A sub-command is imported only when it is the one asked for, so `fairlead --help` costs a bare interpreter start.
"""

import argparse
import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

PROGRAM = "fairlead"
USAGE_ERROR = 2


class Command(NamedTuple):
    """One sub-command: the module whose `main` it runs, and its line in the help."""

    module: str
    help: str


COMMANDS: dict[str, Command] = {
    "picker": Command("picker.__main__", "run the endpoint picker (Envoy ext_proc server)"),
    "config": Command("picker.config_command", "check an EndpointPickerConfig, or print its JSON Schema"),
    "sim": Command("bench.sim.__main__", "run one model-server simulator"),
    "envoy": Command("gateway.envoy.__main__", "render the Envoy bootstrap, or run Envoy with it"),
    "plugin": Command("gateway.plugins.__main__", "write a plugin package, or list the plugins that are installed"),
    "up": Command("gateway.local.__main__", "run simulators, picker and Envoy together on this machine"),
}


def _parser() -> argparse.ArgumentParser:
    width = max(len(name) for name in COMMANDS)
    table = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="An inference-aware gateway for Kubernetes.",
        epilog=f"commands:\n{table}\n\n`{PROGRAM} COMMAND --help` lists the flags of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of the commands below")
    return parser


def _version() -> str:
    # Imported here: importlib.metadata alone is a quarter of the start-up time of `--help`.
    from importlib import metadata

    try:
        return metadata.version(PROGRAM)
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"


def _unknown(name: str) -> int:
    near = difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"commands: {', '.join(COMMANDS)}"
    sys.stderr.write(f"{PROGRAM}: unknown command {name!r}; {hint}\n")
    return USAGE_ERROR


def _entry(command: Command) -> Callable[[Sequence[str]], int]:
    return cast("Callable[[Sequence[str]], int]", importlib.import_module(command.module).main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sub-command named first in `argv` with the rest of it; return the exit status.

    Everything after the command name belongs to the sub-command, `--help` included.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and not arguments[0].startswith("-"):
        command = COMMANDS.get(arguments[0])
        return _unknown(arguments[0]) if command is None else _entry(command)(arguments[1:])
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.version:
        sys.stdout.write(f"{PROGRAM} {_version()}\n")
        return 0
    parser.print_help(sys.stderr)
    return USAGE_ERROR
