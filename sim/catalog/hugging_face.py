"""A model from a Hugging Face `config.json` of the DeepSeek-V2/V3/V3.2, Qwen-MoE or Llama families."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sim.catalog.shapes import Model
from sim.files import read_text

LARGEST_CONFIG_BYTES: Final = 2**20
"""Public ones have a few KB."""
LARGEST_SIZE: Final = 10**7
"""Of any width, number or length of a model: ten times the largest vocabulary and the longest context."""
POSITIVE: Final = frozenset(
    {"num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size", "max_position_embeddings"}
)
SIZES: Final = frozenset(
    {
        "n_routed_experts", "num_experts", "num_local_experts", "num_experts_per_tok", "first_k_dense_replace",
        "n_shared_experts", "kv_lora_rank", "q_lora_rank", "head_dim", "qk_nope_head_dim", "qk_rope_head_dim",
        "v_head_dim", "num_key_value_heads", "moe_intermediate_size", "intermediate_size", "n_group", "topk_group",
        "num_nextn_predict_layers", "index_n_heads", "index_head_dim", "index_topk",
    }
)  # fmt: skip
"""Keys of a config.json that are sizes; those of `POSITIVE` are never 0."""


class ConfigError(ValueError):
    """A model configuration that cannot be used; the one argument says why."""


def read_config(path: Path) -> Model:
    """The model that a `config.json` describes, named after the file. Raises ConfigError.

    Keys and defaults are those of transformers' DeepseekV3Config, Qwen3MoeConfig and LlamaConfig.
    """
    try:
        config = json.loads(read_text(path, LARGEST_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    try:
        _check_sizes(config)
        return _model(str(path), config)
    except KeyError as missing:
        raise ConfigError(
            f"{path}: key {missing} is missing; expected a config.json with MLA or GQA"
        ) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_sizes(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a size that no model can have."""
    for key, value in config.items():
        least = 1 if key in POSITIVE else 0
        if (
            (key in POSITIVE or key in SIZES)
            and value is not None
            and not least <= int(value) <= LARGEST_SIZE
        ):
            raise ValueError(f"{key}: expected {least:,} to {LARGEST_SIZE:,}, got {str(value)[:40]}")


def _model(name: str, config: Mapping[str, Any]) -> Model:
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        raise ValueError("attention in a sliding window is not modelled")
    if (
        config.get("mlp_only_layers")
        or config.get("decoder_sparse_step", 1) != 1
        or config.get("moe_layer_freq", 1) != 1
    ):
        raise ValueError("dense layers between MoE layers are not modelled; expected them in front")
    layers, heads, hidden = (
        int(config[key]) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    routed = int(config.get("n_routed_experts") or config.get("num_experts") or 0)
    if not routed and "num_experts_per_tok" in config:
        raise KeyError("n_routed_experts")
    dense = int(config.get("first_k_dense_replace", 0)) if routed else layers
    shared = int(config.get("n_shared_experts") or 0)
    latent = int(config.get("kv_lora_rank") or 0)
    head_dim = int(config.get("head_dim") or hidden // heads)
    quantized = config.get("quantization_config") is not None
    return Model(
        name=name,
        attention="mla" if latent else "gqa",
        layers=layers,
        dense_layers=dense,
        hidden=hidden,
        heads=heads,
        q_lora_rank=int(config.get("q_lora_rank") or 0),
        kv_lora_rank=latent,
        qk_nope=int(config["qk_nope_head_dim"]) if latent else 0,
        qk_rope=int(config["qk_rope_head_dim"]) if latent else head_dim,
        v_head_dim=int(config["v_head_dim"]) if latent else head_dim,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config["qk_nope_head_dim"]) + int(config["qk_rope_head_dim"]) if latent else head_dim,
        moe_inter=int(config["moe_intermediate_size"]) if routed else 0,
        dense_inter=int(config["intermediate_size"]) if dense else 0,
        n_routed=routed,
        n_shared=shared,
        top_k=int(config["num_experts_per_tok"]) if routed else 0,
        n_group=int(config.get("n_group") or 1),
        topk_group=int(config.get("topk_group") or 1),
        vocab=int(config["vocab_size"]),
        nextn=int(config.get("num_nextn_predict_layers") or 0),
        index_heads=int(config.get("index_n_heads") or 0),
        index_head_dim=int(config.get("index_head_dim") or 0),
        index_topk=int(config.get("index_topk") or 0),
        max_positions=int(config["max_position_embeddings"]),
        tied_embedding=bool(config.get("tie_word_embeddings", False)),
        weights="fp8" if quantized else "bf16",
        bf16_parts=("embedding", "head", "gate", "mtp_projection"),
    )
