"""The metrics page against the endpoint-picker contract's section 7, whatever `picker.metrics` thinks it is."""

from __future__ import annotations

import re

import pytest
from prometheus_client import generate_latest

from picker.catalogue import STAGES
from tests.picker.contract_metrics import ABSENT, FAMILIES, PLUGIN_TYPES_OF_ABSENT, TWINS, Family
from tests.picker.test_metrics import filled

EXISTING = [f for f in FAMILIES if f.name.removeprefix("llm_d_epp_") not in {name for names in ABSENT.values() for name in names}]
PAGE = generate_latest(filled().registry).decode()
_LABEL = re.compile(r'(\w+)="')


def exposed(name: str) -> tuple[str, str, tuple[str, ...], set[str]]:
    """Type, help text, bucket bounds without +Inf, and labels of a family on the page."""
    (type_,) = re.findall(rf"^# TYPE {name} (\w+)$", PAGE, re.MULTILINE)
    (help_,) = re.findall(rf"^# HELP {name} (.*)$", PAGE, re.MULTILINE)
    bounds = re.findall(rf'^{name}_bucket{{.*?le="([^"]+)"', PAGE, re.MULTILINE)
    sample = name + "_count" if type_ == "histogram" else name
    (labels,) = re.findall(rf"^{sample}(?:{{(.*)}})? \S+$", PAGE, re.MULTILINE)
    return type_, help_, tuple([b for b in bounds if b != "+Inf"]), set(_LABEL.findall(labels))


def same_bounds(found: tuple[str, ...], expected: tuple[str, ...]) -> bool:
    numbers = [float(bound) for bound in found]
    if "…" in expected:
        return len(numbers) > 2 and numbers == sorted(numbers) and (numbers[0], numbers[-1]) == (float(expected[0]), float(expected[-1]))
    return numbers == [float(bound) for bound in expected]


@pytest.mark.parametrize("family", EXISTING, ids=lambda family: family.name)
def test_a_family_of_the_contract_is_on_the_page(family: Family) -> None:
    type_, help_, bounds, labels = exposed(family.name)
    assert (type_, labels) == (family.kind, set(family.labels))
    assert same_bounds(bounds, family.buckets), bounds
    assert help_.startswith("[ALPHA] ") and "Deprecated" not in help_


@pytest.mark.parametrize("legacy", TWINS)
def test_a_legacy_name_is_on_the_page(legacy: str) -> None:
    new, expected = TWINS[legacy]
    type_, help_, bounds, labels = exposed(legacy)
    as_type, _, as_bounds, _ = exposed(new)
    assert (type_, bounds) == (as_type, as_bounds)
    assert labels == set(expected)
    assert help_.startswith(f"[ALPHA] [Deprecated: Use {new}] ")


def test_every_name_on_the_page_is_the_contracts_or_says_whose_it_is() -> None:
    names = set(re.findall(r"^# TYPE (\w+) ", PAGE, re.MULTILINE))
    known = {family.name for family in EXISTING} | TWINS.keys()
    assert {name for name in names if not name.startswith("fairlead_")} == known


def test_what_does_not_exist_has_no_metrics_either() -> None:
    """The other way round: when a feature comes, its entry in ABSENT has to go."""
    names = set(re.findall(r"^# TYPE (\w+) ", PAGE, re.MULTILINE))
    assert not {"llm_d_epp_" + name for absent in ABSENT.values() for name in absent} & names
    assert not {plugin.type for plugins in STAGES.values() for plugin in plugins} & set(PLUGIN_TYPES_OF_ABSENT)


def test_the_list_has_no_name_twice() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert {new for new, _ in TWINS.values()} <= {family.name for family in EXISTING}
