"""`workload.requests` of sessions: the first ones in order of arrival, whoever sends them."""

import json

import numpy as np
import pytest
from cluster_costs import LinearStepCost
from cluster_scenario import scenario
from test_cluster_invariants import assert_sound

from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, TransferSetup
from sim.scenario.schema import Scenario
from sim.workload import requests

POOL = PoolSetup(workers=1, gpus=1, dp=1, max_sequences=8, chunk_tokens=1000, kv_blocks=1000)
SESSIONS, TURNS = 6, 4


@pytest.fixture
def folder(tmp_path):
    """Six sessions of four turns; each turn has a prompt length of its own, so that requests can be told apart."""
    rows = [
        {
            "session": s,
            "block_tokens": 64,
            "turns": [[t - 1, 3.0 * t + s, 10 * (1 + s * TURNS + t), 5, []] for t in range(TURNS)],
        }
        for s in range(SESSIONS)
    ]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def run(folder, arrivals, warmup_s=0.0, **more):
    workload = {"trace": "s.jsonl", "arrivals": arrivals, **more}
    asked = scenario(warmup_s=warmup_s).model_dump(exclude_none=True) | {"workload": workload}
    asked = Scenario.model_validate(asked)
    costs = {
        "prefill": LinearStepCost(prompt_base_s=0.1, token_s=1e-3, pair_s=0.0),
        "decode": LinearStepCost(base_s=0.02, sequence_s=0.0, kv_s=0.0),
    }
    plan = ClusterPlan({"prefill": POOL, "decode": POOL}, TransferSetup(0.0, 1.0, 0.0))
    record = run_cluster(asked, requests(asked, 3, folder), plan, costs, 0)
    assert_sound(record)
    return record


@pytest.mark.parametrize(
    "arrivals",
    [
        {"poisson": {"rate_per_s": 0.1}},
        {"all_at_once": {}},
        {"closed_loop": {"concurrency": 2}},
        {"closed_loop": {"concurrency": 9}},
    ],
)
@pytest.mark.parametrize("count", [1, 2, 5, 9, 17, 23, 24, 30])
def test_they_are_the_first_arrivals_of_a_longer_run(folder, arrivals, count):
    part = run(folder, arrivals, requests=count)
    whole = run(folder, arrivals)
    expected = min(count, SESSIONS * TURNS)
    assert len(whole.requests.arrival_s) == SESSIONS * TURNS
    assert len(part.requests.arrival_s) == expected
    for column in ("arrival_s", "input_tokens", "output_tokens"):
        got, all_of_it = getattr(part.requests, column), getattr(whole.requests, column)
        assert got.tolist() == all_of_it[:expected].tolist(), column
    assert np.isfinite(part.requests.finish_s).all(), "what arrived is served"


def test_a_session_goes_on_while_others_have_not_begun(folder):
    """Sessions begin a thousand seconds apart: the first five requests are a whole session and one more."""
    asked = run(folder, {"poisson": {"rate_per_s": 0.001}}, requests=5)
    assert asked.requests.input_tokens.tolist() == [10, 20, 30, 40, 50]


def test_the_window_of_an_open_loop_ends_with_the_last_of_them(folder, monkeypatch):
    monkeypatch.setattr("sim.cluster.run.is_steady", lambda *_: True)
    poisson = {"poisson": {"rate_per_s": 0.1}}
    whole, part = run(folder, poisson), run(folder, poisson, requests=5)
    assert part.window_s[1] == part.requests.arrival_s[-1] < whole.window_s[1]
    at_once = run(folder, {"all_at_once": {}}, requests=8)
    assert at_once.window_s == (0.0, at_once.end_s), "all at once: the whole run"


def test_the_window_of_a_closed_loop_ends_with_the_first_that_leaves_a_place_empty(folder):
    record = run(folder, {"closed_loop": {"concurrency": 2}}, requests=9)
    after = record.requests.finish_s[record.requests.finish_s >= record.requests.arrival_s[-1]]
    assert record.window_s[1] == after.min()
