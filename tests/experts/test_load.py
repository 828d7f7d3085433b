"""The front door: the simple model it must contain, published imbalance, the imbalance table, and what it refuses."""

import csv
import doctest
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from sim.catalog import model
from sim.experts import LoadTable, default_policy, expert_load
from sim.experts.placement import balance, contiguous
from sim.experts.popularity import drift, lognormal_popularity, selection_probability
from sim.experts.routing import sampled_imbalance, sampled_rows
from sim.scenario.schema import Experts

V3 = model("deepseek-v3")
SIGMA = 1.05
"""The one sigma that has to explain the published R1 figures."""
EVEN = Experts(popularity_sigma=0)
LAYERS = 500
"""Layers drawn where a test compares means: the hottest of 320 heavy-tailed ranks needs many for a mean."""
TOKENS = np.array([0.0, 0.03125, 1.0, 7.0, 128.0, 4096.0])


def table(ep: int = 32, gpus_per_node: int = 8, seed: int = 0, **settings: float) -> LoadTable:
    return expert_load(
        V3,
        ep=ep,
        gpus_per_node=gpus_per_node,
        experts=Experts.model_validate({"popularity_sigma": "balanced", **settings}),
        seed=seed,
    )


@pytest.mark.parametrize(("ep", "dp"), [(1, 8), (8, 8), (32, 32), (32, 4), (256, 256)])
def test_everything_off_is_the_simple_model(ep: int, dp: int) -> None:
    load = expert_load(V3, ep=ep, dp=dp, gpus_per_node=8, experts=EVEN)
    total = TOKENS * dp
    assert load.hottest_rows(TOKENS).tolist() == (TOKENS * 8 * dp / ep).tolist()
    assert load.local_slots == 256 // ep
    assert load.active_experts(TOKENS) == pytest.approx(256 / ep * (1 - (1 - 8 / 256) ** total), rel=1e-12)
    assert load.moved_slots == 0.0


def test_a_single_node_needs_no_rdma() -> None:
    load = table(ep=8)
    assert (load.nodes_touched, load.remote_nodes) == (pytest.approx(1.0), 0.0)
    assert load.copies("low_latency").rdma == load.copies("normal").rdma == 0.0
    assert load.copies("low_latency").nvlink == pytest.approx(7.0)  # one of 8 pairs stays on the token's GPU
    # GPUs missed by top-8 of 256 with 32 experts each: C(224, 8) / C(256, 8) = 0.33817
    assert load.gpus_touched == pytest.approx(8 * (1 - 0.33817), rel=1e-4)


def test_even_popularity_still_pays_for_unequal_copies() -> None:
    # 288 slots on 144 ranks: 224 experts with one copy and 32 with two. 64 half-loads pair with 64 whole ones, the
    # other 160 whole ones share 80 ranks: the hottest rank has 2 experts' load against a mean of 256 / 144.
    assert table(ep=144, redundant=32).imbalance(1.0) == pytest.approx(2 / (256 / 144))
    assert table(ep=32, redundant=32).imbalance(1.0) == pytest.approx(1.0)


# TensorRT-LLM tech blog 4 (Scaling Expert Parallelism, part 1), table 1: DeepSeek-R1, 32 GB200, machine translation,
# 1,024 token-expert pairs per rank, mean over layers and iterations. Printed there as (max - mean) / mean: without
# EPLB 1.564 by rank and 10.948 by expert slot; with 288 slots 0.109 and 1.792 (EP32), 0.115 and 1.791 (EP36).
R1_TOKENS = 1024 / 8


def test_published_r1_imbalance_with_one_sigma() -> None:
    assert table(popularity_sigma=SIGMA).imbalance(R1_TOKENS) == pytest.approx(2.564, rel=0.10)
    balanced = [table(ep=ep, popularity_sigma=SIGMA, redundant=32).imbalance(R1_TOKENS) for ep in (32, 36)]
    assert balanced == pytest.approx([1.109, 1.115], rel=0.10)


def test_published_r1_imbalance_by_slot() -> None:
    rng = np.random.default_rng(5)
    live = selection_probability(lognormal_popularity(SIGMA, LAYERS, V3.n_routed, rng), V3.top_k)
    alone, balanced = contiguous(LAYERS, V3.n_routed, 32), balance(live, 32, 32, rng)
    slots = [sampled_rows(placement.slot_load(live), 32 * 1024, rng) for placement in (alone, balanced)]
    ratios = [(rows.max(axis=1) / rows.mean(axis=1)).mean() for rows in slots]
    assert ratios == pytest.approx([11.948, 2.792], rel=0.10)
    # The same table's standard deviations, which sigma was not chosen by: 164.1 on a mean of 128, 491.6 on 1,024.
    assert slots[0].std(axis=1).mean() / 128 == pytest.approx(164.1 / 128, rel=0.10)
    assert slots[0].reshape(LAYERS, 32, 8).sum(axis=2).std(axis=1).mean() / 1024 == pytest.approx(
        491.6 / 1024, rel=0.10
    )


