"""Write the part of requirements.lock that an image needs, hashes kept, to standard output.

    runtime_requirements.py runtime   what `fairlead[envoy]` needs at run time
    runtime_requirements.py build     what builds its wheel

pip's own resolver finds the transitive dependencies, held to the versions of the lock; the lock's lines for them are then
copied as they are, so that `pip install --require-hashes --no-deps -r` checks every file.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRA = "envoy"


def canonical(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, str]:
    """The lock's entries by name, each with its continuation lines."""
    entries: dict[str, str] = {}
    for entry in re.split(r"(?<!\\)\n", text):
        if found := re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==", entry):
            entries[canonical(found[1])] = entry
    return entries


def wanted(kind: str) -> list[str]:
    """The requirements that pyproject.toml names itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if kind == "build":
        return list(project["build-system"]["requires"])
    return [*project["project"]["dependencies"], *project["project"]["optional-dependencies"][EXTRA]]


def resolved(requirements: list[str], entries: dict[str, str]) -> list[str]:
    """The names of everything `requirements` need on this platform, in the versions of the lock."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("".join(entry.split("\\")[0].strip() + "\n" for entry in entries.values()), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
        report = subprocess.run([*command, "--constraint", str(constraints), *requirements], stdout=subprocess.PIPE, check=True).stdout
    return sorted(canonical(item["metadata"]["name"]) for item in json.loads(report)["install"])


def main() -> None:
    """Print the entries; an error names what the lock lacks."""
    if sys.argv[1:] not in (["runtime"], ["build"]):
        sys.exit(__doc__)
    entries = locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    names = resolved(wanted(sys.argv[1]), entries)
    if missing := [name for name in names if name not in entries]:
        sys.exit(f"requirements.lock has no entry for {', '.join(missing)}; run `make lock`")
    sys.stdout.write("".join(entries[name] + "\n" for name in names))


if __name__ == "__main__":
    main()
