"""DeepSeek-V4 through plan, step, estimate and simulation: its fixed part of the cache, its drafts, its own tables."""

from math import ceil
from typing import Any

import pytest

from sim.cluster.plan import cluster_plan
from sim.deployment.memory import MemoryBudget
from sim.deployment.plan import deploy
from sim.deployment.pools import unchecked_pool
from sim.deployment.understood import understood
from sim.explain import explain
from sim.scenario.errors import DeploymentError
from sim.scenario.schema import Scenario
from sim.simulation import simulate
from sim.steady import steady


def scenario(serve: dict[str, Any] | None = None, **changed: Any) -> Scenario:
    form = {
        "model": "deepseek-ai/DeepSeek-V4-Flash",
        "gpu": "b200_sxm",
        "engine": "sglang",
        "deployment": {"serve": {"gpus": 4, "ep": 4, "max_batch_per_gpu": 32, **(serve or {})}},
        "workload": {
            "arrivals": {"poisson": {"rate_per_s": 20}},
            "lengths": {"input": {"constant": 2000}, "output": {"constant": 50}},
            "requests": 40,
        },
    }
    return Scenario.model_validate(form | changed)


def test_a_run_is_priced_by_v4_s_own_tables() -> None:
    result = simulate(scenario())
    assert result.record.invariants == []
    found = result.json()
    assert found["requests"]["completed"] == 40
    assert steady(scenario()).point.tpot_s > 0
    rows = explain(scenario(), "decode", 16, 4000).json()["operations"]
    seconds = sum(row["seconds"] for row in rows)
    own = sum(row["seconds"] for row in rows if "deepseek-v4-flash" in row["source"])
    assert own / seconds > 0.6
    assert {row["priced_by"] for row in rows} <= {"measured", "fitted", "extrapolated", "analytic"}


def test_every_request_holds_its_windows_and_states() -> None:
    """15,420,416 B beside 3,850.25 B a token (FP8), in blocks of 64 tokens: 63; a prompt of 2,000 tokens has 32."""
    plan = deploy(scenario(engine="trtllm"))
    memory = plan.pools["serve"].memory
    assert (memory.cache_bytes_per_token, memory.cache_bytes_per_request) == (3850.25, 15_420_416)
    assert memory.request_blocks == ceil(15_420_416 / (64 * 3850.25)) == 63
    assert cluster_plan(plan, seed=0).pools["serve"].blocks_of(2000) == 32 + 63


def test_vllm_s_windows_and_states_take_pages_of_the_one_pool() -> None:
    """vLLM, issue 54703: pages of 256 tokens; 2 x (128 / 64 + 1) of windows, 8 / 4 + 1 of CSA's states and 128 / 8 + 1
    of HCA's: 26 a request, 104 blocks of 64 tokens."""
    pages = 2 * (128 // 64 + 1) + (8 // 4 + 1) + (128 // 8 + 1)
    memory = deploy(scenario(engine="vllm")).pools["serve"].memory
    assert memory.cache_bytes_per_request == pages * 256 * 3850.25
    assert memory.request_blocks == 26 * 4


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("sglang", "in pools of their own"),
        ("vllm", f"{26 * 256} more tokens"),
        ("trtllm", "15.4 MB of cache beside its tokens"),
    ],
)
def test_what_a_request_holds_is_told_as_the_engine_holds_it(engine: str, words: str) -> None:
    """26 pages of 256 tokens; 15,420,416 B: see above."""
    assert sum(words in note for note in understood(scenario(engine=engine)).notes) == 1


def h200(release: str, drafts: int = 0, **serve: Any) -> MemoryBudget:
    """V4-Pro with TP8 on a node of H200 (or what `serve` says), whether it fits or not."""
    said = {"draft_tokens": drafts, "acceptance": [0.9] * drafts} if drafts else {}
    form = {"gpus": 8, "tp": 8, "ep": 1, "max_batch_per_gpu": 8} | serve
    gpu = form.pop("gpu", "h200_sxm")
    one = scenario(
        form,
        model="deepseek-v4-pro",
        gpu=gpu,
        engine_version=release,
        speculation=said,
        precision={"kv_cache": "fp8"},
    )
    return unchecked_pool(one, "serve").memory


MISSED_FRACTIONS = {0: (0.9113, 0.9057), 3: (0.9335, 0.9227)}
"""By drafts: the least --mem-fraction-static that SGLang asks for on H200, in a build that leaves the loader's scales
and counts the draft model (InferenceX, issue 2128), and the least that fits here. The second is read off our own memory
model, which is 0.006 and 0.011 too generous: it only guards against getting worse."""


