"""The mechanisms' tables against published figures and hand computation."""

import pytest

from sim.mechanisms import (
    attention_parts,
    cache_bytes,
    cost_by_position,
    expert_imbalance,
    nodes_touched,
    published_cost,
    speculation_gain,
)
from sim.mechanisms.attention import reference
from sim.scenario.schema import Experts

MODELS = ("deepseek-v3.1", "deepseek-v3.2")


def test_cache_bytes_are_the_published_ones() -> None:
    table = cache_bytes().set_index(["model", "kv_cache"])
    assert table.total_bytes["deepseek-v3", "bf16"] == 70_272  # ISCA 2025, table 1
    assert table.total_bytes["qwen3-235b-a22b", "bf16"] == 192_512
    v32 = table.loc[("deepseek-v3.2", "fp8")]
    assert (v32.entry_bytes, v32.index_bytes, v32.total_bytes) == (656 * 61, 132 * 61, 48_068)
    # 128 heads x (192 key + 128 value) elements x 2 bytes x 61 layers.
    assert table.per_head_bytes["deepseek-v3", "bf16"] == 128 * 320 * 2 * 61


def test_published_costs_end_where_the_report_says() -> None:
    end = published_cost().set_index(["model", "phase", "position"]).usd_per_million
    assert end["deepseek-v3.1", "decode", 131072] == 2.154
    assert end["deepseek-v3.2", "decode", 131072] == 0.2491
    assert end["deepseek-v3.2", "prefill", 6600] == 0.0999


@pytest.mark.parametrize(("phase", "batch"), [("decode", 64), ("prefill", 4096)])
def test_dense_attention_grows_with_position_and_sparse_hardly(phase: str, batch: int) -> None:
    table = cost_by_position(MODELS, phase, (4096, 65536, 131072), batch).set_index(["model", "position"])
    usd = table.usd_per_million
    dense = usd["deepseek-v3.1", 131072] - usd["deepseek-v3.1", 4096]
    sparse = usd["deepseek-v3.2", 131072] - usd["deepseek-v3.2", 4096]
    assert dense > 4 * sparse > 0


def test_cost_by_position_by_hand() -> None:
    row = cost_by_position(MODELS[:1], "decode", (4096,), 64).iloc[0]
    assert row.usd_per_million == pytest.approx(2.0 / 3600 * row.step_s / 64 * 1e6)


def test_only_the_indexer_of_sparse_attention_grows() -> None:
    table = attention_parts(reference(), MODELS, "decode", (8192, 65536), 32)
    seconds = table.set_index(["model", "context", "part"]).seconds
    assert seconds["deepseek-v3.2", 65536, "core"] == pytest.approx(seconds["deepseek-v3.2", 8192, "core"])
    assert seconds["deepseek-v3.2", 65536, "indexer"] > 2 * seconds["deepseek-v3.2", 8192, "indexer"]
    assert seconds["deepseek-v3.1", 65536, "core"] > 4 * seconds["deepseek-v3.1", 8192, "core"]
    assert "indexer" not in set(table[table.model == "deepseek-v3.1"].part)


def test_replicas_level_the_hottest_rank() -> None:
    # TensorRT-LLM blog 4, table 1, R1 on EP32: 2.56 without balancing, 1.11 with 288 slots.
    experts = Experts(popularity_sigma=1.05, redundant=32, staleness_rho=0.9)
    table = expert_imbalance("deepseek-v3", 32, 8, experts, (4096,)).set_index("balancing").imbalance
    assert table["none"] == pytest.approx(2.56, rel=0.05)
    assert table["32 replicas, up to date"] == pytest.approx(1.11, abs=0.11)
    assert table["32 replicas, up to date"] < table["32 replicas, from older load"] < table["none"]


def test_nodes_touched_with_and_without_the_group_limit() -> None:
    table = nodes_touched("deepseek-v3", 8, (32, 64, 48), 4).set_index(["limit", "ep"])
    assert table.nodes["4 of 8 groups", 32] == pytest.approx(3.12, abs=0.03)
    assert table.nodes["4 of 8 groups", 64] == pytest.approx(3.96, abs=0.03)
    # Four nodes of 64 experts, 8 of 256 drawn without replacement: 4 (1 - C(192, 8) / C(256, 8)).
    assert table.nodes["no limit", 32] == pytest.approx(3.614, abs=1e-3)
    assert 48 not in set(table.index.get_level_values("ep"))


def test_drafts_gain_less_as_the_batch_grows() -> None:
    table = speculation_gain(reference(), (1,), (4, 64, 256), 4096)
    assert table.accept_length.unique() == [1.8]  # catalog: 80% of V3.2's first drafts accepted
    assert list(table.gain) == sorted(table.gain, reverse=True)
    assert 1.5 < table.gain[0] < 1.8
