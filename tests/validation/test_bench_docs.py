"""What docs/bench.md shows is what happens: the file is read, the rows come in that order with what was measured."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sim.cli import app

PAGE = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def block(language: str, number: int = 0) -> str:
    return [text for of, text in BLOCKS if of == language][number]


def columns(text: str) -> list[tuple[str, ...]]:
    """Metric and measured value of each row of a table; the lines around it whole."""
    cells = [re.split(r"\s{2,}", line.strip())[:2] for line in text.splitlines() if line.strip()]
    return [tuple(row) for row in cells]


def test_the_example_is_read_and_compared_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("service.yaml").write_text(block("yaml"))
    Path("result.jsonl").write_text(block("json").replace("\n", " ") + "\n")
    command, shown = block(""), block("", 1)
    told = CliRunner().invoke(app, shlex.split(command)[1:])
    assert told.exit_code == 0, told.stderr
    got = columns(told.stdout)
    for row in columns(shown):
        assert row in got, row


def test_two_points_make_an_anchor_that_a_scenario_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("service.yaml").write_text(block("yaml"))
    line = block("json").replace("\n", " ")
    Path("low.jsonl").write_text(line.replace('"max_concurrency": 4', '"max_concurrency": 2') + "\n")
    Path("high.jsonl").write_text(line + "\n")
    told = CliRunner().invoke(app, shlex.split(block("", 2))[1:])
    assert told.exit_code == 0, told.stderr
    assert "Its own error" in told.stdout and "from the others" in told.stdout
    Path("anchored.yaml").write_text(block("yaml") + yaml.safe_dump(yaml.safe_load(block("text"))))
    run = CliRunner().invoke(app, ["run", "anchored.yaml"])
    assert run.exit_code == 0 and "my-cluster.json: steps x" in run.stdout, run.stderr
