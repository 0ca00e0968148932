"""The soak with flow control: a small pool, and requests of random priorities, fairness ids and times to live that queue in front of it."""

from __future__ import annotations

from pathlib import Path
from random import Random

PRIORITIES = {"urgent": 10, "usual": 0, "batch": -1}
TEXTS = (b"queue at capacity", b"request timed out in queue", b"displaced by a request of higher priority", b"request evicted")
_CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- type: queue-scorer
- {type: concurrency-detector, parameters: {maxConcurrency: 2}}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: queue-scorer}]}
flowControl:
  saturationDetector: {pluginRef: concurrency-detector}
  enableEviction: true
  maxRequests: 12
  defaultPriorityBand: {fairnessPolicyRef: round-robin-fairness-policy}
"""


def picker_args(folder: Path) -> list[str]:
    """Flags of the picker; the objectives are written to `folder`."""
    objectives = folder / "objectives.yaml"
    kind = "apiVersion: llm-d.ai/v1alpha2\nkind: InferenceObjective"
    made = [f"{kind}\nmetadata: {{name: {name}}}\nspec: {{priority: {priority}}}\n" for name, priority in PRIORITIES.items()]
    objectives.write_text("---\n".join(made))
    return [f"--config-text={_CONFIG}", f"--objectives-file={objectives}", "--allow-experimental-plugins"]


def headers(random: Random) -> list[tuple[str, str]]:
    """Of one request."""
    chosen = [
        ("x-llm-d-inference-objective", random.choice(list(PRIORITIES))),
        ("x-llm-d-inference-fairness-id", f"tenant-{random.randrange(40)}"),
    ]
    if random.random() < 0.3:
        chosen.append(("x-request-timeout-ms", str(random.randrange(1, 200))))
    return chosen


def turned_away(status: int, body: bytes) -> bool:
    """Whether flow control said no, for a reason of its own."""
    return status == 429 and any(reason in body for reason in TEXTS)
