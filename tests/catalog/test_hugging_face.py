"""A Hugging Face config.json stands for a model of the catalog."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sim import catalog
from sim.model import architecture

# The fields of deepseek-ai/DeepSeek-V3.2-Exp config.json that matter here.
V32: dict[str, Any] = {
    "num_hidden_layers": 61, "first_k_dense_replace": 3, "hidden_size": 7168, "num_attention_heads": 128,
    "num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "moe_intermediate_size": 2048, "intermediate_size": 18432,
    "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
    "vocab_size": 129280, "num_nextn_predict_layers": 1, "index_n_heads": 64, "index_head_dim": 128,
    "index_topk": 2048, "max_position_embeddings": 163840, "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "fp8"}, "moe_layer_freq": 1,
}  # fmt: skip

# meta-llama/Meta-Llama-3.1-405B config.json: dense, GQA.
LLAMA: dict[str, Any] = {
    "num_hidden_layers": 126, "hidden_size": 16384, "num_attention_heads": 128, "num_key_value_heads": 8,
    "intermediate_size": 53248, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip


def write(folder: Path, content: str) -> str:
    file = folder / "config.json"
    file.write_text(content, encoding="utf-8")
    return str(file)


def test_v32_is_the_catalogs(tmp_path: Path) -> None:
    described = catalog.model(write(tmp_path, json.dumps(V32)))
    assert replace(described, name="deepseek-v3.2") == catalog.model("deepseek-v3.2")


def test_a_dense_model_with_grouped_queries(tmp_path: Path) -> None:
    """Llama 3.1 405B: 516,096 bytes of BF16 cache per token (ISCA 2025, table 1), 405.85e9 parameters."""
    described = catalog.model(write(tmp_path, json.dumps(LLAMA)))
    assert architecture.cache_bytes_per_token(described, "bf16") == 2 * 8 * 128 * 2 * 126 == 516_096
    assert architecture.total_parameters(described) / 1e9 == pytest.approx(405.85, abs=0.01)
    assert (
        architecture.active_parameters(described) == architecture.total_parameters(described) - 128256 * 16384
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        (json.dumps({k: v for k, v in V32.items() if k != "v_head_dim"}), "v_head_dim"),
        (json.dumps(V32 | {"hidden_size": "wide"}), "wide"),
        (json.dumps(V32 | {"mlp_only_layers": [5]}), "dense layers"),
        (json.dumps(LLAMA | {"sliding_window": 4096}), "sliding window"),
        (json.dumps({k: v for k, v in LLAMA.items() if k != "intermediate_size"}), "intermediate_size"),
        (json.dumps({k: v for k, v in V32.items() if k != "n_routed_experts"}), "n_routed_experts"),
        (json.dumps(V32 | {"kv_lora_rank": 256}), "latents of 576"),
        (
            json.dumps(LLAMA | {"index_n_heads": 64, "index_head_dim": 128, "index_topk": 2048}),
            "over the latent of MLA",
        ),
        (json.dumps(V32 | {"num_experts_per_tok": 300}), "300 of 256 experts"),
        (json.dumps(V32 | {"first_k_dense_replace": 61}), "all 61 layers"),
        (json.dumps(V32 | {"n_group": 7}), "n_group 7"),
        (json.dumps(LLAMA | {"num_key_value_heads": 7}), "no multiple"),
        (json.dumps(LLAMA | {"num_attention_heads": 96}), "head_dim"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_an_unusable_file_says_why(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(catalog.ConfigError, match=said):
        catalog.model(write(tmp_path, content))


def test_a_window_that_is_off_does_not_matter(tmp_path: Path) -> None:
    off = LLAMA | {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}
    assert catalog.model(write(tmp_path, json.dumps(off))).layers == 126


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(catalog.ConfigError, match=r"config\.json"):
        catalog.model(str(tmp_path / "config.json"))


GLM5 = V32 | {"architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa"}
INT4 = {
    "quant_method": "compressed-tensors", "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}},
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"],
}  # fmt: skip
# moonshotai/Kimi-K2-Thinking config.json, as K2.5's text_config has it (ai-dynamo/aiconfigurator, model_configs).
KIMI: dict[str, Any] = V32 | {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "num_attention_heads": 64,
    "num_key_value_heads": 64, "n_routed_experts": 384, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "vocab_size": 163840, "max_position_embeddings": 262144, "num_nextn_predict_layers": 0,
    "index_n_heads": None, "index_head_dim": None, "index_topk": None, "quantization_config": INT4,
}  # fmt: skip


def described(folder: Path, config: dict[str, Any]) -> catalog.Model:
    return catalog.model(write(folder, json.dumps(config)))


@pytest.mark.parametrize("key", [k for k, v in V32.items() if type(v) is int and k != "moe_layer_freq"])
@pytest.mark.parametrize("value", [-1, 1.5, "8", True, 10**12])
def test_every_number_is_checked(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(catalog.ConfigError, match=f"{key}: expected a whole number"):
        described(tmp_path, V32 | {key: value})


@pytest.mark.parametrize("key", ["num_attention_heads", "num_hidden_layers", "hidden_size", "vocab_size"])
def test_nothing_of_it_is_zero(tmp_path: Path, key: str) -> None:
    with pytest.raises(catalog.ConfigError, match=f"{key}: expected a whole number from 1"):
        described(tmp_path, V32 | {key: 0})


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"model_type": "qwen3_next"}, "linear attention"),
        ({"architectures": ["Qwen3NextForCausalLM"]}, "linear attention"),
        ({"model_type": "gpt_oss"}, "sliding window"),
        ({"model_type": "minimax_m2"}, "norms queries"),
        ({"architectures": ["DeepseekV4ForCausalLM"]}, "compressed attention"),
        ({"model_type": "brand_new"}, "brand_new is not known"),
        ({"full_attention_interval": 4}, "linear attention"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention is not modelled"),
        ({"layer_types": ["sliding_attention"] * 126}, "sliding_attention is not modelled"),
        ({"compress_ratios": [0, 4]}, "compressed attention"),
        ({"text_config": {"model_type": "qwen3_5_moe_text"}}, "linear attention"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(tmp_path: Path, named: dict[str, Any], said: str) -> None:
    with pytest.raises(catalog.ConfigError, match=said):
        described(tmp_path, LLAMA | named)


def test_layers_that_are_all_alike_are_read(tmp_path: Path) -> None:
    assert (
        described(tmp_path, LLAMA | {"model_type": "llama", "layer_types": ["full_attention"] * 126}).layers
        == 126
    )
    every = {"layer_types": ["deepseek_sparse_attention"] * 61, "indexer_types": ["full"] * 61}
    assert described(tmp_path, GLM5 | every).attention[0].attention == "dsa"


def test_sparse_attention_without_its_indexer_is_never_read_as_dense(tmp_path: Path) -> None:
    for missing in ("index_topk", "index_n_heads", "index_head_dim"):
        config = {k: v for k, v in GLM5.items() if k != missing}
        with pytest.raises(catalog.ConfigError, match="model: glm-5"):
            described(tmp_path, config)
    with pytest.raises(catalog.ConfigError, match="share an indexer"):
        described(tmp_path, GLM5 | {"indexer_types": ["full", "shared"]})


@pytest.mark.parametrize("nested", [False, True])
def test_int4_experts_weigh_what_their_checkpoint_does(tmp_path: Path, nested: bool) -> None:
    """594 GB on the Hub: 60 x 384 x 3 x 7168 x 2048 x (1/2 + 2/32) bytes of experts = 570.8 GB, and 11.7e9 BF16
    parameters beside them, some of which every GPU holds whole. At TP8 about 74 GB per GPU."""
    config = {"model_type": "kimi_k25", "text_config": KIMI, "vision_config": {}} if nested else KIMI
    model = described(tmp_path, config)
    assert (model.weights, model.architecture) == ("int4", "DeepseekV3ForCausalLM")
    assert ("text only: encoders of images and sound are left out" in model.notes) == nested
    parts = architecture.weight_bytes_per_gpu(
        model, gpus=8, tp=8, weights="int4", attention="bf16", dense="bf16"
    )
    assert parts["routed"] * 8 == 60 * 384 * 3 * 7168 * 2048 * (1 / 2 + 2 / 32)
    assert sum(parts.values()) / 1e9 == pytest.approx(594 / 8, rel=0.03)


FP8_GROUP = {"config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}}}
NVFP4_GROUP = {"config_groups": {"g": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}}}


@pytest.mark.parametrize(
    ("quantization", "formats"),
    [
        (None, ("bf16", None, None)),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ("fp8", None, None)),
        ({"quant_method": "compressed-tensors", **FP8_GROUP}, ("fp8", None, None)),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, ("fp8", None, None)),
        (
            {"quant_method": "compressed-tensors", **NVFP4_GROUP, "ignore": ["re:.*self_attn.*"]},
            ("nvfp4", "bf16", "nvfp4"),
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP4",
             "ignore": ["lm_head", *(f"model.layers.{i}.self_attn*" for i in range(61))]},
            ("nvfp4", "bf16", "nvfp4"),
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["*self_attn*", "*shared_experts*"]},
            ("fp8", "bf16", "bf16"),
        ),
        (INT4, ("int4", None, None)),
    ],
)  # fmt: skip
def test_formats_are_those_of_the_checkpoint(
    tmp_path: Path, quantization: object, formats: tuple[str | None, ...]
) -> None:
    model = described(tmp_path, V32 | {"quantization_config": quantization})
    assert (model.weights, model.attention_weights, model.dense_weights) == formats


@pytest.mark.parametrize(
    ("quantization", "said"),
    [
        ({"quant_method": "mxfp4"}, "mxfp4 is not modelled"),
        ({"quant_method": "bitsandbytes"}, "bitsandbytes is not modelled"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "MIXED_PRECISION"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "groups of 128"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 32}, "INT8"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "routed experts only"),
        ({**INT4, "ignore": ["lm_head"]}, "routed experts only"),
        ({**INT4, "ignore": ["re:.*(unclosed"]}, "regular expression"),
        ({**INT4, "config_groups": {"a": {}}}, "num_bits"),
        ({**INT4, "ignore": ["re:.*experts.*"]}, "routed experts out"),
        ("fp8", "expected an object"),
    ],
)
def test_formats_that_are_not_modelled_are_refused(tmp_path: Path, quantization: object, said: str) -> None:
    with pytest.raises(catalog.ConfigError, match=said):
        described(tmp_path, V32 | {"quantization_config": quantization})


def test_a_shared_expert_that_is_wider_counts_as_several(tmp_path: Path) -> None:
    """Qwen1.5-MoE-A2.7B: a shared expert of 5,632 beside routed ones of 1,408."""
    moe = LLAMA | {
        "model_type": "qwen2_moe", "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
    }  # fmt: skip
    assert described(tmp_path, moe).n_shared == 4
    with pytest.raises(catalog.ConfigError, match="no multiple"):
        described(tmp_path, moe | {"shared_expert_intermediate_size": 5000})


def test_experts_under_another_name(tmp_path: Path) -> None:
    """mistralai/Mixtral-8x7B: 8 experts, whose width is intermediate_size."""
    mixtral = LLAMA | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    model = described(tmp_path, mixtral)
    assert (model.n_routed, model.moe_inter, model.dense_layers) == (8, 53248, 0)
