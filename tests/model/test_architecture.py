"""Every number of the model table (design/MODEL.md, section 1), by hand.

Shapes of V3: hidden d = 7168, heads H = 128, query latent 1536, key-value latent 512, decoupled RoPE key 64,
no-position part 128, value head 128, expert width 2048, dense width 18432, 256 routed + 1 shared experts, top-8,
61 layers of which 3 dense, vocabulary 129280 (config.json; DeepSeek-V3 report, arXiv:2412.19437, section 4.2).
BF16 in the FP8 checkpoint: embedding, head, gate and eh_proj; all else FP8 with one FP32 scale per 128 x 128.
Norms and the gate's bias (1.0 M parameters) are not counted.
"""

import pytest

from sim import catalog
from sim.model import architecture as arch
from sim.model import operations as ops
from sim.model.attention import kinds

V3, V32 = catalog.model("deepseek-v3"), catalog.model("deepseek-v3.2")
QWEN, LITE = catalog.model("qwen3-235b-a22b"), catalog.model("deepseek-v2-lite")

ATTENTION = (
    7168 * 1536  # W^DQ
    + 1536 * 128 * (128 + 64)  # W^UQ, W^QR
    + 7168 * (512 + 64)  # W^DKV, W^KR
    + 512 * 128 * (128 + 128)  # W^UK, W^UV
    + 128 * 128 * 7168  # W^O
)
INDEXER = 1536 * 64 * 128 + 7168 * 128 + 7168 * 64
EXPERT = 3 * 7168 * 2048
GATE = 256 * 7168
VOCABULARY = 129280 * 7168


def billions(count: float) -> float:
    return round(count / 1e9, 2)


def test_parts_of_a_v3_layer() -> None:
    assert arch.parameters(V3)["attention"] == 61 * ATTENTION == 61 * 187_105_280
    assert arch.parameters(V32)["indexer"] == 61 * INDEXER == 61 * 13_959_168
    assert arch.parameters(V3)["indexer"] == 0
    assert arch.expert_parameters(V3) == EXPERT == 44_040_192
    assert arch.dense_ffn_parameters(V3) == 3 * 7168 * 18432 == 396_361_728


def test_total_parameters_of_the_main_model() -> None:
    by_hand = 61 * ATTENTION + 3 * 396_361_728 + 58 * (257 * EXPERT + GATE) + 2 * VOCABULARY
    assert arch.total_parameters(V3) == by_hand
    assert billions(arch.total_parameters(V3)) == 671.03
    assert arch.total_parameters(V32) == by_hand + 61 * INDEXER
    assert billions(arch.total_parameters(V32)) == 671.88


def test_active_parameters_leave_the_embedding_lookup_out() -> None:
    by_hand = 61 * ATTENTION + 3 * 396_361_728 + 58 * (9 * EXPERT + GATE) + VOCABULARY
    assert arch.active_parameters(V3) == by_hand
    assert billions(arch.active_parameters(V3)) == 36.62
    assert billions(arch.active_parameters(V32)) == 37.48


def test_mtp_module_is_one_moe_layer_and_a_projection() -> None:
    by_hand = ATTENTION + 257 * EXPERT + GATE + 2 * 7168**2
    assert sum(arch.mtp_parameters(V3).values()) == by_hand
    assert billions(by_hand) == 11.61
    assert billions(sum(arch.mtp_parameters(V32).values())) == 11.62
    assert round(arch.mtp_active_parameters(V3) / 1e9, 3) == 1.615
    assert arch.mtp_active_parameters(LITE) == 0


def test_linear_work_per_token() -> None:
    assert billions(arch.linear_flop_per_token(V3)) == 73.25
    assert billions(arch.linear_flop_per_token(V32)) == 74.95
    # Prefill runs the head on the last token only: 73.25 - 2 x 0.92668 = 71.40.
    assert round(arch.linear_flop_per_token(V3, head=False) / 1e9, 1) == 71.4


def test_cache_bytes_per_token() -> None:
    assert arch.cache_bytes_per_token(V3, "bf16") == (512 + 64) * 2 * 61 == 70_272
    assert arch.cache_bytes_per_token(V3, "fp8") == 576 * 61 == 35_136
    latent = 512 + 4 * 4 + 64 * 2  # fp8 latent, FP32 scale per 128, BF16 RoPE key: 656
    [(dsa, layers)] = kinds(V32)
    assert dsa.index_bytes() == 128 + 4
    assert dsa.token_bytes("fp8") == latent + 132
    assert (layers * latent, layers * 132) == (40_016, 8_052)
    assert arch.cache_bytes_per_token(V32, "fp8") == 48_068
    assert arch.cache_bytes_per_token(V32, "bf16") == 78_324
    assert arch.cache_bytes_per_token(QWEN, "bf16") == 2 * 4 * 128 * 2 * 94 == 192_512
    assert arch.cache_bytes_per_token(LITE, "bf16") == 1152 * 27 == 31_104


@pytest.mark.parametrize("model", [V3, V32, QWEN, LITE])
def test_a_cache_of_whole_attention_is_its_tokens_and_nothing_else(model: catalog.Model) -> None:
    assert arch.cache_bytes_per_request(model, "fp8", mtp=True, tp=2) == 0
    assert arch.cache_bytes(model, "fp8", 1000) == 1000 * arch.cache_bytes_per_token(model, "fp8")


def test_mtp_layer_has_a_cache_too() -> None:
    assert arch.cache_bytes_per_token(V3, "bf16", mtp=True) == 62 * 1152 == 71_424
    assert arch.cache_bytes_per_token(V32, "fp8", mtp=True) == 62 * 788 == 48_856


