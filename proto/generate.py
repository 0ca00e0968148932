"""Generates picker/extproc/pb from proto/*.proto; `--check` only says whether it is up to date (exit status 1 when it is not).

The generated messages are put in a descriptor pool of their own: with the default pool, a process that also loads upstream's own
generated code (some package brings it along) would fail on the second registration of the same message names.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
TARGET = PROTO.parent / "picker" / "extproc" / "pb"
PACKAGE_DOC = '"""Generated from proto/ by `make proto`; do not edit."""\n'


def generate(out: Path) -> None:
    """Write the package into `out`."""
    sources = sorted(PROTO.glob("*.proto"))
    args = ["protoc", f"-I{PROTO}", f"-I{files('grpc_tools') / '_proto'}", f"--python_out={out}", f"--pyi_out={out}"]
    if protoc.main([*args, *map(str, sources)]) != 0:
        sys.exit("protoc failed")
    (out / "__init__.py").write_text(PACKAGE_DOC)
    for module in out.glob("*_pb2.py"):
        text = module.read_text()
        changed = text.replace("_descriptor_pool.Default()", "pool()").replace(
            "from google.protobuf import descriptor_pool as _descriptor_pool\n", "from picker.extproc.descriptors import pool\n"
        )
        if changed.count("pool()") != 1 or "_descriptor_pool" in changed:
            sys.exit(f"{module.name}: the generated code looks different than expected; mend proto/generate.py")
        module.write_text(changed)


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name)
        generate(fresh)
        new = {f.name: f.read_bytes() for f in fresh.iterdir()}
    old = {f.name: f.read_bytes() for f in TARGET.iterdir() if f.is_file()}
    if new == old:
        print("generated code is up to date")
        return 0
    if check:
        print(f"generated code differs: {', '.join(sorted(n for n in new | old if new.get(n) != old.get(n)))}; run `make proto`")
        return 1
    for stale in old.keys() - new.keys():
        (TARGET / stale).unlink()
    for file_name, content in new.items():
        (TARGET / file_name).write_bytes(content)
    print(f"wrote {', '.join(sorted(new))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
