"""Autoscaling, failures and fleets in a scenario: what is refused, where, and with which words."""

from pathlib import Path

import pytest

import sim
from sim.cluster.life_plan import operated
from sim.cluster.plan import cluster_plan
from sim.deployment.plan import deploy
from sim.scenario.errors import ScenarioError
from sim.scenario.loading import parse

BASE = """model: deepseek-v3
gpu: h200_sxm
deployment: {serve: {workers: 2, gpus: 8, tp: 8}}
workload: {arrivals: {poisson: {rate_per_s: 1}}, lengths: {input: {constant: 100}, output: {constant: 10}}}
duration_s: 10
"""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("autoscale: {}", "autoscale: expected exactly one of `pools` and `schedule`"),
        ("autoscale: {pools: {}}", "autoscale: `pools` names none of prefill, decode, serve"),
        ("autoscale: {pools: {decode: {max: 4}}}", "there is no `decode` pool; expected serve"),
        (
            "autoscale: {pools: {serve: {max: 1}}}",
            "serve is deployed with 2 workers; expected min 1 to max 1",
        ),
        ("autoscale: {pools: {serve: {min: 5, max: 4}}}", "min 5 is above max 4"),
        ("autoscale: {pools: {serve: {max: 4}}, signal: concurrency}", "signal concurrency needs a `target`"),
        ("autoscale: {pools: {serve: {max: 4}}, signal: utilisation}", "did you mean 'utilization'"),
        ("autoscale: {pools: {serve: {max: 20000}}}", "serve of at most 100,000 GPUs, not 20000 workers"),
        (
            "autoscale: {pools: {serve: {max: 4}}, tolerance: 2}",
            "autoscale.tolerance: expected a number from 0 to 1",
        ),
        (
            "failures: {per_gpu_hour: -1}",
            "failures.per_gpu_hour: expected a number from 0 to 10 per hour, got -1",
        ),
        ("failures: {retry: cache}", "failures.retry: expected one of prefix_cache, start, got the text"),
        ("failures: {detect: 1}", "did you mean 'detect_s'"),
        ("fleet: {replicas: 4, simulated: 8}", "fleet: simulated 8 is above replicas 4"),
        ("fleet: {simulated: 2}", "fleet.replicas: this key is required and missing"),
        ("fleet: {replicas: 100000}", "1,600,000 GPUs; expected at most 100,000"),
        ("autoscale: {pools: {serve: {max: 4}}}\nfleet: {replicas: 2}", "leave `autoscale` or `fleet` out"),
        (
            "failures: {spare_nodes: 1}\nfleet: {replicas: 2, simulated: 1}",
            "has no share of `failures.spare_nodes`",
        ),
    ],
)
def test_what_cannot_be_is_told_where_it_stands(line: str, says: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        parse(BASE + line, "f")
    [problem] = raised.value.problems
    assert problem.line is not None and problem.line >= 6
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hour,serve\n1,2\n", "s.csv:2:1: hour: expected 0 first"),
        ("hour,serve\n0,2\n8,4\n8,2\n", "s.csv:4:1: hour: expected 0 first, then ascending below 24"),
        ("hour,serve\n0,0\n", "s.csv:2:3: serve: expected at least 1, got 0"),
        ("hour,serve\n0,1e9\n", "s.csv:2:3: serve: expected at most 12,500 workers"),
        ("hour,decode\n0,2\n", "s.csv:1:1: expected columns hour and workers of serve; got hour, decode"),
        ("serve\n2\n", "s.csv:1:1: expected columns hour and workers of serve; got serve"),
    ],
)
def test_a_broken_schedule_is_told_where_it_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    scenario = parse(BASE + "autoscale: {schedule: s.csv}", str(tmp_path / "f.yaml")).scenario
    with pytest.raises(ScenarioError) as raised:
        sim.simulate(scenario)
    assert says in str(raised.value)


def test_a_schedule_gives_the_workers_of_time_zero_and_the_most_there_are(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("hour,serve\n0,3\n7.5,5\n20,1\n")
    scenario = parse(BASE + "autoscale: {schedule: s.csv}", str(tmp_path / "f.yaml")).scenario
    deployment = deploy(scenario)
    plan = operated(cluster_plan(deployment, 0), scenario, deployment, 0)
    assert plan.life is not None
    assert plan.life.workers == {"serve": 3} and plan.pools["serve"].workers == 5
    assert plan.life.schedule == ((0.0, {"serve": 3}), (27_000.0, {"serve": 5}), (72_000.0, {"serve": 1}))


def test_the_start_up_follows_from_the_weights() -> None:
    """The weights of 8 GPUs at 5 GB/s and 75 s: DeepSeek-V3's 671 GB, copied attention left out, in about 134 s."""
    scenario = parse(BASE + "failures: {}").scenario
    deployment = deploy(scenario)
    life = operated(cluster_plan(deployment, 0), scenario, deployment, 0).life
    assert life is not None and life.failing is not None
    read_bytes = 8 * deployment.pools["serve"].memory.weights_bytes
    assert life.start_up_s["serve"] == pytest.approx(read_bytes / 5e9 + 75)
    assert 200 < life.start_up_s["serve"] < 230
    assert life.failing.per_gpu_s == pytest.approx(419 / (54 * 24 * 16_384) / 3600, rel=0.01)
