"""FLOP and bytes of single operations against the papers' figures and hand arithmetic."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.kernels.formats import activation_bytes, causal_pairs, sparse_pairs
from sim.model import operations as ops
from sim.model.exchanges import all_to_all, collective


def test_prefill_attention_flop_per_pair() -> None:
    # 128 heads x (192 query-key + 128 value) x 2 = 81,920 FLOP per (query, key) pair; one token sees one pair.
    core = ops.mla_prefill(128, batch=1, new=1, cached=0, qk_dim=192, v_dim=128, kv_cache="bf16")
    assert core.flop == 81_920


def test_decode_attention_flop_per_pair() -> None:
    # 128 heads x (576 query-key + 512 value) x 2 = 278,528 FLOP per pair.
    core = ops.mla_decode(
        128, 1, context=1, queries=1, kv_lora=512, rope=64, entry_bytes=1152, kv_cache="bf16"
    )
    assert core.flop == 278_528


def test_index_logits_flop_per_pair() -> None:
    # 64 heads x 128 x 2 = 16,384 FLOP per (query, key).
    assert ops.index_logits(1, 1, 0, index_heads=64, index_dim=128, key_bytes=132).flop == 16_384


def test_expanding_the_prefix_flop_per_cached_token() -> None:
    # kv_b: [token, 512] x [512, 128 heads x (128 + 128)], 2 x 512 x 32,768 = 33.55 MFLOP.
    assert ops.gemm("kv_b", "attention", m=1, n=128 * 256, k=512, dtype="fp8").flop == pytest.approx(
        33.55e6, abs=0.005e6
    )


def test_dispatch_and_combine_bytes_per_copy() -> None:
    # FP8 with an FP32 scale per 128: 7,168 + 56 x 4 = 7,392; BF16 back: 7,168 x 2 = 14,336.
    arguments = {"tokens": 1, "ep": 8, "nodes": 1, "hidden": 7168, "top_k": 8}
    arguments |= {"mode": "low_latency", "copies": 1, "remote_copies": 0}
    assert all_to_all("dispatch", **arguments).bytes == 7_392
    assert all_to_all("combine", **arguments).bytes == 14_336


def test_sparse_gather_reads_656_bytes_for_each_of_2048_keys() -> None:
    core = ops.sparse_mla("decode", 128, 1, 1, 9_999, 2048, 512, 64, entry_bytes=656, kv_cache="fp8")
    activations = 128 * (2 * 512 + 64) * 2
    assert core.bytes == 2048 * 656 + activations
    assert core.flop == 2048 * 278_528


def test_index_key_reads_pass_the_sparse_gather_near_10k_tokens() -> None:
    # 132 L = 656 x 2,048  ->  L = 10,178.
    def index_minus_gather(length: int) -> float:
        return length * 132 - 656 * 2048

    assert index_minus_gather(10_177) < 0 < index_minus_gather(10_178)
    at = {}
    for length in (10_000, 10_400):
        logits = ops.index_logits(1, 1, length - 1, 64, 128, key_bytes=activation_bytes(128, "fp8"))
        gather = ops.sparse_mla("decode", 128, 1, 1, length - 1, 2048, 512, 64, 656, "fp8")
        keys_only = logits.bytes - 64 * (128 + 4) - length * 4
        at[length] = keys_only - (gather.bytes - 128 * (2 * 512 + 64) * 2)
    assert at[10_000] < 0 < at[10_400]


def test_fp8_gemm_traffic_by_hand() -> None:
    # [2, 256] x [256, 128]: activations 2 x 256 + 2 x 2 scales x 4; weights 256 x 128 + 2 scales x 4; out 2 x 128 x 2.
    assert ops.gemm("g", "dense", 2, 128, 256, "fp8").bytes == (512 + 16) + (32_768 + 8) + 512


def test_experts_count_three_matrices_for_flop_and_for_bytes() -> None:
    # One V3 expert is 3 x 7,168 x 2,048 = 44,040,192 parameters: 2 FLOP each per row, read once when touched.
    one = ops.routed_experts(rows=1, experts=8, active=1, hidden=7168, inter=2048, dtype="bf16")
    assert one.flop == 2 * 44_040_192
    assert one.bytes == 2 * 44_040_192 + 2 * (7168 + 2048) + 2 * (2 * 2048 + 7168)


def test_ring_all_reduce_sends_twice_the_share_of_others() -> None:
    assert collective("all_reduce", "r", 800.0, 8).bytes == 1_400
    assert collective("all_gather", "g", 800.0, 8).bytes == 700


@given(new=st.integers(1, 300), cached=st.integers(0, 300), top_k=st.integers(1, 400))
def test_pairs_equal_the_sum_over_queries(new: int, cached: int, top_k: int) -> None:
    positions = range(cached + 1, cached + new + 1)
    assert causal_pairs(new, cached) == sum(positions)
    assert sparse_pairs(new, cached, top_k) == sum(min(p, top_k) for p in positions)


def test_a_block_lists_its_parts_when_somebody_asks() -> None:
    asked: list[int] = []

    def inside() -> list[ops.Operation]:
        asked.append(1)
        return [ops.gemm("up", "attention", 2, 3, 5, "bf16"), ops.elementwise("norm", "attention", 7.0)]

    block = ops.Block.of(inside, "mla_prefill_block", {"new": 2.0}, "bf16", 4, {}, {})
    assert block.layers == 4
    assert block.kernel == "mla_prefill_block"
    assert not asked
    # 2 x 2 x 3 x 5 FLOP; 2 bytes for each of 10 + 15 elements read and 6 written, and the norm's 7
    assert (block.flop, block.bytes) == (60.0, 69.0)
    renamed = replace(block, name="attention, first layers")
    assert renamed.parts == block.parts
    assert (renamed.flop, renamed.bytes, len(asked)) == (60.0, 69.0, 1)
