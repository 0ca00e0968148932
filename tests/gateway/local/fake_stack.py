"""`fairlead up` with stand-ins for its processes: `python -m tests.gateway.local.fake_stack PORT... [--once] [WAY of the last]`."""

import sys

from gateway.address import HostPort, PortClaim
from gateway.local.part import Part, answers_200, envoy_ready
from gateway.local.plan import LocalSettings
from gateway.local.session import Session, SessionSettings


def fake(name: str, port: int, way: str, *, wave: int = 0) -> Part:
    """One stand-in; those of a later wave are asked for as Envoy is."""
    at = HostPort("127.0.0.1", port)
    return Part(
        name=name,
        role="stand-in",
        argv=(sys.executable, "-m", "tests.gateway.local.fake_part", str(port), way),
        address=at,
        ready=envoy_ready(at, "picker") if wave else answers_200(f"http://{at}/health"),
        wave=wave,
    )


def main() -> int:
    """Run three stand-ins; the last one is the one clients talk to."""
    arguments = sys.argv[1:]
    once = "--once" in arguments
    sim, picker, envoy = (int(text) for text in arguments[:3])
    way = next((text for text in arguments[3:] if not text.startswith("--")), "serve")
    parts = [fake("sim-0", sim, "serve"), fake("picker", picker, "serve"), fake("envoy", envoy, way, wave=1)]
    claims = [PortClaim(part.address, part.name, f"--{part.name}-port") for part in parts]
    local = LocalSettings(port=envoy, metrics_port=picker)
    return Session(local, SessionSettings(once=once, wait_timeout_s=3.0 if way == "deaf" else 30.0), parts, claims).run()


if __name__ == "__main__":
    sys.exit(main())
