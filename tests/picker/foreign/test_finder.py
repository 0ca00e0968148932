"""Plugins of others in a configuration: where they are found, and what is said of those that cannot be used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from itertools import count
from pathlib import Path

import pytest

from picker import loader
from picker.admission.flow.controller import FlowController
from picker.admission.flow.observing import Books
from picker.admission.flow.room import Room
from picker.errors import ConfigError
from picker.foreign import finder
from picker.loader import Options, Pipeline, load
from picker.metrics import Metrics
from picker.scheduling.scorers.load import QueueScorer
from picker.yaml_source import YamlSource
from tests.picker.scheduling.pool import idle, request

_numbers = count()
Write = Callable[[str], str]

SCORER = """
from fairlead.plugin import Candidates, InferenceRequest, Parameters

class Mine:
    class Parameters(Parameters, frozen=True):
        best_name: str = "e1"

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        return [float(e.name == self.parameters.best_name) for e in candidates.endpoints]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = before[0]
    for name in set(sys.modules) - before[1]:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def write(folder: Path) -> Write:
    """Writes a module and returns its name, a new one each time."""

    def write(text: str) -> str:
        name = f"foreign_{next(_numbers)}"
        (folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return name

    return write


@pytest.fixture
def offer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes entry points as an installed package has them."""

    def offer(**entries: str) -> None:
        monkeypatch.syspath_prepend(folder)
        found = [EntryPoint(name.replace("_", "-").rstrip("-"), value, finder.GROUP) for name, value in entries.items()]
        monkeypatch.setattr(finder, "installed", lambda: found)

    return offer


POOL = idle(3)


class Full:
    def saturation(self, candidates: object, now_s: float) -> float:
        return 1.0


class Idle:
    def saturation(self, candidates: object, now_s: float) -> float:
        return 0.0


class Never:
    """A timer."""

    def cancel(self) -> None: ...


def pipeline(type_: str, folder: Path | None = None, parameters: str = "{}") -> Pipeline:
    text = f"""\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: {type_}
  parameters: {parameters}
"""
    return load(YamlSource(text, "config.yaml"), Metrics(), Options(plugin_paths=[folder] if folder else []))


def refused(type_: str, folder: Path | None = None, parameters: str = "{}") -> str:
    with pytest.raises(ConfigError) as caught:
        pipeline(type_, folder, parameters)
    return str(caught.value)


def scores(made: Pipeline) -> list[float]:
    result = made.stages.scheduler.schedule(request(), idle(3).candidates())
    return list(result.scores[0])


def test_a_class_in_a_directory_by_its_dotted_path(folder: Path, write: Write) -> None:
    made = pipeline(f"{write(SCORER)}.Mine", folder, "{bestName: e3}")
    assert scores(made) == [0.0, 0.0, 1.0]
    assert made.guards[0].origin.startswith(str(folder))


def test_a_class_of_an_installed_package_by_its_name(write: Write, offer: Callable[..., None]) -> None:
    offer(mine=f"{write(SCORER)}:Mine", broken="no_such_module:Nothing")
    assert scores(pipeline("mine")) == [1.0, 0.0, 0.0]


def test_nothing_is_imported_that_no_configuration_names(write: Write, offer: Callable[..., None]) -> None:
    unused = write("raise SystemExit('imported')")
    offer(unused=f"{unused}:Mine")
    assert not pipeline("queue-scorer").guards
    assert unused not in sys.modules


def test_our_own_plugins_are_not_guarded(write: Write, offer: Callable[..., None]) -> None:
    offer(mine=f"{write(SCORER)}:Mine")
    profile = pipeline("queue-scorer").stages.scheduler.profiles["default"]
    assert type(profile.scorers[0].plugin) is QueueScorer


def test_limits_of_the_guard_are_parameters(folder: Path, write: Write) -> None:
    name = f"{write(SCORER)}.Mine"
    assert pipeline(name, folder, "{bestName: e1, guard: {callBudgetMs: 0.5}}").guards
    assert "guard.callBudgetMs" in refused(name, folder, "{guard: {callBudgetMs: 0}}")
    assert "did you mean 'callBudgetMs'?" in refused(name, folder, "{guard: {callBudget: 1}}")
    assert "did you mean 'bestName'?" in refused(name, folder, "{bestname: e1}")
    assert "config.yaml:5: plugins[0].parameters.bestName: Expected `str`, got `int`; found 1" in refused(name, folder, "{bestName: 1}")


def test_types_of_installed_packages_are_among_the_nearest(offer: Callable[..., None], write: Write) -> None:
    offer(my_own_scorer=f"{write(SCORER)}:Mine")
    assert "did you mean my-own-scorer" in refused("my-own-scoerr")


def test_the_name_of_one_of_ours_is_taken(offer: Callable[..., None], write: Write) -> None:
    offer(queue_scorer=f"{write(SCORER)}:Mine")
    text = refused("queue-scorer")
    assert text.startswith("config.yaml:4: plugins[0].type: plugin type 'queue-scorer' ships with fairlead, and foreign_")
    assert scores(pipeline("running-requests-size-scorer"))


def test_two_packages_with_the_same_name(offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "installed", lambda: [EntryPoint("mine", f"{m}:Mine", finder.GROUP) for m in ("one", "two")])
    assert "offered twice: one:Mine and two:Mine" in refused("mine")


def test_a_module_that_is_there_already_is_not_replaced(folder: Path) -> None:
    (folder / "json.py").write_text(SCORER)
    assert "a module 'json' is there already" in refused("json.Mine", folder)


def test_directories_that_are_not_there(folder: Path) -> None:
    assert "there is no such directory" in refused("a.B", folder / "none")
    assert "there is no module 'a'" in refused("a.B", folder)
    assert "say with --plugin-path" in refused("a.B")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import no_such_thing", "cannot import 'foreign_"),
        ("1 / 0", "ZeroDivisionError: division by zero ("),
        ("def Mine(): pass", "is a function; name a class"),
        ("class Other: pass", "no 'Mine' in foreign_"),
        ("class Mine: pass", "has none of the methods that make a plugin"),
        ("class Mine:\n def scores(self, r, c): ...", "is 'scores' meant to be 'score'?"),
        ("class Mine:\n def score(self, r): ...", "'score' is called with 2 arguments after self (see Scorer in fairlead.plugin)"),
        ("class Mine:\n @staticmethod\n def score(r, c): ...", "must be a plain method"),
        ("class Mine:\n async def score(self, r, c): ...", "must be a plain function: scheduling does not wait"),
        ("class Mine:\n timeout_s = 1\n def prepare(self, r): ...", "must be declared with 'async def'"),
        ("class Mine:\n async def prepare(self, r): ...", "lacks 'timeout_s'"),
        ("class Mine:\n def parse(self, p, h, b): ...", "lacks 'paths'"),
        ("class Mine:\n def primary(self, results): ...", "has 'primary' and lacks 'profiles'"),
        ("class Mine:\n produces = 'x'\n def produce(self, r, c): ...", "'produces' must be a set of strings"),
        (
            "class Mine:\n Parameters = dict\n def score(self, r, c): ...",
            "'Parameters' must be a class made from fairlead.plugin.Parameters",
        ),
        ("class Mine:\n def __init__(self, x): ...\n def score(self, r, c): ...", "__init__ must take (self, name, parameters, handle)"),
        (
            "class Mine:\n def __init__(self, name, parameters, handle): self.x['a']\n def score(self, r, c): ...",
            "its constructor failed: AttributeError: 'Mine' object has no attribute 'x' (",
        ),
        (
            "import abc\nclass Mine(abc.ABC):\n @abc.abstractmethod\n def more(self): ...\n def score(self, r, c): ...",
            "is abstract: more not implemented",
        ),
        (
            "import msgspec\nclass Mine:\n class Parameters(msgspec.Struct):\n  guard: int = 0\n def score(self, r, c): ...",
            "a parameter must not be called 'guard'",
        ),
    ],
)
def test_what_cannot_be_a_plugin_is_named(folder: Path, write: Write, body: str, said: str) -> None:
    name = write(body)
    text = refused(f"{name}.Mine", folder)
    assert said in text
    assert text.startswith("config.yaml:4: plugins[0].type: plugin type 'foreign_") or "constructor" in said
    assert name in text


def test_a_constructor_may_find_a_parameter_wrong(folder: Path, write: Write) -> None:
    name = write("class Mine:\n def __init__(self, name, parameters, handle): raise ValueError('no')\n def score(self, r, c): ...")
    assert refused(f"{name}.Mine", folder) == "config.yaml:5: plugins[0].parameters: no"


def test_the_class_and_the_entry_point_say_the_same_type(offer: Callable[..., None], write: Write) -> None:
    module = write("class Mine:\n type = 'other'\n def score(self, r, c): ...")
    offer(mine=f"{module}:Mine")
    assert "the class says type = 'other'" in refused("mine")


def test_one_class_may_be_used_twice(folder: Path, write: Write) -> None:
    type_ = f"{write(SCORER)}.Mine"
    text = f"""\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: {type_}, name: first}}
