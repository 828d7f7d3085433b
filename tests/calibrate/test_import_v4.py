"""Importing DeepSeek-V4's tables: what becomes of their rows, on tables written here in the source's format."""

from pathlib import Path

import numpy as np
import pandas as pd

from calibrate.importers import v4
from calibrate.importers.source import Source
from sim.catalog import model

FLASH = model("deepseek-v4-flash")
HUB = "sgl-project/DeepSeek-V4-Flash-FP8"


def write(folder: Path, name: str, rows: list[dict]) -> Source:
    common = {"system": "h200_sxm", "fw": "sglang", "ver": "1", "table": name, "kernel_source": "default"}
    pd.DataFrame([{**common, **row} for row in rows]).to_parquet(folder / f"{name}.parquet")
    return Source(folder, "h200_sxm", "sglang")


def attention(ratio: int, step: int, ms: float, isl: int = 1, **more: object) -> dict:
    return {
        "model": HUB, "compress_ratio": ratio, "num_heads": 16, "batch_size": 4, "isl": isl, "step": step,
        "kv_cache_dtype": "fp8_e4m3", "gemm_type": "fp8_block", "latency_ms": ms, **more,
    }  # fmt: skip


def test_blocks_are_filed_by_ratio_and_phase(tmp_path):
    write(tmp_path, "v4_attn_context", [attention(4, 256, 0.3, isl=64)])
    bf16 = attention(4, 100, 9.0, gemm_type="bfloat16")
    other = attention(4, 100, 9.0, model="sgl-project/DeepSeek-V4-Pro-FP8")
    rows = [attention(4, 100, 0.1), attention(128, 100, 0.2), bf16, other]
    source = write(tmp_path, "v4_attn_generation", rows)
    write(tmp_path, "v4_indexer_kernels", [selection("v2_flat", 9000, 0.0)])
    tables = list(v4.blocks(source, FLASH))
    found = {
        t.kernel: ({axis: float(v[0]) for axis, v in t.columns.items()}, t.seconds.tolist()) for t in tables
    }
    decode = {"heads": 16.0, "batch": 4.0, "context": 100.0}
    assert found == {
        "csa_decode_block": (decode, [0.1e-3]),
        "hca_decode_block": (decode, [0.2e-3]),
        "csa_prefill_block": ({"heads": 16.0, "batch": 4.0, "new": 64.0, "cached": 256.0}, [0.3e-3]),
    }
    assert {t.variant.options["kv_cache"] for t in tables} == {"fp8"}


def selection(mode: str, step: int, us: float, **more: object) -> dict:
    shape = attention(4, step, us * 1e-3, **more)
    return {**shape, "table": "dsv4_csa_topk_calib", "score_mode": mode}


def test_a_block_of_csa_is_less_what_its_selection_takes_on_equal_scores(tmp_path):
    """At 8,192 tokens of context SGLang's kernel takes 65 us on equal scores and 3 on others; of few entries, and of
    HCA, nothing is subtracted. The timed batch of 4 holds of 6 sequences, which were not timed."""
    write(tmp_path, "v4_attn_context", [attention(4, 8192, 1.0, isl=64)])
    rows = [attention(4, 8192, 0.15), attention(4, 8192, 0.16, batch_size=6), attention(4, 100, 0.1)]
    source = write(tmp_path, "v4_attn_generation", [*rows, attention(128, 8192, 0.2)])
    write(
        tmp_path,
        "v4_indexer_kernels",
        [
            selection("v2_flat", 8192, 65.0), selection("v2_top_last", 8192, 3.0),
            selection("v1_flat", 8192, 40.0, isl=64), selection("v1_top_last", 8192, 20.0, isl=64),
        ],
    )  # fmt: skip
    tables = {t.kernel: t for t in v4.blocks(source, FLASH)}
    assert np.allclose(sorted(tables["csa_decode_block"].seconds), [88e-6, 98e-6, 100e-6])
    assert np.allclose(tables["csa_prefill_block"].seconds, 0.98e-3)
    assert tables["hca_decode_block"].seconds.tolist() == [0.2e-3]
    assert tables["csa_decode_block"].source.endswith("scores unequal")
    assert "unequal" not in tables["hca_decode_block"].source


def test_a_large_table_keeps_every_second_value_and_the_ends():
    rows = pd.DataFrame({"isl": range(10), "step": 0, "batch_size": 1, "latency_ms": 1.0})
    assert v4.thinned(rows).isl.tolist() == [0, 2, 4, 6, 8, 9]


def test_experts_are_those_of_a_rank(tmp_path):
    """EP8: 32 of the 256 experts; 40 tokens x 6 / 8 = 30 pairs, each on an expert of its own."""
    shape = {
        "hidden_size": 4096, "inter_size": 2048, "topk": 6, "num_experts": 256, "moe_tp_size": 1, "moe_ep_size": 8,
        "distribution": "balanced", "moe_dtype": "w4a8_mxfp4_mxfp8", "num_tokens": 40, "latency_ms": 0.1,
    }  # fmt: skip
    rows = [{**shape, "kernel_source": "moe_torch_flow"}, {**shape, "distribution": "power_law_1.2"}]
    older = {**shape, "kernel_source": "moe_torch_flow", "ver": "0", "latency_ms": 5.0}
    (table,) = v4.experts(write(tmp_path, "v4_moe", [*rows, older]), FLASH)
    assert (table.kernel, table.variant.dtype, table.backend) == ("moe", "mxfp4", "trtllm_gen")
    assert {axis: float(v[0]) for axis, v in table.columns.items()} == {
        "rows": 30, "experts": 32, "active": 30, "hidden": 4096, "inter": 2048,
    }  # fmt: skip
    assert table.seconds.tolist() == [0.1e-3]


def test_of_several_kernels_the_fastest_mixes_the_streams(tmp_path):
    shape = {"op_name": "pre", "hc_mult": 4, "hidden_size": 4096, "num_tokens": 64}
    rows = [{**shape, "latency_ms": ms} for ms in (0.03, 0.02)]
    (table,) = v4.hyper_connections(write(tmp_path, "v4_mhc", rows), FLASH)
    assert (table.kernel, table.seconds.tolist()) == ("mhc_pre", [0.02e-3])


def test_mega_moe_counts_the_tokens_of_a_rank(tmp_path):
    pro = model("deepseek-v4-pro")
    row = {
        "hidden_size": 7168, "inter_size": 3072, "topk": 6, "num_experts": 384, "moe_ep_size": 8, "num_tokens": 16,
        "distribution": "balanced", "moe_dtype": "w4a8_mxfp4_mxfp8", "latency_ms": 0.35,
    }  # fmt: skip
    latent = {**row, "hidden_size": 3584, "num_experts": 896, "topk": 16}
    (table,) = v4.mega_moe(write(tmp_path, "v4_megamoe", [row, latent]), pro)
    columns = {axis: float(np.asarray(v)[0]) for axis, v in table.columns.items()}
    assert columns == {"rows": 96, "experts": 48, "active": 48, "ep": 8, "hidden": 7168, "inter": 3072}
