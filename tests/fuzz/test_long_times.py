"""Runs that last for years: told in seconds, or refused."""

import json
import time
from pathlib import Path

import pytest
from fuzz_case import RUNNER

from sim.cli import app

HEAD = "model: deepseek-v3.2\ngpu: h200_sxm\nprofile: analytic\ndeployment: {serve: {gpus: 8, ep: 8}}\n"
ARRIVALS = {
    "steady": "poisson: {rate_per_s: 1.0e-6}",
    "daily": "diurnal: {mean_rate_per_s: 1.0e-6, curve: deepseek-24h}",
}
PROCESSOR_S = 10


def scenario(folder: Path, arrivals: str, requests: int, more: str = "") -> str:
    file = folder / "s.yaml"
    file.write_text(
        f"{HEAD}workload: {{requests: {requests}, arrivals: {{{arrivals}}}, lengths: {{input: {{constant: 100}}, "
        f"output: {{constant: 50}}}}}}\n{more}"
    )
    return str(file)


@pytest.mark.parametrize("more", ["", "scheduling: {host_overhead_s: 1.0e+9}\n"], ids=["far apart", "slow"])
@pytest.mark.parametrize("kind", ARRIVALS)
def test_a_run_of_many_years_is_not_told_by_the_hour(tmp_path: Path, kind: str, more: str) -> None:
    """900 requests of 1e-6 per second take 28 years, 50 steps of 1e9 s take 1,600: the hours were listed one by one."""
    file = scenario(tmp_path, ARRIVALS[kind], 900 if not more else 20, more)
    began = time.process_time()
    told = RUNNER.invoke(app, ["run", file, "--json"])
    assert told.exit_code == 0, told.output
    assert time.process_time() - began < PROCESSOR_S
    run = json.loads(told.stdout.splitlines()[-1])
    assert run["requests"]["completed"] > 0 and len(told.stdout) < 100_000
    assert (
        ("hours" in run) == (kind == "daily") == any("not told one by one" in note for note in run["notes"])
    )


@pytest.mark.parametrize("kind", ARRIVALS)
@pytest.mark.parametrize("metrics", ["rows", "summary"])
def test_requests_that_come_after_all_bounds_are_refused(tmp_path: Path, kind: str, metrics: str) -> None:
    file = scenario(tmp_path, ARRIVALS[kind], 100_000, f"metrics: {metrics}\n")
    told = RUNNER.invoke(app, ["check", file])
    assert told.exit_code == 2 and "expected at most 1e+09 s" in told.output