@pytest.mark.parametrize("drafts", MISSED_FRACTIONS)
def test_the_static_fraction_that_leaves_room_for_a_cache_is_missed_by_so_much(drafts: int) -> None:
    """See `MISSED_FRACTIONS`: half of a percent was the bar, and with three drafts the miss is twice that."""
    _, found = MISSED_FRACTIONS[drafts]
    assert not h200("0.5.14", drafts, memory_fraction=found - 0.0005).fits
    assert h200("0.5.14", drafts, memory_fraction=found + 0.0005).fits


MISSED_ROOM = {"h200": (109_312, 130_915), "h20": (1_059_584, 1_157_086)}
"""Tokens that SGLang's pool of V4-Pro holds: as published, and here. The second is read off our own memory model, which
is 19.8% and 9.2% too generous: it only guards against getting worse."""
ASKED = 0.2
"""The bar that was set for the room of V4-Pro on a node of H200; how far off it is stands in `MISSED_ROOM`."""


def test_room_of_v4_pro_on_a_node_of_h200() -> None:
    """The same issue: with 0.94 and MTP the pool holds 109,312 tokens, about 15 requests of 8,192 in and 1,024 out; the
    draft model was loaded after it then. 3.97 GiB = 12.25 of 137.9 GiB left, less 6% of 137.9.

    Here it holds 19.8% more, just within the 20% that were asked for: see `MISSED_ROOM`.
    """
    room = h200("0.5.13", 3, memory_fraction=0.94)
    published, found = MISSED_ROOM["h200"]
    assert room.kv_tokens == pytest.approx(found, rel=1e-3)
    assert room.kv_tokens == pytest.approx(published, rel=ASKED)
    assert room.kv_tokens / (8192 + 1024) == pytest.approx(15, rel=ASKED)
    # What is loaded after the pool is in the memory all the same.
    both = h200("0.5.14", 3, memory_fraction=0.94)
    assert both.weights_bytes == room.weights_bytes
    assert both.kv_cache_bytes < room.kv_cache_bytes - 1.5 * 2**30


def test_room_of_v4_pro_on_two_nodes_of_h20() -> None:
    """SGLang, pull request 23933: 16 H20 with 96 GB, TP16 with two ranks of attention, 0.9: 1,059,584 tokens, in an
    image of 2026-04 without the scales, and with the shared expert (66 MB x 61) whole on every GPU. Here 9.2% more: see
    `MISSED_ROOM`."""
    room = h200("0.5.11", gpu="h20", gpus=16, memory_fraction=0.9)
    whole = 61 * 66.06e6 * 15 / 16
    tokens = (room.kv_cache_bytes - whole) / room.cache_bytes_per_token
    published, found = MISSED_ROOM["h20"]
    assert tokens == pytest.approx(found, rel=1e-3)
    assert tokens == pytest.approx(published, rel=ASKED)


def test_v4_pro_on_eight_h200_is_nearly_all_weights_where_every_rank_holds_the_attention() -> None:
    """GB on each GPU, attention DP 8 and EP 8: attention 18.30 and indexer 0.38, compressors 1.59 in BF16, an eighth of
    the experts' 822.05, a shared expert of 4.03 per GPU, hyper-connections and gate 0.34 each, embedding and head 1.85
    each: 131.4 of 151.4. vLLM's 8% and a chunk of 8,192 tokens then leave no room, a chunk of 2,048 leaves a little."""

    def memory(**serve: Any) -> MemoryBudget:
        form = {"gpus": 8, "ep": 8, "max_batch_per_gpu": 8, **serve}
        return (
            deploy(scenario(form, model="deepseek-v4-pro", gpu="h200_sxm", engine="vllm"))
            .pools["serve"]
            .memory
        )

    short = memory(chunk_tokens=2048)
    by_hand = 18.30 + 0.38 + 1.59 + 822.05 / 8 + 4.03 + 0.34 + 0.34 + 2 * 1.85
    assert short.weights_bytes / 1e9 == pytest.approx(by_hand, abs=0.05)
    assert short.tokens_of(1, 9216) < short.kv_tokens < short.tokens_of(30, 9216)
    with pytest.raises(DeploymentError, match="does not fit"):
        memory()


