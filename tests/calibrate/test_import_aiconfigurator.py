"""Importing tables: what becomes of their rows, on tables written here in the source's format."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from calibrate.cli import app
from calibrate.importers import attention, exchange, experts, matrices
from calibrate.importers.source import MissingTable, Source, flags
from calibrate.store import save_profile
from sim.cost.profile import read_profile


def write(folder: Path, name: str, rows: list[dict]) -> Source:
    common = {"system": "h200_sxm", "fw": "trtllm", "ver": "1", "table": name, "kernel_source": "default"}
    frame = pd.DataFrame([{**common, **row} for row in rows])
    text = frame.select_dtypes(exclude="number").columns
    frame.astype(dict.fromkeys(text, "category")).to_parquet(folder / f"{name}.parquet")
    return Source(folder, "h200_sxm", "trtllm")


def mla(op_name, heads, batch, isl, step, ms, **more):
    return {
        "op_name": op_name, "num_heads": heads, "batch_size": batch, "isl": isl, "step": step,
        "kv_cache_dtype": "fp8", "gemm_type": "fp8_block", "latency_ms": ms, **more,
    }  # fmt: skip


def test_a_bare_decode_kernel_counts_the_new_token(tmp_path):
    source = write(tmp_path, "v3_mla_kernel", [mla("mla_generation", 16, 4, 1, 1023, 0.5)])
    (table,) = attention.mla_kernels(source)
    assert (table.kernel, table.variant.dtype, table.variant.options) == (
        "mla_decode",
        "bf16",
        {"kv_cache": "fp8"},
    )
    assert {axis: float(v[0]) for axis, v in table.columns.items()} == {
        "heads": 16,
        "batch": 4,
        "context": 1024,
    }
    assert table.seconds[0] == pytest.approx(0.5e-3)


def test_products_of_other_formats_say_that_they_hold_the_quantisation_of_their_input(tmp_path):
    rows = [
        {"gemm_dtype": dtype, "m": m, "n": 512, "k": 7168, "latency_ms": 0.01}
        for dtype in ("bfloat16", "fp8_block", "nvfp4") for m in (16, 32)
    ]  # fmt: skip
    found = {t.variant.dtype: t for t in matrices.gemms(write(tmp_path, "v3_gemm", rows))}
    assert {dtype: t.includes for dtype, t in found.items()} == {
        "bf16": (), "fp8": ("quantize",), "nvfp4": ("quantize",),
    }  # fmt: skip
    header = {"gpu": "h200_sxm", "engine": "trtllm"}
    save_profile(tmp_path / "p", header, list(found.values()))
    again = {t.variant.dtype: t.includes for t in read_profile(tmp_path / "p").tables("gemm")}
    assert again == {dtype: t.includes for dtype, t in found.items()}


def test_a_module_keeps_its_projections_precision(tmp_path):
    rows = [
        mla("mla_context_module", 128, 1, 4096, 0, 2.9),
        mla("mla_generation_module", 128, 1, 1, 1024, 0.1),
    ]
    write(tmp_path, "v3_wideep_mla", [mla("mla_context", 128, 1, 1, 0, 1.0, fw="sglang")])
    prefill, decode = attention.mla_modules(write(tmp_path, "v3_mla_module", rows))
    assert (prefill.kernel, prefill.columns["new"][0]) == ("mla_prefill_block", 4096)
    assert (decode.kernel, decode.variant.dtype, decode.columns["context"][0]) == (
        "mla_decode_block",
        "fp8",
        1024,
    )


def test_sglangs_wide_ep_decode_reads_a_bf16_cache_whatever_its_label(tmp_path):
    write(tmp_path, "v3_mla_module", [mla("mla_context_module", 128, 1, 1, 0, 1.0)])
    rows = [mla("mla_generation", 16, 16, 4096, 0, 0.2, fw="sglang", kernel_source="fa3")]
    write(tmp_path, "v3_wideep_mla", rows)
    (table,) = attention.mla_modules(Source(tmp_path, "h200_sxm", "sglang"))
    assert table.variant.options == {"kv_cache": "bf16"}
    assert table.columns["context"][0] == 4096


def test_repeated_shapes_become_their_median_and_their_spread_the_noise(tmp_path):
    rows = [mla("mla_generation", 16, 4, 1, 1023, ms) for ms in (1.0, 1.1, 1.2)]
    (table,) = attention.mla_kernels(write(tmp_path, "v3_mla_kernel", rows))
    assert table.seconds == pytest.approx([1.1e-3])
    assert table.noise == pytest.approx(0.1)  # (1.2 / 1.0 - 1) / 2


def test_flagged_rows_stay_out(tmp_path):
    gemm = {"op_name": "gemm", "gemm_dtype": "fp8_block", "m": 8, "n": 256, "k": 7168, "latency_ms": 0.2}
    write(tmp_path, "v3_gemm", [gemm, gemm | {"fw": "vllm"}])
    assert list(matrices.gemms(Source(tmp_path, "h200_sxm", "vllm"))) == []
    assert len(list(matrices.gemms(Source(tmp_path, "h200_sxm", "trtllm")))) == 1


def test_a_bf16_product_is_the_median_of_three_engines_that_time_the_same_call(tmp_path):
    """vLLM's release is 10% faster throughout, which one factor takes off; SGLang was interrupted at m = 64."""
    ms = {"trtllm": (1.0, 2.0, 4.0, 8.0), "vllm": (0.9, 1.8, 3.6, None), "sglang": (1.0, 6.0, 4.4, 8.0)}
    rows = [
        {
            "op_name": "gemm",
            "gemm_dtype": "bfloat16",
            "m": m,
            "n": 256,
            "k": 7168,
            "latency_ms": time,
            "fw": engine,
        }
        for engine, times in ms.items()
        for m, time in zip((32, 64, 128, 256), times, strict=True)
        if time is not None
    ]
    write(tmp_path, "v3_gemm", rows)
    sglang, trtllm = (next(matrices.gemms(Source(tmp_path, "h200_sxm", e))) for e in ("sglang", "trtllm"))
    # Of vLLM's rows 1 / 0.9 of TensorRT-LLM's: (1, 1, 1), (2, 2, 6), (4, 4, 4.4); the fourth lacks vLLM's.
    assert trtllm.seconds * 1e3 == pytest.approx([1.0, 2.0, 4.0, 8.0])
    # SGLang over vLLM: 1.11, 3.33, 1.22, by their median; over TensorRT-LLM: 1, 3, 1.1, 1, by theirs, 1.05.
    assert sglang.seconds[1] * 1e3 == pytest.approx(1.8 * 4.4 / 3.6)
    assert sglang.seconds[3] * 1e3 == pytest.approx(8.0)
    assert "median of three engines" in sglang.source
    (two := tmp_path / "two").mkdir()
    write(two, "v3_gemm", [row for row in rows if row["fw"] != "vllm"])
    (alone,) = matrices.gemms(Source(two, "h200_sxm", "sglang"))
    assert alone.seconds[1] * 1e3 == pytest.approx(6.0) and "median" not in alone.source


