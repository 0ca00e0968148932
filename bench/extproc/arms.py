"""What is compared: the table of arms. An arm that this version of the picker cannot run is skipped with the reason."""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from picker import catalogue
from picker.config import DEFAULT_TEXT
from picker.errors import ConfigError
from picker.keys import LATENCY_PREDICTION
from picker.loader import Options, load
from picker.metrics import Metrics
from picker.scheduling.filters import ROLE_LABEL
from picker.yaml_source import YamlSource

BASELINE = "envoy"
OURS = "h2"

# A role that all of the role filters let pass.
LABELS = {ROLE_LABEL: "encode-prefill-decode", "tier": "bench"}
PLACEHOLDERS = ("grpc_port", "health_port", "metrics_port", "endpoints")


class Kind(enum.Enum):
    """What stands behind Envoy's ext_proc filter."""

    PLAIN = "nothing: Envoy without ext_proc, round robin"
    ECHO = "a server that says what it hears"
    PICKER = "fairlead picker"
    PEER = "another picker"


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm. `only`: the workloads that it has something to say about, empty for all. `command` is a peer's, with placeholders.

    `bodies`: `duplex` as `fairlead envoy render` has it, `kept` with `--keep-response-bodies`, `override` where Envoy listens to a
    `mode_override` (requests BUFFERED, responses STREAMED).
    """

    name: str
    kind: Kind
    note: str
    flags: tuple[str, ...] = ()
    config: str | None = None
    labels: bool = False
    bodies: Literal["duplex", "kept", "override"] = "duplex"
    only: tuple[str, ...] = ()
    command: str = ""


def usable(classes: Iterable[type[Any]]) -> list[type[Any]]:
    """Those that need no prediction of latencies, which nothing here makes."""
    return [cls for cls in classes if LATENCY_PREDICTION not in getattr(cls, "consumes", ())]


def everything() -> str:
    """A configuration with every scorer and every filter of the catalogue, and a list of fallbacks."""
    parameters = {
        "label-selector-filter": {
            "matchLabels": {"tier": "bench"},
            "matchExpressions": [{"key": ROLE_LABEL, "operator": "Exists"}],
        },
        "by-label": {"label": "tier", "validValues": ["bench"]},
        "utilization-filter": {"conditions": [{"metric": "waiting-queue", "maxValue": 1_000_000}]},
        "endpoint-attribute-filter": {
            "attribute": "heat",
            "algorithm": {"type": "threshold", "threshold": {"operator": "LessThan", "value": 90}},
        },
        "header-label-affinity-scorer": {"headerName": "x-tier", "labelKey": "tier"},
        "endpoint-attribute-scorer": {"attributeKey": "heat", "algorithm": {"type": "linear_lower_is_better"}},
        "max-score-picker": {"maxNumOfEndpoints": 3},
    }
    filters = [cls.type for cls in usable(catalogue.FILTERS)]
    scorers = [cls.type for cls in usable(catalogue.SCORERS)]
    names = list(dict.fromkeys(["utilization-detector", *filters, *scorers, "max-score-picker"]))  # some are both
    document = {
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [{"type": name, **({"parameters": parameters[name]} if name in parameters else {})} for name in names],
        "schedulingProfiles": [
            {
                "name": "default",
                "plugins": [{"pluginRef": name, **({"weight": 1} if name in scorers else {})} for name in names],
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False)


_H2 = "--transport=h2"
# 200 scrapes a second are a large part of what a few thousand events, or a hundred long prompts, cost.
_SELDOM = "--refresh-metrics-interval=1s"
_UNREAD = "--response-metrics=false"
_STREAMS = ("sse100", "sse1000")
_IDLE = ("idle10", "idle100")
_LOADED = ("small", "rate500", *_STREAMS, "long", "million")

ARMS = (
    Arm(BASELINE, Kind.PLAIN, "Envoy without ext_proc", only=_LOADED),
    Arm("echo", Kind.ECHO, "echo-only server on the lean transport: the floor", only=_LOADED),
    Arm(OURS, Kind.PICKER, "picker, `--transport h2`", (_H2,)),
    Arm("grpcio", Kind.PICKER, "picker, `--transport grpcio`", ("--transport=grpcio",), only=_LOADED),
    Arm(
        "everything", Kind.PICKER, "`h2` with every scorer and filter but those of predictions, three fallbacks, a log of 16,384 decisions",
        (_H2, "--decision-log-size=16384", "--allow-experimental-plugins"), everything(), labels=True, only=_LOADED,
    ),
    Arm("h2-1s", Kind.PICKER, "`h2` scraping once a second: almost without that part", (_H2, _SELDOM), only=("small", *_STREAMS, "long")),
    Arm(
        "no-metrics", Kind.PICKER, "`h2` with `--response-metrics=false`: bodies pass unread, Envoy ignores `mode_override` in full duplex",
        (_H2, _UNREAD), only=("small", *_STREAMS, "long"),
    ),
    Arm(
        "kept", Kind.PICKER, "the same behind an Envoy with `--keep-response-bodies`",
        (_H2, _UNREAD), bodies="kept", only=("small", *_STREAMS, "long"),
    ),
    Arm(
        "override", Kind.PICKER, "the same behind an Envoy that listens to `mode_override`: requests BUFFERED, responses STREAMED",
        (_H2, _UNREAD), bodies="override", only=_STREAMS,
    ),
    Arm("override-1s", Kind.PICKER, "the same, scraping once a second", (_H2, _UNREAD, _SELDOM), bodies="override", only=_STREAMS),
    Arm(
        "reference", Kind.PICKER, "`h2` scraping at the reference's fixed rate",
        (_H2,), f"{DEFAULT_TEXT}compat: reference\n", only=_IDLE,
    ),
)  # fmt: skip


def peer(text: str) -> Arm:
    """From `NAME=COMMAND`. Raises ValueError saying what was expected."""
    name, equals, command = (part.strip() for part in text.partition("="))
    if not (equals and re.fullmatch(r"[\w.-]+", name) and command):
        raise ValueError(f"{text!r}: expected NAME=COMMAND, the name of letters, digits, '.', '_' and '-'")
    if name in {arm.name for arm in ARMS}:
        raise ValueError(f"{name!r}: an arm of that name exists; call the peer something else")
    unknown = set(re.findall(r"\{(\w*)\}", command)) - set(PLACEHOLDERS)
    if unknown:
        raise ValueError(f"{name}: unknown placeholder {{{min(unknown)}}}; there are {', '.join('{' + p + '}' for p in PLACEHOLDERS)}")
    if "{grpc_port}" not in command:
        raise ValueError(f"{name}: the command must say {{grpc_port}}, or Envoy cannot find the peer")
    try:
        shlex.split(command)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return Arm(name, Kind.PEER, f"`{name}`, a peer", command=command)


def fill(command: str, values: dict[str, str]) -> list[str]:
    """The argument vector of a peer. Each word is filled in by itself, so that a value with blanks stays one."""
    return [re.sub(r"\{(\w+)\}", lambda found: values[found[1]], word) for word in shlex.split(command)]


def chosen(arms: Iterable[Arm], names: Sequence[str] | None) -> list[Arm]:
    """Those called `names` (None: all), in the order of the table. Raises ValueError for a name that is none."""
    arms = list(arms)
    known = [arm.name for arm in arms]
    for name in names or ():
        if name not in known:
            raise ValueError(f"{name!r}: expected one of {', '.join(known)}")
    return [arm for arm in arms if names is None or arm.name in names]


def unavailable(arm: Arm, picker_help: str) -> str | None:
    """Why this version of the picker cannot run the arm; None when it can. `picker_help` is what `picker --help` prints."""
    for flag in (text.partition("=")[0] for text in arm.flags):
        if not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", picker_help):
            return f"this picker has no {flag}"
    if arm.config is not None:
        try:
            load(YamlSource(arm.config, f"arm {arm.name}"), Metrics(), Options(experimental="--allow-experimental-plugins" in arm.flags))
        except ConfigError as error:
            return f"this picker refuses the configuration: {error}"
    return None