def test_sglang_s_pool_of_windows_and_states() -> None:
    """InferenceX, issue 2128: V4-Pro on H200, TP8 with MTP, 3.97 GiB for 109,312 tokens.

    By hand, B per token: entries and index keys 5,511.4; a tenth of 61 windows' entries, 61 x 584 = 35,624, and of the
    rings, twice (30 x 81,920 + 31 x 524,288) / 128 = 292,352; 62 / 61 of that for the module. From 0.5.16 on HCA's
    rings, 31 x 524,288 = 16,252,928 B, twice with drafts, are of the seats and two more.
    """
    memory = h200("0.5.14", 1, memory_fraction=0.96)
    assert memory.cache_bytes_per_token == pytest.approx((5511.4375 + 0.1 * (35_624 + 292_352)) * 62 / 61)
    assert memory.request_blocks == 0
    assert 3.97 * 2**30 / memory.cache_bytes_per_token == pytest.approx(109_312, rel=0.002)
    later = h200("0.5.16", 1, memory_fraction=0.96)
    rings = 2 * 30 * 81_920 / 128
    assert later.cache_bytes_per_token == pytest.approx((5511.4375 + 0.1 * (35_624 + rings)) * 62 / 61)
    assert later.seats_bytes == (64 + 2) * 2 * 16_252_928


def test_weights_of_v4_pro_over_eight_h200() -> None:
    """GiB a GPU in SGLang's log with TP8 and Marlin (InferenceX, issue 2128): 103 to 104 in the image of 2026-09,
    125.65 in one that leaves the loader's scales, 4 B for every 32 of 1,547e9 weights: 22.5 GiB. Beside the eighth of
    the checkpoint, 101.9: wo_a in BF16, 61 x 67.1 MB / 8 = 0.48, and rotations for 1,048,576 positions of 32 pairs,
    0.25."""
    assert h200("0.5.16").weights_bytes / 2**30 == pytest.approx(103.5, rel=0.01)
    left = h200("0.5.14").weights_bytes - h200("0.5.16").weights_bytes
    assert left == pytest.approx(4 / 32 * 384 * 66_060_288 * 61 / 8)
    assert h200("0.5.14").weights_bytes / 2**30 == pytest.approx(125.65, rel=0.01)
    # None of it on Blackwell but the rotations, and none in another engine.
    b200 = h200("0.5.14", gpu="b200_sxm").weights_bytes
    assert h200("0.5.16", gpu="b200_sxm").weights_bytes == b200
    assert h200("0.5.16").weights_bytes - b200 == pytest.approx(61 * 67_108_864 / 8, rel=1e-3)


def test_a_newer_release_is_named_where_it_would_fit() -> None:
    one = scenario({"gpus": 8, "tp": 8, "ep": 1}, model="deepseek-v4-pro", gpu="h200_sxm")
    with pytest.raises(DeploymentError, match=r'engine_version "0\.5\.16"'):
        deploy(one)


@pytest.mark.parametrize("pools", ["serve", "prefill and decode"])
def test_drafts_of_the_module(pools: str) -> None:
    drafts = {"speculation": {"draft_tokens": 2, "acceptance": [0.7, 0.41]}}
    one = {"gpus": 4, "ep": 4, "max_batch_per_gpu": 32}
    deployment = {"prefill": one, "decode": one} if pools != "serve" else {"serve": one}
    result = simulate(scenario(deployment=deployment, **drafts))
    assert result.record.invariants == []
    assert result.json()["requests"]["completed"] == 40


def test_index_keys_in_fp4_need_v4_and_fp4_arithmetic() -> None:
    fp4 = {"precision": {"kv_cache": "fp8_fp4"}}
    assert deploy(scenario(engine="vllm", **fp4)).pools["serve"].memory.cache_bytes_per_token == 3514.25
    for other in ({"gpu": "h200_sxm"}, {"model": "deepseek-v3.2"}):
        with pytest.raises(
            DeploymentError, match="fp8_fp4 is for V4's index keys on GPUs with FP4 arithmetic"
        ):
            deploy(scenario(**fp4, **other))


def test_the_exchange_inside_the_experts_needs_attention_ranks() -> None:
    pro = {"model": "deepseek-v4-pro", "gpu": "gb300_nvl72"}
    named = {"gpus": 8, "ep": 8, "moe_backend": "mega_moe"}
    rows = explain(scenario(named, **pro), "decode", 16, 4000).json()["operations"]
    assert not {"dispatch (low-latency)", "combine (low-latency)"} & {row["name"] for row in rows}
    with pytest.raises(DeploymentError, match="mega_moe exchanges tokens itself"):
        explain(scenario({**named, "tp": 8, "ep": 1}, **pro), "decode", 16, 4000)
    with pytest.raises(DeploymentError, match="unknown mxfp4 back-end 'mega_moe'; expected trtllm_gen"):
        explain(scenario({"moe_backend": "mega_moe"}), "decode", 16, 4000)
