"""What docs/launch.md shows is what happens."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from launches import launch
from typer.testing import CliRunner

from sim.cli import app
from sim.scenario.errors import ScenarioError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\w*\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_of_the_page_print_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shown = 0
    for block, after in pairwise(BLOCKS):
        if block.startswith("tokenworks "):
            result = CliRunner().invoke(app, shlex.split(block)[1:])
            assert (result.exit_code, result.stdout) == (0, after)
            shown += 1
    assert shown == 2


def test_the_error_of_the_page_is_told_as_shown() -> None:
    [error] = [block for block in BLOCKS if block.startswith("command:")]
    text = re.search(r"^     1 \| (.*)$", error, re.MULTILINE)[1]  # type: ignore[index]
    with pytest.raises(ScenarioError) as caught:
        launch(text)
    assert str(caught.value) + "\n" == error
