"""A few kills of the quickest command; many of all of them: `python tests/kills/kill_all.py`."""

import random
from pathlib import Path

import pytest
from killed_commands import COMMANDS, NEW, OLD, lay_out
from killing import Scene

FEW = 3


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_killed_command_leaves_a_whole_result_and_no_child(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    lay_out(inputs)
    scene, rng = Scene(COMMANDS["calibrate fit"], tmp_path, inputs), random.Random(1)
    assert {scene.kill(rng).left for _ in range(FEW)} <= {OLD, NEW}
    assert scene.again() == ""
