"""An objectives file that changes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from picker.datalayer.objectives.file import ObjectivesFile, ObjectivesStatus
from picker.datalayer.objectives.store import ObjectiveStore
from picker.errors import ConfigError
from tests.picker.datalayer.discovery.test_file import Nudge
from tests.picker.datalayer.objectives.test_document import OBJECTIVE, REWRITE


class Rig:
    def __init__(self, directory: Path, text: str) -> None:
        self.path = directory / "objectives.yaml"
        self.path.write_text(text)
        self.nudge = Nudge()
        self.reloads: list[bool] = []
        self.store = ObjectiveStore()
        self.file = ObjectivesFile(
            self.path, self.store, pool_name="pool", watch=self.nudge, on_reload=self.reloads.append, wall=lambda: 1000.0
        )

    async def write(self, text: str) -> None:
        self.path.write_text(text)
        await self.nudge.look()


async def test_a_bad_change_keeps_the_last_good_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(tmp_path, OBJECTIVE)
    await rig.file.start()
    follower = asyncio.create_task(rig.file.follow())
    try:
        assert (rig.store.priority("batch"), rig.store.target("m")) == (-2, "")
        await rig.write(OBJECTIVE.replace("-2", "low"))
        await rig.write(OBJECTIVE.replace("-2", "low"))
        assert rig.store.priority("batch") == -2
        assert rig.reloads == [True, False]
        assert rig.file.status.last_error and "objectives.yaml:4: spec.priority" in rig.file.status.last_error
        assert caplog.text.count("keeping the last good 1 objectives and 0 rewrites") == 1
        await rig.write(OBJECTIVE.replace("-2", "3") + "---\n" + REWRITE)
        assert (rig.store.priority("batch"), rig.store.target("m")) == (3, "t")
        assert rig.file.status == ObjectivesStatus(1000.0, None, objectives=1, rewrites=1)
        await rig.write("")
        assert (rig.store.priority("batch"), rig.store.target("m")) == (0, "")
        assert rig.reloads == [True, False, True, True]
    finally:
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower


async def test_a_bad_file_refuses_to_start(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "kind: x")
    with pytest.raises(ConfigError, match="apiVersion"):
        await rig.file.start()
    rig.path.unlink()
    with pytest.raises(ConfigError, match="expected a readable file"):
        await rig.file.start()