def imbalance_rows() -> list[dict[str, str]]:
    with (Path(__file__).parent / "data" / "expert_imbalance_table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


STALE_COLUMNS = {
    "max_over_mean_eplb_fresh": 1.0,
    "eplb_stale_rho0.95": 0.95,
    "eplb_stale_rho0.9": 0.9,
    "eplb_stale_rho0.7": 0.7,
    "eplb_stale_rho0.5": 0.5,
}


@cache
def loads(sigma: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The live load, and the load that each column's placement was computed from."""
    rng = np.random.default_rng(7)
    live = lognormal_popularity(sigma, LAYERS, V3.n_routed, rng)
    stale = {name: drift(live, rho, rng) for name, rho in STALE_COLUMNS.items()}
    return selection_probability(live, V3.top_k), {
        name: selection_probability(load, V3.top_k) for name, load in stale.items()
    }


@pytest.mark.parametrize(
    "row",
    imbalance_rows(),
    ids=lambda r: f"{r['lognormal_sigma']}-EP{r['EP']}+{r['redundant']}-{r['tokens_per_rank']}",
)
def test_imbalance_table(row: dict[str, str]) -> None:
    ranks, redundant = int(row["EP"]), int(row["redundant"])
    pairs = int(row["tokens_per_rank"]) * ranks * V3.top_k
    rng = np.random.default_rng(8)
    live, stale = loads(float(row["lognormal_sigma"]))
    if row["max_over_mean_no_eplb"]:
        alone = sampled_imbalance(contiguous(LAYERS, V3.n_routed, ranks).rank_load(live), pairs, rng)
        assert alone == pytest.approx(float(row["max_over_mean_no_eplb"]), rel=0.10)
    for column, load in stale.items():
        placement = balance(load, ranks, redundant, rng)
        assert sampled_imbalance(placement.rank_load(live), pairs, rng) == pytest.approx(
            float(row[column]), rel=0.10
        )


def test_front_door_reproduces_a_stale_row() -> None:
    row = next(r for r in imbalance_rows() if (r["lognormal_sigma"], r["EP"]) == ("1.05", "72"))
    load = table(ep=72, redundant=32, popularity_sigma=1.05, staleness_rho=0.9)
    assert load.imbalance(128) == pytest.approx(float(row["eplb_stale_rho0.9"]), rel=0.10)
    assert 0 < load.moved_slots <= load.local_slots


def test_skew_and_staleness_only_make_it_worse() -> None:
    fresh, stale, older = (
        table(redundant=32, popularity_sigma=1.0, staleness_rho=rho).imbalance(512) for rho in (1.0, 0.9, 0.5)
    )
    assert 1.0 < fresh < stale < older
    assert table(popularity_sigma=0.8).imbalance(512) < table(popularity_sigma=1.2).imbalance(512)


def test_few_tokens_are_less_even_and_touch_fewer_experts() -> None:
    load = table(popularity_sigma=1.0, redundant=32)
    grid = np.array([1.0, 4.0, 16.0, 256.0, 8192.0])
    assert (np.diff(load.imbalance(grid)) < 0).all()
    assert load.imbalance(1e9) == pytest.approx(load.limit, rel=0.01)
    assert (np.diff(load.active_experts(grid)) > 0).all()
    assert (load.active_experts(grid) <= np.minimum(load.local_slots, load.hottest_rows(grid))).all()


def test_hottest_rows_and_active_experts_against_counting() -> None:
    # EP32, no copies, 4 tokens per rank: each of 128 tokens chooses expert e with chance q_e; count rank by rank.
    rng = np.random.default_rng(11)
    chance = selection_probability(lognormal_popularity(1.0, 1000, 256, rng), 8)
    count = rng.binomial(128, chance).reshape(1000, 32, 8)
    rows = count.sum(axis=2)
    hot = count[np.arange(1000), rows.argmax(axis=1)]
    load = table(popularity_sigma=1.0)
    assert load.hottest_rows(4) == pytest.approx(rows.max(axis=1).mean(), rel=0.03)
    assert load.active_experts(4) == pytest.approx((hot > 0).sum(axis=1).mean(), rel=0.03)


@pytest.mark.parametrize("tokens", [1 / 8, 1 / 2, 4])
def test_hottest_rows_and_active_slots_with_copies_against_counting(tokens: float) -> None:
    # EP32, 32 copies, up to date: 4, 16 and 128 tokens, each choosing slot s with its expert's chance over its copies.
    rng = np.random.default_rng(12)
    layers, experts, copies, ranks = 1000, 256, 32, 32
    chance = selection_probability(lognormal_popularity(1.0, layers, experts, rng), 8)
    slots = balance(chance, ranks, copies, rng).slot_load(chance)
    count = rng.binomial(round(tokens * ranks), slots).reshape(layers, ranks, -1)
    rows = count.sum(axis=2)
    hot = count[np.arange(layers), rows.argmax(axis=1)]
    load = table(popularity_sigma=1.0, redundant=copies)
    assert load.hottest_rows(tokens) == pytest.approx(rows.max(axis=1).mean(), rel=0.06)
    assert load.active_experts(tokens) == pytest.approx((hot > 0).sum(axis=1).mean(), rel=0.06)


def test_recorded_counts_replace_the_lognormal() -> None:
    counts = np.full((3, 256), 1000.0)
    counts[:, 0] = 9000.0  # about nine times as hot as any other
    load = expert_load(V3, ep=32, gpus_per_node=8, experts=EVEN, counts=counts)
    assert load.limit == pytest.approx(32 * (9001 + 7 * 1001) / (9001 + 255 * 1001))
    with pytest.raises(ValueError, match=r"expected \(layers, 256\)"):
        expert_load(V3, ep=32, gpus_per_node=8, experts=EVEN, counts=np.ones((3, 64)))


def test_shared_expert_as_a_slot() -> None:
    # V3 report 3.4.2, decode on 320 GPUs: one slot per GPU; 64 GPUs hold redundant and shared experts, and each token
    # selects 9. An always-chosen expert needs 1 / (9 / 320) = 36 copies to fall to the mean rank's load.
    load = expert_load(
        V3, ep=320, gpus_per_node=8, experts=Experts(popularity_sigma=0, redundant=63), shared_as_slot=True
    )
    assert load.local_slots == 1
    assert load.mean_rows(320) == pytest.approx(320 * 9)
    # Even routed experts draw 8 / 256 = 0.03125 each; 31 copies bring the shared one to 1 / 32 = 0.03125 as well,
    # one more lowers no maximum: the hottest rank has 0.03125 / (9 / 320) = 1.111 times the mean.
    assert load.limit == pytest.approx((8 / 256) / (9 / 320))
    assert load.gpus_touched == pytest.approx(9.0, abs=0.2)


def test_seed_decides_everything() -> None:
    same = [table(popularity_sigma=1.0, redundant=32, node_limit=4, seed=3) for _ in range(2)]
    assert (same[0].imbalance_grid == same[1].imbalance_grid).all()
    assert same[0].touched == same[1].touched
    assert table(popularity_sigma=1.0, redundant=32, seed=4).limit != same[0].limit


def test_default_policy() -> None:
    def policy(ep: int, domain: int = 8, **settings: int) -> str:
        return default_policy(V3, ep, domain, Experts.model_validate(settings))

    assert policy(32) == "contiguous"
    assert policy(32, redundant=32, node_limit=4) == "hierarchical"
    assert policy(32, redundant=32) == "global"
    assert policy(144, redundant=32, node_limit=4) == "global"  # 18 nodes do not divide 8 groups
    assert policy(72, 72, redundant=32, node_limit=4) == "global"  # one node


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"256 expert slots \(0 redundant\) do not divide by ep 72"):
        table(ep=72)
    with pytest.raises(ValueError, match="node_limit 9: deepseek-v3 has 8 group"):
        table(node_limit=9)
    with pytest.raises(ValueError, match="shared expert belongs to none"):
        expert_load(
            V3,
            ep=32,
            gpus_per_node=8,
            experts=Experts(popularity_sigma=0, redundant=31),
            policy="hierarchical",
            shared_as_slot=True,
        )


def test_other_models() -> None:
    qwen = model("qwen3-235b-a22b")
    load = expert_load(qwen, ep=16, gpus_per_node=8, experts=Experts(redundant=16, popularity_sigma=1.0))
    assert load.local_slots == (128 + 16) // 16
    assert load.hottest_rows(64) > 64 * 8


def test_the_guide_is_true() -> None:
    guide = Path(__file__).parents[2] / "docs" / "experts.md"
    assert doctest.testfile(str(guide), module_relative=False).failed == 0


def test_even_popularity_loads_every_node_and_gpu_alike() -> None:
    for settings in (EVEN, Experts(popularity_sigma=0, node_limit=4)):
        table = expert_load(V3, ep=32, gpus_per_node=8, experts=settings)
        assert table.skew(100.0, "low_latency") == table.skew(100.0, "normal", 9.0) == 1.0


def test_skew_of_an_exchange_by_mode_and_network() -> None:
    table = expert_load(V3, ep=32, gpus_per_node=8, experts=Experts(popularity_sigma=1.05, node_limit=4))
    assert table.skew(4096.0, "low_latency") == table.imbalance(4096.0)
    # Where RDMA is far slower than NVLink the node decides, where it costs nothing the GPU.
    assert table.skew(4096.0, "normal", 1e6) == pytest.approx(table.touched.node_skew)
    assert table.skew(4096.0, "normal", 0.0) == pytest.approx(table.gpu_skew)
    # A rank whose experts are hot receives a token once, however many of them it chose.
    assert 1.0 < table.touched.node_skew < table.gpu_skew < table.imbalance(4096.0)
