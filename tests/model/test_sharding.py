"""Shared expert, dense FFN and head with attention DP: what engines shard over all GPUs, in memory and in time."""

import pytest

from sim import catalog
from sim.deployment.checks import shape_problems
from sim.model.architecture import weight_bytes_per_gpu
from sim.model.layers import token_operations
from sim.model.layout import ExpertRows, Layout
from sim.model.operations import Operation
from sim.model.sharding import Sharding, engine_sharding
from sim.scenario.schema import Scenario


def scenario(**changes: object) -> Scenario:
    workload = {
        "arrivals": {"poisson": {"rate_per_s": 5.0}},
        "lengths": {"input": {"constant": 1000}, "output": {"constant": 100}},
    }
    base = {"model": "deepseek-v3", "gpu": "h200", "workload": workload, "duration_s": 20.0}
    return Scenario.model_validate(base | changes)


V3 = catalog.model("deepseek-v3")
ROWS = ExpertRows(rows=64, slots=256, active=60, copies=8, remote_copies=0)


def step(engine: str, tp: int, ep: int, tokens: float = 4.0) -> dict[str, Operation]:
    """A decode step's operations beside attention on eight GPUs, by name."""
    layout = Layout(V3, 8, tp, ep, 8)
    sharding = engine_sharding(catalog.engine(engine), 8, tp, layout.all_to_all)
    layout = Layout(V3, 8, tp, ep, 8, sharding=sharding)
    return {o.name: o for o in token_operations(layout, tokens, ROWS, logits=tokens)}


@pytest.mark.parametrize(
    ("engine", "tp", "ep", "expected"),
    [
        # SGLang gathers the ranks' tokens where there is no all-to-all (deepseek_v2.py: mlp_tp_size None).
        ("sglang", 1, 1, Sharding(shared=8, dense_ffn=8, head=8, embedding=1)),
        ("sglang", 2, 1, Sharding(8, 8, 8, 2)),
        # DeepEP: shared experts with tp_size 1, moe-dense-tp-size 1, enable-dp-lm-head.
        ("sglang", 1, 8, Sharding(1, 1, 1, 1)),
        ("sglang", 2, 8, Sharding(1, 1, 2, 2)),
        # vLLM: a data-parallel rank is a TP group of its own; sequence parallel with EP.
        ("vllm", 1, 1, Sharding(1, 1, 1, 1)),
        ("vllm", 2, 8, Sharding(1, 2, 2, 2)),
        # TensorRT-LLM: attention DP makes the MLP data parallel too.
        ("trtllm", 1, 1, Sharding(1, 1, 1, 1)),
        *((engine, 8, ep, Sharding(8, 8, 8, 8)) for engine in ("sglang", "vllm", "trtllm") for ep in (1, 8)),
    ],
)
def test_what_engines_shard(engine: str, tp: int, ep: int, expected: Sharding) -> None:
    all_to_all = tp < 8 == ep
    assert engine_sharding(catalog.engine(engine), 8, tp, all_to_all) == expected


def test_weights_of_dp8_by_hand() -> None:
    """V3 on eight GPUs: 58 shared experts of 44.04e6, 3 dense FFNs of 396.4e6 in FP8 and a head of 926.7e6 in BF16 go
    over eight GPUs: 2.55 + 1.19 + 1.85 GB become 0.70 GB of 100.8."""
    whole = weight_bytes_per_gpu(V3, gpus=8)
    over_all = weight_bytes_per_gpu(V3, gpus=8, sharding=Sharding(8, 8, 8, 1))
    moved = (58 * 44_040_192 + 3 * 396_361_728) * (1 + 4 / 16_384) + 2 * 926_679_040
    assert sum(whole.values()) - sum(over_all.values()) == pytest.approx(moved * 7 / 8)
    assert (round(sum(whole.values()) / 1e9, 1), round(sum(over_all.values()) / 1e9, 1)) == (100.8, 95.9)


def test_the_absorbed_form_keeps_its_matrices_once_more() -> None:
    """W^UK and W^UV in BF16: 61 layers of 512 x 128 heads x 256, divided over the TP GPUs."""
    for tp in (1, 8):
        held = weight_bytes_per_gpu(V3, gpus=8, tp=tp, absorbed="bf16")["absorbed"]
        assert held == 61 * 512 * 128 * 256 * 2 / tp
    assert "absorbed" not in weight_bytes_per_gpu(catalog.model("qwen3-235b"), gpus=8, absorbed="bf16")


def test_gathered_tokens_meet_an_eighth_of_each_matrix() -> None:
    """Eight ranks of 4 tokens: every GPU computes all 32 with an eighth of the width, and moves them there and back."""
    gathered, alone = step("sglang", 1, 1), step("vllm", 1, 1)
    for name in ("shared expert: gate and up", "dense FFN: gate and up", "head"):
        assert (gathered[name].shape["m"], alone[name].shape["m"]) == (32, 4)
        assert gathered[name].shape["n"] == alone[name].shape["n"] / 8
        assert gathered[name].flop == alone[name].flop
        assert gathered[name].bytes < alone[name].bytes / 3  # the weights are an eighth
    assert gathered["gate"].shape["m"] == 32
    moved = 32 * 7168 * 2
    assert gathered["dense FFN all-gather"].shape == {"bytes": moved, "gpus": 8}
    assert gathered["dense FFN reduce-scatter"].layers == 3
    assert gathered["gather tokens for the head"].shape["bytes"] == moved
    assert gathered["gather logits"].shape == {"bytes": 32 * 129_280 * 2, "gpus": 8}
    assert not {"dense FFN all-gather", "gather logits", "gather tokens for the head"} & alone.keys()


def test_a_whole_copy_on_each_gpu_sees_its_slice_of_the_ranks_tokens() -> None:
    """TP2 inside four ranks with DeepEP: each GPU takes 2 of its rank's 4 tokens through the whole shared expert."""
    deepep = step("sglang", 2, 8)
    assert deepep["shared expert: gate and up"].shape["m"] == 2
    assert deepep["shared expert: gate and up"].shape["n"] == 2 * 2048
    assert deepep["tensor-parallel all-reduce"].layers == 61  # of the attention; the dense FFN needs none


def test_one_attention_rank_is_plain_tensor_parallelism() -> None:
    for engine in ("sglang", "vllm", "trtllm"):
        tp8 = step(engine, 8, 1)
        assert tp8["dense FFN: gate and up"].shape["m"] == 4
        assert tp8["dense FFN: gate and up"].shape["n"] == 2 * 18_432 / 8
        assert tp8["tensor-parallel all-reduce"].layers == 64
        assert "dense FFN all-gather" not in tp8


def test_a_width_that_all_gpus_would_cut_inside_a_block_is_refused() -> None:
    """2,048 over 32 GPUs is half a block of FP8: SGLang refuses such weights."""
    serve = {"gpus": 32, "tp": 1, "ep": 16, "exchange": "all_gather"}
    wide = scenario(deployment={"serve": serve}, engine="sglang")
    assert {"deployment.serve.gpus"} <= {".".join(map(str, p.path)) for p in shape_problems(wide, "serve")}
    assert not shape_problems(scenario(deployment={"serve": serve}, engine="vllm"), "serve")
