"""The grid: what a model asks for, in an order that survives being cut short."""

from collections import Counter
from dataclasses import replace

import pytest

from calibrate.cases import MEMORY_SHARE, QUICK_CASES, Case, plan, reduced
from calibrate.grid import gemm_widths, levels
from sim.catalog import model
from sim.model import operations as ops

H100_BYTES = 85_000_000_000
V32 = model("deepseek-v3.2")


def table(case):
    return case.operation.kernel, case.operation.dtype, *sorted(case.operation.options.items())


def identity(case):
    return *table(case), *sorted(case.operation.shape.items())


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [0]), (2, [0, 0]), (3, [0, 1, 0]), (4, [0, 1, 2, 0]), (5, [0, 2, 1, 2, 0])],
)
def test_ends_come_before_middles_before_quarters(count, expected):
    assert levels(count) == expected


def test_v32_has_about_800_points_and_none_twice():
    cases = plan(V32, "cuda", H100_BYTES)
    assert 750 <= len(cases) <= 850
    assert max(Counter(identity(case) for case in cases).values()) == 1


def test_ceilings_come_first():
    first = [case.operation for case in plan(V32, "cuda", H100_BYTES)[:6]]
    assert [op.kernel for op in first] == ["launch", "copy", "gemm", "gemm", "gemm", "gemm"]
    assert {op.dtype for op in first[2:]} == {"bf16", "fp8"}


def test_every_family_of_a_dsa_model_is_asked_for():
    assert {case.operation.kernel for case in plan(V32, "cuda", H100_BYTES)} == {
        *("launch", "copy", "elementwise", "gemm", "quantize", "absorb_bmm", "mla_prefill", "mla_decode"),
        *("index_logits", "index_topk", "sparse_mla_prefill", "sparse_mla_decode"),
        *("moe", "moe_gate", "moe_permute", "moe_finalise"),
    }
    kernels = {case.operation.kernel for case in plan(model("deepseek-v3"), "cuda", H100_BYTES)}
    assert not kernels & {"index_logits", "index_topk", "sparse_mla_prefill", "sparse_mla_decode"}


def test_stopping_early_leaves_every_table_with_about_as_many_points():
    cases = plan(V32, "cuda", H100_BYTES)[6:]
    sizes = Counter(table(case) for case in cases)
    products = ("gemm", "fp8")
    for stop in (60, 150, 300):
        done = Counter(table(case) for case in cases[:stop])
        unfinished = [done[name] for name in sizes if done[name] < sizes[name] and name != products]
        assert max(unfinished) - min(unfinished) <= 1
        assert done[products] >= 4 * min(unfinished)
    assert [case.operation.kernel for case in cases[:4]] == [
        "gemm"
    ] * 4  # most of a step: four to each other case
    assert {case.operation.dtype for case in cases[:4]} == {"fp8"}


def test_the_corners_of_a_table_come_before_its_inside():
    rows = [c.operation.shape for c in plan(V32, "cuda", H100_BYTES) if table(c) == ("index_logits", "fp8")]
    ends = {(1, 1, 512), (1, 1, 131072), (512, 1, 512), (512, 1, 131072)}
    chunks = {(1, 256, 512), (1, 256, 131072), (32, 1024, 1024)}
    first = {(row["batch"], row["new"], row["context"]) for row in rows[:7]}
    assert first == ends | chunks


def test_the_gemm_widths_are_v3s():
    """(n, k) of the published shapes: DeepGEMM's tests and the model's configuration."""
    widths = gemm_widths(V32, (1,))
    for n, k in (
        (2112, 7168),
        (24576, 1536),
        (32768, 512),
        (7168, 16384),
        (4096, 7168),
        (7168, 2048),
        (36864, 7168),
    ):
        assert ("fp8", n, k) in widths
    assert ("fp8", 8192, 1536) in widths  # indexer queries: 64 heads x 128
    assert ("bf16", 129280, 7168) in widths  # head
    assert ("bf16", 256, 7168) in widths  # gate
    assert ("fp8", 3072, 1536) in gemm_widths(V32, (1, 8))  # q_b of 16 heads x 192


def test_flop_and_bytes_are_the_simulators():
    cases = plan(V32, "cuda", H100_BYTES)
    decode = next(
        c.operation
        for c in cases
        if c.operation.kernel == "mla_decode"
        and c.operation.options == {"kv_cache": "bf16"}
        and dict(c.operation.shape) == {"heads": 128, "batch": 1, "context": 512, "queries": 1}
    )
    assert decode.flop == 278_528 * 512  # FLOP per pair of the absorbed form, 128 heads
    assert decode.bytes == 512 * 1152 + 128 * (2 * 512 + 64) * 2
    logits = next(c.operation for c in cases if c.operation.kernel == "index_logits" and c.size("new") == 1)
    assert logits.flop == 16_384 * logits.shape["batch"] * logits.shape["context"]


def test_cases_fit_into_the_memory():
    for memory in (H100_BYTES, 16 * 10**9):
        assert all(c.footprint_bytes <= MEMORY_SHARE * memory for c in plan(V32, "cuda", memory))
    assert len(plan(V32, "cuda", 16 * 10**9)) < len(plan(V32, "cuda", H100_BYTES))


def test_a_sparse_case_occupies_its_whole_cache():
    case = Case(ops.sparse_mla("decode", 128, 128, 1, 131071, 2048, 512, 64, 656, "fp8"), V32)
    assert case.footprint_bytes > 128 * 131072 * 656


def test_a_cpu_gets_a_reduced_model_with_the_packed_widths_whole():
    small = reduced(V32)
    assert (small.hidden, small.q_lora_rank, small.moe_inter, small.heads) == (1792, 384, 512, 16)
    kept = ("kv_lora_rank", "qk_rope", "qk_nope", "v_head_dim", "index_heads", "index_head_dim", "index_topk")
    assert all(getattr(small, name) == getattr(V32, name) for name in kept)
    cases = plan(V32, "cpu", 10**10, quick=True)
    assert len(cases) == QUICK_CASES["cpu"]
    assert len({case.operation.kernel for case in cases}) >= 6
    assert max(case.operation.flop for case in cases) < 1e10


def test_fp8_widths_that_blocks_do_not_divide_are_left_out():
    odd = replace(V32, dense_inter=10_944)  # DeepSeek-V2-Lite's: 85.5 blocks
    for case in plan(odd, "cuda", H100_BYTES):
        if case.operation.kernel == "gemm" and case.operation.dtype == "fp8":
            assert case.size("k") % 128 == 0


def test_communication_only_between_several_gpus():
    exchanged = {"all_reduce", "all_gather", "reduce_scatter", "dispatch", "combine"}
    assert not exchanged & {case.operation.kernel for case in plan(V32, "cuda", H100_BYTES, gpus=1)}
    several = plan(V32, "cuda", H100_BYTES, gpus=8)
    assert exchanged <= {case.operation.kernel for case in several}
    assert {c.size("gpus") for c in several if c.operation.kernel == "all_reduce"} == {2, 4, 8}
    assert {c.operation.options["mode"] for c in several if c.operation.kernel == "dispatch"} == {
        "low_latency",
        "normal",
    }


@pytest.mark.parametrize("name", ["deepseek-v2-lite", "qwen3-235b-a22b"])
def test_other_models_have_a_grid_too(name):
    assert len(plan(model(name), "cuda", H100_BYTES)) > 100
    assert len(plan(model(name), "cpu", 10**10, quick=True)) >= 25
