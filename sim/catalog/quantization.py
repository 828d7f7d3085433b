"""`quantization_config` of a Hugging Face config.json -> the number formats of the checkpoint's parts.

Formats of the checkpoints themselves: transformers (fp8, gptq, awq), compressed-tensors, NVIDIA's modelopt.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

LEFT_OUT_KEYS: Final = ("ignore", "exclude_modules", "modules_to_not_convert")
"""Where a configuration lists modules that stay as they were."""
MODELOPT: Final = {"FP8": "fp8", "FP8_PB_WO": "fp8", "NVFP4": "nvfp4"}
COMPRESSED: Final = {"float-quantized": "fp8", "nvfp4-pack-quantized": "nvfp4"}
INT4_GROUP: Final = 32
"""Weights that share one BF16 scale in the INT4 checkpoints that are modelled (Kimi K2 Thinking and K2.5)."""


@dataclass(frozen=True, slots=True)
class Formats:
    """Number formats of a checkpoint; None is the default beside `weights` (see `Precision` of a scenario)."""

    weights: str
    """Of the routed experts, or of everything in a dense model."""
    attention: str | None = None
    dense: str | None = None
    """Of the shared expert and of dense FFNs."""
    notes: tuple[str, ...] = ()
    """What was taken for granted, in sentences for the user."""


def formats_of(config: Mapping[str, Any] | None, dense_layers: int, layers: int) -> Formats:
    """The formats of a model of `layers` layers, of which the first `dense_layers` have a dense FFN.

    No configuration, or an empty one, is BF16. Raises ValueError where a format is not modelled, by its name.
    """
    if config is None or config == {}:
        return Formats("bf16")
    if not isinstance(config, dict):
        raise ValueError("quantization_config: expected an object")
    weights, notes = _weights(config)
    left_out = [p for key in LEFT_OUT_KEYS for p in config.get(key) or () if isinstance(p, str)]

    def stays(module: str, of: Iterable[int]) -> bool:
        """Whether a module is left out of most of the layers."""
        numbers = list(of)
        kept = sum(_left_out(f"model.layers.{layer}.{module}", left_out) for layer in numbers)
        return 2 * kept > len(numbers)

    moe = range(dense_layers, layers)
    if moe and stays("mlp.experts.0.down_proj", moe):
        raise ValueError(
            "quantization_config leaves the routed experts out; expected them quantised, or no such key"
        )
    attention = "bf16" if stays("self_attn.o_proj", range(layers)) else None
    ffn = stays("mlp.shared_experts.down_proj", moe) if moe else stays("mlp.down_proj", range(layers))
    if weights == "int4":
        return _int4(config, bool(attention and ffn), bool(left_out), bool(moe), notes)
    if weights == "nvfp4" and attention is None:
        notes = (*notes, "NVFP4 of the attention's projections is priced as FP8")
    return Formats(weights, attention, "bf16" if ffn else "nvfp4" if weights == "nvfp4" else None, notes)


def _int4(config: Mapping[str, Any], apart: bool, listed: bool, moe: bool, notes: tuple[str, ...]) -> Formats:
    """INT4 experts; everything else must have stayed BF16 (`apart`), or nothing be said about it."""
    if (
        not moe
        or (listed and not apart)
        or (not listed and config.get("quant_method") != "compressed-tensors")
    ):
        raise ValueError(
            "INT4 is modelled for routed experts only; expected attention, shared expert and dense FFN among the "
            "modules that are left out (they would need INT4 GEMMs, which nothing here prices)"
        )
    if not listed:
        notes = (
            *notes,
            "INT4 is taken to be of the routed experts only, the rest BF16: no module is listed as left out",
        )
    return Formats("int4", notes=notes)


def _weights(config: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The format of the weights, and what was taken for granted. Raises ValueError for what is not modelled."""
    method = str(config.get("quant_method", "")).lower()
    if method in ("fp8", "fbgemm_fp8"):
        return "fp8", ()
    if method.startswith("modelopt"):
        algorithm = str(config.get("quant_algo", "")).upper()
        if algorithm in MODELOPT:
            return MODELOPT[algorithm], ()
        raise ValueError(f"quant_algo {algorithm or 'missing'}: expected one of {', '.join(MODELOPT)}")
    if method == "compressed-tensors":
        return _compressed(config)
    if method in ("gptq", "awq"):
        return _int_format(config.get("bits"), config.get("group_size"), method), ()
    raise ValueError(
        f"quant_method {method or 'missing'} is not modelled; expected fp8, modelopt, compressed-tensors, gptq or awq"
    )


def _compressed(config: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    groups = config.get("config_groups")
    if not groups:
        told = str(config.get("format", ""))
        if told in COMPRESSED:
            return COMPRESSED[told], ()
        if told:
            raise ValueError(f"format {told} is not modelled; expected one of {', '.join(COMPRESSED)}")
        return "fp8", ("compressed-tensors without config_groups is taken to be FP8",)
    if not isinstance(groups, dict):
        raise ValueError("config_groups: expected an object")
    found = {_group(group, str(config.get("format", ""))) for group in groups.values()}
    if len(found) > 1:
        raise ValueError(f"quantisation in several formats ({', '.join(sorted(found))}) is not modelled")
    return found.pop(), ()


def _group(group: Any, told: str) -> str:
    """The format of one group of compressed-tensors."""
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        raise ValueError("config_groups: expected `weights` with num_bits and type in each group")
    kind, bits, size = weights.get("type", "int"), weights.get("num_bits"), weights.get("group_size")
    if kind == "float" and bits == 8:
        return "fp8"
    if kind == "float" and bits == 4 and size == 16 and "mxfp4" not in told:
        return "nvfp4"
    if kind == "float":
        name = "MXFP4" if bits == 4 else f"{bits}-bit floating point"
        raise ValueError(f"{name} weights are not modelled; expected FP8, or NVFP4 in groups of 16")
    if weights.get("strategy", "group") != "group":
        size = None
    return _int_format(bits, size, "compressed-tensors")


def _int_format(bits: object, size: object, method: str) -> str:
    if bits != 4:
        raise ValueError(f"INT{bits} weights ({method}) are not modelled; expected INT4")
    if size != INT4_GROUP:
        raise ValueError(
            f"INT4 in groups of {size} ({method}) is not modelled; expected groups of {INT4_GROUP}"
        )
    return "int4"


def _left_out(module: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns names the module, or one that it is part of: `re:` expression, glob or plain name."""
    names = (module, f"language_model.{module}")
    for pattern in patterns:
        if pattern.startswith("re:"):
            if any(_matches(pattern[3:], name) for name in names):
                return True
        elif "*" in pattern or "?" in pattern:
            if any(fnmatchcase(name, pattern) for name in names):
                return True
        elif any(f".{pattern}." in f".{name}." for name in names):
            return True
    return False


def _matches(expression: str, name: str) -> bool:
    try:
        return re.match(expression, name) is not None
    except re.error as error:
        raise ValueError(f"quantization_config: {expression!r} is no regular expression: {error}") from error