def test_tp_shards_gqa_heads_but_neither_latent_nor_index_keys() -> None:
    assert arch.cache_bytes_per_token(V32, "fp8", tp=8) == 48_068
    assert arch.cache_bytes_per_token(QWEN, "bf16", tp=2) == 192_512 // 2
    # Four key-value heads on eight GPUs: each keeps one whole head, so half of them are copies.
    assert arch.cache_bytes_per_token(QWEN, "bf16", tp=8) == 192_512 // 4


def test_attention_flop_per_query_and_key() -> None:
    expanded = ops.mla_prefill(128, batch=1, new=1, cached=0, qk_dim=192, v_dim=128, kv_cache="bf16")
    assert expanded.flop == 2 * 128 * (192 + 128) == 81_920
    absorbed = ops.mla_decode(
        128, batch=1, context=1, queries=1, kv_lora=512, rope=64, entry_bytes=1152, kv_cache="bf16"
    )
    assert absorbed.flop == 2 * 128 * (2 * 512 + 64) == 278_528
    logits = ops.index_logits(batch=1, new=1, cached=0, index_heads=64, index_dim=128, key_bytes=132)
    assert logits.flop == 2 * 64 * 128 == 16_384
    # Expanding a cached token's latent to keys and values: 33.55 MFLOP per layer.
    up = next(m for m in kinds(V3)[0][0].matrices() if m.name == "key-value latent, up")
    assert 2 * up.parameters == 33_554_432


@pytest.mark.parametrize(("context", "dense", "index"), [(4096, 69.6, 4.09), (131072, 2227, 131)])
def test_decode_attention_of_the_whole_model(context: int, dense: float, index: float) -> None:
    absorbed = ops.mla_decode(
        128, batch=1, context=context, queries=1, kv_lora=512, rope=64, entry_bytes=1152, kv_cache="bf16"
    )
    assert 61 * absorbed.flop / 1e9 == pytest.approx(dense, rel=1e-3)
    cached = context - 1
    logits = ops.index_logits(batch=1, new=1, cached=cached, index_heads=64, index_dim=128, key_bytes=132)
    assert 61 * logits.flop / 1e9 == pytest.approx(index, rel=2e-3)
    sparse = ops.sparse_mla(
        "decode", 128, batch=1, new=1, cached=cached, top_k=2048, kv_lora=512, rope=64,
        entry_bytes=656, kv_cache="fp8",
    )  # fmt: skip
    assert round(61 * sparse.flop / 1e9, 1) == 34.8


@pytest.mark.parametrize(("gpus", "redundant", "gb"), [(8, 0, 103.6), (32, 32, 43.8), (144, 32, 25.6)])
def test_weights_per_gpu_of_v32_with_mtp(gpus: int, redundant: int, gb: float) -> None:
    held = arch.weight_bytes_per_gpu(V32, gpus=gpus, redundant=redundant, mtp=True)
    slots = (256 + redundant) / gpus
    fp8 = 62 * (ATTENTION + INDEXER) + 3 * 396_361_728 + 59 * (1 + slots) * EXPERT
    bf16 = 2 * VOCABULARY + 59 * GATE + 2 * 7168**2
    assert sum(held.values()) == pytest.approx(fp8 * (1 + 4 / 16384) + 2 * bf16)
    assert round(sum(held.values()) / 1e9, 1) == gb


def test_tp_shards_what_heads_and_widths_divide() -> None:
    whole = arch.weight_bytes_per_gpu(V32, gpus=8)
    half = arch.weight_bytes_per_gpu(V32, gpus=8, tp=2)
    for part in ("shared", "dense_ffn", "embedding", "head"):
        assert half[part] == pytest.approx(whole[part] / 2)
    for part in ("indexer", "gate", "routed"):
        assert half[part] == whole[part]
    # The down-projections to the latents are on every GPU: 7168 x (1536 + 576) parameters.
    down = 7168 * (1536 + 576)
    assert half["attention"] == pytest.approx(61 * ((ATTENTION - down) / 2 + down) * (1 + 4 / 16384))


def test_nvfp4_is_for_routed_experts_only() -> None:
    fp8 = arch.weight_bytes_per_gpu(V3, gpus=8)
    nvfp4 = arch.weight_bytes_per_gpu(V3, gpus=8, weights="nvfp4")
    assert nvfp4["routed"] == 58 * 32 * EXPERT * (0.5 + 1 / 16)
    assert {p: b for p, b in nvfp4.items() if p != "routed"} == {
        p: b for p, b in fp8.items() if p != "routed"
    }


def test_bf16_weights_are_two_bytes_each() -> None:
    assert sum(arch.weight_bytes_per_gpu(LITE, gpus=1, weights="bf16").values()) == 2 * arch.total_parameters(
        LITE
    )
    assert billions(arch.total_parameters(LITE)) == 15.71  # "15.7B", DeepSeek-V2 paper, arXiv:2405.04434


def test_gqa_baseline() -> None:
    layer = 4096 * 64 * 128 + 2 * 4096 * 4 * 128 + 64 * 128 * 4096 + 128 * 3 * 4096 * 1536 + 128 * 4096
    assert arch.total_parameters(QWEN) == 94 * layer + 2 * 151936 * 4096
    assert round(arch.total_parameters(QWEN) / 1e9) == 235  # its name: 235B-A22B
    assert round((arch.active_parameters(QWEN) + 151936 * 4096) / 1e9) == 22
