"""Rows with workers of both kinds, rows with drafts, and kernels that nobody measured."""

from pathlib import Path

import pytest
from published_rows import own

from sim.deployment.plan import deploy
from sim.validation.rows import read_rows
from sim.validation.scenarios import draft_counts, scenario_of
from sim.validation.shapes import Shape
from sim.validation.skips import skipped
from sim.validation.table import SHIPPED, sample, validate

SPLIT = {
    "disagg": 1, "framework": "dynamo-trt", "hardware": "b200", "precision": "fp4", "prefill_workers": 3,
    "prefill_tp": 4, "prefill_ep": 4, "prefill_dp_attn": 1, "num_prefill_gpu": 12, "decode_workers": 2,
    "decode_tp": 8, "decode_ep": 8, "decode_dp_attn": 0, "num_decode_gpu": 16, "total_gpu": 28, "conc": 64, "isl": 8192,
}  # fmt: skip


def test_a_disaggregated_row_has_workers_of_both_kinds(tmp_path: Path) -> None:
    """Counts of GPUs are of all workers of a pool; the closed loop is over the whole service."""
    [row] = read_rows(own(tmp_path, source="InferenceX", **SPLIT))
    assert row.layout == "b200 dynamo-trt fp4 P 3 x 4 GPUs EP4 DP4 + D 2 x 8 GPUs EP8"
    scenario = scenario_of(row, 2000)
    prefill, decode = scenario.deployment.prefill, scenario.deployment.decode
    assert (prefill.workers, prefill.gpus, prefill.tp, prefill.ep) == (3, 4, 1, 4)
    assert (decode.workers, decode.gpus, decode.tp, decode.ep) == (2, 8, 8, 8)
    assert (prefill.memory_fraction, prefill.chunk_tokens, decode.memory_fraction) == (0.6, 16640, 0.75)
    assert scenario.workload.arrivals.closed_loop.concurrency == 64
    assert (scenario.engine, scenario.precision.kv_cache) == ("trtllm", "fp8")


def test_one_gpu_wide_with_attention_dp_means_over_all_gpus(tmp_path: Path) -> None:
    """How GB200's SGLang rows are labelled: TP1 EP1 DP on 32 GPUs is attention DP and EP over the 32."""
    label = {"decode_workers": 1, "decode_tp": 1, "decode_ep": 1, "decode_dp_attn": 1, "num_decode_gpu": 32}
    [row] = read_rows(own(tmp_path, **{**SPLIT, **label}))
    assert row.pools["decode"] == Shape(1, 32, 32, True)
    [row] = read_rows(own(tmp_path, **{**SPLIT, **label, "decode_tp": 32, "decode_ep": 1}))
    assert row.pools["decode"] == Shape(1, 32, 1, True)  # told in full: experts are not spread
    [row] = read_rows(own(tmp_path, **{**SPLIT, "num_prefill_gpu": 13}))
    assert "no layout" in skipped([row])[row.id]


@pytest.mark.parametrize(
    ("precision", "ep", "exchanges"),
    [
        ("fp4", 16, ("all_gather", "all_to_all")),
        ("fp4", 8, ("all_gather", "all_gather")),  # EP of at most the eight experts per token: no all-to-all
        ("fp8", 8, ("all_gather", "all_to_all")),  # TRTLLM_FORCE_COMM_METHOD, of workers that decode alone
    ],
)
def test_tensorrt_llm_exchanges_all_to_all_where_its_source_does(
    tmp_path: Path, precision: str, ep: int, exchanges: tuple[str, str]
) -> None:
    ranks = {"decode_workers": 1, "decode_tp": ep, "decode_ep": ep, "decode_dp_attn": 1, "num_decode_gpu": ep}
    rack = {**SPLIT, **ranks, "hardware": "gb200", "precision": precision, "source": "InferenceX"}
    pools = scenario_of(read_rows(own(tmp_path, **rack))[0], 100).deployment
    assert (pools.prefill.exchange, pools.decode.exchange) == exchanges


