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
