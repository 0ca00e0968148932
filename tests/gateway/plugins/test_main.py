"""`fairlead plugin`: what it writes works, passes its own tests and is found once installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.plugins.__main__ import main
from gateway.plugins.kinds import KINDS
from gateway.plugins.writing import CannotWrite, files, write

ROOT = Path(__file__).resolve().parents[3]


def run(*command: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *([path] if path else [])])), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_passes_its_own_tests_and_ruff(kind: str, tmp_path: Path) -> None:
    folder = write(kind, "my-own", tmp_path)
    tested = run("pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    for check in (["check", "--extend-select=I,B,UP,RUF"], ["format", "--check", "--diff"]):
        done = run("ruff", *check, "--isolated", "--no-cache", ".", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr


def test_new_packages_are_typed(tmp_path: Path) -> None:
    modules = [str(write(kind, f"a-{kind}", tmp_path) / f"a_{kind}" / f"{kind}.py") for kind in KINDS]
    flags = ("--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache"))
    done = run("mypy", *flags, *modules, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_scorer_is_found_once_installed(tmp_path: Path) -> None:
    folder, site = write("scorer", "my-own", tmp_path), tmp_path / "site"
    pip = run("pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(folder), cwd=tmp_path)
    assert pip.returncode == 0, pip.stderr
    listed = run("gateway.plugins", "list", cwd=tmp_path, path=site)
    assert listed.returncode == 0, listed.stderr
    assert "my-own\tmy-own 0.1.0: my_own.scorer:MyOwnScorer\tScorer\n" in listed.stdout


def test_what_cannot_be_used_is_listed_with_the_reason(tmp_path: Path) -> None:
    site = tmp_path / "site"
    metadata = site / "broken-0.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text("[fairlead.plugins]\nbroken-one = no_such_module:Nothing\nqueue-scorer = json:JSONDecoder\n")
    listed = run("gateway.plugins", "list", cwd=tmp_path, path=site)
    assert listed.returncode == 1
    assert "broken-one\tbroken 0.1: no_such_module:Nothing\tcannot be used: " in listed.stdout
    assert "No module named 'no_such_module'" in listed.stdout


def test_a_parser_is_offered_with_ours(tmp_path: Path) -> None:
    assert "- type: summary\n- type: openai-parser\n" in files("parser", "summary")["README.md"]


@pytest.mark.parametrize("name", ["", "Upper", "two--dashes", "under_score", "-x", "x-", "1st", "../up", "import"])
def test_a_name_that_is_not_fit(name: str, tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="expected a name such as spare-queue"):
        write("scorer", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "filter", "mine", "--dir", str(tmp_path)]) == 0
    assert "next: cd " in capsys.readouterr().out
    assert main(["new", "scorer", "mine", "--dir", str(tmp_path)]) == 1
    assert "is there already" in capsys.readouterr().err
