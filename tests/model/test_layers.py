"""The operations of whole steps against the figures of the papers (FLOP per token, attention at 4K and 128K)."""

import pytest

from sim.catalog import model
from sim.model.attention import Batch, attention_operations
from sim.model.layers import token_operations
from sim.model.layout import ExpertRows, Layout

ONE_GPU_V3 = Layout(model("deepseek-v3"), gpus=1, tp=1, ep=1, gpus_per_node=8)
ONE_GPU_V32 = Layout(model("deepseek-v3.2"), gpus=1, tp=1, ep=1, gpus_per_node=8, dense_prefill_max_kv=2048)
ONE_TOKEN = ExpertRows(rows=8, slots=256, active=8, copies=8, remote_copies=0)


def _flop(operations, *kernels: str) -> float:
    return sum(o.flop * o.layers for o in operations if o.kernel in kernels)


def _block(layout: Layout, batch: Batch):
    [block] = attention_operations(layout, layout.model.attention, batch)
    return block


def _parts(layout: Layout, phase: str, new: float, cached: float):
    return _block(layout, Batch(phase, 1, new, cached)).parts


@pytest.mark.parametrize(("layout", "gflop"), [(ONE_GPU_V3, 73.25), (ONE_GPU_V32, 74.95)])
def test_linear_work_per_decoded_token(layout: Layout, gflop: float) -> None:
    # 2 x (36.62 B or 37.48 B active parameters without the embedding); the absorb BMMs do kv_b's work.
    attention = _parts(layout, "decode", 1, 99)
    step = token_operations(layout, 1, ONE_TOKEN, logits=1)
    linear = _flop(attention, "gemm", "absorb_bmm") + _flop(step, "gemm", "moe")
    assert linear / 1e9 == pytest.approx(gflop, abs=0.005)


def test_prefill_runs_the_head_on_the_last_token_only() -> None:
    # 73.25 - 2 x 926,679,040 (head) = 71.40 GFLOP per token, in the limit of a long prompt.
    tokens = 4096
    rows = ExpertRows(rows=8 * tokens, slots=256, active=256, copies=8, remote_copies=0)
    attention = _parts(ONE_GPU_V3, "prefill", tokens, 0)
    linear = _flop(attention, "gemm") + _flop(
        token_operations(ONE_GPU_V3, tokens, rows, logits=1), "gemm", "moe"
    )
    assert linear / tokens / 1e9 == pytest.approx(71.40, abs=0.005)


@pytest.mark.parametrize(("context", "gflop"), [(4096, 69.6), (131_072, 2227)])
def test_dense_decode_attention_of_the_whole_model(context: int, gflop: float) -> None:
    # 278,528 FLOP x L x 61 layers.
    core = _flop(_parts(ONE_GPU_V3, "decode", 1, context - 1), "mla_decode")
    assert core / 1e9 == pytest.approx(gflop, rel=1e-3)


@pytest.mark.parametrize(("context", "index_gflop"), [(4096, 4.09), (131_072, 131)])
def test_sparse_decode_attention_of_the_whole_model(context: int, index_gflop: float) -> None:
    # Logits 16,384 x L x 61; core 278,528 x 2,048 x 61 = 34.8 GFLOP at any length beyond 2,048.
    parts = _parts(ONE_GPU_V32, "decode", 1, context - 1)
    assert _flop(parts, "index_logits") / 1e9 == pytest.approx(index_gflop, rel=2e-3)
    assert _flop(parts, "sparse_mla_decode") / 1e9 == pytest.approx(34.8, rel=1e-3)


def test_short_prompts_run_dense_but_still_write_index_keys() -> None:
    short = {p.name for p in _parts(ONE_GPU_V32, "prefill", 2048, 0)}
    long = {p.name for p in _parts(ONE_GPU_V32, "prefill", 2049, 0)}
    assert "MLA core, MHA form" in short and "index logits" not in short
    assert "sparse MLA core" in long and "index logits" in long
    assert "indexer key" in short & long


