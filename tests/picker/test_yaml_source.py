"""YAML read strictly: what is refused, and that the text says where and what was expected."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest

from picker.errors import ConfigError
from picker.yaml_source import YamlSource


class Leaf(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    depth_limit: Annotated[int, msgspec.Meta(ge=1)] = 1
    labels: dict[str, str] = {}


class Tree(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    name: str
    leaves: tuple[Leaf, ...] = ()
    best_leaf: Leaf | None = None


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        YamlSource(text, "file.yaml").decode(Tree)
    return str(error.value)


def test_a_good_document() -> None:
    tree = YamlSource("name: oak\nleaves: [{depthLimit: 2}]\nbestLeaf: {labels: {a: b}}", "x").decode(Tree)
    assert tree == Tree("oak", (Leaf(2),), Leaf(labels={"a": "b"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: oak", "file.yaml:1: nam: Object contains unknown field `nam`; did you mean 'name'?"),
        ("name: oak\nbark: 1", "file.yaml:2: bark: Object contains unknown field `bark`; known: name, leaves, bestLeaf"),
        (
            "name: oak\nleaves:\n- depthLimit: 2\n- depthLimt: 3",
            "file.yaml:4: leaves[1].depthLimt: Object contains unknown field `depthLimt`; did you mean 'depthLimit'?",
        ),
        ("name: oak\nbestLeaf:\n  zzz: 1", "file.yaml:3: bestLeaf.zzz: Object contains unknown field `zzz`; known: depthLimit, labels"),
        ("name: 7", "file.yaml:1: name: Expected `str`, got `int`; found 7"),
        ("name: 2024-01-01", "file.yaml:1: name: Expected `str`, got `date`; found datetime.date(2024, 1, 1)"),
        ("name: oak\nleaves:\n- depthLimit: many", "file.yaml:3: leaves[0].depthLimit: Expected `int`, got `str`; found 'many'"),
        ("name: oak\nleaves:\n- depthLimit: 0", "file.yaml:3: leaves[0].depthLimit: Expected `int` >= 1; found 0"),
        ("name: oak\nleaves: {depthLimit: 1}", "file.yaml:2: leaves: Expected `array`, got `object`"),
        ("name: oak\nleaves: [1]", "file.yaml:2: leaves[0]: Expected `object`, got `int`; found 1"),
        ("name: oak\nbestLeaf:\n  labels:\n    a: 1", "file.yaml:3: bestLeaf.labels[...]: Expected `str`, got `int`"),
        ("name: oak\nbestLeaf:\n  labels: {1: a}", "file.yaml:3: bestLeaf.labels: Expected `str`, got `int`"),
        ("leaves: []", "file.yaml:1: Object missing required field `name`"),
        ("1: a", "file.yaml:1: Expected `str`"),
        ("# a comment\n\nname: [oak]", "file.yaml:3: name: Expected `str`, got `array`"),
    ],
)
def test_what_is_wrong_and_where(text: str, message: str) -> None:
    assert refused(text) == message


def test_a_long_value_is_cut() -> None:
    assert refused(f"name: oak\nleaves: [{'x' * 1000}]").endswith("found '" + "x" * 76 + "...")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file.yaml: expected a mapping at the top level, got NoneType"),
        ("# nothing", "file.yaml: expected a mapping at the top level, got NoneType"),
        ("- a", "file.yaml: expected a mapping at the top level, got list"),
        ("oak", "file.yaml: expected a mapping at the top level, got str"),
        ("name: oak\nname: elm", "file.yaml:2: not valid YAML: key 'name' is given twice"),
        ("leaves:\n- depthLimit: 1\n  depthLimit: 2", "file.yaml:3: not valid YAML: key 'depthLimit' is given twice"),
        ("a: {1: x, 1: y}", "file.yaml:1: not valid YAML: key '1' is given twice"),
        ("a: {b: 1,\n 'b': 2}", "file.yaml:2: not valid YAML: key 'b' is given twice"),
        ("name: [", "file.yaml:1: not valid YAML: "),
        ("name: oak\n\tleaves: []", "file.yaml:2: not valid YAML: "),
        ("name: oak\n---\nname: elm", "file.yaml:2: not valid YAML: but found another document"),
        ("name: *nobody", "file.yaml:1: not valid YAML: found undefined alias 'nobody'"),
        ("name: &a [*a]", "file.yaml:1: not valid YAML: found unconstructable recursive node"),
        ("[1]: 2", "file.yaml:1: not valid YAML: found unhashable key"),
        ("name: !!python/object/apply:os.getcwd []", "file.yaml:1: not valid YAML: could not determine a constructor for the tag"),
        ("name: 2024-99-99", "file.yaml: not valid YAML: month must be in 1..12"),
        ("name: \x00", "file.yaml: not valid YAML: unacceptable character"),
        ("a: " + "[" * 5000 + "]" * 5000, "file.yaml: not valid YAML: "),
    ],
)
def test_what_is_not_a_document(text: str, message: str) -> None:
    assert refused(text).startswith(message)


def test_merge_keys_work_and_lines_are_those_of_what_counts() -> None:
    text = "name: oak\nbestLeaf: &leaf\n  depthLimit: 2\nleaves:\n- <<: *leaf\n  depthLimit: {}\n"
    assert YamlSource(text.format(4), "x").decode(Tree).leaves == (Leaf(4),)
    assert refused(text.format("deep")).startswith("file.yaml:6: leaves[0].depthLimit: ")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", "s:1"),
        ("a", "s:1: a"),
        ("b", "s:2: b"),
        ("b.c", "s:3: b.c"),
        ("b.c[1]", "s:5: b.c[1]"),
        ("b.c[1].d", "s:6: b.c[1].d"),
        ("b.c[9].d", "s:3: b.c[9].d"),
        ("nowhere.at.all", "s:1: nowhere.at.all"),
        ("a.deeper", "s:1: a.deeper"),
    ],
)
def test_places(path: str, place: str) -> None:
    assert YamlSource("a: 1\nb:\n  c:\n  - x\n  - e: 1\n    d: 2\n", "s").where(path) == place


def test_several_documents_each_with_their_own_lines() -> None:
    text = "# none\n---\nname: a\n---\n---\nname: b\nleaves:\n- {depthLimit: 0}\n...\n"
    first, second = YamlSource.every(text, "file.yaml")
    assert first.decode(Tree).name == "a"
    assert second.where("leaves[0]") == "file.yaml:8: leaves[0]"
    with pytest.raises(ConfigError, match=r"file\.yaml:8: leaves\[0\]\.depthLimit: Expected `int` >= 1"):
        second.decode(Tree)
    assert YamlSource.every("", "file.yaml") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\n---\n- 1\n", "file.yaml:3: expected a mapping at the top level, got list"),
        ("name: a\n---\nname: [\n", "file.yaml:4: not valid YAML: "),
        ("name: a\n---\nname: b\nname: c\n", "file.yaml:4: not valid YAML: key 'name' is given twice"),
        ("name: &a b\n---\nname: *a\n", "file.yaml:3: not valid YAML: found undefined alias"),
    ],
)
def test_a_document_among_several_that_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        YamlSource.every(text, "file.yaml")
    assert str(error.value).startswith(expected)
