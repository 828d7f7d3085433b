"""`tokenworks calibrate run`: exit codes, records, resumption, and that nothing needs torch before it runs."""

# ruff: noqa: PLC0415 (torch is optional)

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from calibrate.records import read_measurements
from calibrate.run_command import run

app = typer.Typer()
app.command("run")(run)
app.command("other")(lambda: None)


def invoke(*arguments):
    return CliRunner().invoke(app, ["run", "--device", "cpu", *map(str, arguments)])


@pytest.fixture
def few(monkeypatch):
    """A grid of the three cheapest cases."""
    runner = pytest.importorskip(
        "calibrate.runner", reason="needs torch: pip install 'tokenworks[calibrate]'"
    )
    full = runner.plan

    def plan(*arguments):
        cheap = [c for c in full(*arguments) if c.operation.kernel in ("launch", "moe_gate")]
        return cheap[:3]

    monkeypatch.setattr(runner, "plan", plan)


def test_importing_the_command_imports_no_torch():
    code = "import sys, calibrate.run_command, calibrate.cases; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_without_torch_it_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = invoke("--out", tmp_path / "rec")
    assert found.exit_code == 2
    assert "pip install 'tokenworks[calibrate]'" in " ".join(found.stderr.split())
    assert not (tmp_path / "rec").exists()


def test_an_unknown_model_names_the_nearest(tmp_path):
    found = invoke("--model", "deepseek-v3.3", "--out", tmp_path)
    assert found.exit_code == 2
    assert "deepseek-v3.2" in found.stderr


def test_an_unknown_device_is_refused(tmp_path):
    pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    found = invoke("--out", tmp_path, "--device", "tpu")
    assert found.exit_code == 2
    assert "cpu or cuda" in found.stderr


def test_a_run_writes_records_and_the_next_one_has_nothing_left(tmp_path, few):
    pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    first = invoke("--out", tmp_path, "--json")
    assert first.exit_code == 0, first.output
    summary = json.loads(first.stdout.splitlines()[-1])
    assert (summary["points"], summary["ok"], summary["left"]) == (3, 3, 0)
    assert summary["operations"] == ["launch", "moe_gate"]
    assert summary["environment"]["device"] == "cpu"
    before = (tmp_path / "records.jsonl").read_bytes()
    assert all(record.ok for record in read_measurements(tmp_path / "records.jsonl"))

    assert invoke("--out", tmp_path).exit_code == 0
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_no_minutes_measure_nothing_and_say_what_is_left(tmp_path, few):
    pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    found = invoke("--out", tmp_path, "--minutes", 0)
    assert found.exit_code == 1
    assert "3 points left" in found.stderr


def test_records_of_another_environment_are_left_alone(tmp_path, few):
    pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    assert invoke("--out", tmp_path).exit_code == 0
    path = tmp_path / "records.jsonl"
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "abacus"'))
    before = path.read_bytes()
    found = invoke("--out", tmp_path)
    assert found.exit_code == 2
    assert "'abacus' then, 'cpu' now" in " ".join(found.stderr.split())
    assert path.read_bytes() == before


def test_ctrl_c_keeps_what_was_measured(tmp_path, few, monkeypatch):
    pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    from calibrate.measure import Bench

    measure, asked = Bench.measure, []

    def interrupted(self, point, records):
        asked.append(point)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return measure(self, point, records)

    monkeypatch.setattr(Bench, "measure", interrupted)
    found = invoke("--out", tmp_path, "--json")
    assert found.exit_code == 130
    assert json.loads(found.stdout.splitlines()[-1])["points"] == 1
    monkeypatch.setattr(Bench, "measure", measure)
    assert invoke("--out", tmp_path).exit_code == 0
    assert len(read_measurements(tmp_path / "records.jsonl")) == 3


def test_a_run_that_is_cut_short_says_what_its_profile_lacks(tmp_path, few):
    pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    found = invoke("--out", tmp_path, "--minutes", 0)
    assert "Not measured yet: launch bf16 (0 of 1), moe_gate" in " ".join(found.stderr.split())
    assert invoke("--out", tmp_path).exit_code == 0
    assert json.loads((tmp_path / "coverage.json").read_text())["launch bf16"] == [1, 1]