def test_cached_prefix_still_costs_attention_and_expansion_but_no_other_linear_work() -> None:
    def split(cached: float) -> tuple[float, float, float]:
        parts = _parts(ONE_GPU_V3, "prefill", 100, cached)
        expand = sum(p.flop for p in parts if p.name.startswith("kv_b"))
        linear = _flop([p for p in parts if not p.name.startswith("kv_b")], "gemm")
        return _flop(parts, "mla_prefill"), expand, linear

    without, with_prefix = split(0), split(1000)
    assert with_prefix[1] - without[1] == pytest.approx(1000 * 33_554_432)
    assert with_prefix[0] - without[0] == pytest.approx(61 * 81_920 * 100 * 1000)
    assert with_prefix[2] == without[2]


def test_tensor_parallelism_shards_heads_but_not_the_latent_nor_the_indexer() -> None:
    tp8 = Layout(model("deepseek-v3.2"), gpus=8, tp=8, ep=1, gpus_per_node=8)
    whole, shard = _parts(ONE_GPU_V32, "decode", 1, 9999), _parts(tp8, "decode", 1, 9999)
    assert _flop(shard, "sparse_mla_decode") == pytest.approx(_flop(whole, "sparse_mla_decode") / 8)
    assert _flop(shard, "index_logits") == _flop(whole, "index_logits")


def test_one_attention_rank_sums_experts_with_an_all_reduce_and_many_exchange_tokens() -> None:
    kinds = {
        (tp, ep): {o.kernel for o in token_operations(
            Layout(model("deepseek-v3"), 8, tp, ep, 8), 64, ONE_TOKEN, 64)
            if o.group == "communication" and o.stream != "once"}
        for tp, ep in [(8, 1), (8, 8), (1, 8), (1, 1)]
    }  # fmt: skip
    assert kinds[8, 1] == kinds[8, 8] == {"all_reduce"}
    assert kinds[1, 8] == {"dispatch", "combine"}
    assert kinds[1, 1] == {"all_gather", "reduce_scatter"}


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_block_says_its_cache_format_so_that_its_table_is_found(phase: str) -> None:
    block = _block(ONE_GPU_V32, Batch(phase, 8, 1, 4095))
    assert block.kernel == f"dsa_{phase}_block"
    branch = {"branch": "sparse"} if phase == "prefill" else {}
    assert block.options == {"kv_cache": "fp8", **branch}
    assert block.flop == sum(p.flop for p in block.parts)


@pytest.mark.parametrize(
    ("gpus", "tp", "ep", "exchange", "kernels"),
    [
        (16, 1, 16, "all_to_all", {"dispatch", "combine"}),
        (16, 1, 16, "all_gather", {"all_gather", "reduce_scatter"}),
        (
            16,
            1,
            8,
            "all_to_all",
            {"all_gather", "reduce_scatter"},
        ),  # two GPUs share an expert: sums are needed
        (16, 16, 16, "all_to_all", {"all_reduce"}),  # every GPU has every token
    ],
)
def test_how_tokens_reach_their_experts(gpus: int, tp: int, ep: int, exchange, kernels: set[str]) -> None:
    layout = Layout(model("deepseek-v3"), gpus, tp, ep, gpus_per_node=8, exchange=exchange)
    step = token_operations(layout, 4, ExpertRows(32, 16, 8, 8, 4), logits=4)
    moved = {o.kernel for o in step if o.group == "communication" and o.layers == 58}
    assert moved == kernels


def test_rows_of_other_ranks_experts_by_hand() -> None:
    """64 tokens, top-8, 100 pairs here: 412 elsewhere. Each moves 2 (5 x 2,048 + 2 x 7,168) bytes in BF16, and 3 x
    2,048 more for the FP8 copy of the activation."""
    for weights, per_pair in (
        ("bf16", 2 * (5 * 2048 + 2 * 7168)),
        ("fp8", 2 * (5 * 2048 + 2 * 7168) + 3 * 2048),
    ):
        layout = Layout(model("deepseek-v3"), 8, 8, 8, 8, weights=weights, whole_batch_experts=True)
        step = token_operations(layout, 64, ExpertRows(100, 32, 32, 8, 4), logits=64)
        [rows] = [o for o in step if o.name == "rows of other ranks' experts"]
        assert rows.bytes == 412 * per_pair
        assert (rows.layers, rows.stream) == (58, "experts")
