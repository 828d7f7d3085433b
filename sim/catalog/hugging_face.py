"""A model from a Hugging Face `config.json`: its architecture is one that is modelled, or it is refused by name."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sim.catalog.facts import read, values
from sim.catalog.quantization import formats_of
from sim.catalog.shapes import LayerGroup, Model
from sim.files import read_text

MAX_FILE_BYTES: Final = 4 * 2**20
"""Far above any config.json; NVIDIA's list every module that stays BF16."""
LARGEST: Final = 10**7
"""Of any width, number or length of a model: ten times the largest vocabulary and the longest context."""
NESTED: Final = ("text_config", "language_config", "llm_config")
"""Where a multimodal model keeps its language model."""
FULL: Final = ("full_attention", "deepseek_sparse_attention")
"""Kinds of layers that are modelled."""
INDEXER: Final = ("index_n_heads", "index_head_dim", "index_topk")


class ConfigError(ValueError):
    """A model configuration that cannot be used; the one argument says why."""


def read_config(path: Path) -> Model:
    """The model that a `config.json` describes, named after the file.

    Raises ConfigError for what is no such file, what is not modelled (by name), and values that cannot be.
    Keys and defaults are those of transformers' configuration classes, see families.yaml.
    """
    try:
        config = json.loads(read_text(path, MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    try:
        return _model(str(path), config)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _model(name: str, whole: Mapping[str, Any]) -> Model:
    outer, config = whole, whole
    nested = next((key for key in NESTED if isinstance(whole.get(key), dict)), None)
    if nested:
        config = whole[nested]
    family = _family(outer, config)
    for key, why in read("families.yaml")["refused_keys"].items():
        if config.get(key):
            raise ValueError(f"{key}: {why}")
    for problem in _other_layers(config):
        raise ValueError(problem)
    reader = _Reader(config)
    layers, hidden, heads = (
        reader.count(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads")
    )
    routed = reader.first("n_routed_experts", "num_experts", "num_local_experts")
    if not routed and config.get("num_experts_per_tok"):
        raise ValueError("key n_routed_experts (or num_experts, num_local_experts) is missing")
    dense = reader.dense_layers(layers) if routed else layers
    moe_inter = reader.count(family.get("expert_width", "moe_intermediate_size")) if routed else 0
    latent = reader.optional("kv_lora_rank")
    mla = family.get("attention", "mla" if latent else "gqa") == "mla"
    if mla != bool(latent):
        raise ValueError(
            "kv_lora_rank is there, or missing, against the architecture; expected MLA or GQA as it says"
        )
    nope, rope = (reader.count(key) if mla else 0 for key in ("qk_nope_head_dim", "qk_rope_head_dim"))
    head_dim = nope + rope if mla else reader.head_dim(hidden, heads)
    formats = formats_of(
        config.get("quantization_config") or outer.get("quantization_config"),
        dense if routed else layers,
        layers,
    )
    kind = "gqa" if not mla else "dsa" if config.get("index_topk") else "mla"
    model = Model(
        name=name,
        attention=(LayerGroup(kind, layers),),
        dense_layers=dense,
        hidden=hidden,
        heads=heads,
        q_lora_rank=reader.optional("q_lora_rank") if mla else 0,
        kv_lora_rank=latent,
        qk_nope=nope,
        qk_rope=rope or head_dim,
        v_head_dim=reader.count("v_head_dim") if mla else head_dim,
        kv_heads=reader.optional("num_key_value_heads") or heads,
        head_dim=head_dim,
        moe_inter=moe_inter,
        dense_inter=reader.count("intermediate_size") if dense else 0,
        n_routed=routed,
        n_shared=reader.shared_experts(moe_inter) if routed else 0,
        top_k=reader.count("num_experts_per_tok") if routed else 0,
        n_group=reader.optional("n_group") or 1,
        topk_group=reader.optional("topk_group") or 1,
        vocab=reader.count("vocab_size"),
        nextn=reader.optional("num_nextn_predict_layers"),
        index_heads=reader.optional("index_n_heads"),
        index_head_dim=reader.optional("index_head_dim"),
        index_topk=reader.optional("index_topk"),
        max_positions=reader.count("max_position_embeddings"),
        tied_embedding=bool(config.get("tie_word_embeddings", outer.get("tie_word_embeddings", False))),
        weights=formats.weights,
        bf16_parts=("embedding", "head", "gate", "mtp_projection"),
        attention_weights=formats.attention,
        dense_weights=formats.dense,
        architecture=_named(config) or _named(outer),
        notes=(*formats.notes, *_left_out(outer, config)),
    )
    for problem in _contradictions(model, family):
        raise ValueError(problem)
    return model


class _Reader:
    """The values of a configuration, each checked as it is read; the key is in every message."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def count(self, key: str) -> int:
        """A whole number above 0. Raises ValueError."""
        if self.config.get(key) is None:
            raise ValueError(f"key {key!r} is missing; expected a config.json with MLA or GQA")
        return self._whole(key, least=1)

    def optional(self, key: str) -> int:
        """A whole number, 0 where there is none."""
        return 0 if self.config.get(key) is None else self._whole(key, least=0)

    def first(self, *keys: str) -> int:
        """The first of several names of one number; 0 where none is given."""
        return next((number for key in keys if (number := self.optional(key))), 0)

    def _whole(self, key: str, least: int) -> int:
        value = self.config[key]
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value <= LARGEST:
            shown = json.dumps(value)[:40]
            raise ValueError(f"{key}: expected a whole number from {least} to {LARGEST:,}, got {shown}")
        return value

    def head_dim(self, hidden: int, heads: int) -> int:
        """Width of a head, where it is not given the hidden width over the heads."""
        if given := self.optional("head_dim"):
            return given
        if hidden % heads:
            raise ValueError(f"hidden_size {hidden} does not divide over {heads} heads; expected head_dim")
        return hidden // heads

    def dense_layers(self, layers: int) -> int:
        """Leading dense layers. Raises ValueError where others are dense."""
        kinds = self.config.get("mlp_layer_types")
        leading = self.optional("first_k_dense_replace")
        if isinstance(kinds, list):
            leading = kinds.count("dense")
        in_front = not isinstance(kinds, list) or kinds == ["dense"] * leading + ["sparse"] * (
            layers - leading
        )
        if (
            not in_front
            or self.config.get("mlp_only_layers")
            or (self.config.get("decoder_sparse_step") or 1) != 1
            or (self.config.get("moe_layer_freq") or 1) != 1
        ):
            raise ValueError("dense layers between MoE layers are not modelled; expected them in front")
        if leading >= layers:
            raise ValueError(
                f"first_k_dense_replace {leading}: all {layers} layers are dense, but there are experts"
            )
        return leading

    def shared_experts(self, width: int) -> int:
        """Shared experts of the routed ones' width; one that is wider counts as several."""
        own = self.optional("shared_expert_intermediate_size")
        if own % width:
            raise ValueError(
                f"shared_expert_intermediate_size {own} is no multiple of the routed experts' {width}; not modelled"
            )
        return self.first("n_shared_experts", "num_shared_experts") or own // width


def _named(config: Mapping[str, Any]) -> str:
    """What a configuration calls its architecture: the class, else the type."""
    classes = config.get("architectures")
    first = classes[0] if isinstance(classes, list) and classes else None
    return str(first or config.get("model_type") or "")


def _family(outer: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The family of a configuration; empty where it names none. Raises ValueError for one that is not modelled."""
    known = read("families.yaml")
    found: dict[str, Any] = {}
    for owner in (config, outer):
        classes = owner.get("architectures")
        names = [
            str(n) for n in (owner.get("model_type"), *(classes if isinstance(classes, list) else ())) if n
        ]
        for name in names:
            for refused in known["refused"]:
                if name in refused["types"] or name in refused["classes"]:
                    raise ValueError(f"{name} is not modelled: {refused['why']}")
        families = [f for t, f in known["read"].items() if t in names or set(f["classes"]) & set(names)]
        for family in families:
            found = {**family, **found, "sparse": bool(family.get("sparse")) or bool(found.get("sparse"))}
        if names and not found:
            raise ValueError(
                f"architecture {' / '.join(names)} is not known; expected one of {', '.join(known['read'])}"
            )
        if found:
            break
    return found


def _other_layers(config: Mapping[str, Any]) -> Iterator[str]:
    """Layers that are of another kind than full (or DSA's sparse) attention."""
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        yield "attention in a sliding window is not modelled"
    kinds = config.get("layer_types")
    others = sorted({str(kind) for kind in kinds} - set(FULL)) if isinstance(kinds, list) else []
    if others:
        yield f"layer_types: {', '.join(others)} is not modelled; expected {FULL[0]} in every layer"
    indexers, every = config.get("indexer_types"), config.get("index_topk_freq") or 1
    if (
        config.get("index_topk_pattern")
        or every != 1
        or (isinstance(indexers, list) and "shared" in indexers)
    ):
        yield "layers that share an indexer are not modelled (GLM-5.2)"


def _left_out(outer: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """What is not read, in sentences."""
    if any(key.startswith(("vision", "audio")) for key in outer) and outer is not config:
        yield "text only: encoders of images and sound are left out"
    if not _named(config) and not _named(outer):
        yield "the file names no architecture; it is read by its keys"


def _contradictions(model: Model, family: Mapping[str, Any]) -> Iterator[str]:
    """Values that do not go together, and shapes that nothing here prices."""
    given = (model.index_heads, model.index_head_dim, model.index_topk)
    if (family.get("sparse") or any(given)) and not all(given):
        yield (
            f"sparse attention (DSA) without {', '.join(INDEXER)}; expected all three"
            + (
                f" (those of {name} are in the catalog: model: {name})"
                if (name := family.get("known_as"))
                else ""
            )
        )
    if model.heads % model.kv_heads:
        yield f"num_attention_heads {model.heads} is no multiple of num_key_value_heads {model.kv_heads}"
    if model.top_k > model.n_routed:
        yield f"num_experts_per_tok {model.top_k} of {model.n_routed} experts"
    if model.n_routed % model.n_group or model.topk_group > model.n_group:
        yield f"{model.n_routed} experts in n_group {model.n_group}, of which topk_group {model.topk_group}"
    layouts = values(read("models.yaml")["kv_layouts"])
    width = layouts["mla_bf16"] // 2
    if model.kv_lora_rank and model.kv_lora_rank + model.qk_rope != width:
        yield (
            f"kv_lora_rank {model.kv_lora_rank} + qk_rope_head_dim {model.qk_rope}: caches are known for latents of "
            f"{width} elements"
        )
    if any(given) and not model.kv_lora_rank:
        yield "sparse attention (DSA) without kv_lora_rank; expected it over the latent of MLA"
    if any(given) and model.index_head_dim + 4 != layouts["dsa_index_key"]:
        yield f"index_head_dim {model.index_head_dim}: index keys are known for {layouts['dsa_index_key'] - 4} elements"
