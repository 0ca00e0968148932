"""`python -m bench.extproc.watched MODULE ARGUMENTS`: runs a module's `main` and counts what its garbage collector does.

For each line on standard input it prints a JSON object: collections by generation, the CPU time they took, how long the longest of
them lasted, and memory blocks in use. The program under test is not changed: collections are counted by `gc.callbacks`, and a thread
that sleeps in a read answers. Counting starts afresh with each answer.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import threading
from time import perf_counter, thread_time


class Collections:
    """Counts the collections since the last answer."""

    def __init__(self) -> None:
        self._began_s = self._began_cpu_s = 0.0
        self._clear()
        gc.callbacks.append(self._called)

    def _clear(self) -> None:
        self._counts = [0, 0, 0]
        self._cpu_s = self._longest_s = 0.0

    def _called(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began_s, self._began_cpu_s = perf_counter(), thread_time()
            return
        self._counts[info["generation"]] += 1
        self._cpu_s += thread_time() - self._began_cpu_s
        self._longest_s = max(self._longest_s, perf_counter() - self._began_s)

    def answer(self) -> dict[str, object]:
        """Since the last one."""
        found = {
            "collections": self._counts,
            "cpu_s": self._cpu_s,
            "longest_s": self._longest_s,
            "blocks": sys.getallocatedblocks(),
        }
        self._clear()
        return found


def _listen(collections: Collections) -> None:
    # os.read: a thread that waits inside a buffered reader would get in the way of the end of the interpreter.
    while os.read(0, 4096):
        os.write(1, json.dumps(collections.answer()).encode() + b"\n")


def main() -> int:
    """The exit status of the module's `main`."""
    program = importlib.import_module(sys.argv[1])
    threading.Thread(target=_listen, args=(Collections(),), name="watched", daemon=True).start()
    return int(program.main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