- {{type: {type_}, name: second, parameters: {{bestName: e2}}}}
"""
    made = loader.load(YamlSource(text, "test"), Metrics(), loader.Options(plugin_paths=[folder]))
    result = made.stages.scheduler.schedule(request(), idle(2).candidates())
    assert [(c.name, list(c.scores)) for c in result.columns] == [("first", [1.0, 0.0]), ("second", [0.0, 1.0])]


def test_a_policy_of_queues_in_a_configuration(folder: Path, write: Write) -> None:
    module = write("""
class Newest:
    def key(self, item):
        return -item.seq

class Broken:
    def queue(self):
        raise KeyError

    def ceilings(self, priorities, saturation):
        return None
""")
    text = f"""\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {{type: {module}.Newest, name: newest}}
- {{type: {module}.Broken, name: broken}}
flowControl:
  usageLimitPolicyPluginRef: broken
  defaultPriorityBand: {{orderingPolicyRef: newest, fairnessPolicyRef: broken}}
"""
    made = load(YamlSource(text, "config.yaml"), Metrics(), Options(plugin_paths=[folder]))
    assert made.flow is not None
    let_in: list[str] = []
    settings = made.flow
    controller = FlowController(settings, Room(Full(), lambda: POOL), Books(Metrics(), "pool"), lambda: 1.0, lambda *_: Never())
    for name in ("first", "second", "third"):
        asked = request()
        asked.fairness_id = "same"
        controller.enqueue(asked, lambda refusal, name=name: let_in.append(name))  # type: ignore[misc]
    controller.room.detector = Idle()
    controller.cycle()
    assert let_in == ["third", "second", "first"]
    assert [guard.name for guard in made.guards] == ["newest", "broken"]
    assert set(made.guards[1].taken_out) <= {"FairnessPolicy", "UsageLimitPolicy"}
    errors = [sum(breaker.state()["errors"].values()) for breaker in made.guards[1].breakers]
    assert len(errors) == 2 and all(errors)
