"""The estimate where a worker is one rank (TP 8), where few requests are in flight, and where few come at all."""

from typing import Any

import numpy as np
import pytest

import sim
from sim.cluster.plan import cluster_plan
from sim.deployment.plan import deploy
from sim.steady.demand import demand_of
from sim.steady.service import Service
from sim.step import PromptLoad, RankPrompts


def one_worker(arrivals: dict[str, Any], prompt: float, answer: float, requests: int) -> dict[str, Any]:
    lengths = {
        "input": {"lognormal": {"mean": prompt, "cv": 0.5}},
        "output": {"lognormal": {"mean": answer, "cv": 0.5}},
    }
    return {
        "model": "deepseek-v3",
        "gpu": "h200",
        "deployment": {"serve": {"gpus": 8, "tp": 8, "ep": 1}},
        "workload": {"arrivals": arrivals, "lengths": lengths, "requests": requests},
    }


def poisson(rate: float) -> dict[str, Any]:
    return {"poisson": {"rate_per_s": rate}}


def closed(concurrency: int) -> dict[str, Any]:
    return {"closed_loop": {"concurrency": concurrency}}


def service(data: dict[str, Any]) -> Service:
    scenario = sim.load(data)
    deployment = deploy(scenario)
    cluster = cluster_plan(deployment, seed=0)
    return Service(deployment, demand_of(scenario), cluster, scenario.price)


def test_a_prompt_alone_on_one_rank_takes_what_its_own_tokens_take() -> None:
    """Nobody else's tokens, whichever lengths have the slower attention: the mean is that over the lengths."""
    alone = service(one_worker(poisson(1), 1000, 200, 100)).prefill
    lengths = np.random.default_rng(1).lognormal(np.log(1000) - np.log(1.25) / 2, np.log(1.25) ** 0.5, 2000)
    each = [
        alone.cost.prefill_s(PromptLoad(1, [RankPrompts(0, n, (n + 1) / 2, n, n)]))
        for n in lengths.round().astype(int).tolist()
    ]
    assert alone.step_s(np.array([1.0])).mean() == pytest.approx(np.mean(each), rel=0.02)


def test_a_token_finds_one_sequence_more_than_there_are_on_average() -> None:
    """Arrivals of independent users see the mean (PASTA), and add themselves."""
    one = service(one_worker(poisson(1), 1000, 200, 100)).decode
    assert (one.ranks, one.workers) == (1, 1)
    assert one.seen(np.array([0.0, 0.5, 0.9, 3.2])) == pytest.approx([1.0, 1.5, 1.9, 4.2])


@pytest.mark.parametrize(("rate", "prompt", "answer"), [(2.0, 500, 50), (0.5, 1000, 200), (4.0, 1000, 200)])
def test_one_worker_agrees_with_the_simulation(rate: float, prompt: float, answer: float) -> None:
    data = one_worker(poisson(rate), prompt, answer, 1500)
    state, run = sim.estimate(data), sim.simulate(data).json()
    assert state.point.tpot_s == pytest.approx(run["latency"]["tpot_s"]["mean"], rel=0.08)
    sold = run["cost"]["usd_per_million"]
    assert state.point.price.usd_per_million.output == pytest.approx(sold["output"], rel=0.1)
    assert not state.doubts


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_few_users_who_wait_for_their_answers(concurrency: int) -> None:
    """One alone meets nobody: not even itself."""
    data = one_worker(closed(concurrency), 500, 100, 200)
    state, run = sim.estimate(data), sim.simulate(data).json()
    assert state.point.tpot_s == pytest.approx(run["latency"]["tpot_s"]["mean"], rel=0.05)
    blended = run["cost"]["usd_per_million"]["blended"]
    assert state.point.price.usd_per_million.blended == pytest.approx(blended, rel=0.06)


@pytest.mark.parametrize(
    ("arrivals", "requests", "told"),
    [
        ({"all_at_once": {}}, 60, True),
        ({"all_at_once": {}}, 100_000, False),
        (closed(500), 60, True),
        (closed(50), 5000, False),
        (poisson(2.0), 2, True),
        (poisson(2.0), 500, False),
    ],
)
def test_work_that_ends_before_it_settles_is_doubted(
    arrivals: dict[str, Any], requests: int, told: bool
) -> None:
    state = sim.estimate(one_worker(arrivals, 500, 50, requests))
    assert any("does not reach the steady state" in doubt for doubt in state.doubts) == told
    assert state.demand.requests == requests


def test_answers_of_one_token_have_no_tpot() -> None:
    data = one_worker(poisson(2.0), 500, 50, 500)
    data["workload"]["lengths"]["output"] = {"constant": 1}
    assert sim.estimate(data).json()["latency"]["tpot_s"]["mean"] is None
