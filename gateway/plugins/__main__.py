"""`fairlead plugin`: flags, and what is printed."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.plugins.kinds import KINDS
from gateway.plugins.writing import CannotWrite, write


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairlead plugin", description="Plugins that do not ship with fairlead.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="write a working, tested package with one plugin", allow_abbrev=False)
    new.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    new.add_argument("name", metavar="NAME", help="the plugin type, e.g. spare-queue")
    new.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="where the package's folder goes (default: here)")
    commands.add_parser("list", help="installed plugins, where they come from, and whether they can be used", allow_abbrev=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 when something is wrong with a plugin or nothing could be written, 2 for wrong flags."""
    flags = _parser().parse_args(argv)
    if flags.command == "list":
        return _list()
    try:
        folder = write(flags.kind, flags.name, flags.dir)
    except CannotWrite as error:
        sys.stderr.write(f"fairlead plugin: {error}\n")
        return 1
    sys.stdout.write(f"{folder}: a {flags.kind} of type {flags.name}\nnext: cd {folder} && pip install -e . && python -m pytest\n")
    return 0


def _list() -> int:
    from picker import catalogue
    from picker.errors import ConfigError
    from picker.foreign.finder import Finder
    from picker.foreign.points import POINTS
    from picker.metrics import Metrics

    finder, ours, bad = Finder(Metrics()), catalogue.registry(), False
    for type_ in finder.types():
        origin = finder.origin(type_)
        try:
            found = finder.find(type_)
            if type_ in ours:
                raise ConfigError(f"a plugin type '{type_}' ships with fairlead; name the entry point otherwise")
            assert found is not None
            says = ", ".join(dict.fromkeys(POINTS[method].name for method in found.methods))
        except ConfigError as error:
            says, bad = f"cannot be used: {error}", True
        sys.stdout.write(f"{type_}\t{origin}\t{says}\n")
    if not finder.types():
        sys.stdout.write("no plugins are installed; `fairlead plugin new scorer NAME` writes one\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
