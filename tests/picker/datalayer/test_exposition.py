"""The light reader against written pages, real pages and an independent parser."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from picker.datalayer.exposition import Sample, Series, Spec, parse_spec
from picker.errors import ConfigError


def read(page: str, spec: str) -> list[Sample]:
    return Series(parse_spec(spec)).read(page.encode())


def values(page: str, spec: str) -> list[float]:
    return [sample.value for sample in read(page, spec)]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("", []),
        ("x", []),
        ("x 1", [1.0]),
        ("x 1\n", [1.0]),
        ("x 1\r\ny 2\r\n", [1.0]),
        ("x\t 1\n", [1.0]),
        ("x{} 1\n", [1.0]),
        ('x {a="b"} 1\n', [1.0]),
        ('x{a="b",} 1\n', [1.0]),
        ('x{ a = "b" , c="d" } 1\n', [1.0]),
        ("# HELP x x 7\n# TYPE x gauge\nx 1\n", [1.0]),
        ("# HELP y see\n# x 3\ny 1\n", []),
        ("x_by_reason 4\nx 1\n", [1.0]),
        ("x 1\nx_by_reason 4\n", [1.0]),
        ("y 4\nxx 5\nx 1", [1.0]),
        ('y{l="x 4"} 9\nx 1\n', [1.0]),
        ("x -1e-3\n", [-0.001]),
        ("x +Inf\n", [math.inf]),
        ("x\n", []),
        ("x \n", []),
        ("x abc\n", []),
        ('x{a="b} 1\nx 2\n', [2.0]),
        ('x{a="b" c="d"} 1\nx 2\n', [2.0]),
        ("x 1 2 # {} 3\n", [1.0]),
    ],
)
def test_lines(page: str, expected: list[float]) -> None:
    assert values(page, "x") == expected


def test_nan_and_timestamps() -> None:
    first, second = read("x NaN\nx 2 1395066363000\n", "x")
    assert math.isnan(first.value)
    assert first.timestamp is None
    assert second.timestamp == 1395066363000


def test_label_values_may_hold_anything() -> None:
    (sample,) = read('x{a="}\\"{,=",b="back\\\\slash\\nline",c="\\\\n",d="ü 漢"} 1\n', "x")
    assert sample.labels == {"a": '}"{,=', "b": "back\\slash\nline", "c": "\\n", "d": "ü 漢"}


def test_labels_select() -> None:
    page = 'x{kind="a"} 1\nx{kind="b",more="c"} 2\nx 3\nx{kind="bb"} 4\n'
    assert values(page, "x{kind=b}") == [2.0]
    assert values(page, 'x{kind="b", more=c}') == [2.0]
    assert values(page, "x{kind=c}") == []


def test_a_page_that_changes_under_the_reader() -> None:
    series = Series(parse_spec("x"))
    filler = "".join(f"f{i} {i}\n" for i in range(200))

    def seen(page: str) -> list[float]:
        return [s.value for s in series.read(page.encode())]

    assert seen(filler + 'x{engine="5"} 1\n') == [1.0]
    assert seen(filler + "".join(f'x{{engine="{i}"}} {i}\n' for i in range(50))) == list(range(50))
    assert seen(filler + 'x{engine="5"} 1\n' + filler) == [1.0]
    assert seen(filler) == []
    assert seen("x 3\n" + filler) == [3.0]
    assert seen("y 1\nx 4\n") == [4.0]
    assert seen(filler + filler + "x 5\n" + filler) == [5.0]
    assert seen("x_total 9\n" + filler + "x 6") == [6.0]
    assert seen("x 7") == [7.0]


def test_label_blocks_that_trade_places_are_not_confused() -> None:
    series = Series(parse_spec("x{a=1}"))
    assert [s.value for s in series.read(b'x{a="1"} 1\nx{a="2"} 2\n')] == [1.0]
    assert [s.value for s in series.read(b'x{a="2"} 2\nx{a="1"} 1\n')] == [1.0]
    assert [s.value for s in series.read(b'x 0\nx{a="11"} 2\nx{a="1"} 1\n')] == [1.0]


@pytest.mark.parametrize(
    "text", ["", " ", "{a=b}", "x{", "x}", "x y", "x{a}", "x{a=b", "x{a=b c=d}", "x{=b}", 'x{a="b}', "x{a=b,a=c}", "1x"]
)
def test_bad_specs_say_so(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected|twice"):
        parse_spec(text)


def test_specs() -> None:
    assert parse_spec(" a:b ") == Spec("a:b")
    assert parse_spec('n{a=b, c="d, \\"e}"}') == Spec("n", (("a", "b"), ("c", 'd, "e}')))
    assert parse_spec("n{}") == Spec("n")
    assert parse_spec("n{a=b,}") == Spec("n", (("a", "b"),))
    assert str(parse_spec("n{a=b,c=d}")) == "n{a=b,c=d}"


NAMES = ["a", "ab", "ab_c", "a:b", "b"]
label_values = st.text(st.sampled_from(list('ab \\"{},=#\nü')), max_size=6)
labels = st.dictionaries(st.sampled_from(["l", "m", "engine"]), label_values, max_size=3)
numbers = st.one_of(st.floats(width=32), st.integers(-5, 10**12)).map(lambda n: repr(n).replace("inf", "Inf").replace("nan", "NaN"))
stamps = st.one_of(st.none(), st.integers(0, 2**41))
groups = st.lists(
    st.tuples(st.sampled_from(NAMES), st.lists(st.tuples(labels, numbers, stamps), min_size=1, max_size=4)),
    max_size=5,
    unique_by=lambda group: group[0],
)


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render(page: Sequence[tuple[str, Sequence[tuple[dict[str, str], str, int | None]]]], newline_at_end: bool) -> str:
    lines = []
    for name, samples in page:
        lines += [f"# HELP {name} the {name} 1", f"# TYPE {name} gauge"]
        for label_set, number, stamp in samples:
            block = "{" + ",".join(f'{k}="{escaped(v)}"' for k, v in label_set.items()) + "}" if label_set else ""
            lines.append(f"{name}{block} {number}" + (f" {stamp}" if stamp is not None else ""))
    return "\n".join(lines) + ("\n" if newline_at_end else "")


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(groups, st.booleans()), min_size=1, max_size=3))
def test_agrees_with_the_full_parser(pages: list[tuple[list[tuple[str, list[tuple[dict[str, str], str, int | None]]]], bool]]) -> None:
    """Each reader sees several pages, so that what it remembers of one page meets another."""
    readers = {name: Series(Spec(name)) for name in NAMES}
    for groups_of_page, newline_at_end in pages:
        text = render(groups_of_page, newline_at_end)
        expected: dict[str, list[tuple[dict[str, str], float, float | None]]] = {name: [] for name in NAMES}
        for family in text_string_to_metric_families(text if newline_at_end else text + "\n"):
            for s in family.samples:
                stamp = None if s.timestamp is None else float(s.timestamp) * 1000
                expected[s.name].append((s.labels, s.value, stamp))
        for name, reader in readers.items():
            found = reader.read(text.encode())
            assert len(found) == len(expected[name])
            for sample, (label_set, value, stamp) in zip(found, expected[name], strict=True):
                assert sample.labels == label_set
                assert same(sample.value, value)
                assert (sample.timestamp is None) == (stamp is None)
                if stamp is not None and sample.timestamp is not None:
                    assert sample.timestamp == pytest.approx(stamp)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.sampled_from(list('a{}"\\=,1 \n#')), max_size=60), min_size=1, max_size=3))
def test_garbage_never_raises(pages: list[str]) -> None:
    series = Series(Spec("a", (("a", "1"),)))
    for page in pages:
        for sample in series.read(page.encode()):
            assert sample.labels["a"] == "1"
