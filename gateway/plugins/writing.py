"""Writes a package with one plugin: its class, its entry point, a test, and how to use it."""

import keyword
import re
from pathlib import Path

from gateway.plugins.kinds import KINDS, Kind
from picker.foreign.finder import GROUP

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=80"]
build-backend = "setuptools.build_meta"

[project]
name = "NAME"
version = "0.1.0"
description = "A KIND for fairlead."
requires-python = ">=3.11"
dependencies = ["fairlead"]

[project.entry-points."GROUP"]
NAME = "MODULE.KIND:CLASS"

[tool.setuptools]
packages = ["MODULE"]

[tool.pytest.ini_options]
pythonpath = ["."]
"""

_README = """\
# NAME

A KIND for fairlead.

    pip install -e .
    python -m pytest
    fairlead plugin list

In the EndpointPickerConfig:

```yaml
plugins:
- type: NAME
PARAMETERSUSE```
"""


class CannotWrite(Exception):  # noqa: N818  (an answer to the user)
    """Says why."""


def files(kind: str, name: str) -> dict[str, str]:
    """Texts by path, relative to the package's folder. Raises CannotWrite when the name is not fit."""
    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(module):
        raise CannotWrite(f"'{name}': expected a name such as spare-queue: lower-case letters and digits, words joined by '-'")
    words = name.split("-")
    known, cls = KINDS[kind], "".join(word.capitalize() for word in (words if words[-1] == kind else [*words, kind]))
    parameters = f"  parameters:\n    {known.parameters}\n" if known.parameters else ""
    use = f"schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: {name}\n" if known.in_profile else ""
    if kind == "scorer":
        use += "    weight: 2\n"
    if kind == "parser":
        use = "- type: openai-parser\n"
    fill = {"NAME": name, "MODULE": module, "KIND": kind, "CLASS": cls, "GROUP": GROUP, "PARAMETERS": parameters, "USE": use}
    texts = {
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
        f"{module}/__init__.py": f'"""A {kind} for fairlead."""\n',
        f"{module}/{kind}.py": _source(kind, known),
        f"tests/test_{kind}.py": _test(known),
    }
    return {path: _filled(text, fill) for path, text in texts.items()}


def write(kind: str, name: str, into: Path) -> Path:
    """The folder of the new package, which must not be there already. Raises CannotWrite."""
    made, folder = files(kind, name), into / name
    try:
        folder.mkdir(parents=True)
        for path, text in made.items():
            target = folder / path
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)
    except FileExistsError:
        raise CannotWrite(f"{folder} is there already") from None
    except OSError as error:
        raise CannotWrite(f"cannot write {folder}: {error.strerror}") from None
    return folder


def _filled(text: str, fill: dict[str, str]) -> str:
    return re.sub("|".join(fill), lambda match: fill[match[0]], text)


def _source(kind: str, known: Kind) -> str:
    standard = [line for used, line in _STANDARD if used in known.body]
    names = ", ".join(known.imports.split())
    setup = "log = logging.getLogger(__name__)\n\n\n" if "logging" in "".join(standard) else "\n"
    return f'"""A {kind} for fairlead."""\n\n{_joined(standard)}from fairlead.plugin import {names}\n\n{setup}{known.body}'


def _test(known: Kind) -> str:
    third = "import pytest\n" if "pytest." in known.test else ""
    more = f"from fairlead.plugin import {known.test_imports}\n" if known.test_imports else ""
    helpers = ", ".join(known.helpers.split())
    # Where ruff sorts its imports it takes the package in the same folder for the first party, and all else for the third.
    return f"{third}{more}from fairlead.testing import {helpers}\n\nfrom MODULE.KIND import CLASS\n\n\n{known.test}"


def _joined(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines) + ("\n" if lines else "")


_STANDARD = (
    ("json.", "import json"),
    ("log.", "import logging"),
    ("Mapping[", "from collections.abc import Mapping"),
    ("Sequence[", "from collections.abc import Sequence"),
)
