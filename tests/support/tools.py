"""Programs that are not part of the project; what needs one is skipped where it is missing, and says so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_HINTS = {
    "h2spec": "go install github.com/summerwind/h2spec/cmd/h2spec@latest",
    "h2load": "apt install nghttp2-client",
}


def needs(name: str) -> str:
    """The path of a program: on PATH, or where Go installs. Skips the test without it."""
    places = [os.environ.get("GOBIN"), *(f"{root}/bin" for root in (os.environ.get("GOPATH"), str(Path.home() / "go")) if root)]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(filter(None, places)))
    if found is None:
        pytest.skip(f"{name} is not installed ({_HINTS[name]})")
    return found
