"""What `fairlead up` runs: the settings, the ports they claim, and the parts they make."""

import sys
from dataclasses import dataclass
from pathlib import Path

from gateway.address import HostPort, PortClaim
from gateway.local.part import Part, answers_200, envoy_ready

LOOPBACK = "127.0.0.1"
DEFAULT_MODEL = "demo-model"
PICKER_CLUSTER = "picker"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """The local stack. `endpoints` are real model servers to use in place of simulators. `model` None leaves the choice to them."""

    sims: int = 3
    sim_base_port: int = 8001
    sim_args: tuple[str, ...] = ()
    endpoints: tuple[HostPort, ...] = ()
    model: str | None = None
    port: int = 8080
    admin_port: int = 19000
    envoy_args: tuple[str, ...] = ()
    picker_port: int = 9002
    picker_health_port: int = 9003
    metrics_port: int = 9090
    config_file: Path | None = None
    picker_args: tuple[str, ...] = ()

    @property
    def model_servers(self) -> tuple[HostPort, ...]:
        """Where requests end up."""
        return self.endpoints or tuple(HostPort(LOOPBACK, self.sim_base_port + index) for index in range(self.sims))

    @property
    def gateway_url(self) -> str:
        """Base address for clients."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def picker_url(self) -> str:
        """Base address of the picker's metrics and debug pages."""
        return f"http://{LOOPBACK}:{self.metrics_port}"


def claims(settings: LocalSettings) -> list[PortClaim]:
    """Every port the stack is going to listen on."""
    wanted = [
        (settings.port, "Envoy listener", "--port"),
        (settings.admin_port, "Envoy admin", "--admin-port"),
        (settings.picker_port, "picker ext_proc", "--picker-port"),
        (settings.picker_health_port, "picker health", "--picker-health-port"),
        (settings.metrics_port, "picker metrics", "--metrics-port"),
    ]
    if not settings.endpoints:
        wanted += [(at.port, _sim_name(index), "--sim-base-port") for index, at in enumerate(settings.model_servers)]
    return [PortClaim(HostPort(LOOPBACK, port), purpose, flag) for port, purpose, flag in wanted]


def parts(settings: LocalSettings) -> list[Part]:
    """The processes: simulators and picker first, Envoy once the picker is ready."""
    sims = [] if settings.endpoints else [_sim(settings, index, at) for index, at in enumerate(settings.model_servers)]
    return [*sims, _picker(settings), _envoy(settings)]


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    # -P: a folder named `picker` or `bench` where the user stands must not be run in place of ours.
    return (sys.executable, "-P", "-m", module, *arguments)


def _sim_name(index: int) -> str:
    return f"sim-{index}"


def _sim(settings: LocalSettings, index: int, at: HostPort) -> Part:
    return Part(
        name=_sim_name(index),
        role="model server",
        argv=_python("bench.sim", "--port", str(at.port), "--model", settings.model or DEFAULT_MODEL, *settings.sim_args),
        address=at,
        ready=answers_200(f"http://{at}/health"),
    )


def _picker(settings: LocalSettings) -> Part:
    arguments = [
        "--endpoints",
        ",".join(str(at) for at in settings.model_servers),
        "--grpc-port",
        str(settings.picker_port),
        "--grpc-health-port",
        str(settings.picker_health_port),
        "--metrics-port",
        str(settings.metrics_port),
        f"--host={LOOPBACK}",
        "--secure-serving=false",
        # Nobody needs to notice that this picker goes: its proxy goes with it.
        "--drain-timeout=0s",
    ]
    if settings.config_file is not None:
        arguments += ["--config-file", str(settings.config_file)]
    return Part(
        name="picker",
        role="endpoint picker",
        argv=_python("picker", *arguments, *settings.picker_args),
        address=HostPort(LOOPBACK, settings.picker_port),
        ready=answers_200(f"{settings.picker_url}/readyz"),
    )


def _envoy(settings: LocalSettings) -> Part:
    arguments = [
        "envoy",
        "run",
        f"--port={settings.port}",
        f"--admin-port={settings.admin_port}",
        f"--picker-address={LOOPBACK}:{settings.picker_port}",
        f"--picker-health-port={settings.picker_health_port}",
        "--picker-health-interval=1s",
        "--concurrency=1",
    ]
    return Part(
        name="envoy",
        role="proxy",
        argv=_python("gateway", *arguments, *settings.envoy_args),
        address=HostPort(LOOPBACK, settings.port),
        ready=envoy_ready(HostPort(LOOPBACK, settings.admin_port), PICKER_CLUSTER),
        wave=1,
    )
