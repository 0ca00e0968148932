"""The whole suite runs over both transports, but for what has nothing to do with them."""

from __future__ import annotations

import pytest

from tests.support import picker_process

TRANSPORTS = ("h2", "grpcio")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test once per transport."""
    if metafunc.definition.get_closest_marker("any_transport") is None:
        metafunc.parametrize("transport", TRANSPORTS, indirect=True)


@pytest.fixture(autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """That of every picker the test starts; None: the default one."""
    name: str | None = getattr(request, "param", None)
    if name is not None:
        monkeypatch.setattr(picker_process, "COMMON_FLAGS", (f"--transport={name}",))
    return name
