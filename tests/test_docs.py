"""The documentation against the code: what it lists is all there is, and what it names exists."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import msgspec
import pytest

import fairlead.plugin
from gateway.cli import COMMANDS
from picker import settings
from picker.catalogue import STAGES
from picker.foreign.points import POINTS
from picker.metrics import Metrics
from picker.plugin_table import replaced

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
ROOTED = ("picker/", "gateway/", "proto/", "deploy/", "bench/", "tests/", "docs/", "fairlead/", "examples/")

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NO_VALUE = "–"


def rows(page: str) -> list[list[str]]:
    """The cells of every table row of a page, without heads and rules."""
    lines = (DOCS / page).read_text().splitlines()
    tables = [line for line, below in zip(lines, [*lines[1:], ""], strict=True) if line.startswith("| ") and not below.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in tables]


def codes(cell: str) -> list[str]:
    return _CODE.findall(cell)


def names(cell: str) -> list[str]:
    return [] if cell == _NO_VALUE else cell.split(", ")


# ---- flags


def flags() -> dict[str, argparse.Action]:
    actions = [a for a in settings._parser()._actions if "--help" not in a.option_strings]
    return {a.option_strings[0]: a for a in actions}


def flag_rows() -> dict[str, list[str]]:
    return {codes(row[0])[0]: row for row in rows("flags.md")}


def test_the_flags_page_lists_every_flag_and_no_other() -> None:
    assert set(flag_rows()) == set(flags())
    for name, action in flags().items():
        assert codes(flag_rows()[name][0]) == action.option_strings


@pytest.mark.parametrize("name", flags())
def test_a_flags_default_is_what_the_page_says(name: str) -> None:
    shown, action = flag_rows()[name][1], flags()[name]
    if shown == _NO_VALUE:
        assert action.default is None
        return
    (text,) = codes(shown)
    assert (action.type(text) if callable(action.type) else text) == action.default


def test_flags_named_anywhere_exist() -> None:
    known = {option for action in flags().values() for option in action.option_strings}
    for page in (DOCS / "operations.md", DOCS / "configuration.md", DOCS / "metrics.md", DOCS / "flags.md"):
        named = {flag for code in codes(page.read_text()) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)}
        assert named <= known | {"--flag"}, page.name


# ---- plugins


def plugin_rows() -> dict[str, list[str]]:
    return {codes(row[0])[0]: row for row in rows("plugins.md")}


def test_the_plugins_page_lists_every_type_in_the_order_of_the_catalogue() -> None:
    assert list(plugin_rows()) == [cls.type for stage in STAGES.values() for cls in stage]


@pytest.mark.parametrize("cls", [cls for stage in STAGES.values() for cls in stage], ids=lambda cls: cls.type)
def test_a_plugins_parameters_defaults_and_source_are_what_the_page_says(cls: type) -> None:
    _, parameters, _, source = plugin_rows()[cls.type]  # type: ignore[attr-defined]
    shown = dict(re.findall(r"`(\w+)` \(([^)]*)\)", parameters))
    assert codes(parameters) == list(shown)
    for field in msgspec.structs.fields(cls.Parameters):  # type: ignore[attr-defined]
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        assert ("required" if field.required else written(default)) == shown.pop(field.encode_name)
    assert not shown
    assert codes(source) == [cls.__module__.replace(".", "/") + ".py"]


def written(value: object) -> str:
    """As the page writes a default."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value in ({}, (), "", None) else str(value)


# ---- metrics


ABBREVIATIONS = {
    "L": ["model_name", "target_model_name", "fairness_id", "priority"],
    "O": ["model_name", "target_model_name"],
}


def labels(cell: str) -> list[str]:
    return [label for name in names(cell) for label in ABBREVIATIONS.get(name, [name])]


def test_the_metrics_page_lists_every_family_as_it_is() -> None:
    page = {codes(row[0])[0]: row for row in rows("metrics.md")}
    families = {family.name: family for family in Metrics().collector.families}
    assert set(page) == set(families)
    for name, family in families.items():
        _, kind, shown, meaning, legacy = page[name]
        assert kind == type(family).__name__.lower(), name
        assert labels(shown) == list(family.labels), name
        assert meaning
        twins = [] if legacy == _NO_VALUE else [(codes(legacy)[0], labels(legacy.partition(" (")[2].rstrip(")")))]
        assert twins == [(twin.name, list(twin.labels)) for twin in family.twins], name


# ---- everything


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_backticks_exist(page: Path) -> None:
    top = {entry.name for entry in ROOT.iterdir() if entry.is_file()} | {"CHANGELOG.md", "Makefile", "Dockerfile", "pyproject.toml"}
    for code in codes(_FENCE.sub("", page.read_text())):
        path = code.partition(":")[0]
        if (path.startswith(ROOTED) and re.fullmatch(r"[\w./-]+", path)) or path in top:
            assert (ROOT / path).exists(), f"{page.name}: {code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            heads = [line.lstrip("# ").lower() for line in linked.read_text().splitlines() if line.startswith("#")]
            assert anchor in [re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads], f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    code = "\n".join([*_FENCE.findall(text), *codes(_FENCE.sub("", text))])
    for command in re.findall(r"(?:^|[\s`/])fairlead +([a-z][\w-]*)", code):
        assert command in COMMANDS, f"{page.name}: fairlead {command}"
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:^|[\s`])make +([a-z][\w-]*)", code):
        assert target in targets, f"{page.name}: make {target}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_a_page_begins_with_its_title(page: Path) -> None:
    assert page.read_text().startswith("# ")


def test_the_table_of_plugins_is_the_one_the_catalogue_makes() -> None:
    page = (DOCS / "plugins.md").read_text()
    assert replaced(page) == page


def test_the_page_for_plugin_authors_lists_the_names_they_may_import() -> None:
    page = (DOCS / "writing-plugins.md").read_text()
    listed = page.partition("## Names in `fairlead.plugin`")[2].partition("\n## ")[0]
    assert codes(listed) == sorted(fairlead.plugin.__all__)


def test_the_page_for_plugin_authors_lists_every_extension_point() -> None:
    page = (DOCS / "writing-plugins.md").read_text()
    table = page.partition("## Which stage?")[2].partition("\n## ")[0]
    assert {code.removeprefix("async ").partition("(")[0] for code in codes(table) if "(" in code} == set(POINTS)
