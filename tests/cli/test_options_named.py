"""What is wrong with an option is told of the option, not of the key that shared code knows it by."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app

CHAT = """
model: deepseek-v3
gpu: h200_sxm
deployment: {serve: {gpus: 8, ep: 8, max_batch_per_gpu: 64}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 1000}, output: {constant: 50}}
duration_s: 60
"""
HEAD = "timestamp,input_tokens,output_tokens"
FILES = {
    "chat.yaml": CHAT,
    "milliseconds.csv": "\n".join([HEAD, *(f"{i * 200 + 0.5},100,10" for i in range(2000))]),
    "dates.csv": f"{HEAD}\n2026-01-01 00:00:00,10,5\n2026-01-01 00:00:01,10,5\n",
    "late.csv": f"{HEAD}\n0.5,10,5\n1e12,10,5\n",
    "untimed.csv": "input_tokens,output_tokens\n10,5\n10,5\n",
}
WRONG = {
    "a unit that nothing tells": (["trace", "milliseconds.csv"], "--time-unit: what does timestamp of"),
    "a unit of dates": (["trace", "dates.csv", "--time-unit", "ms"], "--time-unit: timestamp holds dates"),
    "a unit of no times": (["trace", "untimed.csv", "--time-unit", "ms"], "--time-unit: "),
    "a unit of a shipped trace": (
        ["trace", "azure-code", "--time-unit", "ms"],
        "--time-unit: 'azure-code' tells",
    ),
    "a span of ages": (["trace", "late.csv", "--time-unit", "s"], "--time-unit: "),
    "no such trace": (["trace", "nosuch.csv"], "FILE: no file 'nosuch.csv'"),
    "a context beyond the model": (
        ["explain", "chat.yaml", "--context", "999999"],
        "--context: 999,999 tokens; ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_option_is_named(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, says = WRONG[case]
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 2, ran.output
    assert ran.stderr.startswith(says), ran.stderr
    assert "workload." not in ran.stderr and "time_unit" not in ran.stderr


def test_a_key_of_the_file_is_still_told_of_its_line(tmp_path: Path) -> None:
    file = tmp_path / "chat.yaml"
    file.write_text(CHAT.replace("gpus: 8, ep: 8", "gpus: 8, ep: 3"), encoding="utf-8")
    ran = CliRunner().invoke(app, ["explain", str(file), "--context", "999"])
    assert ran.exit_code == 2 and "chat.yaml:4:" in ran.stderr and "deployment.serve.ep" in ran.stderr
