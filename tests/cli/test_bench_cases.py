"""`make bench`: every case is one that runs, and what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sim.bench_cases import cases, main, measure
from sim.deployment.plan import deploy
from sim.scenario.loading import load

ROOT = Path(__file__).parents[2]
RUNS = {name: case for name, case in cases().items() if "commands" not in case and "moves" not in case}


@pytest.mark.parametrize("name", RUNS)
def test_every_case_can_run(name: str) -> None:
    case = RUNS[name]
    path = ROOT / case.get("scenario", "sim/bench.yaml")
    assert deploy(load(path, case.get("set", ())).scenario).gpus >= 16


def test_a_case_is_told_beside_the_bare_loop() -> None:
    figures = measure({"set": ["workload.requests=200"]})
    assert figures["requests"] == 200
    assert figures["requests_per_s"] == pytest.approx(200 / figures["cpu_s"])
    loops_s = 5 * figures["bare_event_us"] * 1e-6 * figures["bare_loops_per_request"]
    assert loops_s == pytest.approx(figures["cpu_s"] / 200)
    assert 1 < figures["events_per_request"] < 8


def test_a_case_that_does_not_exist_is_an_error(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "z"])
    with pytest.raises(SystemExit):
        main()
    assert "no case z; there are a-10k" in capsys.readouterr().err


def test_moves_of_a_slider_find_their_tables_built() -> None:
    figures = measure({"scenario": str(ROOT / "scenarios/chat.yaml"), "moves": 4})
    assert figures["move_s"] < figures["first_s"]


def test_the_json_of_a_case_is_one_line() -> None:
    script = (
        "import sim.bench_cases as b; b.cases = lambda: {'x': {'set': ['workload.requests=20']}}; b.main()"
    )
    command = [sys.executable, "-c", script, "--alone", "x"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert json.loads(printed)["requests"] == 20
