"""A fleet of alike replicas: all of them, or a sample that stands for them."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

import sim
from sim.result.fleet import doublings
from sim.scenario.errors import DeploymentError
from sim.workload.shares import dealt

BASE: dict[str, Any] = {
    "model": "deepseek-v3",
    "gpu": "h200_sxm",
    "profile": "analytic",
    "deployment": {"serve": {"gpus": 8, "tp": 8, "max_batch_per_gpu": 8}},
    "workload": {
        "arrivals": {"poisson": {"rate_per_s": 60.0}},
        "lengths": {"input": {"lognormal": {"mean": 300, "cv": 1.0}}, "output": {"uniform": [2, 20]}},
        "requests": 4000,
    },
    "objectives": {"ttft_p99_s": 0.3},
}


def run(fleet: dict[str, int], seed: int = 0, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = sim.simulate({**BASE, **more, "fleet": fleet}, seed).json()
    return told


def figures(told: dict[str, Any], of: dict[str, Any]) -> dict[str, tuple[list[float], float]]:
    """By name: the interval of the sample, and what all replicas gave."""
    found = {}
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        for figure, ends in told["latency"][name]["ci"].items():
            found[f"{name}.{figure}"] = ends, of["latency"][name][figure]
    ci = told["fleet"]["ci"]
    for name, ends in ci["throughput"].items():
        found[name] = ends, of["throughput"][name]
    for name, ends in ci["usd_per_million"].items():
        found[f"usd.{name}"] = ends, of["cost"]["usd_per_million"][name]
    found["goodput"] = ci["goodput_requests_per_s"], of["goodput_requests_per_s"]
    return {name: (ends, value) for name, (ends, value) in found.items() if ends is not None}


SEEDS, LEAST = 20, 18
MISSED = "tpot_s.mean"
"""The one figure that is inside less often: 17 of these 20 seeds, and 115 of 120 (0 to 119), where the others are
inside in all. At this load TPOT is the same, to 1e-5, for all but one or two requests in a thousand: a sample of a
thousand that has none of these knows nothing of them. In seeds 0, 5 and 16 all replicas are 0.01 to 0.02% above it.

17 or fewer of 20 have a chance of 7.5% where each is inside with 95%. Other seeds would do, such as 1 to 20; they are
not taken, because that is known."""


@cache
def seeds_inside() -> Mapping[str, int]:
    """Of how many seeds each figure of 16 replicas is inside the intervals of a sample of four."""
    inside: dict[str, int] = {}
    for seed in range(SEEDS):
        whole, sample = run({"replicas": 16}, seed), run({"replicas": 16, "simulated": 4}, seed)
        for name, ((low, high), value) in figures(sample, whole).items():
            inside[name] = inside.get(name, 0) + (low <= value <= high)
    return inside


def test_a_sample_of_four_of_sixteen_replicas_tells_what_all_do_within_its_intervals() -> None:
    """Intervals that should hold in 95% of cases."""
    assert len(seeds_inside()) >= 14
    assert {n: count for n, count in seeds_inside().items() if count < LEAST and n != MISSED} == {}


@pytest.mark.xfail(reason="17 of 20 seeds, of which 18 were asked for; 115 of 120", strict=True)
def test_so_it_does_for_mean_tpot() -> None:
    assert seeds_inside()[MISSED] >= LEAST


def test_a_fleet_of_which_all_are_simulated_is_a_deployment_of_so_many_workers() -> None:
    deployment = {"serve": {**BASE["deployment"]["serve"], "workers": 6}}
    fleet, workers = run({"replicas": 6}), sim.simulate({**BASE, "deployment": deployment}).json()
    del fleet["fleet"]
    apart = ("scenario", "wall_s")
    assert {k: v for k, v in fleet.items() if k not in apart} == {
        k: v for k, v in workers.items() if k not in apart
    }


def test_a_sample_is_told_as_the_fleet() -> None:
    """Round robin over equal workers deals as the sample does, so that half as many see half the requests."""
    whole, half = (run({"replicas": 4, "simulated": n}, router="round_robin") for n in (4, 2))
    assert half["requests"]["arrived"] == 2000 == whole["requests"]["arrived"] / 2
    assert half["gpus"] == whole["gpus"] == 32
    assert half["cost"]["usd_per_hour"] == whole["cost"]["usd_per_hour"]
    assert half["capacity"] == whole["capacity"]
    for name in ("output_tokens_per_s", "output_tokens_per_s_per_gpu"):
        assert half["throughput"][name] == pytest.approx(whole["throughput"][name], rel=0.05)
    assert half["cost"]["usd_per_million"]["blended"] == pytest.approx(
        whole["cost"]["usd_per_million"]["blended"], rel=0.05
    )


def test_a_sample_of_one_has_no_intervals() -> None:
    told = run({"replicas": 4, "simulated": 1})
    assert told["fleet"] == {"replicas": 4, "simulated": 1, "ci": None}
    assert told["latency"]["ttft_s"]["ci"] is None
    assert any("sample of one" in note for note in told["notes"])


def test_requests_are_dealt_in_turn() -> None:
    """3 of 8 replicas: floor(3 i / 8) grows at 3, 6 and 8 of every 8."""
    scenario = sim.load({**BASE, "fleet": {"replicas": 8, "simulated": 3}})
    rows = dealt(scenario, 16)
    assert rows is not None and rows.tolist() == [2, 5, 7, 10, 13, 15]
    assert dealt(sim.load({**BASE, "fleet": {"replicas": 8}}), 16) is None


def test_doublings_lead_from_half_the_sample_to_the_fleet() -> None:
    assert doublings(16, 4) == 2
    assert doublings(9, 3) == pytest.approx(1.0), "from one to three is as far as from three to nine"


@pytest.mark.parametrize(
    ("router", "scope", "says"),
    [("prefix_aware", "worker", "where its prefix is"), ("least_loaded", "cluster", "the whole cluster")],
)
def test_a_sample_that_would_find_other_prefixes_is_refused(router: str, scope: str, says: str) -> None:
    given = {
        **{key: BASE[key] for key in ("model", "gpu", "profile", "deployment")},
        "workload": {"trace": "mooncake-conversation", "requests": 100},
        "router": router,
        "prefix_cache": {"enabled": True, "scope": scope},
        "fleet": {"replicas": 4, "simulated": 2},
    }
    with pytest.raises(DeploymentError, match=says):
        sim.simulate(given)