def test_every_flag_has_evidence_and_a_query_that_parses():
    for flag in flags().itertuples():
        assert flag.action in ("exclude", "spikes", "caution", "rows", "relabel", "with quantize"), flag
        assert len(flag.evidence) > 20, flag
        compile(str(flag.query), "flag", "eval")


def test_collectives_count_elements_of_two_bytes(tmp_path):
    rows = [{"op_name": "all_reduce", "num_gpus": 8, "message_size": 1000, "latency_ms": 0.01}]
    write(tmp_path, "comm_custom_allreduce", rows)
    nccl = {
        "op_name": "all_gather",
        "fw": "nccl",
        "nccl_dtype": "half",
        "num_gpus": 8,
        "message_size": 1,
        "latency_ms": 1,
    }
    write(tmp_path, "comm_nccl", [nccl | {"op_name": "all_gather"}])
    custom, gather = exchange.collectives(Source(tmp_path, "h200_sxm", "trtllm"))
    assert custom.columns["bytes"][0] == 2000
    assert (gather.kernel, gather.backend) == ("all_gather", "nccl")


def test_low_latency_deepep_is_filed_by_nodes(tmp_path):
    row = {
        "fw": "sglang", "ver": "0.5.6.post2", "table": "wideep_deepep_ll", "node_num": 4, "num_token": 128,
        "hidden_size": 7168, "num_topk": 8, "dispatch_sms": np.nan,
        "dispatch_avg_t_us": 150.0, "combine_avg_t_us": 270.0,
        "dispatch_transmit_us": np.nan, "dispatch_notify_us": np.nan,
        "combine_transmit_us": np.nan, "combine_notify_us": np.nan,
    }  # fmt: skip
    write(tmp_path, "v3_deepep", [row])
    tables = {t.kernel: t for t in exchange.deepep(Source(tmp_path, "h200_sxm", "sglang"))}
    assert (tables["dispatch"].variant.dtype, tables["combine"].variant.dtype) == ("fp8", "bf16")
    assert (tables["dispatch"].columns["ep"][0], tables["dispatch"].columns["nodes"][0]) == (32, 4)
    assert tables["combine"].seconds[0] == pytest.approx(270e-6)


