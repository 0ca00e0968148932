"""What lies in the repository, what the lock pins, and what a bare command loads."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {
    *("pyproject.toml", "requirements.lock", "Makefile", "Dockerfile", "README.md", "CHANGELOG.md", "LICENSE"),
    *("picker", "gateway", "proto", "deploy", "bench", "tests", "docs", "fairlead", "examples"),
}
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(requirement: str) -> str:
    """A requirement's name as indexes compare it."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def locked() -> dict[str, str]:
    return {canonical(m[1]): m[2] for m in re.finditer(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", LOCK, re.MULTILINE)}


def test_the_top_level_holds_nothing_else() -> None:
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    entries = {e.name for e in ROOT.iterdir() if not e.name.startswith(".")}
    assert {e for e in entries if not any(fnmatch.fnmatch(e, pattern) for pattern in ignored)} == TOP_LEVEL


def test_proto_is_no_package() -> None:
    """It would shadow the package of that name on PyPI."""
    assert not (ROOT / "proto" / "__init__.py").exists()


def test_the_lock_names_no_index() -> None:
    assert "://" not in LOCK
    assert not [line for line in LOCK.splitlines() if line.startswith("-")]


REQUIREMENTS = [r for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()) for r in group]


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_every_dependency_is_locked_within_its_bounds(requirement: str) -> None:
    version = locked()[canonical(requirement)]
    for bound in re.findall(r">=([\d.]+)", requirement):
        assert numbers(version) >= numbers(bound)
    for bound in re.findall(r"<([\d.]+)", requirement):
        assert numbers(version) < numbers(bound)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.partition("+")[0])[:3])


def test_every_locked_version_has_hashes() -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) >= len(REQUIREMENTS)
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


HEAVY = (
    "asyncio grpc google.protobuf envoy_data_plane betterproto2 prometheus_client cryptography uvicorn httpx rich msgspec yaml "
    "xxhash uvloop"
)

HELP = f"""
import sys
from gateway.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print("loaded:", *[name for name in {HEAVY.split()} if name in sys.modules], file=sys.stderr)
"""


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60, check=True)
    assert "usage: fairlead" in done.stdout
    assert done.stderr == "loaded:\n"


PICKER_HELP = f"""
import sys
from picker.__main__ import main
try:
    main(["--help"])
except SystemExit:
    pass
print("loaded:", *[n for n in {HEAVY.split()} if n in sys.modules and n != "asyncio"], file=sys.stderr)
"""


def test_the_pickers_help_does_not_wait_for_its_servers() -> None:
    done = subprocess.run([sys.executable, "-c", PICKER_HELP], capture_output=True, text=True, timeout=60, check=True)
    assert "usage: fairlead picker" in done.stdout
    assert done.stderr == "loaded:\n"


SOURCES = [p for top in ("picker", "gateway", "bench", "fairlead", "proto", "tests") for p in sorted((ROOT / top).rglob("*.py"))]


@pytest.mark.parametrize("top", ["picker", "gateway", "bench", "tests"])
def test_every_folder_with_modules_is_a_package_with_a_bare_init(top: str) -> None:
    folders = {p.parent for p in SOURCES if p.is_relative_to(ROOT / top)}
    assert [f for f in folders if not (f / "__init__.py").exists()] == []
    for folder in folders:
        text = (folder / "__init__.py").read_text().strip()
        assert text == "" or re.fullmatch(r'"""[^"]+"""', text), folder


def test_no_source_file_is_longer_than_400_lines() -> None:
    generated = ROOT / "picker" / "extproc" / "pb"
    long = [(p.name, n) for p in SOURCES if not p.is_relative_to(generated) and (n := len(p.read_text().splitlines())) > 400]
    assert long == []
