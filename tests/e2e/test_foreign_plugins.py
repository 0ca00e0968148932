"""Plugins of others decide through the real Envoy: an installed package, and one that breaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import SIM_ARGS, StartStack
from tests.e2e.requests import CHAT, chat_body, request_id, unique_text
from tests.support.envoy_stack import EnvoyStack

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "fairlead-tenant-home"


def config(type_: str) -> str:
    return f"""\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: {type_}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 0.001
  - pluginRef: {type_}
    weight: 1
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example, installed from a copy into a folder that every process of the stack looks into."""
    site, copy = tmp_path / "site", tmp_path / "copy"
    for path in EXAMPLE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and not any(part.endswith(".egg-info") for part in path.parts):
            target = copy / path.relative_to(EXAMPLE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    flags = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site))
    done = subprocess.run([sys.executable, "-m", "pip", "install", *flags, str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *inherited, str(site)]))
    monkeypatch.syspath_prepend(site)
    return site


async def test_an_installed_package_changes_where_requests_go(installed: Path, start_stack: StartStack) -> None:
    from tenant_home.scorer import weight  # type: ignore[import-not-found]

    stack = await start_stack(sims=3, sim_args=SIM_ARGS, config=config("tenant-home-scorer"))
    homes = set()
    async with stack.client() as client:
        for tenant in (f"tenant-{i}" for i in range(12)):
            home = max(stack.servers, key=lambda server: weight(tenant, server))
            homes.add(home)
            for _ in range(2):
                identity = request_id()
                headers = {"x-tenant": tenant, "x-request-id": identity}
                answer = await client.post(CHAT, json=chat_body(unique_text(3)), headers=headers)
                assert answer.status_code == 200, answer.text
                assert answer.headers["x-sim-endpoint"] == home
            scorers = (await stack.decision(identity))["scorers"]
            assert "tenant-home-scorer" in [scorer["type"] for scorer in scorers]
    assert len(homes) > 1
    states = (await stack.debug("/debug/plugins/state"))["plugins"]
    assert [state["from"] for state in states] == ["fairlead-tenant-home 0.1.0: tenant_home.scorer:TenantHomeScorer"]
    assert states[0]["extension_points"][0]["errors"] == {"raised": 0, "invalid": 0, "slow": 0}


async def test_a_plugin_that_raises_breaks_no_request(tmp_path: Path, envoy_binary: None) -> None:
    plugins, folder = tmp_path / "plugins", tmp_path / "stack"
    plugins.mkdir()
    folder.mkdir()
    (plugins / "mine.py").write_text(
        "class Broken:\n    def score(self, request, candidates):\n        raise RuntimeError('of the plugin')\n"
    )
    flags = [f"--plugin-path={plugins}"]
    async with EnvoyStack(folder, sims=2, sim_args=SIM_ARGS, picker_args=flags, config=config("mine.Broken")) as stack:
        async with stack.client() as client:
            for _ in range(12):
                assert (await client.post(CHAT, json=chat_body(unique_text(3)))).status_code == 200
        await stack.settled()
        (state,) = (await stack.debug("/debug/plugins/state"))["plugins"][0]["extension_points"]
        assert (state["state"], state["errors"]["raised"]) == ("taken out", 5)
        ready = await stack.debug("/readyz")
        assert (ready["ready"], ready["plugins_taken_out"]) == (True, {"mine.Broken": ["Scorer"]})
        assert "RuntimeError: of the plugin; 3 more since the last such line; taken out" in stack.picker.log()