def test_a_plain_gate_spreads_pairs_evenly():
    # 64 tokens x 8 experts over 16 ranks: 32 pairs on 16 experts; 1 token over 32 ranks: the hottest has one pair
    assert experts.spread(64, 16) == (32, 16)
    assert experts.spread(1, 32) == (1, 1)


def test_the_grouped_gate_piles_tied_choices_on_the_first_experts():
    """4 of a token's 8 experts fall one into each of groups 0 to 3, the other 4 on experts 0 to 4."""
    # EP1: all 8 pairs per token; experts 0 to 127 (4 groups of 32) are touched
    assert experts.grouped(64, 1) == (64 * 8, 128)
    # EP2: rank 0 holds those 128 experts, so it gets everything
    assert experts.grouped(64, 2) == (64 * 8, 128)
    # EP8: rank 0 is group 0: one real expert per token and the 4 ties
    assert experts.grouped(64, 8) == (64 * 5, 32)
    # EP64: rank 0 is experts 0 to 3; the ties of a token are the four lowest but its own
    assert experts.grouped(64, 64) == (64 * 4, 4)
    # EP256: expert 0 is real or tied for every token
    assert experts.grouped(64, 256) == (64, 1)
    # one token: experts 0, 32, 64, 96 and 1, 2, 3, 4
    assert experts.grouped(1, 8) == (5, 5)


def test_moe_rows_are_those_of_one_rank(tmp_path):
    row = {
        "op_name": "moe", "moe_dtype": "fp8_block", "num_tokens": 64, "hidden_size": 7168, "inter_size": 2048,
        "topk": 8, "num_experts": 256, "moe_tp_size": 2, "moe_ep_size": 8, "distribution": "balanced",
        "latency_ms": 0.1, "kernel_source": "moe_torch_flow_cutlass",
    }  # fmt: skip
    (table,) = experts.grouped_gemms(
        write(tmp_path, "v3_moe", [row, row | {"distribution": "power_law_1.2"}])
    )
    assert table.backend == "cutlass"
    assert {a: float(v[0]) for a, v in table.columns.items()} == {
        "rows": 64, "experts": 32, "active": 32, "hidden": 7168, "inter": 1024,
    }  # fmt: skip


def test_vllms_triton_rows_are_also_a_table_of_their_own(tmp_path):
    """Its default on Hopper is Triton without EP, FlashInfer with it; who names Triton gets Triton."""
    row = {
        "op_name": "moe", "moe_dtype": "fp8_block", "num_tokens": 64, "hidden_size": 7168, "inter_size": 2048,
        "topk": 8, "num_experts": 256, "moe_tp_size": 8, "moe_ep_size": 1, "distribution": "balanced",
        "latency_ms": 0.1, "kernel_source": "vllm_fp8moe_triton_tritonexperts", "fw": "vllm",
    }  # fmt: skip
    flashinfer = {"kernel_source": "vllm_fp8moe_flashinfer_cutlass_flashinferexperts", "moe_ep_size": 8}
    write(tmp_path, "v3_moe", [row, row | flashinfer])
    default, triton = experts.grouped_gemms(Source(tmp_path, "h200_sxm", "vllm"))
    assert (default.backend, len(default.seconds)) == ("cutlass", 2)
    assert (triton.backend, list(triton.columns["experts"])) == ("triton", [256.0])


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(MissingTable, match=r"v3_gemm\.parquet: expected this table"):
        list(matrices.gemms(Source(tmp_path, "h200_sxm", "trtllm")))
    result = CliRunner().invoke(app, ["import", "--from", str(tmp_path), "--gpu", "h200", "--engine", "vllm"])
    assert result.exit_code == 2
    assert "expected this table" in result.stderr


