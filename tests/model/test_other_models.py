"""Models beside DeepSeek's: parameter and cache counts by hand, and a dense model through every step of a service.

Shapes from the models' config.json. Published: Kimi-K2 1.03 T parameters, 32 B active; GLM-5 743 B; Llama-3.1 405 B
and 516,096 bytes of BF16 cache per token (arXiv:2505.09343, table 1).
"""

import pytest

from sim import catalog
from sim.model import architecture as arch
from sim.model.attention import Batch, attention_operations
from sim.model.layers import token_operations
from sim.model.layout import ExpertRows, Layout

KIMI, GLM, LLAMA = (catalog.model(name) for name in ("kimi-k2", "glm-5", "llama-3.1-405b"))
NO_EXPERTS = ExpertRows(0.0, 0.0, 0.0, 0.0, 0.0)


def test_kimi_k2_is_v3_with_half_the_heads_and_half_as_many_experts_again() -> None:
    attention = (
        7168 * 1536 + 1536 * 64 * 192 + 7168 * 576 + 512 * 64 * 256 + 64 * 128 * 7168
    )  # query latent, query, key-value latent, keys and values, output
    expert = 3 * 7168 * 2048
    moe = 385 * expert + 384 * 7168
    by_hand = 61 * attention + 3 * 7168 * 18432 + 60 * moe + 2 * 163_840 * 7168
    assert arch.total_parameters(KIMI) == by_hand
    assert round(by_hand / 1e9) == 1026
    assert round(arch.active_parameters(KIMI) / 1e9, 1) == 31.7
    assert arch.cache_bytes_per_token(KIMI, "bf16") == 61 * 1152


def test_glm_5_has_wider_heads_and_an_indexer_of_32_heads() -> None:
    attention = 6144 * 2048 + 2048 * 64 * 256 + 6144 * 576 + 512 * 64 * (192 + 256) + 64 * 256 * 6144
    indexer = 2048 * 32 * 128 + 6144 * 128 + 6144 * 32
    expert = 3 * 6144 * 2048
    moe = 257 * expert + 256 * 6144
    by_hand = 78 * (attention + indexer) + 3 * (3 * 6144 * 12288) + 75 * moe + 2 * 154_880 * 6144
    assert arch.total_parameters(GLM) == by_hand
    assert round(by_hand / 1e9) == 744
    assert arch.cache_bytes_per_token(GLM, "fp8") == 78 * (656 + 132) == 61_464


def test_llama_is_dense_and_caches_seven_times_as_much_as_v3() -> None:
    layer = 16384 * 16384 * 2 + 16384 * 2 * 8 * 128 + 3 * 16384 * 53248
    by_hand = 126 * layer + 2 * 128_256 * 16384
    assert arch.total_parameters(LLAMA) == by_hand
    assert round(by_hand / 1e9) == 406
    assert arch.active_parameters(LLAMA) == by_hand - 128_256 * 16384  # all but the embedding's look-up
    assert arch.cache_bytes_per_token(LLAMA, "bf16") == 2 * 8 * 128 * 2 * 126 == 516_096
    weights = arch.weight_bytes_per_gpu(LLAMA, gpus=8, tp=8, weights="bf16")
    assert weights["routed"] == 0
    assert sum(weights.values()) == pytest.approx(2 * by_hand / 8)


def test_a_dense_model_does_two_flop_per_parameter_and_sends_no_token_to_an_expert() -> None:
    whole = Layout(LLAMA, gpus=1, tp=1, ep=1, gpus_per_node=8)
    step = token_operations(whole, 1, NO_EXPERTS, logits=1)
    [block] = attention_operations(whole, LLAMA.attention, Batch("decode", 1, 1, 99))
    step += block.parts
    linear = sum(o.flop * o.layers for o in step if o.kernel == "gemm")
    assert linear == 2 * arch.active_parameters(LLAMA)
    sharded = Layout(LLAMA, gpus=8, tp=8, ep=1, gpus_per_node=8)
    moved = [o for o in token_operations(sharded, 64, NO_EXPERTS, 64) if o.group == "communication"]
    assert {o.kernel for o in moved if o.stream != "once"} == {
        "all_reduce"
    }  # one after attention, one after the FFN
    [logits] = [o for o in moved if o.stream == "once"]
    assert (logits.kernel, logits.shape["bytes"]) == ("all_gather", 64 * 128_256 * 2)


def test_gqa_decode_reads_its_keys_and_values_once() -> None:
    tp8 = Layout(LLAMA, gpus=8, tp=8, ep=1, gpus_per_node=8, kv_cache="bf16")
    [block] = attention_operations(tp8, LLAMA.attention, Batch("decode", 32, 1, 4095))
    core = next(p for p in block.parts if p.kernel == "gqa_decode")
    cache = 32 * 4096 * 2 * 1 * 128 * 2  # one of the eight key-value heads on each GPU
    queries_and_outputs = 32 * 2 * 16 * 128 * 2
    assert core.bytes == cache + queries_and_outputs
    assert core.flop == 4 * 16 * 128 * 32 * 4096  # 16 heads, query-key and probability-value
