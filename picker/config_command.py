"""`fairlead config check FILE` and `fairlead config schema`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from picker import catalogue
from picker.config_schema import schema
from picker.effective import as_yaml
from picker.errors import ConfigError
from picker.loader import Options, load
from picker.metrics import Metrics
from picker.yaml_source import YamlSource


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 when the configuration can be used, 1 when it cannot, 2 for wrong flags."""
    flags = _parser().parse_args(argv)
    if flags.action == "schema":
        sys.stdout.write(json.dumps(schema(catalogue.registry()), indent=2) + "\n")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr, force=True)
    try:
        sys.stdout.write(check(flags.file, Options(experimental=flags.allow_experimental_plugins, plugin_paths=flags.plugin_path or ())))
    except ConfigError as error:
        sys.stderr.write(f"fairlead config: {error}\n")
        return 1
    return 0


def check(file: str, options: Options) -> str:
    """The effective configuration as YAML. Raises ConfigError."""
    name = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: cannot be read: {error}") from None
    return as_yaml(load(YamlSource(text, name), Metrics(), options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairlead config", description="Look at an EndpointPickerConfig.", allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    checking = actions.add_parser("check", help="print the effective configuration; status 1 when it cannot be used", allow_abbrev=False)
    checking.add_argument("file", metavar="FILE", help="- for standard input")
    checking.add_argument("--allow-experimental-plugins", action="store_true", help="as for fairlead picker")
    checking.add_argument("--plugin-path", type=Path, action="append", metavar="DIR", help="as for fairlead picker")
    actions.add_parser("schema", help="print a JSON Schema, for completion in editors", allow_abbrev=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
