"""What a scenario's `experts` do to a step: nothing where they are off, and what they say where they are on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import simulate
from sim.catalog import gpu
from sim.cost.latency import price_all
from sim.deployment.plan import deploy, resolve
from sim.explain import explain
from sim.model.layout import ExpertRows
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.step.experts import check_recordings, staleness
from sim.step.pricing import cost_model, pool_step_cost, step_operations

OFF = {
    "redundant": 0,
    "placement": "contiguous",
    "shared_expert_as_slot": False,
    "popularity_sigma": 0,
    "staleness_rho": 1,
    "node_limit": "off",
}
RECORDED = """
model: deepseek-v3
gpu: h100
experts: {}
deployment: {{prefill: {{gpus: 32, ep: 32}}, decode: {{gpus: 64, ep: 64}}}}
workload: {{arrivals: {{all_at_once: {{}}}}, lengths: {{input: {{constant: 9}}, output: {{constant: 9}}}}, requests: 1}}
"""


def _scenario(experts: dict[str, Any] | None = None, **changes: Any) -> Scenario:
    base = {
        "model": "deepseek-v3",
        "gpu": "h100_sxm",
        "deployment": {"prefill": {"gpus": 32, "ep": 32}, "decode": {"gpus": 64, "ep": 64}},
        "workload": {
            "arrivals": {"poisson": {"rate_per_s": 40.0}},
            "lengths": {"input": {"lognormal": {"mean": 800, "cv": 1}}, "output": {"constant": 60}},
            "requests": 80,
        },
    }
    return Scenario.model_validate(base | ({"experts": experts} if experts else {}) | changes)


def _rows(scenario: Scenario, tokens: float, phase: str = "decode") -> ExpertRows:
    return step_operations(resolve(scenario, phase), phase).routing(tokens)


def test_mechanisms_switched_off_leave_the_run_as_it_was() -> None:
    plain = _scenario({"popularity_sigma": "balanced"})
    off = _scenario(
        OFF,
        overlap={"two_batch": False},
        scheduling={"cuda_graphs": True},
    )

    def run(scenario: Scenario) -> str:
        found = simulate(scenario, seed=3).json()
        found.pop("wall_s")
        found.pop("scenario", None)
        return json.dumps(found)

    assert run(off) == run(plain)


@pytest.mark.parametrize("tokens", [1.0, 20.0, 333.0, 4096.0])
def test_switched_off_the_load_is_the_balanced_one_exactly(tokens: float) -> None:
    decode = _rows(_scenario(OFF), tokens)
    assert decode.rows == tokens * 8
    assert decode.slots == 4
    assert decode.active == pytest.approx(4 * (1 - (1 - 8 / 256) ** (64 * tokens)), rel=1e-12)
    assert decode.skew == 1.0
    # Low latency: a copy per expert; 1 of 64 is the sender's own GPU, 8 of 64 are on its node.
    assert decode.copies == pytest.approx(8 * 63 / 64)
    assert decode.remote_copies == pytest.approx(8 * 56 / 64)
    assert _rows(_scenario(OFF), tokens, "prefill").skew == 1.0


def test_switched_off_a_step_is_the_sum_of_its_operations() -> None:
    scenario = _scenario(OFF, engine="deepseek", overlap={"two_batch": False, "shared_expert": False})
    deployment = resolve(scenario)
    step = step_operations(deployment, "decode")
    operations = step.decode_attention(64, 4096) + step.decode_rest(64)
    total = sum(p.total_s for p in price_all(operations, cost_model(deployment, "decode")))
    assert explain(scenario, "decode", 64, 4096).step_s == pytest.approx(total, rel=1e-12)
    at_grid_point = pool_step_cost(deployment, "decode").decode_s(np.full(64, 64.0), np.full(64, 4096.0))
    assert at_grid_point == pytest.approx(total, rel=0.01)
    assert "re-balance" not in {o.name for o in operations}


def test_the_busiest_rank_receives_and_sends_as_many_copies_as_it_has_pairs() -> None:
    scenario = _scenario({"popularity_sigma": 1.05})
    rows = _rows(scenario, 128)
    assert rows.skew == pytest.approx(rows.rows / (128 * 8))
    assert rows.skew > 2
    # In normal mode a node's NICs carry a token once, however many of its experts are there: far less skew.
    assert 1 < _rows(scenario, 4096, "prefill").skew < 1.5


def _seconds(scenario: Scenario, name: str) -> float:
    found = explain(scenario, "decode", 128, 2000).operations
    return sum(p.total_s for p in found if p.operation.name.startswith(name))


def test_a_loaded_rank_lengthens_the_exchange_as_more_tokens_would() -> None:
    even, uneven = _scenario({"popularity_sigma": "balanced"}), _scenario()
    tokens = 128 * _rows(uneven, 128).skew
    operations = {
        p.operation.name: p.operation.shape["tokens"]
        for p in explain(uneven, "decode", 128, 2000).operations
        if p.operation.kernel in ("dispatch", "combine")
    }
    assert len(operations) == 2
    assert [*operations.values()] == pytest.approx([tokens, tokens])
    assert _seconds(uneven, "combine") > 1.5 * _seconds(even, "combine")


def test_the_shared_expert_as_a_slot_is_sent_to_and_not_computed_in_line() -> None:
    scenario = _scenario(
        {"redundant": 31, "shared_expert_as_slot": True},
        deployment={"prefill": {"gpus": 32, "ep": 32}, "decode": {"gpus": 96, "ep": 96}},
    )
    rows = _rows(scenario, 100)
    assert rows.slots == 3  # 256 routed, the shared one and 31 copies over 96 ranks
    assert rows.skew * 128 == pytest.approx(rows.rows / 8 * 128 / 100, rel=1e-6)
    names = {p.operation.name for p in explain(scenario, "decode", 64, 1000).operations}
    assert not any(name.startswith("shared expert") for name in names)
    with_copies = _scenario({"redundant": 32}, deployment=scenario.deployment.model_dump())
    plans = [deploy(s).pools["decode"].memory.weights_bytes for s in (scenario, with_copies)]
    # A copy on every GPU against 1/96 of one: 44.04 M parameters in FP8, 58 layers; 287 against 288 routed slots.
    routed = 58 * 44_040_192 * (1 + 4 / 128**2)
    assert plans[1] - plans[0] == pytest.approx(routed * (1 - 1 / 96) + routed / 96, rel=1e-3)


def test_staleness_over_the_life_of_a_placement() -> None:
    # 0.9 per 10 steps: 0.9^(age / 10), averaged over ages 0 .. 29.
    mean = np.mean(0.9 ** (np.arange(30) / 10))
    experts = _scenario({"drift_rho": 0.9, "drift_every_steps": 10, "rebalance_every_steps": 30}).experts
    assert staleness(experts) == pytest.approx(mean)
    assert staleness(_scenario({"staleness_rho": 0.7}).experts) == 0.7


def test_rebalancing_costs_the_moved_experts_over_the_network_spread_over_its_interval() -> None:
    drifting = {"popularity_sigma": 1.05, "redundant": 32, "drift_rho": 0.999, "drift_every_steps": 100}
    deployment = {"prefill": {"gpus": 32, "ep": 32}, "decode": {"gpus": 72, "ep": 72}}

    def step(steps: int):
        scenario = _scenario(drifting | {"rebalance_every_steps": steps}, deployment=deployment)
        found = explain(scenario, "decode", 128, 2000)
        return scenario, next(p for p in found.operations if p.operation.name == "re-balance")

    (scenario, often), (_, seldom) = step(500), step(5000)
    layout = resolve(scenario).pools["decode"].layouts["decode"]
    assert often.operation.stream == "once"
    # Nearly all of a rank's 4 slots change; 44,040,192 parameters in FP8 with a scale per 128 x 128, 58 layers.
    whole = 4 * 58 * 44_040_192 * (1 + 4 / 128**2) / 500
    assert 0.8 * whole < often.operation.bytes <= whole
    remote = often.operation.bytes * (1 - 1 / layout.nodes)
    link = gpu("h100_sxm").scale_out_bytes_per_s * 0.8
    assert often.total_s == pytest.approx(10e-6 + remote / link)
    assert often.operation.bytes > 5 * seldom.operation.bytes
    fresh, old = (
        _rows(_scenario(drifting | {"rebalance_every_steps": n}, deployment=deployment), 128).skew
        for n in (1, 10**5)
    )
    assert fresh < old


def test_recorded_counts_take_the_place_of_the_popularity(tmp_path: Path) -> None:
    counts = np.ones((58, 256))
    counts[:, 7] = 256.0  # one expert draws half of all choices: as much as a token can give to one, 1 / 8
    np.save(tmp_path / "counts.npy", counts)
    loaded = parse(RECORDED.format("{counts: counts.npy}"), str(tmp_path / "scenario.yaml"))
    check_recordings(resolve(loaded.scenario))
    # Every token goes to expert 7 and to 7 of the 255 others, of which 3 share its rank: 1 + 3 x 7 / 255 of 8 pairs on
    # one rank of 64.
    assert _rows(loaded.scenario, 4000).skew == pytest.approx((1 + 3 * 7 / 255) / 8 * 64, rel=0.01)


@pytest.mark.parametrize(
    ("experts", "key", "says"),
    [
        ("{counts: few.npy}", "experts.counts", "128 experts per layer; deepseek-v3 has 256"),
        ("{counts: odd.csv}", "experts.counts", "not a table of expert counts"),
    ],
)
def test_a_recording_that_does_not_suit_is_pointed_at(
    tmp_path: Path, experts: str, key: str, says: str
) -> None:
    np.save(tmp_path / "few.npy", np.ones((58, 128)))
    (tmp_path / "odd.csv").write_text("layer,who\n1,2\n")
    loaded = parse(RECORDED.format(experts), str(tmp_path / "scenario.yaml"))
    with pytest.raises(ScenarioError) as caught, loaded.locating():
        check_recordings(resolve(loaded.scenario))
    [problem] = caught.value.problems
    assert (".".join(map(str, problem.path)), problem.line) == (key, 4)
    assert says in problem.message
    with pytest.raises(DeploymentError):
        pool_step_cost(resolve(loaded.scenario), "decode")


EP72 = {"prefill": {"gpus": 32, "ep": 32}, "decode": {"gpus": 72, "ep": 72}}


@pytest.mark.parametrize(
    ("experts", "deployment", "key"),
    [
        ({"redundant": 30}, EP72, "experts.redundant"),
        ({"redundant": 32, "node_limit": 9}, EP72, "experts.node_limit"),
        ({"redundant": 32, "placement": "hierarchical"}, EP72, "experts.placement"),
        ({"redundant": 32, "shared_expert_as_slot": True}, EP72, "experts.redundant"),
        ({"drift_rho": 0.9, "rebalance_every_steps": 9}, None, "experts.rebalance_every_steps"),
    ],
)
def test_what_the_model_or_the_nodes_do_not_allow_is_pointed_at(
    experts: dict, deployment: Any, key: str
) -> None:
    changes = {"deployment": deployment} if deployment else {}
    with pytest.raises(DeploymentError) as caught:
        deploy(_scenario(experts, **changes))
    assert key in {".".join(map(str, p.path)) for p in caught.value.problems}


@pytest.mark.parametrize(
    "experts",
    [
        {"drift_rho": 0.9},
        {"rebalance_every_steps": 5},
        {"drift_rho": 0.9, "rebalance_every_steps": 5, "staleness_rho": 0.5},
        {"counts": "a.csv", "popularity_sigma": 1.0},
    ],
)
def test_settings_that_contradict_each_other_are_refused(experts: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        _scenario(experts)
