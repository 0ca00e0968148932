"""Addresses and the check for free ports."""

import socket

import pytest

from gateway.address import HostPort, PortClaim, conflicts
from tests.support.ports import free_ports


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:80", HostPort("127.0.0.1", 80)), ("[::1]:65535", HostPort("::1", 65535)), (" name:1 ", HostPort("name", 1))],
)
def test_addresses_are_read_and_printed(text: str, address: HostPort) -> None:
    assert HostPort.parse(text) == address
    assert str(address) == text.strip()


@pytest.mark.parametrize("text", ["", "80", "a:", ":80", "a:0", "a:65536", "a:-1", "a:x", "::1:80", "a:²"])
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|not within|brackets"):
        HostPort.parse(text)


def test_conflicts_name_the_port_its_purpose_and_its_flag() -> None:
    free, shared = free_ports(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        problems = conflicts(
            [
                PortClaim(HostPort("127.0.0.1", free), "A", "--a"),
                PortClaim(HostPort("127.0.0.1", busy), "Envoy listener", "--port"),
                PortClaim(HostPort("127.0.0.1", shared), "B", "--b"),
                PortClaim(HostPort("127.0.0.1", shared), "C", "--c"),
            ]
        )
    assert problems == [
        f"port {busy} (Envoy listener) is in use; choose another with --port",
        f"port {shared} (C) is also the port of B; choose another with --c",
    ]


def test_a_listener_with_so_reuseport_is_a_conflict_too() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert conflicts([PortClaim(HostPort("127.0.0.1", taken.getsockname()[1]), "Envoy listener", "--port")])