def test_an_unknown_gpu_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["import", "--from", str(tmp_path), "--gpu", "h2000"])
    assert result.exit_code == 2
    assert "expected h200" in result.stderr


def test_a_written_profile_reads_back(tmp_path):
    rows = [mla("mla_generation", 16, batch, 1, 1023, 0.5 * batch) for batch in (1, 2)]
    tables = list(attention.mla_kernels(write(tmp_path, "v3_mla_kernel", rows)))
    save_profile(tmp_path / "p", {"gpu": "h200_sxm", "engine": "trtllm"}, tables)
    (table,) = read_profile(tmp_path / "p").tables("mla_decode")
    assert table.seconds == pytest.approx([0.5e-3, 1e-3])
    assert table.key == tables[0].key
    assert read_profile(tmp_path / "p").tables("gemm") == ()


def dsa(step, ms, isl=512, **more):
    source = {"kernel_source": "sglang_dsa_dense_mha_fa3", "fw": "sglang"}
    return mla("dsa_context_module", 128, 1, isl, step, ms, **source, **more)


def dsa_prefill(folder, rows):
    write(folder, "v32_dsa_generation", [mla("dsa_generation_module", 128, 1, 1, 64, 1.0)])
    write(folder, "v32_dsa_context", rows)
    (table,) = attention.dsa_modules(Source(folder, "h200_sxm", "sglang"))
    return dict(zip(table.columns["cached"].tolist(), (table.seconds * 1e3).round(3).tolist(), strict=True))


def test_a_row_above_both_neighbours_along_the_prefix_timed_an_interrupted_host(tmp_path):
    """H200 with SGLang, one prompt of 512 tokens: 1.135 ms behind 512 tokens between 0.997 and 0.966 ms."""
    rows = [dsa(128, 0.961), dsa(256, 0.997), dsa(512, 1.135), dsa(1024, 0.966)]
    assert dsa_prefill(tmp_path, rows) == {128: 0.961, 256: 0.997, 1024: 0.966}


def test_rows_that_a_longer_prefix_confirms_or_that_end_the_axis_stay(tmp_path):
    rows = [
        dsa(0, 1.5),
        dsa(1, 1.0),
        dsa(64, 1.05),
        dsa(128, 1.0),
        dsa(256, 1.3),
        dsa(512, 1.3),
        dsa(1024, 2),
    ]
    assert dsa_prefill(tmp_path, rows) == {0: 1.5, 1: 1.0, 64: 1.05, 128: 1.0, 256: 1.3, 512: 1.3, 1024: 2.0}


def test_neighbours_are_of_the_same_prompt_length(tmp_path):
    rows = [dsa(0, 1.0), dsa(128, 2.0, isl=2048), dsa(256, 1.0)]
    assert dsa_prefill(tmp_path, rows) == {0: 1.0, 128: 2.0, 256: 1.0}


def test_a_good_repeat_of_an_interrupted_row_stays(tmp_path):
    """GB200 with SGLang timed every shape twice: 2.269 and 3.478 ms behind 16,384 tokens."""
    rows = [dsa(12288, 2.216), dsa(16384, 2.269), dsa(16384, 3.478), dsa(32768, 2.557), dsa(65536, 2.576)]
    assert dsa_prefill(tmp_path, rows) == {12288: 2.216, 16384: 2.269, 32768: 2.557, 65536: 2.576}


def test_interrupted_rows_beside_each_other_leave_one_after_the_other(tmp_path):
    rows = [dsa(1, 1.0), dsa(4, 2.0), dsa(8, 3.0), dsa(16, 1.0)]
    assert dsa_prefill(tmp_path, rows) == {1: 1.0, 16: 1.0}