def test_drafts_are_those_of_the_launch_script_or_a_range(tmp_path: Path) -> None:
    def drafts(**change: object) -> tuple[int, ...]:
        [row] = read_rows(own(tmp_path, **{"source": "InferenceX", "spec": "mtp", **change}))
        assert scenario_of(row, 100).speculation.draft_tokens == max(draft_counts(row))
        return draft_counts(row)

    assert drafts() == (3,)  # dsr1_fp8_b200_trt_mtp.sh: MTP=3, with attention DP 1
    assert drafts(decode_dp_attn=1) == (1,)
    assert drafts(framework="sglang") == (2,)  # --speculative-num-steps 2
    assert drafts(**SPLIT) == (1, 3)
    assert drafts(spec="none") == (0,)


def test_kernels_without_a_table_give_way_and_the_row_says_so(tmp_path: Path) -> None:
    """trtllm-gen's were measured on Blackwell alone."""
    file = own(tmp_path, hardware="h200", moe_backend="trtllm_gen", conc=4)
    found = validate(file, max_prompts=8)
    assert not found.skipped
    assert "no table of trtllm_gen kernels here" in found.cases[0].note


def test_answers_of_a_disaggregated_row_count_per_decoding_gpu(tmp_path: Path) -> None:
    file = own(
        tmp_path, **{**SPLIT, "conc": 4, "isl": 1024, "output_tput_per_gpu": 1.0, "tput_per_gpu_total": 1.0}
    )
    rate = {case.metric: case.simulated for case in validate(file, max_prompts=8).cases}
    # As many tokens in as out, of 28 GPUs; the answers alone by the 16 that decode: half of 28 / 16, but for drawing.
    assert rate["output_tput_per_gpu"] / rate["total_tput_per_gpu"] == pytest.approx(28 / 16 / 2, rel=0.05)


def test_a_quick_look_has_one_row_of_every_kind() -> None:
    rows = read_rows(SHIPPED)
    left_out = skipped(rows)
    kinds = {(r.hardware, r.framework, r.precision, r.spec) for r in rows if r.id not in left_out}
    assert len(sample(rows)) == len(kinds)


def test_each_pool_is_started_as_its_own_recipe_says(tmp_path: Path) -> None:
    """Attention DP of the prefill side alone gathers on B200; on a rack wide workers exchange all to all."""
    [row] = read_rows(own(tmp_path, source="InferenceX", **SPLIT))
    pools = scenario_of(row, 100).deployment
    assert (pools.prefill.exchange, pools.decode.exchange) == ("all_gather", None)
    wide = {"hardware": "gb200", "decode_dp_attn": 1}
    sixteen = {"decode_tp": 16, "decode_ep": 16, "num_decode_gpu": 32}
    [row] = read_rows(own(tmp_path, source="InferenceX", **{**SPLIT, **wide, **sixteen}))
    pools = scenario_of(row, 100).deployment
    assert (pools.prefill.exchange, pools.decode.exchange) == ("all_gather", "all_to_all")
    [row] = read_rows(own(tmp_path, source="InferenceX", **{**SPLIT, **wide, "framework": "dynamo-sglang"}))
    pools = scenario_of(row, 100).deployment
    assert (pools.prefill.exchange, pools.decode.exchange) == ("all_gather", "all_to_all")
    assert pools.decode.experts.redundant == 32 and pools.prefill.experts is None


def test_decode_over_48_gpus_has_slots_that_divide(tmp_path: Path) -> None:
    """256 experts and the recipe's 32 copies are 288 slots, 6 on each of 48; without copies there is no such layout."""
    label = {"decode_workers": 1, "decode_tp": 1, "decode_ep": 1, "decode_dp_attn": 1, "num_decode_gpu": 48}
    change = {**SPLIT, **label, "hardware": "gb200", "framework": "dynamo-sglang", "source": "InferenceX"}
    [row] = read_rows(own(tmp_path, **change))
    decode = deploy(scenario_of(row, 100)).pools["decode"]
    assert (decode.ep, decode.experts.redundant) == (48, 32)
    assert (256 + decode.experts.redundant) / decode.ep == 6
